"""ChirpStack v4: `application/{app}/device/{devEui}/event/{event}`, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies
from app.devices.codecs import lorawan
from app.devices.events import Frame, Heartbeat
from app.devices.meaning import BAD_DEVICE_ID, Field, Gathered, extension, ignored, observations, once
from app.devices.reading import moment
from app.devices.vocabulary import FieldKind, RejectReason, Role

_FAMILY = "chirpstack"
_ALIVE = ("join", "ack", "location")
_AFFAIRS = ("txack", "integration")
NOT_DECODED = (
    "the uplink has no decoded `object`: give the device's profile in the network server a payload codec; an SOS in it "
    "cannot be seen"
)


class ChirpStackCodec:
    """Devices of a ChirpStack v4 network server."""

    name = _FAMILY
    title = "ChirpStack v4 (LoRaWAN)"
    subscriptions: Sequence[str] = ("application/+/device/+/event/+",)
    unshared: Sequence[str] = ()
    first_levels: Sequence[str] | None = ("application",)
    id_prefixes: Sequence[str] = ("lorawan:",)

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        levels = frame.topic.split("/")
        if len(levels) != 6 or levels[2] != "device" or levels[4] != "event":
            return None
        eui, event = levels[3], levels[5]
        if event in _AFFAIRS:
            return ignored("the network's own affairs")
        bodies = read_bodies(frame.payload)
        device_id = lorawan.device_of(eui)
        if isinstance(bodies, Rejected):
            return [Rejected(bodies.reason, bodies.detail, device_id)]
        if device_id is None:
            return [BAD_DEVICE_ID]
        named = bodies.objects[0].get("deviceInfo")
        named = named.get("devEui") if isinstance(named, dict) else None
        if isinstance(named, str) and lorawan.device_of(named) != device_id:
            detail = "`deviceInfo.devEui` is not the one in the topic"
            return [Rejected(RejectReason.NAMES_ANOTHER_DEVICE, detail, device_id)]
        gathered = Gathered(known.tz, faults=list(bodies.faults), rejects=list(bodies.rejects))
        for body in bodies.objects:
            _read(event, body, gathered, device_id, known)
        return observations(frame, known, family=_FAMILY, device_id=device_id, gathered=gathered)


def _read(event: str, body: dict[str, Any], gathered: Gathered, device_id: str, known: Knowledge) -> None:
    time = moment(body.get("time"), known.tz)
    gathered.device_time = time
    gathered.event_id = once(body.get("deduplicationId"), time)
    if event == "up":
        decoded = body.get("object")
        _signal(body, gathered)
        if isinstance(decoded, dict) and decoded:
            lorawan.read_decoded(decoded, gathered, extension(known, device_id))
        elif body.get("data"):
            gathered.touched = True
            gathered.rejects.append(Rejected(RejectReason.NOT_DECODED, NOT_DECODED))
    elif event == "status":
        if body.get("batteryLevelUnavailable") is not True:
            gathered.take(Field(Role.BATTERY), "batteryLevel", body.get("batteryLevel"))
        gathered.keep(body)
    elif event == "log":
        # After a reset of its counter a device's uplinks are dropped by the network: only this tells.
        gathered.keep(body)
        level, code = body.get("level"), body.get("code")
        if level in ("ERROR", "WARNING") or isinstance(code, str):
            gathered.take(Field(Role.FAULT), "code", code if isinstance(code, str) else "unknown")
    elif event in _ALIVE:
        gathered.say(Heartbeat(), FieldKind.DIAG, event)
    else:
        gathered.rejects.append(
            Rejected(
                RejectReason.UNKNOWN_TYPE,
                "the event in the topic must be one of up, join, status, ack, txack, log, location",
            )
        )


def _signal(body: dict[str, Any], gathered: Gathered) -> None:
    heard = body.get("rxInfo")
    if isinstance(heard, list) and heard and isinstance(heard[0], dict) and "rssi" in heard[0]:
        gathered.take(Field(Role.RSSI), "rxInfo.rssi", heard[0]["rssi"])
