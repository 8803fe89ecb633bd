"""The only scheduler. It says "look now"; what is due stands in the database, and any process may do it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.access import accounts, audit
from app.alarms import drills
from app.alarms.due import take_due_steps
from app.clock import Clock
from app.db import Sessions, transaction
from app.reports import calendar
from app.upkeep import LISTS, REGISTER, Upkeep
from app.visits import chain, daily
from app.watches import due as watches

log = logs.get("ticks")
_EVERY_S = 0.5
_REGISTER_EVERY_S = 60
_LISTS_EVERY_S = 5  # a visitor's hour is kept to some seconds
_HOURLY_S = 3600
_ONE_AT_A_TIME = {"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600}
_FIRST_CHORES = timedelta(minutes=2)
_KEEP_ANSWERS = timedelta(days=2)


Sweep = Callable[[AsyncSession, datetime], Awaitable[object]]
Chore = Callable[[datetime], Awaitable[object]]
Job = Callable[[], Awaitable[None]]


class Ticks:
    """Looks for due work twice a second. `sweeps` are other rooms' hourly tidying, each in a transaction of its own;
    `chores` take many transactions, and rest between them."""

    def __init__(
        self,
        sessions: Sessions,
        clock: Clock,
        tz: ZoneInfo,
        *,
        sweeps: Sequence[Sweep] = (),
        chores: Sequence[Chore] = (),
        zigbee_bases: Sequence[str] = ("zigbee2mqtt",),
    ) -> None:
        self._zigbee_bases = zigbee_bases
        self._sessions = sessions
        self._clock = clock
        self._tz = tz
        self._sweeps = (
            watches.begin,
            _forget_answers,
            _forget_logins,
            daily.forget_old,
            _tell_the_audit_head,
            calendar.add_up,
            _seal_the_ledger,
            *sweeps,
        )
        self._chores = chores
        self._upkeep = Upkeep(sessions, clock, tz)
        self._scheduler = AsyncIOScheduler(timezone=tz)
        self._stopped = False
        self.last_look: datetime | None = None

    def start(self) -> None:
        jobs: list[tuple[str, Job, float]] = [
            ("due", self._due, _EVERY_S), ("watches", self._watch, _EVERY_S), ("sweep", self._sweep, _HOURLY_S)
        ]  # fmt: skip
        for works, every_s in ((REGISTER, _REGISTER_EVERY_S), (LISTS, _LISTS_EVERY_S)):
            jobs += [(name, partial(self._upkeep.until_done, work), every_s) for name, work in works.items()]
        for name, job, seconds in jobs:
            self._scheduler.add_job(self._until_stopped(job), "interval", seconds=seconds, id=name, **_ONE_AT_A_TIME)
        first = self._clock() + _FIRST_CHORES  # also where a process never lives for an hour
        self._scheduler.add_job(
            self._until_stopped(self._do_chores), "interval", seconds=_HOURLY_S, id="chores", next_run_time=first,
            **_ONE_AT_A_TIME,
        )  # fmt: skip
        self._scheduler.start()

    def stop(self) -> None:
        self._stopped = True
        self._scheduler.shutdown(wait=False)

    def _until_stopped(self, job: Job) -> Job:
        """Stopping cancels what is at work; the scheduler would print that as a job's fault."""

        async def run() -> None:
            try:
                await job()
            except asyncio.CancelledError:
                if not self._stopped:
                    raise

        return run

    async def _due(self) -> None:
        try:
            while await self.look() or await self.end_tests():
                pass
            self.last_look = self._clock()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("could not look; looking again", error=type(error).__name__)

    async def look(self) -> int:
        """One batch of due alarms in one transaction. Returns how many there were."""
        async with transaction(self._sessions) as session:
            return await take_due_steps(session, now=self._clock(), tz=self._tz)

    async def _watch(self) -> None:
        """Beside the escalations, so that many homes at once hold up no alarm that stands."""
        try:
            began = time.monotonic()
            while await self.watch():
                await asyncio.sleep(time.monotonic() - began)
                began = time.monotonic()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("could not look after the homes; looking again", error=type(error).__name__)

    async def watch(self) -> int:
        """One batch of homes that are due to be looked at. Returns how many there were."""
        async with transaction(self._sessions) as session:
            return await watches.take_due(session, now=self._clock(), tz=self._tz, zigbee_bases=self._zigbee_bases)

    async def end_tests(self) -> int:
        """One batch of guided tests whose window is over. Returns how many there were."""
        async with transaction(self._sessions) as session:
            return await drills.end(session, now=self._clock(), tz=self._tz)

    async def keep_register(self) -> int:
        """One batch of each kind of upkeep of the register. Returns how many there were."""
        return await self._upkeep.a_batch_of_each(REGISTER)

    async def keep_lists(self) -> int:
        """One batch of each kind of upkeep of the work lists. Returns how many there were."""
        return await self._upkeep.a_batch_of_each(LISTS)

    async def _sweep(self) -> None:
        for sweep in self._sweeps:
            try:
                async with transaction(self._sessions) as session:
                    await sweep(session, self._clock())
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("could not sweep", error=type(error).__name__)

    async def _do_chores(self) -> None:
        for chore in self._chores:
            try:
                await chore(self._clock())
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("a chore was not done; again in an hour", error=type(error).__name__)


async def _forget_answers(session: AsyncSession, now: datetime) -> None:
    """Idempotent answers are kept for two days."""
    await session.execute(
        sa.text("DELETE FROM idempotent_answers WHERE created_at < :before"), {"before": now - _KEEP_ANSWERS}
    )


async def _forget_logins(session: AsyncSession, now: datetime) -> None:
    """Log-ins that are over are forgotten."""
    await accounts.sweep(session, now=now)


async def _tell_the_audit_head(session: AsyncSession, _: datetime) -> None:
    """The head of the audit log goes into the server's log: a place outside the database to compare it with."""
    log.info("audit head", head=str(await audit.head(session)))


async def _seal_the_ledger(session: AsyncSession, now: datetime) -> None:
    """What was written this hour is put under one hash, and that into the server's log."""
    sealed = await chain.seal(session, now)
    if sealed is not None:
        log.info("ledger head", head=str(sealed))
