"""Alarms: seen, answered, closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.principal import Principal, Right
from app.access.wall import beyond
from app.alarms import handling
from app.alarms.raising import Report, raise_alarms
from app.alarms.views import COLUMNS
from app.alarms.vocabulary import AlarmState, Outcome
from app.api import pages
from app.api.bodies import AN_ID, Body, Note, Short, etag, example, if_match
from app.api.context import NowDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.vocabulary import Sex
from app.errors import InvalidInput, NotFound
from app.notify.vocabulary import ChannelKind, NoticeState, Purpose
from app.rules.verdict import AlarmKind, Severity
from app.words import say

router = APIRouter(route_class=Transactional, tags=["alarms"], dependencies=[Depends(idempotent)])
Version = Annotated[int | None, Depends(if_match)]


class By(BaseModel):
    type: str = Field(examples=["contact"])
    id: str
    name: str


class AlarmElder(BaseModel):
    id: UUID
    name: str
    sex: Sex
    age: int
    region_code: str
    phone: str | None
    address: str | None


class Trigger(BaseModel):
    device_id: str | None
    event_id: str | None
    occurred_at: datetime
    received_at: datetime
    late: bool


class Escalation(BaseModel):
    step: int
    next_at: datetime | None


class AlarmOut(BaseModel):
    id: UUID
    elder: AlarmElder
    kind: AlarmKind
    severity: Severity
    state: AlarmState
    because: str
    trigger: Trigger
    raised_at: datetime
    first_sent_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: By | None
    promise_due_at: datetime | None
    attended_at: datetime | None
    attended_by: By | None
    resolved_at: datetime | None
    outcome: Outcome | None
    repeats: int
    escalation: Escalation
    unreachable_since: datetime | None


class AlarmIn(Body):
    model_config = example(elder_id=AN_ID, kind="reported", severity="critical", note="邻居听到呼救")
    elder_id: UUID
    kind: AlarmKind = AlarmKind.REPORTED
    severity: Severity = Severity.CRITICAL
    note: Short = Field(examples=["邻居听到呼救"])


class AcknowledgeIn(Body):
    model_config = example(eta_minutes=10, note="我住隔壁,马上到")
    eta_minutes: int = Field(default=handling.DEFAULT_ETA_MINUTES, ge=1, le=240)
    note: Note | None = None


class AttendIn(Body):
    model_config = example(note="已到门口")
    note: Note | None = None


class ResolveIn(Body):
    model_config = example(outcome="elder_well", note="误碰按钮,人没事")
    outcome: Outcome
    note: Note | None = None


class CommentIn(Body):
    model_config = example(text="已联系120")
    text: Annotated[Note, Field(min_length=1, examples=["已联系120"])]


class Recipient(BaseModel):
    type: str
    id: str
    name: str
    role: str


class NoticeOut(BaseModel):
    id: UUID
    alarm_id: UUID
    recipient: Recipient
    channel: ChannelKind
    purpose: Purpose
    state: NoticeState
    reason: str
    attempts: int
    created_at: datetime
    sent_at: datetime | None
    error: str | None


class Entry(BaseModel):
    kind: str = Field(examples=["raised"])
    at: datetime
    data: dict[str, Any]


class EntryList(BaseModel):
    items: list[Entry]


_ROWS = f"SELECT {COLUMNS} FROM alarms a JOIN elders e ON e.id = a.elder_id"  # noqa: S608 - a constant


@router.get("/alarms", dependencies=[needs(Right.ALARMS_READ)], summary="Alarms within your scope, newest first")
async def alarms(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    state: AlarmState | None = None,
    elder_id: UUID | None = None,
    kind: AlarmKind | None = None,
    severity: Severity | None = None,
) -> pages.Page[AlarmOut]:
    before = pages.decode(cursor, UUID)
    filters = {"a.state": state, "a.elder_id": elder_id, "a.kind": kind, "a.severity": severity}
    where = ["a.region_code ^@ :scope"]
    values: dict[str, Any] = {"scope": who.region_code, "limit": limit + 1}
    for number, (column, value) in enumerate(filters.items()):
        if value is not None:
            where.append(f"{column} = :f{number}")
            values[f"f{number}"] = value
    if before:
        where.append("a.id < :before")
        values["before"] = before[0]
    query = f"{_ROWS} WHERE {' AND '.join(where)} ORDER BY a.id DESC LIMIT :limit"
    rows = (await session.execute(sa.text(query), values)).all()
    return pages.Page[AlarmOut].model_validate(
        pages.page(rows, limit, lambda r: parts.shapes.alarm(r._mapping, now=now), "alarm_id")
    )


@router.post(
    "/alarms",
    status_code=201,
    responses=responses(),
    dependencies=[needs(Right.ALARMS_WRITE)],
    summary="A person reports an alarm",
)
async def report(
    body: AlarmIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> AlarmOut:
    """An unresolved alarm of the same elder and kind is joined, not doubled."""
    try:
        elder = await register.elder_within(session, who, body.elder_id)
    except NotFound:
        raise InvalidInput("no such elder", field="elder_id") from None
    reported = Report(
        elder_id=elder.id, region_code=elder.region_code, kind=body.kind, severity=body.severity,
        because=say("because.reported", name=who.username, note=body.note), occurred_at=now, received_at=now,
        by=who.who(),
    )  # fmt: skip
    async with beyond(session, "an alarm tells the whole circle, whoever reports it"):
        raised = await raise_alarms(session, [reported], now=now, tz=parts.tz)
    return await _out(session, parts, raised[0].alarm_id, response, now)


@router.get(
    "/alarms/{alarm_id}", responses=responses(404), dependencies=[needs(Right.ALARMS_READ)], summary="One alarm"
)
async def alarm(
    alarm_id: UUID, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> AlarmOut:
    await _within(session, alarm_id)
    return await _out(session, parts, alarm_id, response, now)


@router.post(
    "/alarms/{alarm_id}/acknowledge",
    responses=responses(404, 409, 412),
    dependencies=[needs(Right.ALARMS_WRITE)],
    summary="Promise to come",
)
async def acknowledge(
    alarm_id: UUID,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    body: AcknowledgeIn | None = None,
    version: Version = None,
) -> AlarmOut:
    """A promise that passes without `attend` or `resolve` opens the alarm again."""
    given = body or AcknowledgeIn()
    async with _held(session, alarm_id, version) as held:
        by = await _by(session, who)
        await handling.acknowledge(session, held, by=by, eta_minutes=given.eta_minutes, note=given.note, now=now)
    return await _out(session, parts, alarm_id, response, now)


@router.post(
    "/alarms/{alarm_id}/attend",
    responses=responses(404, 409, 412),
    dependencies=[needs(Right.ALARMS_WRITE)],
    summary="Somebody is there",
)
async def attend(
    alarm_id: UUID,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    body: AttendIn | None = None,
    version: Version = None,
) -> AlarmOut:
    async with _held(session, alarm_id, version) as held:
        by = await _by(session, who)
        await handling.attend(session, held, by=by, note=body.note if body else None, now=now)
    return await _out(session, parts, alarm_id, response, now)


@router.post(
    "/alarms/{alarm_id}/resolve",
    responses=responses(404, 409, 412),
    dependencies=[needs(Right.ALARMS_WRITE)],
    summary="Close with an outcome",
)
async def resolve(
    alarm_id: UUID,
    body: ResolveIn,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Version = None,
) -> AlarmOut:
    async with _held(session, alarm_id, version) as held:
        by = await _by(session, who)
        await handling.resolve(session, held, by=by, outcome=body.outcome, note=body.note, now=now, tz=parts.tz)
    return await _out(session, parts, alarm_id, response, now)


@router.post(
    "/alarms/{alarm_id}/escalate",
    responses=responses(404, 409, 412),
    dependencies=[needs(Right.ALARMS_WRITE)],
    summary="The next step now",
)
async def escalate(
    alarm_id: UUID,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Version = None,
) -> AlarmOut:
    async with _held(session, alarm_id, version) as held:
        await handling.escalate(session, held, by=who.who(), now=now)
    return await _out(session, parts, alarm_id, response, now)


@router.post(
    "/alarms/{alarm_id}/comments",
    status_code=201,
    responses=responses(404),
    dependencies=[needs(Right.ALARMS_WRITE)],
    summary="Remark something",
)
async def comment(alarm_id: UUID, body: CommentIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> Entry:
    async with _held(session, alarm_id) as held:
        await handling.comment(session, held, by=who.who(), text=body.text, now=now)
    return Entry(kind="comment", at=now, data={"by": who.who(), "text": body.text})


@router.get(
    "/alarms/{alarm_id}/notifications",
    responses=responses(404),
    dependencies=[needs(Right.ALARMS_READ)],
    summary="Who was told, how, and how it went",
)
async def notifications(
    alarm_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
) -> pages.Page[NoticeOut]:
    await _within(session, alarm_id)
    before = pages.decode(cursor, UUID)
    rows = (
        await session.execute(
            sa.text(
                "SELECT * FROM notices WHERE alarm_id = :id AND (CAST(:before AS uuid) IS NULL OR id < :before) "
                "ORDER BY id DESC LIMIT :limit"
            ),
            {"id": alarm_id, "before": before[0] if before else None, "limit": limit + 1},
        )
    ).all()
    return pages.Page[NoticeOut].model_validate(
        pages.page(rows, limit, lambda r: parts.shapes.notice(r._mapping), "id")
    )


@router.get(
    "/alarms/{alarm_id}/timeline",
    responses=responses(404),
    dependencies=[needs(Right.ALARMS_READ)],
    summary="What happened, in order",
)
async def timeline(alarm_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep) -> EntryList:
    """Moves, repeats, comments and notices in one order, oldest first (at most 1000)."""
    await _within(session, alarm_id)
    rows = await session.execute(
        sa.text(
            """
            SELECT * FROM (
                SELECT kind, at, jsonb_strip_nulls(jsonb_build_object('by', by)) || data AS data, id
                FROM alarm_entries WHERE alarm_id = :id
                UNION ALL
                SELECT 'notice', coalesce(sent_at, created_at),
                       jsonb_build_object('id', id, 'recipient', jsonb_build_object('type', recipient_type,
                           'id', recipient_id, 'name', recipient_name, 'role', recipient_role), 'channel', channel,
                           'purpose', purpose, 'state', state, 'reason', reason, 'attempts', attempts, 'error', error),
                       id
                FROM notices WHERE alarm_id = :id
            ) AS happened ORDER BY at, id LIMIT 1000
            """
        ),
        {"id": alarm_id},
    )
    return EntryList(items=[Entry(kind=r.kind, at=r.at, data=r.data) for r in rows])


async def _within(session: AsyncSession, alarm_id: UUID) -> None:
    """Raises `NotFound` for an id that is absent or outside the scope, alike."""
    if await session.scalar(sa.text("SELECT 1 FROM alarms WHERE id = :id"), {"id": alarm_id}) is None:
        raise NotFound("no such alarm")


@asynccontextmanager
async def _held(session: AsyncSession, alarm_id: UUID, version: int | None = None) -> AsyncIterator[handling.Held]:
    """Found within the scope and locked; what follows from the answer reaches people whom the one who answers does not
    see."""
    await _within(session, alarm_id)
    async with beyond(session, "everybody who was told hears what became of it"):
        yield await handling.hold(session, alarm_id, version=version)


async def _by(session: Any, who: Principal) -> dict[str, Any]:
    """Who answers. Behind a visitor's account stands the visitor, who is told again like somebody who used a link."""
    if who.visitor_id is None:
        return who.who()
    name = await session.scalar(sa.text("SELECT name FROM visitors WHERE id = :id"), {"id": who.visitor_id})
    return {"type": "visitor", "id": str(who.visitor_id), "name": name or who.username}


async def _out(session: Any, parts: Parts, alarm_id: UUID, response: Response, now: datetime) -> AlarmOut:
    row = (await session.execute(sa.text(f"{_ROWS} WHERE a.id = :id"), {"id": alarm_id})).one()
    response.headers.update(etag(row.alarm_version))
    return AlarmOut.model_validate(parts.shapes.alarm(row._mapping, now=now))
