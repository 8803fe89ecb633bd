"""Native devices: `devices/{device_id}/event` and `devices/{device_id}/status` (design section 4).

An alarm is never lost for the sake of a field beside it: what cannot be read is named in `faults` and taken as
unknown, and unknown is never "ok" (a smoke message without a readable `active` counts as smoke).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies, read_object
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
    Source,
    Status,
    Vitals,
    WaterLeak,
    place_in_time,
)
from app.devices.reading import is_number, percent, storable, truth, whole
from app.devices.vocabulary import FieldKind, RejectReason
from app.ids import DeviceId

MAX_ID = 128
TYPES = ("sos", "fall", "door", "motion", "bed", "smoke", "gas", "water_leak", "cancel", "vitals", "heartbeat")
_KINDS = {
    "door": FieldKind.STATE,
    "motion": FieldKind.STATE,
    "bed": FieldKind.STATE,
    "vitals": FieldKind.STATE,
    "smoke": FieldKind.ALARM_STATE,
    "gas": FieldKind.ALARM_STATE,
    "water_leak": FieldKind.ALARM_STATE,
    "heartbeat": FieldKind.DIAG,
}
_SOURCES = {kind: Source("native", "type", _KINDS.get(kind, FieldKind.EVENT)) for kind in TYPES}
_ENVELOPE = frozenset(("type", "id", "ts", "device_id"))
_STATUS = Source("native", "online", FieldKind.DIAG)


class NativeCodec:
    """The product's own wire format."""

    name = "native"
    title = "Native devices"
    subscriptions: Sequence[str] = ("devices/+/event", "devices/+/status")
    unshared: Sequence[str] = ()
    first_levels: Sequence[str] | None = ("devices",)
    id_prefixes: Sequence[str] = ()

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        parts = frame.topic.split("/")
        if len(parts) != 3 or parts[2] not in ("event", "status"):
            return None
        _, device, leaf = parts
        if not device or len(device) > MAX_ID or not device.isprintable():
            return [Rejected(RejectReason.BAD_DEVICE_ID, f"a device id has 1 to {MAX_ID} printable characters")]
        body = read_object(frame.payload)
        if not isinstance(body, Rejected):
            return [_message(frame, device, leaf, body)]
        bodies = read_bodies(frame.payload)  # two payloads spliced, a character cut in half: an SOS may be in them
        if isinstance(bodies, Rejected):
            return [Rejected(bodies.reason, bodies.detail, device)]
        pieces = [_message(frame, device, leaf, one) for one in bodies.objects]
        # The message is kept whole, once: why a part was not taken counts only where all of it could be read.
        refused = bodies.rejects or [one for one in pieces if isinstance(one, Rejected)]
        read = [one for one in pieces if isinstance(one, Observation)]
        return [*read, *(Rejected(one.reason, one.detail, device) for one in refused)]


def _message(frame: Frame, device: str, leaf: str, body: dict[str, Any]) -> Decoded:
    named = body.get("device_id")
    if named is not None and named != device:
        return Rejected(
            RejectReason.NAMES_ANOTHER_DEVICE,
            "`device_id` in the payload is not the one in the topic; leave it out",
            device,
        )
    return _status(frame, device, body) if leaf == "status" else _event(frame, device, body)


def _status(frame: Frame, device: str, body: dict[str, Any]) -> Decoded:
    online = truth(body.get("online"))
    if online is None:
        return Rejected(RejectReason.BAD_FIELD, "`online` must be true or false", device)
    return Observation(
        device_id=DeviceId(device),
        event=Status(online),
        received_at=frame.received_at,
        occurred_at=frame.received_at,
        retained=frame.retained,
        data={"online": online},
        source=_STATUS,
    )


def _event(frame: Frame, device: str, body: dict[str, Any]) -> Decoded:
    kind = body.get("type")
    if kind is None:
        return Rejected(RejectReason.MISSING_TYPE, f"`type` is missing; one of {', '.join(TYPES)}", device)
    if kind not in TYPES:
        return Rejected(RejectReason.UNKNOWN_TYPE, f"`type` must be one of {', '.join(TYPES)}", device)
    faults: list[str] = []
    event = read_event(kind, body, faults)
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
        battery=percent(body["battery"], "battery", faults) if "battery" in body else None,
        rssi=whole(body["rssi"], -200, 100, "rssi", faults) if "rssi" in body else None,
        data={name: value for name, value in body.items() if name not in _ENVELOPE},
        faults=tuple(faults),
        source=_SOURCES[kind],
    )


def read_event(kind: str, body: dict[str, Any], faults: list[str]) -> Event | str:
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
            active = truth(body.get("active", True))
            return Motion(True if active is None else active)
        case "bed":
            occupied = truth(body.get("occupied"))
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
            return Vitals({name: float(value) for name, value in body.items() if is_number(value) and name != "ts"})
        case "heartbeat":
            return Heartbeat()
        case _:  # TYPES and this match are kept in step by a test
            raise AssertionError(kind)


def _hazard(body: dict[str, Any], faults: list[str]) -> bool:
    active = truth(body.get("active"))
    if active is None:
        faults.append("active: not readable, taken as true")
        return True
    return active


def _confidence(value: Any, faults: list[str]) -> float | None:
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= 1:
        faults.append("confidence: not a number from 0 to 1, taken as unknown")
        return None
    return float(value)


def _event_id(value: Any, faults: list[str]) -> str | None:
    if value is None:
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**127 else value
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_ID or not storable(text):
        faults.append(f"id: not a string of 1 to {MAX_ID} characters, taken as absent")
        return None
    return text


def _time(value: Any, faults: list[str]) -> datetime | None:
    """Epoch milliseconds or RFC 3339 with zone. Anything else is unknown, and said so."""
    if value is None:
        return None
    try:
        if is_number(value):
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
