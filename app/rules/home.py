"""What is known of a home, folded from what its devices said. Pure: the state and an event in, what changed out.

Times are seconds since 1970 (UTC): the state is kept as JSON, decoded and encoded for every batch of events. Nothing in
it depends on settings, so that a setting that changes needs no fold again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from app.devices.events import (
    CLOCK_TOLERANCE,
    BatteryLow,
    Bed,
    Cancel,
    Cleared,
    Door,
    Event,
    Fall,
    FallWarning,
    Fault,
    Motion,
    Press,
    Status,
    Tamper,
    Vitals,
)
from app.rules import past
from app.rules.past import Past
from app.rules.places import Spot, spot

PASSING_S: Final = 180  # the door moved again within this: one passing
PENDING_S: Final = 600  # after a passing, a sign of life within this says that somebody is at home
_SETTLE_S: Final = 20  # sooner after the door it may be the one who leaves
_HALL_SETTLE_S: Final = 60  # a motion sensor at the door sees the one who leaves for longer
_CLUE_S: Final = 300  # signs in an empty home count when they come together
_CLUES: Final = 3
_HAUNTED: Final = 3
_MOST_GHOSTS: Final = 99
_FALL_SETTLE_S: Final = 10
_REST_SETTLE_S: Final = 300  # signs of life this soon after lying or sitting down still belong to it
OCCUPANCY: Final = "bed_sensor"
_FLIP_S: Final = 3600  # changes of a contact are counted over an hour at most
_QUIET_MOVE_S: Final = 60  # a sign of life this soon after the last is not worth a write
_SKEW_S: Final = CLOCK_TOLERANCE.total_seconds()
_SKEW_SAME_S: Final = 120
_SKEW_SPAN_S: Final = 600
_BATTERY_JUMP: Final = 40


class Where(StrEnum):
    UNKNOWN = "unknown"
    HOME = "home"
    DOOR = "door"  # the door moved: left, unless a sign of life follows
    OUT = "out"


class Change(IntEnum):
    """What an event changed. Only from STIRRED on somebody must look at the home earlier than was planned."""

    NOTHING = 0
    MOVED = 1  # a sign of life, and nothing else
    NOTED = 2
    STIRRED = 3


class Gadget(msgspec.Struct, omit_defaults=True):
    """What a device said about itself and of the one thing it watches. `holds`: open, or occupied."""

    kind: str = ""
    place: str = ""
    holds: bool | None = None
    since: float = 0  # when it changed last
    told: float = 0  # when it said so last
    beat: float = 0  # when the device was last heard while somebody rested there, as far as a look saw it
    every: float = 0  # and how long before that
    flips: list[float] = []  # the last changes, the oldest first
    tamper: float = 0  # since when
    unheard: float = 0  # since when its network says that it drops what the device sends
    battery: int = -1
    low: float = 0  # since when the battery is low
    doubted: int = -1  # a reading that fell too deep to be believed at once
    skew: float = 0  # how far its clock is off, in seconds
    skews: int = 0  # how often in a row
    skewed: float = 0  # since when


class Raised(msgspec.Struct, omit_defaults=True):
    """An alarm that stands, as far as the rules know."""

    severity: str
    at: float


class Home(msgspec.Struct, omit_defaults=True):
    moved: float = 0  # the last sign that somebody moves
    heard: float = 0  # the last word of a sensor that sees people: a bed that goes on saying «occupied», too
    by: str = ""  # which device said it
    where: Where = Where.UNKNOWN
    passed: float = 0  # the door moved last
    left: float = 0  # where = door or out: when this passing began
    clues: list[tuple[float, str]] = []  # signs in a home that should be empty
    contact: bool = False  # a contact watches the way out
    inside: bool = False  # a sensor watches a room
    warned: float = 0  # a detector suspects a fall
    warner: str = ""
    unbedded: float = 0  # the bed was left
    bed: str = ""
    bridge_down: float = 0
    bridge_back: float = 0
    gadgets: dict[str, Gadget] = {}
    raised: dict[str, Raised] = {}
    past: Past = msgspec.field(default_factory=Past)


@dataclass(frozen=True, slots=True)
class Heard:
    """One event as the rules take it. `at`: when it happened; `received`: when it came."""

    device_id: str
    event: Event
    at: float
    received: float
    kind: str = ""
    place: str | None = None
    battery: int | None = None
    device_time: float | None = None
    retained: bool = False


def where_at(home: Home, now: float) -> Where:
    """Whoever has passed the door and was not seen at home within ten minutes is out."""
    return Where.OUT if home.where is Where.DOOR and now - home.passed > PENDING_S else home.where


_DROPPED = "UPLINK_F_CNT_RESET"  # LoRaWAN: after its counter began anew the network drops whatever a device sends


def fold(home: Home, heard: Heard, tz: ZoneInfo) -> Change:
    """Take in one event, in place. Late and repeated ones never make a home younger or a silence shorter."""
    if heard.retained:
        return Change.NOTHING  # an old message said again
    at = _trusted_time(home, heard)
    change = max(_clock(home, heard), _battery(home, heard, at))
    match heard.event:
        case Door(is_open):
            found = _door(home, heard, at, is_open, tz)
        case Motion(active):
            found = _motion(home, heard, at, active, tz)
        case Bed(occupied):
            found = _bed(home, heard, at, occupied, tz)
        case Vitals() | Press() | Cancel():
            found = _life(home, heard, at, tz, sure=True)
        case FallWarning():
            home.warned, home.warner = at, heard.device_id
            found = Change.STIRRED
        case Cleared(of="fall_warning") | Fall():  # taken back, or an alarm of its own by now
            found = Change.STIRRED if home.warned else Change.NOTHING
            home.warned = 0
        case Tamper(active):
            gadget = _gadget(home, heard)
            found = Change.STIRRED if active == (not gadget.tamper) else Change.NOTHING
            gadget.tamper = (gadget.tamper or at) if active else 0
        case BatteryLow(active, may_hide_sos) if not may_hide_sos:
            gadget = _gadget(home, heard)
            found = Change.STIRRED if active == (not gadget.low) else Change.NOTHING
            gadget.low = (gadget.low or at) if active else 0
        case Fault(code) if code == _DROPPED:
            gadget = _gadget(home, heard)
            found = Change.NOTHING if gadget.unheard else Change.STIRRED
            gadget.unheard = gadget.unheard or at
            return max(change, found)
        case Status():
            found = Change.STIRRED  # how devices are stands in the register: see `Device` in watching.py
        case _:
            found = Change.NOTHING
    known = home.gadgets.get(heard.device_id)
    if known is not None and known.unheard and at > known.unheard and not isinstance(heard.event, Fault):
        known.unheard = 0  # it is heard again
        found = Change.STIRRED
    return max(change, found)


def rests_on(home: Home) -> list[str]:
    """Beds and chairs that somebody lay or sat down on, if nothing else moved since."""
    return [
        device_id
        for device_id, one in home.gadgets.items()
        if one.kind == OCCUPANCY and one.holds and home.moved - one.since <= _REST_SETTLE_S
    ]


def forget_device(home: Home, device_id: str) -> None:
    """A device that was taken away says nothing about this home any more."""
    home.gadgets.pop(device_id, None)
    if home.bed == device_id:
        home.bed, home.unbedded = "", 0


def worth_writing(change: Change, before: float, home: Home) -> bool:
    """A busy home moves every few seconds; a minute is exact enough. `before`: `moved` as it is kept."""
    return change > Change.MOVED or (change is Change.MOVED and home.moved - before >= _QUIET_MOVE_S)


# --- times ------------------------------------------------------------------------------------------------------------


def _trusted_time(home: Home, heard: Heard) -> float:
    """A message that waited in a gateway happened when it says; a clock that is always off by the same says nothing."""
    gadget = home.gadgets.get(heard.device_id)
    if gadget is not None and clock_is_off(gadget, heard.received):
        return heard.received
    return min(heard.at, heard.received)


def clock_is_off(gadget: Gadget, now: float) -> bool:
    """Off by the same amount three times, over ten minutes: that is no delay on the way."""
    return gadget.skews >= 3 and now - gadget.skewed >= _SKEW_SPAN_S


def _clock(home: Home, heard: Heard) -> Change:
    if heard.device_time is None:
        return Change.NOTHING
    skew = heard.device_time - heard.received
    known = home.gadgets.get(heard.device_id)
    if abs(skew) <= _SKEW_S:
        if known is None or not known.skews:
            return Change.NOTHING
        known.skews, known.skew, known.skewed = 0, 0, 0
        return Change.STIRRED
    gadget = _gadget(home, heard)
    # A clock that stands still (1970) drifts by as much as time goes on.
    same = abs(skew - gadget.skew) <= _SKEW_SAME_S or skew > 0 or skew < -30 * 86_400
    if not gadget.skews or not same:
        gadget.skews, gadget.skewed = 1, heard.received
    elif gadget.skews < 100:
        gadget.skews += 1
    else:
        return Change.NOTHING
    gadget.skew = skew
    return Change.STIRRED


# --- signs of life ----------------------------------------------------------------------------------------------------


def _life(home: Home, heard: Heard, at: float, tz: ZoneInfo, *, sure: bool) -> Change:
    """Somebody moves inside. `sure`: no sensor sees such a thing in an empty home."""
    change = Change.MOVED
    where = where_at(home, at)
    settle = _HALL_SETTLE_S if spot(heard.place) is Spot.WAY_OUT else _SETTLE_S
    if where is Where.OUT:
        if not sure and not _corroborated(home, heard, at, _CLUE_S):
            home.past.ghosts = min(home.past.ghosts + 1, _MOST_GHOSTS)
            return Change.NOTED
        change = Change.STIRRED
        _come_home(home)
        home.heard = max(home.heard, at)  # the quiet of an empty home is not learned
    elif where is Where.DOOR:
        if at - home.passed < settle or at < home.passed:
            return _moved(home, heard, at, tz, change)
        if not sure and home.past.ghosts >= _HAUNTED and not _corroborated(home, heard, at, PENDING_S, 2):
            return Change.NOTED
        change = Change.STIRRED
        _come_home(home)
    elif where is Where.UNKNOWN:
        home.where = Where.HOME
        change = Change.STIRRED
    if home.warned and at >= home.warned + _FALL_SETTLE_S:
        home.warned = 0  # life goes on
        change = Change.STIRRED
    return _moved(home, heard, at, tz, change)


def _come_home(home: Home) -> None:
    home.where, home.left, home.clues = Where.HOME, 0, []


def _moved(home: Home, heard: Heard, at: float, tz: ZoneInfo, change: Change) -> Change:
    if at <= home.moved:
        return Change.NOTHING if change is Change.MOVED else change
    _quiet_ends(home, at, tz)
    if home.raised:
        change = Change.STIRRED  # what stands may be over
    home.moved, home.by = at, heard.device_id
    home.heard = max(home.heard, at)
    return change


def _quiet_ends(home: Home, at: float, tz: ZoneInfo) -> None:
    """Learn from a quiet at home; a day is counted once."""
    if at - home.heard < 900 and int(at // 3600) == int(home.heard // 3600):
        return
    ended = datetime.fromtimestamp(at, tz)
    past.see_day(home.past, ended.toordinal())
    if home.heard and home.where is Where.HOME and home.bridge_back <= home.heard:
        past.learn(home.past, datetime.fromtimestamp(home.heard, tz), ended)


def _corroborated(home: Home, heard: Heard, at: float, within_s: float, enough: int = _CLUES) -> bool:
    """Motion sensors see ghosts: warm air, the sun. Two sensors, or one three times, within five minutes are somebody. A
    home that has ghosts gives two signs when somebody stays who was at the door; any other needs one."""
    recent = [one for one in home.clues if 0 <= at - one[0] <= within_s]
    home.clues = [*recent[-_CLUES:], (at, heard.device_id)]
    if len(home.clues) < enough and len({device for _, device in home.clues}) < 2:
        return False
    home.past.ghosts = max(home.past.ghosts - len(recent), 0)
    return True


def _motion(home: Home, heard: Heard, at: float, active: bool, tz: ZoneInfo) -> Change:
    if not active:
        # The motion ended a moment ago; whether in the home or on its way out is not said.
        if where_at(home, at) in (Where.HOME, Where.UNKNOWN) and home.moved:
            return _moved(home, heard, at, tz, Change.MOVED)
        return Change.NOTHING
    if spot(heard.place) is Spot.WAY_OUT and not home.contact:
        return _pass(home, heard, at, tz, contact=False)
    first = not home.inside
    home.inside = True
    found = _life(home, heard, at, tz, sure=False)
    return Change.STIRRED if first else found


def _bed(home: Home, heard: Heard, at: float, occupied: bool, tz: ZoneInfo) -> Change:
    gadget = _gadget(home, heard)
    if at < gadget.told:
        return Change.NOTHING  # an older word, come late
    first = not home.inside
    home.inside = True
    gadget.told = at
    if gadget.holds is occupied:
        if not occupied or where_at(home, at) is Where.OUT:
            return Change.NOTHING
        before = home.heard
        if at > home.heard:
            home.heard, home.by = at, heard.device_id
        return Change.NOTED if home.heard - before >= _QUIET_MOVE_S else Change.NOTHING
    known = gadget.holds is not None
    gadget.holds, gadget.since = occupied, at
    if not known and not occupied:
        return Change.STIRRED  # its first word says how it is, not that somebody rose
    _flip(gadget, at)
    if gadget_flaps(gadget, at):
        return Change.STIRRED if len(gadget.flips) < _MOST_FLIPS else Change.NOTHING
    found = _life(home, heard, at, tz, sure=True)
    if spot(heard.place) is not Spot.SEAT:
        home.unbedded, home.bed = (0, "") if occupied else (at, heard.device_id)
        return Change.STIRRED
    return Change.STIRRED if first else max(found, Change.NOTED)


# --- doors ------------------------------------------------------------------------------------------------------------


def _door(home: Home, heard: Heard, at: float, is_open: bool, tz: ZoneInfo) -> Change:
    gadget = _gadget(home, heard)
    if at < gadget.told:
        return Change.NOTHING  # an older word, come late
    gadget.told = at
    if gadget.holds is is_open:
        return Change.NOTHING
    first, gadget.holds, gadget.since = gadget.holds is None, is_open, at
    _flip(gadget, at)
    if not watches_way_out(gadget):
        known, home.inside = home.inside, True
        if (first and not is_open) or gadget_flaps(gadget, at):
            return Change.NOTED  # its first word says how it is, not that somebody moved it
        found = _life(home, heard, at, tz, sure=False)
        return found if known else Change.STIRRED
    home.contact = True
    if first and not is_open:
        return Change.STIRRED
    if gadget_flaps(gadget, at):
        return Change.STIRRED if len(gadget.flips) < _MOST_FLIPS else Change.NOTHING
    return max(_pass(home, heard, at, tz, contact=True), Change.STIRRED)


def watches_way_out(gadget: Gadget) -> bool:
    return spot(gadget.place) in (Spot.WAY_OUT, Spot.UNTOLD)


def _pass(home: Home, heard: Heard, at: float, tz: ZoneInfo, *, contact: bool) -> Change:
    """The door, or somebody at it. From inside that is leaving, from outside coming home; a sign of life decides."""
    where = where_at(home, at)
    same = home.passed and 0 <= at - home.passed <= PASSING_S and home.moved <= home.passed
    change = Change.MOVED
    if where is Where.OUT and contact:
        # Whoever was out and opens the door comes home: if nothing moves then, that must be noticed.
        _come_home(home)
        home.heard = max(home.heard, at)
        change = Change.STIRRED
    elif where is Where.OUT:
        home.where, home.left = Where.DOOR, home.left or at
    elif where is not Where.DOOR and not (same and contact and where is Where.HOME and home.left == 0):
        home.where, home.left = Where.DOOR, at
        change = Change.STIRRED
    home.passed = max(home.passed, at)
    if home.warned and at >= home.warned + _FALL_SETTLE_S:
        home.warned, change = 0, Change.STIRRED
    return max(_moved(home, heard, at, tz, change), Change.NOTED)


# --- the devices themselves -------------------------------------------------------------------------------------------

_MOST_FLIPS: Final = 64


def _gadget(home: Home, heard: Heard) -> Gadget:
    gadget = home.gadgets.get(heard.device_id)
    if gadget is None:
        gadget = home.gadgets[heard.device_id] = Gadget()
    if heard.kind:
        gadget.kind = heard.kind
    if heard.place:
        gadget.place = heard.place
    return gadget


def _flip(gadget: Gadget, at: float) -> None:
    gadget.flips = [*[one for one in gadget.flips if at - one <= _FLIP_S][-_MOST_FLIPS + 1 :], at]


def gadget_flaps(gadget: Gadget, at: float, changes: int = 20, within_s: float = 600) -> bool:
    """Nobody opens a door twenty times in ten minutes."""
    return len(gadget.flips) >= changes and at - gadget.flips[-changes] <= within_s


def _battery(home: Home, heard: Heard, at: float) -> Change:
    """Readings that fall too deep at once are believed when they come twice: many devices say 0 now and then."""
    level = heard.battery
    if level is None:
        return Change.NOTHING
    gadget = _gadget(home, heard)
    if gadget.battery - level >= _BATTERY_JUMP and gadget.doubted < 0:
        gadget.doubted = level
        return Change.NOTED
    gadget.doubted = -1
    if gadget.battery == level:
        return Change.NOTHING
    gadget.battery = level
    return Change.STIRRED if level <= 50 or gadget.low else Change.NOTED
