"""Special periods: festivals, weather and other days on which more is due."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, normal_scope
from app.access.wall import beyond
from app.api import pages
from app.api.bodies import Body, Day, Name, etag, example, explicit, if_match
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import policies, register
from app.elders.vocabulary import CareLevel
from app.errors import InvalidInput, NotAllowed, NotFound, VersionMismatch
from app.visits import specials
from app.visits.festivals import FIRST_YEAR, LAST_YEAR, FestivalRules, days_of
from app.visits.vocabulary import Festival, SpecialKind
from app.visits.work_tables import FestivalSetting, SpecialPeriod
from app.words import say

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])
Place = Annotated[str, StringConstraints(pattern=r"^([0-9]{6}|[0-9]{9}|[0-9]{12})$")]
Levels = Annotated[list[CareLevel], Field(min_length=1, max_length=len(CareLevel))]
PerDay = Annotated[int, Field(ge=1, le=10, description="Visits on each of its days.")]
InTotal = Annotated[int, Field(ge=1, le=62, description="Visits within all of its days together.")]


class SpecialIn(Body):
    model_config = example(**{
        "name": "寒潮橙色预警", "kind": "weather", "from": "2026-12-10", "to": "2026-12-12", "region_code": "370302001",
        "levels": ["key", "undetermined"], "visits_per_day": 1,
    })  # fmt: skip
    name: Name = Field(examples=["寒潮橙色预警"])
    kind: SpecialKind = Field(description="`festival` is computed (GET /festivals) and not entered.")
    since: Day = Field(alias="from", examples=["2026-12-10"])
    until: Day = Field(alias="to", description="The last day, included.", examples=["2026-12-12"])
    region_code: Place = Field(examples=["370302001"])
    levels: Levels = Field(default=list(CareLevel), description="Whom it concerns; everybody when absent.")
    visits_per_day: PerDay | None = None
    visits_total: InTotal | None = None


class SpecialChange(Body):
    model_config = example(to="2026-12-14")
    name: Name | None = None
    since: Day | None = Field(default=None, alias="from")
    until: Day | None = Field(default=None, alias="to")
    levels: Levels | None = None
    visits_per_day: PerDay | None = None
    visits_total: InTotal | None = None


class SpecialShape(BaseModel):
    """What a period asks for. One of `visits_per_day` and `visits_total` is null."""

    model_config = ConfigDict(populate_by_name=True)
    id: UUID
    name: str
    kind: SpecialKind
    since: date = Field(alias="from")
    until: date = Field(alias="to")
    region_code: str
    visits_per_day: int | None
    visits_total: int | None


class SpecialOut(SpecialShape):
    levels: list[CareLevel]
    festival: Festival | None
    entered_by: str
    created_at: datetime
    cancelled_at: datetime | None
    version: int


def _shape(row: SpecialPeriod) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in SpecialOut.model_fields if name != "entered_by"}
    return {**shown, "entered_by": row.entered_by.get("name", "")}


@router.get(
    "/special-periods", dependencies=[needs(Right.VISITS_READ)], summary="Special periods that concern your region"
)
async def special_periods(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    on: Annotated[
        date | None, Query(description="Those that hold on this day.", ge=date(2000, 1, 1), le=date(2199, 1, 1))
    ] = None,
    kind: SpecialKind | None = None,
    region_code: Annotated[Place | None, Query(description="Those that hold in this place, or below it.")] = None,
    cancelled: bool = False,
) -> pages.Page[SpecialOut]:
    """Festivals of this year and the next, and what was entered, newest first; `cancelled=true` shows those too."""
    query = select(SpecialPeriod).where(specials.touching(who.region_code))
    if not cancelled:
        query = query.where(col(SpecialPeriod.cancelled_at).is_(None))
    if on:
        query = query.where(col(SpecialPeriod.since) <= on, col(SpecialPeriod.until) >= on)
    if kind:
        query = query.where(col(SpecialPeriod.kind) == kind)
    if region_code:
        query = query.where(specials.touching(normal_scope(region_code)))
    rows = await pages.newest(session, query, col(SpecialPeriod.id), limit, cursor)
    return pages.Page[SpecialOut].model_validate(pages.page(rows, limit, _shape, "id"))


def _may(who: Principal, kind: SpecialKind) -> None:
    """Supervisors enter periods; the key of a weather service, made with visits:write alone, enters weather."""
    if who.may(Right.ELDERS_WRITE):
        return
    if who.role is not None:
        raise NotAllowed("special periods are entered by a supervisor, or by the API key of a weather service")
    if kind is not SpecialKind.WEATHER:
        raise NotAllowed("an API key without elders:write enters periods of kind weather only")


@router.post(
    "/special-periods", dependencies=[needs(Right.VISITS_WRITE)], status_code=201, summary="Enter a special period"
)
async def enter_period(
    body: SpecialIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> SpecialOut:
    """More is due on these days for these classes of this place. A visit serves every period it falls into; nobody is
    due more often in a day than the rules of their place allow (`most_a_day` of /care-policies)."""
    _may(who, body.kind)
    if body.kind is SpecialKind.FESTIVAL:
        raise InvalidInput(
            "festivals are computed; PUT /festival-settings/{region_code} says what they ask", field="kind"
        )
    fields = body.model_dump()
    fields["region_code"] = await _place(session, who, body.region_code)
    fields["levels"] = sorted(set(body.levels))
    if body.until < now.astimezone(parts.tz).date():
        raise InvalidInput("the period is over: nothing can become due by it", field="to")
    row = await specials.enter(session, fields, by=who.who(), now=now)
    _note(session, who, "special_period.entered", row, now, **{"from": str(row.since), "to": str(row.until)})
    response.headers.update({**etag(row.version), "Location": f"/api/v1/special-periods/{row.id}"})
    return SpecialOut.model_validate(_shape(row))


async def _place(session: AsyncSession, who: Principal, region_code: str) -> str:
    """The prefix of a region that exists within the scope. Raises `InvalidInput`."""
    prefix = normal_scope(region_code)
    try:
        await register.region_within(session, who, prefix.ljust(12, "0"))
    except NotFound:
        raise InvalidInput("no such region within your own", field="region_code") from None
    return prefix


def _note(session: AsyncSession, who: Principal, action: str, row: SpecialPeriod, now: datetime, **detail: Any) -> None:
    audit.note(session, who, action=action, subject_type="special_period", subject_id=row.id, now=now,
               region_code=row.region_code, **detail)  # fmt: skip


@router.get(
    "/special-periods/{period_id}",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="One special period",
)
async def special_period(period_id: UUID, response: Response, who: PrincipalDep, session: SessionDep) -> SpecialOut:
    row = await specials.period_within(session, who, period_id)
    response.headers.update(etag(row.version))
    return SpecialOut.model_validate(_shape(row))


async def _to_change(
    session: AsyncSession, who: Principal, period_id: UUID, version: int | None = None
) -> SpecialPeriod:
    row = await specials.period_within(session, who, period_id, version=version, lock=True)
    if not who.sees(row.region_code):
        raise NotAllowed("the period was entered for a region above your own")
    _may(who, SpecialKind(row.kind))
    if not who.may(Right.ELDERS_WRITE) and row.entered_by.get("id") != str(who.id):
        raise NotAllowed("this key changes only what it entered itself")
    return row


@router.patch(
    "/special-periods/{period_id}",
    dependencies=[needs(Right.VISITS_WRITE)],
    responses=responses(404, 412),
    summary="Change a special period",
)
async def change_period(
    period_id: UUID,
    body: SpecialChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> SpecialOut:
    """Prolong it, end it early (`to`), ask for more or less. Days that went by stay as they were asked for."""
    row = await _to_change(session, who, period_id, version)
    fields = explicit(body)
    for name in ("name", "since", "until", "levels"):
        if name in fields and fields[name] is None:
            alias = SpecialChange.model_fields[name].alias
            raise InvalidInput("cannot be null; leave it out to keep it", field=alias or name)
    for given, other in (("visits_per_day", "visits_total"), ("visits_total", "visits_per_day")):
        if fields.get(given) is not None:
            fields.setdefault(other, None)
    if "levels" in fields:
        fields["levels"] = sorted(set(fields["levels"]))
    await specials.change(session, row, fields, today=now.astimezone(parts.tz).date())
    _note(session, who, "special_period.changed", row, now, fields=sorted(fields))
    response.headers.update(etag(row.version))
    return SpecialOut.model_validate(_shape(row))


@router.delete(
    "/special-periods/{period_id}",
    dependencies=[needs(Right.VISITS_WRITE)],
    status_code=204,
    responses=responses(404),
    summary="Cancel a special period",
)
async def cancel_period(period_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep) -> None:
    """Nothing is due by it any more; it stays readable. One that has ended cannot be cancelled: there is proof to give."""
    row = await _to_change(session, who, period_id)
    await specials.cancel(session, row, now=now, today=now.astimezone(parts.tz).date())
    _note(session, who, "special_period.cancelled", row, now)


# --- what became of it -----------------------------------------------------------------------------------------------


class ServedElder(BaseModel):
    id: UUID
    name: str
    region_code: str


class Served(BaseModel):
    elder: ServedElder
    care_level: CareLevel
    required: int
    done: int
    fulfilled: bool
    excused: bool = Field(description="Away, in hospital, in an institution or unwilling on all its days.")
    visit_ids: list[UUID] = Field(description="The visits that prove it, oldest first.")


class Totals(BaseModel):
    people: int
    fulfilled: int
    unfulfilled: int
    excused: int


class CompletionOut(pages.Page[Served]):
    special_period: SpecialOut
    final: bool = Field(description="The period has ended. Entries that come late or are voided still change it.")
    totals: Totals


@router.get(
    "/special-periods/{period_id}/completion",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="Who was visited in it and who was not",
)
async def period_completion(
    period_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    fulfilled: Annotated[bool | None, Query(description="false: those still to be visited, the excused apart.")] = None,
    region_code: Annotated[Place | None, Query(description="Only this part of its place.")] = None,
) -> CompletionOut:
    """By the ids of visits that count; the totals are of everybody it means within your scope, the items are a page."""
    row = await specials.period_within(session, who, period_id)
    before = pages.decode(cursor, UUID)
    rules = (await policies.in_force(session)).at(row.region_code, row.until).visits
    found = await specials.completion(
        session, who, row, most_a_day=rules.most_a_day, tz=parts.tz,
        region_code=normal_scope(region_code) if region_code else None, fulfilled=fulfilled,
        before=before[0] if before else None, limit=limit + 1,
    )  # fmt: skip

    def shape(one: Any) -> dict[str, Any]:
        shown = {name: getattr(one, name) for name in Served.model_fields if name not in ("elder", "required")}
        elder = {"id": one.id, "name": one.name, "region_code": one.region_code}
        return {**shown, "elder": elder, "required": found.required}

    return CompletionOut.model_validate(
        {
            **pages.page(found.rows, limit, shape, "id"),
            "special_period": _shape(row),
            "final": row.until < now.astimezone(parts.tz).date(),
            "totals": {name: getattr(found, name) for name in Totals.model_fields},
        }
    )


# --- festivals -------------------------------------------------------------------------------------------------------


class FestivalDay(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    festival: Festival
    name: str = Field(examples=["春节"])
    day: date
    since: date | None = Field(alias="from", description="The first day on which its visits are due; null: no period.")


@router.get("/festivals", dependencies=[needs(Right.PLACES_READ)], summary="The festivals of a year")
async def festivals(
    _: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    year: Annotated[int | None, Query(ge=FIRST_YEAR, le=LAST_YEAR, description="This year when absent.")] = None,
    region_code: Annotated[Place | None, Query(description="Whose setting; the plain one when absent.")] = None,
) -> pages.Page[FestivalDay]:
    """Computed by the lunar calendar and the solar terms, in the order of the year."""
    year = year or now.astimezone(parts.tz).year
    rules = await specials.festival_rules(session, normal_scope(region_code or ""))
    items = [
        FestivalDay(
            festival=one, name=say(f"festival.{one.value}"), day=day,
            since=rules.window(one, year).start if one in rules.festivals else None,
        )
        for one, day in sorted(days_of(year).items(), key=lambda item: item[1])
    ]  # fmt: skip
    return pages.Page[FestivalDay](items=items, next_cursor=None)


class FestivalSettingIn(Body):
    model_config = example(lead_days=10, visits_total=1, levels=["key", "secondary", "undetermined"])
    festivals: list[Festival] = Field(default=list(Festival), max_length=len(Festival), description="Those that count.")
    lead_days: int = Field(default=FestivalRules().lead_days, ge=0, le=30, description="Days before the festival.")
    visits_total: int = Field(default=FestivalRules().visits_total, ge=1, le=10)
    levels: Levels = Field(default=list(CareLevel))


class FestivalSettingOut(FestivalSettingIn):
    region_code: str


@router.get(
    "/festival-settings/{region_code}",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="What festivals ask for in a region",
)
async def festival_setting(
    region_code: Place, response: Response, who: PrincipalDep, session: SessionDep
) -> FestivalSettingOut:
    """Its own setting, or the plain one. A township that has its own has its district's periods too; a visit serves both."""
    prefix = normal_scope(region_code)
    if not specials.concerns(who, prefix):
        raise NotFound("no such region")
    row = await session.get(FestivalSetting, prefix)
    response.headers.update(etag(row.version if row else 0))
    return _setting(prefix, specials.rules_of(row) if row else FestivalRules())


def _setting(prefix: str, rules: FestivalRules) -> FestivalSettingOut:
    return FestivalSettingOut(
        region_code=prefix, festivals=[one for one in Festival if one in rules.festivals], lead_days=rules.lead_days,
        visits_total=rules.visits_total, levels=[one for one in CareLevel if one in rules.levels],
    )  # fmt: skip


@router.put(
    "/festival-settings/{region_code}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404, 412),
    summary="Set what festivals ask for in a region",
)
async def set_festivals(
    region_code: Place,
    body: FestivalSettingIn,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> FestivalSettingOut:
    """Periods that have not begun follow at once; those that were changed by hand or have begun stay."""
    try:
        prefix = await _place(session, who, region_code)
    except InvalidInput:
        raise NotFound("no such region") from None
    row = await session.get(FestivalSetting, prefix, with_for_update=True)
    if version is not None and version != (row.version if row else 0):
        raise VersionMismatch("the setting changed since you read it; read it again")
    fields: dict[str, Any] = {"festivals": sorted(set(body.festivals)), "lead_days": body.lead_days,
              "visits_total": body.visits_total, "levels": sorted(set(body.levels))}  # fmt: skip
    if row is None:
        row = FestivalSetting(region_code=prefix, **fields)
        session.add(row)
    else:
        for name, value in fields.items():
            setattr(row, name, value)
        row.version += 1
    await session.flush()
    async with beyond(session, "the festivals are planned for every region in one statement, as the worker does"):
        await specials.plan_festivals(session, now=now, today=now.astimezone(parts.tz).date())
    audit.note(session, who, action="festivals.set", subject_type="region", subject_id=prefix, now=now,
               region_code=prefix, lead_days=body.lead_days, visits_total=body.visits_total)  # fmt: skip
    response.headers.update(etag(row.version))
    return _setting(prefix, specials.rules_of(row))
