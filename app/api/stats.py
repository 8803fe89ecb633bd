"""Statistics: coverage of a month, its trend and outlook, the people behind each figure; figures of alarms."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from app.access.principal import Right
from app.alarms.vocabulary import Outcome
from app.api import pages
from app.api.bodies import Moment
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.duties import ElderRef
from app.api.transactional import Transactional, idempotent
from app.elders.vocabulary import CareLevel, StatusReason
from app.errors import InvalidInput
from app.reports import alarms as alarm_figures
from app.reports import coverage as reports
from app.reports.alarms import TARGETS, AlarmGroup, Figures
from app.reports.area import GroupBy, area
from app.reports.coverage import Coverage, Standing
from app.reports.months import Month
from app.reports.outlook import outlook
from app.reports.rates import Prospect, forecast, rate
from app.rules.verdict import AlarmKind, Severity

router = APIRouter(route_class=Transactional, tags=["statistics"], dependencies=[Depends(idempotent)])
MonthText = Annotated[
    str | None,
    Query(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", examples=["2026-11"], description="This month when absent."),
]
RegionText = Annotated[
    str | None,
    Query(
        pattern=r"^([0-9]{6}|[0-9]{9}|[0-9]{12})$",
        examples=["370302"],
        description="A district, township or village; your whole scope when absent.",
    ),
]


class CoverageOut(BaseModel):
    region_code: str
    name: str
    month: str = Field(examples=["2026-11"])
    care_level: CareLevel | None = Field(description="With `group_by=care_level`: the class on the month's last day.")
    enrolled: int = Field(description="Everybody enrolled on any day of the month, by where they live at its end.")
    visited: int = Field(description="Of them, with at least one visit in the month that qualifies.")
    rate_raw: float | None = Field(description="visited / enrolled, 0–1; null when nobody is enrolled.")
    rate_adjusted: float | None = Field(description="visited / (enrolled − exclusions).")
    exclusions: dict[StatusReason, int] = Field(
        description="People nobody visited, who on the month's last day are in hospital, in an institution, away, refuse, "
        "have moved or died, with evidence. `GET /stats/coverage/elders?standing=excluded` lists them."
    )
    unevidenced: int = Field(description="The same without evidence: they count as not visited.")
    visits: int
    attempts: int


class CoverageLine(CoverageOut):
    longest_gap_days: int | None = Field(
        description="The longest run of days of the month without a qualifying visit, of anybody who is not excluded; up to "
        "today while the month is running, from the day of enrolment for those who came later."
    )


class CoverageLines(BaseModel):
    items: list[CoverageLine]


class Trend(BaseModel):
    items: list[CoverageOut]


def _shape(line: Coverage) -> dict[str, Any]:
    names = ("region_code", "name", "care_level", "enrolled", "visited", "rate_raw", "rate_adjusted", "exclusions",
             "unevidenced", "visits", "attempts", "longest_gap_days")  # fmt: skip
    return {name: getattr(line, name) for name in names} | {"month": str(line.month)}


@router.get(
    "/stats/coverage", dependencies=[needs(Right.STATS_READ)], summary="Who was visited in a month, by place or class"
)
async def coverage(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    month: MonthText = None,
    region_code: RegionText = None,
    group_by: GroupBy | None = None,
) -> CoverageLines:
    """The raw rate over everybody enrolled, and the adjusted one without those who could not be visited. A month is judged
    as of its last day, the one that is running by what is known now. Past months stay as they were: what is corrected in
    them changes exactly the figures it concerns."""
    today = now.astimezone(parts.tz).date()
    asked = Month.asked(month, today=today)
    lines = await reports.coverage(session, await area(session, who, region_code), asked, by=group_by, today=today)
    return CoverageLines.model_validate({"items": [_shape(line) for line in lines]})


@router.get(
    "/stats/coverage/trend", dependencies=[needs(Right.STATS_READ)], summary="A region's coverage over the months"
)
async def coverage_trend(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    month: MonthText = None,
    region_code: RegionText = None,
    months: Annotated[int, Query(ge=1, le=36, description="How many, the asked one included.")] = 12,
    care_level: CareLevel | None = None,
) -> Trend:
    """Oldest first."""
    asked = Month.asked(month, today=now.astimezone(parts.tz).date())
    prefix = await area(session, who, region_code)
    lines = await reports.trend(session, prefix, asked, months=months, level=care_level)
    return Trend.model_validate({"items": [_shape(line) | {"care_level": care_level} for line in lines]})


class ForecastOut(BaseModel):
    region_code: str
    name: str
    care_level: CareLevel | None
    due: int = Field(description="People who count this month: enrolled without the excluded.")
    visited: int
    remaining: int = Field(description="Who still waits for this month's first visit.")
    visits_made: int = Field(description="Visits so far, of each person no more than was asked for.")
    visits_remaining: int = Field(
        description="Visits to make by the month's end: the month's, and those of the weeks that end in it."
    )
    weekly_remaining: int = Field(description="Of them, those of people who are visited weekly.")
    days_left: int = Field(description="After today.")
    pace: float = Field(description="Visits a day so far.")
    needed: float | None = Field(description="The pace that would still make all of them; null on the last day.")
    expected_missing: int = Field(description="Visits that will not be made at this pace.")
    expected_visited: int = Field(
        description="People with a first visit by the month's end, as they were reached so far."
    )
    expected_rate: float | None
    prospect: Prospect
    because: str = Field(
        examples=["月底前还应探访12次(每周探访对象8次,本月尚未探访4人),剩4天;照目前每天2.0次的进度,将差4次"]
    )


class Forecasts(BaseModel):
    month: str
    items: list[ForecastOut] = Field(description="Those that will not make it first, the largest shortfall first.")


@router.get(
    "/stats/coverage/forecast",
    dependencies=[needs(Right.STATS_READ)],
    summary="Which places will not make it by the month's end",
)
async def coverage_forecast(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    region_code: RegionText = None,
    group_by: GroupBy | None = None,
) -> Forecasts:
    """From the visits still to make by the month's end, weekly people's of each week that ends in it, and the pace so far.
    The first two days of a month are too early to tell."""
    today = now.astimezone(parts.tz).date()
    month = Month.of(today)
    items = []
    for line in await outlook(session, await area(session, who, region_code), by=group_by, today=today):
        ahead = line.ahead
        one = forecast(ahead, today=today, last_day=month.last)
        items.append(
            ForecastOut(
                region_code=line.region_code, name=line.name, care_level=line.care_level, due=ahead.due,
                visited=ahead.visited, remaining=one.remaining, visits_made=ahead.visits_made,
                visits_remaining=ahead.visits_remaining, weekly_remaining=ahead.weekly_remaining,
                days_left=one.days_left, pace=one.pace, needed=one.needed, expected_missing=one.expected_missing,
                expected_visited=one.expected_visited, expected_rate=rate(one.expected_visited, ahead.due),
                prospect=one.prospect, because=one.because,
            )
        )  # fmt: skip
    items.sort(key=lambda one: (one.prospect is not Prospect.WILL_NOT_MAKE_IT, -one.expected_missing, one.region_code))
    return Forecasts(month=str(month), items=items)


class CoveredElder(BaseModel):
    elder: ElderRef | None = Field(description="Null for somebody who has moved out of your region since.")
    place_code: str = Field(description="Where they lived at the month's end: the line they are counted in.")
    care_level: CareLevel
    standing: Standing
    reason: StatusReason | None
    since: date | None = Field(description="Of the status that excuses.")
    until: date | None
    evidence: str | None
    visits: int
    attempts: int
    first_on: date | None
    last_on: date | None
    longest_gap_days: int


@router.get(
    "/stats/coverage/elders",
    dependencies=[needs(Right.ELDERS_READ)],
    summary="The people behind a figure of coverage",
)
async def covered_elders(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    month: MonthText = None,
    region_code: RegionText = None,
    care_level: CareLevel | None = None,
    standing: Annotated[
        Standing | None, Query(description="`unvisited` has `unevidenced` too, as the adjusted rate does.")
    ] = None,
    excluded: Annotated[
        StatusReason | None, Query(description="Only those excluded for this reason.", examples=["in_hospital"])
    ] = None,
) -> pages.Page[CoveredElder]:
    """Each with the day and the evidence of what excuses them. In the order of villages. Needs stats:read too."""
    who.must(Right.STATS_READ)
    after = pages.decode(cursor, str, UUID) or ["", UUID(int=0)]
    today = now.astimezone(parts.tz).date()
    asked = Month.asked(month, today=today)
    prefix = await area(session, who, region_code)
    if excluded is not None:
        standing = Standing.EXCLUDED
    rows = await reports.people(
        session, prefix, asked, standing=standing, reason=excluded, level=care_level, after=(after[0], after[1]),
        limit=limit + 1, today=today,
    )  # fmt: skip

    def shape(row: Any) -> dict[str, Any]:
        own = row.region_code is not None  # the wall hides those who moved out of the scope
        elder = {"id": row.elder_id, "name": row.name, "region_code": row.region_code}
        computed = ("elder", "reason", "since", "until", "evidence")
        return {name: getattr(row, name) for name in CoveredElder.model_fields if name not in computed} | {
            "elder": elder if own else None, "reason": row.excused, "since": row.since if row.excused else None,
            "until": row.until if row.excused else None, "evidence": row.evidence if own else None,
        }  # fmt: skip

    return pages.Page[CoveredElder].model_validate(pages.page(rows, limit, shape, "place_code", "elder_id"))


# --- alarms ----------------------------------------------------------------------------------------------------------

_LONGEST = timedelta(days=400)


class WaitsOut(BaseModel):
    p50: float | None = Field(description="Seconds from the event's arrival.")
    p95: float | None
    longest: float | None


class TargetOut(BaseModel):
    within_s: int
    answered: int
    rate: float | None = Field(description="Of all that arrived long enough ago, those nobody answered included.")
    target: float
    met: bool | None


class AlarmFigures(BaseModel):
    key: str | None = Field(
        examples=["sos", "sos_button/WS101"], description="What the line is about; null: everything."
    )
    name: str | None = Field(description="Of a region.")
    alarms: int
    outcomes: dict[Outcome, int]
    resolved: int
    false_alarm_rate: float | None = Field(description="False alarms of those that ended and were no test.")
    first_notice: WaitsOut = Field(description="Until a person was told.")
    first_answer: WaitsOut = Field(description="Until a person answered: an account, a contact or a visitor.")
    answers: list[TargetOut] = Field(
        description="Against what telecare centres are held to: 97.5 % in 60 s, 99 % in 180 s."
    )


class AlarmLines(BaseModel):
    since: datetime = Field(serialization_alias="from")
    until: datetime = Field(serialization_alias="to")
    items: list[AlarmFigures]


@router.get(
    "/stats/alarms", dependencies=[needs(Right.STATS_READ)], summary="Alarms of a time, and how soon they were answered"
)
async def alarm_statistics(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    month: MonthText = None,
    since: Annotated[Moment | None, Query(alias="from", description="Instead of a month: not before.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Before; now when absent. At most 400 days.")] = None,
    region_code: RegionText = None,
    group_by: AlarmGroup | None = None,
    kind: AlarmKind | None = None,
    severity: Severity | None = None,
) -> AlarmLines:
    """The largest line first. Time counts from the arrival of the event. An answer is a person's first "I am going", "I am
    there" or outcome; an API key's is none: it may be a machine. The false-alarm rate of a model of device needs
    `group_by=device_model`: its kind and model, or the profile that reads it when nobody entered a model."""
    if since is not None or until is not None:
        until = until or now
        since = since or until - timedelta(days=30)
    else:
        asked = Month.asked(month, today=now.astimezone(parts.tz).date())
        since, until = asked.begins(parts.tz), asked.ends(parts.tz)
    if not timedelta() < until - since <= _LONGEST:
        raise InvalidInput("`from` comes before `to`, by at most 400 days", field="from")
    lines = await alarm_figures.figures(
        session, await area(session, who, region_code), since=since, until=until, by=group_by, kind=kind,
        severity=severity, now=now, tz=parts.tz,
    )  # fmt: skip
    return AlarmLines.model_validate({"since": since, "until": until, "items": [_alarm_line(line) for line in lines]})


def _alarm_line(line: Figures) -> dict[str, Any]:
    answers = []
    for seconds, target in TARGETS.items():
        reached = rate(line.within[seconds], line.answerable)
        met = None if reached is None else reached >= target
        answers.append(
            {"within_s": seconds, "answered": line.within[seconds], "rate": reached, "target": target, "met": met}
        )
    waits = {
        name: {"p50": one.p50, "p95": one.p95, "longest": one.longest}
        for name, one in (("first_notice", line.first_notice), ("first_answer", line.first_answer))
    }
    shown = ("key", "name", "alarms", "outcomes", "resolved", "false_alarm_rate")
    return {name: getattr(line, name) for name in shown} | waits | {"answers": answers}
