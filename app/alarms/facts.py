"""Facts for those who watch. Written last in a transaction, under a lock, so that `seq` grows in commit order: a reader
that has seen number n has seen every fact before it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import before_commit
from app.signals import Signal, send

_LOCK = 7_301_304
_INSERT = sa.text(
    """
    INSERT INTO feed_events (at, type, region_code, alarm_id, data)
    SELECT at, type, region_code, alarm_id, data::jsonb
    FROM unnest(CAST(:at AS timestamptz[]), CAST(:type AS text[]), CAST(:region_code AS text[]),
                CAST(:alarm_id AS uuid[]), CAST(:data AS text[]))
         WITH ORDINALITY AS fact(at, type, region_code, alarm_id, data, position)
    ORDER BY position
    """
)


def tell(
    session: AsyncSession, type_: str, *, region_code: str, alarm_id: UUID | None, now: datetime, **data: Any
) -> None:
    """Note a fact; it is published if and when this transaction commits."""
    session.info.setdefault("facts", []).append((now, type_, region_code, alarm_id, json.dumps(data, default=str)))
    before_commit(session, _publish)


async def _publish(session: AsyncSession) -> None:
    facts = session.info.pop("facts", [])
    if not facts:
        return
    await session.flush()
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    at, type_, region_code, alarm_id, data = zip(*facts, strict=True)
    await session.execute(
        _INSERT,
        {
            "at": list(at),
            "type": list(type_),
            "region_code": list(region_code),
            "alarm_id": list(alarm_id),
            "data": list(data),
        },
    )
    await send(session, Signal.FEED)
