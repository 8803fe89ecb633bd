"""The Things Stack v3: `v3/{app}@{tenant}/devices/{device_id}/up`, JSON. It leaves out what is zero, empty or false."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies
from app.devices.codecs import lorawan
from app.devices.codecs.chirpstack import NOT_DECODED
from app.devices.events import Frame, Heartbeat
from app.devices.meaning import Field, Gathered, device_ref, extension, ignored, observations
from app.devices.reading import moment, value_key
from app.devices.vocabulary import FieldKind, RejectReason, Role

_FAMILY = "ttn"


class ThingsStackCodec:
    """Devices of The Things Stack (The Things Network) v3."""

    name = _FAMILY
    title = "The Things Stack v3 (LoRaWAN)"
    subscriptions: Sequence[str] = ("v3/+/devices/+/up", "v3/+/devices/+/join")
    unshared: Sequence[str] = ()
    first_levels: Sequence[str] | None = ("v3",)
    id_prefixes: Sequence[str] = ("lorawan:", "ttn:")

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        levels = frame.topic.split("/")
        if len(levels) < 5 or levels[2] != "devices":
            return None
        if len(levels) != 5 or levels[4] not in ("up", "join"):
            return ignored("the network's own affairs")
        bodies = read_bodies(frame.payload)
        if isinstance(bodies, Rejected):
            return [Rejected(bodies.reason, bodies.detail, device_ref("ttn", levels[1], levels[3]))]
        ids = bodies.objects[0].get("end_device_ids")
        eui = ids.get("dev_eui") if isinstance(ids, dict) else None
        # Without an EUI (a device activated by hand) the application's name for it is all there is.
        device_id = lorawan.device_of(eui) or device_ref("ttn", levels[1], levels[3])
        if isinstance(ids, dict) and ids.get("device_id", levels[3]) != levels[3]:
            detail = "`end_device_ids.device_id` is not the one in the topic"
            return [Rejected(RejectReason.NAMES_ANOTHER_DEVICE, detail, device_id)]
        gathered = Gathered(known.tz, faults=list(bodies.faults), rejects=list(bodies.rejects))
        for body in bodies.objects:
            uplink = body.get("uplink_message")
            if body.get("simulated") is True or (isinstance(uplink, dict) and uplink.get("simulated") is True):
                detail = "an uplink simulated in the console raises nothing; press the device itself"
                return [Rejected(RejectReason.SIMULATED, detail, device_id)]
            if levels[4] == "join":
                gathered.say(Heartbeat(), FieldKind.DIAG, "join")
            elif isinstance(uplink, dict):
                _uplink(uplink, body, gathered, device_id, known)
            else:
                gathered.rejects.append(Rejected(RejectReason.BAD_FIELD, "`uplink_message` must be an object"))
        return observations(frame, known, family=_FAMILY, device_id=device_id, gathered=gathered)


def _uplink(
    uplink: dict[str, Any], body: dict[str, Any], gathered: Gathered, device_id: str | None, known: Knowledge
) -> None:
    received = uplink.get("received_at") or body.get("received_at")
    gathered.device_time = moment(received, known.tz)
    if isinstance(received, str) and len(received) <= 40:
        gathered.event_id = (
            f"{uplink.get('f_cnt', 0)}@{received}"[:100] if isinstance(uplink.get("f_cnt", 0), int) else None
        )
    decoded = uplink.get("decoded_payload")
    heard = uplink.get("rx_metadata")
    if isinstance(heard, list) and heard and isinstance(heard[0], dict) and "rssi" in heard[0]:
        gathered.take(Field(Role.RSSI), "rx_metadata.rssi", heard[0]["rssi"])
    battery = uplink.get("last_battery_percentage")
    if isinstance(battery, dict):
        gathered.take(Field(Role.BATTERY), "last_battery_percentage", battery.get("value"))
    if isinstance(decoded, dict) and decoded:
        lorawan.read_decoded(_with_what_was_left_out(decoded), gathered, extension(known, device_id))
    elif uplink.get("frm_payload"):
        gathered.touched = True
        gathered.rejects.append(Rejected(RejectReason.NOT_DECODED, NOT_DECODED))


# A Dragino says in MOD what it measures, and what stands beside it is its whole report: a status that is not there was 0.
_DRAGINO = {
    "1": ("DOOR_OPEN_STATUS", ("DOOR_OPEN_TIMES", "LAST_DOOR_OPEN_DURATION")),
    "2": ("WATER_LEAK_STATUS", ("WATER_LEAK_TIMES", "LAST_WATER_LEAK_DURATION")),
}


def _with_what_was_left_out(decoded: dict[str, Any]) -> dict[str, Any]:
    status, beside = _DRAGINO.get(value_key(decoded.get("MOD")), ("", ()))
    known = status and status not in decoded and any(name in decoded for name in beside)
    return {**decoded, status: 0} if known else decoded
