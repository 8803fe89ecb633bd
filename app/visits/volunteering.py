"""What visitors did: hours and visits by month, and statements of credit that end when an entry they count does."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal
from app.access.wall import beyond
from app.elders.tables import Visitor
from app.errors import InvalidInput
from app.ids import new_uuid
from app.visits.made_by import made_by, span
from app.visits.tables import Visit, VisitPartner
from app.visits.volunteer_tables import CreditedVisit, CreditStatement
from app.words import say

_WHY = "what a visitor did is their own, wherever the elders live; no elder is told"
# Being there counts, also where the policy counts the visit once or asks for another method: what a supervisor found not
# to have happened does not. Two people seen at the same time are one time.
_DONE = "v.outcome = 'met' AND v.voided_at IS NULL AND v.non_qualifying_code IS DISTINCT FROM 'disqualified'"
_SUM = """
    count(*) AS visits, count(DISTINCT v.elder_id) AS elders,
    count(*) FILTER (WHERE v.ended_at IS NULL) AS without_end,
    coalesce((SELECT sum(extract(epoch FROM upper(r) - lower(r))) FROM unnest(
        range_agg(tstzrange(v.started_at, v.ended_at)) FILTER (WHERE v.ended_at > v.started_at)) r), 0) AS seconds
"""


@dataclass(frozen=True, slots=True)
class Done:
    """Of one visitor and month. `without_end`: visits whose length nobody wrote down; they count as visits, not as time."""

    month: str
    visits: int
    elders: int
    minutes: int
    without_end: int


async def hours(session: AsyncSession, visitor_id: UUID, *, since: date, until: date, tz: ZoneInfo) -> list[Done]:
    """By month, newest first; `until` is the last day."""
    query = sa.text(
        f"SELECT to_char(v.started_at AT TIME ZONE :zone, 'YYYY-MM') AS month, {_SUM} "  # noqa: S608
        f"FROM {made_by(':visitor')} v WHERE {_DONE} GROUP BY 1 ORDER BY 1 DESC"
    )
    values = {"zone": tz.key, "visitor": visitor_id, **_span(since, until, tz)}
    async with beyond(session, _WHY):
        rows = (await session.execute(query, values)).all()
    return [Done(row.month, row.visits, row.elders, _minutes(row.seconds), row.without_end) for row in rows]


def _span(since: date, until: date, tz: ZoneInfo) -> dict[str, Any]:
    midnight = datetime.min.time()
    return span(datetime.combine(since, midnight, tz), datetime.combine(until + timedelta(days=1), midnight, tz))


def _minutes(seconds: Any) -> int:
    return round(float(seconds) / 60)


async def hours_of_many(
    session: AsyncSession, visitors: Sequence[UUID], *, since: date, until: date, tz: ZoneInfo
) -> dict[UUID, Done]:
    """Of each of a page of visitors, in one query."""
    query = sa.text(
        f"SELECT w.id, d.* FROM unnest(CAST(:ids AS uuid[])) AS w(id) CROSS JOIN LATERAL "  # noqa: S608
        f"(SELECT {_SUM} FROM {made_by('w.id')} v WHERE {_DONE}) d"
    )
    async with beyond(session, _WHY):
        rows = (await session.execute(query, {"ids": list(visitors), **_span(since, until, tz)})).all()
    month = f"{since:%Y-%m}"
    return {row.id: Done(month, row.visits, row.elders, _minutes(row.seconds), row.without_end) for row in rows}


# --- statements of credit --------------------------------------------------------------------------------------------

_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # nothing that is read as something else


def _letters(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


async def issue(
    session: AsyncSession, visitor: Visitor, *, since: date, until: date, who: Principal, now: datetime, tz: ZoneInfo
) -> CreditStatement:
    """A statement over what is in the ledger now. Raises `InvalidInput` when there is nothing to state."""
    if until < since or until > now.astimezone(tz).date():
        raise InvalidInput("the last day comes after the first, and not in the future", field="to")
    if until - since > timedelta(days=366):
        raise InvalidInput("at most a year", field="from")
    query = sa.text(
        "SELECT v.id, v.started_at, v.ended_at, v.method, v.services "  # noqa: S608
        f"FROM {made_by(':visitor')} v WHERE {_DONE} ORDER BY v.started_at, v.id LIMIT 2001"
    )
    async with beyond(session, _WHY):
        rows = (await session.execute(query, {"visitor": visitor.id, **_span(since, until, tz)})).all()
    if not rows:
        raise InvalidInput("no visits in that time", field="from")
    if len(rows) > 2000:
        raise InvalidInput("more than 2,000 visits: state a shorter time", field="from")
    months = await hours(session, visitor.id, since=since, until=until, tz=tz)
    lines = [
        {
            "on": row.started_at.astimezone(tz).date().isoformat(), "method": row.method,
            "minutes": _length(row.started_at, row.ended_at), "services": row.services,
        }
        for row in rows
    ]  # fmt: skip
    made = CreditStatement(
        id=new_uuid(now), number=f"{now.astimezone(tz):%Y}-{_letters(8)}", code=_letters(8), visitor_id=visitor.id,
        holder=visitor.name, organisation=visitor.organisation, since=since, until=until, visits=len(rows),
        minutes=sum(month.minutes for month in months), lines=lines, issued_at=now, issued_by=who.who(),
    )  # fmt: skip
    async with beyond(session, _WHY):
        session.add(made)
        await session.flush()
        session.add_all(
            CreditedVisit(
                statement_id=made.id, visit_id=row.id, started_at=row.started_at,
                minutes=_length(row.started_at, row.ended_at),
            )
            for row in rows
        )  # fmt: skip
    return made


def _length(start: datetime, end: datetime | None) -> int:
    return 0 if end is None else round((end - start).total_seconds() / 60)


async def follow(session: AsyncSession, visit: Visit, *, who: Principal, now: datetime, tz: ZoneInfo) -> None:
    """An entry was corrected, voided or decided about: statements that count it otherwise than it is now are revoked, in
    the same transaction. A corrected note or service revokes nothing."""
    async with beyond(session, "a statement ends with its entry, whose ever it is"):
        partners = select(col(VisitPartner.visitor_id)).where(col(VisitPartner.visit_id) == visit.id)
        there = {visit.visitor_id, *(await session.execute(partners)).scalars()}
        query = (
            select(CreditStatement, CreditedVisit)
            .join(CreditedVisit, col(CreditedVisit.statement_id) == col(CreditStatement.id))
            .where(col(CreditedVisit.visit_id) == visit.id, col(CreditStatement.revoked_at).is_(None))
            .with_for_update(of=CreditStatement)
        )
        for statement, counted in (await session.execute(query)).all():
            why = _no_longer(visit, statement, counted, there)
            if why is None:
                continue
            statement.revoked_at, statement.revoked_reason = (
                now,
                say(f"credit.{why}", on=f"{counted.started_at.astimezone(tz):%Y-%m-%d}"),
            )
            audit.note(
                session, who, action="credit_statement.revoked", subject_type="credit_statement",
                subject_id=statement.id, now=now, visit_id=str(visit.id), because=why,
            )  # fmt: skip


def _no_longer(visit: Visit, statement: CreditStatement, counted: CreditedVisit, there: set[UUID | None]) -> str | None:
    if visit.voided_at is not None:
        return "voided"
    if visit.outcome != "met" or visit.non_qualifying_code == "disqualified":
        return "disqualified"
    if statement.visitor_id not in there:
        return "somebody_else"
    if (visit.started_at, _length(visit.started_at, visit.ended_at)) != (counted.started_at, counted.minutes):
        return "changed"
    return None
