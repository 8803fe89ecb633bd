"""Which visitors an elder is paired with."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right
from app.api import pages
from app.api.bodies import AN_ID, Body, example
from app.api.context import NowDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.tables import Assignment
from app.elders.vocabulary import AssignmentRole
from app.errors import NotFound

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])


class AssignmentIn(Body):
    model_config = example(visitor_id=AN_ID, role="primary")
    visitor_id: UUID
    role: AssignmentRole = AssignmentRole.PRIMARY


class AssignmentOut(BaseModel):
    visitor_id: UUID
    name: str
    role: AssignmentRole
    created_at: datetime
    ended_at: datetime | None


@router.get(
    "/elders/{elder_id}/visitors",
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_READ)],
    summary="Who is paired with an elder",
)
async def assignments(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[AssignmentOut]:
    await register.elder_within(session, who, elder_id)
    query = select(Assignment).where(col(Assignment.elder_id) == elder_id)
    found = await pages.newest(session, query, col(Assignment.id), limit, cursor)
    names = await register.visitor_names(session, [a.visitor_id for a in found])
    shown = [_assignment(a, names[a.visitor_id]) for a in found[:limit]]
    more = pages.encode(found[limit - 1].id) if len(found) > limit else None
    return pages.Page[AssignmentOut](items=shown, next_cursor=more)


@router.post(
    "/elders/{elder_id}/visitors",
    status_code=201,
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Pair a visitor",
)
async def assign(
    elder_id: UUID, body: AssignmentIn, who: PrincipalDep, session: SessionDep, now: NowDep
) -> AssignmentOut:
    elder = await register.elder_within(session, who, elder_id)
    paired = await register.must_be_visitor(session, who, body.visitor_id)
    made = await register.assign(session, elder, paired, role=body.role, now=now)
    audit.note(
        session,
        who,
        action="visitor.assigned",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=elder.region_code,
        visitor_id=str(paired.id),
        role=body.role.value,
    )
    return _assignment(made, paired.name)


@router.delete(
    "/elders/{elder_id}/visitors/{visitor_id}",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="End a pairing",
)
async def unassign(elder_id: UUID, visitor_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    elder = await register.elder_within(session, who, elder_id)
    query = select(Assignment).where(
        col(Assignment.elder_id) == elder_id,
        col(Assignment.visitor_id) == visitor_id,
        col(Assignment.ended_at).is_(None),
    )
    current = (await session.execute(query)).scalar_one_or_none()
    if current is None:
        raise NotFound("this visitor is not paired with this elder")
    current.ended_at = now
    audit.note(
        session,
        who,
        action="visitor.unassigned",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=elder.region_code,
        visitor_id=str(visitor_id),
    )


def _assignment(made: Assignment, name: str) -> AssignmentOut:
    return AssignmentOut(
        visitor_id=made.visitor_id, name=name, role=made.role, created_at=made.created_at, ended_at=made.ended_at
    )
