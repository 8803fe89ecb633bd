"""Special periods in the database: entered, computed for the festivals, changed, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal, begins
from app.elders.status import EFFECTS
from app.elders.vocabulary import CareLevel
from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch
from app.ids import new_uuid
from app.visits.calendar import Span
from app.visits.festivals import FestivalRules
from app.visits.special import LONGEST, Special, progress
from app.visits.vocabulary import Festival, SpecialKind
from app.visits.work_tables import FestivalSetting, SpecialPeriod
from app.words import say

COMPUTED = {"type": "calendar", "name": "calendar"}

# --- reading ---------------------------------------------------------------------------------------------------------


async def between(session: AsyncSession, first: date, last: date) -> list[Special]:
    """Every period that touches these days, of all places."""
    query = select(SpecialPeriod).where(
        col(SpecialPeriod.cancelled_at).is_(None),
        col(SpecialPeriod.until) >= first,
        col(SpecialPeriod.since) <= last,
    )
    return [special_of(row) for row in (await session.execute(query)).scalars()]


def special_of(row: SpecialPeriod) -> Special:
    levels = frozenset(CareLevel(level) for level in row.levels)
    return Special(
        row.id, row.name, SpecialKind(row.kind), row.region_code, levels, Span(row.since, row.until),
        row.visits_per_day, row.visits_total,
    )  # fmt: skip


def concerns(who: Principal, region_code: str) -> bool:
    """A period is seen by those it holds for, and by those above."""
    return region_code.startswith(who.region_code) or who.region_code.startswith(region_code)


def touching(prefix: str) -> sa.ColumnElement[bool]:
    """`concerns`, as a filter: periods of this place, of places in it, and of places it lies in."""
    column = sa.cast(col(SpecialPeriod.region_code), sa.Text)
    return sa.or_(begins(column, prefix), sa.literal(prefix).startswith(column))


async def period_within(
    session: AsyncSession, who: Principal, period_id: UUID, *, version: int | None = None, lock: bool = False
) -> SpecialPeriod:
    """Raises `NotFound` for an id that is absent or concerns another region, alike."""
    query = select(SpecialPeriod).where(col(SpecialPeriod.id) == period_id)
    row = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if row is None or not concerns(who, row.region_code):
        raise NotFound("no such special period")
    if version is not None and version != row.version:
        raise VersionMismatch("the period changed since you read it; read it again")
    return row


# --- writing ---------------------------------------------------------------------------------------------------------


def check(since: date, until: date, *, visits_per_day: int | None, visits_total: int | None) -> None:
    """Raises `InvalidInput` for days that are none, or numbers that nobody can do."""
    if until < since:
        raise InvalidInput("the end comes before the beginning", field="to")
    if (until - since).days >= LONGEST:
        raise InvalidInput(f"a special period has at most {LONGEST} days; for longer, change the frequency", field="to")
    if (visits_per_day is None) == (visits_total is None):
        raise InvalidInput("give `visits_per_day` or `visits_total`, one of them", field="visits_total")


async def enter(session: AsyncSession, fields: dict[str, Any], *, by: dict[str, Any], now: datetime) -> SpecialPeriod:
    """Write a period. Raises `Conflict` when the same one is there already (a warning that was sent twice)."""
    check(
        fields["since"], fields["until"], visits_per_day=fields["visits_per_day"], visits_total=fields["visits_total"]
    )
    there = select(col(SpecialPeriod.id)).where(
        col(SpecialPeriod.cancelled_at).is_(None),
        *(col(getattr(SpecialPeriod, name)) == fields[name] for name in ("region_code", "kind", "name", "since")),
    )
    if (found := await session.scalar(there)) is not None:
        raise Conflict(f"this period is there already, as {found}; change that one", field="name")
    row = SpecialPeriod(id=new_uuid(now), entered_by=by, created_at=now, **fields)
    session.add(row)
    await session.flush()
    return row


async def change(session: AsyncSession, row: SpecialPeriod, fields: dict[str, Any], *, today: date) -> None:
    """Change a period that has not ended. Days that went by stay as they were asked for."""
    _must_go_on(row, today)
    if row.since <= today and fields.get("since", row.since) != row.since:
        raise InvalidInput("the period has begun: its first day stays", field="from")
    if fields.get("until", row.until) < today:
        raise InvalidInput("days that went by cannot be taken back; the last day is today or later", field="to")
    for name, value in fields.items():
        setattr(row, name, value)
    check(row.since, row.until, visits_per_day=row.visits_per_day, visits_total=row.visits_total)
    row.version += 1
    await session.flush()


async def cancel(session: AsyncSession, row: SpecialPeriod, *, now: datetime, today: date) -> None:
    """Nothing is due by it any more. One that has ended stays: there is proof to give."""
    _must_go_on(row, today)
    row.cancelled_at = now
    row.version += 1
    await session.flush()


def _must_go_on(row: SpecialPeriod, today: date) -> None:
    if row.cancelled_at is not None:
        raise Conflict("the period was cancelled")
    if row.until < today:
        raise Conflict("the period has ended; its completion can be read")


# --- festivals -------------------------------------------------------------------------------------------------------


async def festival_rules(session: AsyncSession, region_code: str) -> FestivalRules:
    """The setting of the nearest region that has one, or what holds without any."""
    query = (
        select(FestivalSetting)
        .where(sa.literal(region_code).startswith(sa.cast(col(FestivalSetting.region_code), sa.Text)))
        .order_by(sa.func.length(col(FestivalSetting.region_code)).desc())
        .limit(1)
    )
    row = (await session.execute(query)).scalar_one_or_none()
    return rules_of(row) if row else FestivalRules()


def rules_of(row: Any) -> FestivalRules:
    """The rules of a `FestivalSetting`, or of a row that looks like one."""
    return FestivalRules(
        frozenset(Festival(one) for one in row.festivals), row.lead_days, row.visits_total,
        frozenset(CareLevel(one) for one in row.levels),
    )  # fmt: skip


_SETTINGS = sa.text(
    """
    SELECT coalesce(s.region_code, d.region_code) AS region_code, s.festivals, s.lead_days, s.visits_total, s.levels
    FROM (SELECT left(code, 6) AS region_code FROM regions WHERE level = 'district') d
    FULL JOIN festival_settings s USING (region_code)
    """
)
# What has begun stays as it was. What somebody cancelled or changed by hand stays so (its version is not 1).
_PLAN = sa.text(
    """
    INSERT INTO special_periods AS p (id, name, kind, festival, festival_on, region_code, levels, since, until,
                                      visits_total, entered_by, created_at, version)
    SELECT id, name, 'festival', festival, festival_on, region_code, string_to_array(levels, ','), since, festival_on,
           visits_total, CAST(:by AS jsonb), :now, 1
    FROM unnest(CAST(:id AS uuid[]), CAST(:name AS text[]), CAST(:festival AS text[]), CAST(:festival_on AS date[]),
                CAST(:region_code AS text[]), CAST(:levels AS text[]), CAST(:since AS date[]),
                CAST(:visits_total AS int[]))
         AS f(id, name, festival, festival_on, region_code, levels, since, visits_total)
    ON CONFLICT (region_code, festival, festival_on) DO UPDATE
        SET since = excluded.since, levels = excluded.levels, visits_total = excluded.visits_total
        WHERE p.version = 1 AND p.cancelled_at IS NULL AND p.since > :today AND excluded.since >= :today
          AND (p.since, p.levels, p.visits_total) IS DISTINCT FROM
              (excluded.since, excluded.levels, excluded.visits_total)
    RETURNING p.id
    """
)
_DROP = sa.text(
    """
    DELETE FROM special_periods p WHERE kind = 'festival' AND version = 1 AND since > :today
      AND (region_code, festival) IN (SELECT * FROM unnest(CAST(:regions AS text[]), CAST(:festivals AS text[])))
    """
)


async def plan_festivals(session: AsyncSession, *, now: datetime, today: date) -> int:
    """The festivals of this year and the next, as each region's setting has them, those that have not ended. Planning
    again changes nothing. Returns how many periods were new or changed."""
    wanted, dropped = [], []
    for row in (await session.execute(_SETTINGS)).all():
        rules = FestivalRules() if row.festivals is None else rules_of(row)
        dropped += [(row.region_code, one) for one in Festival if one not in rules.festivals]
        for year in (today.year, today.year + 1):
            for one in sorted(rules.festivals):
                span = rules.window(one, year)
                if span.end >= today:
                    wanted.append((row.region_code, one, span, rules))
    await session.execute(
        _DROP, {"today": today, "regions": [r for r, _ in dropped], "festivals": [f.value for _, f in dropped]}
    )
    done = await session.execute(
        _PLAN,
        {
            "now": now,
            "today": today,
            "by": json.dumps(COMPUTED),
            "id": [new_uuid(now) for _ in wanted],
            "name": [f"{say(f'festival.{one.value}')} {span.end.year}" for _, one, span, _ in wanted],
            "festival": [one.value for _, one, _, _ in wanted],
            "festival_on": [span.end for _, _, span, _ in wanted],
            "region_code": [region for region, *_ in wanted],
            "levels": [",".join(sorted(rules.levels)) for *_, rules in wanted],
            "since": [span.start for _, _, span, _ in wanted],
            "visits_total": [rules.visits_total for *_, rules in wanted],
        },
    )
    return len(done.all())


# --- what became of it -----------------------------------------------------------------------------------------------

_EXCUSES = sorted({reason.value for (_, reason), effects in EFFECTS.items() if reason and not effects.visits_due})

# People as the period meant them: those of the place and class, by the class of its last day. Who was away, in hospital
# or unwilling on all its days is excused. Visits count where the elder lived then.
_PEOPLE = """
    SELECT e.id, e.name, e.region_code, who.level AS care_level, coalesce(met.done, 0) AS done,
           coalesce(met.ids, '{{}}') AS visit_ids, who.excused,
           coalesce(met.done, 0) >= :required AS fulfilled
    FROM elders e
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT c.care_level FROM classification_changes c
                         WHERE c.elder_id = e.id AND c.effective_on <= :until
                         ORDER BY c.effective_on DESC, c.seq DESC LIMIT 1), e.care_level) AS level,
               coalesce((SELECT s.reason = ANY(CAST(:excuses AS text[])) AND coalesce(s.until, 'infinity') >= :until
                         FROM elder_statuses s WHERE s.elder_id = e.id AND s.since <= :since
                         ORDER BY s.since DESC, s.recorded_at DESC, s.id DESC LIMIT 1), false)
               AND NOT EXISTS (SELECT FROM elder_statuses s WHERE s.elder_id = e.id
                               AND s.since > :since AND s.since <= :until) AS excused
    ) who
    LEFT JOIN ({visits}) met ON met.elder_id = e.id
    WHERE e.region_code ^@ :region AND e.region_code ^@ :scope AND e.status IN ('active', 'paused')
      AND e.created_at < :end AND who.level = ANY(CAST(:levels AS text[])) AND {more}
"""
_MET = """
    SELECT elder_id, count(*) FILTER (WHERE nth <= :each) AS done, array_agg(id ORDER BY started_at, id) AS ids FROM (
        SELECT elder_id, id, started_at, row_number() OVER (
                   PARTITION BY elder_id, (started_at AT TIME ZONE :tz)::date ORDER BY started_at, id) AS nth
        FROM visits WHERE qualifying AND place_code ^@ :region AND started_at >= :start AND started_at < :end
    ) AS made GROUP BY elder_id
"""
_COUNTS = f"""
    SELECT count(*) AS people, count(*) FILTER (WHERE fulfilled) AS fulfilled,
           count(*) FILTER (WHERE excused AND NOT fulfilled) AS excused
    FROM ({_PEOPLE.format(visits=_MET, more="true")}) AS p
"""  # noqa: S608 - constants
_EVERY_DAY = 1_000_000


@dataclass(frozen=True, slots=True)
class Completion:
    """Who was visited in a period and who was not, by their visits; one page of the people with the counts of all."""

    required: int
    people: int
    fulfilled: int
    excused: int
    rows: Sequence[Any]

    @property
    def unfulfilled(self) -> int:
        return self.people - self.fulfilled - self.excused


async def completion(
    session: AsyncSession,
    who: Principal,
    row: SpecialPeriod,
    *,
    most_a_day: int,
    tz: ZoneInfo,
    region_code: str | None,
    fulfilled: bool | None,
    before: UUID | None,
    limit: int,
) -> Completion:
    """What became of a period, from the ledger as it stands now: entries that come late or are voided change it."""
    special = special_of(row)
    required = progress(special, (), most_a_day).required
    narrowest = max(row.region_code, region_code or "", key=len)
    values = {
        "required": required,
        "each": _EVERY_DAY if row.visits_per_day is None else min(row.visits_per_day, most_a_day),
        "since": row.since,
        "until": row.until,
        "start": datetime.combine(row.since, datetime.min.time(), tz),
        "end": datetime.combine(row.until + timedelta(days=1), datetime.min.time(), tz),
        "tz": tz.key,
        "region": narrowest,
        "scope": who.region_code,
        "levels": row.levels,
        "excuses": _EXCUSES,
    }
    counts = (await session.execute(sa.text(_COUNTS), values)).one()
    more = ["true"]
    if fulfilled is not None:
        more.append("coalesce(met.done, 0) >= :required" if fulfilled else
                    "coalesce(met.done, 0) < :required AND NOT who.excused")  # fmt: skip
    if before is not None:
        more.append("e.id < :before")
        values["before"] = before
    query = f"{_PEOPLE.format(visits=_MET, more=' AND '.join(more))} ORDER BY e.id DESC LIMIT :limit"
    rows = (await session.execute(sa.text(query), {**values, "limit": limit})).all()
    return Completion(required, counts.people, counts.fulfilled, counts.excused, rows)
