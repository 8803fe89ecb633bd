"""Overlapping visits: one visitor with two people at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from app.visits.checks.entry import Context, Entry, Suspicion, pair_key
from app.visits.vocabulary import CheckKind
from app.words import say

_AT_LEAST = timedelta(minutes=1)  # an entry without an end takes a moment too


def overlapping(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    """Couples who live together and gatherings overlap honestly: the reason says so, and a supervisor decides."""
    running: list[Entry] = []
    for entry in entries:
        running = [one for one in running if _end(one) > entry.started_at]
        for one in running:
            if one.elder_id != entry.elder_id:
                minutes = (min(_end(one), _end(entry)) - entry.started_at) / timedelta(minutes=1)
                figures = {"overlap_minutes": round(minutes), "same_village": one.place_code == entry.place_code}
                because = say("check.overlapping", start=context.clock(entry.started_at), minutes=round(minutes))
                yield Suspicion(CheckKind.OVERLAPPING, pair_key(one, entry), because, figures, entry, other=one)
        running.append(entry)


def _end(entry: Entry) -> datetime:
    return max(entry.end, entry.started_at + _AT_LEAST)
