"""Classes with their reasons, as of any day; versions of the policy, tried before they are put in force."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, begins, normal_scope, within
from app.api import pages
from app.api.bodies import AN_ID, Body, Day, Name, Scope, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.elders import ReasonOut, Remark
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import classifying, policies, register
from app.elders.policies import Version
from app.elders.policy import ClassRules, VisitRules
from app.elders.tables import CarePolicy, ClassificationChange, Elder
from app.elders.vocabulary import AbilityLevel, CareLevel, ChangeCause, ElderStatus, Observed
from app.errors import InvalidInput, NotFound

router = APIRouter(route_class=Transactional, tags=["classification"], dependencies=[Depends(idempotent)])


class Inputs(BaseModel):
    age: int
    ability_level: AbilityLevel | None
    observed: Observed | None
    disability_grade: int | None
    dementia: bool


class ClassificationOut(BaseModel):
    as_of: date
    care_level: CareLevel
    reasons: list[ReasonOut]
    policy_version: str
    inputs: Inputs = Field(description="What it was computed from.")


class ChangeOut(BaseModel):
    id: UUID
    effective_on: date
    care_level: CareLevel
    reasons: list[ReasonOut]
    policy_version: str
    inputs: Inputs
    cause: ChangeCause
    recorded_at: datetime


@router.get(
    "/elders/{elder_id}/classification",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="The class on a day, and why",
)
async def classification(
    elder_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    as_of: Annotated[date | None, Query(description="Today when absent.")] = None,
) -> ClassificationOut:
    """From what was known for that day (assessments count from their day), by the policy of that day, at the age of
    that day. A day to come is a forecast from what is known now."""
    elder = await register.elder_within(session, who, elder_id)
    day = as_of or now.astimezone(parts.tz).date()
    if not elder.birth_date <= day <= date(2200, 1, 1):
        raise InvalidInput("a day between the birth and the year 2200", field="as_of")
    found, known = await classifying.on_day(session, elder, day)
    return ClassificationOut(
        as_of=day,
        care_level=found.care_level,
        reasons=[ReasonOut(**reason.shape()) for reason in found.reasons],
        policy_version=found.policy_version,
        inputs=Inputs(**known.facts.shape(day)),
    )


@router.get(
    "/elders/{elder_id}/classification/changes",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="When the class changed, and why",
)
async def classification_changes(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[ChangeOut]:
    """In the order they were recorded, newest first."""
    await register.elder_within(session, who, elder_id)
    before = pages.decode(cursor, int)
    query = select(ClassificationChange).where(col(ClassificationChange.elder_id) == elder_id)
    if before:
        query = query.where(col(ClassificationChange.seq) < before[0])
    query = query.order_by(col(ClassificationChange.seq).desc()).limit(limit + 1)
    rows = (await session.execute(query)).scalars().all()

    def shape(row: ClassificationChange) -> dict[str, object]:
        return {name: getattr(row, name) for name in ChangeOut.model_fields}

    return pages.Page[ChangeOut].model_validate(pages.page(rows, limit, shape, "seq"))


# --- work to do ------------------------------------------------------------------------------------------------------


class Work(BaseModel):
    """Somebody whose class nobody can say yet. They are visited as key until known (choice 4)."""

    elder_id: UUID
    name: str
    region_code: str
    missing: list[str] = Field(description="What would end it: one of these.", examples=[["assessment", "observation"]])
    enrolled_at: datetime


@router.get(
    "/classification/undetermined",
    dependencies=[needs(Right.ELDERS_READ)],
    summary="People neither assessed nor observed: work to do",
)
async def undetermined(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
) -> pages.Page[Work]:
    """Everybody enrolled without an assessment or an observation, whatever their class: age alone may make them key."""
    query = select(Elder).where(
        within(who, col(Elder.region_code)),
        col(Elder.ability_level).is_(None),
        col(Elder.observed).is_(None),
        col(Elder.status).in_([ElderStatus.ACTIVE, ElderStatus.PAUSED]),
    )
    if region_code:
        query = query.where(begins(col(Elder.region_code), region_code))
    rows = await pages.newest(session, query, col(Elder.id), limit, cursor)

    def shape(elder: Elder) -> dict[str, object]:
        return {
            "elder_id": elder.id, "name": elder.name, "region_code": elder.region_code,
            "missing": ["assessment", "observation"], "enrolled_at": elder.created_at,
        }  # fmt: skip

    return pages.Page[Work].model_validate(pages.page(rows, limit, shape, "id"))


# --- versions of the policy ------------------------------------------------------------------------------------------


class CarePolicyIn(Body):
    model_config = example(
        version="川民〔2027〕1号(草案)", region_code="370302",
        classification={"key_age": 75}, visits=None, note="重点人群年龄降至75岁",
    )  # fmt: skip
    version: Name = Field(description="The document's number. A version is never changed.")
    region_code: Scope = Field(description="Holds for this region and below; the nearest version wins.")
    classification: ClassRules | None = Field(default=None, description="Absent: what holds above goes on holding.")
    visits: VisitRules | None = Field(default=None, description="Absent: what holds above goes on holding.")
    note: Remark | None = None


class CarePolicyOut(BaseModel):
    id: UUID
    version: str
    region_code: str
    classification: ClassRules | None
    visits: VisitRules | None
    note: str | None
    in_force_from: date | None
    decided_at: datetime | None
    created_at: datetime


class InForceIn(Body):
    model_config = example(**{"from": "2027-01-01"})
    since: Day = Field(alias="from", description="The first day, today or later.")


class DryRunIn(Body):
    model_config = example(region_code="370302001", classification={"key_age": 75})
    policy_id: UUID | None = Field(default=None, description="A draft; or give `classification`.", examples=[AN_ID])
    classification: ClassRules | None = None
    region_code: Scope = Field(description="Whose elders are looked at.")
    as_of: Day | None = Field(default=None, description="Today when absent.")


class WayOut(BaseModel):
    before: CareLevel = Field(alias="from")
    after: CareLevel = Field(alias="to")
    elders: int


class MoveOut(BaseModel):
    elder_id: UUID
    name: str
    region_code: str
    before: CareLevel = Field(alias="from")
    after: CareLevel = Field(alias="to")
    reasons_before: list[ReasonOut]
    reasons: list[ReasonOut]


class DryRunOut(BaseModel):
    region_code: str
    as_of: date
    looked_at: int
    would_move: int
    moves: list[WayOut]
    items: list[MoveOut]
    next_cursor: str | None = Field(description="Give it back as `cursor` for more of `items`; null at the end.")


def _policy(row: CarePolicy) -> dict[str, Any]:
    return {name: getattr(row, name) for name in CarePolicyOut.model_fields}


def _must_be_own(who: Principal, region_code: str) -> None:
    """Rules are decided for one's own region and below."""
    if not region_code.startswith(who.region_code):
        raise InvalidInput("the region is outside your own", field="region_code")


@router.get(
    "/care-policies",
    dependencies=[needs(Right.ELDERS_READ)],
    summary="Versions of the rules that concern your region, newest first",
)
async def care_policies(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[CarePolicyOut]:
    """Those of the regions above hold for you, those below you answer for."""
    above = [who.region_code[:length] for length in range(len(who.region_code) + 1)]
    query = select(CarePolicy).where(within(who, col(CarePolicy.region_code)) | col(CarePolicy.region_code).in_(above))
    rows = await pages.newest(session, query, col(CarePolicy.id), limit, cursor)
    return pages.Page[CarePolicyOut].model_validate(pages.page(rows, limit, _policy, "id"))


@router.post(
    "/care-policies",
    dependencies=[needs(Right.CARE_RULES)],
    status_code=201,
    summary="Write a version; it is a draft until put in force",
)
async def write_care_policy(body: CarePolicyIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> CarePolicyOut:
    """Fields of a part that are absent are those of the plan of 2023. A township may have its own frequencies."""
    region_code = normal_scope(body.region_code)
    _must_be_own(who, region_code)
    row = await policies.draft(
        session, version=body.version, region_code=region_code, classification=body.classification,
        visits=body.visits, note=body.note, now=now,
    )  # fmt: skip
    _note(session, who, "care_policy.written", row, now)
    return CarePolicyOut.model_validate(_policy(row))


@router.get(
    "/care-policies/{policy_id}",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="One version",
)
async def care_policy(policy_id: UUID, who: PrincipalDep, session: SessionDep) -> CarePolicyOut:
    return CarePolicyOut.model_validate(_policy(await policies.policy_within(session, who, policy_id)))


@router.post(
    "/care-policies/{policy_id}/in-force",
    dependencies=[needs(Right.CARE_RULES)],
    responses=responses(404),
    summary="Put a version in force",
)
async def put_care_policy_in_force(
    policy_id: UUID, body: InForceIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> CarePolicyOut:
    """From a day on, today or later. Everybody it touches is classed again when that day has come."""
    row = await policies.policy_within(session, who, policy_id, lock=True)
    _must_be_own(who, row.region_code)
    today = now.astimezone(parts.tz).date()
    await policies.put_in_force(session, row, since=body.since, by=who.who(), now=now, today=today)
    _note(session, who, "care_policy.in_force", row, now, since=body.since.isoformat())
    return CarePolicyOut.model_validate(_policy(row))


@router.post(
    "/classification/dry-run",
    dependencies=[needs(Right.POLICIES_WRITE)],
    summary="Who would move, and why, under changed rules",
)
async def dry_run(
    body: DryRunIn,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
) -> DryRunOut:
    """Over everybody enrolled in a region; nothing is written. `moves` counts all, `items` is a page of them."""
    prefix = normal_scope(body.region_code)
    if not prefix.startswith(who.region_code):
        raise InvalidInput("the region is outside your own", field="region_code")
    rules, region_code = body.classification, prefix
    if body.policy_id is not None:
        if rules is not None:
            raise InvalidInput("give `policy_id` or `classification`, not both", field="classification")
        try:
            row = await policies.policy_within(session, who, body.policy_id)
        except NotFound as error:
            raise InvalidInput(error.detail, field="policy_id") from None
        region_code = row.region_code
        rules = ClassRules.model_validate(row.classification) if row.classification is not None else None
    if rules is None:
        raise InvalidInput("nothing to try: give `classification`, or a policy that has it", field="classification")
    day = body.as_of or now.astimezone(parts.tz).date()
    after = pages.decode(cursor, UUID)
    run = await classifying.dry_run(
        session, Version("(dry run)", region_code, day, rules, None), prefix=prefix, day=day
    )
    left = [move for move in run.moves if after is None or move.elder_id > after[0]]
    shown = left[:limit]
    people = await register.names_of(session, [move.elder_id for move in shown])
    return DryRunOut(
        region_code=prefix,
        as_of=day,
        looked_at=run.looked_at,
        would_move=len(run.moves),
        moves=[WayOut.model_validate(way) for way in run.counts()],
        items=[
            MoveOut.model_validate({
                "elder_id": move.elder_id, "name": people[move.elder_id][0], "region_code": people[move.elder_id][1],
                "from": move.before.care_level, "to": move.after.care_level,
                "reasons_before": [reason.shape() for reason in move.before.reasons],
                "reasons": [reason.shape() for reason in move.after.reasons],
            })
            for move in shown
        ],
        next_cursor=pages.encode(shown[-1].elder_id) if len(left) > limit else None,
    )  # fmt: skip


def _note(session: AsyncSession, who: Principal, action: str, row: CarePolicy, now: datetime, **detail: Any) -> None:
    audit.note(
        session, who, action=action, subject_type="care_policy", subject_id=row.id, now=now,
        region_code=row.region_code, version=row.version, **detail,
    )  # fmt: skip
