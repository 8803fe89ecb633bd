"""The periodic review of a township, to read, to print and to hang up (评议与公示, policy row 40)."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app import words
from app.access.principal import Right
from app.api import documents
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.stats import AlarmFigures, CoverageLine, CoverageOut, MonthText, _alarm_line, _shape
from app.api.transactional import Transactional
from app.elders.vocabulary import Service
from app.errors import InvalidInput
from app.reports.area import area, names, whole_code
from app.reports.months import Month
from app.reports.review import review
from app.visits.vocabulary import CheckKind, FindingKind

router = APIRouter(route_class=Transactional, tags=["reports"])
_LONGEST = 12


class VisitCounts(BaseModel):
    visits: int
    qualifying: int
    attempts: int
    late: int
    voided: int


class FindingCounts(BaseModel):
    kind: FindingKind
    found: int = Field(description="In these months.")
    ended: int = Field(description="In these months.")
    open: int = Field(description="At their end.")


class CheckCounts(BaseModel):
    kind: CheckKind
    found: int
    reviewed: int
    not_genuine: int


class VisitorLine(BaseModel):
    name: str
    kind: str
    organisation: str | None
    visits: int
    elders: int
    minutes: int


class TrainingLine(BaseModel):
    held_on: date
    place: str
    topic: str
    in_charge: str
    people: int
    review: str


class ActivityLine(BaseModel):
    held_on: date
    village: str
    place: str
    kind: Service
    title: str
    elders: int


class ReviewOut(BaseModel):
    region_code: str
    name: str
    since: str = Field(serialization_alias="from", examples=["2026-09"])
    until: str = Field(serialization_alias="to", examples=["2026-11"])
    months: list[CoverageOut]
    villages: list[CoverageLine] = Field(description="The last month; the best adjusted rate first.")
    levels: list[CoverageLine] = Field(description="The last month by class.")
    visits: VisitCounts
    findings: list[FindingCounts]
    checks: list[CheckCounts]
    visitors: list[VisitorLine] = Field(
        description="Who made most visits that count: twenty, for nominations (典型选树)."
    )
    trainings: list[TrainingLine]
    activities: list[ActivityLine]
    alarms: AlarmFigures | None


RegionAsked = Annotated[
    str, Query(pattern=r"^([0-9]{9}|[0-9]{12})$", examples=["370302001"], description="A township or village.")
]


@router.get(
    "/reports/township-review",
    dependencies=[needs(Right.STATS_READ)],
    responses=documents.either(ReviewOut),
    summary="A township's periodic review",
    response_model=None,
)
async def township_review(
    request: Request,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    region_code: RegionAsked,
    since: Annotated[MonthText, Query(alias="from", pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")] = None,
    until: Annotated[MonthText, Query(alias="to", pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")] = None,
) -> Response:
    """At most twelve months; the last three when none are named. No elder is named in it. With `Accept: text/html` a page to
    print and hang up."""
    today = now.astimezone(parts.tz).date()
    last = Month.asked(until, today=today, field="to")
    first = Month.asked(since, today=today, field="from") if since else last.before(2)
    if not last.before(_LONGEST - 1) <= first <= last:
        raise InvalidInput("`from` comes before `to`, by at most twelve months", field="from")
    prefix = await area(session, who, region_code)
    found = await review(session, prefix, first=first, last=last, now=now, tz=parts.tz)
    code = whole_code(prefix)
    shown = ReviewOut.model_validate({
        "region_code": code, "name": (await names(session, {code})).get(code, ""), "since": str(first),
        "until": str(last), "months": [_shape(one) for one in found.months],
        "villages": [_shape(one) for one in found.villages], "levels": [_shape(one) for one in found.levels],
        "visits": found.visits, "findings": found.findings, "checks": found.checks, "visitors": found.visitors,
        "trainings": found.trainings, "activities": found.activities,
        "alarms": _alarm_line(found.alarms) if found.alarms else None,
    })  # fmt: skip
    if documents.wants_page(request):
        return documents.page("review.html", review=shown, say=words.say, percent=_percent, made_on=today,
            month_of=lambda line: line.month, name_of=lambda line: line.name,
            level_of=lambda line: words.say(f"care_level.{line.care_level}"),
        )  # fmt: skip
    return Response(shown.model_dump_json(by_alias=True), media_type="application/json")


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{share * 100:.1f}%"
