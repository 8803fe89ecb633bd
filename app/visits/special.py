"""What special periods add to what is due (特殊时间节点, 二（四）1, policy row 10). Pure.

One visit serves every period it falls into, so that overlapping periods ask for the fewest visits that satisfy all of
them; nobody is asked for more than `most_a_day` in a day; a day that went by is not asked for any more: it stands in
the period's completion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from app.elders.vocabulary import CareLevel
from app.visits.calendar import Span
from app.visits.vocabulary import SpecialKind

LONGEST = 62  # days


@dataclass(frozen=True, slots=True)
class Special:
    """Days on which more is due: so many visits on each of them, or so many in all of them."""

    id: UUID
    name: str
    kind: SpecialKind
    region_code: str
    levels: frozenset[CareLevel]
    span: Span
    per_day: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one person's visits fulfil one period."""

    required: int
    done: int

    @property
    def fulfilled(self) -> bool:
        return self.done >= self.required


@dataclass(frozen=True, slots=True)
class Raised:
    """What special periods ask of one person on a day: at least `still` more visits, which makes `required` in the week
    or month with those that were made, the ones apart that were more than any period asked for. `by`: the period that
    asks most."""

    still: int = 0
    required: int = 0
    by: Special | None = None
    progress: Progress | None = None


def progress(special: Special, visited: Iterable[date], most_a_day: int) -> Progress:
    """What the period asks for in all, and what was done of it; more on one day than that day asks for is not more."""
    counts = Counter(day for day in visited if day in special.span)
    days = (special.span.end - special.span.start).days + 1
    if special.per_day is not None:
        each = min(special.per_day, most_a_day)
        return Progress(each * days, sum(min(n, each) for n in counts.values()))
    assert special.total is not None
    return Progress(min(special.total, most_a_day * days), counts.total())


def raised_on(day: date, span: Span, specials: Sequence[Special], visited: Iterable[date], most_a_day: int) -> Raised:
    """The fewest visits that can still satisfy every period that has not ended and begins within `span`, the week or
    month of `day`. Days of a period beyond `span` are asked for when their own week or month has come."""
    ahead = [one for one in specials if one.span.end >= day and one.span.start <= span.end]
    if not ahead:
        return Raised()
    counts = Counter(visited)
    still = _fewest(day, span, ahead, counts, most_a_day)
    within = Counter({d: n for d, n in counts.items() if d in span and any(d in one.span for one in ahead)})
    beside = sum(n for d, n in counts.items() if d in span) - within.total()
    first = min(one.span.start for one in ahead)
    served = _fewest(first, span, ahead, counts - within, most_a_day) - _fewest(first, span, ahead, counts, most_a_day)
    by = min(ahead, key=lambda s: _order(s, day, counts, most_a_day))
    return Raised(still, beside + served + still, by, progress(by, counts.elements(), most_a_day))


def _fewest(day: date, span: Span, specials: Sequence[Special], counts: Counter[date], most_a_day: int) -> int:
    """The fewest visits from `day` on that, with those made, serve every period as far as the cap lets them."""
    more: Counter[date] = Counter()
    for one in specials:
        if one.per_day is not None:
            for date_ in _days(max(one.span.start, day), min(one.span.end, span.end)):
                more[date_] = max(more[date_], min(one.per_day, most_a_day) - counts[date_], 0)
    # Intervals in the order of their ends, filled from their last day back: no other way takes fewer visits.
    for one in sorted(specials, key=lambda s: (s.span.end, s.span.start, s.id)):
        if one.total is not None:
            _fill(one, day, counts, more, most_a_day)
    return more.total()


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _fill(one: Special, day: date, done: Mapping[date, int], more: Counter[date], most_a_day: int) -> None:
    assert one.total is not None
    lacking = one.total - sum(done.get(d, 0) + more[d] for d in _days(one.span.start, one.span.end))
    for last in reversed(_days(max(one.span.start, day), one.span.end)):
        if lacking <= 0:
            return
        added = min(lacking, max(most_a_day - done.get(last, 0) - more[last], 0))
        more[last] += added
        lacking -= added


def _order(one: Special, day: date, counts: Counter[date], most_a_day: int) -> tuple[bool, int, date, UUID]:
    """Those that have begun before those to come, what lacks most, what ends first."""
    there = progress(one, counts.elements(), most_a_day)
    return one.span.start > day, there.done - there.required, one.span.end, one.id
