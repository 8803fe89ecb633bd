"""What a real emergency asks for afterwards: a visit within a set time and, after falls, a new assessment of ability
(policy rows 4, 8, 26, 34). Asked in the transaction that closes the alarm, whoever closes it and by whatever way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alarms.vocabulary import Outcome
from app.elders import policies
from app.elders.policy import VisitRules
from app.rules.verdict import AlarmKind
from app.visits import tasks
from app.visits.tasks import Asked
from app.visits.vocabulary import TaskKind
from app.words import say

REAL = frozenset({Outcome.REAL_EMERGENCY, Outcome.HOSPITALISED})

# Falls that were real and that no assessment was asked for yet.
_FALLS = sa.text(
    """
    SELECT a.raised_at FROM alarms a
    WHERE a.elder_id = :elder_id AND a.kind = 'fall' AND a.outcome = ANY(CAST(:real AS text[]))
      AND a.raised_at > coalesce((SELECT max(asked_at) FROM care_tasks t
                                  WHERE t.elder_id = a.elder_id AND t.kind = 'assessment'), '-infinity')
    ORDER BY a.raised_at
    """
)


async def ask(session: AsyncSession, alarm_id: UUID, outcome: Outcome, *, now: datetime, tz: ZoneInfo) -> None:
    """Ask for what the alarm's end makes necessary. The rules are those of the elder's place."""
    if outcome not in REAL:
        return
    query = sa.text(
        "SELECT a.elder_id, a.kind, e.region_code FROM alarms a JOIN elders e ON e.id = a.elder_id WHERE a.id = :id"
    )
    alarm = (await session.execute(query, {"id": alarm_id})).one()
    rules = (await policies.in_force(session)).at(alarm.region_code, now.astimezone(tz).date()).visits
    because = say("task.follow_up", kind=say(f"kind.{alarm.kind}"), outcome=say(f"outcome.{outcome.value}"))
    within = timedelta(hours=rules.follow_up_hours)
    await tasks.ask(session, Asked(alarm.elder_id, alarm_id, TaskKind.FOLLOW_UP, because, within), now=now, tz=tz)
    if alarm.kind != AlarmKind.FALL:
        return
    rows = await session.execute(_FALLS, {"elder_id": alarm.elder_id, "real": [one.value for one in REAL]})
    if falls_too_often([row.raised_at for row in rows], rules):
        because = say("task.assessment", falls=rules.falls_for_assessment, days=rules.falls_within_days)
        within = timedelta(days=rules.assessment_within_days)
        await tasks.ask(session, Asked(alarm.elder_id, alarm_id, TaskKind.ASSESSMENT, because, within), now=now, tz=tz)


def falls_too_often(falls: Sequence[datetime], rules: VisitRules) -> bool:
    """Whether so many of these falls (in order) lie within so many days. Pure."""
    window, number = timedelta(days=rules.falls_within_days), rules.falls_for_assessment
    return any(last - first <= window for first, last in zip(falls, falls[number - 1 :], strict=False))
