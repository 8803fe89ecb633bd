"""The closed vocabulary of what a device can say. Every codec ends here; every `match` over it is exhaustive."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, assert_never

import msgspec

from app.devices.vocabulary import DeviceKind, FieldKind
from app.ids import DeviceId

CLOCK_TOLERANCE = timedelta(minutes=5)
LONGEST_WAIT = timedelta(days=30)  # no gateway keeps a message longer: an older time is a wrong clock (1970)


@dataclass(frozen=True, slots=True)
class Sos:
    """`unsaid`: the button's word is missing. It is a press whose word was lost, or takes back the one before it."""

    type: ClassVar[str] = "sos"
    unsaid: bool = False


@dataclass(frozen=True, slots=True)
class Fall:
    """`confidence` is the detector's own, 0 to 1; None = it does not say."""

    type: ClassVar[str] = "fall"
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Door:
    type: ClassVar[str] = "door"
    is_open: bool


@dataclass(frozen=True, slots=True)
class Motion:
    type: ClassVar[str] = "motion"
    active: bool = True


@dataclass(frozen=True, slots=True)
class Bed:
    type: ClassVar[str] = "bed"
    occupied: bool


@dataclass(frozen=True, slots=True)
class Smoke:
    type: ClassVar[str] = "smoke"
    active: bool


@dataclass(frozen=True, slots=True)
class Gas:
    type: ClassVar[str] = "gas"
    active: bool


@dataclass(frozen=True, slots=True)
class WaterLeak:
    type: ClassVar[str] = "water_leak"
    active: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """The elder says "I am fine"."""

    type: ClassVar[str] = "cancel"


@dataclass(frozen=True, slots=True)
class Vitals:
    type: ClassVar[str] = "vitals"
    readings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    type: ClassVar[str] = "heartbeat"


@dataclass(frozen=True, slots=True)
class Status:
    """The retained word of the device or its last will."""

    type: ClassVar[str] = "status"
    online: bool


# What only other families than the native one say.


@dataclass(frozen=True, slots=True)
class FallWarning:
    """The detector suspects a fall and watches on."""

    type: ClassVar[str] = "fall_warning"


@dataclass(frozen=True, slots=True)
class Press:
    """A button was pressed, and this is its word for it (`single`, `hold`). Whether that is an SOS, the device's role
    decides; `meant`: the role the product is sold for, while nobody gave the device one."""

    type: ClassVar[str] = "press"
    word: str
    meant: DeviceKind | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """An input is on or off. What that means, the device's role decides."""

    type: ClassVar[str] = "switch"
    name: str
    on: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """A condition is over, or a button's word was taken back: `of` is `sos`, `fall`, `fall_warning` or `press`."""

    type: ClassVar[str] = "cleared"
    of: str


@dataclass(frozen=True, slots=True)
class Tamper:
    type: ClassVar[str] = "tamper"
    active: bool


@dataclass(frozen=True, slots=True)
class BatteryLow:
    """`may_hide_sos`: this device says only one of the two when both are so."""

    type: ClassVar[str] = "battery_low"
    active: bool
    may_hide_sos: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """The device or its network says that something is wrong with it."""

    type: ClassVar[str] = "fault"
    code: str


Event = (
    Sos
    | Fall
    | FallWarning
    | Door
    | Motion
    | Bed
    | Smoke
    | Gas
    | WaterLeak
    | Cancel
    | Press
    | Switch
    | Cleared
    | Tamper
    | BatteryLow
    | Fault
    | Vitals
    | Heartbeat
    | Status
)


def words_of(event: Event) -> dict[str, Any]:
    """What an event says beside its type, in the words of the native form."""
    match event:
        case Door(is_open):
            return {"state": "open" if is_open else "closed"}
        case Bed(occupied):
            return {"occupied": occupied}
        case Motion(active) | Smoke(active) | Gas(active) | WaterLeak(active) | Tamper(active):
            return {"active": active}
        case BatteryLow(active, may_hide_sos):
            return {"active": active, "may_hide_sos": True} if may_hide_sos else {"active": active}
        case Fall(confidence):
            return {} if confidence is None else {"confidence": confidence}
        case Press(word):
            return {"word": word}
        case Switch(name, on):
            return {"name": name, "on": on}
        case Cleared(of):
            return {"of": of}
        case Fault(code):
            return {"code": code}
        case Vitals(readings):
            return dict(readings)
        case Status(online):
            return {"online": online}
        case Sos(unsaid):
            return {"unsaid": True} if unsaid else {}
        case Cancel() | Heartbeat() | FallWarning():
            return {}
        case _:
            assert_never(event)


class Frame(msgspec.Struct, frozen=True):
    """One message as the broker handed it over."""

    topic: str
    payload: bytes
    received_at: datetime
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where an observation comes from: the family or configured profile that read it, the field it stood in, and what
    kind of field that is. `guarded`: taken only for a device that was registered under this very profile, because its
    ids have no prefix of their own."""

    profile: str
    field: str | None
    kind: FieldKind
    guarded: bool = False


NATIVE = Source("native", "type", FieldKind.EVENT)


@dataclass(slots=True)  # not frozen: it is made for every message, and each frozen field costs a call
class Observation:
    """One thing a device said, understood. Nobody changes it.

    `device_time` is the device's own clock (None: it gave none); `occurred_at` is the best knowledge of when it
    happened; `late` marks a clock or a delivery more than five minutes off: it never suppresses anything.
    `faults` are fields that could not be read and were taken as unknown. `alone`: the message says nothing else.
    """

    device_id: DeviceId
    event: Event
    received_at: datetime
    occurred_at: datetime
    device_time: datetime | None = None
    event_id: str | None = None
    late: bool = False
    retained: bool = False
    battery: int | None = None
    rssi: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    source: Source = NATIVE
    alone: bool = False


def place_in_time(device_time: datetime | None, received_at: datetime) -> tuple[datetime, bool]:
    """When it happened, and whether that is more than 5 minutes from when it was received.

    A device that knows no time: the time of receipt. A clock in the future, or 30 days and more in the past, cannot be
    right: the time of receipt too. Otherwise the past may be right (a message that waited in a gateway) and is kept;
    whether anybody wore the device then is asked of the bindings, which fall back to the time of receipt.
    """
    if device_time is None:
        return received_at, False
    late = abs(received_at - device_time) > CLOCK_TOLERANCE
    if device_time > received_at + CLOCK_TOLERANCE or device_time < received_at - LONGEST_WAIT:
        return received_at, late
    return device_time, late
