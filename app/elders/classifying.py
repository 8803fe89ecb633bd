"""Classes kept up to date: at every change, on birthdays, when a pause ends and when a policy begins. The database is
the timer: `elders.reclassify_on` says when to look again, and a look for a past day is made as of that day."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import attributes

from app.elders import policies
from app.elders.classification import Classification, Facts, classify, next_birthday
from app.elders.history import Known, known_in_region, known_on, status_periods
from app.elders.policies import Policies, Version
from app.elders.status import StatusPeriod, status_on
from app.elders.tables import Elder
from app.elders.vocabulary import CareLevel, ChangeCause, ElderStatus
from app.ids import new_uuid

_BATCH = 100  # some milliseconds: alarms share the processor
_GONE = (ElderStatus.MOVED, ElderStatus.DECEASED)


# The history gets a row when the answer differs from the one before, and only then: looking again changes nothing.
_KEEP = sa.text(
    """
    WITH result AS (
        SELECT * FROM unnest(CAST(:change_id AS uuid[]), CAST(:id AS uuid[]), CAST(:day AS date[]),
                             CAST(:care_level AS text[]), CAST(:reasons AS text[]), CAST(:version AS text[]),
                             CAST(:inputs AS text[]), CAST(:cause AS text[]), CAST(:again AS date[]))
             WITH ORDINALITY AS r(change_id, id, day, care_level, reasons, version, inputs, cause, again, position)
    ),
    written AS (
        INSERT INTO classification_changes (id, elder_id, effective_on, care_level, reasons, policy_version, inputs,
                                            cause, recorded_at)
        SELECT r.change_id, r.id, r.day, r.care_level, CAST(r.reasons AS jsonb), r.version, CAST(r.inputs AS jsonb),
               r.cause, :now
        FROM result r LEFT JOIN LATERAL (
            SELECT care_level, reasons, policy_version FROM classification_changes c WHERE c.elder_id = r.id
            ORDER BY c.seq DESC LIMIT 1
        ) last ON true
        WHERE (last.care_level, last.reasons, last.policy_version)
              IS DISTINCT FROM (r.care_level, CAST(r.reasons AS jsonb), r.version)
        ORDER BY r.position
    )
    UPDATE elders e SET care_level = r.care_level, reclassify_on = r.again FROM result r WHERE e.id = r.id
    """
)


@dataclass(frozen=True, slots=True)
class _Result:
    known: Known
    found: Classification
    cause: ChangeCause
    again: date | None


async def _keep(session: AsyncSession, results: list[_Result], now: datetime) -> None:
    await session.execute(_KEEP, {
        "now": now,
        "change_id": [new_uuid(now) for _ in results],
        "id": [r.known.elder_id for r in results],
        "day": [r.known.day for r in results],
        "care_level": [r.found.care_level.value for r in results],
        "reasons": [json.dumps([reason.shape() for reason in r.found.reasons], ensure_ascii=False) for r in results],
        "version": [r.found.policy_version for r in results],
        "inputs": [json.dumps(r.known.facts.shape(r.known.day)) for r in results],
        "cause": [r.cause.value for r in results],
        "again": [r.again for r in results],
    })  # fmt: skip


def next_look(facts: Facts, day: date, held: StatusPeriod) -> date | None:
    """When the answer may change by itself: the next birthday, or the day after a pause. Never for those who left."""
    if held.status in _GONE:
        return None
    birthday = next_birthday(facts.birth_date, day)
    return birthday if held.until is None else min(birthday, held.until + timedelta(days=1))


async def refresh(
    session: AsyncSession, elder: Elder, *, cause: ChangeCause, now: datetime, today: date
) -> Classification:
    """Class one elder as of today, in the transaction of the change. `elder` is locked or new."""
    return (await refresh_many(session, [elder], cause=cause, now=now, today=today))[elder.id]


async def refresh_many(
    session: AsyncSession, elders: Sequence[Elder], *, cause: ChangeCause, now: datetime, today: date
) -> dict[UUID, Classification]:
    """Like `refresh`, for many in the same few statements."""
    await session.flush()
    known = await known_on(session, {elder.id: today for elder in elders})
    in_force = await policies.in_force(session)
    results = []
    for elder in elders:
        one = known[elder.id]
        found = classify(one.facts, on=today, policy=in_force.at(one.region_code, today))
        again = next_look(one.facts, today, StatusPeriod(
            elder.status, elder.status_reason, elder.status_since or date.min, elder.status_until, elder.status_evidenced
        ))  # fmt: skip
        coming = [v.since for v in in_force.versions if v.since > today and one.region_code.startswith(v.region_code)]
        results.append(_Result(one, found, cause, None if again is None else min([again, *coming])))
    await _keep(session, results, now)
    for elder, result in zip(elders, results, strict=True):
        # Written by the statement above; the session need not write it again.
        attributes.set_committed_value(elder, "care_level", result.found.care_level)
        attributes.set_committed_value(elder, "reclassify_on", result.again)
    return {result.known.elder_id: result.found for result in results}


async def on_day(session: AsyncSession, elder: Elder, day: date) -> tuple[Classification, Known]:
    """The class on any day: a pure function of what was known for that day, the policy of that day, and the day."""
    known = (await known_on(session, {elder.id: day}))[elder.id]
    in_force = await policies.in_force(session)
    return classify(known.facts, on=day, policy=in_force.at(known.region_code, day)), known


_DUE = sa.text(
    """
    SELECT id, reclassify_on, status FROM elders WHERE reclassify_on <= :today
    ORDER BY reclassify_on, id LIMIT :batch FOR UPDATE SKIP LOCKED
    """
)


async def take_due(session: AsyncSession, *, now: datetime, today: date) -> int:
    """One batch of people whose day has come, each judged as of its day, so that days of downtime leave no hole.

    Idempotent, and any number of workers may do it. Returns how many were looked at; 0: nothing is due.
    """
    rows = (await session.execute(_DUE, {"today": today, "batch": _BATCH})).all()
    if not rows:
        return 0
    days = {row.id: row.reclassify_on for row in rows}
    known = await known_on(session, days)
    periods = await status_periods(session, days)
    in_force = await policies.in_force(session)
    results = []
    for row in rows:
        day, one = days[row.id], known[row.id]
        held = status_on(periods.get(row.id, ()), day)
        if row.id not in periods and row.status != ElderStatus.ACTIVE:
            held = StatusPeriod(ElderStatus(row.status), None, date.min)  # written past the register
        elif held.status.value != row.status:
            await _end_the_pause(session, row.id, held)
        found = classify(one.facts, on=day, policy=in_force.at(one.region_code, day))
        again = next_look(one.facts, day, held)
        coming = [v.since for v in in_force.versions if v.since > day and one.region_code.startswith(v.region_code)]
        results.append(
            _Result(one, found, _cause(one, day, in_force), None if again is None else min([again, *coming]))
        )
    await _keep(session, results, now)
    return len(rows)


def _cause(known: Known, day: date, in_force: Policies) -> ChangeCause:
    if any(v.since == day and known.region_code.startswith(v.region_code) for v in in_force.versions):
        return ChangeCause.POLICY
    birthday = next_birthday(known.facts.birth_date, day - timedelta(days=1)) == day
    return ChangeCause.BIRTHDAY if birthday else ChangeCause.STATUS


async def _end_the_pause(session: AsyncSession, elder_id: UUID, held: StatusPeriod) -> None:
    await session.execute(
        sa.text(
            "UPDATE elders SET status = :status, status_reason = :reason, status_since = :since, status_until = :until, "
            "status_evidenced = :evidenced, version = version + 1 WHERE id = :id"
        ),
        {
            "status": held.status.value,
            "reason": held.reason.value if held.reason else None,
            "since": None if held.since == date.min else held.since,
            "until": held.until,
            "evidenced": held.evidenced,
            "id": elder_id,
        },
    )


# --- what would change -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """Who would change class, from what to what, and why."""

    elder_id: UUID
    before: Classification
    after: Classification


@dataclass(frozen=True, slots=True)
class DryRun:
    looked_at: int
    moves: list[Move]

    def counts(self) -> list[dict[str, Any]]:
        """How many go from where to where."""
        counted = Counter((m.before.care_level, m.after.care_level) for m in self.moves)
        order = list(CareLevel)
        ways = sorted(counted, key=lambda way: (order.index(way[0]), order.index(way[1])))
        return [{"from": before, "to": after, "elders": counted[before, after]} for before, after in ways]


async def dry_run(session: AsyncSession, proposed: Version, *, prefix: str, day: date) -> DryRun:
    """What a proposed version would change among the enrolled below `prefix` on a day. Writes nothing."""
    in_force = await policies.in_force(session)
    proposed_too = in_force.and_also(proposed)
    moves: list[Move] = []
    looked_at, after = 0, UUID(int=0)
    while batch := await known_in_region(session, prefix, day=day, after=after, limit=2000):
        for known in batch:
            before = classify(known.facts, on=day, policy=in_force.at(known.region_code, day))
            then = classify(known.facts, on=day, policy=proposed_too.at(known.region_code, day))
            if before.care_level is not then.care_level:
                moves.append(Move(known.elder_id, before, then))
        looked_at += len(batch)
        after = batch[-1].elder_id
    return DryRun(looked_at, moves)
