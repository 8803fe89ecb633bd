"""From the feed to deliveries: facts are read by their number, which grows in commit order (ADR 0005), and each becomes
one row for each subscription that wants it, in the transaction that moves the number on. Raising an alarm pays nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.ids import new_uuid
from app.webhooks.vocabulary import EventType

PAGE = 500


@dataclass(frozen=True, slots=True)
class Fact:
    seq: int
    type: str
    at: datetime
    alarm_id: UUID | None
    region_code: str  # where the elder lives now


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscription wants to hear."""

    subscription_id: UUID
    region_code: str
    event_types: frozenset[str] | None  # None: all
    since_seq: int
    paused: bool

    def wants(self, fact: Fact) -> bool:
        return (
            fact.seq > self.since_seq
            and fact.type in _KNOWN
            and (self.event_types is None or fact.type in self.event_types)
            and fact.region_code.startswith(self.region_code)
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """What one look did. `idle`: nobody subscribes to anything."""

    facts: int
    made: int
    idle: bool = False


_KNOWN = frozenset(event.value for event in EventType)
_BEGIN = sa.text("SELECT min(since_seq) FROM webhook_subscriptions")
# Another worker that holds the row is reading the same facts right now.
_HOLD = sa.text("SELECT seq FROM webhook_fan_out FOR UPDATE SKIP LOCKED")
_FACTS = sa.text(
    """
    SELECT f.seq, f.type, f.at, f.alarm_id, coalesce(e.region_code, f.region_code) AS region_code
    FROM feed_events f LEFT JOIN alarms a ON a.id = f.alarm_id LEFT JOIN elders e ON e.id = a.elder_id
    WHERE f.seq > :after ORDER BY f.seq LIMIT :page
    """
)
# Read after the facts: whoever subscribed before a fact was committed is seen. Held, so that a pause comes before or after.
_WISHES = sa.text(
    "SELECT id, region_code, event_types, since_seq, paused_at IS NOT NULL AS paused FROM webhook_subscriptions "
    "ORDER BY id FOR SHARE"
)
_WRITE = sa.text(
    """
    INSERT INTO webhook_deliveries (id, subscription_id, seq, event_type, occurred_at, alarm_id, state, attempts,
                                    attempts_before, created_at, due_at)
    SELECT id, subscription_id, seq, event_type, occurred_at, alarm_id, state, 0, 0, :now, :now
    FROM unnest(CAST(:id AS uuid[]), CAST(:subscription_id AS uuid[]), CAST(:seq AS bigint[]),
                CAST(:event_type AS text[]), CAST(:occurred_at AS timestamptz[]), CAST(:alarm_id AS uuid[]),
                CAST(:state AS text[]))
         AS made(id, subscription_id, seq, event_type, occurred_at, alarm_id, state)
    ON CONFLICT DO NOTHING
    """
)


async def fan_out(session: AsyncSession, *, now: datetime) -> Progress:
    """Read one page of facts and write the deliveries it calls for. Commit, and call again until `facts` is 0."""
    begin = await session.scalar(_BEGIN)
    if begin is None:
        return Progress(0, 0, idle=True)
    held = await session.scalar(_HOLD)
    if held is None:
        return Progress(0, 0)
    rows = await session.execute(_FACTS, {"after": max(held, begin), "page": PAGE})
    facts = [Fact(r.seq, r.type, r.at, r.alarm_id, r.region_code) for r in rows]
    if not facts:
        return Progress(0, 0)
    if any(fact.type in _KNOWN for fact in facts):
        made = await _write(session, facts, now)
    else:
        made = 0
    await session.execute(sa.text("UPDATE webhook_fan_out SET seq = :seq"), {"seq": facts[-1].seq})
    return Progress(len(facts), made)


async def _write(session: AsyncSession, facts: Sequence[Fact], now: datetime) -> int:
    wishes = [
        Wish(r.id, r.region_code, None if r.event_types is None else frozenset(r.event_types), r.since_seq, r.paused)
        for r in await session.execute(_WISHES)
    ]
    pairs = [(fact, wish) for fact in facts for wish in wishes if wish.wants(fact)]
    if pairs:
        await session.execute(
            _WRITE,
            {
                "now": now,
                "id": sorted(new_uuid(now) for _ in pairs),  # the log's order is the feed's
                "subscription_id": [wish.subscription_id for _, wish in pairs],
                "seq": [fact.seq for fact, _ in pairs],
                "event_type": [fact.type for fact, _ in pairs],
                "occurred_at": [fact.at for fact, _ in pairs],
                "alarm_id": [fact.alarm_id for fact, _ in pairs],
                "state": ["held" if wish.paused else "pending" for _, wish in pairs],
            },
        )
    return len(pairs)
