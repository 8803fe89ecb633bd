"""Periods: the ISO week and the calendar month, in local time (choice 8). Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from app.elders.policy import Period


@dataclass(frozen=True, slots=True)
class Span:
    """Days from the first to the last, both included."""

    start: date
    end: date

    def __contains__(self, day: date) -> bool:
        return self.start <= day <= self.end

    def days(self) -> Iterable[date]:
        return (self.start + timedelta(days=n) for n in range((self.end - self.start).days + 1))


def span_of(period: Period, day: date) -> Span:
    """The period a day lies in."""
    match period:
        case Period.WEEK:
            monday = day - timedelta(days=day.isoweekday() - 1)
            return Span(monday, monday + timedelta(days=6))
        case Period.MONTH:
            first = day.replace(day=1)
            return Span(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))


def span_before(period: Period, span: Span) -> Span:
    """The period before this one."""
    return span_of(period, span.start - timedelta(days=1))


def longest_gap(days: Iterable[date], span: Span) -> int:
    """The longest run of days of a span without a visit, in days (choice 8)."""
    met = sorted({day for day in days if day in span})
    edges = [span.start - timedelta(days=1), *met, span.end + timedelta(days=1)]
    return max((after - before).days - 1 for before, after in itertools.pairwise(edges))
