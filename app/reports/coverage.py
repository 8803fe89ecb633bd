"""Coverage by place, class and month, from rows that the database keeps (docs/adr/0024). Read-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, assert_never
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.elders.status import EFFECTS
from app.elders.vocabulary import CareLevel, StatusReason
from app.reports.area import GroupBy, names, whole_code
from app.reports.months import Month
from app.reports.rates import rate

EXCUSING = tuple(reason for (_, reason), effects in EFFECTS.items() if reason and not effects.visits_due)


@dataclass(frozen=True, slots=True)
class Coverage:
    """One line of a month's coverage. `exclusions`: people nobody visited, with evidence why they need not be."""

    month: Month
    region_code: str
    name: str
    care_level: CareLevel | None
    enrolled: int
    visited: int
    exclusions: dict[str, int]
    unevidenced: int
    visits: int
    attempts: int
    longest_gap_days: int | None = None

    @property
    def excluded(self) -> int:
        return sum(self.exclusions.values())

    @property
    def due(self) -> int:
        """The people the adjusted rate is about."""
        return self.enrolled - self.excluded

    @property
    def rate_raw(self) -> float | None:
        return rate(self.visited, self.enrolled)

    @property
    def rate_adjusted(self) -> float | None:
        return rate(self.visited, self.due)


def grouped(by: GroupBy | None) -> tuple[str, str]:
    """SQL for the code and the class of a line."""
    match by:
        case None:
            return "CAST(:whole AS text)", "NULL"
        case GroupBy.TOWNSHIP:
            return "left(place_code, 9) || '000'", "NULL"
        case GroupBy.VILLAGE:
            return "place_code", "NULL"
        case GroupBy.CARE_LEVEL:
            return "CAST(:whole AS text)", "care_level"
        case _:
            assert_never(by)


# Of a row of a month: whether it takes somebody out of the adjusted rate.
EXCLUDED = "(visits = 0 AND evidenced AND excused IS NOT NULL)"
_EXCLUSIONS = ", ".join(f"count(*) FILTER (WHERE excluded = '{one.value}') AS {one.value}" for one in EXCUSING)
_COVERAGE = """
    SELECT {code} AS code, {level} AS care_level, count(*) AS enrolled, count(*) FILTER (WHERE visits > 0) AS visited,
           count(*) FILTER (WHERE visits = 0 AND NOT evidenced) AS unevidenced,
           sum(visits) AS visits, sum(attempts) AS attempts, {exclusions},
           max(greatest(gap_days, CAST(:until AS date) - coalesce(last_on, counted_from - 1)))
               FILTER (WHERE excluded IS NULL) AS longest_gap_days
    FROM (SELECT *, CASE WHEN visits = 0 AND evidenced THEN excused END AS excluded FROM elder_months
          WHERE month = :month AND place_code ^@ :prefix) AS people
    GROUP BY 1, 2 ORDER BY 1, 2
"""


async def coverage(
    session: AsyncSession, prefix: str, month: Month, *, by: GroupBy | None, today: date
) -> list[Coverage]:
    """The lines of a month. Without `by` there is one, also when nobody is enrolled."""
    code, level = grouped(by)
    query = sa.text(_COVERAGE.format(code=code, level=level, exclusions=_EXCLUSIONS))
    values = {"month": month.first, "prefix": prefix, "until": month.until(today)}
    if ":whole" in query.text:
        values["whole"] = whole_code(prefix)
    rows = (await session.execute(query, values)).all()
    if not rows and by is None:
        return [_nobody(month, whole_code(prefix), await names(session, {whole_code(prefix)}))]
    named = await names(session, {row.code for row in rows})
    order = {level.value: n for n, level in enumerate(CareLevel)}
    rows = sorted(rows, key=lambda row: (row.code, order.get(row.care_level, 0)))
    return [_line(month, row, named, row.longest_gap_days) for row in rows]


_TREND = """
    SELECT month, CAST(:whole AS text) AS code, NULL AS care_level, sum(enrolled) AS enrolled, sum(visited) AS visited,
           sum(unevidenced) AS unevidenced, sum(visits) AS visits, sum(attempts) AS attempts, {exclusions}
    FROM coverage_sums WHERE month BETWEEN :first AND :last AND place_code ^@ :prefix
          AND (CAST(:level AS text) IS NULL OR care_level = :level)
    GROUP BY month
"""
_SUMMED_EXCLUSIONS = ", ".join(
    f"coalesce(sum(enrolled) FILTER (WHERE excluded = '{one.value}'), 0) AS {one.value}" for one in EXCUSING
)


async def trend(
    session: AsyncSession, prefix: str, last: Month, *, months: int, level: CareLevel | None
) -> list[Coverage]:
    """A region's months up to `last`, oldest first; months with nobody enrolled too."""
    whole = whole_code(prefix)
    first = last.before(months - 1)
    values = {
        "first": first.first, "last": last.first, "prefix": prefix, "whole": whole,
        "level": level.value if level else None,
    }  # fmt: skip
    rows = (await session.execute(sa.text(_TREND.format(exclusions=_SUMMED_EXCLUSIONS)), values)).all()
    found, named = {row.month: row for row in rows}, await names(session, {whole})
    each = [last.before(n) for n in range(months - 1, -1, -1)]
    return [
        _line(month, found[month.first], named, None) if month.first in found else _nobody(month, whole, named)
        for month in each
    ]


def _line(month: Month, row: Any, named: dict[str, str], gap: int | None) -> Coverage:
    return Coverage(
        month, row.code, named.get(row.code, ""), CareLevel(row.care_level) if row.care_level else None, row.enrolled,
        row.visited, {one.value: getattr(row, one.value) for one in EXCUSING}, row.unevidenced, row.visits,
        row.attempts, gap,
    )  # fmt: skip


def _nobody(month: Month, code: str, named: dict[str, str]) -> Coverage:
    return Coverage(month, code, named.get(code, ""), None, 0, 0, {one.value: 0 for one in EXCUSING}, 0, 0, 0)


# --- who is behind a figure ------------------------------------------------------------------------------------------


class Standing(StrEnum):
    """How somebody counts in a month."""

    VISITED = "visited"
    UNVISITED = "unvisited"  # counts, and nobody came
    UNEVIDENCED = "unevidenced"  # would be excluded, but nothing shows it: counts as unvisited
    EXCLUDED = "excluded"


_STANDING = """CASE WHEN m.visits > 0 THEN 'visited' WHEN NOT m.evidenced THEN 'unevidenced'
                    WHEN m.excused IS NOT NULL THEN 'excluded' ELSE 'unvisited' END"""
_PEOPLE = sa.text(
    f"""
    SELECT m.elder_id, m.place_code, m.care_level, m.standing, m.excused, m.visits, m.attempts, m.first_on, m.last_on,
           greatest(m.gap_days, CAST(:until AS date) - coalesce(m.last_on, m.counted_from - 1)) AS longest_gap_days,
           e.name, e.region_code, s.since, s.until, s.evidence
    FROM (SELECT m.*, {_STANDING} AS standing FROM elder_months m
          WHERE m.month = :month AND m.place_code ^@ :prefix
                AND (m.place_code, m.elder_id) > (:place, CAST(:after AS uuid))
                AND (CAST(:level AS text) IS NULL OR m.care_level = :level)
                AND (CAST(:reason AS text) IS NULL OR m.excused = :reason)
                AND (CAST(:standings AS text[]) IS NULL OR {_STANDING} = ANY(CAST(:standings AS text[])))
          ORDER BY m.place_code, m.elder_id LIMIT :limit) m
    LEFT JOIN elders e ON e.id = m.elder_id
    LEFT JOIN LATERAL (
        SELECT s.since, s.until, s.evidence FROM elder_statuses s
        WHERE m.excused IS NOT NULL AND s.elder_id = m.elder_id AND s.since <= CAST(:last_day AS date)
        ORDER BY s.since DESC, s.recorded_at DESC, s.id DESC LIMIT 1
    ) s ON true
    ORDER BY m.place_code, m.elder_id
    """  # noqa: S608 - constants
)


async def people(
    session: AsyncSession,
    prefix: str,
    month: Month,
    *,
    standing: Standing | None,
    reason: StatusReason | None,
    level: CareLevel | None,
    after: tuple[str, UUID],
    limit: int,
    today: date,
) -> Sequence[Any]:
    """The people behind a line of `coverage`, by village. `unvisited` has those without evidence too, as the rate does."""
    standings = [standing.value] if standing else None
    if standing is Standing.UNVISITED:
        standings = [Standing.UNVISITED.value, Standing.UNEVIDENCED.value]
    values = {
        "month": month.first, "last_day": month.last, "until": month.until(today), "prefix": prefix,
        "place": after[0], "after": after[1], "limit": limit, "standings": standings,
        "level": level.value if level else None, "reason": reason.value if reason else None,
    }  # fmt: skip
    return (await session.execute(_PEOPLE, values)).all()
