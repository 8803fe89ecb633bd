"""What handlers are given: the parts of the running server, this request's session, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.accounts import LoginGuard
from app.access.principal import Principal, principal_of
from app.access.sealing import Sealer
from app.alarms.links import Links
from app.alarms.views import Shapes
from app.clock import Clock
from app.db import Sessions
from app.errors import NotLoggedIn
from app.feed import Feed
from app.notify.channel import Channels
from app.webhooks.messages import Composer
from app.webhooks.terms import Terms


@dataclass(frozen=True)
class Parts:
    """The parts of the server that routes use. One a process."""

    sessions: Sessions
    clock: Clock
    tz: ZoneInfo
    token_key: bytes
    sealer: Sealer
    shapes: Shapes
    links: Links
    channels: Channels
    feed: Feed
    composer: Composer
    terms: Terms
    guard: LoginGuard = field(default_factory=LoginGuard)


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def session_of(request: Request) -> AsyncSession:
    """The request's session: `Transactional` opened it and commits it before the reply."""
    session: AsyncSession = request.state.session
    return session


def now_of(request: Request) -> datetime:
    return parts_of(request).clock()


_bearer = HTTPBearer(auto_error=False, description="The access_token of POST /api/v1/auth/token.")


async def principal(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Raises `NotLoggedIn` without a good bearer token."""
    if credentials is None:
        raise NotLoggedIn("send Authorization: Bearer <access_token> from POST /api/v1/auth/token")
    parts = parts_of(request)
    who = await principal_of(session_of(request), credentials.credentials, key=parts.token_key, now=parts.clock())
    request.state.principal = who
    return who


PartsDep = Annotated[Parts, Depends(parts_of)]
SessionDep = Annotated[AsyncSession, Depends(session_of)]
NowDep = Annotated[datetime, Depends(now_of)]
PrincipalDep = Annotated[Principal, Depends(principal)]
