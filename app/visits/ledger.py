"""The ledger: visits written down, judged, corrected, voided; months closed. The original of every change is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal
from app.access.wall import beyond
from app.elders import history, policies
from app.elders.consents import consents_of
from app.elders.history import known_on
from app.elders.tables import Elder
from app.errors import Conflict, InvalidInput
from app.ids import new_uuid
from app.visits import chain, volunteering
from app.visits.rules import Recorded, count_once, is_late, judge
from app.visits.tables import ClosedMonth, LedgerDelta, Visit, VisitPartner, VisitVersion
from app.visits.vocabulary import DeltaKind, Method, VisitOutcome

SLACK = timedelta(minutes=5)  # clocks of phones differ
LONGEST = timedelta(hours=24)
_CLOSING = 7_301_306  # writers share it; closing a month waits for them, and they for it


@dataclass(frozen=True, slots=True)
class Deed:
    """Who changes the ledger, when, and why (a closed month asks for the reason)."""

    who: Principal
    now: datetime
    tz: ZoneInfo
    reason: str | None = None

    def day(self, moment: datetime) -> date:
        return moment.astimezone(self.tz).date()


def check_times(started_at: datetime, ended_at: datetime | None, now: datetime) -> None:
    """Raises `InvalidInput` for a visit in the future, one that ends before it begins, or one that never ends."""
    if started_at > now + SLACK:
        raise InvalidInput("a visit in the future cannot be recorded", field="started_at")
    if ended_at is not None and not started_at <= ended_at <= now + SLACK:
        raise InvalidInput("the end must come after the start and not in the future", field="ended_at")
    if ended_at is not None and ended_at - started_at > LONGEST:
        raise InvalidInput("a visit of more than 24 hours: record one for each day", field="ended_at")


async def record(
    session: AsyncSession, elder: Elder, fields: Mapping[str, Any], partners: Sequence[UUID], deed: Deed
) -> Visit:
    """Write a visit or an attempt down. `elder` is locked, so that two visitors at once are counted once."""
    await _while_open(session)
    check_times(fields["started_at"], fields["ended_at"], deed.now)
    day = deed.day(fields["started_at"])
    place = await history.place_on(session, elder, day)
    rules = (await policies.in_force(session)).at(place, day).visits
    visit = Visit(
        id=new_uuid(deed.now),
        elder_id=elder.id,
        region_code=elder.region_code,
        place_code=place,
        late=is_late(fields["ended_at"] or fields["started_at"], deed.now, rules),
        created_at=deed.now,
        created_by=str(deed.who.id),
        qualifying=False,
        **fields,
    )
    session.add(visit)
    await session.flush()
    await _set_partners(session, visit, partners)
    await revalue(session, elder.id, day, day, deed, about=visit.id)
    await _delta(session, visit, DeltaKind.ADDED, None, deed)
    return visit


async def _set_partners(session: AsyncSession, visit: Visit, partners: Sequence[UUID]) -> None:
    await session.execute(sa.delete(VisitPartner).where(col(VisitPartner.visit_id) == visit.id))
    for visitor_id in dict.fromkeys(partners):
        if visitor_id != visit.visitor_id:
            session.add(VisitPartner(visit_id=visit.id, visitor_id=visitor_id))
    await session.flush()


async def visit_of_alarm(session: AsyncSession, alarm_id: UUID) -> Visit | None:
    """The first visit written down as the response to an alarm, voided ones apart."""
    query = (
        select(Visit)
        .where(col(Visit.alarm_id) == alarm_id, col(Visit.voided_at).is_(None), col(Visit.outcome) == VisitOutcome.MET)
        .order_by(col(Visit.created_at), col(Visit.id))
        .limit(1)
    )
    return (await session.execute(query)).scalar_one_or_none()


async def partners_of(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, list[UUID]]:
    """Who came along on each visit."""
    rows = await session.execute(
        select(VisitPartner).where(col(VisitPartner.visit_id).in_(ids)).order_by(col(VisitPartner.visitor_id))
    )
    found: dict[UUID, list[UUID]] = {}
    for row in rows.scalars():
        found.setdefault(row.visit_id, []).append(row.visitor_id)
    return found


async def correct(
    session: AsyncSession, visit: Visit, fields: Mapping[str, Any], partners: Sequence[UUID] | None, deed: Deed
) -> None:
    """Change a visit; what it was before is kept with the reason. `visit` and its elder are locked."""
    await _while_open(session)
    if visit.voided_at is not None:
        raise Conflict("the visit was voided; record it again")
    before, day_before = visit.qualifying, deed.day(visit.started_at)
    old_month = await closed_month(session, visit.place_code, day_before)
    await _keep_version(session, visit, deed)
    for name, value in fields.items():
        setattr(visit, name, value)
    visit.qualifying = False  # until it is judged anew
    check_times(visit.started_at, visit.ended_at, deed.now)
    day = deed.day(visit.started_at)
    elder = await session.get(Elder, visit.elder_id)
    assert elder is not None
    visit.place_code = await history.place_on(session, elder, day)
    await session.flush()
    if partners is not None:
        await _set_partners(session, visit, partners)
    await revalue(session, visit.elder_id, min(day, day_before), max(day, day_before), deed, about=visit.id)
    if day.replace(day=1) != day_before.replace(day=1):
        await _delta(session, visit, DeltaKind.CORRECTED, before, deed, month=old_month)
    await _delta(session, visit, DeltaKind.CORRECTED, before, deed)
    await volunteering.follow(session, visit, who=deed.who, now=deed.now, tz=deed.tz)


async def void(session: AsyncSession, visit: Visit, deed: Deed) -> None:
    """The entry stays, and no longer counts; one it was counted with may count instead."""
    await _while_open(session)
    if visit.voided_at is not None:
        raise Conflict("the visit was voided before")
    before = visit.qualifying
    await _keep_version(session, visit, deed)
    visit.voided_at, visit.void_reason, visit.qualifying = deed.now, deed.reason, False
    await session.flush()
    day = deed.day(visit.started_at)
    await revalue(session, visit.elder_id, day, day, deed, about=visit.id)
    await _delta(session, visit, DeltaKind.VOIDED, before, deed)
    await volunteering.follow(session, visit, who=deed.who, now=deed.now, tz=deed.tz)


async def override(session: AsyncSession, visit: Visit, *, qualifying: bool, deed: Deed) -> None:
    """A supervisor decides, with a reason: an unsuited method or a missing paper counts, an invented entry does not."""
    await _while_open(session)
    if visit.voided_at is not None:
        raise Conflict("the visit was voided; there is nothing to decide")
    if qualifying and visit.outcome is not VisitOutcome.MET:
        raise Conflict("nobody was met: an attempt cannot be made a visit")
    before = visit.qualifying
    await _keep_version(session, visit, deed)
    visit.override, visit.override_reason, visit.override_by = qualifying, deed.reason, deed.who.who()
    await session.flush()
    day = deed.day(visit.started_at)
    await revalue(session, visit.elder_id, day, day, deed, about=visit.id)
    await _delta(session, visit, DeltaKind.OVERRIDDEN, before, deed)
    await volunteering.follow(session, visit, who=deed.who, now=deed.now, tz=deed.tz)


_KEPT = ("visitor_id", "method", "outcome", "started_at", "ended_at", "services", "health", "note", "alarm_id",
         "qualifying", "non_qualifying_code", "override", "override_reason", "voided_at")  # fmt: skip


async def _keep_version(session: AsyncSession, visit: Visit, deed: Deed) -> None:
    partners = (await partners_of(session, [visit.id])).get(visit.id, [])
    data = {name: _plain(getattr(visit, name)) for name in _KEPT} | {"partners": [str(one) for one in partners]}
    assert deed.reason is not None
    session.add(
        VisitVersion(
            visit_id=visit.id, version=visit.version, data=data, replaced_at=deed.now, replaced_by=deed.who.who(),
            reason=deed.reason,
        )
    )  # fmt: skip
    visit.version += 1
    await session.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


# --- judging ---------------------------------------------------------------------------------------------------------


async def revalue(
    session: AsyncSession, elder_id: UUID, first: date, last: date, deed: Deed, *, about: UUID | None = None
) -> None:
    """Judge an elder's visits of these days anew: each by what was known on its day, and each real visit once.

    Others than `about` whose answer changes in a closed month leave a delta of their own.
    """
    near = timedelta(days=1)  # a visit may last a day: neighbours are judged anew, their neighbours only looked at
    start = datetime.combine(first - 2 * near, datetime.min.time(), deed.tz)
    end = datetime.combine(last + 3 * near, datetime.min.time(), deed.tz)
    query = (
        select(Visit)
        .where(col(Visit.elder_id) == elder_id, col(Visit.started_at) >= start, col(Visit.started_at) < end)
        .order_by(col(Visit.created_at), col(Visit.id))
    )
    visits = (await session.execute(query)).scalars().all()
    in_force = await policies.in_force(session)
    consents = (await consents_of(session, [elder_id])).get(elder_id, [])
    known = {}
    for day in {deed.day(visit.started_at) for visit in visits}:
        known[day] = (await known_on(session, {elder_id: day}))[elder_id]
    judged = []
    for visit in visits:
        day = deed.day(visit.started_at)
        one, recorded = known[day], _recorded(visit)
        rules = in_force.at(one.region_code, day).visits
        judged.append((recorded, judge(recorded, facts=one.facts, rules=rules, consents=consents, day=day)))
    if not visits:
        return
    rules = in_force.at(visits[0].place_code, first).visits
    for visit, judgement in zip(visits, count_once(judged, rules), strict=True):
        if not first - near <= deed.day(visit.started_at) <= last + near:
            continue
        before = visit.qualifying
        answer = (visit.qualifying, visit.non_qualifying_code, visit.same_as)
        visit.qualifying, visit.non_qualifying_code = judgement.qualifying, judgement.code
        visit.same_as = judgement.same_as
        if visit.id == about or answer != (visit.qualifying, visit.non_qualifying_code, visit.same_as):
            chain.keep(session, visit.id)
        if visit.id != about and before != visit.qualifying:
            await session.flush()
            await _delta(session, visit, DeltaKind.REVALUED, before, deed)
    await session.flush()


def _recorded(visit: Visit) -> Recorded:
    return Recorded(
        visit.id, Method(visit.method), VisitOutcome(visit.outcome), visit.started_at, visit.ended_at, visit.alarm_id,
        visit.override, visit.voided_at is not None,
    )  # fmt: skip


# --- closed months ---------------------------------------------------------------------------------------------------


async def _while_open(session: AsyncSession) -> None:
    await session.execute(sa.text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _CLOSING})


async def closed_month(session: AsyncSession, place_code: str, day: date) -> ClosedMonth | None:
    """The closed month a day of a place lies in: the narrowest region that closed it."""
    query = (
        select(ClosedMonth)
        .where(
            col(ClosedMonth.month) == day.replace(day=1),
            sa.literal(place_code).startswith(col(ClosedMonth.region_code)),
        )
        .order_by(sa.func.length(col(ClosedMonth.region_code)).desc())
        .limit(1)
    )
    return (await session.execute(query)).scalar_one_or_none()


async def _delta(
    session: AsyncSession,
    visit: Visit,
    kind: DeltaKind,
    before: bool | None,
    deed: Deed,
    *,
    month: ClosedMonth | None = None,
) -> None:
    """A change in a closed month gets a name and a reason. Raises `InvalidInput` without the reason."""
    closed = month or await closed_month(session, visit.place_code, deed.day(visit.started_at))
    if closed is None:
        return
    if not deed.reason:
        raise InvalidInput("the month is closed: give a `reason`, it will stand beside the change", field="reason")
    session.add(
        LedgerDelta(
            id=new_uuid(deed.now), closed_month_id=closed.id, visit_id=visit.id, kind=kind, qualifying_before=before,
            qualifying_after=visit.qualifying if month is None else False, reason=deed.reason, by=deed.who.who(),
            at=deed.now,
        )
    )  # fmt: skip
    await session.flush()


_FIGURES = sa.text(
    """
    SELECT count(*) FILTER (WHERE voided_at IS NULL AND outcome = 'met') AS visits,
           count(*) FILTER (WHERE qualifying) AS qualifying,
           count(*) FILTER (WHERE voided_at IS NULL AND outcome <> 'met') AS attempts,
           count(DISTINCT elder_id) FILTER (WHERE qualifying) AS elders_visited
    FROM visits WHERE place_code ^@ :prefix AND started_at >= :start AND started_at < :end
    """
)


async def close_month(session: AsyncSession, *, month: date, region_code: str, deed: Deed) -> ClosedMonth:
    """From now on changes in this month and region are deltas. Raises for a month that has not ended, or is closed."""
    first = month.replace(day=1)
    after = (first + timedelta(days=31)).replace(day=1)
    if deed.day(deed.now) < after:
        raise InvalidInput("the month has not ended yet", field="month")
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLOSING})
    there = select(ClosedMonth).where(
        col(ClosedMonth.month) == first, sa.literal(region_code).startswith(col(ClosedMonth.region_code))
    )
    if (await session.execute(there)).first() is not None:
        raise Conflict("the month is closed already")
    values = {
        "prefix": region_code,
        "start": datetime.combine(first, datetime.min.time(), deed.tz),
        "end": datetime.combine(after, datetime.min.time(), deed.tz),
    }
    async with beyond(session, "figures are of the place: those who moved away since are counted there, not shown"):
        figures = (await session.execute(_FIGURES, values)).mappings().one()
    made = ClosedMonth(
        id=new_uuid(deed.now), month=first, region_code=region_code, figures=dict(figures), closed_at=deed.now,
        closed_by=deed.who.who(),
    )  # fmt: skip
    session.add(made)
    await session.flush()
    return made
