"""Rounds in the database: what is wanted is gathered, proposed, and kept when somebody accepts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal, begins, within
from app.elders.tables import Elder
from app.elders.vocabulary import AssignmentRole, ElderStatus
from app.errors import NotFound
from app.ids import new_uuid
from app.visits import tasks
from app.visits.duties import due_of
from app.visits.kept import is_open
from app.visits.rounds import Pair, Proposal, Want, propose
from app.visits.rules import Due
from app.visits.vocabulary import TaskKind
from app.visits.work_tables import Round, RoundStop

_ACCEPTING = 7_301_316  # one acceptance at a time: two rounds never plan the same visit


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose round: of a village (or everybody in a place), or of one visitor, on these days."""

    region_code: str | None
    visitor_id: UUID | None
    days: Sequence[date]
    capacity: int


@dataclass(frozen=True, slots=True)
class Proposed:
    proposal: Proposal
    names: dict[UUID, tuple[str, str]]  # elders: name and village
    visitors: dict[UUID, str]


_PAIRS = sa.text(
    """
    SELECT a.elder_id, a.visitor_id, a.role, v.name, (
        SELECT max(started_at) FROM visits k WHERE k.elder_id = a.elder_id AND k.qualifying
        AND (k.visitor_id = a.visitor_id
             OR EXISTS (SELECT FROM visit_partners p WHERE p.visit_id = k.id AND p.visitor_id = a.visitor_id))
    ) AS last_visit
    FROM assignments a JOIN visitors v ON v.id = a.visitor_id
    WHERE a.elder_id = ANY(CAST(:ids AS uuid[])) AND a.ended_at IS NULL ORDER BY a.elder_id, a.visitor_id
    """
)
_BOOKED = sa.text(
    """
    SELECT s.visitor_id, s.elder_id, s.day FROM round_stops s JOIN rounds r ON r.id = s.round_id
    WHERE r.cancelled_at IS NULL AND s.day >= :first
      AND (s.elder_id = ANY(CAST(:elders AS uuid[])) OR s.visitor_id = ANY(CAST(:visitors AS uuid[])))
    """
)


async def proposed(session: AsyncSession, who: Principal, scope: Scope, *, now: datetime, tz: ZoneInfo) -> Proposed:
    """A round for what is due on its first day and is not planned yet. Writes nothing."""
    elders = await _people(session, who, scope)
    ids = [elder.id for elder in elders]
    asked = await tasks.open_tasks(session, ids, now=now)
    follow_ups = {id_: [row for row in rows if row.kind == TaskKind.FOLLOW_UP] for id_, rows in asked.items()}
    follow_ups = {id_: rows for id_, rows in follow_ups.items() if rows}
    known = await due_of(session, elders, on=scope.days[0], tz=tz, follow_ups=follow_ups)
    pairs: dict[UUID, list[Pair]] = {}
    visitors = {}
    for row in await session.execute(_PAIRS, {"ids": ids}):
        if scope.visitor_id in (None, row.visitor_id):
            last = row.last_visit.astimezone(tz).date() if row.last_visit else None
            pairs.setdefault(row.elder_id, []).append(Pair(row.visitor_id, AssignmentRole(row.role), last))
            visitors[row.visitor_id] = row.name
    booked: dict[tuple[UUID, date], int] = {}
    planned: dict[UUID, list[date]] = {}
    values = {"first": scope.days[0], "elders": ids, "visitors": list(visitors)}
    for row in await session.execute(_BOOKED, values):
        booked[row.visitor_id, row.day] = booked.get((row.visitor_id, row.day), 0) + 1
        planned.setdefault(row.elder_id, []).append(row.day)
    wants = []
    for elder in elders:
        due = known[elder.id]
        by = _by(due, [row.due_at.astimezone(tz).date() for row in follow_ups.get(elder.id, ())])
        visits = due.open - sum(1 for day in planned.get(elder.id, ()) if day <= due.span.end)
        if is_open(due) and visits > 0:
            special = due.special_progress is not None and not due.special_progress.fulfilled
            wants.append(
                Want(elder.id, visits, by, tuple(pairs.get(elder.id, ())), elder.id in follow_ups, due.overdue, special)
            )
    names = {elder.id: (elder.name, elder.region_code) for elder in elders}
    return Proposed(propose(wants, scope.days, capacity=scope.capacity, booked=booked), names, visitors)


def _by(due: Due, follow_ups: Sequence[date]) -> date:
    """The nearest of what a visit must be made by."""
    days = [due.span.end, *follow_ups]
    if due.special is not None and due.special_progress is not None and not due.special_progress.fulfilled:
        days.append(due.special.span.end)
    return min(days)


async def _people(session: AsyncSession, who: Principal, scope: Scope) -> list[Elder]:
    query = select(Elder).where(
        within(who, col(Elder.region_code)),
        col(Elder.status).in_([ElderStatus.ACTIVE, ElderStatus.PAUSED]),
    )
    if scope.region_code:
        query = query.where(begins(col(Elder.region_code), scope.region_code))
    if scope.visitor_id:
        paired = sa.text(
            "elders.id IN (SELECT elder_id FROM assignments WHERE visitor_id = :visitor AND ended_at IS NULL)"
        )
        query = query.where(paired.bindparams(visitor=scope.visitor_id))
    return list((await session.execute(query.order_by(col(Elder.id)))).scalars())


async def accept(session: AsyncSession, who: Principal, scope: Scope, *, now: datetime, tz: ZoneInfo) -> Round:
    """Propose once more and keep it: from now on these visits are planned, and no other round plans them."""
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ACCEPTING})
    found = await proposed(session, who, scope, now=now, tz=tz)
    row = Round(
        id=new_uuid(now), region_code=scope.region_code or who.region_code, visitor_id=scope.visitor_id,
        since=scope.days[0], until=scope.days[-1], accepted_by=who.who(), accepted_at=now,
    )  # fmt: skip
    session.add(row)
    await session.flush()
    session.add_all(
        RoundStop(
            round_id=row.id, position=position, day=stop.day, due_by=stop.by, visitor_id=stop.visitor_id,
            elder_id=stop.elder_id, reasons=[why.value for why in stop.reasons],
        )
        for position, stop in enumerate(found.proposal.stops)
    )  # fmt: skip
    await session.flush()
    return row


def has_stop_of(visitor_id: UUID) -> sa.ColumnElement[bool]:
    stops = select(col(RoundStop.round_id)).where(col(RoundStop.visitor_id) == visitor_id)
    return col(Round.id).in_(stops)


async def round_within(session: AsyncSession, who: Principal, round_id: UUID, *, lock: bool = False) -> Round:
    """Raises `NotFound` for an id that is absent or outside the scope, alike."""
    query = select(Round).where(col(Round.id) == round_id)
    row = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if row is None or not who.sees(row.region_code):
        raise NotFound("no such round")
    return row


_STOPS = sa.text(
    """
    SELECT s.day, s.due_by, s.visitor_id, v.name AS visitor_name, s.elder_id, e.name AS elder_name, e.region_code,
           s.reasons, (
        SELECT k.id FROM visits k WHERE k.elder_id = s.elder_id AND k.qualifying
          AND (k.started_at AT TIME ZONE :tz)::date = s.day ORDER BY k.started_at LIMIT 1
    ) AS visit_id
    FROM round_stops s JOIN visitors v ON v.id = s.visitor_id JOIN elders e ON e.id = s.elder_id
    WHERE s.round_id = :id AND e.region_code ^@ :scope ORDER BY s.position
    """
)


async def stops_of(session: AsyncSession, who: Principal, row: Round, *, tz: ZoneInfo) -> Sequence[Any]:
    """A round's stops in their order, each with the visit that was made on its day."""
    values = {"id": row.id, "scope": who.region_code, "tz": tz.key}
    return (await session.execute(_STOPS, values)).all()


def days_from(first: date, number: int) -> list[date]:
    return [first + timedelta(days=n) for n in range(number)]
