"""Tasks: what is to be done beside the regular visits. They are asked for once and never ticked off: the ledger and the
assessments say whether they were done, so that a visit that is voided or corrected later opens its task again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.principal import Principal
from app.errors import Conflict, NotFound
from app.ids import new_uuid
from app.visits.vocabulary import TaskKind, TaskState


@dataclass(frozen=True, slots=True)
class Asked:
    """What an alarm asks for, and by when."""

    elder_id: UUID
    alarm_id: UUID
    kind: TaskKind
    because: str
    within: timedelta


_ASK = sa.text(
    """
    INSERT INTO care_tasks (id, elder_id, kind, alarm_id, because, asked_at, asked_on, due_at, rise_at)
    VALUES (:id, :elder_id, :kind, :alarm_id, :because, :now, :today, :due_at, :due_at)
    ON CONFLICT (alarm_id, kind) DO NOTHING RETURNING id
    """
)


async def ask(session: AsyncSession, asked: Asked, *, now: datetime, tz: ZoneInfo) -> UUID | None:
    """Write a task. None: this alarm asked for it before."""
    row = await session.execute(
        _ASK,
        {
            "id": new_uuid(now),
            "elder_id": asked.elder_id,
            "kind": asked.kind.value,
            "alarm_id": asked.alarm_id,
            "because": asked.because,
            "now": now,
            "today": now.astimezone(tz).date(),
            "due_at": now + asked.within,
        },
    )
    made: UUID | None = row.scalar_one_or_none()
    return made


# What fulfils a task: the first visit that counts after it was asked for (the response to the alarm itself is not its
# own follow-up), or the first assessment made and written down since.
_TASKS = """
    SELECT t.*, e.name AS elder_name, e.region_code, done.visit_id, done.assessment_id, done.at AS done_at,
           CASE WHEN done.at IS NOT NULL THEN 'done' WHEN t.dismissed_at IS NOT NULL THEN 'dismissed'
                WHEN e.status IN ('moved', 'deceased') THEN 'lapsed'
                WHEN t.due_at < :now THEN 'overdue' ELSE 'open' END AS state
    FROM care_tasks t JOIN elders e ON e.id = t.elder_id
    LEFT JOIN LATERAL (
        (SELECT v.id AS visit_id, CAST(NULL AS uuid) AS assessment_id, v.started_at AS at
         FROM visits v WHERE t.kind = 'follow_up' AND v.elder_id = t.elder_id AND v.qualifying
           AND v.started_at >= t.asked_at AND v.alarm_id IS DISTINCT FROM t.alarm_id
         ORDER BY v.started_at LIMIT 1)
        UNION ALL
        (SELECT NULL, a.id, a.recorded_at
         FROM assessments a WHERE t.kind = 'assessment' AND a.elder_id = t.elder_id AND a.withdrawn_at IS NULL
           AND a.assessed_on >= t.asked_on AND a.recorded_at >= t.asked_at
         ORDER BY a.recorded_at LIMIT 1)
    ) done ON true
"""
_NEWEST_FIRST = "SELECT * FROM ({tasks} WHERE {where}) AS task WHERE {having} ORDER BY id DESC LIMIT :limit"


@dataclass(frozen=True, slots=True)
class Filters:
    kind: TaskKind | None = None
    states: Collection[TaskState] = ()
    elder_id: UUID | None = None
    region_code: str | None = None
    visitor_id: UUID | None = None


async def page_of(
    session: AsyncSession, who: Principal, filters: Filters, *, now: datetime, before: UUID | None, limit: int
) -> Sequence[Any]:
    """Up to `limit` tasks within a scope, newest first."""
    where, values = ["e.region_code ^@ :scope"], {"scope": who.region_code, "now": now, "limit": limit}
    plain: dict[str, tuple[str, object]] = {
        "t.kind = :kind": ("kind", filters.kind and filters.kind.value),
        "t.elder_id = :elder_id": ("elder_id", filters.elder_id),
        "e.region_code ^@ :region": ("region", filters.region_code),
        "t.elder_id IN (SELECT elder_id FROM assignments WHERE visitor_id = :visitor AND ended_at IS NULL)": (
            "visitor",
            filters.visitor_id,
        ),
        "t.id < :before": ("before", before),
    }
    for clause, (name, value) in plain.items():
        if value is not None:
            where.append(clause)
            values[name] = value
    having = "state = ANY(CAST(:states AS text[]))" if filters.states else "true"
    if filters.states:
        values["states"] = [state.value for state in filters.states]
    query = _NEWEST_FIRST.format(tasks=_TASKS, where=" AND ".join(where), having=having)
    return (await session.execute(sa.text(query), values)).all()


async def task_within(
    session: AsyncSession, who: Principal, task_id: UUID, *, now: datetime, lock: bool = False
) -> Any:
    """Raises `NotFound` for an id that is absent or outside the scope, alike."""
    query = f"{_TASKS} WHERE t.id = :id AND e.region_code ^@ :scope {'FOR UPDATE OF t' if lock else ''}"
    values = {"id": task_id, "scope": who.region_code, "now": now}
    row = (await session.execute(sa.text(query), values)).first()
    if row is None:
        raise NotFound("no such task")
    return row


async def dismiss(session: AsyncSession, who: Principal, task_id: UUID, *, reason: str, now: datetime) -> Any:
    """It is not needed, and somebody says why. Raises `Conflict` for one that has ended."""
    row = await task_within(session, who, task_id, now=now, lock=True)
    if row.state not in (TaskState.OPEN, TaskState.OVERDUE):
        raise Conflict(f"the task is {row.state} already")
    await session.execute(
        sa.text(
            "UPDATE care_tasks SET dismissed_at = :now, dismissed_reason = :reason, dismissed_by = CAST(:by AS jsonb), "
            "rise_at = NULL WHERE id = :id"
        ).bindparams(sa.bindparam("by", type_=sa.JSON)),
        {"now": now, "reason": reason, "by": who.who(), "id": task_id},
    )
    return await task_within(session, who, task_id, now=now)


_OPEN = sa.text(
    f"SELECT * FROM ({_TASKS} WHERE t.elder_id = ANY(CAST(:ids AS uuid[]))) AS task "  # noqa: S608 - a constant
    "WHERE state IN ('open', 'overdue') ORDER BY due_at, id"
)


async def open_tasks(session: AsyncSession, ids: Collection[UUID], *, now: datetime) -> Mapping[UUID, list[Any]]:
    """What is still to be done for each of these people, the most urgent first."""
    found: dict[UUID, list[Any]] = {}
    for row in await session.execute(_OPEN, {"ids": list(ids), "now": now}):
        found.setdefault(row.elder_id, []).append(row)
    return found


_OVERDUE = sa.text(
    f"SELECT * FROM ({_TASKS} WHERE t.id = ANY(CAST(:ids AS uuid[]))) AS task "  # noqa: S608 - a constant
    "WHERE state = 'overdue'"
)


async def overdue_ones(session: AsyncSession, ids: Collection[UUID], *, now: datetime) -> Sequence[Any]:
    """Those of these tasks that are still to be done and late."""
    return (await session.execute(_OVERDUE, {"ids": list(ids), "now": now})).all()
