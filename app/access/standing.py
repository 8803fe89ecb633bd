"""Whoever asked for something that is done later: are they still who they were? An account or key as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.access.principal import Principal
from app.access.tables import ApiKey, User
from app.access.vocabulary import EVERY_CREDENTIAL, Right, Role


async def standing(session: AsyncSession, actor: Mapping[str, Any], *, now: datetime) -> Principal | None:
    """The principal of `Principal.who()`, with the rights and the scope of today; None when it is no longer active."""
    if actor["type"] == "api_key":
        key = await session.get(ApiKey, UUID(actor["id"]))
        if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            return None
        rights = EVERY_CREDENTIAL | {Right(scope) for scope in key.scopes}
        return Principal(key.id, key.name, None, key.region_code, None, rights)
    user = await session.get(User, UUID(actor["id"]))
    if user is None or not user.active:
        return None
    return Principal(user.id, user.username, Role(user.role), user.region_code, user.visitor_id)
