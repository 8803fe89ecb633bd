"""Findings that nothing was done about are called back. The database is the timer: `findings.remind_on`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.visits.findings import COURSES

_BATCH = 200
_DUE = sa.text(
    """
    SELECT f.id, f.kind, f.topic, f.elder_id, e.region_code, f.reminders
    FROM findings f JOIN elders e ON e.id = f.elder_id
    WHERE f.remind_on <= :today ORDER BY f.remind_on, f.id LIMIT :batch FOR UPDATE OF f SKIP LOCKED
    """
)


@dataclass(frozen=True, slots=True)
class Reminder:
    finding_id: UUID
    elder_id: UUID
    region_code: str
    kind: str
    topic: str
    count: int


async def take_due(session: AsyncSession, *, today: date) -> list[Reminder]:
    """One batch of findings whose reminder is due; the next is planned in the same transaction. Empty: none is due."""
    rows = (await session.execute(_DUE, {"today": today, "batch": _BATCH})).all()
    again = {kind.value: today + timedelta(days=course.remind_days) for kind, course in COURSES.items()}
    for row in rows:
        await session.execute(
            sa.text("UPDATE findings SET reminders = reminders + 1, remind_on = :again WHERE id = :id"),
            {"again": again[row.kind], "id": row.id},
        )
    return [Reminder(r.id, r.elder_id, r.region_code, r.kind, r.topic, r.reminders + 1) for r in rows]
