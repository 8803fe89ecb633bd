"""Regions and their offices."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, within
from app.api import pages
from app.api.bodies import AN_ID, Body, Day, Name, Region12, example
from app.api.context import NowDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.tables import Duty, Region
from app.elders.vocabulary import DutyRole, RegionLevel
from app.errors import InvalidInput

router = APIRouter(route_class=Transactional, tags=["places"], dependencies=[Depends(idempotent)])
Code = Annotated[str, Path(pattern=r"^[0-9]{12}$", examples=["370302001001"])]


class RegionIn(Body):
    model_config = example(code="370302001001", name="样板村")
    code: Region12
    name: Name = Field(examples=["样板村"])
    level: RegionLevel | None = Field(default=None, description="The code says it; refused when it is another.")
    parent_code: Region12 | None = Field(default=None, description="The code says it; refused when it is another.")


class RegionOut(BaseModel):
    code: str
    name: str
    level: RegionLevel
    parent_code: str | None
    latitude: float | None
    longitude: float | None


class PositionIn(Body):
    model_config = example(latitude=36.6442, longitude=117.9669)
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class DutyIn(Body):
    model_config = example(**{"role": "village_head", "visitor_id": AN_ID, "from": "2026-01-01", "to": None})
    role: DutyRole
    visitor_id: UUID
    since: Day = Field(alias="from", examples=["2026-01-01"])
    until: Day | None = Field(default=None, alias="to", description="The last day, included.")


class DutyOut(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    id: UUID
    region_code: str
    role: DutyRole
    visitor_id: UUID
    since: date = Field(alias="from")
    until: date | None = Field(alias="to")


@router.get("/regions", dependencies=[needs(Right.PLACES_READ)], summary="Regions within your scope")
async def regions(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    parent_code: Region12 | None = None,
) -> pages.Page[RegionOut]:
    """In the order of their codes."""
    after = pages.decode(cursor, str)
    query = select(Region).where(within(who, col(Region.code)))
    if parent_code:
        query = query.where(col(Region.parent_code) == parent_code)
    if after:
        query = query.where(col(Region.code) > after[0])
    rows = (await session.execute(query.order_by(col(Region.code)).limit(limit + 1))).scalars().all()
    return pages.Page[RegionOut].model_validate(pages.page(rows, limit, _shape, "code"))


@router.post(
    "/regions",
    status_code=201,
    responses=responses(409),
    dependencies=[needs(Right.REGIONS_WRITE)],
    summary="Add a township or village",
)
async def add_region(body: RegionIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> RegionOut:
    region = await register.add_region(session, who, code=body.code, name=body.name, now=now)
    for field in ("level", "parent_code"):
        if getattr(body, field) not in (None, getattr(region, field)):
            raise InvalidInput(f"the code says {getattr(region, field)}", field=field)
    audit.note(
        session,
        who,
        action="region.added",
        subject_type="region",
        subject_id=region.code,
        now=now,
        region_code=region.code,
    )
    return RegionOut.model_validate(_shape(region))


@router.get("/regions/{code}", responses=responses(404), dependencies=[needs(Right.PLACES_READ)], summary="One region")
async def region(code: Code, who: PrincipalDep, session: SessionDep) -> RegionOut:
    return RegionOut.model_validate(_shape(await register.region_within(session, who, code)))


@router.put(
    "/regions/{code}/position",
    responses=responses(404),
    dependencies=[needs(Right.REGIONS_WRITE)],
    summary="Where a village lies",
)
async def place_region(code: Code, body: PositionIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> RegionOut:
    """About its middle, in degrees (WGS 84). Whether a visitor can have come from one village to another in the time that is
    written down is judged by it; no home has a position."""
    found = await register.region_within(session, who, code)
    found.latitude, found.longitude = body.latitude, body.longitude
    await session.flush()
    audit.note(
        session, who, action="region.placed", subject_type="region", subject_id=code, now=now, region_code=code,
        latitude=body.latitude, longitude=body.longitude,
    )  # fmt: skip
    return RegionOut.model_validate(_shape(found))


@router.get(
    "/regions/{code}/duty",
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_READ)],
    summary="Who holds the offices, and held them",
)
async def duty(
    code: Code, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[DutyOut]:
    await register.region_within(session, who, code)
    query = select(Duty).where(col(Duty.region_code) == code)
    rows = await pages.newest(session, query, col(Duty.id), limit, cursor)
    return pages.Page[DutyOut].model_validate(pages.page(rows, limit, _duty_shape, "id"))


@router.post(
    "/regions/{code}/duty",
    status_code=201,
    responses=responses(404),
    dependencies=[needs(Right.REGIONS_WRITE)],
    summary="Give somebody an office",
)
async def add_duty(code: Code, body: DutyIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> DutyOut:
    """Village head and deputy belong to a village, township duty to a township."""
    region = await register.region_within(session, who, code)
    visitor = await register.must_be_visitor(session, who, body.visitor_id)
    made = await register.add_duty(
        session, region, role=body.role, visitor_id=visitor.id, since=body.since, until=body.until, now=now
    )
    audit.note(
        session,
        who,
        action="duty.given",
        subject_type="region",
        subject_id=code,
        now=now,
        region_code=code,
        role=body.role.value,
        visitor_id=str(visitor.id),
        since=body.since,
        until=body.until,
    )
    return DutyOut.model_validate(_duty_shape(made))


def _shape(region: Region) -> dict[str, object]:
    return {name: getattr(region, name) for name in RegionOut.model_fields}


def _duty_shape(duty: Duty) -> dict[str, object]:
    return {name: getattr(duty, name) for name in DutyOut.model_fields}
