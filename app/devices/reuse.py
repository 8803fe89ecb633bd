"""An id that a device used before for something else: a counter that began anew, a firmware that counts each kind apart.

The same (device, id) is one event, however often it arrives, and what is only sent again is dropped without a word. What comes
under a known id and is another event is kept in quarantine, and a danger is journalled all the same: no SOS is ever lost
because a number was used twice. Only what the journal knew already is looked at, so the way of the others is as short as ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from app.db import Hands
from app.devices import journal
from app.devices.codec import Rejected
from app.devices.edges import is_native
from app.devices.events import Fall, FallWarning, Frame, Gas, Observation, Press, Smoke, Sos, WaterLeak
from app.devices.journal import Journalled
from app.devices.vocabulary import RejectReason

RESENT: Final = timedelta(minutes=10)  # a device that sends an event again gives it the same time, or nearly
FORGOTTEN: Final = timedelta(days=1)  # and without a time, it does so within a day
_BESIDE: Final = frozenset({"battery", "rssi", "_faults", "_retained", "_test"})  # differs each time it is sent
_FAULT: Final = "id: was used before for another event, so this one has an id of its own"
_TOLD = sa.text(
    """
    SELECT i.place, e.type, e.device_time, e.received_at, e.data
    FROM unnest(CAST(:device_id AS text[]), CAST(:event_id AS text[])) WITH ORDINALITY AS i(device_id, event_id, place)
    CROSS JOIN LATERAL (
        SELECT type, device_time, received_at, data FROM device_events
        WHERE device_id = i.device_id AND event_id = i.event_id LIMIT 1
    ) e
    """
)


@dataclass(frozen=True, slots=True)
class Told:
    """What the journal holds under an id."""

    type: str
    device_time: datetime | None
    received_at: datetime
    data: Mapping[str, Any]


def is_another(told: Told, seen: Observation) -> bool:
    """Whether this is not the event that its id stands for. Ids of other families are made of the network's own number and
    time; a native device counts as it likes."""
    if seen.event.type != told.type:
        return True
    if not is_native(seen):
        return False
    if _content(seen.data) != _content(told.data):
        return True
    if not is_danger(seen):
        return False
    if seen.device_time is not None and told.device_time is not None:
        return abs(seen.device_time - told.device_time) > RESENT
    return seen.received_at - told.received_at > FORGOTTEN


def is_danger(seen: Observation) -> bool:
    """What must not be lost. A press is one, as the role of its device may make it an SOS."""
    match seen.event:
        case Sos() | Fall() | FallWarning() | Press():
            return True
        case Smoke(active) | Gas(active) | WaterLeak(active):
            return active
        case _:
            return False


def _content(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _BESIDE}


async def tell_apart(
    session: Hands, journalled: Sequence[Journalled], frames: Sequence[Frame]
) -> list[tuple[Frame, Rejected]]:
    """Journal the dangers that came under an id of another event, each in the place it came in; what else came so is
    returned for quarantine. `frames`: the message of each."""
    known = [
        (one, frame)
        for one, frame in zip(journalled, frames, strict=True)
        if one.known and not one.fresh and one.seen.event_id and not one.seen.event_id.startswith("retained:")
    ]
    if not known:
        return []
    asked = {
        "device_id": [one.seen.device_id for one, _ in known],
        "event_id": [one.seen.event_id for one, _ in known],
    }
    rejects: list[tuple[Frame, Rejected]] = []
    dangers: list[Journalled] = []
    for place, *told in await session.execute(_TOLD, asked):
        one, frame = known[place - 1]
        if not is_another(Told(*told), one.seen):
            continue
        if is_danger(one.seen):
            dangers.append(one)
        else:
            rejects.append((frame, _rejected(one.seen, told[0])))
    for one, again in zip(dangers, await journal.write(session, [_renamed(one.seen) for one in dangers]), strict=True):
        one.become(again)
    return rejects


def _rejected(seen: Observation, before: str) -> Rejected:
    detail = f"`id` was used before for another event ({before}); a device must give each event an id of its own"
    return Rejected(RejectReason.ID_USED_AGAIN, detail, seen.device_id)


def _renamed(seen: Observation) -> Observation:
    """The same event under an id made of what it says, so that it is one event when it is sent again."""
    said = json.dumps([seen.event.type, _content(seen.data), str(seen.device_time or "")], sort_keys=True, default=str)
    own = f"{(seen.event_id or '')[:128]}~{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    return replace(seen, event_id=own, faults=(*seen.faults, _FAULT))
