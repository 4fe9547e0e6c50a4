"""The resources: the installation that the actions work on, and the client of S3 that it has here.

They are made from the settings where a run executes, so that nothing of them, least of all a secret, is
run config or shows in the UI.
"""

from dataclasses import replace
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from bookreader_backup_assets.actions.installation import Installation
from bookreader_backup_assets.vaults.s3_access import Access, connect
from bookreader_backup_assets.vaults.s3_place import Bucket

INSTALLATION, S3 = "installation", "s3"
_OFFSITE = "offsite"


def resources(installation: Installation) -> tuple[Installation, dict[str, Any]]:
    """Return the resources of the code location, and the installation with the client of S3 that is one."""
    outside, found = dict(installation.outside), {}
    vault = outside.get(_OFFSITE)
    if vault is not None and isinstance(vault.place, Bucket):
        found[S3] = s3_of(vault.place.access)
        place = replace(vault.place, client=vault.place.client or found[S3].get_client)
        outside[_OFFSITE] = replace(vault, place=place)
        installation = replace(installation, outside=outside)
    return installation, {INSTALLATION: dg.ResourceDefinition.hardcoded_resource(installation), **found}


def s3_of(access: Access) -> S3Resource:
    """Return Dagster's resource for the bucket's service.

    The keys are in none of its fields, since the UI shows those; and its client is our own, since fields
    cannot ask for paths instead of host names, nor for our checksums instead of boto3's.
    """

    class OffsiteS3(S3Resource):
        """The service that the offsite vault is on. Its keys come from the settings, and show nowhere."""

        def get_client(self) -> Any:
            """Return a client of boto3."""
            return connect(access)

    return OffsiteS3(endpoint_url=access.endpoint or None, region_name=access.region or None)
