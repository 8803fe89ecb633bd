"""Entries of the ledger that somebody should look at, and samples for audit. Nothing here changes whether a visit counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, begins, within
from app.access.wall import beyond
from app.api import pages
from app.api.bodies import Body, Note, example, one_line
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.stats import RegionText
from app.api.transactional import Transactional, idempotent
from app.errors import Conflict, InvalidInput, NotFound
from app.ids import new_uuid
from app.reports.area import area
from app.reports.months import Month
from app.visits import examining, sampling
from app.visits.checks_tables import LedgerCheck, LedgerSample
from app.visits.tables import Visit
from app.visits.vocabulary import CheckKind, CheckState, Method, ReviewOutcome, VisitOutcome

router = APIRouter(route_class=Transactional, tags=["ledger"], dependencies=[Depends(idempotent)])
_MOST = 20_000
AMonth = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$"), Field(examples=["2026-11"])]
ARegion = Annotated[str, StringConstraints(pattern=r"^([0-9]{6}|[0-9]{9}|[0-9]{12})$"), Field(examples=["370302001"])]
Line = Annotated[str, StringConstraints(min_length=4, max_length=200), AfterValidator(one_line)]


class CheckOut(BaseModel):
    id: UUID
    kind: CheckKind
    month: str
    region_code: str
    visitor_id: UUID | None
    visit_id: UUID | None = Field(description="The entry; null when it is about the visitor's whole month.")
    other_visit_id: UUID | None
    because: str = Field(examples=["2026-11-20 09:00的入户探访前后15分钟内,家中正常工作的门磁没有开关门记录"])
    figures: dict[str, Any] = Field(description="What the rule counted.")
    found_at: datetime
    state: CheckState
    outcome: ReviewOutcome | None
    note: str | None
    reviewed_at: datetime | None
    reviewed_by: str | None


def _check(row: LedgerCheck) -> dict[str, Any]:
    computed = ("month", "reviewed_by")
    return {name: getattr(row, name) for name in CheckOut.model_fields if name not in computed} | {
        "month": f"{row.month:%Y-%m}",
        "reviewed_by": (row.reviewed_by or {}).get("name"),
    }


@router.get(
    "/ledger-checks",
    dependencies=[needs(Right.LEDGER_READ)],
    summary="Entries to look at, with the reason, newest first",
)
async def ledger_checks(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: RegionText = None,
    month: Annotated[str | None, Query(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")] = None,
    kind: CheckKind | None = None,
    visitor_id: UUID | None = None,
    visit_id: UUID | None = None,
    state: Annotated[CheckState | None, Query(description="`open` is the work to do.")] = None,
) -> pages.Page[CheckOut]:
    """Impossible travel, overlapping visits, cloned texts, bursts at the month's end, durations of zero or always the same,
    late entries, visits at home without any door event though the sensor works. A finding is a question: only a person
    decides, and only on the visit itself whether it counts."""
    query = select(LedgerCheck).where(
        within(who, col(LedgerCheck.region_code)),
        begins(LedgerCheck.region_code, await area(session, who, region_code)),
    )
    for column, value in (
        (LedgerCheck.month, date.fromisoformat(month + "-01") if month else None), (LedgerCheck.kind, kind),
        (LedgerCheck.visitor_id, visitor_id), (LedgerCheck.state, state),
    ):  # fmt: skip
        if value is not None:
            query = query.where(col(column) == value)
    if visit_id is not None:
        query = query.where(sa.or_(col(LedgerCheck.visit_id) == visit_id, col(LedgerCheck.other_visit_id) == visit_id))
    rows = await pages.newest(session, query, col(LedgerCheck.id), limit, cursor)
    return pages.Page[CheckOut].model_validate(pages.page(rows, limit, _check, "id"))


class RunIn(Body):
    model_config = example(month="2026-11", region_code="370302001")
    month: AMonth
    region_code: ARegion


class RunOut(BaseModel):
    groups: int = Field(description="Visitors' months that were examined.")
    findings: int = Field(description="What the rules point at in them now, reviewed ones included.")


@router.post("/ledger-checks/run", dependencies=[needs(Right.LEDGER_REVIEW)], summary="Look at a month of a place now")
async def run_checks(body: RunIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep) -> RunOut:
    """Entries are looked at by themselves soon after they are written, and a day later once more; this looks at all of a
    township's or village's month at once. What no longer holds is withdrawn, what was reviewed does not come again."""
    month = Month.asked(body.month, today=now.astimezone(parts.tz).date())
    prefix = await area(session, who, body.region_code)
    groups = await examining.groups_of(session, prefix, month.first, tz=parts.tz, most=_MOST)
    async with beyond(session, "a visitor's month may lie in other regions too; only how much was found is told"):
        found = await examining.look(session, groups, now=now, tz=parts.tz)
    return RunOut(groups=len(groups), findings=found)


class ReviewIn(Body):
    model_config = example(outcome="explained", note="夫妻同住,一次上门看望两位老人")
    outcome: ReviewOutcome
    note: Note = Field(min_length=1, description="What was found out, and how.")


async def _check_within(session: SessionDep, who: PrincipalDep, check_id: UUID, *, lock: bool = False) -> LedgerCheck:
    query = select(LedgerCheck).where(col(LedgerCheck.id) == check_id, within(who, col(LedgerCheck.region_code)))
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such finding")
    return found


@router.get(
    "/ledger-checks/{check_id}",
    dependencies=[needs(Right.LEDGER_READ)],
    responses=responses(404),
    summary="One finding",
)
async def ledger_check(check_id: UUID, who: PrincipalDep, session: SessionDep) -> CheckOut:
    return CheckOut.model_validate(_check(await _check_within(session, who, check_id)))


@router.post(
    "/ledger-checks/{check_id}/review",
    dependencies=[needs(Right.LEDGER_REVIEW)],
    responses=responses(404),
    summary="Say what was found out",
)
async def review_check(check_id: UUID, body: ReviewIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> CheckOut:
    """Kept with your name. It does not come again; the visit is as it was: correct, void or override it by its own routes."""
    found = await _check_within(session, who, check_id, lock=True)
    if found.state is not CheckState.OPEN:
        raise Conflict(f"the finding is {found.state.value}; there is nothing to review")
    found.state, found.outcome, found.note = CheckState.REVIEWED, body.outcome, body.note
    found.reviewed_at, found.reviewed_by = now, who.who()
    await session.flush()
    audit.note(
        session, who, action="ledger_check.reviewed", subject_type="ledger_check", subject_id=found.id, now=now,
        region_code=found.region_code, kind=found.kind, outcome=body.outcome.value,
    )  # fmt: skip
    return CheckOut.model_validate(_check(found))


# --- samples ---------------------------------------------------------------------------------------------------------


class SampleIn(Body):
    model_config = example(
        month="2026-10", region_code="370302001", size=20, public_seed="福彩3D 2026年11月2日 开奖号 5 0 7",
        seed_source="中国福利彩票官网",
    )  # fmt: skip
    month: AMonth
    region_code: ARegion
    size: int = Field(ge=1, le=200)
    public_seed: Line = Field(description="A number that others publish after the month has ended.")
    seed_source: Line = Field(description="Where anybody can read it.")


class SampleOut(BaseModel):
    id: UUID
    month: str
    region_code: str
    size: int
    public_seed: str
    seed_source: str
    method: str = Field(description="How to draw it again.")
    population: int = Field(description="Entries it was drawn from: of that place and month, not voided.")
    population_hash: str = Field(description="SHA-256 of their ids, sorted, one a line.")
    drawn_at: datetime
    drawn_by: str


class SampledVisit(BaseModel):
    visit_id: UUID
    elder_id: UUID
    visitor_id: UUID | None
    place_code: str
    method: Method
    outcome: VisitOutcome
    started_at: datetime
    ended_at: datetime | None
    qualifying: bool
    voided: bool


class SampleDetail(SampleOut):
    visits: list[SampledVisit] = Field(
        description="In the order in which they were drawn; none that left your region since."
    )
    reproducible: bool = Field(description="Whether the same draw from today's entries gives the same list.")


_METHOD = (
    "sort the ids of the entries by SHA-256 of `<public_seed>:<id>` (UTF-8, ids in lower case); take the first `size`"
)


def _sample(row: LedgerSample) -> dict[str, Any]:
    computed = ("month", "population_hash", "drawn_by", "method")
    return {name: getattr(row, name) for name in SampleOut.model_fields if name not in computed} | {
        "month": f"{row.month:%Y-%m}", "population_hash": row.population_hash.hex(), "method": _METHOD,
        "drawn_by": row.drawn_by.get("name", ""),
    }  # fmt: skip


@router.get("/ledger-samples", dependencies=[needs(Right.LEDGER_READ)], summary="Samples that were drawn, newest first")
async def ledger_samples(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[SampleOut]:
    """Every draw is kept: whoever draws until they like the list is seen."""
    query = select(LedgerSample).where(within(who, col(LedgerSample.region_code)))
    rows = await pages.newest(session, query, col(LedgerSample.id), limit, cursor)
    return pages.Page[SampleOut].model_validate(pages.page(rows, limit, _sample, "id"))


@router.post(
    "/ledger-samples",
    status_code=201,
    dependencies=[needs(Right.LEDGER_REVIEW)],
    responses=responses(409),
    summary="Draw a sample for audit",
)
async def draw_sample(
    body: SampleIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> SampleDetail:
    """Random, and the same for everybody who draws with the same seed: nobody can steer it. The same month, place and seed
    are drawn once."""
    month = Month.asked(body.month, today=now.astimezone(parts.tz).date())
    prefix = await area(session, who, body.region_code)
    ids = await _population(session, prefix, month, parts)
    if not ids:
        raise InvalidInput("no entries in that month and place", field="month")
    there = select(col(LedgerSample.id)).where(
        col(LedgerSample.month) == month.first, col(LedgerSample.region_code) == prefix,
        col(LedgerSample.public_seed) == body.public_seed,
    )  # fmt: skip
    if await session.scalar(there) is not None:
        raise Conflict("drawn with this seed already; GET /api/v1/ledger-samples lists it", field="public_seed")
    made = LedgerSample(
        id=new_uuid(now), month=month.first, region_code=prefix, public_seed=body.public_seed,
        seed_source=body.seed_source, size=body.size, population=len(ids), population_hash=sampling.fingerprint(ids),
        visit_ids=sampling.draw(ids, seed=body.public_seed, size=body.size), drawn_at=now, drawn_by=who.who(),
    )  # fmt: skip
    session.add(made)
    await session.flush()
    audit.note(
        session, who, action="ledger_sample.drawn", subject_type="ledger_sample", subject_id=made.id, now=now,
        region_code=prefix, month=body.month, size=body.size, public_seed=body.public_seed,
    )  # fmt: skip
    return await _detail(session, who, parts, made)


@router.get(
    "/ledger-samples/{sample_id}",
    dependencies=[needs(Right.LEDGER_READ)],
    responses=responses(404),
    summary="One sample with its entries",
)
async def ledger_sample(sample_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep) -> SampleDetail:
    found = await session.get(LedgerSample, sample_id)
    if found is None or not who.sees(found.region_code):
        raise NotFound("no such sample")
    return await _detail(session, who, parts, found)


async def _population(session: SessionDep, prefix: str, month: Month, parts: PartsDep) -> Sequence[UUID]:
    async with beyond(session, "a draw is of all entries of the place, whoever draws: people who moved away since too"):
        return await sampling.population(session, prefix, start=month.begins(parts.tz), end=month.ends(parts.tz))


async def _detail(session: SessionDep, who: PrincipalDep, parts: PartsDep, row: LedgerSample) -> SampleDetail:
    query = select(Visit).where(col(Visit.id).in_(row.visit_ids), within(who, col(Visit.region_code)))
    found = {visit.id: visit for visit in (await session.execute(query)).scalars()}
    month = Month(row.month)
    ids = await _population(session, row.region_code, month, parts)
    again = sampling.draw(ids, seed=row.public_seed, size=row.size)
    visits = [
        {name: getattr(found[one], name) for name in SampledVisit.model_fields if name not in ("visit_id", "voided")}
        | {"visit_id": one, "voided": found[one].voided_at is not None}
        for one in row.visit_ids
        if one in found
    ]
    return SampleDetail.model_validate(_sample(row) | {"visits": visits, "reproducible": again == row.visit_ids})
