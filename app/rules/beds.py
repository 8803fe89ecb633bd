"""The bed left by night and not returned to."""

from __future__ import annotations

from collections.abc import Iterator

from app.rules.home import OCCUPANCY, Home, Where, where_at
from app.rules.verdict import AlarmKind, Severity
from app.rules.watching import Condition, Stage, View, spell
from app.words import say

_UP_S = 900  # signs of life this long after leaving the bed, past the end of the night: the day has begun


def bed_exit(home: Home, view: View, now: float) -> Iterator[Condition]:
    """Nobody is in bed, and since then, or since the last sign of life elsewhere, too much time has passed."""
    rules = view.rules.bed_exit
    if not rules.enabled or not view.present or not home.unbedded or where_at(home, now) is Where.OUT:
        return
    if not view.within(home.unbedded, rules.night_from, rules.night_to):
        return
    if any(one.holds and one.kind == OCCUPANCY and one.since >= home.unbedded for one in home.gadgets.values()):
        return  # sits, or lies, elsewhere
    last = max(home.moved, home.unbedded)
    if not view.within(last, rules.night_from, rules.night_to) and last - home.unbedded >= _UP_S:
        return  # up and about when the night was over
    minutes = rules.dementia_return_minutes if view.dementia else rules.return_minutes
    due = last + minutes * 60

    def because(at: float) -> str:
        key = "because.bed_exit" if last - home.unbedded < 60 else "because.bed_exit_moved"
        return say(
            key, time=view.clock(home.unbedded), spell=spell(at - home.unbedded), limit=spell(minutes * 60),
            moved=view.clock(last), place=view.place_of(home.by),
        )  # fmt: skip

    grown = due + rules.grows_after_minutes * 60
    yield Condition(
        AlarmKind.BED_EXIT,
        home.unbedded,
        (Stage(due, Severity.MAJOR), Stage(grown, Severity.CRITICAL)),
        because,
        home.bed or None,
    )
