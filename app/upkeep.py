"""The register and the work lists are kept up beside the alarms: batch after batch of what is due.

A new policy, a long list or the first of a month concerns everybody in a district at once. Alarms share the processor and
the disk with it, so the batches are small, a process does one at a time, and rests many times longer than it worked.
Each kind of work takes its turn: what a visitor waits for at their hour does not wait for the last of 100,000 people.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.alarms import drills, facts
from app.clock import Clock
from app.db import Sessions, transaction
from app.elders import classifying
from app.reports import calendar
from app.visits import daily, examining, kept, reminders, specials

log = logs.get("upkeep")
_REST = 9  # times as long as the work before it

# One batch of what is due at a moment, where days begin in a zone; how many there were.
Work = Callable[[AsyncSession, datetime, ZoneInfo], Awaitable[int]]


class Upkeep:
    """One process's share. Any number of processes may do it: the rows say what is due."""

    def __init__(self, sessions: Sessions, clock: Clock, tz: ZoneInfo) -> None:
        self._sessions = sessions
        self._clock = clock
        self._tz = tz
        self._turn = asyncio.Lock()  # first come, first served

    async def until_done(self, work: Work) -> None:
        """Batches of one kind until none is due; others take turns between them."""
        try:
            while await self._batch_and_rest(work):
                pass
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("not done; trying again", work=work.__name__, error=type(error).__name__)

    async def a_batch_of_each(self, works: Mapping[str, Work]) -> int:
        """Without rests. Returns how many there were of all kinds."""
        return sum([await self._batch(work) for work in works.values()])

    async def _batch_and_rest(self, work: Work) -> int:
        async with self._turn:
            began = time.monotonic()
            count = await self._batch(work)
            if count:
                await asyncio.sleep(_REST * (time.monotonic() - began))
        return count

    async def _batch(self, work: Work) -> int:
        async with transaction(self._sessions) as session:
            return await work(session, self._clock(), self._tz)


def _day(now: datetime, tz: ZoneInfo) -> date:
    return now.astimezone(tz).date()


async def classify(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """People whose class is due to be looked at: birthdays, ends of pauses, new policies."""
    return await classifying.take_due(session, now=now, today=_day(now, tz))


async def remind(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """Findings nothing was done about, told to those who watch."""
    due = await reminders.take_due(session, today=_day(now, tz))
    for one in due:
        facts.tell(
            session, "finding.reminder", region_code=one.region_code, alarm_id=None, now=now,
            finding_id=one.finding_id, elder_id=one.elder_id, kind=one.kind, topic=one.topic, times=one.count,
        )  # fmt: skip
    return len(due)


async def open_months(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """The next month's rows of statistics."""
    return await calendar.keep(session, today=_day(now, tz), tz=tz)


async def plan_festivals(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """The festivals to come."""
    return await specials.plan_festivals(session, now=now, today=_day(now, tz))


async def remind_of_self_tests(session: AsyncSession, now: datetime, _: ZoneInfo) -> int:
    """Homes whose devices should be tried again."""
    return await drills.remind(session, now=now)


async def judge_duties(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """Kept duties that are stale."""
    return await kept.look_again(session, now=now, today=_day(now, tz), tz=tz)


async def send_lists(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """Visitors and offices whose hour has come."""
    return await daily.take_due(session, now=now, tz=tz)


async def raise_overdue(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """Tasks nobody did."""
    return await daily.raise_overdue_tasks(session, now=now, tz=tz)


async def examine(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
    """Entries of the ledger to look at."""
    return await examining.take_due(session, now=now, tz=tz)


REGISTER: Mapping[str, Work] = {
    work.__name__: work for work in (classify, remind, open_months, plan_festivals, remind_of_self_tests)
}
LISTS: Mapping[str, Work] = {work.__name__: work for work in (judge_duties, send_lists, raise_overdue, examine)}
