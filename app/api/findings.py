"""What visitors find: hazards, hardship, neglected support duty, referrals; open until ended."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, begins, within
from app.api import pages
from app.api.bodies import Body, Note, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.tables import Elder, FamilyMember
from app.errors import Conflict, InvalidInput, NotFound
from app.ids import new_uuid
from app.visits.findings import check_step, check_topic, is_end, remind_on
from app.visits.tables import Finding, FindingStep, Visit
from app.visits.vocabulary import FindingKind, Stage, Topic

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])


class FindingIn(Body):
    model_config = example(kind="hazard", topic="gas", description="燃气软管老化")
    kind: FindingKind
    topic: Topic
    description: Note = Field(min_length=1)
    family_member_id: UUID | None = Field(default=None, description="support_duty: whose duty it is.")


class ElderFindingIn(FindingIn):
    visit_id: UUID | None = Field(default=None, description="The visit on which it was found.")


class StepIn(Body):
    model_config = example(stage="removed", note="社区更换了软管")
    stage: Stage
    note: Note | None = None


class StepOut(BaseModel):
    stage: Stage
    note: str | None
    at: datetime
    by: str


class FindingOut(BaseModel):
    id: UUID
    elder_id: UUID
    visit_id: UUID | None
    family_member_id: UUID | None
    kind: FindingKind
    topic: Topic
    description: str
    stage: Stage
    open: bool
    found_at: datetime
    remind_on: date | None = Field(description="When somebody is reminded of it next; null once it has ended.")
    reminders: int = Field(description="How often it was called back because nothing had happened.")
    ended_at: datetime | None


class FindingWithSteps(FindingOut):
    steps: list[StepOut]


def _shape(row: Finding) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in FindingOut.model_fields if name != "open"}
    return {**shown, "open": row.ended_at is None}


async def add_finding(
    session: AsyncSession,
    who: Principal,
    elder: Elder,
    body: FindingIn,
    *,
    now: datetime,
    tz: ZoneInfo,
    visit_id: UUID | None,
) -> Finding:
    """Open a finding with its first step. Raises `InvalidInput` for a topic of another kind."""
    try:
        check_topic(body.kind, body.topic)
    except ValueError as error:
        raise InvalidInput(str(error), field="topic") from None
    if body.family_member_id is not None:
        member = await session.get(FamilyMember, body.family_member_id)
        if member is None or member.elder_id != elder.id:
            raise InvalidInput("no such family member of this elder", field="family_member_id")
    made = Finding(
        id=new_uuid(now),
        elder_id=elder.id,
        visit_id=visit_id,
        stage=Stage.FOUND,
        found_at=now,
        remind_on=remind_on(body.kind, Stage.FOUND, now.astimezone(tz).date()),
        **body.model_dump(include={"kind", "topic", "description", "family_member_id"}),
    )
    session.add(made)
    await session.flush()
    session.add(FindingStep(id=new_uuid(now), finding_id=made.id, stage=Stage.FOUND, at=now, by=who.who()))
    await session.flush()
    return made


@router.get("/findings", dependencies=[needs(Right.VISITS_READ)], summary="Findings within your scope, newest first")
async def findings(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    elder_id: UUID | None = None,
    kind: FindingKind | None = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
    open: Annotated[bool | None, Query(description="true: those that have not ended.")] = None,
    reminder_due: Annotated[
        bool | None, Query(description="true: those somebody must be reminded of by today.")
    ] = None,
) -> pages.Page[FindingOut]:
    before = pages.decode(cursor, UUID)
    query = (
        select(Finding).join(Elder, col(Elder.id) == col(Finding.elder_id)).where(within(who, col(Elder.region_code)))
    )
    if elder_id:
        query = query.where(col(Finding.elder_id) == elder_id)
    if kind:
        query = query.where(col(Finding.kind) == kind)
    if region_code:
        query = query.where(begins(col(Elder.region_code), region_code))
    if open is not None:
        query = query.where(col(Finding.ended_at).is_(None) if open else col(Finding.ended_at).is_not(None))
    if reminder_due:
        # What was called back and not answered since stays due, though its next reminder lies ahead.
        today = now.astimezone(parts.tz).date()
        query = query.where(
            sa.or_(col(Finding.remind_on) <= today, col(Finding.reminders) > 0), col(Finding.ended_at).is_(None)
        )
    if before:
        query = query.where(col(Finding.id) < before[0])
    rows = (await session.execute(query.order_by(col(Finding.id).desc()).limit(limit + 1))).scalars().all()
    return pages.Page[FindingOut].model_validate(pages.page(rows, limit, _shape, "id"))


@router.post(
    "/elders/{elder_id}/findings",
    dependencies=[needs(Right.VISITS_WRITE)],
    status_code=201,
    responses=responses(404),
    summary="Write down a finding",
)
async def open_finding(
    elder_id: UUID, body: ElderFindingIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> FindingOut:
    """A hazard (二（三）2), hardship or a policy to link (3), neglected support duty (5), or a referral (1, 4)."""
    elder = await register.elder_within(session, who, elder_id)
    if body.visit_id is not None:
        visit = await session.get(Visit, body.visit_id)
        if visit is None or visit.elder_id != elder_id:
            raise InvalidInput("no such visit of this elder", field="visit_id")
    made = await add_finding(session, who, elder, body, now=now, tz=parts.tz, visit_id=body.visit_id)
    return FindingOut.model_validate(_shape(made))


async def _finding_within(session: AsyncSession, who: Principal, finding_id: UUID, *, lock: bool = False) -> Finding:
    query = (
        select(Finding)
        .join(Elder, col(Elder.id) == col(Finding.elder_id))
        .where(col(Finding.id) == finding_id, within(who, col(Elder.region_code)))
    )
    found = (await session.execute(query.with_for_update(of=Finding) if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such finding")
    return found


async def _with_steps(session: AsyncSession, found: Finding) -> FindingWithSteps:
    query = select(FindingStep).where(col(FindingStep.finding_id) == found.id).order_by(col(FindingStep.id))
    steps = [
        {"stage": step.stage, "note": step.note, "at": step.at, "by": step.by.get("name", "")}
        for step in (await session.execute(query)).scalars()
    ]
    return FindingWithSteps.model_validate({**_shape(found), "steps": steps})


@router.get(
    "/findings/{finding_id}",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="One finding with its steps",
)
async def finding(finding_id: UUID, who: PrincipalDep, session: SessionDep) -> FindingWithSteps:
    return await _with_steps(session, await _finding_within(session, who, finding_id))


@router.post(
    "/findings/{finding_id}/steps",
    dependencies=[needs(Right.VISITS_WRITE)],
    responses=responses(404),
    summary="Say what was done about it",
)
async def finding_step(
    finding_id: UUID, body: StepIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> FindingWithSteps:
    """Stages in their order (docs: app/visits/findings.py); an end ends it. Each step puts the next reminder off."""
    found = await _finding_within(session, who, finding_id, lock=True)
    kind = FindingKind(found.kind)
    try:
        check_step(kind, Stage(found.stage), body.stage)
    except ValueError as error:
        raise Conflict(str(error), field="stage") from None
    found.stage, found.reminders = body.stage, 0
    found.remind_on = remind_on(kind, body.stage, now.astimezone(parts.tz).date())
    found.ended_at = now if is_end(kind, body.stage) else None
    found.version += 1
    session.add(
        FindingStep(id=new_uuid(now), finding_id=found.id, stage=body.stage, note=body.note, at=now, by=who.who())
    )
    await session.flush()
    if is_end(kind, body.stage):
        audit.note(session, who, action="finding.ended", subject_type="finding", subject_id=found.id, now=now,
                   stage=body.stage.value)  # fmt: skip
    return await _with_steps(session, found)
