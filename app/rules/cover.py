"""What is not told while a person is away or a home is being worked on. Pure: the one place that decides it.

No period and no status ever covers an SOS, a fall, smoke, gas, a leak or a person's own report (design section 6).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.rules.verdict import DEVICE_HEALTH, AlarmKind


class PeriodKind(StrEnum):
    AWAY = "away"  # the person is elsewhere; the devices are as ever
    MAINTENANCE = "maintenance"  # somebody works on the home or its devices


NEVER_COVERED: Final = frozenset(
    {AlarmKind.SOS, AlarmKind.FALL, AlarmKind.SMOKE, AlarmKind.GAS, AlarmKind.WATER_LEAK, AlarmKind.REPORTED}
)
_OF_THE_PERSON: Final = frozenset({AlarmKind.NO_ACTIVITY, AlarmKind.NIGHT_EXIT, AlarmKind.BED_EXIT})
_COVERED: Final = {
    PeriodKind.AWAY: _OF_THE_PERSON,
    PeriodKind.MAINTENANCE: _OF_THE_PERSON | {AlarmKind.DOOR_LEFT_OPEN} | DEVICE_HEALTH,
}


def covers(period: PeriodKind, kind: AlarmKind) -> bool:
    """Whether an alarm of this kind is held back while such a period lasts."""
    return kind not in NEVER_COVERED and kind in _COVERED[period]


@dataclass(frozen=True, slots=True)
class Cover:
    """A period, in seconds since 1970. It always ends: whatever still holds then is told, and a silence counts anew."""

    kind: PeriodKind
    begins: float
    ends: float


def covered_until(periods: Iterable[Cover], kind: AlarmKind, at: float) -> float:
    """The end of what covers this kind of alarm at this time; `at` itself when nothing does. Periods that touch or
    overlap are one."""
    relevant = sorted((one for one in periods if covers(one.kind, kind)), key=lambda one: one.begins)
    for one in relevant:
        if one.begins <= at < one.ends:
            at = one.ends
    return at
