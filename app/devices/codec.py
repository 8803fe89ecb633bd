"""What a codec is, and the registry that finds the one for a topic."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from app.devices.events import Frame, Observation
from app.devices.vocabulary import RejectReason

MAX_PAYLOAD = 16 * 1024
_BARE_NUMBER_WORD = re.compile(r"(?<=[:\[,])\s*[+-]?(?:nan|inf|infinity)\s*(?=[,}\]])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a message could not be used; `detail` says what to mend."""

    reason: RejectReason
    detail: str
    device_id: str | None = None


Decoded = Observation | Rejected


class Codec(Protocol):
    """One family of devices. `decode` is pure, and answers any bytes with observations or a reason."""

    name: str
    subscriptions: Sequence[str]

    def reads(self, topic: str) -> bool: ...

    def decode(self, frame: Frame) -> Sequence[Decoded]: ...


class Registry:
    """The codecs in use, in order. Two of one name are a mistake and stop the start."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        names = [codec.name for codec in codecs]
        if len(set(names)) != len(names):
            raise ValueError(f"two codecs of one name: {names}")
        self._codecs = tuple(codecs)

    @property
    def subscriptions(self) -> list[str]:
        return [topic for codec in self._codecs for topic in codec.subscriptions]

    def decode(self, frame: Frame) -> Sequence[Decoded]:
        """Observations and reasons, never an exception, never nothing."""
        for codec in self._codecs:
            if codec.reads(frame.topic):
                return codec.decode(frame)
        return [Rejected(RejectReason.UNKNOWN_TOPIC, "no device family uses this topic")]


_NOT_AN_OBJECT = Rejected(RejectReason.NOT_AN_OBJECT, 'the payload must be one JSON object like {"type":"sos"}')


def read_object(payload: bytes) -> dict[str, Any] | Rejected:
    """A JSON object from bytes, forgiving `NaN`, `nan` and infinities (they become null): field devices send them."""
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
        text = payload.decode("utf-8-sig")
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


def _json_fault(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        case RecursionError():
            return "not JSON: nested too deeply"
        case _:
            return "not JSON: a number is too long"
