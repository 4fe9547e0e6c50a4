"""The one resource: the installation that the actions work on.

It is made from the settings where a run executes, so that nothing of it, least of all a secret, is
run config or shows in the UI.
"""

import dagster as dg

from bookreader_backup_assets.actions.installation import Installation

INSTALLATION = "installation"


def resources(installation: Installation) -> dict[str, object]:
    """Return the resources of the code location."""
    return {INSTALLATION: dg.ResourceDefinition.hardcoded_resource(installation)}
