"""Many people enrolled or changed in a few statements: what `register.enrol` and `register.change_elder` do for one.

The histories get the same rows. Whoever calls has checked the fields, and that nobody is enrolled already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import attributes

from app.access.sealing import Sealer
from app.elders import classifying, history, register
from app.elders.identity import Identity
from app.elders.tables import Elder
from app.elders.vocabulary import ChangeCause
from app.ids import new_uuid


async def enrol_many(
    session: AsyncSession,
    people: Sequence[tuple[Identity, Mapping[str, Any]]],
    *,
    by: UUID,
    sealer: Sealer,
    now: datetime,
    today: date,
) -> list[Elder]:
    """Enrol them, in their order. A database that knows one of the ID numbers refuses all (IntegrityError)."""
    if not people:
        return []
    elders = [register.new_elder(identity, fields, sealer=sealer, now=now) for identity, fields in people]
    for elder, (_, fields) in zip(elders, people, strict=True):
        if fields.get("ability_level") is not None:
            elder.ability_level, elder.ability_assessed_on = fields["ability_level"], today
    session.add_all(elders)
    await session.flush()
    recorded = {"by": str(by), "now": now}
    await session.execute(_LIVE, {**_with_new_ids(elders, now), "since": today, **recorded})
    await session.execute(_FACTS, {"ids": [e.id for e in elders], "day": history.SINCE_EVER, **recorded})
    assessed = [elder for elder in elders if elder.ability_level is not None]
    await session.execute(_ASSESS, {**_with_new_ids(assessed, now), "day": today, **recorded})
    await classifying.refresh_many(session, elders, cause=ChangeCause.ENROLLED, now=now, today=today)
    return elders


async def change_many(
    session: AsyncSession,
    changes: Sequence[tuple[Elder, Mapping[str, Any]]],
    *,
    by: UUID,
    sealer: Sealer,
    now: datetime,
    today: date,
) -> None:
    """Change the given fields of each (locked) elder; what was before stays in the histories.

    `ability_level` is an assessment of today. Moves (`region_code`) are not among them: `register.change_elder` does those.
    """
    if not changes:
        return
    recorded = {"by": str(by), "now": now}
    told = [elder for elder, fields in changes if register.set_fields(elder, fields, sealer=sealer)]
    assessed = [elder for elder, fields in changes if "ability_level" in fields]
    for elder, fields in changes:
        if "ability_level" in fields:
            elder.ability_level, elder.ability_assessed_on = fields["ability_level"], today
        elder.version += 1
        elder.updated_at = now
    await _write(session, [elder for elder, _ in changes])
    await session.execute(_FACTS, {"ids": [elder.id for elder in told], "day": today, **recorded})
    await session.execute(_ASSESS, {**_with_new_ids(assessed, now), "day": today, **recorded})
    elders = [elder for elder, _ in changes]
    await classifying.refresh_many(session, elders, cause=ChangeCause.CHANGED, now=now, today=today)


async def _write(session: AsyncSession, elders: Sequence[Elder]) -> None:
    """What `flush` would write one by one, in one statement: the triggers that keep duties and statistics run for each
    statement, and cost more than the row."""
    table = Elder.metadata.tables["elders"]
    dirty = {name for elder in elders for name, attribute in sa.inspect(elder).attrs.items() if attribute.history.added}
    names = ["id", *sorted(dirty)]
    values = sa.values(*(sa.column(name, table.c[name].type) for name in names), name="given").data(
        [tuple(getattr(elder, name) for name in names) for elder in elders]
    )
    written = sa.update(table).where(table.c.id == values.c.id).values({name: values.c[name] for name in names[1:]})
    with session.no_autoflush:
        await session.execute(written)
    for elder in elders:
        for name in names[1:]:
            attributes.set_committed_value(elder, name, getattr(elder, name))


def _with_new_ids(elders: Sequence[Elder], now: datetime) -> dict[str, list[UUID]]:
    return {"ids": [elder.id for elder in elders], "new_ids": [new_uuid(now) for _ in elders]}


_WITH_NEW_IDS = "unnest(CAST(:new_ids AS uuid[]), CAST(:ids AS uuid[])) AS w(new_id, id) JOIN elders e ON e.id = w.id"
_LIVE = sa.text(
    f"""
    INSERT INTO residences (id, elder_id, region_code, since, recorded_at, recorded_by)
    SELECT w.new_id, e.id, e.region_code, :since, :now, :by FROM {_WITH_NEW_IDS}
    """  # noqa: S608 - two constants
)
# See `history.keep_facts`: the last word of a day counts.
_FACTS = sa.text(
    """
    INSERT INTO elder_facts (elder_id, valid_from, observed, disability_grade, dementia, circumstances, recorded_at,
                             recorded_by)
    SELECT id, :day, observed, disability_grade, dementia, circumstances, :now, :by
    FROM elders WHERE id = ANY(CAST(:ids AS uuid[]))
    ON CONFLICT (elder_id, valid_from) DO UPDATE
    SET observed = excluded.observed, disability_grade = excluded.disability_grade, dementia = excluded.dementia,
        circumstances = excluded.circumstances, recorded_at = excluded.recorded_at, recorded_by = excluded.recorded_by
    """
)
# An assessment of today is the newest there is: the elder's columns say it already.
_ASSESS = sa.text(
    f"""
    INSERT INTO assessments (id, elder_id, assessed_on, level, recorded_at, recorded_by)
    SELECT w.new_id, e.id, :day, e.ability_level, :now, :by FROM {_WITH_NEW_IDS}
    """  # noqa: S608 - two constants
)
