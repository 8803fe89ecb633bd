"""What became of each message to a front end, and sending it again."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from app.api import pages
from app.api.bodies import Moment
from app.api.context import NowDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.api.webhooks import note
from app.webhooks import queue, subscriptions
from app.webhooks.owners import RIGHT
from app.webhooks.tables import Delivery
from app.webhooks.vocabulary import TEST, DeliveryState, EventType

router = APIRouter(route_class=Transactional, tags=["outside"], dependencies=[Depends(idempotent)])
# What a line of the log may be about: every event, and the test.
Logged = StrEnum("Logged", {event.name: event.value for event in EventType} | {"TEST": TEST})  # type: ignore[misc]


class DeliveryOut(BaseModel):
    id: UUID = Field(description="The `webhook-id` of every attempt.")
    webhook_id: UUID
    event_type: str
    occurred_at: datetime
    alarm_id: UUID | None
    state: DeliveryState
    attempts: int
    http_status: int | None = Field(description="What the receiver answered last.")
    error: str | None
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None


class DeliveryDetail(DeliveryOut):
    payload: dict[str, Any] | None = Field(
        description="What would be sent now; null when the event no longer concerns the subscription's region."
    )


class Queued(BaseModel):
    queued: int


@router.post(
    "/webhooks/{webhook_id}/test",
    dependencies=[needs(RIGHT)],
    status_code=202,
    responses=responses(404),
    summary="Send a test message",
)
async def test_webhook(
    webhook_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> DeliveryOut:
    """One message of type `webhook.test`, tried once; `GET …/deliveries/{id}` says a moment later how it went."""
    found = await subscriptions.find_active(session, who, webhook_id)
    return DeliveryOut.model_validate(_line(await subscriptions.ask_test(session, found, now=now), parts))


@router.post(
    "/webhooks/{webhook_id}/resend-failed",
    dependencies=[needs(RIGHT)],
    status_code=202,
    responses=responses(404),
    summary="Send again what failed",
)
async def resend_failed(
    webhook_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    now: NowDep,
    since: Annotated[
        Moment | None, Query(description="Only events since then.", examples=["2026-11-23T08:00:00+08:00"])
    ] = None,
) -> Queued:
    """Everything that failed, or was held while the subscription was paused, with the same `webhook-id` as before."""
    found = await subscriptions.find_active(session, who, webhook_id)
    count = await queue.send_failed_again(session, found.id, since=since, now=now)
    note(session, who, found, "webhook.resent", now, messages=count)
    return Queued(queued=count)


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    dependencies=[needs(RIGHT)],
    responses=responses(404),
    summary="What became of each message",
)
async def deliveries(
    webhook_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    state: DeliveryState | None = None,
    event_type: Logged | None = None,
) -> pages.Page[DeliveryOut]:
    """Newest first, for as long as the log is kept."""
    found = await subscriptions.find(session, who, webhook_id)
    before = pages.decode(cursor, UUID)
    rows = await subscriptions.log_page(
        session, found, before=before[0] if before else None, limit=limit, state=state,
        event_type=event_type.value if event_type else None,
    )  # fmt: skip
    return pages.Page[DeliveryOut].model_validate(pages.page(rows, limit, lambda row: _line(row, parts), "id"))


@router.get(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}",
    dependencies=[needs(RIGHT)],
    responses=responses(404),
    summary="One message",
)
async def delivery(
    webhook_id: UUID, delivery_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> DeliveryDetail:
    found = await subscriptions.find(session, who, webhook_id)
    line = await subscriptions.delivery(session, found, delivery_id)
    payload = await parts.composer.preview(session, line.id, now=now)
    return DeliveryDetail.model_validate({**_line(line, parts), "payload": payload})


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/resend",
    dependencies=[needs(RIGHT)],
    status_code=202,
    responses=responses(404),
    summary="Send one message again",
)
async def resend(
    webhook_id: UUID, delivery_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> DeliveryOut:
    """Now, whatever became of it before. It is the same message: it keeps its `webhook-id`, so a receiver that has it
    already can tell."""
    found = await subscriptions.find_active(session, who, webhook_id)
    line = await subscriptions.delivery(session, found, delivery_id)
    await queue.send_again(session, line.id, now=now)
    await session.refresh(line)
    note(session, who, found, "webhook.resent", now, messages=1)
    return DeliveryOut.model_validate(_line(line, parts))


def _line(row: Delivery, parts: Parts) -> dict[str, Any]:
    waits = row.state is DeliveryState.PENDING
    return {
        "id": row.id,
        "webhook_id": row.subscription_id,
        "event_type": row.event_type,
        "occurred_at": parts.shapes.time(row.occurred_at),
        "alarm_id": row.alarm_id,
        "state": row.state,
        "attempts": row.attempts,
        "http_status": row.http_status,
        "error": row.error,
        "created_at": parts.shapes.time(row.created_at),
        "last_attempt_at": parts.shapes.time(row.last_attempt_at),
        "next_attempt_at": parts.shapes.time(row.due_at) if waits else None,
        "delivered_at": parts.shapes.time(row.delivered_at),
    }
