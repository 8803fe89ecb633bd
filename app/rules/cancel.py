"""The elder says "I am fine": less urgent, yet one person still looks. A fire is not cancelled by a button."""

from __future__ import annotations

from app.devices.events import Cancel, Observation
from app.rules.verdict import AlarmKind, Calm
from app.words import say


def cancel(seen: Observation) -> Calm | None:
    """Lower the urgency of SOS and fall alarms."""
    if not isinstance(seen.event, Cancel):
        return None
    return Calm((AlarmKind.SOS, AlarmKind.FALL), say("because.cancel"))
