"""What is news. Devices say again what they said before: gateways repeat every attribute they remember, brokers hand
retained words over again, some detectors never say that it is over, and reports overtake one another.

`weigh` is pure: what was known of a field and what is said now go in; what is known from now on, and whether this is news
with the reason, come out. No report of a danger is dropped that may be a new one; none is told twice for being said twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from app.devices.events import (
    BatteryLow,
    Bed,
    Cancel,
    Cleared,
    Door,
    Event,
    Fall,
    FallWarning,
    Fault,
    Gas,
    Heartbeat,
    Motion,
    Observation,
    Press,
    Smoke,
    Sos,
    Status,
    Switch,
    Tamper,
    Vitals,
    WaterLeak,
)
from app.devices.vocabulary import FieldKind


class Edge(StrEnum):
    """What an observation is beside what was known."""

    NEWS = "news"  # it begins, ends, or happens
    REPEAT = "repeat"  # known already, said again
    STALE = "stale"  # older than what is known


class Because(StrEnum):
    """Why it is news, or why not."""

    HAPPENED = "happened"  # an event: nothing is known of it beforehand
    FIRST_SIGHT = "first_sight"  # already so when it was first heard; since when, nobody knows
    CHANGED = "changed"
    PRESSED_AGAIN = "pressed_again"  # nothing else is in the message: it was sent for this
    NEVER_TOLD = "never_told"  # it still holds, and so far it only was a test
    STILL = "still"  # it was never said to be over, and is said again after the time to re-arm
    UNHEARD = "unheard"  # a late report of something that nobody had heard of
    LOST_WORD = "lost_word"  # an action without its word, and no press that it could take back
    SAID_AGAIN = "said_again"
    TAKEN_BACK = "taken_back"  # a button's word is reset after a press
    OLDER = "older"  # overtaken by a newer report

    @property
    def edge(self) -> Edge:
        match self:
            case Because.SAID_AGAIN | Because.TAKEN_BACK:
                return Edge.REPEAT
            case Because.OLDER:
                return Edge.STALE
            case _:
                return Edge.NEWS


# Made several times for every message: a frozen dataclass costs ten times as much.
class State(msgspec.Struct, frozen=True):
    """What is known of one field of a device.

    `value` since `since`, as last said at `said_at` (the device's time where it is believed). Of a condition: `began_at`,
    when it last began; `peak`, how grave it was; `told_until`, up to when it was told; `raised_at`, which report of it was
    news, and how often (`raises`) since it began. Of a button: `began_at`, when it last said a word. `stray_at` and
    `stray_heard_at`: the last report that was older than what was known, and when it came.
    """

    value: str
    since: datetime
    said_at: datetime
    began_at: datetime | None = None
    peak: int = 0
    told_until: datetime | None = None
    raised_at: datetime | None = None
    raises: int = 0
    stray_at: datetime | None = None
    stray_heard_at: datetime | None = None
    version: int = 0  # of the row it was read from; 0: none


@dataclass(frozen=True, slots=True)
class Rearm:
    """After how long a condition that never ended is told again; each time after twice as long, at most `most`."""

    first: timedelta
    most: timedelta

    def after(self, raises: int) -> timedelta:
        return min(self.first * (1 << min(max(raises - 1, 0), 16)), self.most)


_SOON = Rearm(timedelta(hours=1), timedelta(hours=6))
_LATER = Rearm(timedelta(hours=6), timedelta(days=2))
_SELDOM = Rearm(timedelta(days=1), timedelta(days=7))
BOUNCE: Final = timedelta(seconds=60)  # presses closer than that are one
RESET: Final = timedelta(seconds=60)  # a button's word is taken back within that
_SAME_LAG: Final = timedelta(seconds=60)
_CLEAR: Final = "clear"
_TAKEN_BACK: Final = Cleared("press")


def rearm(event: Event) -> Rearm | None:
    """How soon a condition of this kind may ring again without having ended. A stuck smoke alarm must not hide the next
    fire for long; an SOS or a fall that a gateway remembers comes with every report. None: it never rings."""
    match event:
        case Smoke() | Gas():
            return _SOON
        case Sos() | Fall() | FallWarning() | WaterLeak():
            return _LATER
        case Tamper() | BatteryLow():
            return _SELDOM
        case (Door() | Motion() | Bed() | Cancel() | Press() | Switch() | Cleared() | Fault() | Vitals() | Heartbeat()
              | Status()):  # fmt: skip
            return None
        case _:
            assert_never(event)


def value_of(event: Event) -> str | None:
    """How a field is, in a word; None: the event is no state of anything."""
    match event:
        case Door(is_open):
            return "open" if is_open else "closed"
        case Bed(occupied):
            return "occupied" if occupied else "empty"
        case Motion(active) | Smoke(active) | Gas(active) | WaterLeak(active) | Tamper(active) | BatteryLow(active):
            return event.type if active else _CLEAR
        case Switch(_, on):
            return "on" if on else "off"
        case Sos() | Fall() | FallWarning():
            return event.type
        case Cleared():
            return _CLEAR
        case Press() | Cancel() | Fault() | Vitals() | Heartbeat() | Status():
            return None
        case _:
            assert_never(event)


def gravity(event: Event) -> int:
    """0: no danger; a suspected fall is 1, what is sure is 2."""
    match event:
        case FallWarning():
            return 1
        case Sos() | Fall():
            return 2
        case Smoke(active) | Gas(active) | WaterLeak(active) | Tamper(active) | BatteryLow(active):
            return 2 if active else 0
        case _:
            return 0


_GRAVITY: Final[dict[str, int]] = dict.fromkeys(
    ("sos", "fall", "smoke", "gas", "water_leak", "tamper", "battery_low"), 2
) | {"fall_warning": 1}


def is_native(seen: Observation) -> bool:
    return seen.source.profile == "native"


def sent_for_this(seen: Observation) -> bool:
    """The message says nothing else, so that it was sent for this, and not because a gateway remembers it."""
    return (seen.alone or is_native(seen)) and not seen.retained


def _is_press(seen: Observation) -> bool:
    """A word of a button, or its taking back, from a family that may lose the word."""
    if seen.source.kind is not FieldKind.EVENT or is_native(seen) or seen.retained:
        return False
    return isinstance(seen.event, Sos) or seen.event == _TAKEN_BACK


def field_of(seen: Observation) -> str | None:
    """The field whose state this observation is; None: it is an event, and has none."""
    if is_native(seen):
        return seen.event.type if isinstance(seen.event, Door | Bed | Smoke | Gas | WaterLeak) else None
    if seen.source.kind is FieldKind.EVENT and not _is_press(seen):
        return None
    return seen.source.field if seen.source.field and value_of(seen.event) is not None else None


def weigh(old: State | None, seen: Observation) -> tuple[State, Because]:
    """Whether what is said is news beside what was known, and what is known from now on."""
    if _is_press(seen):
        return _press(old, seen)
    value = value_of(seen.event)
    if value is None:
        raise ValueError(f"{seen.event.type} is no state")
    at, grave = seen.occurred_at, gravity(seen.event)
    if old is None:
        return _begun(State(value, at, at), seen, Because.FIRST_SIGHT)
    if at < old.said_at and not _clock_went_back(old, seen):
        return _older(old, seen)
    now = replace(old, said_at=at, stray_at=None, stray_heard_at=None)
    was = _GRAVITY.get(old.value, 0)
    if value == old.value:
        return _again(now, seen) if grave else (now, Because.SAID_AGAIN)
    if grave and grave >= was:
        return _begun(
            replace(now, value=value, since=at, began_at=old.began_at if was else None), seen, Because.CHANGED
        )
    if grave:  # less grave, and not over
        return _again(replace(now, value=value, since=at), seen)
    until = at if was else old.told_until
    return replace(now, value=value, since=at, told_until=until, raised_at=None, raises=0), Because.CHANGED


def _begun(state: State, seen: Observation, because: Because) -> tuple[State, Because]:
    grave = gravity(seen.event)
    if not grave:
        return state, because
    began = state.began_at or seen.occurred_at
    return replace(state, began_at=began, peak=grave, raised_at=seen.occurred_at, raises=1), because


def _again(state: State, seen: Observation) -> tuple[State, Because]:
    """A danger that was known is said again."""
    at = seen.occurred_at
    told = replace(state, raised_at=at, raises=state.raises + 1)
    if state.raised_at is None:
        return told, Because.NEVER_TOLD
    passed = at - min(state.raised_at, at)
    if isinstance(seen.event, Sos) and sent_for_this(seen) and passed >= BOUNCE:
        return replace(told, raises=1), Because.PRESSED_AGAIN
    again = rearm(seen.event)
    if again is not None and passed >= again.after(state.raises):
        return told, Because.STILL
    return replace(state, raised_at=min(state.raised_at, at)), Because.SAID_AGAIN


def _older(old: State, seen: Observation) -> tuple[State, Because]:
    """A report that was overtaken never changes what is known now. A danger in it that nobody heard of is told."""
    at, grave = seen.occurred_at, gravity(seen.event)
    strayed = replace(old, stray_at=at, stray_heard_at=seen.received_at)
    if grave <= _GRAVITY.get(old.value, 0):
        return strayed, Because.OLDER
    began, until = old.began_at, old.told_until
    if began is not None and until is not None and began <= at <= until and grave <= old.peak:
        return strayed, Because.OLDER
    told = replace(strayed, began_at=min(began or at, at), told_until=old.said_at, peak=max(grave, old.peak))
    return told, Because.UNHEARD


def _clock_went_back(old: State, seen: Observation) -> bool:
    """Messages that waited somewhere come in a burst; a clock that was set back is behind by the same time each time."""
    if old.stray_at is None or old.stray_heard_at is None:
        return False
    lag, lag_before = seen.received_at - seen.occurred_at, old.stray_heard_at - old.stray_at
    return abs(lag - lag_before) < _SAME_LAG <= seen.received_at - old.stray_heard_at


def _press(old: State | None, seen: Observation) -> tuple[State, Because]:
    """A button's word is always news. An action without a word takes the word before it back; where there is none, it is
    a press whose word was lost (some converters lose it each time). A device that does say words is believed so only
    once, until it says one again or re-arms: its gateway may repeat the empty word with every report."""
    at = seen.occurred_at
    match seen.event:
        case Sos(unsaid=False):
            state = State("said", at, at, began_at=at, raised_at=at, raises=0, version=old.version if old else 0)
            return state, Because.HAPPENED
        case Cleared():
            state = old or State("taken_back", at, at)
            return replace(state, value="taken_back", since=at, said_at=max(at, state.said_at)), Because.TAKEN_BACK
        case _:
            pass
    lost = State("lost", at, at, raised_at=at, raises=1)
    if old is None:
        return lost, Because.LOST_WORD
    if at - old.said_at < RESET:
        return replace(old, value="lost" if old.value == "lost" else "taken_back"), Because.TAKEN_BACK
    says_words = old.began_at is not None
    if says_words and old.raises and old.raised_at and at - old.raised_at < _LATER.after(old.raises):
        return old, Because.SAID_AGAIN
    return replace(lost, began_at=old.began_at, raises=old.raises + 1, version=old.version), Because.LOST_WORD
