"""Rules are pure: an observation in, a verdict with its reason out. One rule a file; this is the list of them."""

from __future__ import annotations

from collections.abc import Callable

from app.devices.events import (
    BatteryLow,
    Bed,
    Cancel,
    Door,
    Fall,
    FallWarning,
    Heartbeat,
    Motion,
    Observation,
    Press,
    Sos,
    Status,
    Vitals,
)
from app.rules.cancel import cancel
from app.rules.emergencies import emergencies
from app.rules.verdict import Calm, Nothing, Raise, Verdict

Rule = Callable[[Observation], Raise | Calm | None]

RULES: tuple[Rule, ...] = (emergencies, cancel)

# A retained message is an old one said again: it says what was, not that it happens now. Conditions that hold until
# they end (smoke, gas, a leak) may still hold and are not listed.
_EVENT_KINDS = (Sos, Fall, FallWarning, Press, BatteryLow, Cancel, Door, Motion, Bed, Vitals, Heartbeat, Status)


def judge(seen: Observation) -> Verdict:
    """The first rule with something to say decides."""
    if seen.retained and isinstance(seen.event, _EVENT_KINDS):
        return Nothing("a retained message of an event kind never raises an alarm")
    for rule in RULES:
        verdict = rule(seen)
        if verdict is not None:
            return verdict
    return Nothing("no rule asks for an alarm")
