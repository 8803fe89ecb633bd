"""Elders: the register's basics."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import audit
from app.access.principal import Right
from app.api import pages
from app.api.bodies import Body, Day, Name, Phone, Region12, Short, etag, example, explicit, if_match
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.tables import Elder
from app.elders.vocabulary import AbilityLevel, CareLevel, ElderStatus, Observed, Service, Sex, Tag
from app.errors import InvalidInput

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])
Reveal = Annotated[bool, Query(description="Show sealed fields: a right, and an audit row.")]


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
    ability: Ability
    disability_grade: int | None
    dementia: bool
    services: list[Service]
    status: ElderStatus
    care_level: CareLevel
    care_level_reasons: list[ReasonOut]


class ElderIn(Body):
    model_config = example(
        name="王桂英", id_number="370302194001011221", region_code="370302001000", phone="13800000000",
        address="般阳路1号院3单元201", tags=["living_alone"], dementia=False, services=["daily_living"],
        ability={"level": "severe", "assessed_on": "2026-03-01", "observed": None},
    )  # fmt: skip
    name: Name = Field(examples=["王桂英"])
    id_number: Annotated[str, StringConstraints(min_length=15, max_length=20)] = Field(examples=["370302194001011221"])
    region_code: Region12
    sex: Sex | None = Field(default=None, description="Read from the ID number; checked when given.")
    birth_date: Day | None = Field(default=None, description="Read from the ID number; checked when given.")
    phone: Phone | None = None
    address: Short | None = None
    tags: list[Tag] = Field(default=[], max_length=6)
    ability: AbilityIn = AbilityIn()
    disability_grade: Annotated[int, Field(ge=1, le=4)] | None = None
    dementia: bool = False
    services: list[Service] = Field(default=[], max_length=9)
    status: ElderStatus = ElderStatus.ACTIVE


class ElderChange(Body):
    model_config = example(tags=["living_alone", "empty_nest"], ability={"observed": "bedridden"})
    name: Name | None = None
    region_code: Region12 | None = None
    phone: Phone | None = None
    address: Short | None = None
    tags: list[Tag] | None = Field(default=None, max_length=6)
    ability: AbilityIn | None = None
    disability_grade: Annotated[int, Field(ge=1, le=4)] | None = None
    dementia: bool | None = None
    services: list[Service] | None = Field(default=None, max_length=9)
    status: ElderStatus | None = None


# What the audit log may say of a change. Names, phones and addresses are only "changed": it outlives an erased identity.
_HARMLESS = ("region_code", "tags", "ability_level", "ability_assessed_on", "observed", "disability_grade", "dementia",
             "services", "status")  # fmt: skip
_NEVER_NULL = ("name", "region_code", "tags", "dementia", "services", "status", "ability")


@router.get("/elders", dependencies=[needs(Right.ELDERS_READ)], summary="Elders within your scope, newest first")
async def elders(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
    name: Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")] = None,
    tag: Tag | None = None,
) -> pages.Page[ElderOut]:
    before = pages.decode(cursor, UUID)
    rows = await register.list_elders(
        session,
        who,
        limit=limit,
        before=before[0] if before else None,
        region_code=region_code,
        name=name,
        tag=tag.value if tag else None,
    )
    today = now.astimezone(parts.tz).date()
    return pages.Page[ElderOut].model_validate(
        pages.page(rows, limit, lambda e: register.elder_shape(e, sealer=parts.sealer, today=today), "id")
    )


@router.post(
    "/elders",
    status_code=201,
    responses=responses(409),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Enrol an elder",
)
async def enrol(
    body: ElderIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> ElderOut:
    """The ID number gives birth date and sex and is checked: ISO 7064 MOD 11-2 and a real date."""
    today = now.astimezone(parts.tz).date()
    fields = _flat(body.model_dump(), today)
    elder = await register.enrol(session, who, fields, sealer=parts.sealer, now=now, today=today)
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
    return _out(elder, parts, today)


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
    reveal: Reveal = False,
) -> ElderOut:
    found = await register.elder_within(session, who, elder_id)
    if reveal:
        who.must(Right.REVEAL)
        audit.note(
            session,
            who,
            action="elder.revealed",
            subject_type="elder",
            subject_id=elder_id,
            now=now,
            region_code=found.region_code,
        )
    response.headers.update(etag(found.version))
    return _out(found, parts, now.astimezone(parts.tz).date(), plainly=reveal)


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
    before = {name: getattr(found, name) for name in _HARMLESS}
    await register.change_elder(session, who, found, fields, sealer=parts.sealer, now=now)
    if found.region_code != lived_in:
        await _take_along(session, elder_id, found.region_code)
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
    return _out(found, parts, today)


# Scope is judged by the region code of a row: whoever moves takes theirs along, or the old region would go on seeing.
_TAKE_ALONG = tuple(
    sa.text(statement)
    for statement in (
        "UPDATE alarms SET region_code = :code WHERE elder_id = :id",
        "UPDATE visits SET region_code = :code WHERE elder_id = :id",
        "UPDATE feed_events SET region_code = :code WHERE alarm_id IN (SELECT id FROM alarms WHERE elder_id = :id)",
        "UPDATE devices SET region_code = :code, version = version + 1 WHERE device_id IN "
        "(SELECT device_id FROM bindings WHERE elder_id = :id AND unbound_at IS NULL)",
    )
)


async def _take_along(session: AsyncSession, elder_id: UUID, code: str) -> None:
    for statement in _TAKE_ALONG:
        await session.execute(statement, {"id": elder_id, "code": code})


def _flat(fields: dict[str, object], today: date) -> dict[str, object]:
    """`ability` is one object outside and three columns inside."""
    ability = fields.pop("ability", None)
    if isinstance(ability, dict):
        if (ability.get("assessed_on") or today) > today:
            raise InvalidInput("an assessment in the future", field="ability.assessed_on")
        names = {"level": "ability_level", "assessed_on": "ability_assessed_on", "observed": "observed"}
        fields.update({names[name]: value for name, value in ability.items()})
    return fields


def _out(elder: Elder, parts: PartsDep, today: date, *, plainly: bool = False) -> ElderOut:
    return ElderOut.model_validate(register.elder_shape(elder, sealer=parts.sealer, today=today, plainly=plainly))
