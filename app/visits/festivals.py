"""The days of the festivals, and the days before them on which more is due. Pure functions of the year (policy row 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import assert_never

from lunar_python import Lunar, Solar

from app.elders.vocabulary import CareLevel
from app.visits.calendar import Span
from app.visits.vocabulary import Festival

FIRST_YEAR, LAST_YEAR = 1900, 2199  # what the calendar was compared with


@dataclass(frozen=True, slots=True)
class FestivalRules:
    """What festivals ask for in a region: which of them, from how many days before, how many visits, for whom."""

    festivals: frozenset[Festival] = frozenset(Festival)
    lead_days: int = 7
    visits_total: int = 1
    levels: frozenset[CareLevel] = frozenset(CareLevel)

    def window(self, festival: Festival, year: int) -> Span:
        """The days on which its visits are due: the lead days and the festival itself."""
        day = day_of(festival, year)
        return Span(day - timedelta(days=self.lead_days), day)


def day_of(festival: Festival, year: int) -> date:
    """The festival's day in a (Gregorian) year."""
    match festival:
        case Festival.NEW_YEAR:
            return date(year, 1, 1)
        case Festival.SPRING_FESTIVAL:
            return _lunar(year, 1, 1)
        case Festival.QINGMING:
            found = Solar.fromYmd(year, 6, 1).getLunar().getJieQiTable()["清明"]
            return date(found.getYear(), found.getMonth(), found.getDay())
        case Festival.LABOUR_DAY:
            return date(year, 5, 1)
        case Festival.DRAGON_BOAT:
            return _lunar(year, 5, 5)
        case Festival.MID_AUTUMN:
            return _lunar(year, 8, 15)
        case Festival.NATIONAL_DAY:
            return date(year, 10, 1)
        case Festival.DOUBLE_NINTH:
            return _lunar(year, 9, 9)
    assert_never(festival)


def days_of(year: int) -> Mapping[Festival, date]:
    """All festivals of a year."""
    return {festival: day_of(festival, year) for festival in Festival}


def _lunar(year: int, month: int, day: int) -> date:
    found = Lunar.fromYmd(year, month, day).getSolar()
    return date(found.getYear(), found.getMonth(), found.getDay())
