"""Observations and reasons as a dry run shows them, and as the examples of each family are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.devices.codec import Decoded, Ignored, Learned, Rejected
from app.devices.events import Observation, words_of
from app.devices.reading import is_number


def observation(seen: Observation) -> dict[str, Any]:
    """One observation in the words of the native form, with where it comes from."""
    return {
        "type": seen.event.type,
        **words_of(seen.event),
        "device_id": seen.device_id,
        "profile": seen.source.profile,
        "field": seen.source.field,
        "field_kind": seen.source.kind.value,
        "event_id": seen.event_id,
        "occurred_at": seen.occurred_at.isoformat(),
        "device_time": seen.device_time.isoformat() if seen.device_time else None,
        "late": seen.late,
        "retained": seen.retained,
        "battery": seen.battery,
        "rssi": seen.rssi,
        "faults": list(seen.faults),
    }


def dry_run(decoded: Sequence[Decoded]) -> dict[str, Any]:
    """What came of one message: observations, reasons, what was ignored and what was learned."""
    seen = [one for one in decoded if isinstance(one, Observation)]
    rejected = [one for one in decoded if isinstance(one, Rejected)]
    named = [one.device_id for one in seen] + [one.device_id for one in rejected if one.device_id]
    device_id = named[0] if named else None
    shown = {
        "device_id": device_id,
        "profile": seen[0].source.profile if seen else None,
        "observations": [observation(one) for one in seen],
        "reasons": [{"reason": one.reason.value, "detail": one.detail, "device_id": one.device_id} for one in rejected],
        "ignored": [one.because for one in decoded if isinstance(one, Ignored)],
        "learned": {
            topic: named.address for one in decoded if isinstance(one, Learned) for topic, named in one.names.items()
        },
    }
    result: dict[str, Any] = presentable(shown)
    return result


def presentable(value: Any) -> Any:
    """The same, as JSON in UTF-8 can say it."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case float() if not is_number(value):
            return None
        case list():
            return [presentable(item) for item in value]
        case dict():
            return {presentable(name): presentable(item) for name, item in value.items()}
        case _:
            return value
