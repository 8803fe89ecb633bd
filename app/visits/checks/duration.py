"""Durations nobody measured: none at all, or always the same round one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

from app.visits.checks.entry import IN_PERSON, Context, Entry, Suspicion
from app.visits.vocabulary import CheckKind
from app.words import say

_HALF_HOUR = timedelta(minutes=30)


def zero_duration(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    """A visit in person that ended when it began."""
    for entry in entries:
        if (
            entry.written
            and entry.method in IN_PERSON
            and entry.lasted is not None
            and entry.lasted < context.limits.zero
        ):
            seconds = int(entry.lasted.total_seconds())
            because = say("check.zero_duration", start=context.clock(entry.started_at), seconds=seconds)
            yield Suspicion(CheckKind.ZERO_DURATION, entry.id.hex, because, {"seconds": seconds}, entry)


def round_durations(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    """Nearly all of a visitor's visits of a month lasted exactly the same, or exactly some half hours."""
    limits = context.limits
    lasted = [entry.lasted for entry in entries if entry.written and entry.lasted]
    if len(lasted) < limits.fewest_entries:
        return
    usual, same = Counter(lasted).most_common(1)[0]
    half_hours = sum(1 for one in lasted if one % _HALF_HOUR == timedelta())
    if max(same, half_hours) < limits.round_share * len(lasted):
        return
    minutes = round(usual / timedelta(minutes=1))
    figures = {"entries": len(lasted), "half_hours": half_hours, "same": same, "usual_minutes": minutes}
    because = say("check.round_durations", **figures)
    about = next(entry for entry in reversed(entries) if entry.written and entry.lasted)
    yield Suspicion(CheckKind.ROUND_DURATIONS, context.group, because, figures, about, whole_group=True)
