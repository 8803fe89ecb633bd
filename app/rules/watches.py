"""The list of the rules over time, and the one way to judge a home by them."""

from __future__ import annotations

from typing import Final

from app.rules.beds import bed_exit
from app.rules.doors import door_left_open, night_exit
from app.rules.falls import suspected_fall
from app.rules.health import (
    battery_low,
    bridge_offline,
    clock_wrong,
    device_silent,
    flapping,
    note_bridge,
    tamper,
    unheard,
)
from app.rules.home import Home
from app.rules.silence import no_activity, note_rests
from app.rules.watching import Look, View, Watch, look

WATCHES: Final[tuple[Watch, ...]] = (
    suspected_fall, no_activity, night_exit, bed_exit, door_left_open,
    bridge_offline, device_silent, battery_low, tamper, unheard, flapping, clock_wrong,
)  # fmt: skip


def watch(home: Home, view: View, now: float) -> Look:
    """Judge a home as it is now, and say when to look again."""
    note_bridge(home, view, now)
    note_rests(home, view)
    return look(home, view, now, WATCHES)
