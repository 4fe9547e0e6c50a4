"""Two years of nights under the production plan, with outages, wrong clocks and a changed plan.

What may go is told by a second reading of the guide's table, which knows nothing of reasons.
"""

from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import pytest

from bookreader_backup_assets.core.hour import HOUR, begin_of, is_hour, key_of
from bookreader_backup_assets.core.retention import Keep, Pin, decide, still_wanted
from tests.fixtures.held import HERE, OBJECTIVES, held_of, night, production, sunday

FIRST, NIGHTS = date(2026, 12, 1), 730
LOCAL, OFFSITE = "local", "offsite"
DAILY = {"postgresql": (2, 0), "redis": (2, 30), "storage": (3, 0), "config": (3, 15)}

DOWN = {  # nights without a capture
    "postgresql": [*range(40, 43), *range(600, 605)],
    "logs": [*range(350, 352)],
    "everything": [*range(650, 654), *range(680, 691)],
}
UNPROVEN = range(120, 127)  # the archives of storage fail their checks
OFFSITE_DOWN = range(550, 557)
NOT_PRUNED = range(500, 510)
PINNED = (140, 150, 220)  # the set of a night, pinned on another, until a third
FORWARD, BACK = 200, 250  # the clock of the prune alone is wrong: 400 days ahead, three days behind
CAPTURED_AHEAD, TAKEN_AWAY = 400, 404  # captures, too, were made 400 days ahead; removed by hand later
WRONG = {FORWARD, BACK, *range(CAPTURED_AHEAD, TAKEN_AWAY)}
TWO_WEEKS = range(300, 360)  # of databases, in a plan that was changed for a while
WITHOUT_REDIS = range(420, 450)


class Years:
    """The two vaults of one installation, night after night."""

    def __init__(self, zone, logged):
        self.zone = zone
        self.logged = logged
        self.vaults = {LOCAL: {}, OFFSITE: {}}
        self.newest = {}
        self.hours = night(FIRST, 5, zone=zone)
        self.refused = {vault: set() for vault in self.vaults}
        self.largest = dict.fromkeys(self.vaults, 0)

    def put(self, what, at, set_id=None, **more):
        """Capture something."""
        one = held_of(what, at, set_id, zone=self.zone, **more)
        self.vaults[LOCAL][one.entry.name] = one
        if one.entry.regular:
            self.newest[what] = one.entry.name
        return one

    def policy(self, vault, number):
        """Return what the plan of that night keeps in a vault."""
        policy = production(vault, self.zone)
        rows, objectives = dict(policy.rows), dict(OBJECTIVES)
        if vault == LOCAL and number in TWO_WEEKS:
            rows["postgresql"] = Keep(14, "days")
        if number in WITHOUT_REDIS:
            rows.pop("redis", None)
            del objectives["redis"]
        return replace(policy, rows=rows, objectives=objectives)

    def capture(self, number, day, ahead):
        """Capture a night, its sets, and the hours before it."""

        def at(hour, minute=0):
            return night(day, hour, minute, self.zone) + ahead

        def down(what):
            return number in DOWN["everything"] or number in DOWN.get(what, ())

        for what, (hour, minute) in DAILY.items():
            if down(what) or (what == "redis" and number in WITHOUT_REDIS):
                continue
            when = at(3, minute) if sunday(day) else at(hour, minute)
            if what == "config" and number % 23:
                self.found_unchanged(what, when)
            elif what == "storage":
                full = self.newest.get("full")
                one = self.put(
                    what,
                    when,
                    verified=number not in UNPROVEN,
                    needs=[] if sunday(day) or not full else [full],
                )
                self.newest["full"] = one.entry.name if sunday(day) else full
            else:
                self.put(what, when)
        if sunday(day) and not down("code"):
            if number // 7 % 3:
                self.found_unchanged("code", at(3, 50))
            else:
                self.put("code", at(3, 50))
        self.seal(number, day, at, down)
        until = at(5)
        while self.hours + HOUR <= until and not ahead:
            if self.hours.hour in self.logged and not down("logs"):
                self.put("logs", self.hours + HOUR + timedelta(minutes=5), key_of(self.hours))
            self.hours += HOUR

    def seal(self, number, day, at, down):
        """Capture what is of no single component: labelled sets, a drill's report, manifests."""
        if number % 17 == 5 and not down("label"):
            self.label("pre-deploy", at(4, 30), ("postgresql", "redis", "storage", "config"))
        if number % 90 == 50:
            self.label("pre-restore", at(4, 40), ("redis",))
        if day.day == 1:
            self.put("report", at(4, 50), f"{day}_04-50-00_drill", label="drill")
        if number not in DOWN["everything"]:
            self.put("manifest", at(5), verified=not (down("postgresql") or number in UNPROVEN))
            if sunday(day):
                self.put("weekly", at(5, 1))

    def label(self, label, at, members):
        """Capture a labelled set."""
        set_id = f"{at.astimezone(self.zone):%Y-%m-%d_%H-%M-%S}_{label}"
        for what in members:
            self.put(what, at, set_id, label=label)
        self.put("backup_set/labelled", at + timedelta(minutes=5), set_id, label=label)

    def found_unchanged(self, what, at):
        """Let the set of a night refer to the newest there is, or capture it if there is none."""
        held = self.vaults[LOCAL].get(self.newest.get(what))
        if held is None:
            self.put(what, at)
        else:
            sets = held.sets | {f"{at.astimezone(self.zone):%Y-%m-%d}"}
            self.vaults[LOCAL][held.entry.name] = replace(held, sets=sets)

    def replicate(self):
        """Copy what is proven and wanted."""
        here, there = self.vaults.values()
        for name, one in here.items():
            if there.get(name) is not one and one.verified and self.wanted(one):
                there[name] = one

    def wanted(self, one):
        """Whether the plan wants a copy."""
        entry = one.entry
        if not entry.regular:
            return entry.label == "pre-deploy"
        return entry.component != "redis" or sunday(self.day_of(one))

    def day_of(self, one):
        """Return the day of the set that something was captured into."""
        set_id = one.entry.set
        if is_hour(set_id):
            return begin_of(set_id).astimezone(self.zone).date()
        return date.fromisoformat(set_id[:10])

    def prune(self, number, now, pins):
        """Remove what is not kept, here and there, and return it by vault."""
        here, there = self.vaults.values()
        missing = {
            name for name, one in here.items() if name not in there and one.verified and self.wanted(one)
        }
        if missing:
            policy = self.policy(OFFSITE, number)
            missing &= still_wanted(list(here.values()), policy, now, installation=HERE)
        removed = {}
        for vault, held in self.vaults.items():
            if vault == OFFSITE and number in OFFSITE_DOWN:
                continue
            lacking = {name: replace(here[name], lacks=(OFFSITE,)) for name in missing if vault == LOCAL}
            verdict = decide(
                list({**held, **lacking}.values()),
                self.policy(vault, number),
                now,
                installation=HERE,
                pins=pins,
            )
            self.refused[vault] |= {number} if verdict.refusals else set()
            removed[vault] = [held.pop(entry.name) for entry in verdict.removed]
        return removed

    def take_away(self, after):
        """Remove by hand what was captured by a wrong clock."""
        for held in self.vaults.values():
            for name in [name for name, one in held.items() if one.entry.captured_at > after]:
                del held[name]
        self.newest = {}
        for one in sorted(self.vaults[LOCAL].values(), key=lambda one: one.entry.captured_at):
            if one.entry.regular:
                self.newest[one.entry.component] = one.entry.name

    def hold(self, vault, one, number, day, pins):
        """Assert that the promises allow to remove `one` that night, by another reading of the table."""
        entry, held, name = one.entry, self.vaults[vault], one.entry.name
        age = (day - self.day_of(one)).days
        limits = {
            "postgresql": 7 if vault == LOCAL else 30,
            "redis": 3 if number not in WITHOUT_REDIS else 28,
            "storage": 7 if vault == LOCAL else 30,
            "code": 28,
            "logs": 30,
        }
        assert number not in WRONG, f"{name} was removed by a wrong clock"
        if not entry.regular:
            assert age > 30, f"{name} is of a labelled set"
        elif entry.component != "backup_set":
            assert age > limits.get(entry.component, -1), f"{name} is too young"
            assert age > 28 or is_hour(entry.set) or not sunday(self.day_of(one)), f"{name} is of a full"
        if number in TWO_WEEKS[7:] and vault == LOCAL and entry.component == "postgresql":
            assert age > 14, f"{name} is too young for the changed plan"
        assert not any(pin.set in one.sets for pin in pins), f"{name} is pinned"
        assert entry.component != "storage" or not any(name in o.needs for o in held.values()), (
            f"{name} is needed"
        )
        if entry.component == "backup_set":
            in_it = [o for o in held.values() if o.entry.set == entry.set]
            assert all(o.entry.component == "backup_set" for o in in_it), f"{name} tells of what is there"
        elif entry.component != "code" and (vault == LOCAL or entry.component != "redis"):
            down = (*DOWN["everything"], *DOWN.get(entry.component, ()))
            assert number not in down, f"{name} was removed in an outage"
        rank = (entry.regular, entry.captured_at)
        newer = (
            o
            for o in reversed(held.values())
            if o.verified and (o.entry.regular, o.entry.captured_at) > rank and o.entry.asset == entry.asset
        )
        assert not one.verified or next(newer, None), f"{name} was the newest proven"
        if entry.component == "config" and entry.regular:
            assert len(list(newer)) >= 9, f"{name} is one of ten versions"
        if vault == LOCAL and one.verified and self.wanted(one):
            there = {**limits, "postgresql": 30, "storage": 30, "redis": 28, "config": -1, "backup_set": -1}
            late = age > (there[entry.component] if entry.regular else 30)
            assert late or name in self.vaults[OFFSITE], f"{name} is nowhere else"


def after_two_years(zone, logged):
    """Let the nights pass, and return the vaults, and in which nights a prune was refused."""
    years, pins = Years(zone, logged), []
    for day in range(1, 11):
        at = night(FIRST - timedelta(day), 1, zone=zone)
        years.put("postgresql", at, label="adopted", late=True)
    for number in range(NIGHTS):
        day = FIRST + timedelta(number)
        wrong = timedelta(days={FORWARD: 400, BACK: -3, CAPTURED_AHEAD: 400}.get(number, 0))
        if number == TAKEN_AWAY:
            years.take_away(night(day, 1, zone=zone))
        years.capture(number, day, wrong if number == CAPTURED_AHEAD else timedelta(0))
        if number not in OFFSITE_DOWN:
            years.replicate()
        if number == PINNED[1]:
            pins = [Pin(str(FIRST + timedelta(PINNED[0])), FIRST + timedelta(PINNED[2]), "audit")]
        if number not in NOT_PRUNED:
            removed = years.prune(number, night(day, 6, zone=zone) + wrong, pins)
            valid = [pin for pin in pins if day <= pin.until]
            for vault, some in removed.items():
                for one in some:
                    years.hold(vault, one, number, day, valid)
        for vault, held in years.vaults.items():
            years.largest[vault] = max(years.largest[vault], len(held))
    return years


def ages(years, vault):
    """Return how many of each asset there are at the end, and the ages of their days."""
    found = defaultdict(list)
    last = FIRST + timedelta(NIGHTS - 1)
    for one in years.vaults[vault].values():
        asset = one.entry.asset if one.entry.regular else f"{one.entry.asset}, {one.entry.label}"
        found[asset].append((last - years.day_of(one)).days)
    lines = []
    for asset, days in sorted(found.items()):
        runs = []
        for age in sorted(set(days)):
            if runs and age == runs[-1][1] + 1:
                runs[-1][1] = age
            else:
                runs.append([age, age])
        told = " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
        lines.append(f"{asset:34}{len(days):4}  {told}")
    return "\n".join(lines) + "\n"


HERE_AT_THE_END = """\
assurance/restore_drill, drill      24  {reports}
backup_set/labelled, pre-deploy      2  10 27
backup_set/manifest                 41  0-31 62 85 108 131 154 177 200 223 246
backup_set/weekly                    6  3 10 17 24 31 108
code/bundle                          2  10 31
config/archive                      10  16 62 85 108 131 154 177 200 223 246
config/archive, pre-deploy           2  10 27
logs/archive                       {hours}  0-30
postgresql/dump                     11  0-7 10 17 24
postgresql/dump, pre-deploy          2  10 27
redis/rdb                            7  0-3 10 17 24
redis/rdb, pre-deploy                2  10 27
storage/archive                     11  0-7 10 17 24
storage/archive, pre-deploy          2  10 27
"""
"""How many of each there are after the last night, a Wednesday, and of the days how long ago.

The full of 31 days ago is that of the newest code but one, which was found unchanged since; those of long ago
are of the sets that captured one of the ten configurations.
"""
OFFSITE_AT_THE_END = """\
backup_set/labelled, pre-deploy      2  10 27
backup_set/manifest                 41  0-31 62 85 108 131 154 177 200 223 246
backup_set/weekly                    6  3 10 17 24 31 108
code/bundle                          2  10 31
config/archive                      10  16 62 85 108 131 154 177 200 223 246
config/archive, pre-deploy           2  10 27
logs/archive                       {hours}  0-30
postgresql/dump                     31  0-30
postgresql/dump, pre-deploy          2  10 27
redis/rdb                            4  3 10 17 24
redis/rdb, pre-deploy                2  10 27
storage/archive                     32  0-31
storage/archive, pre-deploy          2  10 27
"""
"""Files of thirty days ago need the archive of the Sunday before."""


@pytest.mark.parametrize(
    ("zone", "logged", "hours"),
    [("Europe/Moscow", range(24), 725), ("Europe/Berlin", (0, 1, 2, 22), 123)],  # there, those of the nights
    ids=["Moscow", "Berlin"],
)
def test_two_years_of_nights(zone, logged, hours):
    """Each night holds the promises; and at the end there is what the plan says, no more and no less."""
    years = after_two_years(ZoneInfo(zone), logged)
    firsts = [date(year, month, 1) for year in (2026, 2027, 2028) for month in range(1, 13)]
    since = [(FIRST + timedelta(NIGHTS - 1) - first).days for first in reversed(firsts)]
    reports = " ".join(str(age) for age in since if 0 <= age < NIGHTS)
    assert ages(years, LOCAL) == HERE_AT_THE_END.format(reports=reports, hours=hours)
    assert ages(years, OFFSITE) == OFFSITE_AT_THE_END.format(hours=hours)
    assert years.refused == {LOCAL: WRONG | set(range(688, 698)), OFFSITE: WRONG | set(range(687, 698))}
    assert all(count < 32 * len(logged) + 450 for count in years.largest.values())
