"""A suspected fall: it grows into an alarm if nobody moves, and calms down if life goes on (the fold forgets it then)."""

from __future__ import annotations

from collections.abc import Iterator

from app.rules.home import Home
from app.rules.verdict import AlarmKind, Severity
from app.rules.watching import Condition, Stage, View, spell
from app.words import say


def suspected_fall(home: Home, view: View, now: float) -> Iterator[Condition]:
    """A detector suspects a fall, and since then nothing moved. Nothing ever covers it."""
    if not home.warned:
        return
    wait = view.rules.fall.wait_seconds

    def because(at: float) -> str:
        return say(
            "because.fall_grown", place=view.place_of(home.warner), time=view.clock(home.warned), spell=spell(wait)
        )

    yield Condition(
        AlarmKind.FALL, home.warned, (Stage(home.warned + wait, Severity.CRITICAL),), because, home.warner or None
    )
