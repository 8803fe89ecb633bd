"""What LoRaWAN decoders make of a device's bytes, whichever network brought it: Milesight WS101, WS301, VS373, Dragino
LDS02. Others are configured: a device profile that extends `chirpstack` or `ttn`.

A device is `lorawan:<dev_eui>`, the same from both networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from app.devices.events import Cleared, Fall, Motion
from app.devices.meaning import Extra, Field, Gathered, device_ref, once, read_fields
from app.devices.reading import moment, value_key
from app.devices.vocabulary import DeviceKind, FieldKind, Role

_WS101 = Field(Role.PRESS, meant=DeviceKind.SOS_BUTTON)  # sold as an SOS button
_FALL, _NO_FALL = (Role.FALL, True), (Role.FALL, False)
_IN, _OUT = (Role.BED, True), (Role.BED, False)

FIELDS: Final[Mapping[str, Field]] = {
    # Milesight WS101
    "press": _WS101,
    "button_status": _WS101,
    # Milesight WS301
    "magnet_status": Field(Role.DOOR),
    "tamper_status": Field(Role.TAMPER),
    # Milesight VS373, beside its alarms
    "detection_status": Field(
        Role.FALL, FieldKind.ALARM_STATE,
        {"4": _FALL, "fall": _FALL, "0": _NO_FALL, "normal": _NO_FALL, "2": _IN, "in bed": _IN, "3": _OUT,
         "out of bed": _OUT, "1": (Role.MOTION, False), "vacant": (Role.MOTION, False), "*": None},
    ),
    # Dragino LDS02 (1 is open); its ALARM is a door open for long, which a rule of ours tells from the states
    "DOOR_OPEN_STATUS": Field(Role.DOOR),
    "WATER_LEAK_STATUS": Field(Role.WATER_LEAK),
    # Milesight of the same make
    "leakage_status": Field(Role.WATER_LEAK),
    "water_leak": Field(Role.WATER_LEAK),
    "pir_status": Field(Role.MOTION),
    "pir": Field(Role.MOTION),
    "smoke_status": Field(Role.SMOKE),
    "gas_status": Field(Role.GAS),
    "battery": Field(Role.BATTERY),
}  # fmt: skip
_VOLTS: Final = ("BAT_V", "BatV", "Bat_V")  # volts are not percent: kept as sent
_OVER: Final = {
    "2",
    "3",
    "alarm deactivated",
    "alarm ignored",
    "alarm_deactivated",
    "alarm_ignored",
    "deactivated",
    "ignored",
}
_FALL_TYPES: Final = {"0", "fall"}


def device_of(dev_eui: Any) -> str | None:
    """`lorawan:` and the EUI in lower case, without separators."""
    text = str(dev_eui).replace("-", "").replace(":", "").lower() if isinstance(dev_eui, str) else ""
    return device_ref("lorawan", text) if text else None


def read_decoded(decoded: Mapping[str, Any], gathered: Gathered, extra: Extra | None) -> None:
    """Read a decoded object. `extra`: the fields of a configured profile, which go first."""
    read_fields(decoded, FIELDS, gathered, extra=extra)
    button = decoded.get("button_event")
    if isinstance(button, dict) and "status" in button:
        gathered.take(_WS101, "button_event.status", button["status"])
    elif isinstance(button, str):
        gathered.take(_WS101, "button_event", button)
    if _is_alarm(decoded):
        _alarm(decoded, "alarm_type", gathered, None)
    for name in ("events", "alarms"):
        for event in _records(decoded.get(name)):
            if _is_alarm(event):
                _alarm(event, f"{name}.alarm_type", gathered, None)
    for past in _records(decoded.get("history")):
        at = next((moment(past[name], gathered.tz) for name in ("timestamp", "time", "ts") if past.get(name)), None)
        _history(past, gathered, at)
    for name, value in decoded.items():
        if name.startswith("region_") and name.endswith("_occupancy"):
            occupied = {"0": True, "occupied": True, "1": False, "vacant": False}.get(value_key(value))
            if occupied is not None:
                gathered.say(Motion(occupied), FieldKind.STATE, name)
    if any(name in decoded for name in _VOLTS):
        gathered.touched = True
    gathered.keep(decoded)


def _records(value: Any) -> list[dict[str, Any]]:
    return [one for one in value[:50] if isinstance(one, dict)] if isinstance(value, list) else []


def _is_alarm(record: Mapping[str, Any]) -> bool:
    return "alarm_type" in record or "alarm_status" in record


def _alarm(
    record: Mapping[str, Any], name: str, gathered: Gathered, at: datetime | None, id: str | None = None
) -> None:
    """An alarm of the VS373. Type 0 is a fall, and The Things Stack leaves out what is 0: an alarm without a type is one."""
    kind = value_key(record.get("alarm_type", 0))
    over = value_key(record.get("alarm_status", 1)) in _OVER
    if kind in _FALL_TYPES or kind == "":
        gathered.say(Cleared("fall") if over else Fall(), FieldKind.EVENT, name, at, id=id)
    elif kind in ("3", "out of bed", "out_of_bed") and not over:
        gathered.take(Field(Role.BED, FieldKind.EVENT, {"*": _OUT}), name, kind, at)
    elif kind in ("4", "occupied", "5", "vacant") and not over:
        gathered.say(Motion(kind in ("4", "occupied")), FieldKind.EVENT, name, at)
    else:
        gathered.touched = True  # motionless, dwell: kept as sent


def _history(record: Mapping[str, Any], gathered: Gathered, at: datetime | None) -> None:
    """A record of the past, sent later, with its own time."""
    renamed = {"alarm_type": record.get("alarm_type", record.get("event_type", 0)),
               "alarm_status": record.get("alarm_status", record.get("event_status", 1))}  # fmt: skip
    id = once(record.get("alarm_id", record.get("id")), at)
    _alarm(renamed, "history.alarm_type", gathered, at, f"history:{id}"[:128] if id else None)
