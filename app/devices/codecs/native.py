"""Native devices: `devices/{device_id}/event` and `devices/{device_id}/status` (design section 4).

An alarm is never lost for the sake of a field beside it: what cannot be read is named in `faults` and taken as
unknown, and unknown is never "ok" (a smoke message without a readable `active` counts as smoke).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeGuard

from app.devices.codec import Decoded, Rejected, read_object
from app.devices.events import (
    Bed,
    Cancel,
    Door,
    Event,
    Fall,
    Frame,
    Gas,
    Heartbeat,
    Motion,
    Observation,
    Smoke,
    Sos,
    Status,
    Vitals,
    WaterLeak,
    place_in_time,
)
from app.devices.vocabulary import RejectReason
from app.ids import DeviceId

MAX_ID = 128
TYPES = ("sos", "fall", "door", "motion", "bed", "smoke", "gas", "water_leak", "cancel", "vitals", "heartbeat")
_YES = {"true", "1", "on", "yes"}
_NO = {"false", "0", "off", "no"}


class NativeCodec:
    """The product's own wire format."""

    name = "native"
    subscriptions: Sequence[str] = ("devices/+/event", "devices/+/status")

    def reads(self, topic: str) -> bool:
        parts = topic.split("/")
        return len(parts) == 3 and parts[0] == "devices" and parts[2] in ("event", "status")

    def decode(self, frame: Frame) -> Sequence[Decoded]:
        _, device, leaf = frame.topic.split("/")
        if not device or len(device) > MAX_ID or not device.isprintable():
            return [Rejected(RejectReason.BAD_DEVICE_ID, f"a device id has 1 to {MAX_ID} printable characters")]
        body = read_object(frame.payload)
        if isinstance(body, Rejected):
            return [Rejected(body.reason, body.detail, device)]
        named = body.get("device_id")
        if named is not None and named != device:
            return [
                Rejected(
                    RejectReason.NAMES_ANOTHER_DEVICE,
                    "`device_id` in the payload is not the one in the topic; leave it out",
                    device,
                )
            ]
        return [_status(frame, device, body) if leaf == "status" else _event(frame, device, body)]


def _status(frame: Frame, device: str, body: dict[str, Any]) -> Decoded:
    online = _truth(body.get("online"))
    if online is None:
        return Rejected(RejectReason.BAD_FIELD, "`online` must be true or false", device)
    return Observation(
        device_id=DeviceId(device),
        event=Status(online),
        received_at=frame.received_at,
        occurred_at=frame.received_at,
        retained=frame.retained,
        data={"online": online},
    )


def _event(frame: Frame, device: str, body: dict[str, Any]) -> Decoded:
    kind = body.get("type")
    if kind is None:
        return Rejected(RejectReason.MISSING_TYPE, f"`type` is missing; one of {', '.join(TYPES)}", device)
    if kind not in TYPES:
        return Rejected(RejectReason.UNKNOWN_TYPE, f"`type` must be one of {', '.join(TYPES)}", device)
    faults: list[str] = []
    event = _read(kind, body, faults)
    if isinstance(event, str):
        return Rejected(RejectReason.BAD_FIELD, event, device)
    device_time = _time(body.get("ts"), faults)
    occurred_at, late = place_in_time(device_time, frame.received_at)
    event_id = _event_id(body.get("id"), faults)
    if frame.retained and event_id is None:
        # The broker hands a retained message over again at each connection: its content is its identity.
        event_id = "retained:" + hashlib.sha256(frame.payload).hexdigest()[:32]
    return Observation(
        device_id=DeviceId(device),
        event=event,
        received_at=frame.received_at,
        occurred_at=occurred_at,
        device_time=device_time,
        event_id=event_id,
        late=late,
        retained=frame.retained,
        battery=_whole(body.get("battery"), 0, 100, "battery", faults),
        rssi=_whole(body.get("rssi"), -200, 100, "rssi", faults),
        data={name: value for name, value in body.items() if name not in ("type", "id", "ts", "device_id")},
        faults=tuple(faults),
    )


def _read(kind: str, body: dict[str, Any], faults: list[str]) -> Event | str:
    """The event, or what is wrong with a field it cannot do without."""
    match kind:
        case "sos":
            return Sos()
        case "fall":
            return Fall(_confidence(body.get("confidence"), faults))
        case "door":
            state = body.get("state")
            if state not in ("open", "closed"):
                return '`state` must be "open" or "closed"'
            return Door(state == "open")
        case "motion":
            active = _truth(body.get("active", True))
            return Motion(True if active is None else active)
        case "bed":
            occupied = _truth(body.get("occupied"))
            return "`occupied` must be true or false" if occupied is None else Bed(occupied)
        case "smoke":
            return Smoke(_hazard(body, faults))
        case "gas":
            return Gas(_hazard(body, faults))
        case "water_leak":
            return WaterLeak(_hazard(body, faults))
        case "cancel":
            return Cancel()
        case "vitals":
            return Vitals({name: float(value) for name, value in body.items() if _is_number(value) and name != "ts"})
        case "heartbeat":
            return Heartbeat()
        case _:  # TYPES and this match are kept in step by a test
            raise AssertionError(kind)


def _hazard(body: dict[str, Any], faults: list[str]) -> bool:
    active = _truth(body.get("active"))
    if active is None:
        faults.append("active: not readable, taken as true")
        return True
    return active


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _YES else False if word in _NO else None
    return None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e308 < value < 1e308


def _confidence(value: Any, faults: list[str]) -> float | None:
    if value is None:
        return None
    if not _is_number(value) or not 0 <= value <= 1:
        faults.append("confidence: not a number from 0 to 1, taken as unknown")
        return None
    return float(value)


def _whole(value: Any, low: int, high: int, name: str, faults: list[str]) -> int | None:
    if value is None:
        return None
    if not _is_number(value) or not low <= value <= high:
        faults.append(f"{name}: not a number from {low} to {high}, taken as unknown")
        return None
    return int(round(value))


def _event_id(value: Any, faults: list[str]) -> str | None:
    if value is None:
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**127 else value
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_ID or _unstorable(text):
        faults.append(f"id: not a string of 1 to {MAX_ID} characters, taken as absent")
        return None
    return text


def _unstorable(text: str) -> bool:
    """U+0000 or an unpaired surrogate: no database text."""
    try:
        return b"\x00" in text.encode()
    except UnicodeEncodeError:
        return True


def _time(value: Any, faults: list[str]) -> datetime | None:
    """Epoch milliseconds or RFC 3339 with zone. Anything else is unknown, and said so."""
    if value is None:
        return None
    try:
        if _is_number(value):
            if math.isfinite(value) and value > 0:
                return datetime.fromtimestamp(value / 1000, UTC)
        elif isinstance(value, str):
            parsed = datetime.fromisoformat(value.strip())
            if parsed.tzinfo is not None:
                return parsed.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    faults.append("ts: neither epoch milliseconds nor RFC 3339 with a zone, taken as unknown")
    return None
