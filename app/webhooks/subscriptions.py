"""Subscriptions: made, found within a scope, changed, given a new secret. What is shown once is returned once."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal, normal_scope, within
from app.access.sealing import Sealer
from app.access.wall import beyond
from app.elders.tables import Region
from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch
from app.ids import new_uuid
from app.webhooks import queue
from app.webhooks.tables import Delivery, Subscription
from app.webhooks.vocabulary import TEST, DeliveryState, EventType, OwnerType, PauseReason

MOST_EACH = 100  # of one owner
_SECRET_BYTES = 24


def new_secret() -> str:
    """As Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


async def create(
    session: AsyncSession,
    who: Principal,
    *,
    url: str,
    event_types: Sequence[EventType] | None,
    region_code: str | None,
    description: str | None,
    sealer: Sealer,
    now: datetime,
) -> tuple[Subscription, str]:
    """A subscription to what happens from now on, and its secret. `url` was checked.

    Raises `InvalidInput` for a region that is unknown or not the maker's, and `Conflict` for one too many.
    """
    scope = await _scope(session, who, region_code)
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:owner, 0))"), {"owner": str(who.id)})
    count = select(sa.func.count()).select_from(Subscription).where(col(Subscription.owner_id) == who.id)
    if (await session.scalar(count) or 0) >= MOST_EACH:
        raise Conflict(f"one account has at most {MOST_EACH} subscriptions; delete one that is not needed")
    async with beyond(session, "the feed's number is the same for all"):
        newest = int(await session.scalar(sa.text("SELECT coalesce(max(seq), 0) FROM feed_events")) or 0)
    made_id, secret = new_uuid(now), new_secret()
    made = Subscription(
        id=made_id,
        region_code=scope,
        url_sealed=sealer.seal(url, record=made_id),
        description=description,
        event_types=wanted(event_types),
        secret_sealed=sealer.seal(secret, record=made_id),
        since_seq=newest,
        created_at=now,
        owner_type=_owner_type(who),
        owner_id=who.id,
        owner_name=_owner_name(who),
    )
    session.add(made)
    await session.flush()
    return made, secret


async def _scope(session: AsyncSession, who: Principal, region_code: str | None) -> str:
    scope = who.region_code if region_code is None else normal_scope(region_code)
    if not who.sees(scope) or (scope and await session.get(Region, scope.ljust(12, "0")) is None):
        raise InvalidInput("no such region within your own", field="region_code")
    return scope


def wanted(event_types: Sequence[EventType] | None) -> list[str] | None:
    return None if event_types is None else list(dict.fromkeys(event.value for event in event_types))


def _owner_type(who: Principal) -> OwnerType:
    return OwnerType(who.who()["type"])


def _owner_name(who: Principal) -> str:
    return str(who.who()["name"])[:100]


async def page(
    session: AsyncSession, who: Principal, *, before: UUID | None, limit: int, active: bool | None
) -> Sequence[Subscription]:
    """Newest first, one more than `limit` when there are more."""
    query = select(Subscription).where(within(who, col(Subscription.region_code)))
    if active is not None:
        paused = col(Subscription.paused_at).is_not(None)
        query = query.where(~paused if active else paused)
    if before is not None:
        query = query.where(col(Subscription.id) < before)
    return (await session.execute(query.order_by(col(Subscription.id).desc()).limit(limit + 1))).scalars().all()


async def find(session: AsyncSession, who: Principal, id_: UUID, *, lock: bool = False) -> Subscription:
    """Raises `NotFound` for one that is absent or of a foreign region: alike."""
    query = select(Subscription).where(col(Subscription.id) == id_, within(who, col(Subscription.region_code)))
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such webhook")
    return found


async def find_active(session: AsyncSession, who: Principal, id_: UUID) -> Subscription:
    """One to which something can be sent, held. Raises `Conflict` for one that is paused."""
    found = await find(session, who, id_, lock=True)
    if found.paused_at is not None:
        raise Conflict("the webhook is paused; set `active` to true first")
    return found


def must_be_version(found: Subscription, version: int | None) -> None:
    if version is not None and version != found.version:
        raise VersionMismatch("the webhook changed since you read it; read it again")


def activate(found: Subscription, who: Principal) -> None:
    """Send to it again, from now on; what was held waits to be asked for. Whoever does it answers for it: owns it."""
    if found.paused_at is None:
        return
    found.paused_at = found.paused_reason = found.failing_since = None
    found.failures = 0
    found.owner_type, found.owner_id, found.owner_name = _owner_type(who), who.id, _owner_name(who)


async def rest(session: AsyncSession, found: Subscription, *, now: datetime) -> None:
    """Somebody pauses it: events are held."""
    await session.flush()
    await queue.pause(session, [found.id], PauseReason.BY_HAND, now=now)
    await session.refresh(found)


async def rotate(
    session: AsyncSession, found: Subscription, *, overlap: timedelta, sealer: Sealer, now: datetime
) -> str:
    """A new secret; until `overlap` has passed messages carry the signatures of both."""
    secret = new_secret()
    if overlap:
        found.previous_secret_sealed, found.previous_secret_until = found.secret_sealed, now + overlap
    else:
        found.previous_secret_sealed = found.previous_secret_until = None
    found.secret_sealed = sealer.seal(secret, record=found.id)
    found.version += 1
    await session.flush()
    return secret


async def ask_test(session: AsyncSession, found: Subscription, *, now: datetime) -> Delivery:
    """A message that says nothing, for somebody who is trying out the receiver."""
    made = Delivery(
        id=new_uuid(now), subscription_id=found.id, event_type=TEST, occurred_at=now, state=DeliveryState.PENDING,
        created_at=now, due_at=now,
    )  # fmt: skip
    session.add(made)
    await session.flush()
    await queue.wake(session)
    return made


# --- the log ---------------------------------------------------------------------------------------------------------


async def log_page(
    session: AsyncSession,
    found: Subscription,
    *,
    before: UUID | None,
    limit: int,
    state: DeliveryState | None,
    event_type: str | None,
) -> Sequence[Delivery]:
    """Newest first, one more than `limit` when there are more."""
    query = select(Delivery).where(col(Delivery.subscription_id) == found.id)
    if state is not None:
        query = query.where(col(Delivery.state) == state)
    if event_type is not None:
        query = query.where(col(Delivery.event_type) == event_type)
    if before is not None:
        query = query.where(col(Delivery.id) < before)
    return (await session.execute(query.order_by(col(Delivery.id).desc()).limit(limit + 1))).scalars().all()


async def delivery(session: AsyncSession, found: Subscription, id_: UUID) -> Delivery:
    """One line of this subscription's log. Raises `NotFound`."""
    query = select(Delivery).where(col(Delivery.id) == id_, col(Delivery.subscription_id) == found.id)
    line = (await session.execute(query)).scalar_one_or_none()
    if line is None:
        raise NotFound("no such delivery")
    return line
