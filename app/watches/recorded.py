"""Reading a recording: one event a line, in the native form plus `device_id`, `kind` and `place`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.devices.codec import Knowledge, Rejected, read_object
from app.devices.codecs.native import TYPES, NativeCodec, read_event
from app.devices.events import (
    BatteryLow,
    Cleared,
    Event,
    FallWarning,
    Fault,
    Frame,
    Heartbeat,
    Observation,
    Press,
    Switch,
    Tamper,
    place_in_time,
)
from app.devices.reading import is_number, moment, whole
from app.devices.roles import seen_in_role
from app.devices.vocabulary import DeviceKind
from app.ids import DeviceId
from app.rules.replaying import Recorded

_FIRST_YEAR: Final = 2000  # what is older was written by a clock that was never set
_NATIVE: Final = NativeCodec()
_KINDS: Final = {one.value for one in DeviceKind}
_OTHERS: Final = ("status", "fall_warning", "cleared", "tamper", "battery_low", "press", "switch", "fault")
_KIND_OF: Final = {
    "sos": "sos_button", "fall": "fall_detector", "fall_warning": "fall_detector", "door": "door_sensor",
    "motion": "motion_sensor", "bed": "bed_sensor", "smoke": "smoke_detector", "gas": "gas_detector",
    "water_leak": "water_sensor",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be used, and what would mend it."""

    number: int
    detail: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.detail}"


def read_lines(lines: Iterable[bytes], tz: ZoneInfo) -> Iterator[Recorded | BadLine]:
    """Each line's event, or what is wrong with it; the lines around a bad one are not touched by it."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _read_line(line, tz)
        except ValueError as error:
            yield BadLine(number, str(error))


def _read_line(line: bytes, tz: ZoneInfo) -> Recorded:
    body = read_object(line.strip())
    if isinstance(body, Rejected):
        raise ValueError(body.detail)
    device_id = body.pop("device_id", None)
    if not isinstance(device_id, str) or not 1 <= len(device_id) <= 128 or "/" in device_id:
        raise ValueError('`device_id` must be a text of 1 to 128 characters without "/"')
    type_ = body.get("type")
    kind, place = body.pop("kind", None), body.pop("place", None)
    if kind is None:
        kind = _KIND_OF.get(type_ if isinstance(type_, str) else "", "other")
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(sorted(_KINDS))}")
    if place is not None and not isinstance(place, str):
        raise ValueError("`place` must be a text, like 客厅 or front door")
    happened = _time(body, "ts", tz)
    if happened is None:
        raise ValueError("`ts` is missing: epoch milliseconds, or RFC 3339 like 2026-10-01T08:00:00+08:00")
    received = _time(body, "received_at", tz)
    if received is None and happened.year < _FIRST_YEAR:
        raise ValueError("`ts` lies before 2000: epoch milliseconds are meant, not seconds; or give `received_at` too")
    received = received or happened
    body.pop("received_at", None)
    body["ts"] = happened.timestamp() * 1000
    return Recorded(_observation(device_id, type_, body, kind, received), kind, place or None)


def _time(body: Mapping[str, Any], name: str, tz: ZoneInfo) -> datetime | None:
    value = body.get(name)
    if value is None:
        return None
    found = moment(value, tz, "ms" if is_number(value) else None)
    if found is None:
        raise ValueError(f"`{name}` is no time: epoch milliseconds, or RFC 3339 like 2026-10-01T08:00:00+08:00")
    return found


def _observation(device_id: str, type_: Any, body: dict[str, Any], kind: str, received: datetime) -> Observation:
    if type_ in TYPES or type_ == "status":
        leaf = "status" if type_ == "status" else "event"
        frame = Frame(f"devices/{device_id}/{leaf}", json.dumps(body).encode(), received, bool(body.get("retained")))
        for found in _NATIVE.decode(frame, Knowledge()) or ():
            if isinstance(found, Observation):
                return found
            if isinstance(found, Rejected):
                raise ValueError(found.detail)
        raise ValueError(f"`device_id` {device_id!r} cannot be read")
    event = other_event(type_, body)
    if event is None:
        raise ValueError(f"`type` must be one of {', '.join((*TYPES, *_OTHERS))}")
    return observed(device_id, event, body, received, kind)


def other_event(type_: Any, body: Mapping[str, Any]) -> Event | None:
    """An event of a type that native devices do not send, from the words the journal keeps of it."""
    active = body.get("active", True) is not False
    match type_:
        case "fall_warning":
            return FallWarning()
        case "cleared":
            return Cleared(str(body.get("of", "")))
        case "tamper":
            return Tamper(active)
        case "battery_low":
            return BatteryLow(active, body.get("may_hide_sos") is True)
        case "press":
            return Press(str(body.get("word", "")))
        case "switch":
            return Switch(str(body.get("name", "")), body.get("on") is True)
        case "fault":
            return Fault(str(body.get("code", "")))
        case _:
            return None


def observed(device_id: str, event: Event, body: Mapping[str, Any], received: datetime, kind: str) -> Observation:
    """An observation of such an event."""
    sent = body.get("ts")
    device_time = datetime.fromtimestamp(sent / 1000, received.tzinfo) if is_number(sent) else None
    occurred, late = place_in_time(device_time, received)
    seen = Observation(
        device_id=DeviceId(device_id), event=event, received_at=received, occurred_at=occurred, device_time=device_time,
        late=late, battery=whole(body.get("battery"), 0, 100, "battery", []), data=dict(body),
    )  # fmt: skip
    return seen_in_role(seen, kind)


def from_journal_row(row: Mapping[str, Any]) -> Recorded | None:
    """A row of the journal as an event of a recording; None: a type that the rules know nothing of. What was a test says that
    the device works, and nothing else."""
    data: dict[str, Any] = row["data"]
    event = Heartbeat() if "_test" in data else _native_event(row["type"], data) or other_event(row["type"], data)
    if event is None:
        return None
    seen = Observation(
        device_id=DeviceId(row["device_id"]), event=event, received_at=row["received_at"],
        occurred_at=row["occurred_at"], device_time=row["device_time"], late=row["late"],
        retained=data.get("_retained") is True, battery=whole(data.get("battery"), 0, 100, "battery", []), data=data,
    )  # fmt: skip
    return Recorded(seen_in_role(seen, row["kind"]), row["kind"], row["place"])


def _native_event(type_: str, data: Mapping[str, Any]) -> Event | None:
    if type_ not in TYPES:
        return None
    found = read_event(type_, dict(data), [])
    return None if isinstance(found, str) else found
