"""The outbox: planned in the transaction of the cause, claimed with a lease, recorded after sending."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

import sqlalchemy as sa

from app.db import Hands
from app.ids import NoticeId, new_uuid
from app.lanes import Lane
from app.notify.channel import GiveUp, Outcome, Sent, TryAgain
from app.notify.vocabulary import ASKING, ChannelKind, Purpose, RecipientType
from app.signals import Signal, signal_sql

LEASE = timedelta(seconds=30)  # longer than any channel's own timeouts
MAX_ATTEMPTS = 8
NOBODY = GiveUp("the recipient no longer has this channel")
OUTSIDE = GiveUp("the recipient is no longer of this person's circle")
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


class Claimed(Protocol):
    """What the dispatcher needs to know of anything it sends."""

    @property
    def id(self) -> NoticeId: ...
    @property
    def attempt(self) -> int: ...
    @property
    def channel(self) -> ChannelKind: ...


C = TypeVar("C", bound=Claimed)


@dataclass(frozen=True, slots=True)
class Result(Generic[C]):
    claim: C
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Settled:
    """A notice after its result was written."""

    claim: Claim
    outcome: Outcome
    state: str
    created_at: datetime
    row: Any  # what the alarm's side needs: recipient, reason, error, region, whether it was the first word


_PLAN = sa.text(
    f"""
    WITH planned AS (
    INSERT INTO notices (id, alarm_id, purpose, round, reason, recipient_type, recipient_id, recipient_name,
                         recipient_role, channel, channel_id, state, attempts, created_at, due_at, sent_at)
    SELECT id, alarm_id, purpose, round, reason, recipient_type, recipient_id, recipient_name, recipient_role,
           channel, channel_id, state, 0, :now, :now, CASE state WHEN 'sent' THEN CAST(:now AS timestamptz) END
    FROM unnest(CAST(:id AS uuid[]), CAST(:alarm_id AS uuid[]), CAST(:purpose AS text[]), CAST(:round AS int[]),
                CAST(:reason AS text[]), CAST(:recipient_type AS text[]), CAST(:recipient_id AS text[]),
                CAST(:recipient_name AS text[]), CAST(:recipient_role AS text[]), CAST(:channel AS text[]),
                CAST(:channel_id AS uuid[]), CAST(:state AS text[]))
         AS planned(id, alarm_id, purpose, round, reason, recipient_type, recipient_id, recipient_name,
                    recipient_role, channel, channel_id, state)
    ON CONFLICT DO NOTHING
    )
    SELECT {signal_sql(Signal.OUTBOX)}
    """  # noqa: S608 - constants
)


async def plan(session: Hands, notices: Sequence[Planned], *, now: datetime) -> None:
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
            # The duty desk watches the feed: the fact of this very commit tells it.
            "state": ["sent" if n.recipient.type is RecipientType.OPERATORS else "pending" for n in notices],
        },
    )


async def cancel_waiting(session: Hands, alarm_id: UUID, purposes: frozenset[Purpose]) -> int:
    """Notices of these purposes that did not go out yet are no longer needed. Returns how many."""
    done = await session.execute(
        sa.text(
            "UPDATE notices SET state = 'cancelled' WHERE alarm_id = :alarm_id AND state = 'pending' "
            "AND purpose = ANY(CAST(:purposes AS text[])) RETURNING id"
        ),
        {"alarm_id": alarm_id, "purposes": [p.value for p in purposes]},
    )
    return len(done.all())


# A worker that died leaves «sending» behind; after its lease anybody may take it: at least once, with the same id.
# ARRAY(…) is evaluated once; the planner may run `IN (SELECT … LIMIT)` again for every row of the outbox.
_CLAIM = """
    UPDATE notices SET state = 'sending', attempts = attempts + 1, due_at = :lease_until
    WHERE id = ANY(ARRAY(SELECT id FROM notices WHERE state IN ('pending', 'sending') AND due_at <= :now
                         ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING *
"""


def claiming(reading: str) -> sa.TextClause:
    """A statement that takes up to `:limit` due notices for one worker alone until `:lease_until`, and reads with
    `reading` (a SELECT from `claimed`) what a letter needs: one way to the database and back."""
    return sa.text(f"WITH claimed AS ({_CLAIM}) {reading}")


def lease(now: datetime, limit: int) -> dict[str, object]:
    """The parameters of a claim."""
    return {"now": now, "lease_until": now + LEASE, "limit": limit}


def claim_of(row: Any) -> Claim:
    """The claim of a row of `claimed`."""
    return Claim(
        NoticeId(row["notice_id"]),
        row["alarm_id"],
        row["attempts"],
        ChannelKind(row["channel"]),
        Purpose(row["purpose"]),
    )


_NEXT_DUE = sa.text("SELECT min(due_at) AS due_at FROM notices WHERE state IN ('pending', 'sending')")


async def next_due(lane: Lane) -> datetime | None:
    """When the next notice waits to be taken."""
    moment: datetime | None = (await lane.at_once(_NEXT_DUE, {})).first().due_at
    return moment


# Rows are found one by one by their id (a lateral look-up, then its place): the planner, left to join, once compared
# every result with every notice. A row that another worker changed meanwhile is passed over, as it must be.
# The fence (`attempts`) keeps a worker whose lease ran out from writing over its successor. A notice that asks somebody
# to come is not tried again once the alarm was answered.
_RECORD = sa.text(
    """
    UPDATE notices AS n
    SET state = CASE WHEN r.state = 'pending' AND a.state <> 'open' AND n.purpose = ANY(CAST(:asking AS text[]))
                     THEN 'cancelled' ELSE r.state END,
        due_at = r.due_at, sent_at = r.sent_at, provider_id = r.provider_id, error = r.error
    FROM unnest(CAST(:id AS uuid[]), CAST(:attempt AS int[]), CAST(:state AS text[]), CAST(:due_at AS timestamptz[]),
                CAST(:sent_at AS timestamptz[]), CAST(:provider_id AS text[]), CAST(:error AS text[]),
                CAST(:alarm_id AS uuid[]))
         AS r(id, attempt, state, due_at, sent_at, provider_id, error, alarm_id)
    CROSS JOIN LATERAL (SELECT * FROM alarms WHERE id = r.alarm_id LIMIT 1) a
    CROSS JOIN LATERAL (SELECT ctid, attempts, state FROM notices WHERE id = r.id LIMIT 1) found
    WHERE n.ctid = found.ctid AND found.attempts = r.attempt AND found.state = 'sending'
    RETURNING n.id, n.state, n.created_at, n.recipient_type, n.recipient_name, n.recipient_role, n.reason, n.error,
              a.region_code, a.first_sent_at IS NULL AS untold, a.unreachable_since IS NOT NULL AS was_unreachable
    """
)


async def record(session: Hands, results: Sequence[Result[Claim]], *, now: datetime) -> list[Settled]:
    """Write what became of claimed notices."""
    columns = [_as_row(result, now) for result in sorted(results, key=lambda r: r.claim.id)]
    state, due_at, sent_at, provider_id, error = (list(column) for column in zip(*columns, strict=True))
    ordered = sorted(results, key=lambda r: r.claim.id)
    rows = await session.execute(
        _RECORD,
        {
            "id": [r.claim.id for r in ordered],
            "alarm_id": [r.claim.alarm_id for r in ordered],
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
        Settled(by_id[row["id"]].claim, by_id[row["id"]].outcome, row["state"], row["created_at"], row)
        for row in rows.mappings()
    ]


def _as_row(result: Result[Claim], now: datetime) -> tuple[str, datetime, datetime | None, str | None, str | None]:
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
