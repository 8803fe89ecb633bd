"""What handlers are given: the parts of the running server, this request's session, and who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import keys
from app.access.accounts import Access
from app.access.credentials import identify
from app.access.principal import Origin, Principal, Right
from app.access.sealing import Sealer
from app.access.wall import step_behind
from app.alarms.links import Links
from app.alarms.views import Shapes
from app.api.origin import origin_of
from app.clock import Clock
from app.db import Sessions, transaction
from app.devices.codec import Codec
from app.devices.codecs import families
from app.devices.credentials import BrokerTrust, Lookups
from app.errors import NotLoggedIn
from app.feed import Feed
from app.notify.channel import Channels
from app.settings import Network
from app.webhooks.messages import Composer
from app.webhooks.terms import Terms


@dataclass(frozen=True)
class Parts:
    """The parts of the server that routes use. One a process."""

    sessions: Sessions
    clock: Clock
    tz: ZoneInfo
    sealer: Sealer
    shapes: Shapes
    links: Links
    channels: Channels
    feed: Feed
    access: Access
    composer: Composer
    terms: Terms
    broker: BrokerTrust
    lookups: Lookups
    proxies: Sequence[Network] = ()
    secure_cookies: bool = False
    codecs: Sequence[Codec] = field(default_factory=families)


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def session_of(request: Request) -> AsyncSession:
    """The request's session: `Transactional` opened it and commits it before the reply."""
    session: AsyncSession = request.state.session
    return session


def now_of(request: Request) -> datetime:
    return parts_of(request).clock()


def origin(request: Request) -> Origin:
    return origin_of(request, parts_of(request).proxies)


_bearer = HTTPBearer(
    auto_error=False, description="The access_token of POST /api/v1/auth/token, or an API key of POST /api/v1/api-keys."
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def principal(request: Request, credentials: Credentials) -> Principal:
    """Who asks; from here on the request's transaction sees what they see (`app.access.wall`). Raises `NotLoggedIn` without
    a good bearer token. What a principal may do is declared by each route: `needs`."""
    if credentials is None:
        raise NotLoggedIn("send Authorization: Bearer <access_token> from POST /api/v1/auth/token, or an API key")
    parts, session = parts_of(request), getattr(request.state, "session", None)
    if session is not None:
        who, note_use = await identify(session, parts.access.tokens, credentials.credentials, now=parts.clock())
        request.state.key_used = who.id if note_use else None  # noted when the request's own transaction is over
        await step_behind(session, who, now=parts.clock())
    else:
        async with transaction(parts.sessions) as own:  # a stream: no session stays open as long as it does
            who, note_use = await identify(own, parts.access.tokens, credentials.credentials, now=parts.clock())
            if note_use:
                await keys.note_use(own, who.id, now=parts.clock())
    return who.asking_from(origin(request))


@dataclass(frozen=True)
class Needs:
    """The right a route asks for, as one of its dependencies: enforced here, listed by tests and in the document."""

    right: Right

    async def __call__(self, who: Annotated[Principal, Depends(principal)]) -> None:
        """Raises `NotAllowed`."""
        who.must(self.right)


def needs(right: Right) -> Any:
    """`@router.get(…, dependencies=[needs(Right.ELDERS_READ)])`: every route behind a log-in has exactly one."""
    return Depends(Needs(right))


def right_of(route: object) -> Right | None:
    """The right a route declares; None when it declares none."""
    found = [
        depends.dependency.right
        for depends in getattr(route, "dependencies", [])
        if isinstance(depends.dependency, Needs)
    ]
    return found[0] if len(found) == 1 else None


# Dependencies are coroutine functions: a plain one is run in a thread, and the way there and back is longer than its work.


async def _parts(request: Request) -> Parts:
    return parts_of(request)


async def _session(request: Request) -> AsyncSession:
    return session_of(request)


async def _now(request: Request) -> datetime:
    return now_of(request)


async def _origin(request: Request) -> Origin:
    return origin(request)


PartsDep = Annotated[Parts, Depends(_parts)]
SessionDep = Annotated[AsyncSession, Depends(_session)]
NowDep = Annotated[datetime, Depends(_now)]
OriginDep = Annotated[Origin, Depends(_origin)]
PrincipalDep = Annotated[Principal, Depends(principal)]
