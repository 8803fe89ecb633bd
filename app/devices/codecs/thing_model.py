"""物模型 (thing models): devices built for a Chinese cloud platform, speaking to our broker instead. One codec, six presets.

Platforms differ in topic and envelope, not in what is said: properties (`code: value`, each perhaps with its own time) and
events (an identifier with output values). The codes that makers use for the same thing are in `CODES`; others are
configured by a device profile that extends the platform's family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies
from app.devices.events import Frame
from app.devices.meaning import Extra, Field, Gathered, device_ref, extension, ignored, observations, once
from app.devices.reading import moment
from app.devices.vocabulary import FieldKind, RejectReason, Role

_UTC = ZoneInfo("UTC")  # 华为 writes its times so
_STATE = FieldKind.ALARM_STATE
_FALL, _NO_FALL, _MAYBE = (Role.FALL, True), (Role.FALL, False), (Role.FALL_WARNING, True)
_FALL_VALUES: Final = {
    "none": _NO_FALL, "normal": _NO_FALL, "0": _NO_FALL, "false": _NO_FALL, "maybe_fall": _MAYBE, "fall_warning": _MAYBE,
    "fall": _FALL, "fall_alarm": _FALL, "falling": _FALL, "alarm": _FALL, "1": _FALL, "true": _FALL, "*": _FALL,
}  # fmt: skip


def _codes(field: Field, *names: str) -> dict[str, Field]:
    return dict.fromkeys(names, field)


# Codes in lower case without `_`, `-` and `.`, as `_plain` writes them.
CODES: Final[Mapping[str, Field]] = {
    **_codes(Field(Role.SOS, _STATE), "sos", "sosstate", "sosstatus", "sosalarm", "alarmsos", "sosevent", "sosbutton",
             "emergency", "emergencyalarm", "emergencycall", "emergencybutton", "panic", "panicalarm", "help", "helpalarm",
             "helpcall", "onekeyalarm", "urgencyalarm"),
    **_codes(Field(Role.FALL, _STATE, _FALL_VALUES), "fall", "fallalarm", "falldown", "falldownalarm", "falldownstatus",
             "falldownstate", "fallstate", "fallstatus", "falldetect", "falldetection", "fallevent"),
    **_codes(Field(Role.FALL_WARNING, _STATE), "fallwarning", "maybefall"),
    **_codes(Field(Role.DOOR), "doorcontactstate", "contactstate", "doorstate", "doorstatus", "dooropen", "doorsensorstate",
             "doorcontact", "dooropenstate", "openstate"),
    **_codes(Field(Role.MOTION), "pir", "pirstate", "motion", "motionstate", "motionalarm", "motionalarmstate",
             "motiondetected", "presence", "presencestate", "presencestatus", "occupancy", "humanexist", "humanpresence",
             "bodyexist", "existstatus"),
    **_codes(Field(Role.BED), "bedstate", "bedstatus", "inbed", "onbed", "bedoccupied", "inbedstatus"),
    **_codes(Field(Role.SMOKE), "smoke", "smokealarm", "smokestate", "smokestatus", "smokesensorstate", "smokesensorstatus",
             "smokealarmstate", "firealarm"),
    **_codes(Field(Role.GAS), "gas", "gasalarm", "gasstate", "gasstatus", "gassensorstate", "gassensorstatus",
             "gasalarmstate", "gasleak", "costate", "costatus", "coalarm"),
    **_codes(Field(Role.WATER_LEAK), "waterleak", "watersensorstate", "watersensorstatus", "waterleakalarm", "waterleakstate",
             "leakage", "leakalarm", "floodalarm", "waterimmersion", "waterimmersionalarm"),
    **_codes(Field(Role.CANCEL), "cancel", "cancelalarm", "iamfine"),
    **_codes(Field(Role.PRESS), "switch1value", "switchvalue", "buttonevent", "keypress", "clicktype", "action", "keyevent"),
    **_codes(Field(Role.TAMPER), "tamper", "tamperalarm", "tamperstate", "temperalarm", "dismantlealarm"),
    **_codes(Field(Role.BATTERY_LOW), "lowbattery", "batterylow", "lowbatteryalarm", "batterystate", "lowvoltagealarm",
             "lowbatterywarning"),
    **_codes(Field(Role.BATTERY), "battery", "batterypercentage", "batterylevel", "batterypercent", "electricity",
             "remainingbattery", "batteryvalue", "powerlevel"),
    **_codes(Field(Role.RSSI), "rssi", "signalrssi"),
    **_codes(Field(Role.VITALS), "heartrate", "spo2", "bloodoxygen", "breathrate", "respirationrate", "breath",
             "bodytemperature", "systolic", "diastolic"),
    # A code whose value is the word for what happened.
    **_codes(Field(Role.TYPE), "alarmtype", "eventtype", "alarmevent"),
}  # fmt: skip
_EVENT_KINDS: Final = {
    code: Field(field.role, FieldKind.EVENT, field.values)
    for code, field in CODES.items()
    if field.role is not Role.BATTERY
}
_SILENT: Final = {Role.BATTERY, Role.RSSI, Role.VITALS, Role.TYPE, Role.PRESS}  # a bare event of these says nothing


@dataclass(frozen=True, slots=True)
class Report:
    """What a topic says: whose report it is, of which kind, and its id where the topic has it."""

    device_id: str | None
    event: str | None = None  # the identifier; None: properties, "": the body names it
    id: str | None = None


Item = tuple[str, Any, datetime | None]  # code, value, time
Open = Callable[[dict[str, Any], Report, Gathered], Iterator[Item]]


@dataclass(frozen=True, slots=True)
class Preset:
    """A platform: how its topics and bodies are built. `whose`: None when the topic is not its, a text when it is of no
    concern."""

    name: str
    title: str
    subscriptions: Sequence[str]
    first: str
    whose: Callable[[list[str]], Report | str | None]
    open: Open
    id_name: str
    time_name: str


# --- topics ---------------------------------------------------------------------------------------------------------------


def _aliyun(levels: list[str]) -> Report | str | None:
    match levels:
        case ["", "sys", key, device, "thing", "event", "property", "post"]:
            return Report(device_ref("aliyun", key, device))
        case ["", "sys", key, device, "thing", "event", identifier, "post"]:
            return Report(device_ref("aliyun", key, device), identifier)
        case ["", "sys", _, _, "thing", *_]:
            return "the platform's own affairs"
        case _:
            return None


def _tuya(levels: list[str]) -> Report | str | None:
    match levels:
        case ["tylink", device, "thing", "property", "report"]:
            return Report(device_ref("tuya", device))
        case ["tylink", device, "thing", "event", "trigger"]:
            return Report(device_ref("tuya", device), "")
        case ["tylink", _, *_]:
            return "the platform's own affairs"
        case _:
            return None


def _onenet(levels: list[str]) -> Report | str | None:
    match levels:
        case ["$sys", product, device, "thing", "property", "post"]:
            return Report(device_ref("onenet", product, device))
        case ["$sys", product, device, "thing", "event", "post"]:
            return Report(device_ref("onenet", product, device), "")
        case ["$sys", _, _, "thing", *_]:
            return "the platform's own affairs"
        case _:
            return None


def _tencent(levels: list[str]) -> Report | str | None:
    match levels:
        case ["$thing", "up", "property", product, device]:
            return Report(device_ref("tencent", product, device))
        case ["$thing", "up", "event", product, device]:
            return Report(device_ref("tencent", product, device), "")
        case ["$thing", *_]:
            return "the platform's own affairs"
        case _:
            return None


def _huawei(levels: list[str]) -> Report | str | None:
    match levels:
        case ["$oc", "devices", device, "sys", "properties", "report", *rest]:
            return Report(device_ref("huawei", device), None, _request_id(rest))
        case ["$oc", "devices", device, "sys", "events", "up", *rest]:
            return Report(device_ref("huawei", device), "", _request_id(rest))
        case ["$oc", "devices", *_]:
            return "the platform's own affairs"
        case _:
            return None


def _request_id(levels: list[str]) -> str | None:
    return next((level.removeprefix("request_id=") for level in levels if level.startswith("request_id=")), None)


def _jetlinks(levels: list[str]) -> Report | str | None:
    match levels:
        case ["", product, device, "properties", "report"]:
            return Report(device_ref("jetlinks", product, device))
        case ["", product, device, "event", identifier]:
            return Report(device_ref("jetlinks", product, device), identifier)
        case _:
            return None


# --- bodies ---------------------------------------------------------------------------------------------------------------


def _params(name: str) -> Open:
    """`{"<name>": {code: value or {"value", "time"}}}`; of an event the output values are there."""

    def read(body: dict[str, Any], report: Report, gathered: Gathered) -> Iterator[Item]:
        params = body.get(name)
        if report.event is None:
            yield from _timed(params, gathered, name)
            return
        identifier = report.event or _identifier(body, params)
        if identifier:  # the platform names it once; otherwise (OneNET) the members are the events
            outputs = params if isinstance(params, dict) else {}
            at = moment(outputs.get("eventTime", outputs.get("time")), gathered.tz)
            inner = outputs.get("outputParams", outputs.get("value", outputs))
            yield identifier, inner if isinstance(inner, dict) else {}, at
        else:
            for code, value, at in _timed(params, gathered, name):
                yield code, value if isinstance(value, dict) else {}, at

    return read


def _identifier(body: Mapping[str, Any], params: Any) -> str | None:
    inner = params if isinstance(params, dict) else {}
    found = body.get("eventId") or inner.get("eventCode")
    return found if isinstance(found, str) else None


def _jetlinks_body(body: dict[str, Any], report: Report, gathered: Gathered) -> Iterator[Item]:
    if report.event is None:
        yield from _timed(body.get("properties"), gathered, "properties")
    else:
        data = body.get("data")
        yield report.event, data if isinstance(data, dict) else {}, None


def _huawei_body(body: dict[str, Any], report: Report, gathered: Gathered) -> Iterator[Item]:
    services = body.get("services")
    if not isinstance(services, list):
        gathered.rejects.append(Rejected(RejectReason.BAD_FIELD, "`services` must be a list"))
        return
    for service in services[:50]:
        if not isinstance(service, dict):
            continue
        at = moment(service.get("event_time"), _UTC) if "event_time" in service else None
        if report.event is None:
            for code, value, own in _timed(service.get("properties"), gathered, "properties"):
                yield code, value, own or at
        else:
            outputs = service.get("paras")
            event = service.get("event_type")
            yield str(event)[:64], outputs if isinstance(outputs, dict) else {}, at


def _timed(values: Any, gathered: Gathered, name: str) -> Iterator[Item]:
    if not isinstance(values, dict):
        gathered.rejects.append(Rejected(RejectReason.BAD_FIELD, f"`{name}` must be an object of codes and values"))
        return
    for code, value in values.items():
        if isinstance(value, dict) and "value" in value:
            yield code, value["value"], moment(value.get("time"), gathered.tz)
        else:
            yield code, value, None


PRESETS: Final = (
    Preset("aliyun", "阿里云 物模型", ("/sys/+/+/thing/event/+/post",), "", _aliyun, _params("params"), "id", "time"),
    Preset("tuya", "涂鸦 物模型", ("tylink/+/thing/property/report", "tylink/+/thing/event/trigger"), "tylink", _tuya,
           _params("data"), "msgId", "time"),
    Preset("onenet", "OneNET 物模型", ("$sys/+/+/thing/property/post", "$sys/+/+/thing/event/post"), "$sys", _onenet,
           _params("params"), "id", "time"),
    Preset("tencent", "腾讯云 物模型", ("$thing/up/property/+/+", "$thing/up/event/+/+"), "$thing", _tencent,
           _params("params"), "clientToken", "timestamp"),
    Preset("huawei", "华为云 物模型", ("$oc/devices/+/sys/properties/report/#", "$oc/devices/+/sys/events/up/#"), "$oc",
           _huawei, _huawei_body, "request_id", "event_time"),
    Preset("jetlinks", "JetLinks 物模型", ("/+/+/properties/report", "/+/+/event/+"), "", _jetlinks, _jetlinks_body,
           "messageId", "timestamp"),
)  # fmt: skip


class ThingModelCodec:
    """One platform's devices."""

    unshared: Sequence[str] = ()

    def __init__(self, preset: Preset) -> None:
        self._preset = preset
        self.name = preset.name
        self.title = preset.title
        self.subscriptions = preset.subscriptions
        self.first_levels: Sequence[str] | None = (preset.first,)
        self.id_prefixes: Sequence[str] = (preset.name + ":",)

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        report = self._preset.whose(frame.topic.split("/"))
        if report is None:
            return None
        if isinstance(report, str):
            return ignored(report)
        bodies = read_bodies(frame.payload)
        if isinstance(bodies, Rejected):
            return [Rejected(bodies.reason, bodies.detail, report.device_id)]
        gathered = Gathered(known.tz, faults=list(bodies.faults), rejects=list(bodies.rejects))
        extra = extension(known, report.device_id)
        for body in bodies.objects:
            self._body(body, report, gathered, extra)
        return observations(frame, known, family=self.name, device_id=report.device_id, gathered=gathered)

    def _body(self, body: dict[str, Any], report: Report, gathered: Gathered, extra: Extra | None) -> None:
        time = body.get(self._preset.time_name)
        if time is not None:
            gathered.take(Field(Role.TIME), self._preset.time_name, time)
        taken = extra.read(body, gathered) if extra is not None else set()
        items = list(self._preset.open(body, report, gathered))[:100]
        if report.event is None and extra is not None:
            taken |= extra.read({code: value for code, value, _ in items}, gathered)
        for code, value, at in items:
            if report.event is None:
                if code not in taken:
                    _property(code, value, at, gathered)
            else:
                _event(code, value, at, gathered, extra)
        # An identity needs a time of the device's own, where its ids are counters.
        own = next((at for _, _, at in items if at is not None), gathered.device_time)
        gathered.event_id = once(report.id or body.get(self._preset.id_name), own)


def _property(code: str, value: Any, at: datetime | None, gathered: Gathered) -> None:
    spec = CODES.get(_plain(code))
    if spec is not None:
        gathered.take(spec, code[:64], value, at)
    else:
        gathered.touched = True
        gathered.keep({code: value})


def _event(
    identifier: str, outputs: dict[str, Any], at: datetime | None, gathered: Gathered, extra: Extra | None
) -> None:
    """The identifier says what happened; where it is none of ours, its output values may."""
    spec = _EVENT_KINDS.get(_plain(identifier))
    taken = extra.read({"event": identifier, **outputs}, gathered, at) if extra is not None else set()
    own = outputs.get(identifier)
    gathered.keep(outputs)
    before = len(gathered.said)
    for code, value in outputs.items():
        inner = _EVENT_KINDS.get(_plain(code), CODES.get(_plain(code)))
        if inner is not None and code not in taken and code != identifier:
            gathered.take(inner, code[:64], value, at)
    if spec is None or "event" in taken:
        gathered.touched = True
        if len(gathered.said) == before:
            gathered.faults.append(
                "the event's identifier means nothing to this family; a device profile can say what it is"
            )
    elif spec.role not in _SILENT and not any(one.event.type == spec.role for one in gathered.said[before:]):
        gathered.take(spec, identifier[:64], own if own is not None else True, at)


def _plain(code: str) -> str:
    return code.replace("_", "").replace("-", "").replace(".", "").lower()
