"""Late entry: written down long after it happened. The mark is the ledger's own (`VisitRules.late_after_hours`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from app.visits.checks.entry import Context, Entry, Suspicion
from app.visits.vocabulary import CheckKind
from app.words import say


def late_entry(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    for entry in entries:
        if entry.written and entry.late:
            hours = round((entry.created_at - entry.end) / timedelta(hours=1))
            because = say("check.late_entry", start=context.clock(entry.started_at), hours=hours)
            yield Suspicion(CheckKind.LATE_ENTRY, entry.id.hex, because, {"hours": hours}, entry)
