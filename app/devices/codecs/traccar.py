"""Traccar's forwarded events (`event.forward.type=mqtt`): 4G watches with an SOS button.

The topic is whatever `event.forward.topic` says (`SHOUWANG_TRACCAR_TOPICS` here); the device is named in the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies
from app.devices.events import BatteryLow, Event, Fall, Fault, Frame, Heartbeat, Motion, Sos, Status, Tamper
from app.devices.meaning import (
    BAD_DEVICE_ID,
    Field,
    Gathered,
    device_ref,
    extension,
    ignored,
    observations,
    once,
    text_id,
)
from app.devices.reading import moment
from app.devices.vocabulary import FieldKind, RejectReason, Role

_FAMILY = "traccar"
# Watch protocols have one field for alarms: with a low battery and an SOS at once, only the low battery may be told.
_LOW: Final = BatteryLow(True, may_hide_sos=True)
_ALARMS: Final[dict[str, tuple[Event, FieldKind]]] = {
    "sos": (Sos(), FieldKind.EVENT),
    "general": (Sos(unsaid=True), FieldKind.EVENT),  # an alarm that does not say which: asked in vain rather than not
    "fallDown": (Fall(), FieldKind.EVENT),
    "lowBattery": (_LOW, FieldKind.EVENT),
    "lowPower": (_LOW, FieldKind.EVENT),
    "removing": (Tamper(True), FieldKind.EVENT),
    "tampering": (Tamper(True), FieldKind.EVENT),
    "powerOff": (Fault("powerOff"), FieldKind.DIAG),
    "powerCut": (Fault("powerCut"), FieldKind.DIAG),
    "fault": (Fault("fault"), FieldKind.DIAG),
    "movement": (Motion(True), FieldKind.EVENT),
}
_TYPES: Final[dict[str, tuple[Event, FieldKind]]] = {
    "deviceOnline": (Status(True), FieldKind.DIAG),
    "deviceOffline": (Status(False), FieldKind.DIAG),
    "deviceMoving": (Motion(True), FieldKind.STATE),
    "deviceStopped": (Motion(False), FieldKind.STATE),
}


class TraccarCodec:
    """Watches and trackers behind a Traccar server. `topics`: where it forwards its events to."""

    name = _FAMILY
    title = "Traccar (4G SOS watches)"
    unshared: Sequence[str] = ()
    id_prefixes: Sequence[str] = ("traccar:",)

    def __init__(self, topics: Sequence[str] = ("traccar/#", "events")) -> None:
        self.subscriptions: Sequence[str] = topics
        self.first_levels: Sequence[str] | None = sorted({topic.partition("/")[0] for topic in topics})
        self._exact = {topic for topic in topics if not topic.endswith("#")}
        self._below = tuple(topic[:-1] for topic in topics if topic.endswith("/#"))

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        if frame.topic not in self._exact and not frame.topic.startswith(self._below or ("\n",)):
            return None
        bodies = read_bodies(frame.payload)
        if isinstance(bodies, Rejected):
            return [Rejected(bodies.reason, bodies.detail)]
        result: list[Decoded] = []
        for number, body in enumerate(bodies.objects):
            gathered = Gathered(known.tz)
            if number == 0:
                gathered.faults, gathered.rejects = list(bodies.faults), list(bodies.rejects)
            result += _event(frame, body, gathered, known, number)
        return result


def _event(frame: Frame, body: dict[str, Any], gathered: Gathered, known: Knowledge, part: int) -> list[Decoded]:
    device, event = body.get("device"), body.get("event")
    unique = text_id(device.get("uniqueId")) if isinstance(device, dict) else None
    if unique is None:
        return [Rejected(RejectReason.BAD_DEVICE_ID, "`device.uniqueId` (the IMEI) is missing")]
    device_id = device_ref("traccar", unique)
    if device_id is None:
        return [BAD_DEVICE_ID]
    if event is None and "position" in body:
        return ignored("a position without an event")
    if not isinstance(event, dict):
        return [Rejected(RejectReason.BAD_FIELD, "`event` must be an object with `type`", device_id)]
    gathered.device_time = moment(event.get("eventTime"), known.tz)
    gathered.event_id = once(event.get("id"), gathered.device_time)
    extra = extension(known, device_id)
    if extra is not None:
        extra.read(body, gathered)
    position = body.get("position")
    attributes = position.get("attributes") if isinstance(position, dict) else None
    if isinstance(attributes, dict) and attributes.get("batteryLevel") is not None:
        gathered.take(Field(Role.BATTERY), "position.attributes.batteryLevel", attributes["batteryLevel"])
    if event.get("type") == "alarm":
        _alarms(event, gathered)
    else:
        kind = event.get("type")
        said = _TYPES.get(kind) if isinstance(kind, str) else None
        gathered.say(*(said or (Heartbeat(), FieldKind.DIAG)), "event.type")
    if isinstance(position, dict) and any(isinstance(one.event, Sos | Fall) for one in gathered.said):
        gathered.keep({name: position[name] for name in ("latitude", "longitude", "accuracy") if name in position})
    return observations(frame, known, family=_FAMILY, device_id=device_id, gathered=gathered, part=part)


def _alarms(event: dict[str, Any], gathered: Gathered) -> None:
    attributes = event.get("attributes")
    given = attributes.get("alarm") if isinstance(attributes, dict) else None
    words = [word.strip() for word in given.split(",")][:10] if isinstance(given, str) else []
    if not any(words):
        # An alarm of unknown kind is an alarm: somebody looks.
        gathered.faults.append("event.attributes.alarm: missing")
        words = ["general"]
    for word in words:
        said = _ALARMS.get(word, (Fault(word[:64]), FieldKind.EVENT))
        gathered.say(*said, "event.attributes.alarm")
