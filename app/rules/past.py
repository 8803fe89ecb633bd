"""A home's own past: how long it was quiet, by the hour at which the quiet began. Pure, compact, learned as it happens.

Only quiet while somebody was at home is learned. A bucket keeps how often a quiet of its length was seen; counts are
halved every four weeks, so that a habit that is over is forgotten.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from app.rules.settings import NoActivity

# Upper ends of the buckets, in minutes: a quarter of an hour up to 4 hours, an hour up to 24.
BUCKETS: Final = (*range(15, 241, 15), *range(300, 1441, 60))
_SHORT: Final = 15  # quiet below this many minutes tells nothing
_LONG: Final = 960  # and above, nobody was there
_LULL: Final = 240  # a quiet this long is sleep
_FORGET_DAYS: Final = 28
_MARGIN: Final = 1.25
_SHIFT: Final = 180  # minutes by which habits may move the beginning and the end of the day
_QUARTER: Final = 15
_ENOUGH_LULLS: Final = 3  # nights: a habit of the evening shows soon


class Past(msgspec.Struct, omit_defaults=True):
    """`quiet`: by hour (as text, it is kept as JSON) and place of the bucket; `beds`, `rises`: how often a long quiet
    began, and ended, in each hour; `risen`: how often one ended by each quarter of an hour, in minutes after midnight."""

    days: int = 0
    last_day: int = 0  # ordinal of the last local day with a sign of life
    halved: int = 0  # ordinal of the day of the last halving
    quiet: dict[str, dict[str, int]] = {}
    beds: dict[str, int] = {}
    rises: dict[str, int] = {}
    risen: dict[str, int] = {}
    ghosts: int = 0  # motions that were seen while nobody was at home


def see_day(past: Past, day: int) -> None:
    """A sign of life on a local day."""
    if day <= past.last_day:
        return
    past.last_day = day
    past.days += 1
    if not past.halved:
        past.halved = day
    elif day - past.halved >= _FORGET_DAYS:
        past.halved = day
        past.quiet = {hour: kept for hour, counts in past.quiet.items() if (kept := _halve(counts))}
        past.beds, past.rises, past.risen = _halve(past.beds), _halve(past.rises), _halve(past.risen)
        past.ghosts //= 2


def _halve(counts: dict[str, int]) -> dict[str, int]:
    return {name: count // 2 for name, count in counts.items() if count > 1}


def learn(past: Past, began: datetime, ended: datetime) -> None:
    """A quiet at home from one sign of life to the next, in local time."""
    minutes = (ended - began).total_seconds() / 60
    if not _SHORT <= minutes <= _LONG:
        return
    bucket = str(min(bisect_left(BUCKETS, minutes), len(BUCKETS) - 1))
    _count(past.quiet.setdefault(str(began.hour), {}), bucket)
    if minutes < _LULL:
        return
    if began.hour >= 17 or began.hour < 5:
        _count(past.beds, str(began.hour))
    if 3 <= ended.hour < 14:  # sooner, somebody got up in the middle of the night
        _count(past.rises, str(ended.hour))
        _count(past.risen, str((ended.hour * 60 + ended.minute) // _QUARTER * _QUARTER + _QUARTER))


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = min(counts.get(name, 0) + 1, 9999)


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a home may be quiet from an hour on. `longest`: what it was learned from, in minutes; None: not learned."""

    minutes: int
    longest: int | None
    days: int
    floor: int
    ceiling: int


def limit(past: Past, hour: int, floor: int, ceiling: int, rules: NoActivity) -> Limit:
    """The longest quiet of this hour and its neighbours, and a quarter more, within what a person allows."""
    if not rules.learn or past.days < rules.learn_days:
        return Limit(ceiling, None, past.days, floor, ceiling)
    longest = max((_longest(past, (hour + step) % 24) for step in (-1, 0, 1)), default=0)
    return Limit(min(max(round(longest * _MARGIN), floor), ceiling), longest, past.days, floor, ceiling)


def _longest(past: Past, hour: int) -> int:
    return max((BUCKETS[int(bucket)] for bucket in past.quiet.get(str(hour), ())), default=0)


def own_day(past: Past, rules: NoActivity) -> tuple[int, int]:
    """When this home's day begins and ends, in minutes after midnight: as set, and moved by its own habit of going to
    bed and rising, by 3 hours at most."""
    begins, ends = rules.day_from.minutes, rules.day_to.minutes
    if rules.learn and sum(past.rises.values()) >= _ENOUGH_LULLS:
        late = (_quantile(past.rises, 0.9, start=0) + 1) * 60
        begins = max(begins, min(late, begins + _SHIFT))
    if rules.learn and sum(past.beds.values()) >= _ENOUGH_LULLS:
        early = _quantile(past.beds, 0.1, start=12) * 60
        ends = min(ends, max(early, ends - _SHIFT))
    return begins, ends


class Morning(NamedTuple):
    """By when a night must have ended, in minutes after midnight. `latest`: the end it was learned from; None: not
    learned."""

    due: int
    latest: int | None


def morning(past: Past, rules: NoActivity) -> Morning:
    """A sign of life is due so many minutes after the day began, and later in a home whose nights have ended later: a
    quarter of an hour after the latest, but no more than 3 hours."""
    due = rules.day_from.minutes + rules.morning_minutes
    if not rules.learn or sum(past.risen.values()) < _ENOUGH_LULLS:
        return Morning(due, None)
    latest = max(map(int, past.risen))
    own = min(latest + _QUARTER, due + _SHIFT)
    return Morning(own, latest) if own > due else Morning(due, None)


def _quantile(counts: dict[str, int], share: float, *, start: int) -> int:
    """The hour by which this share of them had come, counting from the hour `start`; past midnight it is above 23."""
    total, seen = sum(counts.values()), 0
    for step in range(24):
        seen += counts.get(str((start + step) % 24), 0)
        if seen >= share * total:
            return start + step
    return start + 23
