"""What a running month still asks for, by place or class: the visits to make until its end. Read-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.elders.policy import Period
from app.elders.vocabulary import CareLevel
from app.reports.area import GroupBy, names, whole_code
from app.reports.coverage import EXCLUDED, grouped
from app.reports.months import Month
from app.reports.rates import Ahead
from app.visits.calendar import span_of

_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Weeks:
    """How a month lies over ISO weeks, seen from one of its days. A week belongs to the month in which it ends: what is due
    on its Sunday is asked for by then."""

    begun: int  # that the days so far touch
    this_ends: bool  # whether this week ends within the month
    later: int  # whole weeks after this one that do

    @classmethod
    def of(cls, today: date) -> Weeks:
        month = Month.of(today)
        monday, sunday = span_of(Period.WEEK, today).start, span_of(Period.WEEK, today).end
        begun = (monday - span_of(Period.WEEK, month.first).start) // _WEEK + 1
        return cls(begun, sunday <= month.last, max((month.last - sunday) // _WEEK, 0))


@dataclass(frozen=True, slots=True)
class Outlook:
    """One line: what is ahead of a place or class."""

    region_code: str
    name: str
    care_level: CareLevel | None
    ahead: Ahead


# Kept duties say how often somebody is visited and what this week or month still asks for; one that is stale falls back on
# the month's own count. Whoever counts and was not visited yet is asked for one visit at least.
_OUTLOOK = """
    SELECT {code} AS code, {level} AS care_level, count(*) AS due, count(*) FILTER (WHERE visits > 0) AS visited,
           coalesce(sum(least(visits, each * CASE WHEN weekly THEN :begun ELSE 1 END)), 0) AS visits_made,
           coalesce(sum(remaining), 0) AS visits_remaining,
           coalesce(sum(remaining) FILTER (WHERE weekly), 0) AS weekly_remaining
    FROM (
        SELECT *, CASE WHEN visits > 0 AND excused IS NOT NULL THEN 0 ELSE greatest(
                   CASE WHEN visits = 0 THEN 1 ELSE 0 END,
                   CASE WHEN weekly THEN :this * coalesce(still, greatest(each - met_this_week, 0)) + :later * each
                        ELSE coalesce(still, greatest(each - visits, 0)) END) END AS remaining
        FROM (
            SELECT m.place_code, m.care_level, m.visits, m.excused, coalesce(d.per_period, 1) AS each,
                   CASE WHEN m.last_on >= :monday THEN 1 ELSE 0 END AS met_this_week,
                   coalesce(d.period = 'week', m.care_level IN ('key', 'undetermined')) AS weekly,
                   CASE WHEN d.look_on > :today AND d.period_end >= :today THEN d.still END AS still
            FROM elder_months m LEFT JOIN visit_duties d ON d.elder_id = m.elder_id
            WHERE m.month = :month AND m.place_code ^@ :prefix AND NOT {excluded}
        ) AS people
    ) AS asked
    GROUP BY 1, 2
"""


async def outlook(session: AsyncSession, prefix: str, *, by: GroupBy | None, today: date) -> Sequence[Outlook]:
    """The lines of the month that is running. Without `by` there is one, also when nobody counts."""
    code, level = grouped(by)
    query = sa.text(_OUTLOOK.format(code=code, level=level, excluded=EXCLUDED))
    weeks, whole = Weeks.of(today), whole_code(prefix)
    values: dict[str, Any] = {
        "month": Month.of(today).first, "prefix": prefix, "today": today, "monday": span_of(Period.WEEK, today).start,
        "begun": weeks.begun, "this": int(weeks.this_ends), "later": weeks.later,
    }  # fmt: skip
    if ":whole" in query.text:
        values["whole"] = whole
    rows = (await session.execute(query, values)).all()
    if not rows and by is None:
        return [Outlook(whole, (await names(session, {whole})).get(whole, ""), None, Ahead(0, 0, 0, 0, 0))]
    named = await names(session, {row.code for row in rows})
    return [
        Outlook(
            row.code, named.get(row.code, ""), CareLevel(row.care_level) if row.care_level else None,
            Ahead(row.due, row.visited, row.visits_made, row.visits_remaining, row.weekly_remaining),
        )
        for row in rows
    ]  # fmt: skip
