"""What was known of an elder when: facts, assessments, places, statuses. Rows are added, never changed.

The columns of `elders` say what holds today; these tables say what held on any day, and who wrote it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.elders.classification import Facts
from app.elders.status import StatusPeriod, normal_reason, status_on
from app.elders.tables import AbilityScale, Assessment, Elder, KnownFacts, Residence, StatusEntry
from app.elders.vocabulary import AbilityLevel, Circumstance, ElderStatus, Observed, StatusReason
from app.errors import Conflict, InvalidInput, NotFound
from app.ids import new_uuid

SINCE_EVER = date(1900, 1, 1)  # what is known at enrolment is taken to have held before
DEFAULT_SCALE = "GB/T 42195-2022"

# --- facts -----------------------------------------------------------------------------------------------------------


async def keep_facts(session: AsyncSession, elder: Elder, *, valid_from: date, by: str, now: datetime) -> None:
    """What the register says now holds from this day on; the last word of a day counts."""
    values = {
        "observed": elder.observed,
        "disability_grade": elder.disability_grade,
        "dementia": elder.dementia,
        "circumstances": elder.circumstances,
        "recorded_at": now,
        "recorded_by": by,
    }
    statement = insert(KnownFacts).values(elder_id=elder.id, valid_from=valid_from, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["elder_id", "valid_from"], set_=values))


@dataclass(frozen=True, slots=True)
class Known:
    """What the class of one elder on one day depends on."""

    elder_id: UUID
    day: date
    facts: Facts
    region_code: str


# Rows written past the register (a bulk load) have no history: the elder's own columns stand in.
_AS_OF = """
    SELECT e.id, w.day, e.birth_date, coalesce(r.region_code, e.region_code) AS region_code,
           CASE WHEN a.known THEN a.level ELSE e.ability_level END AS ability_level,
           CASE WHEN f.elder_id IS NULL THEN e.observed ELSE f.observed END AS observed,
           CASE WHEN f.elder_id IS NULL THEN e.disability_grade ELSE f.disability_grade END AS disability_grade,
           coalesce(f.dementia, e.dementia) AS dementia, coalesce(f.circumstances, e.circumstances) AS circumstances
    FROM {wanted} JOIN elders e ON e.id = w.id
    LEFT JOIN LATERAL (
        SELECT true AS known, (SELECT level FROM assessments a WHERE a.elder_id = e.id AND a.withdrawn_at IS NULL
                               AND a.assessed_on <= w.day ORDER BY a.assessed_on DESC, a.id DESC LIMIT 1) AS level
        FROM assessments any_ WHERE any_.elder_id = e.id LIMIT 1
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT * FROM elder_facts f WHERE f.elder_id = e.id AND f.valid_from <= w.day
        ORDER BY f.valid_from DESC LIMIT 1
    ) f ON true
    LEFT JOIN LATERAL (
        SELECT region_code FROM residences r WHERE r.elder_id = e.id
        ORDER BY r.since <= w.day DESC, CASE WHEN r.since <= w.day THEN r.since END DESC, r.since LIMIT 1
    ) r ON true
"""
_PAIRS = "unnest(CAST(:ids AS uuid[]), CAST(:days AS date[])) AS w(id, day)"
_ENROLLED = """(SELECT id, CAST(:day AS date) AS day FROM elders WHERE region_code ^@ :prefix AND id > :after
                AND status IN ('active', 'paused') ORDER BY id LIMIT :limit) AS w"""
_AS_OF_PAIRS = sa.text(_AS_OF.format(wanted=_PAIRS))
_AS_OF_REGION = sa.text(f"{_AS_OF.format(wanted=_ENROLLED)} ORDER BY e.id")


async def known_on(session: AsyncSession, wanted: Mapping[UUID, date]) -> dict[UUID, Known]:
    """What was known of each elder on its day, in one query."""
    rows = await session.execute(_AS_OF_PAIRS, {"ids": list(wanted), "days": list(wanted.values())})
    return {row.id: _known(row) for row in rows}


async def known_in_region(session: AsyncSession, prefix: str, *, day: date, after: UUID, limit: int) -> list[Known]:
    """The enrolled of a region in the order of their ids, as known on a day: one batch of a walk over all of them."""
    values = {"prefix": prefix, "day": day, "after": after, "limit": limit}
    return [_known(row) for row in await session.execute(_AS_OF_REGION, values)]


def _known(row: Any) -> Known:
    facts = Facts(
        row.birth_date,
        AbilityLevel(row.ability_level) if row.ability_level else None,
        Observed(row.observed) if row.observed else None,
        row.disability_grade,
        row.dementia,
        frozenset(Circumstance(one) for one in row.circumstances),
    )
    return Known(row.id, row.day, facts, row.region_code)


def facts_of(elder: Elder) -> Facts:
    """What holds today, from the elder's own columns."""
    return Facts(
        elder.birth_date,
        elder.ability_level,
        elder.observed,
        elder.disability_grade,
        elder.dementia,
        frozenset(Circumstance(one) for one in elder.circumstances),
    )


# --- assessments -----------------------------------------------------------------------------------------------------


async def add_assessment(
    session: AsyncSession,
    elder: Elder,
    *,
    assessed_on: date,
    level: AbilityLevel | None,
    by: str,
    now: datetime,
    today: date,
    score: int | None = None,
    scale: str | None = None,
    assessor: str | None = None,
    organisation: str | None = None,
    note: str | None = None,
) -> Assessment:
    """Record an assessment; a score gives the level by the bands of its scale. Raises `InvalidInput` when they differ."""
    if assessed_on > today:
        raise InvalidInput("an assessment in the future", field="assessed_on")
    if assessed_on < elder.birth_date:
        raise InvalidInput("an assessment before the birth", field="assessed_on")
    if score is not None:
        scale = scale or DEFAULT_SCALE
        by_score = await _level_of(session, scale, score)
        if level not in (None, by_score):
            raise InvalidInput(f"a score of {score} on {scale} means {by_score.value}", field="level")
        level = by_score
    elif scale is not None:
        raise InvalidInput("a scale without a score says nothing", field="score")
    if level is None:
        raise InvalidInput("give the level, or a score from which it follows", field="level")
    made = Assessment(
        id=new_uuid(now), elder_id=elder.id, assessed_on=assessed_on, level=level, score=score, scale=scale,
        assessor=assessor, organisation=organisation, note=note, recorded_at=now, recorded_by=by,
    )  # fmt: skip
    session.add(made)
    await session.flush()
    await _settle_ability(session, elder, today)
    return made


async def _level_of(session: AsyncSession, name: str, score: int) -> AbilityLevel:
    scale = await session.get(AbilityScale, name)
    if scale is None:
        raise InvalidInput("no such scale; GET /api/v1/ability-scales lists them", field="scale")
    for band in scale.bands:
        if band["from"] <= score <= band["to"]:
            return AbilityLevel(band["level"])
    lowest, highest = min(b["from"] for b in scale.bands), max(b["to"] for b in scale.bands)
    raise InvalidInput(f"scores of {name} go from {lowest} to {highest}", field="score")


async def withdraw_assessment(
    session: AsyncSession, elder: Elder, assessment_id: UUID, *, reason: str, now: datetime, today: date
) -> Assessment:
    """A wrong assessment stays in the history and no longer counts."""
    found = await session.get(Assessment, assessment_id)
    if found is None or found.elder_id != elder.id:
        raise NotFound("no such assessment")
    if found.withdrawn_at is not None:
        raise Conflict("the assessment was withdrawn before")
    found.withdrawn_at, found.withdrawn_reason = now, reason
    await session.flush()
    await _settle_ability(session, elder, today)
    return found


async def withdraw_all_assessments(session: AsyncSession, elder: Elder, *, reason: str, now: datetime) -> None:
    """The person counts as never assessed: `ability.level` was set to null."""
    await session.execute(
        sa.text(
            "UPDATE assessments SET withdrawn_at = :now, withdrawn_reason = :reason "
            "WHERE elder_id = :id AND withdrawn_at IS NULL"
        ),
        {"now": now, "reason": reason, "id": elder.id},
    )
    elder.ability_level, elder.ability_assessed_on = None, None


async def _settle_ability(session: AsyncSession, elder: Elder, today: date) -> None:
    query = (
        select(Assessment)
        .where(
            col(Assessment.elder_id) == elder.id,
            col(Assessment.withdrawn_at).is_(None),
            col(Assessment.assessed_on) <= today,
        )
        .order_by(col(Assessment.assessed_on).desc(), col(Assessment.id).desc())
        .limit(1)
    )
    latest = (await session.execute(query)).scalar_one_or_none()
    elder.ability_level = latest.level if latest else None
    elder.ability_assessed_on = latest.assessed_on if latest else None


# --- places ----------------------------------------------------------------------------------------------------------


async def live_in(session: AsyncSession, elder: Elder, code: str, *, since: date, by: str, now: datetime) -> None:
    """The elder lives here from this day on. Raises `InvalidInput` for a day before the last move."""
    last = await session.scalar(select(sa.func.max(col(Residence.since))).where(col(Residence.elder_id) == elder.id))
    if last is not None and since < last:
        raise InvalidInput(f"the elder lives where they are since {last}; a move comes after that", field="moved_on")
    # Enrolled and moved on one day: where they were enrolled stays, as the place before that day.
    await session.execute(
        sa.text(
            "UPDATE residences r SET since = since - 1 WHERE elder_id = :id AND since = :since AND region_code <> :code "
            "AND NOT EXISTS (SELECT FROM residences b WHERE b.elder_id = r.elder_id AND b.since < r.since)"
        ),
        {"id": elder.id, "since": since, "code": code},
    )
    values = {"region_code": code, "recorded_at": now, "recorded_by": by}
    statement = insert(Residence).values(id=new_uuid(now), elder_id=elder.id, since=since, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["elder_id", "since"], set_=values))


async def place_on(session: AsyncSession, elder: Elder, day: date) -> str:
    """Where the elder lived on a day; before the first entry, where they lived first."""
    query = select(Residence).where(col(Residence.elder_id) == elder.id).order_by(col(Residence.since))
    lived = (await session.execute(query)).scalars().all()
    held = [one.region_code for one in lived if one.since <= day]
    return held[-1] if held else lived[0].region_code if lived else elder.region_code


# --- statuses --------------------------------------------------------------------------------------------------------


async def set_status(
    session: AsyncSession,
    elder: Elder,
    *,
    status: ElderStatus,
    reason: StatusReason | None,
    since: date,
    until: date | None,
    evidence: str | None,
    by: str,
    now: datetime,
    today: date,
) -> StatusEntry:
    """A status from a day on (today or before), with its evidence. Raises `InvalidInput` for what does not fit."""
    try:
        reason = normal_reason(status, reason)
    except ValueError as error:
        raise InvalidInput(str(error), field="reason") from None
    if since > today:
        raise InvalidInput("a status in the future: enter it on its day", field="since")
    if since < elder.birth_date:
        raise InvalidInput("a status before the birth", field="since")
    if until is not None and status is not ElderStatus.PAUSED:
        raise InvalidInput("only a pause ends by itself", field="until")
    if until is not None and until < since:
        raise InvalidInput("the end comes before the beginning", field="until")
    made = StatusEntry(
        id=new_uuid(now), elder_id=elder.id, status=status, reason=reason, since=since, until=until,
        evidence=evidence, recorded_at=now, recorded_by=by,
    )  # fmt: skip
    session.add(made)
    await session.flush()
    await settle_status(session, elder, today)
    return made


async def settle_status(session: AsyncSession, elder: Elder, today: date) -> None:
    """The elder's columns say what holds today."""
    held = status_on((await status_periods(session, [elder.id])).get(elder.id, ()), today)
    elder.status, elder.status_reason = held.status, held.reason
    elder.status_since = None if held.since == date.min else held.since
    elder.status_until, elder.status_evidenced = held.until, held.evidenced


async def status_periods(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, Sequence[StatusPeriod]]:
    """The statuses of each elder in the order they were recorded."""
    rows = await session.execute(
        sa.text(
            "SELECT elder_id, status, reason, since, until, evidence IS NOT NULL OR status = 'active' AS evidenced "
            "FROM elder_statuses WHERE elder_id = ANY(CAST(:ids AS uuid[])) ORDER BY elder_id, recorded_at, id"
        ),
        {"ids": list(ids)},
    )
    found: dict[UUID, list[StatusPeriod]] = {}
    for row in rows:
        reason = StatusReason(row.reason) if row.reason else None
        found.setdefault(row.elder_id, []).append(
            StatusPeriod(ElderStatus(row.status), reason, row.since, row.until, row.evidenced)
        )
    return dict(found)
