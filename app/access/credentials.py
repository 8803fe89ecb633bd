"""`Authorization: Bearer …` carries either an access token or an API key: here they become a principal."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.access import keys
from app.access.principal import Principal
from app.access.tokens import Tokens


async def identify(session: AsyncSession, tokens: Tokens, credential: str, *, now: datetime) -> tuple[Principal, bool]:
    """Who shows it, and whether its use is to be noted (of a key, once a minute). Raises `NotLoggedIn`."""
    if keys.looks_like_one(credential):
        return await keys.principal(session, credential, now=now)
    return await tokens.principal(session, credential, now=now), False
