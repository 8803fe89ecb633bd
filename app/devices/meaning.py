"""From fields to observations: what all families share. A family says in a table which field has which role; here the
values are read, and the observations of one message are put together.

An absent field means unknown, never "ok". A hazard whose value cannot be read counts as a hazard. One bad field never
costs the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.devices.codec import Decoded, Ignored, Knowledge, Rejected
from app.devices.events import (
    BatteryLow,
    Bed,
    Cancel,
    Cleared,
    Door,
    Event,
    Fall,
    FallWarning,
    Fault,
    Frame,
    Gas,
    Heartbeat,
    Motion,
    Observation,
    Press,
    Smoke,
    Sos,
    Source,
    Status,
    Switch,
    Tamper,
    Vitals,
    WaterLeak,
    place_in_time,
    words_of,
)
from app.devices.paths import Path
from app.devices.reading import (
    ACTIVE,
    ACTIVE_OF,
    INACTIVE,
    INACTIVE_OF,
    is_number,
    moment,
    number,
    percent,
    storable,
    truth,
    value_key,
    whole,
)
from app.devices.roles import in_role
from app.devices.vocabulary import DeviceKind, FieldKind, RejectReason, Role
from app.ids import DeviceId

MAX_ID = 128
_MOST_SENT = 40
_LONGEST_SENT = 200
_MOST_SAID = 100

# (while it holds, when it is over)
_CONDITIONS: Final[Mapping[Role, tuple[Event, Event | None]]] = {
    Role.SOS: (Sos(), Cleared("sos")),
    Role.FALL: (Fall(), Cleared("fall")),
    Role.FALL_WARNING: (FallWarning(), Cleared("fall_warning")),
    Role.DOOR: (Door(True), Door(False)),
    Role.MOTION: (Motion(True), Motion(False)),
    Role.BED: (Bed(True), Bed(False)),
    Role.SMOKE: (Smoke(True), Smoke(False)),
    Role.GAS: (Gas(True), Gas(False)),
    Role.WATER_LEAK: (WaterLeak(True), WaterLeak(False)),
    Role.TAMPER: (Tamper(True), Tamper(False)),
    Role.BATTERY_LOW: (BatteryLow(True), BatteryLow(False)),
    Role.ONLINE: (Status(True), Status(False)),
    Role.CANCEL: (Cancel(), None),
    Role.HEARTBEAT: (Heartbeat(), Heartbeat()),
}
# Doubt is danger: a value of these that cannot be read counts as true.
_HAZARDS: Final = {Role.SOS, Role.FALL, Role.SMOKE, Role.GAS, Role.WATER_LEAK}
_SOS_WORDS: Final = {"sos", "emergency", "panic", "help"}
_NO_WORD: Final = {"", "none", "null", "clear", "idle"}

KIND_OF_ROLE: Final[Mapping[Role, FieldKind]] = {
    Role.SOS: FieldKind.EVENT,
    Role.FALL: FieldKind.EVENT,
    Role.FALL_WARNING: FieldKind.EVENT,
    Role.CANCEL: FieldKind.EVENT,
    Role.PRESS: FieldKind.EVENT,
    Role.TYPE: FieldKind.EVENT,
    Role.DOOR: FieldKind.STATE,
    Role.MOTION: FieldKind.STATE,
    Role.BED: FieldKind.STATE,
    Role.SWITCH: FieldKind.STATE,
    Role.VITALS: FieldKind.STATE,
    Role.SMOKE: FieldKind.ALARM_STATE,
    Role.GAS: FieldKind.ALARM_STATE,
    Role.WATER_LEAK: FieldKind.ALARM_STATE,
    Role.TAMPER: FieldKind.ALARM_STATE,
    Role.BATTERY_LOW: FieldKind.DIAG,
    Role.FAULT: FieldKind.DIAG,
    Role.ONLINE: FieldKind.DIAG,
    Role.HEARTBEAT: FieldKind.DIAG,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a family: what it means, and what its values mean where that is not plain.

    `values`: a value (as `value_key` writes it; `*`: any other) → the role and whether it holds; None: it says nothing.
    `unit` of a time: s, ms, us, ns; None: told by its size. `meant`: the role of a product that has this field.
    `null_presses`: its null may be a press whose word was lost, which what came before decides.
    """

    role: Role
    kind: FieldKind | None = None
    values: Mapping[str, tuple[Role, bool] | None] | None = None
    unit: str | None = None
    meant: DeviceKind | None = None
    null_presses: bool = False


def condition(role: Role, holds: bool) -> Event | None:
    """The event of a condition that begins or ends."""
    return _CONDITIONS[role][0 if holds else 1]


@dataclass(slots=True)
class Said:
    """One thing a message says."""

    event: Event
    kind: FieldKind
    field: str
    at: datetime | None = None
    id: str | None = None


@dataclass(slots=True)
class Gathered:
    """What the fields of one message say, put together. `touched`: at least one field was known."""

    tz: ZoneInfo
    said: list[Said] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)
    sent: dict[str, Any] = field(default_factory=dict)
    device_id: str | None = None
    device_time: datetime | None = None
    event_id: str | None = None
    battery: int | None = None
    rssi: int | None = None
    confidence: float | None = None
    readings: dict[str, float] = field(default_factory=dict)
    touched: bool = False

    def say(
        self, event: Event, kind: FieldKind, name: str, at: datetime | None = None, *, id: str | None = None
    ) -> None:
        self.touched = True
        if len(self.said) < _MOST_SAID:
            self.said.append(Said(event, kind, name, at, id))

    def take(self, spec: Field, name: str, value: Any, at: datetime | None = None) -> None:
        """Read one field by its role."""
        self.touched = True
        role, values = spec.role, spec.values
        if role is Role.PRESS or (value is None and role is Role.TYPE):
            self._press(spec, name, value, at)
        elif value is None or role is Role.IGNORE:
            pass
        elif values is not None and role not in _READ_BY_NUMBER:
            self._mapped(spec, values, name, value, at)
        elif role in _CONDITIONS:
            self._condition(spec, name, value, at)
        else:
            self._other(spec, name, value, at)

    def _press(self, spec: Field, name: str, value: Any, at: datetime | None) -> None:
        word = "" if value is None else str(value).strip()[:64] if isinstance(value, str | int | float) else "?"
        kind = spec.kind or FieldKind.EVENT
        mapped = (spec.values or {}).get(value_key(value), _UNMAPPED) if value is not None else _UNMAPPED
        if mapped is not _UNMAPPED:
            self._mapped(spec, spec.values or {}, name, value, at)
        elif value is None and spec.null_presses:
            self.say(Press("", spec.meant), kind, name, at)
        elif word.lower() in _NO_WORD or not storable(word):
            self.say(Cleared("press"), kind, name, at)  # the word is taken back: not an event
        elif word.lower() in _SOS_WORDS:
            self.say(Sos(), kind, name, at)
        else:
            self.say(Press(word, spec.meant), kind, name, at)

    def _mapped(
        self, spec: Field, values: Mapping[str, tuple[Role, bool] | None], name: str, value: Any, at: datetime | None
    ) -> None:
        key = value_key(value)
        found = values.get(key, _UNMAPPED)
        if found is _UNMAPPED and key in _TWINS:
            found = values.get(_TWINS[key], _UNMAPPED)
        if found is _UNMAPPED:
            found = values.get("*", _UNMAPPED)
        if found is _UNMAPPED:
            shown = key[:40] if storable(key) else "?"
            known = ", ".join(sorted(values)[:20])
            self.rejects.append(
                Rejected(RejectReason.BAD_FIELD, f"`{name}`: the value {shown!r} is not in its map; known are {known}")
            )
            self.faults.append(f"{name}: a value that is not in its map, taken as unknown")
        elif found is not None:
            role, holds = found
            event = condition(role, holds)
            if event is not None:
                self.say(event, spec.kind or KIND_OF_ROLE[role], name, at)

    def _condition(self, spec: Field, name: str, value: Any, at: datetime | None) -> None:
        holds = truth(value, ACTIVE_OF.get(spec.role, ACTIVE), INACTIVE_OF.get(spec.role, INACTIVE))
        if holds is None:
            if spec.role not in _HAZARDS:
                self.faults.append(f"{name}: neither true nor false, taken as unknown")
                return
            self.faults.append(f"{name}: not readable, taken as true")
            holds = True
        event = condition(spec.role, holds)
        if event is not None:
            self.say(event, spec.kind or KIND_OF_ROLE[spec.role], name, at)

    def _other(self, spec: Field, name: str, value: Any, at: datetime | None) -> None:
        match spec.role:
            case Role.SWITCH:
                on = truth(value, ACTIVE, INACTIVE)
                if on is None:
                    self.faults.append(f"{name}: neither on nor off, taken as unknown")
                else:
                    self.say(Switch(name[:64], on), spec.kind or FieldKind.STATE, name, at)
            case Role.BATTERY:
                found = percent(value, name, self.faults)
                self.battery = found if found is not None else self.battery
            case Role.RSSI:
                self.rssi = whole(number(value), -200, 100, name, self.faults)
            case Role.CONFIDENCE:
                sure = number(value)
                sure = sure / 100 if sure is not None and 1 < sure <= 100 else sure
                if sure is None or not 0 <= sure <= 1:
                    self.faults.append(f"{name}: not a confidence from 0 to 1 or 0 to 100, taken as unknown")
                else:
                    self.confidence = sure
            case Role.VITALS:
                reading = number(value)
                if reading is None:
                    self.faults.append(f"{name}: not a number, taken as unknown")
                elif len(self.readings) < _MOST_SENT:
                    self.readings[name.rpartition(".")[2][:64]] = reading
            case Role.FAULT:
                if truth(value) is not False:
                    code = str(value)[:64] if isinstance(value, str | int | float) else name
                    self.say(Fault(code if storable(code) else name), spec.kind or FieldKind.DIAG, name, at)
            case Role.TIME:
                self.device_time = moment(value, self.tz, spec.unit)
                if self.device_time is None:
                    self.faults.append(f"{name}: no time, taken as unknown")
            case Role.EVENT_ID:
                self.event_id = text_id(value)
            case Role.DEVICE_ID:
                self.device_id = text_id(value) or self.device_id
            case Role.TYPE:
                role = _TYPES.get(value_key(value))
                if role is None:
                    self.rejects.append(
                        Rejected(RejectReason.UNKNOWN_TYPE, f"`{name}` must be one of {', '.join(_TYPES)}")
                    )
                else:
                    event = condition(role, True)
                    if event is not None:
                        self.say(event, spec.kind or KIND_OF_ROLE[role], name, at)
            case _:
                raise AssertionError(spec.role)  # conditions are read elsewhere

    def keep(self, body: Mapping[str, Any]) -> None:
        """Remember the plain values that were sent, for whoever looks at the event later."""
        for name, value in body.items():
            if len(self.sent) >= _MOST_SENT:
                return
            if isinstance(value, str):
                self.sent[name[:64]] = value[:_LONGEST_SENT]
            elif isinstance(value, bool) or is_number(value):
                self.sent[name[:64]] = value


_UNMAPPED: Any = object()
_TWINS: Final = {"true": "1", "false": "0", "1": "true", "0": "false"}
_READ_BY_NUMBER: Final = {
    Role.BATTERY, Role.RSSI, Role.CONFIDENCE, Role.VITALS, Role.TIME, Role.EVENT_ID, Role.DEVICE_ID, Role.SWITCH,
    Role.FAULT,
}  # fmt: skip
_TYPES: Final = {role.value: role for role in _CONDITIONS}


def text_id(value: Any) -> str | None:
    """An id that a database keeps; numbers become text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = value_key(value) if isinstance(value, int | float) else value.strip()
    return text if 1 <= len(text) <= MAX_ID and storable(text) else None


# Longer ids are random (a UUID, a token); shorter ones are counters, which begin anew when a device restarts.
_RANDOM = 16


def once(id: Any, at: datetime | None) -> str | None:
    """What makes a message the same one when it comes again. A counter alone does not: after a restart it counts from 1
    and a true press would pass for an old one. With the device's time it does; without one there is no identity."""
    text = text_id(id)
    if text is None:
        return None
    if len(text) >= _RANDOM and not text.isdigit():
        return text
    return f"{text}@{int(at.timestamp() * 1000)}"[:MAX_ID] if at is not None else None


# --- device ids -------------------------------------------------------------------------------------------------------

_ESCAPES: Final = {"~": "~0", "/": "~1", "+": "~2", "#": "~3"}


def device_ref(family: str, *parts: str) -> str | None:
    """`family:part:part`. What a device id may not hold is written `~1` (/), `~2` (+), `~3` (#), `~0` (~), and `:` within
    all parts but the last `~4`: two devices never get one id. None: it would be no id (empty, too long, unprintable)."""
    texts = ["".join(_ESCAPES.get(char, char) for char in part) for part in parts]
    texts[:-1] = [text.replace(":", "~4") for text in texts[:-1]]
    ref = ":".join([family, *texts])
    return ref if all(parts) and len(ref) <= MAX_ID and ref.isprintable() else None


BAD_DEVICE_ID = Rejected(
    RejectReason.BAD_DEVICE_ID, f"the device's name makes no id of 1 to {MAX_ID} printable characters; rename it"
)

# --- observations ---------------------------------------------------------------------------------------------------------

_URGENCY: Final = (Sos, Fall, Smoke, Gas, WaterLeak, FallWarning)


def _urgency(said: Said) -> int:
    return next((rank for rank, kind in enumerate(_URGENCY) if isinstance(said.event, kind)), len(_URGENCY))


def observations(
    frame: Frame,
    known: Knowledge,
    *,
    family: str,
    device_id: str | None,
    gathered: Gathered,
    guarded: bool = False,
    part: int = 0,
) -> list[Decoded]:
    """The observations of one message (or of a part of it), the most urgent first. Diagnostics alone are a heartbeat."""
    if device_id is None:
        return [BAD_DEVICE_ID]
    registered = known.registered(device_id)
    extends = not guarded and registered is not None and registered.profile in known.profiles
    profile = registered.profile if registered is not None and extends else family
    said = sorted(gathered.said, key=_urgency)
    if gathered.readings:
        said.append(Said(Vitals(gathered.readings), FieldKind.STATE, "+".join(gathered.readings)[:64]))
    if not said and (gathered.touched or not gathered.rejects):
        said.append(Said(Heartbeat(), FieldKind.DIAG, ""))
    event_id = gathered.event_id
    if event_id is None and frame.retained:
        # The broker hands a retained message over again at each connection: its content is its identity.
        content = b"%d %s %s" % (part, frame.topic.encode(errors="replace"), frame.payload)
        event_id = "retained:" + hashlib.sha256(content).hexdigest()[:32]
    kind = registered.kind if registered else None
    alone = len(said) == 1 and gathered.battery is None and gathered.rssi is None
    result: list[Decoded] = [
        _observation(frame, DeviceId(device_id), number, one, gathered, Source(profile, one.field or None, one.kind, guarded),
                     event_id, kind, alone)
        for number, one in enumerate(said)
    ]  # fmt: skip
    return result + [Rejected(reject.reason, reject.detail, device_id) for reject in gathered.rejects]


def _observation(
    frame: Frame,
    device_id: DeviceId,
    number: int,
    said: Said,
    gathered: Gathered,
    source: Source,
    event_id: str | None,
    kind: DeviceKind | None,
    alone: bool,
) -> Observation:
    event = in_role(said.event, kind)
    if isinstance(event, Fall) and gathered.confidence is not None:
        event = Fall(gathered.confidence)
    device_time = said.at or gathered.device_time
    occurred_at, late = place_in_time(device_time, frame.received_at)
    data = words_of(event)
    if source.field:
        data["_field"] = source.field
    data["_kind"] = source.kind.value
    if event is not said.event:
        data["_said"] = words_of(said.event)
    first = number == 0
    if first and gathered.sent:
        data["_sent"] = gathered.sent
    # One message is one event id; what it says beside the first thing gets the id with a number.
    own = said.id or (event_id if first or event_id is None else f"{event_id[:MAX_ID]}#{number}")
    return Observation(
        device_id=device_id,
        event=event,
        received_at=frame.received_at,
        occurred_at=occurred_at,
        device_time=device_time,
        event_id=own,
        late=late,
        retained=frame.retained,
        battery=gathered.battery,
        rssi=gathered.rssi,
        data=data,
        faults=tuple(gathered.faults[:20]) if first else (),
        source=source,
        alone=alone,
    )


def status(frame: Frame, known: Knowledge, *, family: str, device_id: str | None, value: Any) -> list[Decoded]:
    """A device's (or gateway's) word that it is there, or its last will."""
    online = truth(value, ACTIVE_OF[Role.ONLINE], INACTIVE_OF[Role.ONLINE])
    if online is None:
        detail = 'must be online or offline, plain or as {"state": …}'
        return [Rejected(RejectReason.BAD_FIELD, detail, device_id)]
    gathered = Gathered(known.tz)
    gathered.say(Status(online), FieldKind.DIAG, "online")
    return observations(frame, known, family=family, device_id=device_id, gathered=gathered)


def read_fields(
    body: Mapping[str, Any],
    table: Mapping[str, Field],
    gathered: Gathered,
    *,
    extra: Extra | None = None,
    at: datetime | None = None,
) -> None:
    """Read the fields of an object by a table of names; first by a configured profile, whose fields it then leaves."""
    taken = extra.read(body, gathered, at) if extra is not None else ()
    for name, value in body.items():
        spec = table.get(name)
        if spec is not None and name not in taken:
            gathered.take(spec, name, value, at)


@dataclass(frozen=True, slots=True)
class PathField:
    """A configured field: where it stands, what it means, and (`where`, one of `equals`) when it counts at all."""

    path: Path
    spec: Field
    whole: bool  # the path begins at the whole message, not at the record
    where: Path | None = None
    where_whole: bool = False
    equals: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Extra:
    """The fields of a configured profile."""

    fields: Sequence[PathField]

    def read(self, body: Any, gathered: Gathered, at: datetime | None = None, *, root: Any = None) -> set[str]:
        """The names of members that the profile has spoken for. `root`: the whole message a record is of."""
        whole = body if root is None else root
        taken: set[str] = set()
        for one in self.fields:
            source = whole if one.whole else body
            if one.path.steps and isinstance(one.path.steps[0], str):
                taken.add(one.path.steps[0])
            if one.where is not None:
                looked = one.where.find(whole if one.where_whole else body)
                if not any(value_key(value) in one.equals for value in looked):
                    continue
            for value in one.path.find(source):
                gathered.take(one.spec, one.path.text, value, at)
        return taken


def extension(known: Knowledge, device_id: str | None) -> Extra | None:
    """The configured fields of a device that was registered under a profile which extends its family."""
    if device_id is None or not known.profiles:
        return None
    registered = known.registered(device_id)
    profile = known.profiles.get(registered.profile) if registered else None
    return profile.extra if profile is not None and profile.extends else None


def ignored(because: str) -> list[Decoded]:
    return [Ignored(because)]
