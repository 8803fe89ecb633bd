"""Gateways that are gone and are nobody's: registered and given to no one, or never registered at all.

Their devices may hang in many homes. One home tells of the gateway; the others know that they are not seen, and say nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.devices import bridges
from app.rules.watching import Bridge, Device

Homes = Mapping[UUID, Mapping[str, Device]]
_AFTER_S = 60.0  # what was heard this long after a gateway was said to be gone came by it all the same

_BASES = sa.text(
    """
    SELECT i.address, n.base FROM unnest(CAST(:addresses AS text[])) AS i(address)
    CROSS JOIN LATERAL (SELECT base FROM zigbee_names WHERE address = i.address ORDER BY told_at DESC LIMIT 1) n
    """
)
_WORDS = sa.text(
    """
    SELECT g.device_id, g.place, g.online, g.last_seen_at AS since, b.elder_id
    FROM devices g LEFT JOIN bindings b ON b.device_id = g.device_id AND b.unbound_at IS NULL
    WHERE g.device_id = ANY(CAST(:ids AS text[]))
    UNION ALL
    SELECT device_id, NULL, online, online_since, NULL FROM unclaimed_devices WHERE device_id = ANY(CAST(:ids AS text[]))
    """
)
# Looked for only while a gateway of nobody is gone.
_HANGING = sa.text(
    """
    SELECT b.elder_id, d.device_id FROM devices d
    JOIN bindings b ON b.device_id = d.device_id AND b.unbound_at IS NULL WHERE d.profile = 'zigbee2mqtt'
    """
)


class _Word(NamedTuple):
    device_id: str
    place: str | None
    online: bool | None
    since: datetime | None
    elder_id: UUID | None

    @property
    def since_s(self) -> float:
        return self.since.timestamp() if self.since else 0.0


async def gone(session: AsyncSession, homes: Homes, *, roots: Collection[str]) -> dict[UUID, list[Bridge]]:
    """Of each home the gateways above it that are gone and are not its own. One whose devices are heard is not gone, whatever
    an old retained word says."""
    above = await _above(session, homes, roots)
    words = await _words(session, above)
    offline: dict[str, set[UUID]] = {}
    for elder_id, devices in above.items():
        heard: dict[str, float] = {}
        for device_id, candidates in devices.items():
            bridge = bridges.nearest(candidates, words)
            if bridge is not None and words[bridge].online is False and words[bridge].elder_id != elder_id:
                heard[bridge] = max(heard.get(bridge, 0.0), homes[elder_id][device_id].heard)
        for bridge, last in heard.items():
            if last <= words[bridge].since_s + _AFTER_S:
                offline.setdefault(bridge, set()).add(elder_id)
    if not offline:
        return {}
    hanging = await _hanging(session, offline, roots) if any(words[b].elder_id is None for b in offline) else {}
    found: dict[UUID, list[Bridge]] = {}
    for bridge, elder_ids in offline.items():
        word, below = words[bridge], hanging.get(bridge, [])
        tells = min((elder_id for elder_id, _ in below), default=None) if word.elder_id is None else None
        for elder_id in elder_ids:
            told = elder_id == tells
            one = Bridge(bridge, word.place, word.since_s, told, len(below), len({home for home, _ in below}))
            found.setdefault(elder_id, []).append(one)
    return found


async def _above(
    session: AsyncSession, homes: Mapping[UUID, Collection[str]], roots: Collection[str]
) -> dict[UUID, dict[str, list[str]]]:
    """The gateways that each Zigbee device of each home may hang on."""
    addresses = {a for devices in homes.values() for one in devices if (a := bridges.address_of(one)) is not None}
    bases: dict[str, str] = {}
    if addresses:
        bases = {row.address: row.base for row in await session.execute(_BASES, {"addresses": sorted(addresses)})}
    found: dict[UUID, dict[str, list[str]]] = {}
    for elder_id, devices in homes.items():
        for one in devices:
            address = bridges.address_of(one)
            candidates = list(bridges.may_hang_on(one, bases.get(address) if address else None, list(roots)))
            if candidates:
                found.setdefault(elder_id, {})[one] = candidates
    return found


async def _words(session: AsyncSession, above: Mapping[UUID, Mapping[str, Collection[str]]]) -> dict[str, _Word]:
    ids = {one for devices in above.values() for candidates in devices.values() for one in candidates}
    if not ids:
        return {}
    return {row.device_id: _Word(*row) for row in await session.execute(_WORDS, {"ids": sorted(ids)})}


async def _hanging(
    session: AsyncSession, offline: Collection[str], roots: Collection[str]
) -> dict[str, list[tuple[UUID, str]]]:
    """All that hangs on these gateways, in all homes."""
    homes: dict[UUID, list[str]] = {}
    for elder_id, device_id in await session.execute(_HANGING):
        homes.setdefault(elder_id, []).append(device_id)
    above = await _above(session, homes, roots)
    words = await _words(session, above)
    found: dict[str, list[tuple[UUID, str]]] = {}
    for elder_id, devices in above.items():
        for device_id, candidates in devices.items():
            bridge = bridges.nearest(candidates, words)
            if bridge in offline and bridge is not None:
                found.setdefault(bridge, []).append((elder_id, device_id))
    return found
