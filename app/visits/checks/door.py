"""A visit at home during which the home's door did not move, though its sensor was speaking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.visits.checks.entry import Context, Entry, Suspicion
from app.visits.vocabulary import CheckKind, DoorEvidence, Method
from app.words import say

MINUTES_AROUND = 15


def no_door_event(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    """A sensor that says nothing for days proves nothing, and a door may have stood open: a reason to ask, not more."""
    for entry in entries:
        if entry.written and entry.method is Method.HOME and entry.door is DoorEvidence.NOT_SEEN:
            because = say("check.no_door_event", start=context.clock(entry.started_at), minutes=MINUTES_AROUND)
            yield Suspicion(CheckKind.NO_DOOR_EVENT, entry.id.hex, because, {"minutes_around": MINUTES_AROUND}, entry)
