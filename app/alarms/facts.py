"""Facts for those who watch. Written last in a transaction, under a lock, so that `seq` grows in commit order: a reader
that has seen number n has seen every fact before it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from app.db import Hands, before_commit
from app.signals import Signal, signal_sql

_LOCK = 7_301_304
# The lock is taken before the first number is drawn, and held until the commit.
_PUBLISH = sa.text(
    f"""
    WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock({_LOCK})),
    published AS (
        INSERT INTO feed_events (at, type, region_code, alarm_id, data)
        SELECT at, type, region_code, alarm_id, data::jsonb
        FROM locked, unnest(CAST(:at AS timestamptz[]), CAST(:type AS text[]), CAST(:region_code AS text[]),
                            CAST(:alarm_id AS uuid[]), CAST(:data AS text[]))
             WITH ORDINALITY AS fact(at, type, region_code, alarm_id, data, position)
        ORDER BY position
    )
    SELECT {signal_sql(Signal.FEED)}
    """  # noqa: S608 - constants
)


def tell(session: Hands, type_: str, *, region_code: str, alarm_id: UUID | None, now: datetime, **data: Any) -> None:
    """Note a fact; it is published if and when this transaction commits."""
    session.info.setdefault("facts", []).append((now, type_, region_code, alarm_id, msgspec.json.encode(data).decode()))
    before_commit(session, _publish)


async def _publish(session: Hands) -> None:
    facts = session.info.pop("facts", [])
    if not facts:
        return
    await session.flush()
    at, type_, region_code, alarm_id, data = (list(column) for column in zip(*facts, strict=True))
    await session.execute(
        _PUBLISH, {"at": at, "type": type_, "region_code": region_code, "alarm_id": alarm_id, "data": data}
    )
