"""Bursts at the month's end: half of a month's visits in its last days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from app.visits.checks.entry import Context, Entry, Suspicion
from app.visits.vocabulary import CheckKind
from app.words import say


def month_end_burst(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    """One finding for a visitor's month."""
    limits = context.limits
    last = (context.month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    from_day = last - timedelta(days=limits.burst_days - 1)
    written = [entry for entry in entries if entry.written]
    late = [entry for entry in written if context.day(entry.started_at) >= from_day]
    if len(written) < limits.fewest_entries or len(late) < limits.burst_share * len(written):
        return
    percent = round(100 * len(late) / len(written))
    figures = {"entries": len(written), "in_last_days": len(late), "days": limits.burst_days, "percent": percent}
    because = say(
        "check.month_end_burst", entries=len(written), late=len(late), days=limits.burst_days, percent=percent
    )
    yield Suspicion(CheckKind.MONTH_END_BURST, context.group, because, figures, late[-1], whole_group=True)
