"""Whether the owner of a subscription may still have it: an account or a key that is active, with the right, and with a
region that holds the subscription's. Asked at the time of sending."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.principal import Principal, Right
from app.access.vocabulary import Role
from app.errors import NotAllowed
from app.webhooks.vocabulary import OwnerType, PauseReason

# The one place that says who manages webhooks.
RIGHT = Right.WEBHOOKS


@dataclass(frozen=True, slots=True)
class Owner:
    type: OwnerType
    id: UUID


def why_not(owner: Principal | None, scope: str) -> PauseReason | None:
    """Why this owner (None: no longer active) may not have a subscription for `scope`; None when all is well."""
    if owner is None:
        return PauseReason.OWNER_INACTIVE
    try:
        owner.must(RIGHT)
    except NotAllowed:
        return PauseReason.OWNER_MOVED
    return None if owner.sees(scope) else PauseReason.OWNER_MOVED


async def standing(session: AsyncSession, owners: Collection[Owner]) -> dict[Owner, Principal]:
    """The owners that are active, as they are now."""
    ids = [owner.id for owner in owners if owner.type is OwnerType.USER]
    rows = await session.execute(
        sa.text(
            "SELECT id, username, role, region_code, visitor_id FROM users "
            "WHERE active AND id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"ids": ids},
    )
    return {
        Owner(OwnerType.USER, row.id): Principal(row.id, row.username, Role(row.role), row.region_code, row.visitor_id)
        for row in rows
    }
