"""Front ends subscribe to events: where to, which, with which secret. What became of each message: `webhook_log`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, StringConstraints

from app.access import audit
from app.access.principal import Principal
from app.api import pages
from app.api.bodies import Body, Scope, Short, etag, example, explicit, if_match
from app.api.context import NowDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.errors import InvalidInput
from app.notify.channels._addresses import LONGEST_URL
from app.webhooks import addresses, subscriptions
from app.webhooks.owners import RIGHT
from app.webhooks.tables import Subscription
from app.webhooks.vocabulary import PAUSE_WORDS, EventType, OwnerType, PauseReason

router = APIRouter(route_class=Transactional, tags=["outside"], dependencies=[Depends(idempotent)])
_LONGEST_OVERLAP_S = 30 * 86_400


Version = Annotated[int | None, Depends(if_match)]
Address = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_URL), Field(examples=["https://front.example.org/shouwang"])
]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=len(EventType) * 2)]


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
    note(session, who, made, "webhook.created", now, event_types=made.event_types)
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
    note(session, who, found, "webhook.changed", now, fields=sorted(fields))
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
    note(session, who, found, "webhook.deleted", now)
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
    note(session, who, found, "webhook.secret_rotated", now, overlap_s=int(overlap.total_seconds()))
    return SecretOut(id=found.id, secret=secret, previous_secret_until=found.previous_secret_until)


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


def note(session: SessionDep, who: Principal, row: Subscription, action: str, now: datetime, **detail: Any) -> None:
    """Neither the address nor the secret enters the audit log."""
    audit.note(
        session, who, action=action, subject_type="webhook", subject_id=row.id, now=now, region_code=row.region_code,
        **detail,
    )  # fmt: skip
