"""Tasks that alarms ask for, and the visit that an attended alarm was."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import audit
from app.access.principal import Right
from app.access.wall import beyond
from app.api import pages, visits
from app.api.bodies import Body, Moment, Note, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.findings import FindingIn
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.api.visits import Health, ReasonIn, VisitIn, VisitOut
from app.elders import register
from app.elders.vocabulary import Service
from app.errors import Conflict, InvalidInput, NotFound
from app.visits import ledger, tasks
from app.visits.tasks import Filters
from app.visits.vocabulary import Method, TaskKind, TaskState

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])


class TaskElder(BaseModel):
    id: UUID
    name: str
    region_code: str


class TaskOut(BaseModel):
    id: UUID
    kind: TaskKind
    state: TaskState
    elder: TaskElder
    alarm_id: UUID
    because: str
    asked_at: datetime
    due_at: datetime
    done_at: datetime | None
    visit_id: UUID | None = Field(description="The visit that fulfilled it.")
    assessment_id: UUID | None = Field(description="The assessment that fulfilled it.")
    dismissed_reason: str | None


def shape(row: Any) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in TaskOut.model_fields if name != "elder"}
    return {**shown, "elder": {"id": row.elder_id, "name": row.elder_name, "region_code": row.region_code}}


@router.get("/tasks", dependencies=[needs(Right.VISITS_READ)], summary="What alarms asked for, newest first")
async def care_tasks(
    who: PrincipalDep,
    session: SessionDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    kind: TaskKind | None = None,
    state: Annotated[list[TaskState], Query(max_length=5, description="Any of these; all when absent.")] = [],  # noqa: B006
    elder_id: UUID | None = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
    visitor_id: Annotated[UUID | None, Query(description="Only elders this visitor is paired with.")] = None,
) -> pages.Page[TaskOut]:
    """Follow-up visits after emergencies, and assessments after falls. Done when the ledger or the register says so."""
    before = pages.decode(cursor, UUID)
    rows = await tasks.page_of(
        session, who, Filters(kind, state, elder_id, region_code, visitor_id), now=now,
        before=before[0] if before else None, limit=limit + 1,
    )  # fmt: skip
    return pages.Page[TaskOut].model_validate(pages.page(rows, limit, shape, "id"))


@router.get("/tasks/{task_id}", dependencies=[needs(Right.VISITS_READ)], responses=responses(404), summary="One task")
async def care_task(task_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> TaskOut:
    return TaskOut.model_validate(shape(await tasks.task_within(session, who, task_id, now=now)))


@router.post(
    "/tasks/{task_id}/dismiss",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="Say why a task is not needed",
)
async def dismiss_task(task_id: UUID, body: ReasonIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> TaskOut:
    """A supervisor's. One that was done, or dismissed before, is a conflict."""
    row = await tasks.dismiss(session, who, task_id, reason=body.reason, now=now)
    audit.note(session, who, action="task.dismissed", subject_type="task", subject_id=task_id, now=now,
               region_code=row.region_code, kind=row.kind)  # fmt: skip
    return TaskOut.model_validate(shape(row))


# --- an alarm that somebody went to ------------------------------------------------------------------------------------


class AlarmVisitIn(Body):
    model_config = example(services=["health_management"], note="血压偏高,已联系家庭医生", health={"mobility": "fair"})
    visitor_id: UUID | None = Field(default=None, description="Who was there; absent: the visitor who attended.")
    partner_ids: list[UUID] = Field(default=[], max_length=10, description="Who came along: still one visit.")
    started_at: Moment | None = Field(default=None, description="Absent: when the alarm was attended.")
    ended_at: Moment | None = None
    services: list[Service] = Field(default=[], max_length=9, description="Beside 应急救援, which is always ticked.")
    health: Health = Health()
    note: Note | None = None
    findings: list[FindingIn] = Field(default=[], max_length=20)
    reason: visits.Why | None = Field(default=None, description="Asked for when the month is closed.")


@router.post(
    "/alarms/{alarm_id}/visit",
    dependencies=[needs(Right.VISITS_WRITE)],
    status_code=201,
    responses={200: {"model": VisitOut, "description": "It was made a visit before: that one."}, **responses(404)},
    summary="Make an attended alarm a visit",
)
async def alarm_visit(
    alarm_id: UUID,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    body: AlarmVisitIn | None = None,
) -> VisitOut:
    """A visit at home with 应急救援 ticked, by whoever attended. One alarm is one visit: asked again, by whomever, the
    first is answered (200). An alarm nobody attended was no visit (409)."""
    given = body or AlarmVisitIn()
    query = sa.text("SELECT elder_id, attended_at, attended_by FROM alarms WHERE id = :id")
    alarm = (await session.execute(query, {"id": alarm_id})).first()
    try:
        if alarm is None:
            raise NotFound("")
        await register.elder_within(session, who, alarm.elder_id, lock=True)  # two who write at once are one visit
    except NotFound:
        raise NotFound("no such alarm") from None
    first = await ledger.visit_of_alarm(session, alarm_id)
    if first is not None:
        response.status_code = 200
        return await visits.shown(session, first, response)
    if alarm.attended_at is None:
        raise Conflict("nobody attended this alarm: there was no visit")
    if given.started_at is not None and given.started_at < alarm.attended_at - ledger.LONGEST:
        raise InvalidInput("long before the alarm was attended", field="started_at")
    wanted = VisitIn(
        elder_id=alarm.elder_id,
        visitor_id=given.visitor_id or await _attender(session, alarm.attended_by) or who.visitor_id,
        method=Method.HOME,
        started_at=given.started_at or alarm.attended_at,
        services=given.services,
        alarm_id=alarm_id,
        **given.model_dump(include={"partner_ids", "ended_at", "note", "reason"}),
        health=given.health,
        findings=given.findings,
    )
    return await visits.record(wanted, response, who, session, parts, now)


async def _attender(session: AsyncSession, by: dict[str, Any]) -> UUID | None:
    """The visitor who attended, by the link of a notice or by an account of theirs."""
    if by["type"] == "visitor":
        return UUID(by["id"])
    if by["type"] != "user":
        return None
    query = sa.text("SELECT visitor_id FROM users WHERE id = :id")
    async with beyond(session, "whoever attended is named, though the one who writes it down sees no accounts"):
        found: UUID | None = await session.scalar(query, {"id": by["id"]})
    return found
