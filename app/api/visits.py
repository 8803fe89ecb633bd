"""Visits and attempts, recorded, corrected, voided; an elder's timeline shows them beside the alarms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, within
from app.api import pages
from app.api.bodies import AN_ID, Body, Moment, Note, etag, example, explicit, if_match, printable
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.findings import FindingIn, add_finding
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.vocabulary import Service
from app.errors import InvalidInput, NotFound, VersionMismatch
from app.visits import ledger
from app.visits.examining import door_evidence
from app.visits.ledger import Deed
from app.visits.rules import because
from app.visits.tables import Visit, VisitPartner, VisitVersion
from app.visits.vocabulary import DoorEvidence, HealthAspect, HealthGrade, Method, NotCounted, VisitOutcome

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])
Why = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(printable)]


class Health(Body):
    """二（三）1: what the visitor saw of each, when they looked."""

    expression: HealthGrade | None = None
    mobility: HealthGrade | None = None
    reaction: HealthGrade | None = None
    illness: HealthGrade | None = None
    mood: HealthGrade | None = None


class VisitIn(Body):
    model_config = example(
        elder_id=AN_ID, method="home", started_at="2026-11-20T09:00:00+08:00", ended_at="2026-11-20T09:30:00+08:00",
        services=["daily_living", "emotional_support"], note="精神很好", health={"mobility": "fair", "mood": "good"},
    )  # fmt: skip
    elder_id: UUID
    visitor_id: UUID | None = None
    partner_ids: list[UUID] = Field(default=[], max_length=10, description="Who came along: still one visit.")
    method: Method
    outcome: VisitOutcome = Field(default=VisitOutcome.MET, description="Anything but `met` is an attempt.")
    started_at: Moment = Field(examples=["2026-11-20T09:00:00+08:00"])
    ended_at: Moment | None = None
    services: list[Service] = Field(default=[], max_length=9)
    health: Health = Health()
    note: Note | None = None
    alarm_id: UUID | None = Field(
        default=None,
        description="A response in person: 应急救援 is ticked; an emergency entry needs no consent, and is logged.",
    )
    findings: list[FindingIn] = Field(default=[], max_length=20)
    reason: Why | None = Field(default=None, description="Asked for when the month is closed.")


class VisitChange(Body):
    model_config = example(method="phone", reason="误选了入户")
    visitor_id: UUID | None = None
    partner_ids: list[UUID] | None = Field(default=None, max_length=10)
    method: Method | None = None
    outcome: VisitOutcome | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    services: list[Service] | None = Field(default=None, max_length=9)
    health: Health | None = None
    note: Note | None = None
    reason: Why = Field(description="Why it is corrected; kept beside the original.")


class ReasonIn(Body):
    model_config = example(reason="重复录入")
    reason: Why


class OverrideIn(Body):
    model_config = example(qualifying=True, reason="老人住院,改为电话探访")
    qualifying: bool
    reason: Why


class OverrideOut(BaseModel):
    qualifying: bool
    reason: str
    by: str


class VisitOut(BaseModel):
    id: UUID
    elder_id: UUID
    visitor_id: UUID | None
    partner_ids: list[UUID]
    method: Method
    outcome: VisitOutcome
    started_at: datetime
    ended_at: datetime | None
    services: list[Service]
    health: dict[HealthAspect, HealthGrade]
    note: str | None
    alarm_id: UUID | None
    qualifying: bool
    non_qualifying_reason: str | None = Field(description="The clause and a sentence.")
    non_qualifying_code: NotCounted | None
    same_as: UUID | None = Field(description="The visit this entry is counted with.")
    late: bool = Field(description="Written down long after it happened.")
    override: OverrideOut | None
    place_code: str = Field(description="Where the elder lived on that day: statistics count it there.")
    voided_at: datetime | None
    void_reason: str | None
    recorded_at: datetime
    version: int


class DoorOut(BaseModel):
    evidence: DoorEvidence = Field(description="Of a visit at home: whether the home's door moved around it.")
    events: int
    first_at: datetime | None


class VisitDetail(VisitOut):
    door: DoorOut | None = Field(description="What corroborates it; null for a visit that was not at home.")


class VersionOut(BaseModel):
    version: int
    data: dict[str, Any] = Field(description="The visit as it was before the change.")
    replaced_at: datetime
    replaced_by: str
    reason: str


class TimelineItem(BaseModel):
    kind: str = Field(examples=["visit", "attempt", "alarm", "notice", "consent", "binding", "classification"])
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
    qualifying: bool | None = None,
    late: bool | None = None,
) -> pages.Page[VisitOut]:
    """Attempts and voided entries too: `qualifying` tells what counts."""
    before = pages.decode(cursor, datetime, UUID)
    query = select(Visit).where(within(who, col(Visit.region_code)))
    if elder_id:
        query = query.where(col(Visit.elder_id) == elder_id)
    if visitor_id:
        along = select(VisitPartner.visit_id).where(col(VisitPartner.visitor_id) == visitor_id)
        query = query.where(sa.or_(col(Visit.visitor_id) == visitor_id, col(Visit.id).in_(along)))
    if qualifying is not None:
        query = query.where(col(Visit.qualifying) == qualifying)
    if late is not None:
        query = query.where(col(Visit.late) == late)
    if before:
        query = query.where(sa.tuple_(col(Visit.started_at), col(Visit.id)) < tuple(before))
    query = query.order_by(col(Visit.started_at).desc(), col(Visit.id).desc()).limit(limit + 1)
    rows = (await session.execute(query)).scalars().all()
    partners = await ledger.partners_of(session, [row.id for row in rows])
    return pages.Page[VisitOut].model_validate(
        pages.page(rows, limit, lambda v: _shape(v, partners.get(v.id, [])), "started_at", "id")
    )


@router.post(
    "/visits", dependencies=[needs(Right.VISITS_WRITE)], status_code=201, summary="Record a visit or an attempt"
)
async def record(
    body: VisitIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> VisitOut:
    """Everything is recorded; `qualifying` says whether it counts, with the clause when it does not. What is recorded
    late is marked. The same visit recorded by two visitors counts once."""
    try:
        elder = await register.elder_within(session, who, body.elder_id, lock=True)
    except NotFound:
        raise InvalidInput("no such elder", field="elder_id") from None
    await _must_be_visitors(session, who, body.visitor_id, body.partner_ids)
    if body.alarm_id is not None:
        owner = await session.scalar(sa.text("SELECT elder_id FROM alarms WHERE id = :id"), {"id": body.alarm_id})
        if owner != elder.id:
            raise InvalidInput("no such alarm of this elder", field="alarm_id")
    fields = body.model_dump(exclude={"elder_id", "partner_ids", "findings", "reason", "health"})
    fields["health"] = body.health.model_dump(mode="json", exclude_none=True)
    if body.alarm_id is not None and Service.EMERGENCY_AID not in body.services:
        fields["services"] = [*body.services, Service.EMERGENCY_AID]
    deed = Deed(who, now, parts.tz, body.reason)
    made = await ledger.record(session, elder, fields, body.partner_ids, deed)
    for finding in body.findings:
        await add_finding(session, who, elder, finding, now=now, tz=parts.tz, visit_id=made.id)
    if body.alarm_id is not None and body.method is Method.HOME:
        _note(session, who, "visit.emergency_entry", made, now, alarm_id=str(body.alarm_id))
    return await shown(session, made, response)


async def _must_be_visitors(
    session: AsyncSession, who: Principal, visitor_id: UUID | None, partners: Sequence[UUID] | None
) -> None:
    if visitor_id is not None:
        await register.must_be_visitor(session, who, visitor_id)
    for one in partners or ():
        try:
            await register.visitor_within(session, who, one)
        except NotFound:
            raise InvalidInput("no such visitor", field="partner_ids") from None


@router.get(
    "/visits/{visit_id}", dependencies=[needs(Right.VISITS_READ)], responses=responses(404), summary="One visit"
)
async def visit(visit_id: UUID, response: Response, who: PrincipalDep, session: SessionDep) -> VisitDetail:
    """With what the home's door sensor says about it: corroboration, and never more than a question."""
    found = await _visit_within(session, who, visit_id)
    response.headers.update(etag(found.version))
    door = (await door_evidence(session, [found]))[found.id] if found.method is Method.HOME else None
    shown_door = DoorOut(evidence=door.evidence, events=door.events, first_at=door.first_at) if door else None
    return VisitDetail(**(await _out(session, found)).model_dump(), door=shown_door)


async def _visit_within(
    session: AsyncSession, who: Principal, visit_id: UUID, *, lock: bool = False, version: int | None = None
) -> Visit:
    """Raises `NotFound` for an id that is absent or outside the scope, alike. Locks the elder before the visit."""
    found = await session.get(Visit, visit_id)
    if found is None or not who.sees(found.region_code):
        raise NotFound("no such visit")
    if lock:
        await register.elder_within(session, who, found.elder_id, lock=True)
        await session.refresh(found, with_for_update=True)
    if version is not None and version != found.version:
        raise VersionMismatch("the visit changed since you read it; read it again")
    return found


def _may_change(who: Principal, found: Visit) -> None:
    """Whoever wrote it down, or whoever manages the register."""
    if found.created_by != str(who.id):
        who.must(Right.ELDERS_WRITE)


@router.patch(
    "/visits/{visit_id}",
    dependencies=[needs(Right.VISITS_WRITE)],
    responses=responses(404, 412),
    summary="Correct a visit; the original is kept",
)
async def correct(
    visit_id: UUID,
    body: VisitChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> VisitOut:
    """Only the fields that are given change. In a closed month the correction is a delta with your name."""
    found = await _visit_within(session, who, visit_id, lock=True, version=version)
    _may_change(who, found)
    fields = explicit(body)
    for name in ("method", "outcome", "started_at", "services", "health", "partner_ids"):
        if name in fields and fields[name] is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    fields.pop("reason")
    partners = fields.pop("partner_ids", None)
    await _must_be_visitors(session, who, fields.get("visitor_id"), partners)
    if body.health is not None:
        fields["health"] = body.health.model_dump(mode="json", exclude_none=True)
    await ledger.correct(session, found, fields, partners, Deed(who, now, parts.tz, body.reason))
    _note(session, who, "visit.corrected", found, now, fields=sorted(fields))
    response.headers.update(etag(found.version))
    return await _out(session, found)


@router.post(
    "/visits/{visit_id}/void",
    dependencies=[needs(Right.VISITS_WRITE)],
    responses=responses(404),
    summary="Void a wrong entry; it stays in the history",
)
async def void(
    visit_id: UUID, body: ReasonIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> VisitOut:
    found = await _visit_within(session, who, visit_id, lock=True)
    _may_change(who, found)
    await ledger.void(session, found, Deed(who, now, parts.tz, body.reason))
    _note(session, who, "visit.voided", found, now)
    return await _out(session, found)


@router.post(
    "/visits/{visit_id}/override",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="Decide whether a visit counts",
)
async def override(
    visit_id: UUID, body: OverrideIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> VisitOut:
    """A supervisor's, with a reason: over the method or a missing consent, or against an entry. Never over an attempt."""
    found = await _visit_within(session, who, visit_id, lock=True)
    await ledger.override(session, found, qualifying=body.qualifying, deed=Deed(who, now, parts.tz, body.reason))
    _note(session, who, "visit.overridden", found, now, qualifying=body.qualifying)
    return await _out(session, found)


@router.get(
    "/visits/{visit_id}/versions",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="What a visit was before each change",
)
async def versions(
    visit_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[VersionOut]:
    await _visit_within(session, who, visit_id)
    before = pages.decode(cursor, int)
    query = select(VisitVersion).where(col(VisitVersion.visit_id) == visit_id)
    if before:
        query = query.where(col(VisitVersion.version) < before[0])
    rows = (await session.execute(query.order_by(col(VisitVersion.version).desc()).limit(limit + 1))).scalars().all()

    def shape(row: VisitVersion) -> dict[str, object]:
        return {
            "version": row.version, "data": row.data, "replaced_at": row.replaced_at,
            "replaced_by": row.replaced_by.get("name", ""), "reason": row.reason,
        }  # fmt: skip

    return pages.Page[VersionOut].model_validate(pages.page(rows, limit, shape, "version"))


def _note(session: AsyncSession, who: Principal, action: str, found: Visit, now: datetime, **detail: Any) -> None:
    audit.note(
        session, who, action=action, subject_type="visit", subject_id=found.id, now=now,
        region_code=found.region_code, **detail,
    )  # fmt: skip


# Each part is cut to a page by its own index before the parts are merged: the cost is the page's, not the history's.
_TIMELINE = """
    SELECT kind, at, id, data FROM (
        (SELECT CASE WHEN v.outcome = 'met' THEN 'visit' ELSE 'attempt' END AS kind, v.started_at AS at, v.id,
                jsonb_build_object('id', v.id, 'method', v.method, 'visitor_id', v.visitor_id, 'services', v.services,
                                   'note', v.note, 'alarm_id', v.alarm_id, 'ended_at', v.ended_at,
                                   'outcome', v.outcome, 'qualifying', v.qualifying, 'voided_at', v.voided_at) AS data
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
        (SELECT 'consent', k.recorded_at, k.id,
                jsonb_build_object('id', k.id, 'scope', k.scope, 'given_by', k.given_by, 'given_on', k.given_on,
                                   'expires_on', k.expires_on, 'withdrawn_on', k.withdrawn_on)
         FROM consents k WHERE k.elder_id = :elder_id AND {consent_before}
         ORDER BY k.recorded_at DESC, k.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'finding', s.at, s.id,
                jsonb_build_object('id', f.id, 'kind', f.kind, 'topic', f.topic, 'stage', s.stage, 'note', s.note)
         FROM findings f JOIN finding_steps s ON s.finding_id = f.id
         WHERE f.elder_id = :elder_id AND {finding_before}
         ORDER BY s.at DESC, s.id DESC LIMIT :limit)
        UNION ALL
        (SELECT 'task', t.asked_at, t.id,
                jsonb_build_object('id', t.id, 'kind', t.kind, 'alarm_id', t.alarm_id, 'because', t.because,
                                   'due_at', t.due_at, 'dismissed_at', t.dismissed_at)
         FROM care_tasks t WHERE t.elder_id = :elder_id AND {task_before}
         ORDER BY t.asked_at DESC, t.id DESC LIMIT :limit)
        UNION ALL
        (SELECT w.kind, w.created_at, w.id,
                jsonb_build_object('id', w.id, 'begins_at', w.begins_at, 'ends_at', w.ends_at, 'note', w.note,
                                   'ended_at', w.ended_at)
         FROM watch_periods w WHERE w.elder_id = :elder_id AND {period_before}
         ORDER BY w.created_at DESC, w.id DESC LIMIT :limit)
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
    "consent_before": ("k.recorded_at, k.id", Right.ELDERS_READ),
    "finding_before": ("s.at, s.id", Right.VISITS_READ),
    "task_before": ("t.asked_at, t.id", Right.VISITS_READ),
    "period_before": ("w.created_at, w.id", Right.ELDERS_READ),
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
    """Visits, attempts, alarms, notices, devices, consents, classes, statuses, assessments, findings, tasks, absences and
    moves, newest first: those that you may read in their own lists too."""
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


async def shown(session: AsyncSession, found: Visit, response: Response) -> VisitOut:
    """A visit with its ETag."""
    response.headers.update(etag(found.version))
    return await _out(session, found)


async def _out(session: AsyncSession, found: Visit) -> VisitOut:
    partners = (await ledger.partners_of(session, [found.id])).get(found.id, [])
    return VisitOut.model_validate(_shape(found, partners))


_COMPUTED = ("partner_ids", "non_qualifying_reason", "override", "recorded_at")


def _shape(found: Visit, partners: Sequence[UUID]) -> dict[str, object]:
    code = NotCounted(found.non_qualifying_code) if found.non_qualifying_code else None
    decided = None
    if found.override is not None:
        by = (found.override_by or {}).get("name", "")
        decided = {"qualifying": found.override, "reason": found.override_reason, "by": by}
    return {name: getattr(found, name) for name in VisitOut.model_fields if name not in _COMPUTED} | {
        "partner_ids": partners,
        "non_qualifying_reason": because(code),
        "override": decided,
        "recorded_at": found.created_at,
    }
