"""A topic for each entity: ESPHome (`<prefix>/binary_sensor/<id>/state`) and Tasmota (`stat/…`, `tele/…`).

What an input is wired to, no message says: the words of an ESPHome id do (`front_door`, `sos_button`), otherwise the
device's role. ESPHome retains its states and sends them again at each connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies
from app.devices.events import Frame, Heartbeat
from app.devices.meaning import Field, Gathered, device_ref, extension, ignored, observations, read_fields, status
from app.devices.reading import number, truth
from app.devices.vocabulary import FieldKind, RejectReason, Role

# Words within an ESPHome id, the first that fits: what the entity is.
WORDS: Final[Mapping[str, Role]] = {
    "sos": Role.SOS, "emergency": Role.SOS, "panic": Role.SOS, "help": Role.SOS, "fall": Role.FALL, "smoke": Role.SMOKE,
    "fire": Role.SMOKE, "gas": Role.GAS, "carbon_monoxide": Role.GAS, "leak": Role.WATER_LEAK, "water": Role.WATER_LEAK,
    "flood": Role.WATER_LEAK, "tamper": Role.TAMPER, "battery_low": Role.BATTERY_LOW, "low_battery": Role.BATTERY_LOW,
    "bed": Role.BED, "door": Role.DOOR, "window": Role.DOOR, "contact": Role.DOOR, "motion": Role.MOTION,
    "pir": Role.MOTION, "presence": Role.MOTION, "occupancy": Role.MOTION, "still_target": Role.MOTION,
    "moving_target": Role.MOTION,
}  # fmt: skip
_NUMBERS: Final[Mapping[str, Role]] = {
    "battery": Role.BATTERY, "wifi_signal": Role.RSSI, "rssi": Role.RSSI, "heart_rate": Role.VITALS,
    "respiratory": Role.VITALS, "breath": Role.VITALS, "spo2": Role.VITALS,
}  # fmt: skip
_UNKNOWN: Final = {"", "unknown", "unavailable", "nan"}
_WHERE_ONLY: Final = re.compile("bedroom|outdoor|indoor")  # where it is: no bed, no door


class EspHomeCodec:
    """Nodes that run ESPHome with its MQTT component."""

    name = "esphome"
    title = "ESPHome"
    subscriptions: Sequence[str] = (
        "+/binary_sensor/+/state",
        "+/+/binary_sensor/+/state",
        "+/sensor/+/state",
        "+/+/sensor/+/state",
        "+/status",
    )
    unshared: Sequence[str] = ()
    first_levels: Sequence[str] | None = None
    id_prefixes: Sequence[str] = ("esphome:",)

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        match frame.topic.split("/"):
            case [*prefix, "binary_sensor" | "sensor" as component, entity, "state"] if 1 <= len(prefix) <= 2 and all(
                prefix
            ):
                device_id = device_ref("esphome", "/".join(prefix))
                return self._entity(frame, known, device_id, component, entity)
            case [prefix, "status"] if prefix:
                device_id = device_ref("esphome", prefix)
                return status(frame, known, family=self.name, device_id=device_id, value=_text(frame))
            case _:
                return None

    def _entity(
        self, frame: Frame, known: Knowledge, device_id: str | None, component: str, entity: str
    ) -> list[Decoded]:
        text = _text(frame)
        gathered = Gathered(known.tz)
        gathered.keep({entity: text})
        extra = extension(known, device_id)
        if extra is not None and entity in extra.read({entity: text}, gathered):
            return observations(frame, known, family=self.name, device_id=device_id, gathered=gathered)
        if text.lower() in _UNKNOWN:
            gathered.faults.append(f"{entity[:64]}: the device does not know it")
            gathered.say(Heartbeat(), FieldKind.DIAG, entity[:64])
        elif component == "sensor":
            role = _role(entity, _NUMBERS)
            if role is None or number(text) is None:
                gathered.say(Heartbeat(), FieldKind.DIAG, entity[:64])
            else:
                gathered.take(Field(role), entity[:64], number(text))
        elif truth(text) is None:
            return [Rejected(RejectReason.BAD_FIELD, "a binary sensor is ON or OFF", device_id)]
        else:
            role = _role(entity, WORDS)
            # Kept by the device and said again: even an SOS input is a state here, whose beginning is the press.
            kind = FieldKind.ALARM_STATE if role in (Role.SOS, Role.FALL) else None
            gathered.take(Field(role or Role.SWITCH, kind), entity[:64], text)
        return observations(frame, known, family=self.name, device_id=device_id, gathered=gathered)


def _role(entity: str, words: Mapping[str, Role]) -> Role | None:
    plain = _WHERE_ONLY.sub("", entity.lower())
    return next((role for word, role in words.items() if word in plain), None)


def _text(frame: Frame) -> str:
    return frame.payload[:200].decode(errors="replace").strip().replace("\x00", "")


class TasmotaCodec:
    """Devices that run Tasmota with its usual full topic (`%prefix%/%topic%/`)."""

    name = "tasmota"
    title = "Tasmota"
    subscriptions: Sequence[str] = ("stat/+/+", "tele/+/+")
    unshared: Sequence[str] = ()
    first_levels: Sequence[str] | None = ("stat", "tele")
    id_prefixes: Sequence[str] = ("tasmota:",)

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        levels = frame.topic.split("/")
        if len(levels) != 3 or not levels[1]:
            return None
        prefix, device, leaf = levels
        device_id = device_ref("tasmota", device)
        if leaf == "LWT":
            return status(frame, known, family=self.name, device_id=device_id, value=_text(frame))
        if prefix == "tele" and leaf not in ("SENSOR", "STATE"):
            return ignored("the device's own affairs")
        if prefix == "stat" and not (leaf == "RESULT" or leaf.startswith(("BUTTON", "SWITCH"))):
            return ignored("the device's own affairs")
        bodies = read_bodies(frame.payload)
        if isinstance(bodies, Rejected):
            return [Rejected(bodies.reason, bodies.detail, device_id)]
        gathered = Gathered(known.tz, faults=list(bodies.faults), rejects=list(bodies.rejects))
        for body in bodies.objects:
            if body.get("Time") is not None:
                gathered.take(Field(Role.TIME), "Time", body["Time"])
            if leaf.startswith(("BUTTON", "SWITCH")):
                body = {leaf.capitalize(): body}
            read_fields(body, {}, gathered, extra=extension(known, device_id))
            for name, value in body.items():
                _tasmota(name, value, gathered)
            gathered.keep(body)
        return observations(frame, known, family=self.name, device_id=device_id, gathered=gathered)


def _tasmota(name: str, value: Any, gathered: Gathered) -> None:
    action = first_word(value)
    if name.startswith("Button"):
        if isinstance(value, dict):
            gathered.take(Field(Role.PRESS), name, action)
    elif name.startswith("Switch"):
        if action is not None and truth(action) is None:
            gathered.take(Field(Role.PRESS), name, action)  # TOGGLE, HOLD: a push button on a switch input
        else:
            gathered.take(Field(Role.SWITCH), name, action)
    elif name == "Wifi" and isinstance(value, dict):
        gathered.take(Field(Role.RSSI), "Wifi.Signal", value.get("Signal"))
    elif name in ("Battery", "BatteryPercentage"):
        gathered.take(Field(Role.BATTERY), name, value)
    else:
        gathered.touched = True


def first_word(value: Any) -> Any:
    """`{"ACTION": "SINGLE"}`, `{"STATE": "ON"}` or the bare word."""
    if not isinstance(value, dict):
        return value
    return next((value[name] for name in ("ACTION", "Action", "STATE", "State") if name in value), None)
