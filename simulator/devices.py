"""What a native device sends, byte by byte. Written from the contract, not from the decoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

KINDS: Final = (
    "sos_button",
    "fall_detector",
    "door_sensor",
    "motion_sensor",
    "bed_sensor",
    "smoke_detector",
    "gas_detector",
    "water_sensor",
    "gateway",
    "other",
)

# Which fields each type of event may carry beside `type`, `id`, `ts`, `battery` and `rssi`.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "sos": (),
    "fall": ("confidence",),
    "door": ("state",),
    "motion": ("active",),
    "bed": ("occupied",),
    "smoke": ("active",),
    "gas": ("active",),
    "water_leak": ("active",),
    "cancel": (),
    "vitals": ("heart_rate", "temperature", "systolic", "diastolic", "spo2"),
    "heartbeat": (),
}
ANY: Final = ("battery", "rssi")

Value = str | int | float | bool


def event_topic(device_id: str) -> str:
    return f"devices/{device_id}/event"


def status_topic(device_id: str) -> str:
    return f"devices/{device_id}/status"


def command_topic(device_id: str) -> str:
    return f"devices/{device_id}/command"


def event(kind: str, *, ts_ms: int | None, event_id: str | None, fields: Mapping[str, Value] | None = None) -> bytes:
    """One event as the device sends it. Raises `ValueError` for a type or field the contract does not know."""
    given = dict(fields or {})
    if kind not in FIELDS:
        raise ValueError(f"no event type {kind!r}; there are {', '.join(FIELDS)}")
    unknown = sorted(set(given) - set(FIELDS[kind]) - set(ANY))
    if unknown:
        raise ValueError(f"{kind} carries no {', '.join(unknown)}")
    body: dict[str, Value] = {"type": kind}
    if event_id is not None:
        body["id"] = event_id
    if ts_ms is not None:
        body["ts"] = ts_ms
    return _json({**body, **given})


def status(online: bool) -> bytes:
    """The retained word of the device."""
    return _json({"online": online})


def _json(body: Mapping[str, Value]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
