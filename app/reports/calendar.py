"""The kept rows of coverage as time passes: the next month is opened before it begins, sums are put together."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.reports.months import Month

_AHEAD = timedelta(days=7)
_BATCH = 25  # a millisecond or two: alarms share the processor
_ADDING_UP = 7_301_312


async def keep(session: AsyncSession, *, today: date, tz: ZoneInfo) -> int:
    """One batch of everybody's rows for a month that begins within a week, or has begun. Returns 0 when none is left."""
    await _keep_midnight(session, tz)
    wanted = Month.of(today + _AHEAD).first
    opened: int = await session.scalar(
        sa.text("SELECT coverage_open(CAST(:wanted AS date), :batch)"), {"wanted": wanted, "batch": _BATCH}
    )
    return opened


# Rows that others add meanwhile are not seen and stay; so the sum is the same before and after.
_ADD_UP = sa.text(
    """
    WITH many AS (
        SELECT month, place_code FROM coverage_sums GROUP BY month, place_code, care_level, excluded HAVING count(*) > 1
    ),
    taken AS (
        DELETE FROM coverage_sums WHERE (month, place_code) IN (SELECT month, place_code FROM many) RETURNING *
    )
    INSERT INTO coverage_sums (month, place_code, care_level, excluded, enrolled, visited, unevidenced, visits, attempts)
    SELECT month, place_code, care_level, excluded, sum(enrolled), sum(visited), sum(unevidenced), sum(visits),
           sum(attempts)
    FROM taken GROUP BY month, place_code, care_level, excluded
    HAVING (sum(enrolled), sum(visited), sum(unevidenced), sum(visits), sum(attempts)) <> (0, 0, 0, 0, 0)
    """
)


async def add_up(session: AsyncSession, _: datetime) -> None:
    """Replace rows of one key by their sum. Two workers at once: the second leaves it to the first."""
    if await session.scalar(sa.text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _ADDING_UP}):
        await session.execute(_ADD_UP)


async def _keep_midnight(session: AsyncSession, tz: ZoneInfo) -> None:
    """Days begin where the server's settings say. Another zone than before: everybody's rows are computed anew."""
    changed = await session.scalar(
        sa.text("UPDATE coverage_calendar SET timezone = :zone WHERE timezone <> :zone RETURNING true"),
        {"zone": tz.key},
    )
    if changed:
        await session.execute(
            sa.text("SELECT coverage_mark(array_agg(id), array_agg(date '1900-01-01')) FROM elders HAVING count(*) > 0")
        )
