"""Fresh events folded into the states of homes, in the transaction that journals them: a batch is one read and one write.

Compare-and-set: a state that another process wrote since it was read is read again, locked, and folded again. What
changes nothing that matters is not written, so a busy home costs a write a minute at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa

from app.db import Hands
from app.devices import bridges
from app.devices.edges import Edge
from app.devices.events import (
    BatteryLow,
    Bed,
    Cancel,
    Cleared,
    Door,
    Fall,
    FallWarning,
    Fault,
    Motion,
    Observation,
    Press,
    Status,
    Switch,
    Tamper,
    Vitals,
)
from app.devices.journal import Journalled
from app.devices.roles import seen_in_role
from app.rules.home import Change, Heard, Home, fold, worth_writing
from app.rules.replaying import heard_from

_TOLD_OF: Final = (
    Door, Motion, Bed, FallWarning, Fall, Cleared, Tamper, BatteryLow, Vitals, Press, Switch, Cancel, Fault
)  # fmt: skip
_ONLY_NEWS: Final = (Door, FallWarning)

_READ = sa.text(
    """
    SELECT h.elder_id, h.state, h.version
    FROM unnest(CAST(:elder_id AS uuid[])) AS i(elder_id)
    CROSS JOIN LATERAL (SELECT * FROM home_states WHERE elder_id = i.elder_id LIMIT 1) h
    """
)
# A home that stirred is looked at now; one that only moved, when it was planned anyway.
_KEEP = sa.text(
    """
    INSERT INTO home_states AS h (elder_id, state, due_at, version)
    SELECT * FROM unnest(CAST(:elder_id AS uuid[]), CAST(:state AS text[]), CAST(:due_at AS timestamptz[]),
                         CAST(:version AS int[])) AS x(elder_id, state, due_at, version)
    ORDER BY elder_id
    ON CONFLICT (elder_id) DO UPDATE SET state = excluded.state, version = excluded.version,
        due_at = least(h.due_at, excluded.due_at)
    WHERE h.version = excluded.version - 1
    RETURNING elder_id
    """
)
# A device's network says that it is gone: its home is looked at.
_NUDGE = sa.text(
    """
    UPDATE home_states SET due_at = least(due_at, :now)
    WHERE elder_id = ANY(ARRAY(
        SELECT b.elder_id FROM unnest(CAST(:device_id AS text[])) AS i(device_id)
        CROSS JOIN LATERAL (SELECT elder_id FROM bindings WHERE device_id = i.device_id AND unbound_at IS NULL LIMIT 1) b
    ))
    """
)

# A Zigbee gateway is gone: the homes whose devices may hang on it are looked at.
_NUDGE_BELOW = sa.text(
    """
    UPDATE home_states SET due_at = least(due_at, :now)
    WHERE elder_id IN (
        SELECT b.elder_id FROM zigbee_names n
        JOIN bindings b ON b.device_id = 'zigbee:' || n.address AND b.unbound_at IS NULL
        WHERE n.base = ANY(CAST(:bases AS text[]))
        UNION
        SELECT b.elder_id FROM devices d JOIN bindings b ON b.device_id = d.device_id AND b.unbound_at IS NULL
        WHERE d.profile = 'zigbee2mqtt'
          AND EXISTS (SELECT FROM unnest(CAST(:names AS text[])) AS p(name) WHERE starts_with(d.device_id, p.name))
    )
    """
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Home).decode


def read_state(text: str) -> Home:
    return _decode(text)


def write_state(home: Home) -> str:
    return _encode(home).decode()


async def follow(session: Hands, fresh: Sequence[Journalled], *, now: datetime, tz: ZoneInfo) -> None:
    """Fold a batch into the homes it belongs to."""
    said: dict[UUID, list[Heard]] = {}
    for one in fresh:
        if one.elder_id is not None and _matters(one):
            said.setdefault(one.elder_id, []).append(heard_from(seen_in_role(one.seen, one.kind), one.kind, one.place))
    known = await _read(session, said) if said else {}
    while said:
        kept = await _keep(session, _folded(said, known, tz), now)
        said = {elder_id: heard for elder_id, heard in said.items() if elder_id not in kept}
        if said:
            known = await _read(session, said)


async def nudge(session: Hands, observations: Sequence[Observation], *, now: datetime) -> None:
    """Look at the homes of devices that went offline."""
    gone = {one.device_id for one in observations if isinstance(one.event, Status) and not one.event.online}
    if gone:
        await session.execute(_NUDGE, {"device_id": sorted(gone), "now": now})
    bases = [base for one in gone if (base := bridges.base_of(one)) is not None]
    if bases:
        names = sorted({name for base in bases for name in bridges.names_below(base)})
        await session.execute(_NUDGE_BELOW, {"bases": sorted(bases), "names": names, "now": now})


def _matters(one: Journalled) -> bool:
    """An SOS, smoke, gas or a leak say nothing of how a home lives; what else a device says of itself does. What is only
    said again is nothing new of a door or a suspicion; of a bed it is somebody who rests."""
    seen = one.seen
    if seen.retained:
        return False
    if isinstance(seen.event, _TOLD_OF) and (one.edge is Edge.NEWS or not isinstance(seen.event, _ONLY_NEWS)):
        return True
    return seen.battery is not None or (seen.late and seen.device_time is not None)


class _After:
    """A home after its events."""

    __slots__ = ("before", "change", "home", "version")

    def __init__(self, home: Home, version: int) -> None:
        self.home, self.version = home, version
        self.before, self.change = home.moved, Change.NOTHING


def _folded(
    said: Mapping[UUID, Sequence[Heard]], known: Mapping[UUID, tuple[str, int]], tz: ZoneInfo
) -> dict[UUID, _After]:
    folded: dict[UUID, _After] = {}
    for elder_id, events in said.items():
        text, version = known.get(elder_id, ("{}", 0))
        after = _After(read_state(text), version)
        for heard in events:
            after.change = max(after.change, fold(after.home, heard, tz))
        if not version:
            after.change = Change.STIRRED
        folded[elder_id] = after
    return folded


async def _keep(session: Hands, folded: Mapping[UUID, _After], now: datetime) -> set[UUID]:
    """Those that are kept now, or need not be."""
    worth = {one: after for one, after in folded.items() if worth_writing(after.change, after.before, after.home)}
    still = set(folded) - set(worth)
    if not worth:
        return still
    rows = await session.execute(_KEEP, {
        "elder_id": list(worth),
        "state": [write_state(after.home) for after in worth.values()],
        "due_at": [now if after.change is Change.STIRRED else None for after in worth.values()],
        "version": [after.version + 1 for after in worth.values()],
    })  # fmt: skip
    return still | {row[0] for row in rows}


async def _read(session: Hands, elder_ids: Mapping[UUID, object]) -> dict[UUID, tuple[str, int]]:
    rows = await session.execute(_READ, {"elder_id": list(elder_ids)})
    return {elder_id: (state, version) for elder_id, state, version in rows}
