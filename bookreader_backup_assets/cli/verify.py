"""`verify`: read a set again and make all its checks, restores into scratch servers included."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

import click

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.drill_report import DrillComponent
from bookreader_backup_assets.actions.installation import LOCAL
from bookreader_backup_assets.actions.members import absent_members
from bookreader_backup_assets.actions.seal import ManifestComponent
from bookreader_backup_assets.actions.verify import prove
from bookreader_backup_assets.assembly import assemble
from bookreader_backup_assets.cli import output
from bookreader_backup_assets.components.base import Component
from bookreader_backup_assets.core.errors import RefusedError, VaultError
from bookreader_backup_assets.core.hour import is_hour
from bookreader_backup_assets.settings import load_settings


@click.command("verify")
@click.argument("set_id", required=False, metavar="[SET]")
@click.option("--asset", help="Only this asset, such as postgresql/dump.")
@output.vault_option
@output.json_option
def command(set_id: str | None, asset: str | None, vault: str, as_json: bool) -> None:
    """Verify a SET (default: the newest): every artifact is read again, and restored where that is its check.

    What is found is kept beside each artifact as a proof; where another vault than the local one takes none,
    it is printed all the same. What the set's manifest names, and is not there, has failed, unless retention
    has removed it. Exit status 1 if anything failed.
    """
    own = replace(assemble(load_settings()), watch=output.watch)
    installation = own.reading(vault)
    catalog = Catalog(installation.vault)
    entries = catalog.entries(asset=asset or "")
    if not entries:
        raise RefusedError("there is nothing to verify", hint="`bookreader-backup list` shows what there is")
    regular = [entry for entry in entries if entry.regular and (asset or not is_hour(entry.set))]
    chosen = set_id or (regular or entries)[-1].set
    manifests = "backup_set"
    held = [e for e in catalog.entries(asset=asset or "", set_id=chosen) if e.component != manifests or asset]
    still = [
        entry
        for name in installation.components
        if (not asset or name == asset) and (entry := catalog.of_day(name, chosen)) and entry.set != chosen
    ]
    absent = absent_members(own, catalog, chosen, vault, asset or "")
    if not held + still and not absent:
        sets = catalog.sets()
        raise RefusedError(f"there is no set {chosen!r}", hint=f"there are: {', '.join(sets[-5:])}")
    rows, documents, unkept = [], [], ""
    for entry in held + still:
        made: dict[str, Component] = {manifests: ManifestComponent(), "assurance": DrillComponent()}
        component = made.get(entry.component) or installation.component(entry.asset)
        proof = prove(installation, component, entry)
        try:
            installation.keep(proof)
        except VaultError as error:
            if vault == LOCAL:
                raise
            unkept = error.message
        documents.append({"artifact": entry.name, "checks": [asdict(outcome) for outcome in proof.checks]})
        rows += [
            [entry.asset, o.check, str(o.verdict), output.span(o.seconds), o.message] for o in proof.checks
        ]
    for gone in absent:
        documents.append({"artifact": gone.artifact, "checks": [asdict(gone.outcome)]})
        rows.append([gone.asset, gone.outcome.check, str(gone.outcome.verdict), "", gone.outcome.message])
    if unkept:
        click.echo(f"what was found is not kept as a proof: {unkept}", err=True)
    if as_json:
        output.say_json({"set": chosen, "artifacts": documents})
    else:
        output.say(f"\nbackup set {chosen}\n")
        output.table(["asset", "check", "verdict", "took", "found"], rows, right=(3,))
    sys.exit(0 if all(row[2] == "passed" for row in rows) else 1)
