"""How a vault fills, told from its entries, and what of storage is large, told from an index."""

import random
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from bookreader_backup_assets.actions.catalog import Catalog
from bookreader_backup_assets.actions.growth import growth, history
from bookreader_backup_assets.actions.largest import totalled
from bookreader_backup_assets.actions.prune_records import Pruned, Removal, begin
from bookreader_backup_assets.core.artifact import Companion, Entry
from bookreader_backup_assets.core.errors import VaultError
from bookreader_backup_assets.vaults.local import LocalVault

NOW = datetime(2026, 6, 30, 10, tzinfo=UTC)
ASSETS = ("postgresql/dump", "storage/archive")


class Disk(LocalVault):
    """A vault on a disk with so much room."""

    room = 1_000_000

    def free(self):
        if self.room is None:
            raise VaultError("the vault cannot be written")
        return self.room


@pytest.fixture
def vault(tmp_path):
    """An empty vault on a disk of its own."""
    return Disk(tmp_path / "vault")


def keep(vault, asset, at, size, **more):
    """Write the entry of an artifact: growth looks at nothing else."""
    component, artifact = asset.split("/")
    name = f"{component}/{artifact}_{at:%Y-%m-%d_%H-%M-%S}.bin"
    fields = {"set": at.date().isoformat(), **more}
    entry = Entry("i", component, artifact, name, captured_at=at, size=size, sha256="0" * 64, **fields)
    vault.put(entry.entry_name, [entry.to_json()])
    return entry


def nights(vault, count, size=lambda _: 1000, asset="postgresql/dump"):
    """Keep an artifact for each of the last nights at 02:00; `size` is of how many nights ago."""
    for ago in range(count):
        keep(vault, asset, NOW - timedelta(days=ago, hours=8), size(ago))


def found(vault, now=NOW):
    """Return what is said of a vault."""
    return growth(Catalog(vault), ASSETS, now)


def test_sizes_now_a_week_and_a_month_ago(vault):
    """Each is that of the newest artifact of then, with its companions; labelled ones are extra."""
    nights(vault, 40, size=lambda ago: 10_000 - ago)
    index = (Companion("index", "storage/i", 500, "0" * 64),)
    keep(vault, "storage/archive", NOW - timedelta(days=8), 7000, companions=index)
    keep(vault, "postgresql/dump", NOW - timedelta(minutes=1), 1, label="pre-deploy")
    dump, storage = found(vault).assets
    assert (dump.newest, dump.week_ago, dump.month_ago) == (10_000, 9_993, 9_970)
    assert (storage.newest, storage.week_ago, storage.month_ago) == (7500, 7500, None)


def test_the_rate_is_what_the_last_thirty_days_added(vault):
    """All artifacts count, companions and labelled ones too; what is older does not."""
    nights(vault, 60, size=lambda ago: 1000 if ago < 30 else 900_000)
    keep(vault, "postgresql/dump", NOW - timedelta(days=2), 3000, label="pre-deploy")
    keep(vault, "logs/archive", NOW - timedelta(days=3), 5000)
    one = (Companion("index", "storage/i", 6000, "0" * 64),)
    keep(vault, "storage/archive", NOW - timedelta(days=3), 1000, companions=one)
    said = found(vault)
    assert (said.days, said.per_day) == (30, (30 * 1000 + 3000 + 5000 + 7000) / 30)
    assert [round(one.per_day) for one in said.assets] == [1100, 233]
    assert said.days_left == pytest.approx(1_000_000 / 1500)


@pytest.mark.parametrize("hours", [0, 1, 9, 15])
def test_a_short_history_counts_whole_days(vault, hours):
    """So many days have so many nights, whatever time it is: no rate is a third too high on the third."""
    nights(vault, 6)
    said = found(vault, NOW + timedelta(hours=hours))
    assert (said.days, said.per_day) == (5, 1000)


def test_nothing_is_said_of_less_than_three_days(vault):
    """Neither a rate nor a day; one that is empty has nothing to say either."""
    assert (found(vault).per_day, found(vault).days_left, found(vault).soon) == (None, None, False)
    nights(vault, 3)
    said = found(vault)
    assert (said.days, said.per_day, said.days_left) == (2, None, None)
    assert {one.per_day for one in said.assets} == {None}


def test_what_does_not_grow_is_never_full(vault):
    """A rate of nothing gives no day, and no negative one; smaller artifacts are no negative growth."""
    keep(vault, "postgresql/dump", NOW - timedelta(days=50), 1000)
    said = found(vault)
    assert (said.per_day, said.days_left, said.soon) == (0, None, False)
    nights(vault, 20, size=lambda ago: 1000 + ago)
    assert found(vault).per_day > 0


def test_what_was_pruned_is_taken_off(vault):
    """By the record: what went in the window and is older; not what came in it too, or is still there."""
    nights(vault, 10)
    keep(vault, "postgresql/dump", NOW - timedelta(days=9, hours=9), 5)

    def went(days_ago, size, asset="postgresql/dump", artifact="gone"):
        return Removal(artifact, asset, (), size, NOW - timedelta(days=days_ago), "because")

    there = Catalog(vault).entries()[0].name
    gone = (went(20, 40_000), went(30, 9000, "storage/archive"), went(3, 700), went(20, 9, artifact=there))
    begin(vault, Pruned("", "i", "local", NOW - timedelta(days=1), removed=gone))
    begin(vault, Pruned("", "i", "local", NOW - timedelta(days=4), removed=(went(40, 900_000),)))
    begin(vault, Pruned("", "i", "local", NOW - timedelta(days=12), removed=(went(20, 77),)))
    begin(vault, Pruned("", "i", "nas", NOW - timedelta(days=1), removed=(went(20, 88),)))
    said = found(vault)
    assert (said.days, said.per_day) == (9, (9 * 1000 - 49_000) / 9)
    assert [one.per_day for one in said.assets] == [(9 * 1000 - 40_000) / 9, -1000]
    assert (said.days_left, said.soon) == (None, False)


def test_one_large_prune_is_no_rate(vault):
    """A first prune takes years away at once, and the vault still fills: by the nights, less usual prunes."""
    nights(vault, 40)

    def pruned(days_ago, *sizes):
        at = NOW - timedelta(days=days_ago)
        gone = tuple(
            Removal(f"gone-{days_ago}-{n}", "postgresql/dump", (), size, NOW - timedelta(days=90), "over")
            for n, size in enumerate(sizes)
        )
        begin(vault, Pruned("", "i", "local", at, removed=gone))

    pruned(5, 600_000)
    pruned(5.1, 300_000)
    assert (found(vault).per_day, found(vault).assets[0].per_day) == (1000, 1000)
    for days_ago in range(1, 5):
        pruned(days_ago, 300)
    assert found(vault).per_day == (30 * 1000 - 4 * 300) / 30
    assert found(vault).days_left > 0


def test_an_artifact_of_the_future_tells_nothing(vault):
    """A clock that was ahead makes no size of today, and no growth."""
    nights(vault, 10)
    keep(vault, "postgresql/dump", NOW + timedelta(days=3), 10**9)
    assert (found(vault).per_day, found(vault).assets[0].newest) == (1000, 1000)


@pytest.mark.parametrize(
    ("room", "short", "soon"),
    [
        (1499, True, True),
        (1500, False, True),
        (6999, False, True),
        (7000, False, False),
        (None, False, False),
    ],
)
def test_less_than_a_week_and_less_than_the_next_night(vault, room, short, soon):
    """Half as much again as the last set has to fit; room that is not known is no alarm."""
    nights(vault, 10)
    vault.__class__ = type("Small", (Disk,), {"room": room})
    said = found(vault)
    assert (said.needed, said.short, said.soon) == (1500, short, soon)
    assert (said.why != "") is (room is None)


def test_history_has_the_newest_sets_by_component(vault):
    """Newest first, so many of them, what each added; hours are of their day, labelled sets are none."""
    nights(vault, 20)
    keep(vault, "storage/archive", NOW, 70)
    keep(vault, "logs/archive", NOW - timedelta(hours=1), 4, set="2026-06-30-08:00")
    keep(vault, "logs/archive", NOW - timedelta(hours=2), 5, set="2026-06-30-07:00")
    keep(vault, "postgresql/dump", NOW, 9, label="x", set="2026-06-30_10-00-00_x")
    days = history(Catalog(vault), 14)
    assert [day for day, _ in days] == [f"2026-06-{30 - ago:02}" for ago in range(14)]
    assert days[0][1] == {"postgresql": 1000, "storage": 70, "logs": 9}
    assert days[1][1] == {"postgresql": 1000}


ARCHIVE = Entry("i", "storage", "archive", "storage/x", "2026-06-30", NOW, 1, "0" * 64)


def walked(paths):
    """Return paths in the order of an archive: the files of a folder, then each folder in it whole."""

    def order(path):
        *folders, name = path.split(b"/")
        return [*((1, folder) for folder in folders), (0, name)]

    return sorted(paths, key=order)


def test_folders_and_files_are_ranked_as_a_walk_would():
    """Against the plain way to count, on trees of any shape: two levels of folders, and all files."""
    draw = random.Random(4)
    for _ in range(30):
        paths = {
            b"/".join(draw.choice([b"a", b"b", b"a-b", b"c"]) for _ in range(draw.randint(1, 5))) + b".f"
            for _ in range(draw.randint(0, 120))
        }
        sizes = {path: draw.randint(1, 10**6) for path in paths}
        folders = {}
        for path, size in sizes.items():
            parts = path.split(b"/")[:-1]
            for depth in range(1, min(2, len(parts)) + 1):
                name = b"/".join(parts[:depth]).decode()
                folders[name] = folders.get(name, 0) + size
        said = totalled(ARCHIVE, [(path, sizes[path]) for path in walked(paths)])
        assert (said.bytes, said.files) == (sum(sizes.values()), len(sizes))
        assert [size for _, size in said.folders] == sorted(folders.values(), reverse=True)[:5]
        assert all(folders[path] == size for path, size in said.folders)
        assert [size for _, size in said.largest] == sorted(sizes.values(), reverse=True)[:10]
        assert all(sizes[path.encode()] == size for path, size in said.largest)


def test_memory_is_flat_over_any_number_of_folders():
    """A folder per book is totalled and let go of: ten thousand take no more than fifty."""

    def files(count):
        for book in range(count):
            yield b"books/%06d/text.epub" % book, book

    peaks = []
    for count in (50, 10_000):
        tracemalloc.start()
        assert totalled(ARCHIVE, files(count)).folders[0] == ("books", count * (count - 1) // 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_names_that_are_no_text():
    """Any bytes come back as text that says them; nothing at all has no largest."""
    said = totalled(ARCHIVE, [(b"caf\xe9/x", 5)])
    assert (said.folders, said.largest) == ((("caf\udce9", 5),), (("caf\udce9/x", 5),))
    assert (totalled(ARCHIVE, []).bytes, totalled(ARCHIVE, []).largest) == (0, ())
