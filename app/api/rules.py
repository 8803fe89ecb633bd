"""Settings of the rules over time: what holds for whom and who said so; new versions, and their history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, normal_scope
from app.api import pages
from app.api.bodies import Body, Moment, Note, Scope, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.errors import InvalidInput, NotFound
from app.ids import new_uuid
from app.rules.settings import RuleFault, Rules, as_document, describe, lay_over, read_document
from app.rules.silence import hours_in_words
from app.watches.following import read_state
from app.watches.settings import Held, look_again, over, rulebook, sources
from app.watches.tables import HomeState, RuleVersion

router = APIRouter(route_class=Transactional, tags=["alarms"], dependencies=[Depends(idempotent)])
_FURTHEST = timedelta(days=366)
Document = dict[str, dict[str, Any]]
ElderQuery = Annotated[UUID | None, Query(description="What holds for this elder.")]
RegionQuery = Annotated[
    Scope | None, Query(description="What holds for a region, where no elder's own settings stand.")
]


class RuleSource(BaseModel):
    """Who decided a field: a version of a region or of the elder."""

    scope: str = Field(examples=["region", "elder"])
    region_code: str | None
    version_id: UUID
    valid_from: datetime


class HourLimit(BaseModel):
    """How long the elder's home may be quiet from an hour on, and why."""

    hour: int
    minutes: int
    because: str


class RulesOut(BaseModel):
    elder_id: UUID | None
    region_code: str
    settings: Document = Field(description="Every field with the value that holds now.")
    sources: dict[str, RuleSource] = Field(description="The fields that somebody set; all others are defaults.")
    fields: dict[str, dict[str, dict[str, Any]]] = Field(description="Each field's default, range, unit and meaning.")
    limits: list[HourLimit] | None = Field(description="For an elder whose devices were heard: the limits as learned.")


class RulesIn(Body):
    model_config = example(
        region_code="370302001", settings={"door_left_open": {"after_minutes": 45}}, note="夏季白天开门通风"
    )
    elder_id: UUID | None = None
    region_code: Scope | None = Field(default=None, description="Your own region when neither is given.")
    settings: Document = Field(
        description="Only what differs from what is inherited, in place of what this scope said before; `{}` takes all back."
    )
    valid_from: Moment | None = Field(default=None, description="Now when absent; never in the past.")
    note: Annotated[Note, Field(max_length=500)] | None = None


class RuleVersionOut(BaseModel):
    id: UUID
    region_code: str | None
    elder_id: UUID | None
    settings: Document
    valid_from: datetime
    note: str | None
    created_at: datetime
    created_by: str


@router.get(
    "/rules",
    dependencies=[needs(Right.ALARMS_READ)],
    responses=responses(404),
    summary="The settings that hold, and who decided them",
)
async def rules(
    who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep,
    elder_id: ElderQuery = None, region_code: RegionQuery = None,
) -> RulesOut:  # fmt: skip
    """Defaults, then the settings of the regions from the outermost in, then the elder's own."""
    place = await _place(session, who, elder_id, region_code)
    book = await rulebook(session, [elder_id] if elder_id else [], now=now)
    held = book.rules(place, elder_id)
    decided = {path: _source(one) for path, one in sources(book.versions(place, elder_id))}
    limits = await _limits(session, elder_id, held) if elder_id else None
    return RulesOut(
        elder_id=elder_id,
        region_code=place,
        settings=as_document(held),
        sources=decided,
        fields=describe(),
        limits=limits,
    )


@router.put(
    "/rules",
    dependencies=[needs(Right.POLICIES_WRITE)],
    responses=responses(404),
    summary="Set what a region's or an elder's rules are from now on",
)
async def set_rules(body: RulesIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> RuleVersionOut:
    """A new version for one scope, in force from `valid_from`. Try it on last month first: `shouwang replay --rules`."""
    if body.elder_id is not None and body.region_code is not None:
        raise InvalidInput("give elder_id or region_code, not both", field="elder_id")
    begins = body.valid_from or now
    if begins < now - timedelta(minutes=1):
        raise InvalidInput("settings hold from now on or later: the past is not judged anew", field="valid_from")
    if begins > now + _FURTHEST:
        raise InvalidInput("more than a year ahead", field="valid_from")
    place = await _place(session, who, body.elder_id, body.region_code, to_change=True)
    try:
        document = read_document(body.settings)
        book = await rulebook(session, [body.elder_id] if body.elder_id else [], now=now)
        lay_over(over(book, place, body.elder_id, document), strict=True)
    except RuleFault as fault:
        raise InvalidInput(str(fault), field=f"settings.{fault.path}") from None
    row = RuleVersion(
        id=new_uuid(now), region_code=None if body.elder_id else place, elder_id=body.elder_id, settings=document,
        valid_from=begins, note=body.note, created_at=now, created_by=str(who.who()["name"])[:100],
    )  # fmt: skip
    session.add(row)
    await session.flush()
    await look_again(session, elder_id=body.elder_id, region_code=place, at=begins)
    audit.note(
        session, who, action="rules.set", subject_type="rules", subject_id=row.id, now=now, region_code=place,
        elder_id=body.elder_id, settings=document, valid_from=str(begins),
    )  # fmt: skip
    return _version(row)


@router.get(
    "/rules/history",
    dependencies=[needs(Right.ALARMS_READ)],
    responses=responses(404),
    summary="Versions of a region's or an elder's settings, newest first",
)
async def history(
    who: PrincipalDep, session: SessionDep, elder_id: ElderQuery = None, region_code: RegionQuery = None,
    limit: pages.Limit = 50, cursor: pages.Cursor = None,
) -> pages.Page[RuleVersionOut]:  # fmt: skip
    """Of an elder: their own. Of a region: its own, those above and those below it; your own region when neither is given."""
    place = await _place(session, who, elder_id, region_code)
    query = select(RuleVersion)
    if elder_id is not None:
        query = query.where(col(RuleVersion.elder_id) == elder_id)
    else:
        code = sa.cast(col(RuleVersion.region_code), sa.Text)
        touching = sa.or_(sa.func.starts_with(code, place), sa.func.starts_with(sa.literal(place), code))
        query = query.where(col(RuleVersion.elder_id).is_(None), touching)
    before = pages.decode(cursor, UUID)
    if before:
        query = query.where(col(RuleVersion.id) < before[0])
    rows = (await session.execute(query.order_by(col(RuleVersion.id).desc()).limit(limit + 1))).scalars().all()
    return pages.Page[RuleVersionOut].model_validate(
        pages.page(rows, limit, lambda row: _version(row).model_dump(), "id")
    )


async def _place(
    session: AsyncSession, who: Principal, elder_id: UUID | None, region_code: str | None, *, to_change: bool = False
) -> str:
    """The region a question is about: the elder's, the one named, or one's own."""
    if elder_id is not None:
        return (await register.elder_within(session, who, elder_id)).region_code
    place = who.region_code if region_code is None else normal_scope(region_code)
    if not who.sees(place) and (to_change or not who.region_code.startswith(place)):
        raise NotFound("no such region within your own")
    if to_change and region_code is not None:
        await register.must_be_region(session, who, place.ljust(12, "0"))
    return place


def _source(one: Held) -> RuleSource:
    return RuleSource(
        scope="elder" if one.elder_id else "region", region_code=one.region_code, version_id=one.id,
        valid_from=one.valid_from,
    )  # fmt: skip


async def _limits(session: AsyncSession, elder_id: UUID, held: Rules) -> list[HourLimit] | None:
    row = await session.get(HomeState, elder_id)
    if row is None:
        return None
    return [
        HourLimit(hour=hour, minutes=minutes, because=words)
        for hour, minutes, words in hours_in_words(read_state(row.state), held)
    ]


def _version(row: RuleVersion) -> RuleVersionOut:
    return RuleVersionOut.model_validate({name: getattr(row, name) for name in RuleVersionOut.model_fields})
