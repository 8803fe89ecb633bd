"""Rounds: proposed with a reason for every stop, and kept when somebody accepts them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, begins, within
from app.api import pages
from app.api.bodies import Body, Day, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.errors import Conflict, InvalidInput, NotAllowed
from app.visits import round_book
from app.visits.round_book import Proposed, Scope
from app.visits.rounds import LeftOut, Why
from app.visits.work_tables import Round
from app.words import say

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])
Village = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
Days = Annotated[int, Field(ge=1, le=31)]
Capacity = Annotated[int, Field(ge=1, le=50)]


class RoundIn(Body):
    model_config = example(**{"region_code": "370302001001", "from": "2026-11-30", "days": 7, "capacity_per_day": 8})
    region_code: Village | None = Field(default=None, description="A village's round.")
    visitor_id: UUID | None = Field(default=None, description="One visitor's round.")
    since: Day = Field(alias="from", examples=["2026-11-30"])
    days: Days = 7
    capacity_per_day: Capacity = Field(default=8, description="Stops of one visitor in one day.")


class Reason(BaseModel):
    code: Why
    because: str


class Person(BaseModel):
    id: UUID
    name: str


class StopElder(Person):
    region_code: str


class StopOut(BaseModel):
    day: date
    due_by: date
    visitor: Person
    elder: StopElder
    reasons: list[Reason]


class KeptStop(StopOut):
    visit_id: UUID | None = Field(description="The visit that was made on that day and counts.")


class Load(BaseModel):
    visitor: Person
    stops: int


class NotPlaced(BaseModel):
    elder: StopElder
    visits: int
    code: LeftOut
    because: str


class ProposalOut(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    since: date = Field(alias="from")
    until: date = Field(alias="to")
    stops: list[StopOut]
    load: list[Load] = Field(description="How many stops each visitor has, the most first.")
    unassigned: list[NotPlaced] = Field(description="Who is due and could not be given to anybody, and why.")


class RoundOut(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    id: UUID
    region_code: str
    visitor_id: UUID | None
    since: date = Field(alias="from")
    until: date = Field(alias="to")
    accepted_at: datetime
    accepted_by: str
    cancelled_at: datetime | None


class RoundWithStops(RoundOut):
    stops: list[KeptStop]


def _reasons(codes: Sequence[str]) -> list[dict[str, str]]:
    return [{"code": code, "because": say(f"round.{code}")} for code in codes]


async def _scope(
    session: AsyncSession, who: Principal, *, region_code: str | None, visitor_id: UUID | None, since: date, days: int,
    capacity: int, today: date,
) -> Scope:  # fmt: skip
    """Raises `InvalidInput` for a round of nobody, of nowhere, or of days that went by."""
    if region_code is None and visitor_id is None:
        raise InvalidInput("a round is of a village (`region_code`), of a visitor (`visitor_id`), or of both",
                           field="region_code")  # fmt: skip
    if region_code is not None:
        await register.must_be_region(session, who, region_code)
        if region_code.endswith("000"):
            raise InvalidInput("a round is of one village: give its 12 digits", field="region_code")
    if visitor_id is not None:
        await register.must_be_visitor(session, who, visitor_id)
    if since < today:
        raise InvalidInput("a round begins today or later", field="from")
    return Scope(region_code, visitor_id, round_book.days_from(since, days), capacity)


@router.get("/rounds/proposal", dependencies=[needs(Right.VISITS_READ)], summary="Propose who visits whom on which day")
async def propose_round(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    region_code: Annotated[Village | None, Query(description="A village.")] = None,
    visitor_id: Annotated[UUID | None, Query(description="One visitor's round.")] = None,
    since: Annotated[date | None, Query(alias="from", description="Today when absent.")] = None,
    days: Annotated[int, Query(ge=1, le=31)] = 7,
    capacity_per_day: Annotated[int, Query(ge=1, le=50, description="Stops of one visitor in one day.")] = 8,
) -> ProposalOut:
    """Fair over the visitors people are paired with: the urgent first, a primary before a backup, among several the one
    with less to do and then whose turn it is. The same facts give the same answer; each stop says why. What is planned
    in an accepted round is left out."""
    today = now.astimezone(parts.tz).date()
    scope = await _scope(session, who, region_code=region_code, visitor_id=visitor_id, since=since or today, days=days,
                         capacity=capacity_per_day, today=today)  # fmt: skip
    return _proposal(await round_book.proposed(session, who, scope, now=now, tz=parts.tz), scope)


def _proposal(found: Proposed, scope: Scope) -> ProposalOut:
    def elder(id_: UUID) -> dict[str, Any]:
        name, region_code = found.names[id_]
        return {"id": id_, "name": name, "region_code": region_code}

    def visitor(id_: UUID) -> dict[str, Any]:
        return {"id": id_, "name": found.visitors[id_]}

    loads = found.proposal.load()
    return ProposalOut.model_validate(
        {
            "from": scope.days[0],
            "to": scope.days[-1],
            "stops": [
                {"day": s.day, "due_by": s.by, "visitor": visitor(s.visitor_id), "elder": elder(s.elder_id),
                 "reasons": _reasons(s.reasons)}
                for s in found.proposal.stops
            ],
            "load": [
                {"visitor": visitor(id_), "stops": loads.get(id_, 0)}
                for id_ in sorted(found.visitors, key=lambda id_: (-loads.get(id_, 0), id_))
            ],
            "unassigned": [
                {"elder": elder(one.elder_id), "visits": one.visits, "code": one.because,
                 "because": say(f"round.{one.because.value}")}
                for one in found.proposal.unplaced
            ],
        }
    )  # fmt: skip


def _round(row: Round) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in RoundOut.model_fields if name != "accepted_by"}
    return {**shown, "accepted_by": row.accepted_by.get("name", "")}


async def _with_stops(session: AsyncSession, who: Principal, row: Round, parts: Any) -> RoundWithStops:
    stops = [
        {"day": s.day, "due_by": s.due_by, "visitor": {"id": s.visitor_id, "name": s.visitor_name},
         "elder": {"id": s.elder_id, "name": s.elder_name, "region_code": s.region_code},
         "reasons": _reasons(s.reasons), "visit_id": s.visit_id}
        for s in await round_book.stops_of(session, who, row, tz=parts.tz)
    ]  # fmt: skip
    return RoundWithStops.model_validate({**_round(row), "stops": stops})


@router.post("/rounds", dependencies=[needs(Right.VISITS_WRITE)], status_code=201, summary="Accept a proposed round")
async def accept_round(
    body: RoundIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> RoundWithStops:
    """Proposed once more and kept as it is now: `/rounds/proposal` with the same fields shows it before. A visitor's
    account accepts their own round."""
    if who.visitor_id is not None and body.visitor_id != who.visitor_id:
        raise NotAllowed("a visitor accepts their own round: give your own `visitor_id`")
    today = now.astimezone(parts.tz).date()
    scope = await _scope(session, who, region_code=body.region_code, visitor_id=body.visitor_id, since=body.since,
                         days=body.days, capacity=body.capacity_per_day, today=today)  # fmt: skip
    row = await round_book.accept(session, who, scope, now=now, tz=parts.tz)
    audit.note(session, who, action="round.accepted", subject_type="round", subject_id=row.id, now=now,
               region_code=row.region_code, **{"from": str(row.since), "to": str(row.until)})  # fmt: skip
    response.headers["Location"] = f"/api/v1/rounds/{row.id}"
    return await _with_stops(session, who, row, parts)


@router.get("/rounds", dependencies=[needs(Right.VISITS_READ)], summary="Accepted rounds within your scope")
async def rounds(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
    visitor_id: Annotated[UUID | None, Query(description="Rounds with a stop of this visitor.")] = None,
) -> pages.Page[RoundOut]:
    """Newest first, cancelled ones too."""
    query = select(Round).where(within(who, col(Round.region_code)))
    if region_code:
        query = query.where(begins(col(Round.region_code), region_code))
    if visitor_id:
        query = query.where(round_book.has_stop_of(visitor_id))
    rows = await pages.newest(session, query, col(Round.id), limit, cursor)
    return pages.Page[RoundOut].model_validate(pages.page(rows, limit, _round, "id"))


@router.get(
    "/rounds/{round_id}", dependencies=[needs(Right.VISITS_READ)], responses=responses(404), summary="One round"
)
async def one_round(round_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep) -> RoundWithStops:
    """With its stops, and the visits that were made of them."""
    return await _with_stops(session, who, await round_book.round_within(session, who, round_id), parts)


@router.delete(
    "/rounds/{round_id}",
    dependencies=[needs(Right.VISITS_WRITE)],
    status_code=204,
    responses=responses(404),
    summary="Cancel a round",
)
async def cancel_round(round_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """Its visits are no longer planned, and can be proposed again."""
    row = await round_book.round_within(session, who, round_id, lock=True)
    if who.visitor_id is not None and row.visitor_id != who.visitor_id:
        raise NotAllowed("a visitor cancels their own round")
    if row.cancelled_at is not None:
        raise Conflict("the round was cancelled before")
    row.cancelled_at = now
    audit.note(session, who, action="round.cancelled", subject_type="round", subject_id=row.id, now=now,
               region_code=row.region_code)  # fmt: skip
