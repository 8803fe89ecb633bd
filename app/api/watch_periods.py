"""Periods in which a home is watched less: somebody is away, or a home is worked on. They always end by themselves."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right
from app.api import pages
from app.api.bodies import Body, Moment, Note, example
from app.api.context import NowDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.errors import Conflict, InvalidInput, NotFound
from app.ids import new_uuid
from app.rules.cover import NEVER_COVERED, PeriodKind, covers
from app.rules.verdict import AlarmKind
from app.watches.settings import look_again
from app.watches.tables import LONGEST_DAYS, WatchPeriod

router = APIRouter(route_class=Transactional, tags=["alarms"], dependencies=[Depends(idempotent)])
_FURTHEST = timedelta(days=366)


class PeriodIn(Body):
    model_config = example(
        kind="away", begins_at="2026-12-01T08:00:00+08:00", ends_at="2026-12-10T18:00:00+08:00", note="去女儿家小住"
    )
    kind: PeriodKind = Field(description="`away`: at most 90 days. `maintenance`: at most 7.")
    begins_at: Moment | None = Field(default=None, description="Now when absent; never in the past.")
    ends_at: Moment = Field(description="Always: whoever stays longer is entered again.")
    note: Annotated[Note, Field(max_length=500)] | None = None


class PeriodOut(BaseModel):
    id: UUID
    elder_id: UUID
    kind: PeriodKind
    begins_at: datetime
    ends_at: datetime
    note: str | None
    created_at: datetime
    created_by: str
    ended_at: datetime | None
    ended_by: str | None
    covers: list[AlarmKind] = Field(description="Kinds of alarms that are held back meanwhile, and told at its end.")
    never_covers: list[AlarmKind]


@router.get(
    "/elders/{elder_id}/watch-periods",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="When the elder was or will be away, or the home is worked on",
)
async def periods(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[PeriodOut]:
    await register.elder_within(session, who, elder_id)
    query = select(WatchPeriod).where(col(WatchPeriod.elder_id) == elder_id)
    before = pages.decode(cursor, UUID)
    if before:
        query = query.where(col(WatchPeriod.id) < before[0])
    rows = (await session.execute(query.order_by(col(WatchPeriod.id).desc()).limit(limit + 1))).scalars().all()
    return pages.Page[PeriodOut].model_validate(pages.page(rows, limit, lambda row: _shape(row).model_dump(), "id"))


@router.post(
    "/elders/{elder_id}/watch-periods",
    status_code=201,
    dependencies=[needs(Right.ALARMS_WRITE)],
    responses=responses(404),
    summary="Enter an absence, or work on the home",
)
async def enter(elder_id: UUID, body: PeriodIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> PeriodOut:
    """Alarms about the person (away), or about the person, the door and the devices (maintenance) are held back until it
    ends. An SOS, a fall, smoke, gas, a leak and a person's report never are."""
    elder = await register.elder_within(session, who, elder_id)
    begins = body.begins_at or now
    if begins < now - timedelta(minutes=1):
        raise InvalidInput("it begins now or later", field="begins_at")
    if begins > now + _FURTHEST:
        raise InvalidInput("more than a year ahead", field="begins_at")
    longest = LONGEST_DAYS[body.kind]
    if not begins < body.ends_at <= begins + timedelta(days=longest):
        raise InvalidInput(f"it ends after it begins, and within {longest} days", field="ends_at")
    row = WatchPeriod(
        id=new_uuid(now), elder_id=elder_id, kind=body.kind, begins_at=begins, ends_at=body.ends_at, note=body.note,
        created_at=now, created_by=str(who.who()["name"])[:100],
    )  # fmt: skip
    session.add(row)
    await session.flush()
    await look_again(session, elder_id=elder_id, region_code="", at=now)
    _note(session, who, "watch_period.entered", row, elder.region_code, now, ends_at=str(row.ends_at))
    return _shape(row)


@router.post(
    "/watch-periods/{period_id}/end",
    dependencies=[needs(Right.ALARMS_WRITE)],
    responses=responses(404),
    summary="End a period now: the elder is back, the work is done",
)
async def end(period_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> PeriodOut:
    """From now on everything is told again; a silence counts from now."""
    query = select(WatchPeriod).where(col(WatchPeriod.id) == period_id).with_for_update()
    row = (await session.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound("no such period")
    elder = await register.elder_within(session, who, row.elder_id)
    if row.ended_at is not None or row.ends_at <= now:
        raise Conflict("the period is over")
    row.ended_at, row.ended_by = now, str(who.who()["name"])[:100]
    await session.flush()
    await look_again(session, elder_id=row.elder_id, region_code="", at=now)
    _note(session, who, "watch_period.ended", row, elder.region_code, now)
    return _shape(row)


def _note(
    session: AsyncSession, who: Principal, action: str, row: WatchPeriod, region_code: str, now: datetime, **detail: str
) -> None:
    audit.note(
        session, who, action=action, subject_type="watch_period", subject_id=row.id, now=now, region_code=region_code,
        elder_id=row.elder_id, kind=row.kind, **detail,
    )  # fmt: skip


def _shape(row: WatchPeriod) -> PeriodOut:
    own = {name: getattr(row, name) for name in PeriodOut.model_fields if not name.endswith("covers")}
    held_back = [kind for kind in AlarmKind if covers(PeriodKind(row.kind), kind)]
    return PeriodOut.model_validate(own | {"covers": held_back, "never_covers": sorted(NEVER_COVERED)})
