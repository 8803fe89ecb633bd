"""The feed: committed facts in the order of their commits, to any number of watchers, resumed without a gap.

Watchers read the table by `seq`; the signal only says "look now". A fact is written under a lock that is held until its
commit, so no number below one that was read can appear later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.access.principal import Principal
from app.access.wall import walled
from app.alarms.views import COLUMNS, Shapes
from app.clock import Clock, monotonic
from app.db import Sessions
from app.signals import wait

log = logs.get("feed")
_PAGE = 200
_LOOK_AGAIN_S = 2.0
_ASK_AGAIN_S = 1.0
StillMay = Callable[[], Awaitable[bool]]

_NEWEST = sa.text("SELECT coalesce(max(seq), 0) FROM feed_events")
_FACTS = sa.text(
    f"""
    SELECT f.seq, f.at AS fact_at, f.type AS fact_type, f.region_code AS fact_region, f.data AS fact_data,
           f.alarm_id AS fact_alarm, {COLUMNS}
    FROM feed_events f LEFT JOIN alarms a ON a.id = f.alarm_id LEFT JOIN elders e ON e.id = a.elder_id
    WHERE f.seq > :after ORDER BY f.seq LIMIT :page
    """  # noqa: S608 - a constant
)


class Feed:
    """Wakes this process's watchers when there is something to read."""

    def __init__(self, sessions: Sessions, shapes: Shapes, clock: Clock, wake: asyncio.Event) -> None:
        self._sessions = sessions
        self._shapes = shapes
        self._clock = clock
        self._wake = wake
        self._news = asyncio.Condition()
        self._closed = False

    async def close(self) -> None:
        """The server stops: every stream ends where it is, and is resumed elsewhere by its Last-Event-ID."""
        self._closed = True
        async with self._news:
            self._news.notify_all()

    async def run(self) -> None:
        """Hand the process's signal on to every watcher."""
        while True:
            await wait(self._wake, at_most_s=_LOOK_AGAIN_S)
            async with self._news:
                self._news.notify_all()

    async def newest(self) -> int:
        """The number of the latest fact: where a watcher without Last-Event-ID begins."""
        async with self._sessions() as session:
            return int(await session.scalar(_NEWEST) or 0)

    async def watch(
        self, *, after: int, who: Principal, still_may: StillMay
    ) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
        """Facts after number `after` that exist for `who` when they are read: (seq, type, data), until the server stops
        or `still_may`, asked every second or two and before a fact is given, says that the watcher may no longer."""
        asked = -_ASK_AGAIN_S
        while not self._closed:
            try:
                if monotonic() - asked >= _ASK_AGAIN_S:
                    if not await still_may():
                        return
                    asked = monotonic()
                page = await self._read(after, who)
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("cannot read the feed; trying again", error=type(error).__name__)
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            for place, (seq, type_, data) in enumerate(page):
                if place and monotonic() - asked >= _ASK_AGAIN_S:
                    break  # a slow reader: ask, and read again from here
                after = seq
                yield seq, type_, data
            else:
                if len(page) < _PAGE:
                    await self.news()

    async def news(self, *, at_most_s: float = _LOOK_AGAIN_S) -> None:
        """Return when there may be something to read, or after a while."""
        try:
            async with asyncio.timeout(at_most_s), self._news:
                await self._news.wait()
        except TimeoutError:
            pass

    async def _read(self, after: int, who: Principal) -> list[tuple[int, str, dict[str, Any]]]:
        now = self._clock()
        async with walled(self._sessions, who, now=now) as session:
            rows = (await session.execute(_FACTS, {"after": after, "page": _PAGE})).mappings()
            return [(row["seq"], row["fact_type"], self._fact(row, now)) for row in rows]

    def _fact(self, row: Any, now: datetime) -> dict[str, Any]:
        alarm = self._shapes.alarm(row, now=now) if row["alarm_id"] is not None else None
        return {
            "type": row["fact_type"],
            "at": self._shapes.time(row["fact_at"]),
            "alarm_id": str(row["fact_alarm"]) if row["fact_alarm"] else None,
            "region_code": row["fact_region"],
            "detail": row["fact_data"],
            "alarm": alarm,
        }
