"""The outbox: planned in the transaction of the cause, claimed with a lease, recorded after sending."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.ids import NoticeId, new_uuid
from app.notify.channel import GiveUp, Outcome, Sent, TryAgain
from app.notify.vocabulary import ASKING, ChannelKind, Purpose, RecipientType
from app.signals import Signal, signal_sql

LEASE = timedelta(seconds=30)  # longer than any channel's own timeouts
MAX_ATTEMPTS = 8
_BACKOFF_S = (0.5, 1, 2, 4, 8, 16, 30)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody to tell, on one channel."""

    type: RecipientType
    id: str
    name: str
    role: str
    channel: ChannelKind
    channel_id: UUID | None


@dataclass(frozen=True, slots=True)
class Planned:
    alarm_id: UUID
    purpose: Purpose
    round: int
    reason: str
    recipient: Recipient


@dataclass(frozen=True, slots=True)
class Claim:
    """A notice this worker holds until its lease ends. `attempt` is the fence: a later holder has a higher one."""

    id: NoticeId
    alarm_id: UUID
    attempt: int
    channel: ChannelKind
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Result:
    claim: Claim
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Settled:
    """A notice after its result was written."""

    claim: Claim
    outcome: Outcome
    state: str
    created_at: datetime


_PLAN = sa.text(
    f"""
    WITH planned AS (
    INSERT INTO notices (id, alarm_id, purpose, round, reason, recipient_type, recipient_id, recipient_name,
                         recipient_role, channel, channel_id, state, attempts, created_at, due_at)
    SELECT id, alarm_id, purpose, round, reason, recipient_type, recipient_id, recipient_name, recipient_role,
           channel, channel_id, 'pending', 0, :now, :now
    FROM unnest(CAST(:id AS uuid[]), CAST(:alarm_id AS uuid[]), CAST(:purpose AS text[]), CAST(:round AS int[]),
                CAST(:reason AS text[]), CAST(:recipient_type AS text[]), CAST(:recipient_id AS text[]),
                CAST(:recipient_name AS text[]), CAST(:recipient_role AS text[]), CAST(:channel AS text[]),
                CAST(:channel_id AS uuid[]))
         AS planned(id, alarm_id, purpose, round, reason, recipient_type, recipient_id, recipient_name,
                    recipient_role, channel, channel_id)
    ON CONFLICT DO NOTHING
    )
    SELECT {signal_sql(Signal.OUTBOX)}
    """  # noqa: S608 - constants
)


async def plan(session: AsyncSession, notices: Sequence[Planned], *, now: datetime) -> None:
    """Write notices to send; a recipient already told in this round on this channel is not told twice."""
    if not notices:
        return
    await session.execute(
        _PLAN,
        {
            "now": now,
            "id": [new_uuid(now) for _ in notices],
            "alarm_id": [n.alarm_id for n in notices],
            "purpose": [n.purpose.value for n in notices],
            "round": [n.round for n in notices],
            "reason": [n.reason for n in notices],
            "recipient_type": [n.recipient.type.value for n in notices],
            "recipient_id": [n.recipient.id for n in notices],
            "recipient_name": [n.recipient.name for n in notices],
            "recipient_role": [n.recipient.role for n in notices],
            "channel": [n.recipient.channel.value for n in notices],
            "channel_id": [n.recipient.channel_id for n in notices],
        },
    )


async def cancel_waiting(session: AsyncSession, alarm_id: UUID, purposes: frozenset[Purpose]) -> int:
    """Notices of these purposes that did not go out yet are no longer needed. Returns how many."""
    done = await session.execute(
        sa.text(
            "UPDATE notices SET state = 'cancelled' WHERE alarm_id = :alarm_id AND state = 'pending' "
            "AND purpose = ANY(CAST(:purposes AS text[]))"
        ),
        {"alarm_id": alarm_id, "purposes": [p.value for p in purposes]},
    )
    return int(done.rowcount)  # type: ignore[attr-defined]


# A worker that died leaves «sending» behind; after its lease anybody may take it: at least once, with the same id.
# ARRAY(…) is evaluated once; the planner may run `IN (SELECT … LIMIT)` again for every row of the outbox.
_CLAIM = sa.text(
    """
    UPDATE notices SET state = 'sending', attempts = attempts + 1, due_at = :lease_until
    WHERE id = ANY(ARRAY(SELECT id FROM notices WHERE state IN ('pending', 'sending') AND due_at <= :now
                         ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING id, alarm_id, attempts, channel, purpose
    """
)


async def claim(session: AsyncSession, *, limit: int, now: datetime) -> list[Claim]:
    """Take up to `limit` due notices for this worker alone, for the length of a lease."""
    rows = await session.execute(_CLAIM, {"now": now, "lease_until": now + LEASE, "limit": limit})
    return [Claim(NoticeId(r.id), r.alarm_id, r.attempts, ChannelKind(r.channel), Purpose(r.purpose)) for r in rows]


async def next_due(session: AsyncSession) -> datetime | None:
    """When the next notice waits to be taken."""
    moment: datetime | None = await session.scalar(
        sa.text("SELECT min(due_at) FROM notices WHERE state IN ('pending', 'sending')")
    )
    return moment


# The fence (`attempts`) keeps a worker whose lease ran out from writing over its successor. A notice that asks somebody
# to come is not tried again once the alarm was answered.
_RECORD = sa.text(
    """
    UPDATE notices AS n
    SET state = CASE WHEN r.state = 'pending' AND a.state <> 'open' AND n.purpose = ANY(CAST(:asking AS text[]))
                     THEN 'cancelled' ELSE r.state END,
        due_at = r.due_at, sent_at = r.sent_at, provider_id = r.provider_id, error = r.error
    FROM unnest(CAST(:id AS uuid[]), CAST(:attempt AS int[]), CAST(:state AS text[]), CAST(:due_at AS timestamptz[]),
                CAST(:sent_at AS timestamptz[]), CAST(:provider_id AS text[]), CAST(:error AS text[]))
         AS r(id, attempt, state, due_at, sent_at, provider_id, error),
         alarms a
    WHERE n.id = r.id AND n.attempts = r.attempt AND n.state = 'sending' AND a.id = n.alarm_id
    RETURNING n.id, n.state, n.created_at
    """
)


async def record(session: AsyncSession, results: Sequence[Result], *, now: datetime) -> list[Settled]:
    """Write what became of claimed notices."""
    columns = [_as_row(result, now) for result in sorted(results, key=lambda r: r.claim.id)]
    state, due_at, sent_at, provider_id, error = (list(column) for column in zip(*columns, strict=True))
    ordered = sorted(results, key=lambda r: r.claim.id)
    rows = await session.execute(
        _RECORD,
        {
            "id": [r.claim.id for r in ordered],
            "attempt": [r.claim.attempt for r in ordered],
            "state": state,
            "due_at": due_at,
            "sent_at": sent_at,
            "provider_id": provider_id,
            "error": error,
            "asking": [p.value for p in ASKING],
        },
    )
    by_id = {r.claim.id: r for r in ordered}
    return [
        Settled(by_id[NoticeId(row.id)].claim, by_id[NoticeId(row.id)].outcome, row.state, row.created_at)
        for row in rows
    ]


def _as_row(result: Result, now: datetime) -> tuple[str, datetime, datetime | None, str | None, str | None]:
    match result.outcome:
        case Sent(provider_id=provider_id, delivered=delivered):
            return "delivered" if delivered else "sent", now, now, provider_id, None
        case GiveUp(why=why):
            return "failed", now, None, None, why[:500]
        case TryAgain(why=why) if result.claim.attempt >= MAX_ATTEMPTS:
            return "failed", now, None, None, f"{why[:400]} (after {result.claim.attempt} attempts)"
        case TryAgain(why=why, after_s=after_s):
            return "pending", now + backoff(result.claim.attempt, after_s), None, None, why[:500]


def backoff(attempt: int, asked_s: float | None) -> timedelta:
    """How long to wait after the given attempt: growing, with jitter, at least what the other side asked for."""
    base = _BACKOFF_S[min(attempt, len(_BACKOFF_S)) - 1]
    jittered = base * (0.75 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing
    return timedelta(seconds=max(jittered, asked_s or 0.0))
