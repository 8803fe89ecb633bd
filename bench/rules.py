"""How the rules over time do on recorded homes: false alarms, and how soon a silence is noticed.

    python -m bench.rules ../shared/data

Prints what docs/rules.md quotes. Silences are injected: from a moment on nothing is heard any more, and it counts as
noticed when `no_activity` is raised within three hours. `--report-minutes 0` takes the recordings as bare changes, with
`--heartbeat-hours 0` without any other word, and says what no rule could better. The moments are every ten minutes from
08:00 to 20:00 at which the person is at home by the recording's own labels (Ordóñez) or by its known absences (CASAS, which
has no labels).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from app.rules.replaying import Alarm, Recorded, Replay, received_order
from app.rules.settings import DEFAULTS, Rules
from app.rules.verdict import AlarmKind
from app.watches.recorded import BadLine, read_lines
from bench.habits import HABITS, Habit, live
from simulator.recordings import convert

TZ = ZoneInfo("Asia/Shanghai")
COUNTED = (AlarmKind.NO_ACTIVITY, AlarmKind.NIGHT_EXIT, AlarmKind.DOOR_LEFT_OPEN)
NOTICED_WITHIN = timedelta(hours=3)
EVERY = timedelta(minutes=10)
DAY = (8, 20)
# CASAS tm000: left by the entrance and came back by it; between them only single pulses of ghosts.
_TM000_AWAY = (
    ("2016-07-12T15:13:40", "2016-07-12T16:11:38"),
    ("2016-07-13T07:21:11", "2016-07-16T18:54:36"),
    ("2016-07-17T09:19:45", "2016-07-17T17:31:46"),
)
Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class RecordedHome:
    name: str
    events: list[Recorded]
    away: list[Span] = field(default_factory=list)

    @property
    def days(self) -> float:
        return (self.events[-1].seen.received_at - self.events[0].seen.received_at) / timedelta(days=1)


@dataclass(frozen=True)
class Silences:
    injected: int
    noticed: int
    missed_at: list[datetime]

    @property
    def share(self) -> float:
        return self.noticed / self.injected


def recorded(events: Iterable[dict[str, object]]) -> list[Recorded]:
    """Events as a recording gives them, read as `shouwang replay` reads them."""
    found = []
    for one in read_lines((json.dumps(event).encode() for event in events), TZ):
        assert not isinstance(one, BadLine), one
        found.append(one)
    return received_order(found)


def homes(folder: Path, *, report_minutes: int = 15, heartbeat_hours: int = 6) -> list[RecordedHome]:
    """The homes of `../shared/data/`."""

    def read(path: Path) -> list[Recorded]:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return recorded(convert(lines, TZ, report_minutes=report_minutes, heartbeat_hours=heartbeat_hours))

    found = []
    for letter in "AB":
        away = _leaving(folder / "ordonez_adl" / f"Ordonez{letter}_ADLs.txt")
        found.append(RecordedHome(f"ordonez_{letter}", read(folder / f"ordonez_adl/Ordonez{letter}_Sensors.txt"), away))
    spans = [(_at(began), _at(ended)) for began, ended in _TM000_AWAY]
    found.append(RecordedHome("casas_tm000", read(folder / "casas_tm000/tm000.multiday_absence.txt"), spans))
    return found


def made(habit: Habit, *, seed: int = 1) -> RecordedHome:
    """A made-up home of one habit."""
    home = live(habit, seed=seed)
    return RecordedHome(habit.name, recorded(home.events), home.away)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=TZ)


def _leaving(path: Path) -> list[Span]:
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        stamps = re.findall(r"\d{4}-\d\d-\d\d\s+\d\d:\d\d:\d\d", line)
        if len(stamps) == 2 and "Leaving" in line:
            began, ended = (_at("T".join(stamp.split())) for stamp in stamps)
            # Labels are to the minute: the door moves up to a minute after the label begins, and so it is in both ends.
            found.append((began, ended + timedelta(minutes=1)))
    return found


def alarms(home: RecordedHome, rules: Rules = DEFAULTS) -> list[Alarm]:
    return list(Replay(rules, TZ).run(home.events))


def false_alarms(home: RecordedHome, rules: Rules = DEFAULTS) -> Counter[AlarmKind]:
    """Nothing happened to these people: every one of these alarms is false. Growth is not another alarm."""
    counted: Counter[AlarmKind] = Counter()
    for one in alarms(home, rules):
        if one.kind in COUNTED and one.severity.value != "critical":
            counted[one.kind] += 1
    return counted


def silences(home: RecordedHome, rules: Rules = DEFAULTS) -> Silences:
    """Inject a silence at many moments, and see whether it is noticed."""
    replay, place, injected, noticed, missed = Replay(rules, TZ), 0, 0, 0, []
    for at in _moments(home):
        first = place
        while place < len(home.events) and home.events[place].seen.received_at < at:
            place += 1
        list(replay.run(home.events[first:place]))
        injected += 1
        told = copy.deepcopy(replay).run((), until=at + NOTICED_WITHIN)
        standing = AlarmKind.NO_ACTIVITY.value in replay.home.raised
        if standing or any(one.kind is AlarmKind.NO_ACTIVITY for one in told):
            noticed += 1
        else:
            missed.append(at)
    return Silences(injected, noticed, missed)


def out_of_reach(home: RecordedHome) -> list[int]:
    """How many of the silences no rule whatever can notice in time without a false alarm, quiet by quiet, the most first.

    A silence that begins more than three hours before the home would have been heard anyhow looks, for three hours, the same as
    the day on which nothing happened: whoever raises an alarm in one of the two raises it in the other."""
    stirs = [one.seen.received_at for one in home.events]
    alike: Counter[datetime] = Counter()
    for at in _moments(home):
        following = bisect_left(stirs, at)
        if following < len(stirs) and stirs[following] > at + NOTICED_WITHIN:
            alike[stirs[following]] += 1
    return sorted(alike.values(), reverse=True)


def _moments(home: RecordedHome) -> Iterator[datetime]:
    """Every ten minutes of the day at which the person is at home, from the second day on."""
    at = home.events[0].seen.received_at.astimezone(TZ).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
    while at < home.events[-1].seen.received_at:
        if DAY[0] <= at.hour < DAY[1] and not any(began <= at <= ended for began, ended in home.away):
            yield at
        at += EVERY


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path(os.environ.get("SHARED_DATA", "../shared/data")))
    parser.add_argument("--report-minutes", type=int, default=15)
    parser.add_argument("--heartbeat-hours", type=int, default=6)
    given = parser.parse_args(arguments)
    print(f"{'home':<32}{'days':>5}{'events':>8}   {'false alarms':<50}silences noticed within 3 h")
    there = (
        homes(given.data, report_minutes=given.report_minutes, heartbeat_hours=given.heartbeat_hours)
        if given.data.is_dir()
        else []
    )
    for home in [*there, *(made(habit) for habit in HABITS)]:
        found, noticed = false_alarms(home), silences(home)
        words = ", ".join(f"{kind.value} {found[kind]}" for kind in COUNTED)
        print(
            f"{home.name:<32}{home.days:>5.1f}{len(home.events):>8}   {words:<50}"
            f"{noticed.noticed} of {noticed.injected} ({noticed.share:.1%})"
        )
        if noticed.missed_at:
            print("  missed:", ", ".join(f"{at:%m-%d %H:%M}" for at in noticed.missed_at[:12]))
        if alike := out_of_reach(home):
            least, with_one = sum(alike), sum(alike[1:])
            print(
                f"  no rule can notice more than {1 - least / noticed.injected:.1%} without a false alarm, nor more than "
                f"{1 - with_one / noticed.injected:.1%} with one: {least} of these moments look like a day without a silence"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
