"""Do the kept rows of coverage say what the register and the ledger say? Everybody is computed a second time, by the pure
functions of the register and of visits, and compared (`shouwang verify-coverage`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.elders.history import status_periods
from app.elders.status import Counting, StatusPeriod, status_on
from app.elders.vocabulary import ElderStatus, StatusReason
from app.reports.months import Month
from app.visits.calendar import Span, longest_gap

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Row:
    """A person in a month, as `elder_months` has it."""

    elder_id: UUID
    month: date
    place_code: str
    care_level: str
    counted_from: date
    excused: str | None
    evidenced: bool
    visits: int
    attempts: int
    first_on: date | None
    last_on: date | None
    gap_days: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What a visit says to coverage."""

    day: date
    met: bool
    qualifying: bool
    voided: bool


@dataclass(frozen=True, slots=True)
class Person:
    """Everything that coverage knows of somebody: places and classes with the day from which they hold."""

    id: UUID
    created_on: date
    region_code: str
    care_level: str
    statuses: Sequence[StatusPeriod]
    places: Sequence[tuple[date, str]]
    classes: Sequence[tuple[date, str]]
    visits: Sequence[Entry]


def rows_of(person: Person, through: Month) -> Iterable[Row]:
    """The rows somebody must have, up to a month."""
    met = [visit.day for visit in person.visits if visit.met and not visit.voided]
    enrolled_on = min([person.created_on, *met])
    month = Month.of(enrolled_on)
    while month <= through:
        row = _row(person, month, enrolled_on)
        if row is not None:
            yield row
        month = month.after()


def _row(person: Person, month: Month, enrolled_on: date) -> Row | None:
    held = status_on(person.statuses, month.last)
    left = held.effects.counting is Counting.LEFT
    if left and held.since < month.first:
        return None
    excused = held.reason if not held.effects.visits_due else None
    start = max(month.first, enrolled_on)
    inside = [visit for visit in person.visits if month.first <= visit.day <= month.last]
    days = sorted(visit.day for visit in inside if visit.qualifying)
    gap = longest_gap(days, Span(start, days[-1])) if days else 0
    return Row(
        person.id, month.first, _held(person.places, month.last, person.region_code),
        _held(person.classes, month.last, person.care_level), start, excused.value if excused else None,
        held.evidenced or excused is None, len(days), sum(1 for v in inside if not v.met and not v.voided),
        days[0] if days else None, days[-1] if days else None, gap,
    )  # fmt: skip


def _held(since: Sequence[tuple[date, str]], day: date, otherwise: str) -> str:
    """What held on a day; before the first entry, the first. In the order in which they were decided."""
    begun = [value for start, value in since if start <= day]
    return begun[-1] if begun else since[0][1] if since else otherwise


# --- the comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drift:
    """A kept row that says something else than the register and the ledger."""

    what: str
    kept: Any
    computed: Any

    def __str__(self) -> str:
        return f"{self.what}: kept {self.kept}, computed {self.computed}"


async def compare(session: AsyncSession) -> tuple[int, list[Drift]]:
    """How many people were computed, and what differs; in one snapshot."""
    await session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    calendar = (await session.execute(sa.text("SELECT timezone, opened_through FROM coverage_calendar"))).one()
    tz, opened = ZoneInfo(calendar.timezone), Month(calendar.opened_through)
    drifts: list[Drift] = []
    sums: Counter[tuple[Any, ...]] = Counter()
    count, after = 0, UUID(int=0)
    while people := await _people(session, after, tz):
        kept = await _kept(session, [person.id for person in people])
        for person in people:
            own = kept.get(person.id, {})
            through = max([opened, *(Month(month) for month in own)])
            computed = {row.month: row for row in rows_of(person, through)}
            drifts += [
                Drift(f"elder {person.id}, {month:%Y-%m}", own.get(month), computed.get(month))
                for month in sorted(own.keys() | computed.keys())
                if own.get(month) != computed.get(month)
            ]
            for row in own.values():
                _count(sums, row)
        count, after = count + len(people), people[-1].id
    return count, drifts + await _compare_sums(session, sums)


def _count(sums: Counter[tuple[Any, ...]], row: Row) -> None:
    excluded = row.excused if row.visits == 0 and row.evidenced else None
    key = (row.month, row.place_code, row.care_level, excluded)
    sums[(*key, "enrolled")] += 1
    sums[(*key, "visited")] += row.visits > 0
    sums[(*key, "unevidenced")] += row.visits == 0 and not row.evidenced
    sums[(*key, "visits")] += row.visits
    sums[(*key, "attempts")] += row.attempts


async def _compare_sums(session: AsyncSession, computed: Counter[tuple[Any, ...]]) -> list[Drift]:
    rows = await session.execute(
        sa.text(
            "SELECT month, place_code, care_level, excluded, sum(enrolled) AS enrolled, sum(visited) AS visited, "
            "sum(unevidenced) AS unevidenced, sum(visits) AS visits, sum(attempts) AS attempts FROM coverage_sums "
            "GROUP BY month, place_code, care_level, excluded"
        )
    )
    kept: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        for name in ("enrolled", "visited", "unevidenced", "visits", "attempts"):
            kept[(row.month, row.place_code, row.care_level, row.excluded, name)] = getattr(row, name)
    keys = sorted(kept.keys() | computed.keys(), key=str)
    return [Drift(f"sum of {key}", kept[key], computed[key]) for key in keys if kept[key] != computed[key]]


async def _kept(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, dict[date, Row]]:
    found: dict[UUID, dict[date, Row]] = defaultdict(dict)
    for row in await _of(session, ids, "SELECT * FROM elder_months WHERE {mine}"):
        found[row.elder_id][row.month] = Row(*(getattr(row, name) for name in Row.__slots__))
    return found


async def _people(session: AsyncSession, after: UUID, tz: ZoneInfo) -> list[Person]:
    elders = (
        await session.execute(
            sa.text(
                "SELECT id, created_at, region_code, care_level, status, status_reason, status_since, status_until, "
                "status_evidenced FROM elders WHERE id > :after ORDER BY id LIMIT :batch"
            ),
            {"after": after, "batch": _BATCH},
        )
    ).all()
    ids = [elder.id for elder in elders]
    statuses = await status_periods(session, ids)
    places, classes, visits = defaultdict(list), defaultdict(list), defaultdict(list)
    for row in await _of(session, ids, "SELECT * FROM residences WHERE {mine} ORDER BY since"):
        places[row.elder_id].append((row.since, row.region_code))
    for row in await _of(session, ids, "SELECT * FROM classification_changes WHERE {mine} ORDER BY seq"):
        classes[row.elder_id].append((row.effective_on, row.care_level))
    for row in await _of(session, ids, "SELECT * FROM visits WHERE {mine} ORDER BY started_at"):
        day = row.started_at.astimezone(tz).date()
        entry = Entry(day, row.outcome == "met", row.qualifying, row.voided_at is not None)
        visits[row.elder_id].append(entry)
    return [
        Person(
            elder.id, elder.created_at.astimezone(tz).date(), elder.region_code, elder.care_level,
            statuses.get(elder.id) or [_as_told(elder)], places[elder.id], classes[elder.id], visits[elder.id],
        )
        for elder in elders
    ]  # fmt: skip


def _as_told(elder: Any) -> StatusPeriod:
    """Somebody written past the register: their own columns stand in for the history."""
    status = ElderStatus(elder.status)
    reason = StatusReason(elder.status_reason) if elder.status_reason else None
    if status is not ElderStatus.ACTIVE and reason is None:
        reason = StatusReason.OTHER if status is ElderStatus.PAUSED else StatusReason(status.value)
    since = elder.status_since or date(1900, 1, 1)
    return StatusPeriod(status, reason, since, elder.status_until, elder.status_evidenced)


async def _of(session: AsyncSession, ids: Sequence[UUID], query: str) -> Sequence[Any]:
    mine = "elder_id = ANY(CAST(:ids AS uuid[]))"
    return (await session.execute(sa.text(query.format(mine=mine)), {"ids": list(ids)})).all()
