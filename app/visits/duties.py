"""What is due for many people at once: the facts, statuses and visits of a page of elders, judged by pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.elders import policies
from app.elders.classification import classify
from app.elders.history import known_on, status_periods
from app.elders.tables import Elder
from app.visits import specials
from app.visits.rules import Due, due_on
from app.visits.special import LONGEST

_LOOK_BACK = timedelta(days=LONGEST + 1)  # this month and the one before, and the longest special period
_LOOK_AHEAD = timedelta(days=31)  # a period of this month may have a special one later in it


async def due_of(
    session: AsyncSession, elders: Sequence[Elder], *, on: date, tz: ZoneInfo, follow_ups: Collection[UUID] = ()
) -> dict[UUID, Due]:
    """What is due for each on a day; the same inputs give the same list at any time (invariant 7). `follow_ups`: those
    whom an emergency left a visit to make."""
    ids = [elder.id for elder in elders]
    known = await known_on(session, dict.fromkeys(ids, on))
    statuses = await status_periods(session, ids)
    in_force = await policies.in_force(session)
    visited = await _visited(session, ids, on=on, tz=tz)
    around = await specials.between(session, on, on + _LOOK_AHEAD)
    found = {}
    for elder in elders:
        one = known[elder.id]
        policy = in_force.at(one.region_code, on)
        found[elder.id] = due_on(
            on,
            found=classify(one.facts, on=on, policy=policy),
            facts=one.facts,
            rules=policy.visits,
            statuses=statuses.get(elder.id, ()),
            enrolled_on=elder.created_at.astimezone(tz).date(),
            visited=visited.get(elder.id, ()),
            specials=[s for s in around if one.region_code.startswith(s.region_code)],
            follow_up=elder.id in follow_ups,
        )
    return found


async def _visited(session: AsyncSession, ids: Sequence[UUID], *, on: date, tz: ZoneInfo) -> dict[UUID, list[date]]:
    rows = await session.execute(
        sa.text(
            "SELECT elder_id, started_at FROM visits WHERE elder_id = ANY(CAST(:ids AS uuid[])) AND qualifying "
            "AND started_at >= :start AND started_at < :end"
        ),
        {
            "ids": list(ids),
            "start": datetime.combine(on - _LOOK_BACK, datetime.min.time(), tz),
            "end": datetime.combine(on + timedelta(days=1), datetime.min.time(), tz),
        },
    )
    found: dict[UUID, list[date]] = {}
    for row in rows:
        found.setdefault(row.elder_id, []).append(row.started_at.astimezone(tz).date())
    return found
