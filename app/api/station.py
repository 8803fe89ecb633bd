"""Training sessions with their look back, and the activity log of village stations (policy rows 33, 41, 42)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, begins, within
from app.api import pages
from app.api.bodies import Body, Day, Name, Region12, Short, etag, example, explicit, if_match, printable
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.stats import RegionText
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.tables import Visitor
from app.elders.vocabulary import RegionLevel, Service
from app.errors import InvalidInput, NotFound, VersionMismatch
from app.ids import new_uuid
from app.reports.area import area
from app.visits.volunteer_tables import StationActivity, TrainingSession

router = APIRouter(route_class=Transactional, tags=["volunteers"], dependencies=[Depends(idempotent)])
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(printable)]
People = Annotated[list[UUID], Field(max_length=200)]


async def _place(session: AsyncSession, who: Principal, code: str, visitors: Sequence[UUID]) -> RegionLevel:
    await register.must_be_region(session, who, code)
    wanted = set(visitors)
    there = select(col(Visitor.id)).where(col(Visitor.id).in_(wanted), within(who, col(Visitor.region_code)))
    if wanted - set((await session.execute(there)).scalars()):
        raise InvalidInput("no such visitor", field="visitor_ids")
    return register.level_of(code)


def _not_in_the_future(day: date, today: date) -> None:
    if day > today:
        raise InvalidInput("what is still to come is no record; enter it on its day", field="held_on")


# --- training --------------------------------------------------------------------------------------------------------


class TrainingIn(Body):
    model_config = example(
        region_code="370302001000", held_on="2026-11-20", place="街道会议室", topic="冬季取暖安全", in_charge="民政办 张主任",
        visitor_ids=[], guests=25, review="上一阶段月探访率96%,两村留守老人回访不足", next_steps="十二月底前补齐入户同意书",
    )  # fmt: skip
    region_code: Region12 = Field(description="Whose meeting it is: a district, township or village.")
    held_on: Day
    place: Short
    topic: Short
    in_charge: Name = Field(description="Who is responsible (二（四）4: a person in charge at district and town).")
    visitor_ids: People = Field(default=[], description="Visitors who took part.")
    guests: int = Field(default=0, ge=0, le=10_000, description="Others who took part, counted.")
    review: Text = Field(description="The look back at the last stage.")
    next_steps: Text | None = None


class TrainingChange(Body):
    model_config = example(guests=27)
    held_on: Day | None = None
    place: Short | None = None
    topic: Short | None = None
    in_charge: Name | None = None
    visitor_ids: People | None = None
    guests: int | None = Field(default=None, ge=0, le=10_000)
    review: Text | None = None
    next_steps: Text | None = None


class TrainingOut(BaseModel):
    id: UUID
    region_code: str
    held_on: date
    place: str
    topic: str
    in_charge: str
    visitor_ids: list[UUID]
    guests: int
    people: int = Field(description="Visitors and others together.")
    review: str
    next_steps: str | None
    created_at: datetime
    created_by: str
    version: int


def _training(row: TrainingSession) -> dict[str, Any]:
    computed = ("people", "created_by")
    return {name: getattr(row, name) for name in TrainingOut.model_fields if name not in computed} | {
        "people": len(row.visitor_ids) + row.guests, "created_by": row.created_by.get("name", ""),
    }  # fmt: skip


def _note(
    session: AsyncSession, who: Principal, action: str, kind: str, row: Any, now: datetime, **detail: Any
) -> None:
    audit.note(
        session,
        who,
        action=action,
        subject_type=kind,
        subject_id=row.id,
        now=now,
        region_code=row.region_code,
        **detail,
    )


@router.get(
    "/training-sessions", dependencies=[needs(Right.VISITS_READ)], summary="Training sessions, the last entered first"
)
async def trainings(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: RegionText = None,
) -> pages.Page[TrainingOut]:
    rows = await _listed(session, who, TrainingSession, limit, cursor, region_code)
    return pages.Page[TrainingOut].model_validate(pages.page(rows, limit, _training, "id"))


async def _listed(
    session: AsyncSession, who: Principal, table: Any, limit: int, cursor: str | None, region_code: str | None
) -> Sequence[Any]:
    query = select(table).where(
        within(who, col(table.region_code)), begins(table.region_code, await area(session, who, region_code))
    )
    rows: Sequence[Any] = await pages.newest(session, query, col(table.id), limit, cursor)
    return rows


@router.post(
    "/training-sessions",
    status_code=201,
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Record a training session with its look back",
)
async def record_training(
    body: TrainingIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> TrainingOut:
    await _place(session, who, body.region_code, body.visitor_ids)
    _not_in_the_future(body.held_on, now.astimezone(parts.tz).date())
    fields = body.model_dump() | {"visitor_ids": list(dict.fromkeys(body.visitor_ids))}
    made = TrainingSession(id=new_uuid(now), created_at=now, created_by=who.who(), **fields)
    session.add(made)
    await session.flush()
    _note(session, who, "training.recorded", "training_session", made, now, held_on=body.held_on)
    response.headers.update(etag(made.version))
    return TrainingOut.model_validate(_training(made))


async def _within(session: AsyncSession, who: Principal, table: Any, row_id: UUID, version: int | None) -> Any:
    query = select(table).where(col(table.id) == row_id, within(who, col(table.region_code)))
    found = (await session.execute(query.with_for_update())).scalar_one_or_none()
    if found is None:
        raise NotFound("no such record")
    if version is not None and found.version != version:
        raise VersionMismatch("it changed since you read it; read it again")
    return found


async def _change(
    session: AsyncSession, who: Principal, found: Any, fields: dict[str, Any], today: date, may_be_null: frozenset[str]
) -> None:
    for name, value in fields.items():
        if value is None and name not in may_be_null:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    if "visitor_ids" in fields:
        await _place(session, who, found.region_code, fields["visitor_ids"])
        fields["visitor_ids"] = list(dict.fromkeys(fields["visitor_ids"]))
    if "held_on" in fields:
        _not_in_the_future(fields["held_on"], today)
    for name, value in fields.items():
        setattr(found, name, value)
    found.version += 1
    await session.flush()


@router.patch(
    "/training-sessions/{session_id}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404, 412),
    summary="Correct the record of a training session",
)
async def change_training(
    session_id: UUID,
    body: TrainingChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> TrainingOut:
    """Only the fields that are given change."""
    found = await _within(session, who, TrainingSession, session_id, version)
    fields, today = explicit(body), now.astimezone(parts.tz).date()
    await _change(session, who, found, fields, today, frozenset({"next_steps"}))
    _note(session, who, "training.corrected", "training_session", found, now, fields=sorted(fields))
    response.headers.update(etag(found.version))
    return TrainingOut.model_validate(_training(found))


# --- the village station ---------------------------------------------------------------------------------------------


class ActivityIn(Body):
    model_config = example(
        region_code="370302001001", held_on="2026-11-18", place="村幸福院", kind="recreation", title="重阳包饺子",
        description="空巢老人一起过节", visitor_ids=[], elders=18,
    )  # fmt: skip
    region_code: Region12 = Field(description="The village.")
    held_on: Day
    place: Short
    kind: Service
    title: Short
    description: Text | None = None
    visitor_ids: People = Field(default=[], description="Visitors who helped.")
    elders: int = Field(ge=0, le=10_000, description="Elders who came, counted: the log names none.")


class ActivityChange(Body):
    model_config = example(elders=19)
    held_on: Day | None = None
    place: Short | None = None
    kind: Service | None = None
    title: Short | None = None
    description: Text | None = None
    visitor_ids: People | None = None
    elders: int | None = Field(default=None, ge=0, le=10_000)


class ActivityOut(BaseModel):
    id: UUID
    region_code: str
    held_on: date
    place: str
    kind: Service
    title: str
    description: str | None
    visitor_ids: list[UUID]
    elders: int
    created_at: datetime
    created_by: str
    version: int


def _activity(row: StationActivity) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in ActivityOut.model_fields if name != "created_by"}
    return {**shown, "created_by": row.created_by.get("name", "")}


@router.get(
    "/station-activities",
    dependencies=[needs(Right.VISITS_READ)],
    summary="The activity log of village stations, the last entered first",
)
async def activities(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: RegionText = None,
) -> pages.Page[ActivityOut]:
    rows = await _listed(session, who, StationActivity, limit, cursor, region_code)
    return pages.Page[ActivityOut].model_validate(pages.page(rows, limit, _activity, "id"))


@router.post(
    "/station-activities",
    status_code=201,
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Write into the activity log of a village's station",
)
async def record_activity(
    body: ActivityIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> ActivityOut:
    if await _place(session, who, body.region_code, body.visitor_ids) is not RegionLevel.VILLAGE:
        raise InvalidInput("a station is a village's", field="region_code")
    _not_in_the_future(body.held_on, now.astimezone(parts.tz).date())
    fields = body.model_dump() | {"visitor_ids": list(dict.fromkeys(body.visitor_ids))}
    made = StationActivity(id=new_uuid(now), created_at=now, created_by=who.who(), **fields)
    session.add(made)
    await session.flush()
    _note(session, who, "activity.recorded", "station_activity", made, now, held_on=body.held_on)
    response.headers.update(etag(made.version))
    return ActivityOut.model_validate(_activity(made))


@router.patch(
    "/station-activities/{activity_id}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404, 412),
    summary="Correct a line of the activity log",
)
async def change_activity(
    activity_id: UUID,
    body: ActivityChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> ActivityOut:
    """Only the fields that are given change."""
    found = await _within(session, who, StationActivity, activity_id, version)
    fields, today = explicit(body), now.astimezone(parts.tz).date()
    await _change(session, who, found, fields, today, frozenset({"description"}))
    _note(session, who, "activity.corrected", "station_activity", found, now, fields=sorted(fields))
    response.headers.update(etag(found.version))
    return ActivityOut.model_validate(_activity(found))
