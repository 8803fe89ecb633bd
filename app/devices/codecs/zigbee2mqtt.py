"""Zigbee2MQTT: `<base>/<friendly_name>` with every attribute it remembers, `…/availability`, `<base>/bridge/…`.

A device is known by its address (`zigbee:0x00158d…`), which a rename does not change; `bridge/devices` says which name is
which address. A name nobody explained yet is taken as it is (`zigbee2mqtt:<name>`); a device that was registered under
such an id keeps it. Each report repeats all remembered attributes: only `action` is an event, the rest are states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.devices.codec import Bodies, Decoded, Knowledge, Learned, Named, Rejected, read_bodies
from app.devices.events import Frame
from app.devices.meaning import Field, Gathered, device_ref, extension, ignored, observations, read_fields, status
from app.devices.reading import moment
from app.devices.vocabulary import DeviceKind, FieldKind, RejectReason, Role

_MAX_DEVICES_PAYLOAD = 8 * 1024 * 1024  # bridge/devices holds a few kilobytes of definition for each device

_FALL = (Role.FALL, True)
_NO_FALL = (Role.FALL, False)
_MAYBE = (Role.FALL_WARNING, True)
_OPEN, _CLOSED = (Role.DOOR, True), (Role.DOOR, False)

FIELDS: Final[Mapping[str, Field]] = {
    "action": Field(Role.PRESS, null_presses=True),
    "sos": Field(Role.SOS, FieldKind.ALARM_STATE),
    "emergency": Field(Role.SOS, FieldKind.ALARM_STATE),
    "contact": Field(Role.DOOR, values={"true": _CLOSED, "false": _OPEN}),  # contact made: the door is shut
    "fall_status": Field(
        Role.FALL, FieldKind.ALARM_STATE, {"normal": _NO_FALL, "fall_warning": _MAYBE, "fall_alarm": _FALL}
    ),
    "fall_down_status": Field(
        Role.FALL, FieldKind.ALARM_STATE, {"none": _NO_FALL, "maybe_fall": _MAYBE, "fall": _FALL}
    ),
    "status": Field(Role.FALL, FieldKind.ALARM_STATE, {"falling": _FALL, "*": None}),
    "smoke": Field(Role.SMOKE),
    "smoke_state": Field(Role.SMOKE),
    "gas": Field(Role.GAS),
    "gas_state": Field(Role.GAS),
    "carbon_monoxide": Field(Role.GAS),
    "water_leak": Field(Role.WATER_LEAK),
    "occupancy": Field(Role.MOTION),
    "presence": Field(Role.MOTION),
    "presence_state": Field(Role.MOTION),
    "tamper": Field(Role.TAMPER),
    "battery_low": Field(Role.BATTERY_LOW),
    "battery": Field(Role.BATTERY),
}
_SOLD_AS_SOS: Final = {"HS1EB", "HS1EB-E", "TS0215A_sos", "TS0601_sos", "SEB01ZB"}
_ACTION_OF_SOS: Final = {**FIELDS, "action": Field(Role.PRESS, meant=DeviceKind.SOS_BUTTON, null_presses=True)}


class _Definition(msgspec.Struct):
    model: str | None = None


class _Device(msgspec.Struct):
    ieee_address: str
    friendly_name: str
    type: str | None = None
    definition: _Definition | None = None


class Zigbee2MqttCodec:
    """Gateways that run Zigbee2MQTT. `bases`: their base topics; one below another (`zigbee2mqtt/home-12`) is found."""

    name = "zigbee2mqtt"
    title = "Zigbee2MQTT"
    id_prefixes: Sequence[str] = ("zigbee:", "zigbee2mqtt:")

    def __init__(self, bases: Sequence[str] = ("zigbee2mqtt",)) -> None:
        self._bases = sorted(bases, key=len, reverse=True)
        self.subscriptions: Sequence[str] = [f"{base}/#" for base in bases]
        self.unshared: Sequence[str] = [
            f"{base}/{below}bridge/{leaf}" for base in bases for below in ("", "+/") for leaf in ("devices", "state")
        ]
        self.first_levels: Sequence[str] | None = sorted({base.partition("/")[0] for base in bases})

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        base = next((base for base in self._bases if frame.topic.startswith(base + "/")), None)
        if base is None:
            return None
        below = frame.topic[len(base) :]
        above, bridge, leaf = below.partition("/bridge/")
        if bridge:
            return _bridge(frame, known, base + above, leaf)
        if below.endswith(("/set", "/get")) or "/set/" in below or "/get/" in below:
            return ignored("a command to a device")
        if not frame.payload.strip():
            return ignored("an emptied retained topic, as after a rename")
        if below.endswith("/availability"):
            topic = frame.topic.removesuffix("/availability")
            return status(frame, known, family=self.name, device_id=_device(topic, base, known), value=_word(frame))
        return self._state(frame, known, base)

    def _state(self, frame: Frame, known: Knowledge, base: str) -> list[Decoded]:
        topic = frame.topic
        bodies = read_bodies(frame.payload)
        if isinstance(bodies, Rejected):
            single = self._attribute(frame, known)
            if single is None:
                return [Rejected(bodies.reason, bodies.detail, _device(topic, base, known))]
            topic, bodies = single
        device_id = _device(topic, base, known)
        named = known.names.get(topic)
        table = _ACTION_OF_SOS if named and named.model in _SOLD_AS_SOS else FIELDS
        gathered = Gathered(known.tz, faults=list(bodies.faults), rejects=list(bodies.rejects))
        for body in bodies.objects:
            seen = body.get("last_seen")
            if seen is not None:
                gathered.device_time = moment(seen, known.tz)
            read_fields(body, table, gathered, extra=extension(known, device_id))
            gathered.keep(body)
        return observations(frame, known, family=self.name, device_id=device_id, gathered=gathered)

    def _attribute(self, frame: Frame, known: Knowledge) -> tuple[str, Bodies] | None:
        """`<name>/contact` with a bare value: a gateway that publishes each attribute on a topic of its own."""
        topic, _, attribute = frame.topic.rpartition("/")
        if topic not in known.names:
            return None
        try:
            value = msgspec.json.decode(frame.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = frame.payload[:64].decode(errors="replace")
        return topic, Bodies(({attribute: value},))


def _device(topic: str, base: str, known: Knowledge) -> str | None:
    """The id of the device behind a topic."""
    named = known.names.get(topic)
    name = topic[len(named.base if named else base) + 1 :]
    by_name = device_ref("zigbee2mqtt", topic[len(base) + 1 :])
    address = named.address if named else name.lower() if _is_address(name) else None
    if address is None:
        return by_name
    by_address = device_ref("zigbee", address)
    if by_name in known.devices and by_address not in known.devices:
        return by_name
    return by_address


def _is_address(text: str) -> bool:
    return len(text) == 18 and text[:2] == "0x" and all(char in "0123456789abcdefABCDEF" for char in text[2:])


def _word(frame: Frame) -> object:
    """`online`, plain or as {"state": "online"}."""
    bodies = read_bodies(frame.payload)
    if isinstance(bodies, Rejected):
        return frame.payload[:16].decode(errors="replace").strip().strip('"')
    return bodies.objects[0].get("state")


def _bridge(frame: Frame, known: Knowledge, base: str, leaf: str) -> list[Decoded]:
    if not frame.payload.strip():
        return ignored("an emptied retained topic")
    match leaf:
        case "state":
            device_id = device_ref("zigbee2mqtt", f"{base}/bridge")
            return status(frame, known, family="zigbee2mqtt", device_id=device_id, value=_word(frame))
        case "devices":
            return [_names(frame, base)]
        case _:
            return ignored("the gateway's own affairs")


def _names(frame: Frame, base: str) -> Decoded:
    if len(frame.payload) > _MAX_DEVICES_PAYLOAD:
        return Rejected(
            RejectReason.TOO_LARGE,
            f"{len(frame.payload)} bytes; at most {_MAX_DEVICES_PAYLOAD} of bridge/devices are read",
        )
    try:
        listed = msgspec.json.decode(frame.payload, type=list[_Device])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejected(
            RejectReason.BAD_FIELD,
            "bridge/devices must be a list of objects with `ieee_address` and `friendly_name`: "
            f"{str(error)[:200].encode(errors='replace').decode()}",
        )
    return Learned(
        base,
        {
            f"{base}/{one.friendly_name}": Named(
                base, one.ieee_address.lower(), one.definition.model if one.definition else None
            )
            for one in listed
            if one.type != "Coordinator" and _is_address(one.ieee_address) and one.friendly_name
        },
    )
