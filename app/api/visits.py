"""Ordinary visits, recorded and listed; an elder's timeline shows them beside the alarms."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlmodel import col, select

from app.access.principal import Right, within
from app.api import pages
from app.api.bodies import AN_ID, Body, Moment, Note, example
from app.api.context import NowDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.vocabulary import Service
from app.errors import InvalidInput, NotFound
from app.ids import new_uuid
from app.visits.tables import Visit
from app.visits.vocabulary import Method

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])
_SLACK = timedelta(minutes=5)


class VisitIn(Body):
    model_config = example(
        elder_id=AN_ID, method="home", started_at="2026-11-20T09:00:00+08:00", ended_at="2026-11-20T09:30:00+08:00",
        services=["daily_living", "emotional_support"], note="精神很好",
    )  # fmt: skip
    elder_id: UUID
    visitor_id: UUID | None = None
    method: Method
    started_at: Moment = Field(examples=["2026-11-20T09:00:00+08:00"])
    ended_at: Moment | None = None
    services: list[Service] = Field(default=[], max_length=9)
    note: Note | None = None
    alarm_id: UUID | None = None


class VisitOut(BaseModel):
    id: UUID
    elder_id: UUID
    visitor_id: UUID | None
    method: Method
    started_at: datetime
    ended_at: datetime | None
    services: list[Service]
    note: str | None
    alarm_id: UUID | None
    qualifying: bool
    non_qualifying_reason: str | None


class TimelineItem(BaseModel):
    kind: str = Field(examples=["visit", "alarm", "notice", "binding"])
    at: datetime
    data: dict[str, Any]


@router.get("/visits", dependencies=[needs(Right.VISITS_READ)], summary="Visits within your scope, newest first")
async def visits(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    elder_id: UUID | None = None,
    visitor_id: UUID | None = None,
) -> pages.Page[VisitOut]:
    before = pages.decode(cursor, datetime, UUID)
    query = select(Visit).where(within(who, col(Visit.region_code)))
    if elder_id:
        query = query.where(col(Visit.elder_id) == elder_id)
    if visitor_id:
        query = query.where(col(Visit.visitor_id) == visitor_id)
    if before:
        query = query.where(sa.tuple_(col(Visit.started_at), col(Visit.id)) < tuple(before))
    query = query.order_by(col(Visit.started_at).desc(), col(Visit.id).desc()).limit(limit + 1)
    rows = (await session.execute(query)).scalars().all()
    return pages.Page[VisitOut].model_validate(pages.page(rows, limit, _shape, "started_at", "id"))


@router.post("/visits", status_code=201, dependencies=[needs(Right.VISITS_WRITE)], summary="Record a visit")
async def record(body: VisitIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> VisitOut:
    try:
        elder = await register.elder_within(session, who, body.elder_id)
    except NotFound:
        raise InvalidInput("no such elder", field="elder_id") from None
    if body.visitor_id is not None:
        await register.must_be_visitor(session, who, body.visitor_id)
    if body.started_at > now + _SLACK:
        raise InvalidInput("a visit in the future cannot be recorded", field="started_at")
    if body.ended_at is not None and not body.started_at <= body.ended_at <= now + _SLACK:
        raise InvalidInput("the end must come after the start and not in the future", field="ended_at")
    if body.alarm_id is not None:
        owner = await session.scalar(sa.text("SELECT elder_id FROM alarms WHERE id = :id"), {"id": body.alarm_id})
        if owner != elder.id:
            raise InvalidInput("no such alarm of this elder", field="alarm_id")
    visit = Visit(
        id=new_uuid(now),
        region_code=elder.region_code,
        created_at=now,
        created_by=str(who.id),
        qualifying=True,
        **body.model_dump(),
    )
    session.add(visit)
    await session.flush()
    return VisitOut.model_validate(_shape(visit))


@router.get(
    "/visits/{visit_id}", responses=responses(404), dependencies=[needs(Right.VISITS_READ)], summary="One visit"
)
async def visit(visit_id: UUID, who: PrincipalDep, session: SessionDep) -> VisitOut:
    found = await session.get(Visit, visit_id)
    if found is None or not who.sees(found.region_code):
        raise NotFound("no such visit")
    return VisitOut.model_validate(_shape(found))


# Each part is cut to a page by its own index before the parts are merged: the cost is the page's, not the history's.
_TIMELINE = """
    SELECT kind, at, id, data FROM (
        (SELECT 'visit' AS kind, v.started_at AS at, v.id,
                jsonb_build_object('id', v.id, 'method', v.method, 'visitor_id', v.visitor_id, 'services', v.services,
                                   'note', v.note, 'alarm_id', v.alarm_id, 'ended_at', v.ended_at) AS data
         FROM visits v WHERE v.elder_id = :elder_id AND {visit_before}
         ORDER BY v.started_at DESC, v.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'alarm', a.raised_at, a.id,
                jsonb_build_object('id', a.id, 'kind', a.kind, 'severity', a.severity, 'state', a.state,
                                   'because', a.because, 'outcome', a.outcome, 'resolved_at', a.resolved_at)
         FROM alarms a WHERE a.elder_id = :elder_id AND {alarm_before}
         ORDER BY a.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'notice', n.created_at, n.id,
                jsonb_build_object('id', n.id, 'alarm_id', n.alarm_id, 'recipient', n.recipient_name,
                                   'channel', n.channel, 'purpose', n.purpose, 'state', n.state)
         FROM alarms a JOIN notices n ON n.alarm_id = a.id WHERE a.elder_id = :elder_id AND {notice_before}
         ORDER BY n.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'binding', b.bound_at, b.id,
                jsonb_build_object('device_id', b.device_id, 'bound_at', b.bound_at, 'unbound_at', b.unbound_at)
         FROM bindings b WHERE b.elder_id = :elder_id AND {binding_before}
         ORDER BY b.bound_at DESC, b.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'classification', c.recorded_at, c.id,
                jsonb_build_object('id', c.id, 'effective_on', c.effective_on, 'care_level', c.care_level,
                                   'reasons', c.reasons, 'policy_version', c.policy_version, 'cause', c.cause)
         FROM classification_changes c WHERE c.elder_id = :elder_id AND {classification_before}
         ORDER BY c.recorded_at DESC, c.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'status', s.recorded_at, s.id,
                jsonb_build_object('id', s.id, 'status', s.status, 'reason', s.reason, 'since', s.since,
                                   'until', s.until, 'evidenced', s.evidence IS NOT NULL)
         FROM elder_statuses s WHERE s.elder_id = :elder_id AND {status_before}
         ORDER BY s.recorded_at DESC, s.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'assessment', a.recorded_at, a.id,
                jsonb_build_object('id', a.id, 'assessed_on', a.assessed_on, 'level', a.level, 'score', a.score,
                                   'withdrawn_at', a.withdrawn_at)
         FROM assessments a WHERE a.elder_id = :elder_id AND {assessment_before}
         ORDER BY a.recorded_at DESC, a.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'move', r.recorded_at, r.id, jsonb_build_object('region_code', r.region_code, 'since', r.since)
         FROM residences r WHERE r.elder_id = :elder_id AND {move_before}
         ORDER BY r.recorded_at DESC, r.id DESC LIMIT :limit)
    ) AS happened ORDER BY at DESC, id DESC LIMIT :limit
"""
_TIMES = {
    "visit_before": ("v.started_at, v.id", Right.VISITS_READ),
    "alarm_before": ("a.raised_at, a.id", Right.ALARMS_READ),
    "notice_before": ("n.created_at, n.id", Right.ALARMS_READ),
    "binding_before": ("b.bound_at, b.id", Right.DEVICES_READ),
    "classification_before": ("c.recorded_at, c.id", Right.ELDERS_READ),
    "status_before": ("s.recorded_at, s.id", Right.ELDERS_READ),
    "assessment_before": ("a.recorded_at, a.id", Right.ELDERS_READ),
    "move_before": ("r.recorded_at, r.id", Right.ELDERS_READ),
}


@router.get(
    "/elders/{elder_id}/timeline",
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_READ)],
    summary="Everything about an elder in one order",
)
async def elder_timeline(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[TimelineItem]:
    """Visits, alarms, notices and device changes, newest first: those that you may read in their own lists too."""
    await register.elder_within(session, who, elder_id)
    before = pages.decode(cursor, datetime, UUID)
    older = "({}) < (:at, :id)" if before else "true"
    clauses = {name: older.format(columns) if who.may(right) else "false" for name, (columns, right) in _TIMES.items()}
    values: dict[str, Any] = {"elder_id": elder_id, "limit": limit + 1}
    if before:
        values |= {"at": before[0], "id": before[1]}
    rows = (await session.execute(sa.text(_TIMELINE.format(**clauses)), values)).all()
    return pages.Page[TimelineItem].model_validate(
        pages.page(rows, limit, lambda r: {"kind": r.kind, "at": r.at, "data": r.data}, "at", "id")
    )


def _shape(visit: Visit) -> dict[str, object]:
    return {name: getattr(visit, name) for name in VisitOut.model_fields}
