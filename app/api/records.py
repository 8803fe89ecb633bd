"""What an elder's record is made of besides its fields: assessments, statuses, places, family."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right
from app.access.sealing import mask_phone
from app.api import pages
from app.api.bodies import Body, Day, Name, Phone, Short, etag, example, explicit, if_match
from app.api.context import NowDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.elders import Remark
from app.api.problems import responses
from app.api.reveals import RevealDep
from app.api.transactional import Transactional, idempotent
from app.elders import classifying, history, register
from app.elders.phones import normal_phone
from app.elders.status import EFFECTS, AlarmsGo, Counting
from app.elders.tables import AbilityScale, Assessment, Elder, FamilyMember, StatusEntry
from app.elders.vocabulary import AbilityLevel, ChangeCause, ElderStatus, StatusReason
from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch
from app.ids import new_uuid

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])


async def _change(session: AsyncSession, elder: Elder, cause: ChangeCause, now: datetime, today: date) -> None:
    await register.touch(session, elder, now=now)
    await classifying.refresh(session, elder, cause=cause, now=now, today=today)


def _note(session: AsyncSession, who: Principal, action: str, elder: Elder, now: datetime, **detail: Any) -> None:
    audit.note(
        session, who, action=action, subject_type="elder", subject_id=elder.id, now=now,
        region_code=elder.region_code, **detail,
    )  # fmt: skip


# --- assessments -----------------------------------------------------------------------------------------------------


class AssessmentIn(Body):
    model_config = example(
        assessed_on="2026-03-01", score=41, scale="GB/T 42195-2022", assessor="张评估", organisation="淄川区评估中心"
    )
    assessed_on: Day
    level: AbilityLevel | None = Field(default=None, description="Follows from the score when absent.")
    score: int | None = Field(default=None, ge=0, le=1000)
    scale: Name | None = Field(default=None, description="GB/T 42195-2022 when absent; see /ability-scales.")
    assessor: Name | None = None
    organisation: Short | None = None
    note: Remark | None = None


class AssessmentOut(BaseModel):
    id: UUID
    assessed_on: date
    level: AbilityLevel
    score: int | None
    scale: str | None
    assessor: str | None
    organisation: str | None
    note: str | None
    recorded_at: datetime
    withdrawn_at: datetime | None
    withdrawn_reason: str | None


class Withdrawal(Body):
    model_config = example(reason="填错了人")
    reason: Remark


def _assessment(row: Assessment) -> dict[str, object]:
    return {name: getattr(row, name) for name in AssessmentOut.model_fields}


@router.get(
    "/elders/{elder_id}/assessments",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="Ability assessments, newest first",
)
async def assessments(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[AssessmentOut]:
    """In the order they were recorded. What is withdrawn is shown too, with its reason."""
    await register.elder_within(session, who, elder_id)
    query = select(Assessment).where(col(Assessment.elder_id) == elder_id)
    rows = await pages.newest(session, query, col(Assessment.id), limit, cursor)
    return pages.Page[AssessmentOut].model_validate(pages.page(rows, limit, _assessment, "id"))


@router.post(
    "/elders/{elder_id}/assessments",
    dependencies=[needs(Right.ELDERS_WRITE)],
    status_code=201,
    responses=responses(404),
    summary="Record an assessment",
)
async def assess(
    elder_id: UUID, body: AssessmentIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> AssessmentOut:
    """The latest by its day is what the class goes by; an older one entered late only completes the history."""
    today = now.astimezone(parts.tz).date()
    elder = await register.elder_within(session, who, elder_id, lock=True)
    made = await history.add_assessment(session, elder, **body.model_dump(), by=str(who.id), now=now, today=today)
    await _change(session, elder, ChangeCause.CHANGED, now, today)
    _note(session, who, "elder.assessed", elder, now, assessment_id=str(made.id), level=made.level)
    return AssessmentOut.model_validate(_assessment(made))


@router.post(
    "/elders/{elder_id}/assessments/{assessment_id}/withdraw",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="Withdraw a wrong assessment",
)
async def withdraw_assessment(
    elder_id: UUID,
    assessment_id: UUID,
    body: Withdrawal,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
) -> AssessmentOut:
    """It stays in the history with the reason and no longer counts."""
    today = now.astimezone(parts.tz).date()
    elder = await register.elder_within(session, who, elder_id, lock=True)
    found = await history.withdraw_assessment(session, elder, assessment_id, reason=body.reason, now=now, today=today)
    await _change(session, elder, ChangeCause.CHANGED, now, today)
    _note(session, who, "elder.assessment_withdrawn", elder, now, assessment_id=str(assessment_id))
    return AssessmentOut.model_validate(_assessment(found))


class Band(BaseModel):
    model_config = {"extra": "forbid", "populate_by_name": True}
    level: AbilityLevel
    lowest: int = Field(alias="from", ge=0, le=1000)
    highest: int = Field(alias="to", ge=0, le=1000)


class ScaleIn(Body):
    model_config = example(
        name="GB/T 42195-2022 (0-90)",
        bands=[{"level": "intact", "from": 90, "to": 90}, {"level": "mild", "from": 66, "to": 89},
               {"level": "moderate", "from": 46, "to": 65}, {"level": "severe", "from": 30, "to": 45},
               {"level": "complete", "from": 0, "to": 29}],
    )  # fmt: skip
    name: Name
    bands: list[Band] = Field(min_length=5, max_length=5)


class ScaleOut(BaseModel):
    name: str
    bands: list[Band]


@router.get("/ability-scales", dependencies=[needs(Right.ELDERS_READ)], summary="Which score means which ability")
async def scales(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[ScaleOut]:
    """Public sources differ in the bands: they are data. In the order of their names."""
    after = pages.decode(cursor, str)
    query = select(AbilityScale).order_by(col(AbilityScale.name)).limit(limit + 1)
    if after:
        query = query.where(col(AbilityScale.name) > after[0])
    rows = (await session.execute(query)).scalars().all()
    return pages.Page[ScaleOut].model_validate(
        pages.page(rows, limit, lambda s: {"name": s.name, "bands": s.bands}, "name")
    )


@router.post("/ability-scales", dependencies=[needs(Right.CARE_RULES)], status_code=201, summary="Add a scale")
async def add_scale(body: ScaleIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> ScaleOut:
    """Each level once, no gap and no overlap. A scale is never changed: assessments were made by it. All
    regions share the scales: for accounts of the whole district."""
    who.must_oversee_a_district()
    bands = sorted(body.bands, key=lambda band: band.lowest)
    if len({band.level for band in bands}) != len(AbilityLevel):
        raise InvalidInput("each of the five levels has one band", field="bands")
    for band, above in zip(bands, [*bands[1:], None], strict=True):
        if band.highest < band.lowest or (above is not None and above.lowest != band.highest + 1):
            raise InvalidInput("bands go from their `from` to their `to` without gap or overlap", field="bands")
    if await session.get(AbilityScale, body.name) is not None:
        raise Conflict("a scale of this name exists already; give the new one another name", field="name")
    shape = [band.model_dump(by_alias=True, mode="json") for band in body.bands]
    session.add(AbilityScale(name=body.name, bands=shape, created_at=now))
    audit.note(session, who, action="ability_scale.added", subject_type="ability_scale", subject_id=body.name, now=now)
    await session.flush()
    return ScaleOut.model_validate({"name": body.name, "bands": shape})


# --- statuses --------------------------------------------------------------------------------------------------------


class StatusIn(Body):
    model_config = example(status="paused", reason="in_hospital", since="2026-11-20", evidence="区医院入院通知单")
    status: ElderStatus
    reason: StatusReason | None = None
    since: Day | None = Field(default=None, description="Today when absent; never in the future.")
    until: Day | None = Field(default=None, description="A pause ends by itself after this day.")
    evidence: Remark | None = Field(
        default=None, description="Without evidence the adjusted visiting rate still counts the person."
    )


class EffectsOut(BaseModel):
    alarms: AlarmsGo
    visits_due: bool
    counting: Counting
    collect_devices: bool


class StatusOut(BaseModel):
    id: UUID
    status: ElderStatus
    reason: StatusReason | None
    since: date
    until: date | None
    evidence: str | None
    effects: EffectsOut = Field(description="What it means for alarms, visits and statistics.")
    recorded_at: datetime


class Meaning(EffectsOut):
    status: ElderStatus
    reason: StatusReason | None


def _status(row: StatusEntry) -> dict[str, object]:
    effects = EFFECTS[row.status, row.reason]
    shown = {name: getattr(row, name) for name in StatusOut.model_fields if name != "effects"}
    return {**shown, "effects": {name: getattr(effects, name) for name in EffectsOut.model_fields}}


@router.get(
    "/elder-statuses",
    dependencies=[needs(Right.PLACES_READ)],
    summary="What each status means for alarms, visits and statistics",
)
async def status_meanings(_: PrincipalDep) -> pages.Page[Meaning]:
    """No status ever silences an alarm."""
    items = [
        Meaning(status=status, reason=reason, **{name: getattr(effects, name) for name in EffectsOut.model_fields})
        for (status, reason), effects in EFFECTS.items()
    ]
    return pages.Page[Meaning](items=items, next_cursor=None)


@router.get(
    "/elders/{elder_id}/statuses",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="Statuses with their evidence",
)
async def statuses(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[StatusOut]:
    """In the order they were recorded, newest first."""
    await register.elder_within(session, who, elder_id)
    query = select(StatusEntry).where(col(StatusEntry.elder_id) == elder_id)
    rows = await pages.newest(session, query, col(StatusEntry.id), limit, cursor)
    return pages.Page[StatusOut].model_validate(pages.page(rows, limit, _status, "id"))


@router.post(
    "/elders/{elder_id}/statuses",
    dependencies=[needs(Right.ELDERS_WRITE)],
    status_code=201,
    responses=responses(404),
    summary="Change the status",
)
async def set_status(
    elder_id: UUID, body: StatusIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> StatusOut:
    """In hospital, in an institution, away, refused, moved, deceased, or active again; from a day on, with evidence."""
    today = now.astimezone(parts.tz).date()
    elder = await register.elder_within(session, who, elder_id, lock=True)
    given = body.model_dump()
    given["since"] = given["since"] or today
    made = await history.set_status(session, elder, **given, by=str(who.id), now=now, today=today)
    await _change(session, elder, ChangeCause.STATUS, now, today)
    _note(session, who, "elder.status", elder, now, status=made.status, reason=made.reason, since=str(made.since))
    return StatusOut.model_validate(_status(made))


# --- places ----------------------------------------------------------------------------------------------------------


class ResidenceOut(BaseModel):
    region_code: str
    since: date
    until: date | None = Field(description="The last day, included; null: they live there.")


@router.get(
    "/elders/{elder_id}/residences",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="Where the elder lived since when",
)
async def residences(elder_id: UUID, who: PrincipalDep, session: SessionDep) -> pages.Page[ResidenceOut]:
    """Visits and statistics count for the place of their day."""
    await register.elder_within(session, who, elder_id)
    query = sa.text(
        "SELECT region_code, since, lead(since) OVER (ORDER BY since) - 1 AS until FROM residences "
        "WHERE elder_id = :id ORDER BY since DESC"
    )
    rows = await session.execute(query, {"id": elder_id})
    return pages.Page[ResidenceOut](items=[ResidenceOut(**row) for row in rows.mappings()], next_cursor=None)


# --- family ----------------------------------------------------------------------------------------------------------


class FamilyIn(Body):
    model_config = example(name="王小明", relation="儿子", phone="13800000002", supporter=True, lives_away=True)
    name: Name
    relation: Annotated[Name, StringConstraints(max_length=50)]
    phone: Phone | None = None
    lives_with: bool = False
    supporter: bool = Field(default=False, description="赡养人: has the legal duty; may consent to visits at home.")
    lives_away: bool = Field(default=False, description="在外地居住: is reminded to phone, not to come.")


class FamilyChange(Body):
    model_config = example(phone="13900000002", lives_with=True)
    name: Name | None = None
    relation: Annotated[Name, StringConstraints(max_length=50)] | None = None
    phone: Phone | None = None
    lives_with: bool | None = None
    supporter: bool | None = None
    lives_away: bool | None = None


class FamilyOut(BaseModel):
    id: UUID
    name: str
    relation: str
    phone: str | None
    lives_with: bool
    supporter: bool
    lives_away: bool


_HARMLESS_OF_FAMILY = ("relation", "lives_with", "supporter", "lives_away")


def _relative(row: FamilyMember, parts: Parts, *, plainly: bool = False) -> dict[str, object]:
    phone = parts.sealer.open_optional(row.phone_sealed, record=row.id)
    shown = {name: getattr(row, name) for name in FamilyOut.model_fields if name != "phone"}
    return {**shown, "phone": phone if plainly else mask_phone(phone)}


async def _relative_within(
    session: AsyncSession, elder_id: UUID, member_id: UUID, *, lock: bool = False
) -> FamilyMember:
    query = select(FamilyMember).where(col(FamilyMember.id) == member_id, col(FamilyMember.elder_id) == elder_id)
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such family member")
    return found


@router.get(
    "/elders/{elder_id}/family",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="Family members (annex 1)",
)
async def family(
    elder_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    reveal: RevealDep = None,
) -> pages.Page[FamilyOut]:
    """Not the emergency contacts: those have channels, and are told of alarms."""
    elder = await register.elder_within(session, who, elder_id)
    query = select(FamilyMember).where(col(FamilyMember.elder_id) == elder_id)
    rows = await pages.newest(session, query, col(FamilyMember.id), limit, cursor)
    if reveal:
        reveal.note(
            session, who, action="family.revealed", subject_type="elder", subject_id=elder_id, now=now,
            region_code=elder.region_code, names=(elder.name, *(row.name for row in rows)),
        )  # fmt: skip
    return pages.Page[FamilyOut].model_validate(
        pages.page(rows, limit, lambda row: _relative(row, parts, plainly=reveal is not None), "id")
    )


@router.post(
    "/elders/{elder_id}/family",
    dependencies=[needs(Right.ELDERS_WRITE)],
    status_code=201,
    responses=responses(404),
    summary="Add a family member",
)
async def add_relative(
    elder_id: UUID,
    body: FamilyIn,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
) -> FamilyOut:
    elder = await register.elder_within(session, who, elder_id)
    member_id = new_uuid(now)
    phone = normal_phone(body.phone) if body.phone else None
    made = FamilyMember(
        id=member_id, elder_id=elder_id, phone_sealed=parts.sealer.seal_optional(phone, record=member_id),
        created_at=now, **body.model_dump(exclude={"phone"}),
    )  # fmt: skip
    session.add(made)
    await session.flush()
    _note(session, who, "family.added", elder, now, member_id=str(member_id))
    response.headers.update(etag(made.version))
    return FamilyOut.model_validate(_relative(made, parts))


@router.patch(
    "/elders/{elder_id}/family/{member_id}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404, 412),
    summary="Change a family member",
)
async def change_relative(
    elder_id: UUID,
    member_id: UUID,
    body: FamilyChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> FamilyOut:
    elder = await register.elder_within(session, who, elder_id)
    found = await _relative_within(session, elder_id, member_id, lock=True)
    if version is not None and version != found.version:
        raise VersionMismatch("the family member changed since you read it; read it again")
    fields = explicit(body)
    before = {name: getattr(found, name) for name in _HARMLESS_OF_FAMILY}
    for name, value in fields.items():
        if name == "phone":
            phone = normal_phone(value) if value else None
            found.phone_sealed = parts.sealer.seal_optional(phone, record=member_id)
        elif value is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
        else:
            setattr(found, name, value)
    found.version += 1
    await session.flush()
    changed = audit.changes(before, fields, plain=_HARMLESS_OF_FAMILY)
    _note(session, who, "family.changed", elder, now, member_id=str(member_id), changes=changed)
    response.headers.update(etag(found.version))
    return FamilyOut.model_validate(_relative(found, parts))


@router.delete(
    "/elders/{elder_id}/family/{member_id}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    status_code=204,
    responses=responses(404),
    summary="Remove a family member",
)
async def remove_relative(elder_id: UUID, member_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    elder = await register.elder_within(session, who, elder_id)
    await session.delete(await _relative_within(session, elder_id, member_id, lock=True))
    _note(session, who, "family.removed", elder, now, member_id=str(member_id))
