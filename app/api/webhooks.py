"""Front ends subscribe to events: where to, which, with which secret; and what became of each message."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from app.access import audit
from app.access.principal import Principal
from app.api import pages
from app.api.bodies import Body, Moment, Scope, Short, etag, example, explicit, if_match
from app.api.context import NowDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.errors import InvalidInput
from app.notify.channels._addresses import LONGEST_URL
from app.webhooks import addresses, queue, subscriptions
from app.webhooks.owners import RIGHT
from app.webhooks.tables import Delivery, Subscription
from app.webhooks.vocabulary import (
    KINDS,
    PAUSE_WORDS,
    TEST,
    DeliveryState,
    EventType,
    OwnerType,
    PauseReason,
)

router = APIRouter(route_class=Transactional, tags=["outside"], dependencies=[Depends(idempotent)])
_LONGEST_OVERLAP_S = 30 * 86_400


Version = Annotated[int | None, Depends(if_match)]
Address = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_URL), Field(examples=["https://front.example.org/shouwang"])
]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=len(EventType) * 2)]
# What a line of the log may be about: every event, and the test.
Logged = StrEnum("Logged", {event.name: event.value for event in EventType} | {"TEST": TEST})  # type: ignore[misc]


class WebhookIn(Body):
    model_config = example(
        url="https://front.example.org/shouwang", event_types=["alarm.raised", "alarm.resolved"],
        region_code="370302001", description="街道值班大屏",
    )  # fmt: skip
    url: Address
    event_types: EventTypes | None = Field(default=None, description="All of them when absent, later ones too.")
    region_code: Scope | None = Field(default=None, description="Whose events; your own region when absent.")
    description: Short | None = None


class WebhookChange(Body):
    model_config = example(event_types=None, active=True)
    url: Address | None = None
    event_types: EventTypes | None = Field(default=None, description="null: all of them.")
    description: Short | None = None
    active: bool | None = Field(
        default=None, description="false pauses it; true sends again, and makes you its owner if it was paused."
    )


class RotateIn(Body):
    model_config = example(overlap_s=86_400)
    overlap_s: int | None = Field(
        default=None, ge=0, le=_LONGEST_OVERLAP_S,
        description="How long the old secret signs beside the new one; 0 ends it now. A day when absent.",
    )  # fmt: skip


class Owner(BaseModel):
    type: OwnerType
    id: UUID
    name: str


class WebhookOut(BaseModel):
    id: UUID
    url: str
    event_types: list[str] | None = Field(description="null: all of them.")
    region_code: str
    description: str | None
    active: bool
    paused_at: datetime | None
    paused_reason: PauseReason | None
    paused_because: str | None = Field(description="The reason in a sentence.")
    failing_since: datetime | None = Field(description="Nothing could be delivered since then.")
    owner: Owner = Field(description="Messages go out only while it is active and has this region.")
    previous_secret_until: datetime | None = Field(
        description="Until then the secret before the last rotation signs too."
    )
    created_at: datetime


class WebhookMade(WebhookOut):
    secret: str = Field(repr=False, description="Shown once.", examples=["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"])


class SecretOut(BaseModel):
    id: UUID
    secret: str = Field(repr=False, description="Shown once.", examples=["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"])
    previous_secret_until: datetime | None


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


# --- subscriptions ---------------------------------------------------------------------------------------------------


@router.get("/webhooks", dependencies=[needs(RIGHT)], summary="Subscriptions within your scope, newest first")
async def webhooks(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    active: bool | None = None,
) -> pages.Page[WebhookOut]:
    before = pages.decode(cursor, UUID)
    rows = await subscriptions.page(session, who, before=before[0] if before else None, limit=limit, active=active)
    return pages.Page[WebhookOut].model_validate(pages.page(rows, limit, lambda row: _shape(row, parts), "id"))


@router.post("/webhooks", dependencies=[needs(RIGHT)], status_code=201, responses=responses(409), summary="Subscribe")
async def add_webhook(
    body: WebhookIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> WebhookMade:
    """Events from now on, of elders who live in the region when the message goes out. The secret signs each message as
    Standard Webhooks describes; it is shown here and never again. See `webhooks` in this document for what is sent."""
    url = await addresses.check(body.url, allow_private=parts.terms.allow_private, resolver=parts.terms.resolver)
    made, secret = await subscriptions.create(
        session, who, url=url, event_types=body.event_types, region_code=body.region_code,
        description=body.description, sealer=parts.sealer, now=now,
    )  # fmt: skip
    _note(session, who, made, "webhook.created", now, event_types=made.event_types)
    response.headers.update(etag(made.version))
    return WebhookMade.model_validate({**_shape(made, parts), "secret": secret})


@router.get("/webhooks/{webhook_id}", dependencies=[needs(RIGHT)], responses=responses(404), summary="One subscription")
async def webhook(
    webhook_id: UUID, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep
) -> WebhookOut:
    found = await subscriptions.find(session, who, webhook_id)
    response.headers.update(etag(found.version))
    return WebhookOut.model_validate(_shape(found, parts))


@router.patch(
    "/webhooks/{webhook_id}",
    dependencies=[needs(RIGHT)],
    responses=responses(404, 412),
    summary="Change, pause or wake a subscription",
)
async def change_webhook(
    webhook_id: UUID,
    body: WebhookChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Version = None,
) -> WebhookOut:
    """`active: true` sends again from now on; what was held meanwhile is sent by `resend-failed`."""
    fields = explicit(body)
    for name in ("url", "active"):
        if name in fields and fields[name] is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    url = None
    if body.url is not None:
        url = await addresses.check(body.url, allow_private=parts.terms.allow_private, resolver=parts.terms.resolver)
    found = await subscriptions.find(session, who, webhook_id, lock=True)
    subscriptions.must_be_version(found, version)
    if url is not None:
        found.url_sealed = parts.sealer.seal(url, record=found.id)
    if "event_types" in fields:
        found.event_types = subscriptions.wanted(body.event_types)
    if "description" in fields:
        found.description = body.description
    found.version += 1
    if body.active is True:
        subscriptions.activate(found, who)
    elif body.active is False:
        await subscriptions.rest(session, found, now=now)
    await session.flush()
    _note(session, who, found, "webhook.changed", now, fields=sorted(fields))
    response.headers.update(etag(found.version))
    return WebhookOut.model_validate(_shape(found, parts))


@router.delete(
    "/webhooks/{webhook_id}",
    dependencies=[needs(RIGHT)],
    status_code=204,
    responses=responses(404),
    summary="Unsubscribe",
)
async def remove_webhook(webhook_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """The subscription goes, with its log. A message that is on its way may still arrive."""
    found = await subscriptions.find(session, who, webhook_id, lock=True)
    _note(session, who, found, "webhook.deleted", now)
    await session.delete(found)


@router.post(
    "/webhooks/{webhook_id}/rotate-secret",
    dependencies=[needs(RIGHT)],
    responses=responses(404),
    summary="Give it a new secret",
)
async def rotate_secret(
    webhook_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    body: RotateIn | None = None,
) -> SecretOut:
    """For a while each message carries two signatures, one of each secret, so that the receiver can change over without
    losing any. Rotating again within that time drops the oldest."""
    overlap = parts.terms.secret_overlap
    if body is not None and body.overlap_s is not None:
        overlap = timedelta(seconds=body.overlap_s)
    found = await subscriptions.find(session, who, webhook_id, lock=True)
    secret = await subscriptions.rotate(session, found, overlap=overlap, sealer=parts.sealer, now=now)
    _note(session, who, found, "webhook.secret_rotated", now, overlap_s=int(overlap.total_seconds()))
    return SecretOut(id=found.id, secret=secret, previous_secret_until=found.previous_secret_until)


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
    _note(session, who, found, "webhook.resent", now, messages=count)
    return Queued(queued=count)


# --- the log ---------------------------------------------------------------------------------------------------------


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
    _note(session, who, found, "webhook.resent", now, messages=1)
    return DeliveryOut.model_validate(_line(line, parts))


# --- shapes ----------------------------------------------------------------------------------------------------------


def _shape(row: Subscription, parts: Parts) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": parts.sealer.open(row.url_sealed, record=row.id),
        "event_types": row.event_types,
        "region_code": row.region_code,
        "description": row.description,
        "active": row.paused_at is None,
        "paused_at": parts.shapes.time(row.paused_at),
        "paused_reason": row.paused_reason,
        "paused_because": PAUSE_WORDS[row.paused_reason] if row.paused_reason else None,
        "failing_since": parts.shapes.time(row.failing_since),
        "owner": {"type": row.owner_type, "id": row.owner_id, "name": row.owner_name},
        "previous_secret_until": parts.shapes.time(row.previous_secret_until),
        "created_at": parts.shapes.time(row.created_at),
    }


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


def _note(session: SessionDep, who: Principal, row: Subscription, action: str, now: datetime, **detail: Any) -> None:
    """Neither the address nor the secret enters the audit log."""
    audit.note(
        session, who, action=action, subject_type="webhook", subject_id=row.id, now=now, region_code=row.region_code,
        **detail,
    )  # fmt: skip


# --- what is sent, for the OpenAPI document --------------------------------------------------------------------------

_HEADERS = [
    {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
    for name, text in (
        ("webhook-id", "The delivery's id: the same on every attempt and when it is sent again."),
        ("webhook-timestamp", "Seconds since the epoch, of this attempt."),
        ("webhook-signature", "Standard Webhooks; two signatures with a space between while a secret is changed over."),
    )
]
_RULES = """Sent to each subscription of `/webhooks` that wants it. Answer 2xx within 10 s. 410 pauses the subscription;
everything else, redirects too, is tried again for a day. At least once: tell repeats by `webhook-id`. In order as far as
nothing has to be tried again: `timestamp` is the event's time, `data` is as it stands when the message goes out."""


def described() -> dict[str, Any]:
    """The `webhooks` of the OpenAPI document: one for each event type, and the test."""
    alarm = {
        "type": "object",
        "required": ["alarm", "detail"],
        "properties": {
            "alarm": {"$ref": "#/components/schemas/AlarmOut"},
            "detail": {"type": "object", "description": "What the feed says of this event beside the alarm."},
        },
    }
    test = {
        "type": "object",
        "required": ["webhook_id"],
        "properties": {
            "webhook_id": {"type": "string", "format": "uuid"},
            "description": {"type": ["string", "null"]},
        },
    }
    found = {event.value: _described(event.value, kind.says, alarm) for event, kind in KINDS.items()}
    return {**found, TEST: _described(TEST, "Somebody tries out the receiver.", test)}


def _described(type_: str, says: str, data: dict[str, Any]) -> dict[str, Any]:
    payload = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": type_},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": data,
        },
    }
    operation = {
        "summary": says,
        "description": _RULES,
        "parameters": _HEADERS,
        "requestBody": {"content": {"application/json": {"schema": payload}}},
        "responses": {"2XX": {"description": "Taken."}, "410": {"description": "Send nothing more."}},
    }
    return {"post": operation}
