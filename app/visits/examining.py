"""Entries are looked at by the rules: soon after they are written, and once more when late door events have come in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import InvalidInput
from app.ids import first_uuid, new_uuid
from app.visits.checks import examine
from app.visits.checks.door import MINUTES_AROUND
from app.visits.checks.entry import Context, Entry, Suspicion
from app.visits.made_by import made_by, span
from app.visits.vocabulary import DoorEvidence, Method

_BATCH = 50
_AROUND = timedelta(minutes=MINUTES_AROUND)
_SPEAKS_WITHIN = timedelta(days=7)
_ASSUMED = timedelta(minutes=30)  # a visit without an end


@dataclass(frozen=True, slots=True)
class Group:
    """What is examined together: a visitor's month, or a single entry that names no visitor."""

    visitor_id: UUID | None
    month: date
    visit_id: UUID | None = None

    @property
    def key(self) -> str:
        return f"{self.visitor_id}:{self.month:%Y-%m}" if self.visitor_id else f"visit:{self.visit_id}"


async def take_due(session: AsyncSession, *, now: datetime, tz: ZoneInfo) -> int:
    """One batch of entries whose time has come. Returns how many."""
    query = sa.text(
        "DELETE FROM ledger_examinations WHERE id = ANY(ARRAY(SELECT id FROM ledger_examinations WHERE due_at <= :now "
        "ORDER BY due_at LIMIT :batch FOR UPDATE SKIP LOCKED)) RETURNING visit_id"
    )
    ids = set((await session.execute(query, {"now": now, "batch": _BATCH})).scalars())
    if ids:
        rows = await session.execute(
            sa.text("SELECT id, visitor_id, started_at FROM visits WHERE id = ANY(CAST(:ids AS uuid[]))"),
            {"ids": list(ids)},
        )
        groups = {_group(row, tz) for row in rows}
        # Where an entry was pointed at before: it may have been given to another visitor or month since.
        before = await session.execute(
            sa.text(
                "SELECT DISTINCT visitor_id, month, visit_id FROM ledger_checks WHERE state = 'open' "
                "AND (visit_id = ANY(CAST(:ids AS uuid[])) OR other_visit_id = ANY(CAST(:ids AS uuid[])))"
            ),
            {"ids": list(ids)},
        )
        groups |= {Group(row.visitor_id, row.month, None if row.visitor_id else row.visit_id) for row in before}
        await look(session, groups, now=now, tz=tz)
    return len(ids)


async def groups_of(session: AsyncSession, prefix: str, month: date, *, tz: ZoneInfo, most: int) -> set[Group]:
    """Everything that is examined together in a region's month. Raises `InvalidInput` for more than `most` entries."""
    start = datetime.combine(month, datetime.min.time(), tz)
    end = datetime.combine((month + timedelta(days=31)).replace(day=1), datetime.min.time(), tz)
    query = sa.text(
        "SELECT id, visitor_id, started_at FROM visits WHERE place_code ^@ :prefix AND started_at >= :start "
        "AND started_at < :end LIMIT :most"
    )
    values = {"prefix": prefix, "start": start, "end": end, "most": most + 1}
    rows = (await session.execute(query, values)).all()
    if len(rows) > most:
        raise InvalidInput(f"more than {most} entries: ask for one township or village", field="region_code")
    return {_group(row, tz) for row in rows}


def _group(row: Any, tz: ZoneInfo) -> Group:
    month = row.started_at.astimezone(tz).date().replace(day=1)
    return Group(row.visitor_id, month, None if row.visitor_id else row.id)


async def look(session: AsyncSession, groups: Collection[Group], *, now: datetime, tz: ZoneInfo) -> int:
    """Examine these groups: new findings are written, those that no longer hold are withdrawn, reviewed ones are left
    alone. Returns how many are open now."""
    positions = await _positions(session)
    opened = 0
    for group in sorted(groups, key=lambda one: one.key):
        entries, regions = await _entries(session, group, tz)
        found = examine(entries, Context(group.key, group.month, tz, positions))
        opened += len(found)
        await _keep(session, group, found, regions, now)
    return opened


async def _positions(session: AsyncSession) -> dict[str, tuple[float, float]]:
    rows = await session.execute(
        sa.text("SELECT code, latitude, longitude FROM regions WHERE latitude IS NOT NULL AND code NOT LIKE '%000'")
    )
    return {row.code: (row.latitude, row.longitude) for row in rows}


_ENTRIES = """
    SELECT v.id, v.elder_id, v.place_code, v.region_code, v.method, v.started_at, v.ended_at, v.created_at, v.note, v.late,
           v.visitor_id IS NOT DISTINCT FROM :visitor AS written
    FROM {which} v
    WHERE v.outcome = 'met' AND v.voided_at IS NULL
    ORDER BY v.started_at, v.id
"""
_ONE = "(SELECT * FROM visits WHERE id = :visit)"


async def _entries(session: AsyncSession, group: Group, tz: ZoneInfo) -> tuple[list[Entry], dict[UUID, str]]:
    start = datetime.combine(group.month, datetime.min.time(), tz)
    end = datetime.combine((group.month + timedelta(days=31)).replace(day=1), datetime.min.time(), tz)
    values: dict[str, Any] = {"visitor": group.visitor_id}
    if group.visitor_id is None:
        which, values = _ONE, {"visitor": None, "visit": group.visit_id}
    else:
        which = made_by(":visitor")
        values |= span(start, end)
    query = sa.text(_ENTRIES.format(which=which)).bindparams(sa.bindparam("visitor", type_=sa.Uuid()))
    rows = (await session.execute(query, values)).all()
    doors = await door_evidence(session, [row for row in rows if row.method == Method.HOME])
    entries = [
        Entry(
            row.id, row.elder_id, row.place_code, Method(row.method), row.started_at, row.ended_at, row.created_at,
            row.note, row.late, row.written, doors[row.id].evidence if row.id in doors else None,
        )
        for row in rows
    ]  # fmt: skip
    return entries, {row.id: row.region_code for row in rows}


@dataclass(frozen=True, slots=True)
class Door:
    """What the door sensors of the home said around a visit; `first_at`: the first movement."""

    evidence: DoorEvidence
    events: int = 0
    first_at: datetime | None = None


_DOORS = sa.text(
    """
    SELECT w.id, count(*) AS sensors, sum(said.near) AS near, sum(said.speaks) AS speaks, min(said.first_at) AS first_at
    FROM unnest(CAST(:id AS uuid[]), CAST(:elder AS uuid[]), CAST(:start AS timestamptz[]), CAST(:end AS timestamptz[]),
                CAST(:low AS uuid[]), CAST(:high AS uuid[])) AS w(id, elder_id, start_at, end_at, low, high)
    JOIN bindings b ON b.elder_id = w.elder_id AND b.bound_at <= w.end_at
         AND (b.unbound_at IS NULL OR b.unbound_at >= w.start_at)
    JOIN devices d ON d.device_id = b.device_id AND d.kind = 'door_sensor'
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE e.type = 'door' AND e.occurred_at BETWEEN w.start_at AND w.end_at) AS near,
               min(e.occurred_at) FILTER (WHERE e.type = 'door' AND e.occurred_at BETWEEN w.start_at AND w.end_at)
                   AS first_at,
               count(*) AS speaks
        FROM device_events e WHERE e.device_id = b.device_id AND e.id >= w.low AND e.id < w.high
    ) said
    GROUP BY w.id
    """
)


async def door_evidence(session: AsyncSession, visits: Sequence[Any]) -> dict[UUID, Door]:
    """For visits at home: whether the door moved around them. Homes without a sensor are `no_sensor`."""
    if not visits:
        return {}
    starts = {visit.id: visit.started_at - _AROUND for visit in visits}
    ends = {visit.id: (visit.ended_at or visit.started_at + _ASSUMED) + _AROUND for visit in visits}
    ids = list(starts)
    rows = await session.execute(_DOORS, {
        "id": ids, "elder": [visit.elder_id for visit in visits], "start": [starts[one] for one in ids],
        "end": [ends[one] for one in ids], "low": [first_uuid(starts[one] - _SPEAKS_WITHIN) for one in ids],
        "high": [first_uuid(ends[one] + _SPEAKS_WITHIN) for one in ids],
    })  # fmt: skip
    found = dict.fromkeys(ids, Door(DoorEvidence.NO_SENSOR))
    for row in rows:
        if row.near:
            evidence = DoorEvidence.SEEN
        else:
            evidence = DoorEvidence.NOT_SEEN if row.speaks else DoorEvidence.SILENT_SENSOR
        found[row.id] = Door(evidence, int(row.near), row.first_at)
    return found


_KEEP = sa.text(
    """
    INSERT INTO ledger_checks AS kept (id, kind, key, group_key, month, region_code, visitor_id, visit_id, other_visit_id,
                                       because, figures, found_at, state)
    SELECT id, kind, key, :group, :month, region_code, :visitor, visit_id, other_visit_id, because,
           CAST(figures AS jsonb), :now, 'open'
    FROM unnest(CAST(:id AS uuid[]), CAST(:kind AS text[]), CAST(:key AS text[]), CAST(:region AS text[]),
                CAST(:visit AS uuid[]), CAST(:other AS uuid[]), CAST(:because AS text[]), CAST(:figures AS text[]))
         AS found(id, kind, key, region_code, visit_id, other_visit_id, because, figures)
    ON CONFLICT (kind, key) DO UPDATE
    SET because = excluded.because, figures = excluded.figures, state = 'open', region_code = excluded.region_code
    WHERE kept.state <> 'reviewed'
    """
).bindparams(sa.bindparam("visitor", type_=sa.Uuid()))
_WITHDRAW = sa.text(
    "UPDATE ledger_checks SET state = 'withdrawn' WHERE group_key = :group AND state = 'open' "
    "AND NOT (kind || '/' || key) = ANY(CAST(:held AS text[]))"
)


async def _keep(
    session: AsyncSession, group: Group, found: Sequence[Suspicion], regions: dict[UUID, str], now: datetime
) -> None:
    each: dict[tuple[str, str], Suspicion] = {(one.kind.value, one.key): one for one in found}
    listed = list(each.values())
    columns: dict[str, list[Any]] = defaultdict(list)
    for one in listed:
        columns["id"].append(new_uuid(now))
        columns["kind"].append(one.kind.value)
        columns["key"].append(one.key)
        columns["region"].append(regions[one.about.id])
        columns["visit"].append(None if one.whole_group else one.about.id)
        columns["other"].append(one.other.id if one.other else None)
        columns["because"].append(one.because)
        columns["figures"].append(json.dumps(one.figures))
    if listed:
        values = {"group": group.key, "month": group.month, "visitor": group.visitor_id, "now": now}
        await session.execute(_KEEP, values | columns)
    held = [f"{kind}/{key}" for kind, key in each]
    await session.execute(_WITHDRAW, {"group": group.key, "held": held})
