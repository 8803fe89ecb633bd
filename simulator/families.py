"""What devices of other families send, byte by byte: Zigbee2MQTT gateways, and 物模型 devices of six platforms. Written
from their makers' documents, not from the decoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from simulator import devices
from simulator.devices import Value

Fields = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    retain: bool = False


class Device(Protocol):
    """One device on the wire. `id` is what the server calls it, `profile` the family it is registered under."""

    @property
    def id(self) -> str: ...

    @property
    def profile(self) -> str: ...

    @property
    def topic(self) -> str:
        """Where it speaks, for payloads that no encoder would write."""
        ...

    def introduced(self) -> list[Message]:
        """What is on the broker before it speaks."""
        ...

    def says(self, kind: str, *, ts_ms: int, event_id: str | None, fields: Fields) -> list[Message]:
        """The messages of one event. Raises `ValueError` for one this family cannot say."""
        ...


@dataclass
class Native:
    id: str
    profile: str = "native"

    @property
    def topic(self) -> str:
        return devices.event_topic(self.id)

    def introduced(self) -> list[Message]:
        return []

    def says(self, kind: str, *, ts_ms: int, event_id: str | None, fields: Fields) -> list[Message]:
        return [Message(self.topic, devices.event(kind, ts_ms=ts_ms, event_id=event_id, fields=fields))]


# --- Zigbee2MQTT ------------------------------------------------------------------------------------------------------

_MODELS: Final = {
    "sos_button": "TS0215A_sos",
    "fall_detector": "HS2FD-EF1-3.0",
    "door_sensor": "MCCGQ11LM",
    "motion_sensor": "RTCGQ11LM",
    "smoke_detector": "JTYJ-GD-01LM/BW",
    "gas_detector": "HS1CG",
    "water_sensor": "SJCGQ11LM",
}


@dataclass
class Zigbee:
    """A device of a Zigbee2MQTT gateway. Each report repeats every attribute the gateway remembers; only `action` is
    said once, and taken back by an empty one."""

    gateway: str  # its base topic
    name: str
    kind: str
    profile: str = "zigbee2mqtt"
    _remembered: dict[str, Any] = field(default_factory=lambda: {"battery": 97, "linkquality": 120})

    @property
    def address(self) -> str:
        return "0x" + hashlib.sha256(f"{self.gateway}/{self.name}".encode()).hexdigest()[:16]

    @property
    def id(self) -> str:
        return f"zigbee:{self.address}"

    @property
    def topic(self) -> str:
        return f"{self.gateway}/{self.name}"

    def introduced(self) -> list[Message]:
        """The gateway's list is one message for all its devices: `gateway_list` makes it."""
        return []

    def says(self, kind: str, *, ts_ms: int, event_id: str | None, fields: Fields) -> list[Message]:
        if "battery" in fields:
            self._remembered["battery"] = fields["battery"]
        active = bool(fields.get("active", True))
        match kind:
            case "sos":
                return [self._report(action="emergency"), self._report(action="")]
            case "fall":
                self._remembered["fall_status"] = "fall_alarm"
            case "door":
                self._remembered["contact"] = fields.get("state") == "closed"
            case "motion":
                self._remembered["occupancy"] = active
            case "smoke" | "gas" | "water_leak":
                self._remembered[kind] = active
            case "heartbeat":
                pass
            case _:
                raise ValueError(f"no Zigbee device says {kind}")
        return [self._report()]

    def _report(self, **once: str) -> Message:
        return Message(self.topic, _json({**self._remembered, **once}))


def gateway_list(base: str, members: list[Zigbee]) -> Message:
    """`bridge/devices`: which name is which device. Retained."""
    listed: list[dict[str, Any]] = [
        {
            "ieee_address": "0x00124b0000000001",
            "friendly_name": "Coordinator",
            "type": "Coordinator",
            "definition": None,
        }
    ]
    listed += [
        {
            "ieee_address": member.address,
            "friendly_name": member.name,
            "type": "EndDevice",
            "definition": {"model": _MODELS.get(member.kind, "unknown"), "vendor": "simulated", "exposes": []},
        }
        for member in members
    ]
    return Message(f"{base}/bridge/devices", json.dumps(listed, ensure_ascii=False).encode(), retain=True)


# --- 物模型 -------------------------------------------------------------------------------------------------------------

# event type → (code as a property, its value; None: said as an event)
_CODES: Final[Mapping[str, tuple[str, Any]]] = {
    "sos": ("sos", None),
    "fall": ("fallAlarm", None),
    "smoke": ("smoke_sensor_state", lambda f: int(bool(f.get("active", True)))),
    "gas": ("gas_sensor_state", lambda f: int(bool(f.get("active", True)))),
    "water_leak": ("watersensor_state", lambda f: int(bool(f.get("active", True)))),
    "door": ("doorcontact_state", lambda f: f.get("state") == "open"),
    "motion": ("pir_state", lambda f: int(bool(f.get("active", True)))),
    "bed": ("inBed", lambda f: int(bool(f.get("occupied", True)))),
    "heartbeat": ("battery_percentage", lambda f: f.get("battery", 90)),
}
_PRODUCT: Final = "simulated"


@dataclass
class ThingModel:
    """A device that was built for a platform and speaks to our broker instead."""

    platform: str
    name: str
    _counted: int = 0

    @property
    def profile(self) -> str:
        return self.platform

    @property
    def id(self) -> str:
        named = {"tuya": self.name, "huawei": self.name}.get(self.platform, f"{_PRODUCT}:{self.name}")
        return f"{self.platform}:{named}"

    @property
    def topic(self) -> str:
        return self._property_topic()

    def introduced(self) -> list[Message]:
        return []

    def says(self, kind: str, *, ts_ms: int, event_id: str | None, fields: Fields) -> list[Message]:
        if kind not in _CODES:
            raise ValueError(f"no thing model says {kind}")
        code, value = _CODES[kind]
        self._counted += 1  # the platform's ids count from 1, and again after a restart
        number = str(self._counted)
        if value is None:
            return [self._event(code, number, ts_ms)]
        return [Message(self._property_topic(), _json(self._properties({code: value(fields)}, number, ts_ms)))]

    def _property_topic(self) -> str:
        return {
            "aliyun": f"/sys/{_PRODUCT}/{self.name}/thing/event/property/post",
            "tuya": f"tylink/{self.name}/thing/property/report",
            "onenet": f"$sys/{_PRODUCT}/{self.name}/thing/property/post",
            "tencent": f"$thing/up/property/{_PRODUCT}/{self.name}",
            "huawei": f"$oc/devices/{self.name}/sys/properties/report",
            "jetlinks": f"/{_PRODUCT}/{self.name}/properties/report",
        }[self.platform]

    def _properties(self, values: Mapping[str, Any], number: str, ts_ms: int) -> dict[str, Any]:
        timed = {code: {"value": value, "time": ts_ms} for code, value in values.items()}
        match self.platform:
            case "aliyun":
                return {"id": number, "version": "1.0", "params": timed, "method": "thing.event.property.post"}
            case "tuya":
                seconds = {code: {"value": value, "time": ts_ms // 1000} for code, value in values.items()}
                return {"msgId": number, "time": ts_ms // 1000, "data": seconds}
            case "onenet":
                return {"id": number, "version": "1.0", "params": timed}
            case "tencent":
                return {"method": "report", "clientToken": number, "timestamp": ts_ms, "params": dict(values)}
            case "huawei":
                return {"services": [{"service_id": "main", "properties": dict(values), "event_time": _basic(ts_ms)}]}
            case _:
                return {"timestamp": ts_ms, "messageId": number, "properties": dict(values)}

    def _event(self, code: str, number: str, ts_ms: int) -> Message:
        match self.platform:
            case "aliyun":
                topic = f"/sys/{_PRODUCT}/{self.name}/thing/event/{code}/post"
                body: dict[str, Any] = {"id": number, "version": "1.0", "params": {"value": {}, "time": ts_ms}}
            case "tuya":
                topic = f"tylink/{self.name}/thing/event/trigger"
                body = {
                    "msgId": number,
                    "time": ts_ms,
                    "data": {"eventCode": code, "eventTime": ts_ms, "outputParams": {}},
                }
            case "onenet":
                topic = f"$sys/{_PRODUCT}/{self.name}/thing/event/post"
                body = {"id": number, "version": "1.0", "params": {code: {"value": {}, "time": ts_ms}}}
            case "tencent":
                topic = f"$thing/up/event/{_PRODUCT}/{self.name}"
                body = {
                    "method": "event_post",
                    "clientToken": number,
                    "eventId": code,
                    "timestamp": ts_ms,
                    "params": {},
                }
            case "huawei":
                topic = f"$oc/devices/{self.name}/sys/events/up"
                service = {"service_id": "main", "event_type": code, "event_time": _basic(ts_ms), "paras": {}}
                body = {"object_device_id": self.name, "services": [service]}
            case _:
                topic = f"/{_PRODUCT}/{self.name}/event/{code}"
                body = {"timestamp": ts_ms, "messageId": number, "data": {}}
        return Message(topic, _json(body))


PLATFORMS: Final = ("aliyun", "tuya", "onenet", "tencent", "huawei", "jetlinks")
FAMILIES: Final = ("native", "zigbee2mqtt", *PLATFORMS)


def device(family: str, *, run: str, name: str, kind: str) -> Device:
    """A device of a family. `run` keeps the devices of two runs apart."""
    match family:
        case "native":
            return Native(f"sim-{run}-{name}")
        case "zigbee2mqtt":
            return Zigbee(f"zigbee2mqtt/sim-{run}", f"客厅/{name}", kind)
        case _ if family in PLATFORMS:
            return ThingModel(family, f"sim-{run}-{name}")
        case _:
            raise ValueError(f"no family {family!r}; there are {', '.join(FAMILIES)}")


def _basic(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
