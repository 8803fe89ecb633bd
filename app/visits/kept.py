"""Duties that are kept: who has something open or overdue, one row an elder, so that a list of them judges the few it
shows and not everybody in the district.

A row is only a hint of where to look: whoever is shown is judged by `duties.due_of`, and a row that is stale counts as
"may be". Triggers make a row stale with whatever its duty depends on (migration 0016); its day makes it stale by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal
from app.elders import policies
from app.elders.policies import Version
from app.elders.tables import Elder
from app.elders.vocabulary import CareLevel, ElderStatus
from app.visits import tasks
from app.visits.duties import due_of
from app.visits.rules import Due
from app.visits.vocabulary import TaskKind

STALE = date(1, 1, 1)
_BATCH = 10  # some milliseconds: alarms share the processor
_AT_MOST = 1_000  # judged for one page; a page that is shorter for it has a cursor all the same
_ENROLLED = (ElderStatus.ACTIVE, ElderStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class Filters:
    region_code: str | None = None
    visitor_id: UUID | None = None
    care_level: CareLevel | None = None
    overdue: bool | None = None
    open: bool | None = None

    def match(self, due: Due) -> bool:
        return (
            self.care_level in (None, due.care_level)
            and self.overdue in (None, due.overdue)
            and self.open in (None, is_open(due))
        )


def is_open(due: Due) -> bool:
    """Somebody is still to go."""
    return due.open > 0 and due.excused is None


@dataclass(frozen=True, slots=True)
class DuePage:
    """`more`: the last elder that was looked at, when others may follow."""

    found: Sequence[tuple[Elder, Due]]
    more: UUID | None


async def due_page(
    session: AsyncSession,
    who: Principal,
    filters: Filters,
    *,
    on: date,
    now: datetime,
    tz: ZoneInfo,
    before: UUID | None,
    limit: int,
) -> DuePage:
    """What is due on a day, newest enrolled first. Kept rows are of today: another day's list looks at everybody."""
    kept = on == now.astimezone(tz).date()
    found: list[tuple[Elder, Due]] = []
    looked_at, chunk = 0, limit + 1
    while looked_at < _AT_MOST:
        ids = await _candidates(session, who, filters, on if kept else None, before, chunk)
        elders = await _enrolled(session, ids)
        known = await due_now(session, elders, on=on, now=now, tz=tz)
        for elder in elders:
            if len(found) == limit:
                return DuePage(found, found[-1][0].id)
            if filters.match(known[elder.id]):
                found.append((elder, known[elder.id]))
        if len(ids) < chunk:
            return DuePage(found, None)
        looked_at += len(ids)
        chunk = min(2 * chunk, 400)
        before = ids[-1]
    return DuePage(found, before)


async def due_now(
    session: AsyncSession, elders: Sequence[Elder], *, on: date, now: datetime, tz: ZoneInfo
) -> dict[UUID, Due]:
    """What is due for each, with the visits that emergencies left to make."""
    asked = await tasks.open_tasks(session, [elder.id for elder in elders], now=now)
    follow_ups = {id_ for id_, rows in asked.items() if any(row.kind == TaskKind.FOLLOW_UP for row in rows)}
    return await due_of(session, elders, on=on, tz=tz, follow_ups=follow_ups)


async def _candidates(
    session: AsyncSession, who: Principal, filters: Filters, kept_on: date | None, before: UUID | None, limit: int
) -> list[UUID]:
    """The next elders who may match, newest first."""
    where: list[str] = ["region_code ^@ :scope"]
    values: dict[str, object] = {"scope": who.region_code, "limit": limit}
    if filters.region_code:
        where.append("region_code ^@ :region")
        values["region"] = filters.region_code
    if filters.visitor_id:
        where.append("{id} IN (SELECT elder_id FROM assignments WHERE visitor_id = :visitor AND ended_at IS NULL)")
        values["visitor"] = filters.visitor_id
    if before:
        where.append("{id} < :before")
        values["before"] = before
    hints = []
    if kept_on is not None:
        if filters.overdue:
            hints.append("overdue")
        if filters.open:
            hints.append("still > 0")
        if filters.care_level:
            hints.append("care_level = :level")
            values["level"] = filters.care_level.value
    if hints:
        where.append(f"look_on IS NOT NULL AND (look_on <= :today OR ({' AND '.join(hints)}))")
        values["today"] = kept_on
        source, id_ = "visit_duties", "elder_id"
    else:
        where.append("status IN ('active', 'paused')")
        source, id_ = "elders", "id"
    clause = " AND ".join(where).format(id=id_)
    query = f"SELECT {id_} FROM {source} WHERE {clause} ORDER BY {id_} DESC LIMIT :limit"  # noqa: S608 - constants
    return list((await session.execute(sa.text(query), values)).scalars())


async def _enrolled(session: AsyncSession, ids: Collection[UUID]) -> list[Elder]:
    """Those of them who are enrolled, newest first."""
    query = select(Elder).where(col(Elder.id).in_(ids), col(Elder.status).in_(_ENROLLED))
    return sorted((await session.execute(query)).scalars(), key=lambda elder: elder.id, reverse=True)


# --- keeping ---------------------------------------------------------------------------------------------------------

_STALE = sa.text(
    """
    SELECT elder_id FROM visit_duties WHERE look_on <= :today ORDER BY look_on LIMIT :batch FOR UPDATE SKIP LOCKED
    """
)
_KEEP = sa.text(
    """
    UPDATE visit_duties d SET care_level = r.care_level, period = r.period, period_end = r.period_end,
           per_period = r.per_period, still = r.still, overdue = r.overdue, look_on = r.look_on
    FROM unnest(CAST(:id AS uuid[]), CAST(:care_level AS text[]), CAST(:period AS text[]),
                CAST(:period_end AS date[]), CAST(:per_period AS int[]), CAST(:still AS int[]), CAST(:overdue AS bool[]),
                CAST(:look_on AS date[]))
         AS r(id, care_level, period, period_end, per_period, still, overdue, look_on)
    WHERE d.elder_id = r.id
    """
)


async def look_again(session: AsyncSession, *, now: datetime, today: date, tz: ZoneInfo) -> int:
    """One batch of rows that are stale, judged anew. Any number of workers may do it. Returns how many there were."""
    ids = list((await session.execute(_STALE, {"today": today, "batch": _BATCH})).scalars())
    if not ids:
        return 0
    people = list((await session.execute(select(Elder).where(col(Elder.id).in_(ids)))).scalars())
    enrolled = [elder for elder in people if elder.status in _ENROLLED]
    known = await due_now(session, enrolled, on=today, now=now, tz=tz)
    due = [known.get(elder.id) for elder in people]
    coming = [version for version in (await policies.in_force(session)).versions if version.since > today]
    await session.execute(
        _KEEP,
        {
            "id": [elder.id for elder in people],
            "care_level": [one.care_level.value if one else e.care_level for e, one in zip(people, due, strict=True)],
            "period": [one.often.period.value if one else None for one in due],
            "period_end": [one.span.end if one else None for one in due],
            "per_period": [one.often.visits if one else 1 for one in due],
            "still": [one.open if one and is_open(one) else 0 for one in due],
            "overdue": [bool(one and one.overdue) for one in due],
            "look_on": [_look_on(e, one, coming, today) for e, one in zip(people, due, strict=True)],
        },
    )
    return len(ids)


def _look_on(elder: Elder, due: Due | None, coming: Sequence[Version], today: date) -> date | None:
    """When the answer may be another by itself: the period ends, a special one goes on, a birthday, a pause that ends,
    a policy that begins. Never for those who left: a change of their status makes them stale."""
    if due is None:
        return None
    days = [due.look_again_on, *(v.since for v in coming if elder.region_code.startswith(v.region_code))]
    if elder.reclassify_on is not None:
        days.append(max(elder.reclassify_on, today + timedelta(days=1)))
    return min(days)
