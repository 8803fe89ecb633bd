"""What visitors did: hours and visits by month, and statements of credit for students (policy rows 22-25)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app import words
from app.access import audit
from app.access.principal import Principal, Right, begins, within
from app.api import documents, pages
from app.api.bodies import Body, Day, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.stats import MonthText, RegionText
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.tables import Visitor
from app.elders.vocabulary import Service
from app.errors import InvalidInput, NotFound
from app.reports.area import area
from app.reports.months import Month
from app.visits import volunteering
from app.visits.vocabulary import Method
from app.visits.volunteer_tables import CreditStatement

router = APIRouter(route_class=Transactional, tags=["volunteers"], dependencies=[Depends(idempotent)])
public = APIRouter(route_class=Transactional, tags=["volunteers"])


class DoneOut(BaseModel):
    month: str = Field(examples=["2026-11"])
    visits: int = Field(description="Met, not voided, and not found untrue; those they came along to as well.")
    elders: int
    minutes: int = Field(description="Two people seen at the same time are one time.")
    hours: float
    without_end: int = Field(description="Of the visits: nobody wrote down how long; they add no time.")


class Hours(BaseModel):
    visitor_id: UUID
    items: list[DoneOut] = Field(description="Newest month first; months without visits are left out.")


def _done(one: volunteering.Done) -> dict[str, Any]:
    return {
        "month": one.month, "visits": one.visits, "elders": one.elders, "minutes": one.minutes,
        "hours": round(one.minutes / 60, 1), "without_end": one.without_end,
    }  # fmt: skip


async def _visitor(session: AsyncSession, who: Principal, visitor_id: UUID) -> Visitor:
    """A visitor's own account sees its own figures and nobody else's."""
    if who.visitor_id is not None and who.visitor_id != visitor_id:
        raise NotFound("no such visitor")
    return await register.visitor_within(session, who, visitor_id)


@router.get(
    "/visitors/{visitor_id}/hours",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="A visitor's visits and hours by month",
)
async def hours_of_visitor(
    visitor_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    month: MonthText = None,
    months: Annotated[int, Query(ge=1, le=36, description="How many, the asked one included.")] = 12,
) -> Hours:
    last = Month.asked(month, today=now.astimezone(parts.tz).date())
    await _visitor(session, who, visitor_id)
    done = await volunteering.hours(
        session, visitor_id, since=last.before(months - 1).first, until=last.last, tz=parts.tz
    )
    return Hours.model_validate({"visitor_id": visitor_id, "items": [_done(one) for one in done]})


class VisitorHours(BaseModel):
    visitor_id: UUID
    name: str
    kind: str
    organisation: str | None
    region_code: str
    done: DoneOut


@router.get(
    "/stats/visitors",
    dependencies=[needs(Right.STATS_READ)],
    summary="Hours and visits of a region's visitors in a month",
)
async def hours_of_visitors(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    month: MonthText = None,
    region_code: RegionText = None,
) -> pages.Page[VisitorHours]:
    """Newest visitor first; those who did nothing too."""
    asked = Month.asked(month, today=now.astimezone(parts.tz).date())
    prefix = await area(session, who, region_code)
    query = select(Visitor).where(within(who, col(Visitor.region_code)), begins(Visitor.region_code, prefix))
    rows = await pages.newest(session, query, col(Visitor.id), limit, cursor)
    done = await volunteering.hours_of_many(
        session, [row.id for row in rows], since=asked.first, until=asked.last, tz=parts.tz
    )

    def shape(row: Visitor) -> dict[str, Any]:
        shown = {name: getattr(row, name) for name in ("name", "kind", "organisation", "region_code")}
        return {**shown, "visitor_id": row.id, "done": _done(done[row.id])}

    return pages.Page[VisitorHours].model_validate(pages.page(rows, limit, shape, "id"))


# --- statements of credit --------------------------------------------------------------------------------------------


class StatementIn(Body):
    model_config = example(**{"from": "2026-09-01", "to": "2026-11-20"})
    since: Day = Field(alias="from")
    until: Day = Field(alias="to", description="The last day, included; today at the latest.")


class StatementLine(BaseModel):
    on: date
    method: Method
    minutes: int
    services: list[Service]


class StatementShort(BaseModel):
    number: str = Field(examples=["2026-7K3M9QXB"])
    holder: str
    organisation: str | None
    since: date = Field(serialization_alias="from")
    until: date = Field(serialization_alias="to")
    visits: int
    minutes: int
    hours: float
    issued_at: datetime
    valid: bool
    revoked_at: datetime | None
    revoked_reason: str | None


class StatementOut(StatementShort):
    id: UUID
    visitor_id: UUID
    code: str = Field(description="With the number, it lets a school ask whether the statement still holds.")
    check_path: str = Field(description="Open to anybody who has it; with `Accept: text/html` a page to print.")
    lines: list[StatementLine] = Field(description="What was done when; no elder can be told from it.")


def _short(row: CreditStatement) -> dict[str, Any]:
    names = ("number", "holder", "organisation", "since", "until", "visits", "minutes", "issued_at", "revoked_at",
             "revoked_reason")  # fmt: skip
    return {name: getattr(row, name) for name in names} | {
        "hours": round(row.minutes / 60, 1), "valid": row.revoked_at is None,
    }  # fmt: skip


def _statement(row: CreditStatement) -> dict[str, Any]:
    path = f"/api/v1/credit-statements/{row.number}?code={row.code}"
    return _short(row) | {
        "id": row.id, "visitor_id": row.visitor_id, "code": row.code, "lines": row.lines, "check_path": path,
    }  # fmt: skip


@router.post(
    "/visitors/{visitor_id}/credit-statements",
    status_code=201,
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="State what a student did, for their school",
)
async def issue_statement(
    visitor_id: UUID, body: StatementIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> StatementOut:
    """Without any elder's identity. It is revoked by itself, with the reason, as soon as an entry it counts is voided, found
    untrue, given to somebody else or changed in time: issue a new one then."""
    visitor = await _visitor(session, who, visitor_id)
    made = await volunteering.issue(session, visitor, since=body.since, until=body.until, who=who, now=now, tz=parts.tz)
    audit.note(
        session, who, action="credit_statement.issued", subject_type="credit_statement", subject_id=made.id, now=now,
        region_code=visitor.region_code, visitor_id=str(visitor.id), visits=made.visits, minutes=made.minutes,
    )  # fmt: skip
    return StatementOut.model_validate(_statement(made))


@router.get(
    "/visitors/{visitor_id}/credit-statements",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="A visitor's statements, newest first",
)
async def credit_statements(
    visitor_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[StatementOut]:
    await _visitor(session, who, visitor_id)
    query = select(CreditStatement).where(col(CreditStatement.visitor_id) == visitor_id)
    rows = await pages.newest(session, query, col(CreditStatement.id), limit, cursor)
    return pages.Page[StatementOut].model_validate(pages.page(rows, limit, _statement, "id"))


@public.get(
    "/credit-statements/{number}",
    responses=documents.either(StatementShort) | responses(404),
    summary="Whether a statement of credit holds",
    response_model=None,
)
async def check_statement(
    number: Annotated[str, Path(max_length=16, pattern=r"^[0-9A-Z-]+$", examples=["2026-7K3M9QXB"])],
    code: Annotated[str, Query(max_length=16, pattern=r"^[0-9A-Z]+$", examples=["Q4T7M2XZ"])],
    request: Request,
    session: SessionDep,
    parts: PartsDep,
) -> Response:
    """For a school, without an account: number and code stand on the statement. `Accept: text/html` gives the page to
    print."""
    query = select(CreditStatement).where(col(CreditStatement.number) == number, col(CreditStatement.code) == code)
    found = (await session.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such statement; compare number and code")
    shown = StatementShort.model_validate(_short(found))
    if documents.wants_page(request):
        return documents.page(
            "statement.html", statement=shown, lines=found.lines, say=words.say,
            issued=f"{found.issued_at.astimezone(parts.tz):%Y-%m-%d}",
            revoked=f"{found.revoked_at.astimezone(parts.tz):%Y-%m-%d}" if found.revoked_at else None,
        )  # fmt: skip
    return Response(shown.model_dump_json(by_alias=True), media_type="application/json")


__all__ = ["InvalidInput", "public", "router"]
