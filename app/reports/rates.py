"""Visiting rates (policy row 38, choice 9) and what they will be at the month's end. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from app.words import say


def rate(part: int, whole: int) -> float | None:
    """A share between 0 and 1; None when there is nobody to take a share of."""
    return round(part / whole, 4) if whole else None


class Prospect(StrEnum):
    """How a month that is running will end if it goes on like this."""

    DONE = "done"
    WILL_MAKE_IT = "will_make_it"
    WILL_NOT_MAKE_IT = "will_not_make_it"
    TOO_EARLY = "too_early"


@dataclass(frozen=True, slots=True)
class Forecast:
    """`remaining`: people who still wait for this month's first visit. Paces are people a day."""

    remaining: int
    days_left: int
    pace: float
    needed: float | None
    expected_visited: int
    prospect: Prospect
    because: str


_FEWEST_DAYS = 3  # a pace of one or two days says little


def forecast(*, due: int, visited: int, today: date, last_day: date) -> Forecast:
    """From the people who count (`due`: enrolled without the excluded) and the pace so far. `days_left` has no today: what
    today brings belongs to the pace."""
    elapsed, left = today.day, (last_day - today).days
    remaining = max(due - visited, 0)
    pace = visited / elapsed
    needed = round(remaining / left, 2) if left else None
    expected = min(due, visited + int(pace * left + 1e-9))
    if remaining == 0:
        prospect = Prospect.DONE
    elif elapsed < _FEWEST_DAYS <= left:
        prospect = Prospect.TOO_EARLY
    else:
        prospect = Prospect.WILL_MAKE_IT if expected >= due else Prospect.WILL_NOT_MAKE_IT
    because = say(
        f"forecast.{prospect.value}", remaining=remaining, left=left, pace=f"{pace:.1f}", missing=due - expected
    )
    return Forecast(remaining, left, round(pace, 2), needed, expected, prospect, because)
