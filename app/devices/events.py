"""The closed vocabulary of what a device can say. Every codec ends here; every `match` over it is exhaustive."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from app.ids import DeviceId

CLOCK_TOLERANCE = timedelta(minutes=5)
LONGEST_WAIT = timedelta(days=30)  # no gateway keeps a message longer: an older time is a wrong clock (1970)


@dataclass(frozen=True, slots=True)
class Sos:
    type: ClassVar[str] = "sos"


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


Event = Sos | Fall | Door | Motion | Bed | Smoke | Gas | WaterLeak | Cancel | Vitals | Heartbeat | Status


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as the broker handed it over."""

    topic: str
    payload: bytes
    received_at: datetime
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing a device said, understood.

    `device_time` is the device's own clock (None: it gave none); `occurred_at` is the best knowledge of when it
    happened; `late` marks a clock or a delivery more than five minutes off: it never suppresses anything.
    `faults` are fields that could not be read and were taken as unknown.
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
