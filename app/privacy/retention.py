"""How long things are kept: periods from the settings, applied in small batches, and a report of what went.

The ledger of visits, alarms and the audit log are kept; people who left are erased, not removed (app/privacy/erasure.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app import logs
from app.access import audit
from app.access.sealing import Sealer
from app.clock import monotonic
from app.db import Sessions, transaction
from app.elders.tables import Elder
from app.elders.vocabulary import ElderStatus
from app.privacy import erasure
from app.settings import Settings

log = logs.get("retention")
SYSTEM = {"type": "system", "name": "retention"}
_LOCK = 7_301_310
_BATCH = 2000
_REST = 2.0  # times as long as the batch before
_MOST_S = 600.0  # of one run: the rest waits for the next hour


@dataclass(frozen=True, slots=True)
class Period:
    """Rows of a table that go after some days. `old` is a condition with :before or, for ids that grow with time, :bound."""

    setting: str  # the setting's name, in days; 0: kept for ever
    table: str
    old: str
    key: str = "id"


PERIODS = (
    Period("retain_journal_days", "device_events", "id < :bound"),
    Period("retain_quarantine_days", "rejected_messages", "id < :bound"),
    Period("retain_unclaimed_days", "unclaimed_devices", "last_seen_at < :before", key="device_id"),
    Period(
        "retain_notices_days", "notices",
        "id < :bound AND state NOT IN ('pending', 'sending') "
        "AND EXISTS (SELECT FROM alarms a WHERE a.id = alarm_id AND a.state = 'resolved')",
    ),
    Period("retain_notices_days", "digests", "id < :bound AND state NOT IN ('pending', 'sending')"),
    # What somebody subscribed to and was not read for them yet stays.
    Period(
        "retain_feed_days", "feed_events",
        "at < :before AND NOT EXISTS (SELECT FROM webhook_subscriptions s CROSS JOIN webhook_fan_out f "
        "WHERE s.since_seq < feed_events.seq AND f.seq < feed_events.seq)",
        key="seq",
    ),
)  # fmt: skip


def oldest_id(moment: datetime) -> UUID:
    """Ids made before that moment are smaller (`app.ids.new_uuid`)."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


class Retention:
    """The scheduled job. Any worker may run it; only one does at a time."""

    def __init__(self, sessions: Sessions, settings: Settings, sealer: Sealer, tz: ZoneInfo) -> None:
        self._sessions = sessions
        self._sealer = sealer
        self._tz = tz
        self._days = {one.setting: int(getattr(settings, one.setting)) for one in PERIODS}
        self._departed_days = settings.erase_departed_after_days

    async def run(self, now: datetime) -> dict[str, int]:
        """Apply all periods. What was removed, by table; reported in the log and the audit log when it was anything."""
        end = monotonic() + _MOST_S
        removed: dict[str, int] = {}
        for one in PERIODS:
            if days := self._days[one.setting]:
                removed[one.table] = await self._apply(one, now - timedelta(days=days), end)
        if self._departed_days:
            removed["elders"] = await self._erase_departed(now, end)
        removed = {table: count for table, count in removed.items() if count}
        if removed:
            log.info("retention applied", removed=removed)
            async with transaction(self._sessions) as session:
                audit.write(
                    session, SYSTEM, action="retention.applied", subject_type="retention", subject_id="", now=now,
                    removed=removed, days={name: days for name, days in self._periods().items() if days},
                )  # fmt: skip
        return removed

    def _periods(self) -> dict[str, int]:
        return {**self._days, "erase_departed_after_days": self._departed_days}

    async def _apply(self, one: Period, before: datetime, end: float) -> int:
        """Batches, with a rest after each. What was looked at once in this run is not looked at again."""
        bounds: dict[str, Any] = {"before": before} if ":before" in one.old else {"bound": oldest_id(before)}
        after, total = None, 0
        while monotonic() < end:
            began = monotonic()
            async with transaction(self._sessions) as session:
                if not await _alone(session):
                    return total
                gone, after = await _batch(session, one, bounds, after)
            total += gone
            if gone < _BATCH:
                return total
            await asyncio.sleep(_REST * (monotonic() - began))
        return total

    async def _erase_departed(self, now: datetime, end: float) -> int:
        """Each in a transaction of its own. Somebody with an open alarm is met again in the next run."""
        today = now.astimezone(self._tz).date()
        query = select(col(Elder.id)).where(
            col(Elder.erased_at).is_(None), col(Elder.status).in_([ElderStatus.MOVED, ElderStatus.DECEASED]),
            col(Elder.status_since) < today - timedelta(days=self._departed_days),
        )  # fmt: skip
        async with self._sessions() as session:
            due = (await session.scalars(query.order_by(col(Elder.status_since)).limit(_BATCH))).all()
        erased = 0
        for elder_id in due:
            if monotonic() > end:
                break
            began = monotonic()
            async with transaction(self._sessions) as session:
                if not await _alone(session):
                    break
                erased += await self._erase(session, elder_id, now)
            await asyncio.sleep(_REST * (monotonic() - began))
        return erased

    async def _erase(self, session: AsyncSession, elder_id: UUID, now: datetime) -> int:
        query = select(Elder).where(col(Elder.id) == elder_id, col(Elder.erased_at).is_(None)).with_for_update()
        elder = (await session.scalars(query)).one_or_none()
        if elder is None or await erasure.obstacles(session, elder):
            return 0
        region = elder.region_code
        parts = await erasure.erase(
            session, elder, sealer=self._sealer, by="retention", now=now, today=now.astimezone(self._tz).date()
        )
        audit.write(
            session, SYSTEM, action="elder.erased", subject_type="elder", subject_id=elder_id, now=now,
            region_code=region, reason=erasure.ErasureReason.NO_LONGER_NEEDED.value, rows=erasure.summary(parts),
        )  # fmt: skip
        return 1


async def _alone(session: AsyncSession) -> bool:
    """Whether no other worker is at it, until this transaction ends."""
    return bool(await session.scalar(sa.text(f"SELECT pg_try_advisory_xact_lock({_LOCK})")))


async def _batch(session: AsyncSession, one: Period, bounds: dict[str, Any], after: Any) -> tuple[int, Any]:
    from_here = f"AND {one.key} > :after" if after is not None else ""
    query = f"""
        WITH gone AS (
            DELETE FROM {one.table} WHERE {one.key} IN (
                SELECT {one.key} FROM {one.table} WHERE {one.old} {from_here} ORDER BY {one.key} LIMIT {_BATCH}
            ) RETURNING {one.key} AS key
        ) SELECT key FROM gone ORDER BY key
    """  # noqa: S608 - constants
    values = bounds | ({"after": after} if after is not None else {})
    keys: Sequence[Any] = (await session.scalars(sa.text(query), values)).all()
    return len(keys), keys[-1] if keys else after
