"""An installation with a vault away from it, and what tests of its copies in Dagster do with it."""

import dagster as dg

from bookreader_backup_assets.actions.capture import capture
from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.seal import MANIFEST, ManifestComponent, seal
from bookreader_backup_assets.actions.verify import verify

from .conftest import QUIET

DAY = "2026-06-10"
PLAN = """
timezone = "Europe/Berlin"
deadline = "05:00"
[weekly]
at = "03:00"
nas = { weeks = 4 }
[redis]
at = "02:30"
[storage]
at = "03:00"
nas = { days = 30 }
[labels]
nas = { days = 30 }
"""
STORAGE = "nas/storage_archive"


def key(name: str) -> dg.AssetKey:
    """An asset's key."""
    return dg.AssetKey(name.split("/"))


class Away:
    """What the tests do with an self.installation."""

    def __init__(self, planned, clock, instance):
        self.installation, self.plan, self.definitions = planned
        self.clock, self.instance = clock, instance
        self.cursor, self.cursors = None, {}

    def run(self, assets, day, *, checks=None, unchecked=False, config=None):
        """Run assets and their checks as the UI does, or some checks alone."""
        graph = self.definitions.resolve_asset_graph()
        selection = dg.AssetSelection.assets(*map(key, assets))
        if checks:
            selection = dg.AssetSelection.checks(
                *(dg.AssetCheckKey(key(one), "same_bytes") for one in checks)
            )
        if unchecked:
            selection = selection.without_checks()
        days = graph.get(key([*assets, *(checks or ())][0])).partitions_def
        job = dg.define_asset_job("asked", selection, partitions_def=days)
        made = dg.Definitions.merge(self.definitions, dg.Definitions(jobs=[job]))
        ops = {"ops": {one.replace("/", "__"): {"config": config} for one in assets}} if config else {}
        return made.resolve_job_def("asked").execute_in_process(
            instance=self.instance,
            tags={"dagster/partition": day},  # as `partition_key`, which checks alone cannot have
            raise_on_error=False,
            run_config={**QUIET, **ops},
        )

    def capture(self, asset, day=None, **more):
        """Capture and verify without Dagster."""
        component = self.installation.component(asset)
        entry, _ = capture(self.installation, component, day or self.installation.today(), **more)
        self.clock.forward(seconds=2)
        verify(self.installation, component, entry)
        self.clock.forward(seconds=2)
        return entry

    def seal(self, asset=MANIFEST, day=None):
        """Seal a set, and check its manifest."""
        entry = seal(self.installation, day or self.installation.today(), asset)
        self.clock.forward(seconds=1)
        verify(self.installation, ManifestComponent(asset=asset), entry)
        return entry

    def verify(self, entry):
        """Verify an artifact again."""
        self.clock.forward(seconds=1)
        verify(self.installation, self.installation.component(entry.asset), entry)

    def partitions(self, *assets):
        """How assets are partitioned."""
        graph = self.definitions.resolve_asset_graph()
        return {one: graph.get(key(one)).partitions_def for one in assets}

    @property
    def nas(self):
        """The installation's vault on the NAS."""
        return self.installation.vault_outside("nas").vault(self.installation.id)

    def there(self):
        """The names of the artifacts that the NAS has."""
        return {entry.name for entry in self.copies()}

    def copies(self):
        """The entries that the NAS has."""
        return Catalog(self.nas).entries()

    def automation(self):
        """What automation asks for at this tick: asset and partition."""
        said = dg.evaluate_automation_conditions(
            defs=self.definitions, instance=self.instance, cursor=self.cursor, evaluation_time=self.clock()
        )
        self.cursor = said.cursor
        return sorted(
            (result.key.to_user_string(), partition)
            for result in said.results
            for partition in result.true_subset.expensively_compute_partition_keys()
        )

    def say(self, name):
        """What a sensor asks for, or why there is nothing to do."""
        sensor = self.definitions.resolve_sensor_def(name)
        with dg.build_sensor_context(
            instance=self.instance,
            repository_def=self.definitions.get_repository_def(),
            cursor=self.cursors.get(name),
        ) as context:
            said = sensor.evaluate_tick(context)
        self.cursors[name] = said.cursor
        return said.run_requests or said.skip_message


def metadata(result, asset):
    """The metadata of an asset's materialization in a run."""
    (made,) = result.asset_materializations_for_node(asset.replace("/", "__"))
    return {name: value.value for name, value in made.metadata.items()}


def checks(result):
    """Which checks passed, by asset."""
    return {e.asset_key.to_user_string(): e.passed for e in result.get_asset_check_evaluations()}


def flip(vault, name):
    """Change a byte of a file in a folder."""
    path = vault.local_path(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def failure(result):
    """What the failed step said."""
    (said,) = (e.step_failure_data.user_failure_data for e in result.all_node_events if e.is_step_failure)
    return said
