"""What is due, by which methods, and the months that are closed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, normal_scope, within
from app.api import pages
from app.api.bodies import Body, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.elders import ReasonOut
from app.api.problems import responses
from app.api.special_periods import SpecialShape
from app.api.transactional import Transactional, idempotent
from app.elders import policies, register
from app.elders.classification import classify
from app.elders.consent import consent_on
from app.elders.consents import consents_of
from app.elders.history import known_on
from app.elders.policy import Frequency, Period
from app.elders.tables import Elder
from app.elders.vocabulary import CareLevel, ConsentScope, StatusReason
from app.errors import InvalidInput, NotFound
from app.visits import kept, ledger, tasks
from app.visits.ledger import Deed
from app.visits.rules import Due, frequency, methods_allowed
from app.visits.tables import ClosedMonth, LedgerDelta, Visit
from app.visits.vocabulary import DeltaKind, Method, TaskKind, TaskState

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])
On = Annotated[date | None, Query(description="Today when absent.", ge=date(2000, 1, 1), le=date(2199, 1, 1))]


class ElderRef(BaseModel):
    id: UUID
    name: str
    region_code: str


class SpecialHere(SpecialShape):
    visits_required: int = Field(description="What it asks for in all, for this person.")
    visits_done: int


class DueTask(BaseModel):
    id: UUID
    kind: TaskKind
    state: TaskState
    because: str
    due_at: datetime


class DueOut(BaseModel):
    elder: ElderRef
    care_level: CareLevel
    period: Period
    period_start: date
    period_end: date
    visits_required: int
    visits_done: int
    overdue: bool = Field(description="The period before went by unfulfilled and nobody came since.")
    excused: StatusReason | None = Field(description="Why nobody is expected now: in hospital, away, …")
    special_period: SpecialHere | None = Field(
        default=None, description="The special period that asks most, of those that hold or begin in this period."
    )
    tasks: list[DueTask] = Field(default=[], description="What an alarm asked for and was not done yet.")


@router.get("/visits/due", dependencies=[needs(Right.VISITS_READ)], summary="What is due in the period of a day")
async def due(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    on: On = None,
    region_code: Annotated[
        str | None, Query(pattern=r"^[0-9]{2,12}$", description="A village, or a township: 370302001 or 370302001000.")
    ] = None,
    visitor_id: Annotated[UUID | None, Query(description="Only elders this visitor is paired with.")] = None,
    care_level: CareLevel | None = None,
    overdue: Annotated[bool | None, Query(description="true: the period before went by unfulfilled.")] = None,
    open: Annotated[bool | None, Query(description="true: somebody is still to go; false: done or excused.")] = None,
) -> pages.Page[DueOut]:
    """Everybody enrolled, week or month by their class and the rules of their place, raised by special periods and
    follow-ups. A page may be shorter than `limit` and have a `next_cursor` all the same: it goes on there."""
    before = pages.decode(cursor, UUID)
    day = on or now.astimezone(parts.tz).date()
    filters = kept.Filters(normal_scope(region_code) if region_code else None, visitor_id, care_level, overdue, open)
    page = await kept.due_page(
        session, who, filters, on=day, now=now, tz=parts.tz, before=before[0] if before else None, limit=limit
    )
    asked = await tasks.open_tasks(session, [elder.id for elder, _ in page.found], now=now)
    return pages.Page[DueOut](
        items=[DueOut.model_validate(_due(elder, one, asked.get(elder.id, ()))) for elder, one in page.found],
        next_cursor=pages.encode(page.more) if page.more else None,
    )


def _due(elder: Elder, one: Due, asked: Sequence[Any]) -> dict[str, Any]:
    return {
        "elder": {"id": elder.id, "name": elder.name, "region_code": elder.region_code},
        "care_level": one.care_level, "period": one.often.period, "period_start": one.span.start,
        "period_end": one.span.end, "visits_required": one.visits_required, "visits_done": one.visits_done,
        "overdue": one.overdue, "excused": one.excused, "special_period": _special(one),
        "tasks": [{name: getattr(task, name) for name in DueTask.model_fields} for task in asked],
    }  # fmt: skip


def _special(one: Due) -> dict[str, Any] | None:
    if one.special is None or one.special_progress is None:
        return None
    special = one.special
    return {
        "id": special.id, "name": special.name, "kind": special.kind, "from": special.span.start,
        "to": special.span.end, "region_code": special.region_code, "visits_per_day": special.per_day,
        "visits_total": special.total, "visits_required": one.special_progress.required,
        "visits_done": one.special_progress.done,
    }  # fmt: skip


class VisitRulesOut(BaseModel):
    on: date
    care_level: CareLevel
    frequency: Frequency
    methods: list[Method] = Field(description="By these a visit counts.")
    reasons: list[ReasonOut] = Field(description="Why the other methods do not.")
    home_consent: bool = Field(description="Whether a consent to visits at home holds on that day.")
    policy_version: str


@router.get(
    "/elders/{elder_id}/visit-rules",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="How this elder is to be visited",
)
async def visit_rules(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep, on: On = None
) -> VisitRulesOut:
    """How often, by which methods, and whether a visit at home has its consent."""
    elder = await register.elder_within(session, who, elder_id)
    day = on or now.astimezone(parts.tz).date()
    known = (await known_on(session, {elder.id: day}))[elder.id]
    policy = (await policies.in_force(session)).at(known.region_code, day)
    found = classify(known.facts, on=day, policy=policy)
    allowed = methods_allowed(known.facts, policy.visits)
    given = (await consents_of(session, [elder.id])).get(elder.id, [])
    return VisitRulesOut(
        on=day,
        care_level=found.care_level,
        frequency=frequency(found, known.facts, policy.visits),
        methods=[method for method in Method if method in allowed.methods],
        reasons=[ReasonOut(**reason.shape()) for reason in allowed.reasons],
        home_consent=consent_on(given, ConsentScope.HOME_VISIT, day) is not None,
        policy_version=policy.visits_version,
    )


# --- closed months ---------------------------------------------------------------------------------------------------


class ClosingIn(Body):
    model_config = example(month="2026-10", region_code="370302001")
    month: Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")]
    region_code: Annotated[str, StringConstraints(pattern=r"^([0-9]{6}|[0-9]{9}|[0-9]{12})$")]


class ClosedMonthOut(BaseModel):
    id: UUID
    month: str = Field(examples=["2026-10"])
    region_code: str
    figures: dict[str, int] = Field(description="As they were when the month was closed.")
    closed_at: datetime
    closed_by: str


class DeltaOut(BaseModel):
    id: UUID
    visit_id: UUID
    kind: DeltaKind
    qualifying_before: bool | None
    qualifying_after: bool
    reason: str
    by: str
    at: datetime


def _month(row: ClosedMonth) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in ("id", "region_code", "figures", "closed_at")}
    return {**shown, "month": f"{row.month:%Y-%m}", "closed_by": row.closed_by.get("name", "")}


@router.get("/closed-months", dependencies=[needs(Right.VISITS_READ)], summary="Months that were closed, newest first")
async def closed_months(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[ClosedMonthOut]:
    query = select(ClosedMonth).where(within(who, col(ClosedMonth.region_code)))
    rows = await pages.newest(session, query, col(ClosedMonth.id), limit, cursor)
    return pages.Page[ClosedMonthOut].model_validate(pages.page(rows, limit, _month, "id"))


@router.post("/closed-months", dependencies=[needs(Right.ELDERS_WRITE)], status_code=201, summary="Close a month")
async def close_month(
    body: ClosingIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> ClosedMonthOut:
    """From then on, what changes in it is a delta with a name and a reason; the figures stay as they were."""
    prefix = normal_scope(body.region_code)
    if not prefix.startswith(who.region_code):
        raise InvalidInput("the region is outside your own", field="region_code")
    made = await ledger.close_month(
        session, month=date.fromisoformat(body.month + "-01"), region_code=prefix, deed=Deed(who, now, parts.tz)
    )
    audit.note(session, who, action="month.closed", subject_type="month", subject_id=made.id, now=now,
               region_code=prefix, month=body.month)  # fmt: skip
    return ClosedMonthOut.model_validate(_month(made))


@router.get(
    "/closed-months/{closed_month_id}/deltas",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="What changed after closing",
)
async def deltas(
    closed_month_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[DeltaOut]:
    closed = await session.get(ClosedMonth, closed_month_id)
    if closed is None or not who.sees(closed.region_code):
        raise NotFound("no such closed month")
    query = (
        select(LedgerDelta)
        .join(Visit, col(Visit.id) == col(LedgerDelta.visit_id))
        .where(col(LedgerDelta.closed_month_id) == closed_month_id, within(who, col(Visit.region_code)))
    )
    rows = await pages.newest(session, query, col(LedgerDelta.id), limit, cursor)

    def shape(row: LedgerDelta) -> dict[str, Any]:
        shown = {name: getattr(row, name) for name in DeltaOut.model_fields if name != "by"}
        return {**shown, "by": row.by.get("name", "")}

    return pages.Page[DeltaOut].model_validate(pages.page(rows, limit, shape, "id"))
