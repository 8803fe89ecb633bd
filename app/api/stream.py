"""The alarm feed as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.access.credentials import identify
from app.access.principal import Right
from app.api.context import Credentials, PartsDep, PrincipalDep, needs
from app.api.problems import responses
from app.db import transaction
from app.errors import InvalidInput, NotLoggedIn
from app.feed import Feed, StillMay

router = APIRouter(tags=["alarms"])
_LARGEST = 2**63 - 1


async def _start(
    parts: PartsDep,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=40, description="The last `id:` you saw; 0 = from the start."),
    ] = None,
) -> int:
    newest = await parts.feed.newest()
    last_event_id = (last_event_id or "").strip()
    if not last_event_id:
        return newest
    if not last_event_id.isascii() or not last_event_id.isdigit() or int(last_event_id) > _LARGEST:
        raise InvalidInput("Last-Event-ID must be the number of an event's `id:`")
    # A number this database has not given yet (it was restored, or is a replica that lags): waiting for it would be silence.
    return min(int(last_event_id), newest)


async def _feed(parts: PartsDep) -> Feed:
    return parts.feed


async def _still_may(parts: PartsDep, who: PrincipalDep, credentials: Credentials) -> StillMay:
    """Asks again who shows the credential: the stream ends when that is nobody any more, or somebody of other power."""

    async def ask() -> bool:
        assert credentials is not None
        try:
            async with transaction(parts.sessions) as session:
                now_, _ = await identify(session, parts.access.tokens, credentials.credentials, now=parts.clock())
        except NotLoggedIn:
            return False
        return now_.same_power(who)

    return ask


@router.get(
    "/alarms/stream",
    response_class=EventSourceResponse,
    responses=responses(401, 403, 422, 503),
    dependencies=[needs(Right.ALARMS_READ)],
    summary="The alarm feed",
)
async def stream(
    who: PrincipalDep,
    after: Annotated[int, Depends(_start)],
    feed: Annotated[Feed, Depends(_feed)],
    still_may: Annotated[StillMay, Depends(_still_may)],
) -> AsyncIterator[ServerSentEvent]:
    """Committed facts within your scope, as they happen. `id:` is a growing number; connect again with
    `Last-Event-ID` and nothing is missed. Without it the stream begins now. It ends within seconds when the token
    expires or is revoked, or the account is changed: get a new token and connect again."""
    yield ServerSentEvent(comment="connected", id=str(after), retry=1000)
    async for seq, type_, data in feed.watch(after=after, who=who, still_may=still_may):
        yield ServerSentEvent(id=str(seq), event=type_, data=data)
    yield ServerSentEvent(comment="ended: the server stops, or the token or key is no longer good; connect again")
