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
class Ahead:
    """A place's month that is running. `due`: the people who count, enrolled without the excluded; `visited`: of them, with a
    first visit. `visits_made`: visits so far, each person's no more than was asked; `visits_remaining`: those still to make by
    the month's end, of which `weekly_remaining` are weekly people's."""

    due: int
    visited: int
    visits_made: int
    visits_remaining: int
    weekly_remaining: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """`remaining`: people who still wait for this month's first visit. Paces are visits a day."""

    remaining: int
    days_left: int
    pace: float
    needed: float | None
    expected_missing: int
    expected_visited: int
    prospect: Prospect
    because: str


_FEWEST_DAYS = 3  # a pace of one or two days says little


def forecast(ahead: Ahead, *, today: date, last_day: date) -> Forecast:
    """From the visits still to make and the pace so far; the people who will have had a first visit by their own pace.
    `days_left` has no today: what today brings belongs to the pace."""
    elapsed, left = today.day, (last_day - today).days
    remaining = max(ahead.due - ahead.visited, 0)
    pace = ahead.visits_made / elapsed
    missing = max(ahead.visits_remaining - int(pace * left + 1e-9), 0)
    expected = min(ahead.due, ahead.visited + int(ahead.visited / elapsed * left + 1e-9))
    if ahead.visits_remaining == 0:
        prospect = Prospect.DONE
    elif elapsed < _FEWEST_DAYS <= left:
        prospect = Prospect.TOO_EARLY
    else:
        prospect = Prospect.WILL_NOT_MAKE_IT if missing else Prospect.WILL_MAKE_IT
    because = say(
        f"forecast.{prospect.value}", visits=ahead.visits_remaining, weekly=ahead.weekly_remaining, remaining=remaining,
        left=left, pace=f"{pace:.1f}", missing=missing,
    )  # fmt: skip
    needed = round(ahead.visits_remaining / left, 2) if left else None
    return Forecast(remaining, left, round(pace, 2), needed, missing, expected, prospect, because)
