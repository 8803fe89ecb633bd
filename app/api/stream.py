"""The alarm feed as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.access.principal import Principal, principal_of
from app.api.context import PartsDep, _bearer
from app.api.problems import responses
from app.db import transaction
from app.errors import InvalidInput, NotLoggedIn
from app.feed import Feed

router = APIRouter(tags=["alarms"])
_LARGEST = 2**63 - 1


async def _watcher(
    request: Request, parts: PartsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Like any other caller, but without a session that would stay open as long as the stream."""
    if credentials is None:
        raise NotLoggedIn("send Authorization: Bearer <access_token> from POST /api/v1/auth/token")
    async with transaction(parts.sessions) as session:
        return await principal_of(session, credentials.credentials, key=parts.token_key, now=parts.clock())


async def _start(
    parts: PartsDep,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=40, description="The last `id:` you saw; 0 = from the start."),
    ] = None,
) -> int:
    if last_event_id is None or last_event_id == "":
        return await parts.feed.newest()
    if not last_event_id.isascii() or not last_event_id.isdigit() or int(last_event_id) > _LARGEST:
        raise InvalidInput("Last-Event-ID must be the number of an event's `id:`")
    return int(last_event_id)


def _feed(parts: PartsDep) -> Feed:
    return parts.feed


@router.get(
    "/alarms/stream",
    response_class=EventSourceResponse,
    responses=responses(401, 422, 503),
    summary="The alarm feed",
)
async def stream(
    who: Annotated[Principal, Depends(_watcher)],
    after: Annotated[int, Depends(_start)],
    feed: Annotated[Feed, Depends(_feed)],
) -> AsyncIterator[ServerSentEvent]:
    """Committed facts within your scope, as they happen. `id:` is a growing number; connect again with
    `Last-Event-ID` and nothing is missed. Without it the stream begins now."""
    yield ServerSentEvent(comment="connected", id=str(after), retry=1000)
    async for seq, type_, data in feed.watch(after=after, scope=who.region_code):
        yield ServerSentEvent(id=str(seq), event=type_, data=data)
