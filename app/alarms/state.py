"""The alarm's life as a table. Pure: what may follow what, and nothing else."""

from __future__ import annotations

from enum import StrEnum

from app.alarms.vocabulary import AlarmState
from app.errors import IllegalTransition

OPEN, ACKNOWLEDGED, ATTENDING, RESOLVED = AlarmState


class Move(StrEnum):
    ACKNOWLEDGE = "acknowledge"  # somebody promises to come
    ATTEND = "attend"  # somebody is there
    RESOLVE = "resolve"  # an outcome; terminal
    REOPEN = "reopen"  # the promise passed


MOVES: dict[tuple[AlarmState, Move], AlarmState] = {
    (OPEN, Move.ACKNOWLEDGE): ACKNOWLEDGED,
    (OPEN, Move.ATTEND): ATTENDING,
    (OPEN, Move.RESOLVE): RESOLVED,
    (ACKNOWLEDGED, Move.ACKNOWLEDGE): ACKNOWLEDGED,  # a new promise, or a nearer person
    (ACKNOWLEDGED, Move.ATTEND): ATTENDING,
    (ACKNOWLEDGED, Move.RESOLVE): RESOLVED,
    (ACKNOWLEDGED, Move.REOPEN): OPEN,
    (ATTENDING, Move.RESOLVE): RESOLVED,
}


def after(state: AlarmState, move: Move) -> AlarmState:
    """Where a move leads. Raises `IllegalTransition` that says what is possible instead."""
    try:
        return MOVES[state, move]
    except KeyError:
        possible = [m.value for s, m in MOVES if s == state and m is not Move.REOPEN]
        way_out = f"possible now: {', '.join(possible)}" if possible else "it is closed for good"
        raise IllegalTransition(f"an alarm that is {state.value} cannot {move.value}; {way_out}") from None
