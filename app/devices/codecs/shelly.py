"""Shelly, second generation and later: `<id>/events/rpc` with NotifyEvent, NotifyStatus and NotifyFullStatus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies
from app.devices.events import Cleared, Frame, Heartbeat
from app.devices.meaning import Field, Gathered, device_ref, extension, observations, status
from app.devices.reading import moment
from app.devices.vocabulary import FieldKind, RejectReason, Role

_FAMILY = "shelly"
_LONG_AGO_S = 1_500_000_000  # a smaller time is one since power came on
_PRESS = Field(Role.PRESS)
# What an event of a component says beside a press.
_EVENTS: Final[Mapping[tuple[str, str], tuple[Role, bool]]] = {
    ("smoke", "alarm"): (Role.SMOKE, True),
    ("smoke", "alarm_off"): (Role.SMOKE, False),
    ("flood", "alarm"): (Role.WATER_LEAK, True),
    ("flood", "alarm_off"): (Role.WATER_LEAK, False),
    ("presence", "presence"): (Role.MOTION, True),
    ("presence", "no_presence"): (Role.MOTION, False),
}
_BUTTONS: Final = ("input", "bthomedevice", "button")


class ShellyCodec:
    """Shelly Gen2+ devices with MQTT and RPC notifications on."""

    name = _FAMILY
    title = "Shelly Gen2+"
    subscriptions: Sequence[str] = ("+/events/rpc", "+/online")
    unshared: Sequence[str] = ()
    first_levels: Sequence[str] | None = None
    id_prefixes: Sequence[str] = ("shelly:",)

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        match frame.topic.split("/"):
            case [device, "events", "rpc"] if device:
                return _notice(frame, known, device_ref("shelly", device))
            case [device, "online"] if device:
                word = frame.payload[:16].decode(errors="replace").strip()
                return status(frame, known, family=_FAMILY, device_id=device_ref("shelly", device), value=word)
            case _:
                return None


def _notice(frame: Frame, known: Knowledge, device_id: str | None) -> list[Decoded]:
    bodies = read_bodies(frame.payload)
    if isinstance(bodies, Rejected):
        return [Rejected(bodies.reason, bodies.detail, device_id)]
    gathered = Gathered(known.tz, faults=list(bodies.faults), rejects=list(bodies.rejects))
    for body in bodies.objects:
        params = body.get("params")
        if not isinstance(params, dict):
            gathered.rejects.append(Rejected(RejectReason.BAD_FIELD, "`params` must be an object"))
            continue
        ts = params.get("ts")
        if isinstance(ts, int | float) and not isinstance(ts, bool) and ts > _LONG_AGO_S:
            gathered.device_time = moment(ts, known.tz, "s")
        extra = extension(known, device_id)
        taken = extra.read(params, gathered) if extra is not None else set()
        match body.get("method"):
            case "NotifyEvent":
                _events(params.get("events"), gathered)
            case "NotifyStatus" | "NotifyFullStatus":
                for name, state in params.items():
                    if name not in taken and isinstance(state, dict):
                        _component(name, state, gathered)
            case _:
                gathered.rejects.append(
                    Rejected(
                        RejectReason.UNKNOWN_TYPE, "`method` must be NotifyEvent, NotifyStatus or NotifyFullStatus"
                    )
                )
    return observations(frame, known, family=_FAMILY, device_id=device_id, gathered=gathered)


def _events(events: Any, gathered: Gathered) -> None:
    if not isinstance(events, list):
        gathered.rejects.append(Rejected(RejectReason.BAD_FIELD, "`params.events` must be a list"))
        return
    for event in events[:50]:
        if not isinstance(event, dict):
            continue
        component, word = str(event.get("component", ""))[:64], event.get("event")
        kind = component.partition(":")[0]
        ts = event.get("ts")
        own = isinstance(ts, int | float) and not isinstance(ts, bool) and ts > _LONG_AGO_S
        at = moment(ts, gathered.tz, "s") if own else None
        name = f"{component}.{str(word)[:32]}"
        meaning = _EVENTS.get((kind, word)) if isinstance(word, str) else None
        if meaning is not None:
            gathered.take(Field(meaning[0], FieldKind.EVENT, {"*": meaning}), name, word, at)
        elif kind in _BUTTONS and word == "btn_up":
            gathered.say(Cleared("press"), FieldKind.EVENT, name, at)
        elif kind in _BUTTONS:
            gathered.take(_PRESS, name, word, at)
        else:
            gathered.say(Heartbeat(), FieldKind.DIAG, name, at)
        if at is not None and gathered.event_id is None:
            gathered.event_id = f"{int(at.timestamp() * 1000)}/{component}/{str(word)[:32]}"


def _component(name: str, state: dict[str, Any], gathered: Gathered) -> None:
    kind = name.partition(":")[0]
    if kind == "input" and isinstance(state.get("state"), bool):
        gathered.take(Field(Role.SWITCH), name, state["state"])
    elif kind == "bthomesensor" and isinstance(state.get("value"), bool):
        gathered.take(Field(Role.SWITCH), name, state["value"])
    elif kind == "smoke" and "alarm" in state:
        gathered.take(Field(Role.SMOKE), f"{name}.alarm", state["alarm"])
    elif kind == "flood" and "alarm" in state:
        gathered.take(Field(Role.WATER_LEAK), f"{name}.alarm", state["alarm"])
    elif kind == "presence" and ("value" in state or "num_objects" in state):
        seen = state.get("value", state.get("num_objects"))
        gathered.take(Field(Role.MOTION), name, bool(seen) if isinstance(seen, int | float) else seen)
    elif kind == "devicepower" and isinstance(state.get("battery"), dict):
        gathered.take(Field(Role.BATTERY), f"{name}.percent", state["battery"].get("percent"))
    elif kind == "bthomedevice":
        for member, role in (("battery", Role.BATTERY), ("rssi", Role.RSSI)):
            if state.get(member) is not None:
                gathered.take(Field(role), f"{name}.{member}", state[member])
    elif kind == "wifi":
        gathered.take(Field(Role.RSSI), "wifi.rssi", state.get("rssi"))
    else:
        gathered.touched = True
