"""The periodic review of a township (评议, policy rows 40 and 46): everything it needs, from what others keep. Read-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.wall import beyond
from app.reports import alarms, coverage
from app.reports.area import GroupBy
from app.reports.months import Month
from app.visits.made_by import made_by, span

_ROW = dict[str, Any]
_WHY = "what was done in a place and by its visitors, also for elders who live elsewhere by now; no elder is told"


@dataclass(frozen=True, slots=True)
class Review:
    """Of one place and some months. `villages`: the last month, the best rate first. `visitors`: who did most, for those who
    choose whom to nominate; the hours are no merit by themselves."""

    months: Sequence[coverage.Coverage]
    villages: Sequence[coverage.Coverage]
    levels: Sequence[coverage.Coverage]
    visits: _ROW
    findings: Sequence[_ROW]
    checks: Sequence[_ROW]
    visitors: Sequence[_ROW]
    trainings: Sequence[_ROW]
    activities: Sequence[_ROW]
    alarms: alarms.Figures | None


_VISITS = """
    SELECT count(*) FILTER (WHERE outcome = 'met' AND voided_at IS NULL) AS visits,
           count(*) FILTER (WHERE qualifying) AS qualifying,
           count(*) FILTER (WHERE outcome <> 'met' AND voided_at IS NULL) AS attempts,
           count(*) FILTER (WHERE late AND voided_at IS NULL) AS late, count(*) FILTER (WHERE voided_at IS NOT NULL) AS voided
    FROM visits WHERE place_code ^@ :prefix AND started_at >= :start AND started_at < :end
"""
_FINDINGS = """
    SELECT f.kind, count(*) FILTER (WHERE f.found_at >= :start) AS found,
           count(*) FILTER (WHERE f.ended_at >= :start AND f.ended_at < :end) AS ended,
           count(*) FILTER (WHERE f.ended_at IS NULL OR f.ended_at >= :end) AS open
    FROM findings f JOIN elders e ON e.id = f.elder_id
    WHERE e.region_code ^@ :prefix AND f.found_at < :end GROUP BY f.kind ORDER BY f.kind
"""
_CHECKS = """
    SELECT kind, count(*) AS found, count(*) FILTER (WHERE state = 'reviewed') AS reviewed,
           count(*) FILTER (WHERE outcome = 'not_genuine') AS not_genuine
    FROM ledger_checks WHERE region_code ^@ :prefix AND month >= :first AND month <= :last AND state <> 'withdrawn'
    GROUP BY kind ORDER BY kind
"""
_VISITORS = f"""
    SELECT w.name, w.kind, w.organisation, d.visits, d.elders, round(d.seconds / 60) AS minutes
    FROM visitors w CROSS JOIN LATERAL (
        SELECT count(*) AS visits, count(DISTINCT v.elder_id) AS elders, coalesce((
                   SELECT sum(extract(epoch FROM upper(r) - lower(r))) FROM unnest(
                       range_agg(tstzrange(v.started_at, v.ended_at)) FILTER (WHERE v.ended_at > v.started_at)) r), 0) AS seconds
        FROM {made_by("w.id")} v WHERE v.qualifying
    ) d
    WHERE w.region_code ^@ :prefix AND d.visits > 0
    ORDER BY d.visits DESC, minutes DESC, w.id LIMIT 20
"""  # noqa: S608 - constants
_TRAININGS = """
    SELECT held_on, place, topic, in_charge, cardinality(visitor_ids) + guests AS people, review FROM training_sessions
    WHERE region_code ^@ :prefix AND held_on >= :first AND held_on < :after ORDER BY held_on, id LIMIT 200
"""
_ACTIVITIES = """
    SELECT a.held_on, r.name AS village, a.place, a.kind, a.title, a.elders FROM station_activities a
    JOIN regions r ON r.code = a.region_code
    WHERE a.region_code ^@ :prefix AND a.held_on >= :first AND a.held_on < :after ORDER BY a.held_on, a.id LIMIT 200
"""


async def review(
    session: AsyncSession, prefix: str, *, first: Month, last: Month, now: datetime, tz: ZoneInfo
) -> Review:
    """What a place did from the first to the last month."""
    today = now.astimezone(tz).date()
    start, end = first.begins(tz), last.ends(tz)
    values = {"prefix": prefix, **span(start, end)}
    days = {"prefix": prefix, "first": first.first, "after": last.after().first}
    count = (last.first.year - first.first.year) * 12 + last.first.month - first.first.month + 1
    villages = await coverage.coverage(session, prefix, last, by=GroupBy.VILLAGE, today=today)
    months = await coverage.trend(session, prefix, last, months=count, level=None)
    figures = await alarms.figures(
        session, prefix, since=start, until=end, by=None, kind=None, severity=None, now=now, tz=tz
    )
    async with beyond(session, _WHY):
        visits, visitors = await _rows(session, _VISITS, values), await _rows(session, _VISITORS, values)
    return Review(
        months,
        sorted(villages, key=lambda line: (-(line.rate_adjusted or 0), line.region_code)),
        await coverage.coverage(session, prefix, last, by=GroupBy.CARE_LEVEL, today=today),
        visits[0],
        await _rows(session, _FINDINGS, values),
        await _rows(session, _CHECKS, {"prefix": prefix, "first": first.first, "last": last.first}),
        visitors,
        await _rows(session, _TRAININGS, days),
        await _rows(session, _ACTIVITIES, days),
        figures[0] if figures else None,
    )


async def _rows(session: AsyncSession, query: str, values: _ROW) -> list[_ROW]:
    return [dict(row) for row in (await session.execute(sa.text(query), values)).mappings()]
