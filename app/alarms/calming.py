"""The elder says "I am fine": the alarm becomes less urgent, and one person must still look (design section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from app.alarms import entries, facts
from app.alarms.escalation import next_time
from app.alarms.policies import policies_for
from app.db import Hands
from app.notify import outbox
from app.notify.outbox import Planned, Recipient
from app.notify.vocabulary import ChannelKind, Purpose, RecipientType
from app.rules.verdict import AlarmKind, Severity
from app.words import say


@dataclass(frozen=True, slots=True)
class Calming:
    """An elder's word about alarms of these kinds. One that happened before an alarm does not concern it."""

    elder_id: UUID
    kinds: tuple[AlarmKind, ...]
    because: str
    occurred_at: datetime
    device_id: str | None
    reason: str = ""  # as people read it; empty: the elder said so


async def calm(session: Hands, word: Calming, *, now: datetime) -> int:
    """Lower the severity to minor and go on with that severity's plan; those who were told hear it. How many."""
    rows = (
        await session.execute(
            sa.text(
                "SELECT id, region_code, round FROM alarms WHERE elder_id = :elder_id AND state <> 'resolved' "
                "AND kind = ANY(CAST(:kinds AS text[])) AND severity IN ('critical', 'major') "
                "AND occurred_at <= :occurred_at ORDER BY id FOR UPDATE"
            ),
            {"elder_id": word.elder_id, "kinds": [k.value for k in word.kinds], "occurred_at": word.occurred_at},
        )
    ).all()
    if not rows:
        return 0
    policies = await policies_for(session, [row.region_code for row in rows])
    for row in rows:
        plan = policies.plan(Severity.MINOR, row.region_code)
        await session.execute(
            sa.text(
                "UPDATE alarms SET severity = 'minor', plan = CAST(:plan AS jsonb), plan_from = :now, step = 0, "
                "next_at = CASE state WHEN 'open' THEN :next_at ELSE next_at END, round = round + 1, "
                "version = version + 1 WHERE id = :id"
            ),
            {
                "id": row.id,
                "now": now,
                "plan": plan.text,
                "next_at": next_time(plan, step=0, plan_from=now, now=now),
            },
        )
        told = [
            Planned(row.id, Purpose.CALMED, row.round + 1, word.reason or say("reason.calmed"), who)
            for who in await already_told(session, row.id)
        ]
        await outbox.plan(session, told, now=now)
        await entries.write(
            session, [(row.id, "calmed", None, {"because": word.because, "device_id": word.device_id})], now=now
        )
        facts.tell(session, "alarm.calmed", region_code=row.region_code, alarm_id=row.id, now=now, severity="minor")
    return len(rows)


async def already_told(session: Hands, alarm_id: UUID, *, but: str = "") -> list[Recipient]:
    """The people an alarm's notices went to, or are on their way to, each on the channel last used; not the desk."""
    rows = await session.execute(
        sa.text(
            """
            SELECT DISTINCT ON (n.recipient_id) n.recipient_type, n.recipient_id, n.recipient_name, n.recipient_role,
                   n.channel, n.channel_id
            FROM notices n JOIN channels c ON c.id = n.channel_id
            WHERE n.alarm_id = :id AND n.state IN ('sent', 'delivered', 'sending', 'pending') AND n.recipient_id <> :but
            ORDER BY n.recipient_id, (n.state IN ('sent', 'delivered')) DESC, n.id DESC
            """
        ),
        {"id": alarm_id, "but": but},
    )
    return [
        Recipient(
            RecipientType(r.recipient_type),
            r.recipient_id,
            r.recipient_name,
            r.recipient_role,
            ChannelKind(r.channel),
            r.channel_id,
        )
        for r in rows
    ]
