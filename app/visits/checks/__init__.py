"""Rules that point at entries of the ledger. Pure, one a file; none changes whether a visit counts (policy row 43)."""

from __future__ import annotations

from collections.abc import Sequence

from app.visits.checks.burst import month_end_burst
from app.visits.checks.door import no_door_event
from app.visits.checks.duration import round_durations, zero_duration
from app.visits.checks.entry import Context, Entry, Rule, Suspicion
from app.visits.checks.late import late_entry
from app.visits.checks.overlap import overlapping
from app.visits.checks.text import cloned_text
from app.visits.checks.travel import impossible_travel

RULES: tuple[Rule, ...] = (
    impossible_travel,
    overlapping,
    cloned_text,
    month_end_burst,
    zero_duration,
    round_durations,
    late_entry,
    no_door_event,
)


def examine(entries: Sequence[Entry], context: Context) -> list[Suspicion]:
    """Everything the rules point at in one visitor's month."""
    ordered = sorted(entries, key=lambda entry: (entry.started_at, entry.id))
    return [suspicion for rule in RULES for suspicion in rule(ordered, context)]
