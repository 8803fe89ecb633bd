"""Elders: the register's basics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import audit
from app.access.principal import Principal, Right
from app.api import pages
from app.api.bodies import (
    Address,
    Body,
    Day,
    Name,
    Phone,
    Region12,
    Scope,
    etag,
    example,
    explicit,
    if_match,
    one_line,
    printable,
)
from app.api.context import NowDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import refusal, responses
from app.api.reveals import Purpose, RevealDep, must_say_why
from app.api.transactional import Transactional, idempotent
from app.discretion import without_identity
from app.elders import moving, policies, register
from app.elders.identity import read_id_number
from app.elders.tables import Elder
from app.elders.vocabulary import (
    AbilityLevel,
    CareLevel,
    Circumstance,
    ElderStatus,
    Observed,
    Service,
    Sex,
    StatusReason,
    Tag,
)
from app.errors import Conflict, InvalidInput

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])
IdNumber = Annotated[str, StringConstraints(min_length=15, max_length=20)]
OtherTag = Annotated[str, StringConstraints(min_length=1, max_length=20), AfterValidator(one_line)]
Remark = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(printable)]
Tail = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}$"), Field(description="The last four digits of the phone.")]


class Ability(BaseModel):
    level: AbilityLevel | None
    assessed_on: date | None
    observed: Observed | None


class AbilityIn(Body):
    level: AbilityLevel | None = None
    assessed_on: Day | None = None
    observed: Observed | None = None


class ReasonOut(BaseModel):
    clause: str = Field(examples=["二（一）1"])
    because: str


class ElderOut(BaseModel):
    id: UUID
    name: str
    sex: Sex
    birth_date: date
    age: int
    id_number: str = Field(examples=["370302********1226"])
    phone: str | None
    address: str | None
    region_code: str
    tags: list[Tag]
    other_tags: list[str] = Field(description="Difficulties beside the six of the policy, whose list is open.")
    ability: Ability
    disability_grade: int | None
    dementia: bool
    circumstances: list[Circumstance]
    services: list[Service]
    service_notes: dict[Service, str]
    willing: bool | None = Field(description="Whether they want to be visited; null: not asked yet.")
    willing_asked_on: date | None
    surveyed_on: date | None
    remarks: str | None
    status: ElderStatus
    status_reason: StatusReason | None
    status_since: date | None
    status_until: date | None
    status_evidenced: bool
    care_level: CareLevel
    care_level_reasons: list[ReasonOut]
    policy_version: str


class ElderIn(Body):
    model_config = example(
        name="王桂英", id_number="370302194001011221", region_code="370302001000", phone="13800000000",
        address="般阳路1号院3单元201", tags=["living_alone"], dementia=False, services=["daily_living"],
        ability={"level": "severe", "assessed_on": "2026-03-01", "observed": None},
    )  # fmt: skip
    name: Name = Field(examples=["王桂英"])
    id_number: IdNumber = Field(examples=["370302194001011221"])
    region_code: Region12
    sex: Sex | None = Field(default=None, description="Read from the ID number; checked when given.")
    birth_date: Day | None = Field(default=None, description="Read from the ID number; checked when given.")
    phone: Phone | None = None
    address: Address | None = None
    tags: list[Tag] = Field(default=[], max_length=6)
    other_tags: list[OtherTag] = Field(default=[], max_length=6)
    ability: AbilityIn = AbilityIn()
    disability_grade: Annotated[int, Field(ge=1, le=4)] | None = None
    dementia: bool = False
    circumstances: list[Circumstance] = Field(
        default=[], max_length=6, description="What makes visits at home necessary whatever the ability (二（四）2)."
    )
    services: list[Service] = Field(default=[], max_length=9)
    service_notes: dict[Service, Remark] = Field(default={}, max_length=9, description="Annex 1: what is wanted.")
    willing: bool | None = Field(default=None, description="意愿: whether they want to be visited; null: not asked.")
    willing_asked_on: Day | None = None
    surveyed_on: Day | None = Field(default=None, description="The date on annex 1.")
    remarks: Remark | None = None
    status: ElderStatus = ElderStatus.ACTIVE
    status_reason: StatusReason | None = Field(
        default=None, description="Why paused; moved and deceased speak for themselves."
    )
    status_since: Day | None = Field(default=None, description="Today when absent.")
    status_until: Day | None = Field(default=None, description="A pause ends by itself after this day.")
    status_evidence: Remark | None = Field(
        default=None, description="Without evidence the adjusted visiting rate still counts the person."
    )


class ElderChange(Body):
    model_config = example(tags=["living_alone", "empty_nest"], ability={"observed": "bedridden"})
    name: Name | None = None
    id_number: IdNumber | None = Field(default=None, description="A wrong one put right; birth date and sex follow it.")
    region_code: Region12 | None = None
    phone: Phone | None = None
    address: Address | None = None
    moved_on: Day | None = Field(default=None, description="With a new `region_code`: since when; today when absent.")
    tags: list[Tag] | None = Field(default=None, max_length=6)
    other_tags: list[OtherTag] | None = Field(default=None, max_length=6)
    ability: AbilityIn | None = None
    disability_grade: Annotated[int, Field(ge=1, le=4)] | None = None
    dementia: bool | None = None
    circumstances: list[Circumstance] | None = Field(
        default=None, max_length=6, description="What makes visits at home necessary whatever the ability (二（四）2)."
    )
    services: list[Service] | None = Field(default=None, max_length=9)
    service_notes: dict[Service, Remark] | None = Field(
        default=None, max_length=9, description="Annex 1: what is wanted."
    )
    willing: bool | None = Field(default=None, description="意愿: whether they want to be visited; null: not asked.")
    willing_asked_on: Day | None = None
    surveyed_on: Day | None = Field(default=None, description="The date on annex 1.")
    remarks: Remark | None = None
    status: ElderStatus | None = None
    status_reason: StatusReason | None = Field(
        default=None, description="Why paused; moved and deceased speak for themselves."
    )
    status_since: Day | None = Field(default=None, description="Today when absent.")
    status_until: Day | None = Field(default=None, description="A pause ends by itself after this day.")
    status_evidence: Remark | None = Field(
        default=None, description="Without evidence the adjusted visiting rate still counts the person."
    )


# What the audit log may say of a change. Names, phones and addresses are only "changed": it outlives an erased identity.
_HARMLESS = ("region_code", "tags", "ability_level", "ability_assessed_on", "observed", "disability_grade", "dementia",
             "services", "circumstances", "willing", "willing_asked_on", "surveyed_on", "moved_on", "status", "status_reason",
             "status_since", "status_until")  # fmt: skip
_NEVER_NULL = ("name", "id_number", "region_code", "tags", "other_tags", "dementia", "circumstances", "services", "service_notes",
               "status", "ability")  # fmt: skip


class ElderSearch(Body):
    """Any of these; all that are given must fit."""

    model_config = example(id_number="370302194001011221", purpose="来电核对身份")
    purpose: Purpose
    id_number: IdNumber | None = None
    phone_tail: Tail | None = None
    name: Name | None = Field(default=None, description="A part of the name, or its pinyin: `wgy`, `wangguiying`.")
    region_code: Scope | None = None


@router.get("/elders", dependencies=[needs(Right.ELDERS_READ)], summary="Elders within your scope, newest first")
async def elders(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
    name: Annotated[
        str | None,
        Query(
            max_length=100,
            pattern=r"^[^\x00]*$",
            description="A part of the name, or its pinyin: `wgy`, `wangguiying`.",
        ),
    ] = None,
    phone_tail: Annotated[
        str | None, Query(pattern=r"^[0-9]{4}$", description="The phone's last four digits: a right, and an audit row.")
    ] = None,
    purpose: Annotated[Purpose | None, Query()] = None,
    tag: Tag | None = None,
    status: ElderStatus | None = None,
    care_level: CareLevel | None = None,
) -> pages.Page[ElderOut]:
    before = pages.decode(cursor, UUID)
    if phone_tail:
        who.must(Right.REVEAL)
        must_say_why(purpose)
    rows = await register.list_elders(
        session,
        who,
        limit=limit,
        before=before[0] if before else None,
        region_code=region_code,
        name=name,
        tag=tag.value if tag else None,
        status=status.value if status else None,
        care_level=care_level.value if care_level else None,
        phone_tails=parts.sealer.indexes(register.phone_tail(phone_tail)) if phone_tail else None,
    )
    if phone_tail:
        _note_search(session, who, ["phone_tail"], must_say_why(purpose), [row.name for row in rows], now)
    return await _page(session, rows, limit, parts, now)


@router.post("/elders/search", dependencies=[needs(Right.REVEAL)], summary="Find elders by ID number or phone")
async def search(
    body: ElderSearch,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
) -> pages.Page[ElderOut]:
    """ID numbers stay out of addresses and logs. It is a right, and an audit row; by name alone `GET /elders` will do."""
    given = sorted(body.model_dump(exclude_none=True, exclude={"purpose"}))
    if not given:
        raise InvalidInput("say what to search by: id_number, phone_tail, name or region_code")
    before = pages.decode(cursor, UUID)
    number = read_id_number(body.id_number, today=now.astimezone(parts.tz).date()).number if body.id_number else None
    rows = await register.list_elders(
        session,
        who,
        limit=limit,
        before=before[0] if before else None,
        region_code=body.region_code,
        name=body.name,
        phone_tails=parts.sealer.indexes(register.phone_tail(body.phone_tail)) if body.phone_tail else None,
        id_numbers=parts.sealer.indexes(number) if number else None,
    )
    _note_search(session, who, given, body.purpose, [body.name or "", *(row.name for row in rows)], now)
    return await _page(session, rows, limit, parts, now)


def _note_search(
    session: AsyncSession, who: Principal, by: list[str], purpose: str, names: Sequence[str], now: datetime
) -> None:
    """Also of a search that finds nobody. `names`, of those found and of whom was asked for, do not get into it."""
    audit.note(
        session, who, action="elder.searched", subject_type="elder", subject_id="", now=now,
        region_code=who.region_code or None, by=by,
        purpose=without_identity(purpose, *names),
    )  # fmt: skip


async def _page(
    session: AsyncSession, rows: Sequence[Elder], limit: int, parts: Parts, now: datetime
) -> pages.Page[ElderOut]:
    today, in_force = now.astimezone(parts.tz).date(), await policies.in_force(session)

    def shape(elder: Elder) -> dict[str, object]:
        return register.elder_shape(elder, sealer=parts.sealer, today=today, in_force=in_force)

    return pages.Page[ElderOut].model_validate(pages.page(rows, limit, shape, "id"))


@router.post(
    "/elders",
    status_code=201,
    response_model=ElderOut,
    responses=responses(409),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Enrol an elder",
)
async def enrol(
    body: ElderIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> ElderOut | JSONResponse:
    """The ID number gives birth date and sex and is checked: ISO 7064 MOD 11-2 and a real date. One person is enrolled
    once: 409, the same wherever it is. Who is not in your list may be enrolled elsewhere; the region above can move them."""
    today = now.astimezone(parts.tz).date()
    fields = _flat(body.model_dump(), today)
    try:
        elder = await register.enrol(session, who, fields, sealer=parts.sealer, now=now, today=today)
    except Conflict as error:
        if error.field != "id_number":
            raise
        # Whoever tries ID numbers out leaves a trace; returned, not raised, so that it is kept.
        audit.note(
            session, who, action="elder.enrolment_refused", subject_type="region", subject_id=body.region_code,
            now=now, region_code=body.region_code, because="enrolled already",
        )  # fmt: skip
        return refusal(error)
    audit.note(
        session,
        who,
        action="elder.enrolled",
        subject_type="elder",
        subject_id=elder.id,
        now=now,
        region_code=elder.region_code,
    )
    response.headers.update({**etag(elder.version), "Location": f"/api/v1/elders/{elder.id}"})
    return await out(session, elder, parts, today)


@router.get(
    "/elders/{elder_id}", responses=responses(404), dependencies=[needs(Right.ELDERS_READ)], summary="One elder"
)
async def elder(
    elder_id: UUID,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    reveal: RevealDep = None,
) -> ElderOut:
    found = await register.elder_within(session, who, elder_id)
    if reveal:
        reveal.note(
            session, who, action="elder.revealed", subject_type="elder", subject_id=elder_id, now=now,
            region_code=found.region_code, names=(found.name,),
        )  # fmt: skip
    response.headers.update(etag(found.version))
    return await out(session, found, parts, now.astimezone(parts.tz).date(), plainly=reveal is not None)


@router.patch(
    "/elders/{elder_id}",
    responses=responses(404, 412),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Change an elder",
)
async def change(
    elder_id: UUID,
    body: ElderChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> ElderOut:
    """Only the fields that are given change. Send If-Match with the ETag you read to refuse a lost update."""
    fields = explicit(body)
    for name in _NEVER_NULL:
        if name in fields and fields[name] is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    found = await register.elder_within(session, who, elder_id, version=version, lock=True)
    lived_in, today = found.region_code, now.astimezone(parts.tz).date()
    fields = _flat(fields, today)
    before = {name: getattr(found, name) for name in _HARMLESS if name != "moved_on"}
    await register.change_elder(session, who, found, fields, sealer=parts.sealer, now=now, today=today)
    if found.region_code != lived_in:
        await moving.take_along(session, elder_id, found.region_code)
    audit.note(
        session,
        who,
        action="elder.changed",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=found.region_code,
        changes=audit.changes(before, fields, plain=_HARMLESS),
    )
    if found.region_code != lived_in:
        audit.note(
            session, who, action="elder.moved_away", subject_type="elder", subject_id=elder_id, now=now,
            region_code=lived_in,
        )  # fmt: skip
    response.headers.update(etag(found.version))
    return await out(session, found, parts, today)


def _flat(fields: dict[str, object], today: date) -> dict[str, object]:
    """`ability` is one object outside and three columns inside."""
    ability = fields.pop("ability", None)
    if isinstance(ability, dict):
        if (ability.get("assessed_on") or today) > today:
            raise InvalidInput("an assessment in the future", field="ability.assessed_on")
        names = {"level": "ability_level", "assessed_on": "ability_assessed_on", "observed": "observed"}
        fields.update({names[name]: value for name, value in ability.items()})
    return fields


async def out(session: AsyncSession, elder: Elder, parts: Parts, today: date, *, plainly: bool = False) -> ElderOut:
    """The elder's shape."""
    in_force = await policies.in_force(session)
    return ElderOut.model_validate(
        register.elder_shape(elder, sealer=parts.sealer, today=today, in_force=in_force, plainly=plainly)
    )
