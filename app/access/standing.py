"""Whoever asked for something that is done later: are they still who they were? An account or key as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.access import keys
from app.access.principal import Principal
from app.access.tables import User
from app.access.vocabulary import Role


async def standing(session: AsyncSession, actor: Mapping[str, Any], *, now: datetime) -> Principal | None:
    """The principal of `Principal.who()`, with the rights and the scope of today; None when it is no longer active."""
    if actor["type"] == "api_key":
        return await keys.standing(session, UUID(actor["id"]), now=now)
    user = await session.get(User, UUID(actor["id"]))
    if user is None or not user.active:
        return None
    return Principal(user.id, user.username, Role(user.role), user.region_code, user.visitor_id)
