"""The door of the home: left open, and passed by night without coming back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from app.rules.home import Gadget, Home, Where, gadget_flaps, watches_way_out
from app.rules.verdict import AlarmKind, Severity
from app.rules.watching import Condition, Stage, View, spell
from app.words import say

_BED = "bed_sensor"


def door_left_open(home: Home, view: View, now: float) -> Iterator[Condition]:
    """A way out that stands open; by night sooner than by day. A contact that flaps says nothing about its door."""
    rules = view.rules.door_left_open
    if not rules.enabled:
        return
    for device_id, gadget in home.gadgets.items():
        if gadget.kind == _BED or not gadget.holds or not watches_way_out(gadget) or gadget_flaps(gadget, now):
            continue
        by_day = gadget.since + rules.after_minutes * 60
        begins = gadget.since
        if not view.within(begins, rules.night_from, rules.night_to):
            begins = view.next_time(begins, rules.night_from)
        by_night = begins + rules.night_after_minutes * 60
        due = min(by_day, by_night)
        at_night = view.within(due, rules.night_from, rules.night_to)
        yield Condition(
            AlarmKind.DOOR_LEFT_OPEN,
            gadget.since,
            (
                Stage(due, Severity.MINOR if at_night else Severity.WARNING),
                Stage(due + rules.grows_after_minutes * 60, Severity.MAJOR if at_night else Severity.MINOR),
            ),
            _left_open(view, device_id, gadget, rules.night_after_minutes if at_night else rules.after_minutes),
            device_id,
        )


def _left_open(view: View, device_id: str, gadget: Gadget, limit: int) -> Callable[[float], str]:
    def because(at: float) -> str:
        return say(
            "because.door_left_open", place=gadget.place or view.place_of(device_id), time=view.clock(gadget.since),
            spell=spell(at - gadget.since), limit=spell(limit * 60),
        )  # fmt: skip

    return because


def night_exit(home: Home, view: View, now: float) -> Iterator[Condition]:
    """The door was passed by night, from inside, and nothing says that the person is back. With dementia also who left
    earlier and is still out when the night begins."""
    rules = view.rules.night_exit
    if not rules.enabled or not view.present or home.where not in (Where.DOOR, Where.OUT) or not home.left:
        return
    begins, ends = (rules.dementia_from, rules.dementia_to) if view.dementia else (rules.night_from, rules.night_to)
    begun = home.left
    if not view.within(home.left, begins, ends):
        if not view.dementia:
            return  # an evening out, or a night at the children's
        begun = view.next_time(home.left, begins)  # still out when the night begins
    minutes = rules.dementia_return_minutes if view.dementia else rules.return_minutes
    due = begun + minutes * 60

    def because(at: float) -> str:
        key = "because.night_exit" if not view.dementia else "because.night_exit_dementia"
        if begun != home.left:
            key = "because.out_as_night_begins"
        return say(
            key, time=view.clock(home.left), spell=spell(at - home.left), limit=spell(minutes * 60), begins=begins,
            ends=ends,
        )  # fmt: skip

    first = Severity.CRITICAL if view.dementia else Severity.MAJOR
    grown = due + rules.grows_after_minutes * 60
    yield Condition(
        AlarmKind.NIGHT_EXIT, home.left, (Stage(due, first), Stage(grown, Severity.CRITICAL)), because, home.by or None
    )
