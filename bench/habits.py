"""Made-up homes of several habits, from a seed: so that the defaults are not tuned to the recorded homes alone.

Each person sleeps, eats, sits, goes out and gets up by night by habits of their own, with chance in all of it. They are
synthetic and said to be.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

TZ = ZoneInfo("Asia/Shanghai")
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Habit:
    """`rises`, `sleeps`: hours of the day; `quiet`: the longest usual minutes without a motion; `outings`: a day;
    `out_minutes`: the longest; `bed`, `door`: whether there is such a sensor; `bed_reports`: whether the bed says again
    that it is occupied; `by_night`: how often the person gets up."""

    name: str
    rises: float
    sleeps: float
    quiet: int
    outings: float = 1.0
    out_minutes: int = 120
    bed: bool = False
    bed_reports: bool = True
    door: bool = True
    by_night: float = 1.0
    ghosts: float = 0.0  # motions a day that nobody made


HABITS = (
    Habit("early riser, motion and door", rises=5.0, sleeps=20.5, quiet=60),
    Habit("early to bed, motion and door", rises=4.5, sleeps=19.5, quiet=50, by_night=2),
    Habit("late riser with a bed sensor", rises=9.5, sleeps=24.5, quiet=90, bed=True),
    Habit("sits for long, bed sensor", rises=6.5, sleeps=21.5, quiet=130, outings=0.3, bed=True),
    Habit("often out, ghosts in the home", rises=6.0, sleeps=22.0, quiet=60, outings=3, out_minutes=300, ghosts=3),
    Habit("never out, restless nights", rises=6.0, sleeps=21.0, quiet=80, outings=0, bed=True, by_night=4),
    Habit("motion only, short walks", rises=5.5, sleeps=21.0, quiet=70, outings=1, out_minutes=100, door=False),
)


@dataclass
class MadeHome:
    events: list[dict[str, Any]] = field(default_factory=list)
    away: list[tuple[datetime, datetime]] = field(default_factory=list)


def live(habit: Habit, *, days: int = 30, seed: int = 1) -> MadeHome:
    """A month, as a rule, of a person of this habit."""
    chance = random.Random(f"{habit.name}-{seed}")
    home = MadeHome()
    midnight = datetime(2026, 3, 1, tzinfo=TZ)
    for day in range(days):
        rises = midnight + timedelta(days=day, hours=habit.rises) + _jitter(chance, 25)
        sleeps = midnight + timedelta(days=day, hours=habit.sleeps) + _jitter(chance, 25)
        _day(home, habit, chance, rises, sleeps)
        wakes = midnight + timedelta(days=day + 1, hours=habit.rises) - timedelta(minutes=26)
        _night(home, habit, chance, sleeps, wakes)
        for _ in range(_count(chance, habit.ghosts)):
            at = midnight + timedelta(days=day, minutes=chance.uniform(0, 1439))
            if any(began < at < ended for began, ended in home.away):
                _say(home, at, "motion-hall", "motion_sensor", "走廊", type="motion", active=True)
    for place, device in enumerate(sorted({(e["device_id"], e["kind"], e["place"]) for e in home.events})):
        at = midnight + timedelta(minutes=3 * place)
        while at < midnight + timedelta(days=days):
            _say(home, at, *device, type="heartbeat")
            at += timedelta(hours=6)
    home.events.sort(key=lambda event: event["ts"])
    return home


def _day(home: MadeHome, habit: Habit, chance: random.Random, rises: datetime, sleeps: datetime) -> None:
    at, last = rises, sleeps - timedelta(minutes=5)
    length = (sleeps - rises) / _MINUTE
    outings = sorted(
        rises + timedelta(minutes=chance.uniform(0.08, 0.6) * length) for _ in range(_count(chance, habit.outings))
    )
    if habit.bed:
        _say(home, rises, "bed", "bed_sensor", "卧室床", type="bed", occupied=False)
    while at < last:
        _motion(home, chance, at)
        if outings and at >= outings[0]:
            outings.pop(0)
            at = _go_out(home, habit, chance, at + timedelta(minutes=2), last)
            continue
        at += timedelta(
            minutes=min(chance.expovariate(1 / (habit.quiet / 5)), habit.quiet * chance.uniform(0.9, 1.1)) + 1
        )


def _go_out(home: MadeHome, habit: Habit, chance: random.Random, at: datetime, last: datetime) -> datetime:
    back = min(at + timedelta(minutes=chance.uniform(10, habit.out_minutes)), last)
    if back <= at + 2 * _MINUTE:
        return at
    home.away.append((at, back))
    if habit.door:
        for moved in (at, back):
            _say(home, moved, "door", "door_sensor", "入户大门", type="door", state="open")
            _say(home, moved + timedelta(seconds=8), "door", "door_sensor", "入户大门", type="door", state="closed")
    return back + timedelta(seconds=chance.uniform(40, 300))


def _night(home: MadeHome, habit: Habit, chance: random.Random, sleeps: datetime, wakes: datetime) -> None:
    ups = sorted(sleeps + chance.uniform(0.1, 0.9) * (wakes - sleeps) for _ in range(_count(chance, habit.by_night)))
    lies = sleeps
    for up in [*ups, None]:
        if habit.bed:
            _lie(home, habit, lies, up or wakes)
        if up is None or up < lies:
            continue
        if habit.bed:
            _say(home, up, "bed", "bed_sensor", "卧室床", type="bed", occupied=False)
        _motion(home, chance, up + timedelta(seconds=30))
        lies = up + timedelta(minutes=chance.uniform(4, 12))


def _lie(home: MadeHome, habit: Habit, began: datetime, ended: datetime) -> None:
    at = began
    while at < ended:
        _say(home, at, "bed", "bed_sensor", "卧室床", type="bed", occupied=True)
        if not habit.bed_reports:
            return
        at += 15 * _MINUTE


def _motion(home: MadeHome, chance: random.Random, at: datetime) -> None:
    place = chance.choice(("客厅", "厨房", "走廊"))
    ids = {"客厅": "motion-living", "厨房": "motion-kitchen", "走廊": "motion-hall"}
    _say(home, at, ids[place], "motion_sensor", place, type="motion", active=True)


def _say(home: MadeHome, at: datetime, device_id: str, kind: str, place: str, **event: Any) -> None:
    home.events.append(
        {"ts": round(at.timestamp() * 1000), "device_id": device_id, "kind": kind, "place": place, **event}
    )


def _jitter(chance: random.Random, minutes: float) -> timedelta:
    return timedelta(minutes=chance.uniform(-minutes, minutes))


def _count(chance: random.Random, mean: float) -> int:
    return int(mean) + (chance.random() < mean - int(mean))
