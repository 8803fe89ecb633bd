"""What goes along when an elder moves. Scope is judged by the region code of a row: whoever moves takes theirs along, or
the old region would go on seeing."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

_TAKE_ALONG = tuple(
    sa.text(statement)
    for statement in (
        "UPDATE alarms SET region_code = :code WHERE elder_id = :id",
        "UPDATE visits SET region_code = :code WHERE elder_id = :id",
        "UPDATE feed_events SET region_code = :code WHERE alarm_id IN (SELECT id FROM alarms WHERE elder_id = :id)",
        "UPDATE devices SET region_code = :code, version = version + 1 WHERE device_id IN "
        "(SELECT device_id FROM bindings WHERE elder_id = :id AND unbound_at IS NULL)",
    )
)


async def take_along(session: AsyncSession, elder_id: UUID, code: str) -> None:
    """Alarms, visits, feed and worn devices belong to the new region from now on."""
    for statement in _TAKE_ALONG:
        await session.execute(statement, {"id": elder_id, "code": code})
