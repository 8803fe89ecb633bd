"""Rules are pure: an observation in, a verdict with its reason out. One rule a file; this is the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.devices.edges import Because, Edge, sent_for_this
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
from app.devices.vocabulary import FieldKind
from app.rules.cancel import cancel
from app.rules.emergencies import emergencies
from app.rules.verdict import AlarmKind, Calm, Nothing, Raise, Severity, Verdict
from app.words import say

Rule = Callable[[Observation], Raise | Calm | None]

RULES: tuple[Rule, ...] = (emergencies, cancel)

# A retained message is an old one said again: it says what was, not that it happens now. Conditions that hold until
# they end (smoke, gas, a leak; an SOS that is kept as a state) may still hold: whether they are news, their edge says.
_EVENT_KINDS = (Sos, Fall, FallWarning, Press, BatteryLow, Cancel, Door, Motion, Bed, Vitals, Heartbeat, Status)

# What a reason has to add to an alarm's own words.
_DOUBTS = {
    Because.FIRST_SIGHT: "doubt.first_sight",
    Because.STILL: "doubt.still",
    Because.UNHEARD: "doubt.unheard",
    Because.LOST_WORD: "doubt.lost_word",
    Because.NEVER_TOLD: "doubt.never_told",
}


def judge(seen: Observation, edge: Because = Because.HAPPENED) -> Verdict:
    """The first rule with something to say decides. What was known already raises nothing; sent again for its own sake, it
    joins the alarm that is unresolved."""
    news = edge.edge is Edge.NEWS
    if not news and not (edge is Because.SAID_AGAIN and sent_for_this(seen)):
        return Nothing(f"no news: {edge.value}")
    if seen.retained and seen.source.kind is FieldKind.EVENT and isinstance(seen.event, _EVENT_KINDS):
        return Nothing("a retained message of an event kind never raises an alarm")
    for rule in RULES:
        verdict = rule(seen)
        if isinstance(verdict, Raise):
            return _with_doubt(verdict, edge, seen) if news else replace(verdict, only_joins=True)
        if verdict is not None and news:
            return verdict
    return Nothing("no rule asks for an alarm")


def _with_doubt(verdict: Raise, edge: Because, seen: Observation) -> Raise:
    """The same, with what is doubtful about it said. A gateway or broker may remember an SOS or a fall that was long dealt
    with: retained and heard for the first time, or said again after the time to re-arm, somebody asks at once, and not
    everybody is sent running."""
    if edge not in _DOUBTS or (edge is Because.FIRST_SIGHT and sent_for_this(seen)):
        return verdict
    remembered = edge is Because.STILL or (edge is Because.FIRST_SIGHT and seen.retained)
    severity = verdict.severity
    if remembered and verdict.kind in (AlarmKind.SOS, AlarmKind.FALL):
        severity = max(severity, Severity.MAJOR, key=lambda s: s.rank)
    return replace(verdict, severity=severity, because=f"{verdict.because}({say(_DOUBTS[edge])})")
