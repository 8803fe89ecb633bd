"""What a codec is, and the registry that finds the one for a topic.

A codec is pure: a message and what is known beside it go in, observations or a reason come out. What is known (which
Zigbee name is which address, which device was registered under which profile, the configured profiles) is an argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

import msgspec

from app.devices.events import Frame, Observation
from app.devices.vocabulary import DeviceKind, RejectReason

if TYPE_CHECKING:
    from app.devices.codecs.profile import Compiled

MAX_PAYLOAD = 16 * 1024
_BARE_NUMBER_WORD = re.compile(r"(?<=[:\[,])\s*[+-]?(?:nan|inf|infinity)\s*(?=[,}\]])", re.IGNORECASE)
_MOST_PIECES = 8  # objects that are looked for in a payload that is not one


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a message could not be used; `detail` says what to mend."""

    reason: RejectReason
    detail: str
    device_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that is in order and says nothing of a device: a gateway's own log, a command, an emptied topic."""

    because: str


@dataclass(frozen=True, slots=True)
class Named:
    """A Zigbee device behind a friendly name."""

    base: str
    address: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """A gateway told which of its names is which device: all names below this base topic, by topic."""

    base: str
    names: Mapping[str, Named]


Decoded = Observation | Rejected | Ignored | Learned


@dataclass(frozen=True, slots=True)
class Registered:
    """What the register says of a device of another family than the native one."""

    profile: str
    kind: DeviceKind


_HERE = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What decoding needs to know beside the message. `assumed`: in a dry run, the profile every device counts as
    registered under."""

    tz: ZoneInfo = _HERE
    names: Mapping[str, Named] = field(default_factory=dict)
    devices: Mapping[str, Registered] = field(default_factory=dict)
    profiles: Mapping[str, Compiled] = field(default_factory=dict)
    assumed: Registered | None = None

    def registered(self, device_id: str) -> Registered | None:
        return self.assumed or self.devices.get(device_id)

    def with_names(self, learned: Learned) -> Knowledge:
        """The names of one gateway replaced."""
        others = {topic: named for topic, named in self.names.items() if named.base != learned.base}
        return replace(self, names={**others, **learned.names})


class Codec(Protocol):
    """One family of devices. `decode` is pure, and answers any bytes with observations or a reason; None: the topic is
    not this family's.

    `subscriptions` are its topic filters; those of them in `unshared` carry retained words that every process needs (a
    shared subscription never delivers retained messages). `first_levels`: what its topics begin with, None: anything.
    `id_prefixes`: how its device ids begin.
    """

    name: str
    title: str
    subscriptions: Sequence[str]
    unshared: Sequence[str]
    first_levels: Sequence[str] | None
    id_prefixes: Sequence[str]

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None: ...


class Registry:
    """The codecs in use, in order. Two of one name are a mistake and stop the start. `without`: topics that begin so are
    not subscribed to (a broker that does not carry them)."""

    def __init__(self, codecs: Sequence[Codec], known: Knowledge | None = None, *, without: str | None = None) -> None:
        names = [codec.name for codec in codecs]
        if len(set(names)) != len(names):
            raise ValueError(f"two codecs of one name: {names}")
        self.codecs = tuple(codecs)
        self.known = known or Knowledge()
        self._without = without
        self._told: dict[str, Learned] = {}
        # A message is offered only to the families whose topics can begin like its own.
        self._anything = tuple(codec for codec in codecs if codec.first_levels is None)
        firsts = {first for codec in codecs for first in codec.first_levels or ()}
        self._by_first = {
            first: (*(codec for codec in codecs if first in (codec.first_levels or ())), *self._anything)
            for first in firsts
        }

    @property
    def subscriptions(self) -> list[str]:
        """Topic filters of all families and profiles, each once."""
        profiles = (profile.subscription for profile in self.known.profiles.values())
        families = (topic for codec in self.codecs for topic in codec.subscriptions)
        wanted = dict.fromkeys([*families, *(topic for topic in profiles if topic)])
        return [topic for topic in wanted if self._without is None or not topic.startswith(self._without)]

    @property
    def unshared(self) -> list[str]:
        return list(dict.fromkeys(topic for codec in self.codecs for topic in codec.unshared))

    def learn(self, learned: Learned) -> None:
        """What a gateway told is known from now on."""
        self._told[learned.base] = learned
        self.known = self.known.with_names(learned)

    def know(self, known: Knowledge) -> None:
        """What the database holds; what gateways told this process stays: it may not be committed yet."""
        for learned in self._told.values():
            known = known.with_names(learned)
        self.known = known

    def decode(self, frame: Frame) -> Sequence[Decoded]:
        """Observations and reasons, never an exception, never nothing."""
        tried = self._by_first.get(frame.topic.partition("/")[0], self._anything)
        for codec in tried:
            decoded = codec.decode(frame, self.known)
            if decoded is not None:
                return decoded
        names = ", ".join(codec.name for codec in tried) or "none begins so"
        return [Rejected(RejectReason.UNKNOWN_TOPIC, f"no device family reads this topic; tried: {names}")]


_NOT_AN_OBJECT = Rejected(RejectReason.NOT_AN_OBJECT, 'the payload must be one JSON object like {"type":"sos"}')


def read_object(payload: bytes) -> dict[str, Any] | Rejected:
    """A JSON object from bytes, forgiving what field devices send: `NaN`, `nan` and infinities (they become null), and the
    zero bytes that end a string in C."""
    if len(payload) > MAX_PAYLOAD:
        return Rejected(RejectReason.TOO_LARGE, f"{len(payload)} bytes; at most {MAX_PAYLOAD} are read")
    if not payload.strip():
        return Rejected(RejectReason.EMPTY, "no payload; send a JSON object")
    try:
        value = msgspec.json.decode(payload)  # strict and quick; what it refuses is read again, forgivingly
        return value if isinstance(value, dict) else _NOT_AN_OBJECT
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        text = payload.rstrip(b"\0").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Rejected(RejectReason.NOT_UTF8, f"byte {error.start} is not UTF-8; send JSON as UTF-8")
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        try:
            value = json.loads(_BARE_NUMBER_WORD.sub("null", text), parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            return Rejected(RejectReason.NOT_JSON, _json_fault(error))
    return value if isinstance(value, dict) else _NOT_AN_OBJECT


@dataclass(frozen=True, slots=True)
class Bodies:
    """The objects of a payload, and what was wrong with it: a broken one stays in quarantine too."""

    objects: Sequence[dict[str, Any]]
    faults: tuple[str, ...] = ()
    rejects: tuple[Rejected, ...] = ()


def read_bodies(payload: bytes) -> Bodies | Rejected:
    """One JSON object, as a rule. Gateways in the field splice two payloads or cut a character in half: whatever whole
    objects are in it are read then, because an SOS may be in one of them, and the fault is named."""
    body = read_object(payload)
    if not isinstance(body, Rejected):
        return Bodies((body,))
    if body.reason not in (RejectReason.NOT_UTF8, RejectReason.NOT_JSON):
        return body
    text = _BARE_NUMBER_WORD.sub("null", payload.decode("utf-8-sig", errors="replace"))
    found = list(_pieces(text))
    return Bodies(found, (f"payload: {body.detail}; read as far as it goes",), (body,)) if found else body


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def _pieces(text: str) -> Iterator[dict[str, Any]]:
    """Whole objects within a text, from left to right."""
    at = 0
    for _ in range(_MOST_PIECES):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(value, dict) and value:
            yield value


def _json_fault(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        case RecursionError():
            return "not JSON: nested too deeply"
        case _:
            return "not JSON: a number is too long"
