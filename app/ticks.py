"""The only scheduler. It says "look now"; what is due stands in the database, and any process may do it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.access import accounts, audit
from app.alarms import drills, facts
from app.alarms.due import take_due_steps
from app.clock import Clock
from app.db import Sessions, transaction
from app.elders import classifying
from app.reports import calendar
from app.visits import chain, daily, examining, kept, reminders, specials
from app.watches import due as watches

log = logs.get("ticks")
_EVERY_S = 0.5
_REGISTER_EVERY_S = 60
_LISTS_EVERY_S = 5  # a visitor's hour is kept to some seconds
_HOURLY_S = 3600
_ONE_AT_A_TIME = {"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600}
_REST = 9  # times as long as the work before it: a policy that touches 100,000 people must not hold up an alarm
_FIRST_CHORES = timedelta(minutes=2)
_KEEP_ANSWERS = timedelta(days=2)


Sweep = Callable[[AsyncSession, datetime], Awaitable[object]]
Chore = Callable[[datetime], Awaitable[object]]
Work = Callable[[AsyncSession, datetime, date], Awaitable[int]]  # one batch; how many there were


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
        self._register_work: tuple[Work, ...] = (
            _classify, _remind, self._open_months, _plan_festivals, _remind_of_self_tests
        )  # fmt: skip
        self._list_work: tuple[Work, ...] = (
            self._judge_duties, self._send_lists, self._raise_overdue, self._examine
        )  # fmt: skip
        self._scheduler = AsyncIOScheduler(timezone=tz)
        self._stopped = False
        self.last_look: datetime | None = None

    def start(self) -> None:
        for name, job, every_s in (
            ("due", self._due, _EVERY_S),
            ("watches", self._watch, _EVERY_S),
            ("register", self._register, _REGISTER_EVERY_S),
            ("lists", self._lists, _LISTS_EVERY_S),
            ("sweep", self._sweep, _HOURLY_S),
        ):
            self._scheduler.add_job(self._until_stopped(job), "interval", seconds=every_s, id=name, **_ONE_AT_A_TIME)
        first = self._clock() + _FIRST_CHORES  # also where a process never lives for an hour
        self._scheduler.add_job(
            self._until_stopped(self._do_chores), "interval", seconds=_HOURLY_S, id="chores", next_run_time=first,
            **_ONE_AT_A_TIME,
        )  # fmt: skip
        self._scheduler.start()

    def stop(self) -> None:
        self._stopped = True
        self._scheduler.shutdown(wait=False)

    def _until_stopped(self, job: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
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

    async def _register(self) -> None:
        for work in self._register_work:
            await self._with_rests("keep the register", work)

    async def _lists(self) -> None:
        for work in self._list_work:
            await self._with_rests("keep the work lists", work)

    async def _with_rests(self, what: str, work: Work) -> None:
        """Batch after batch until nothing is due, resting longer than it works."""
        try:
            began = time.monotonic()
            while await self._a_batch(work):
                await asyncio.sleep(_REST * (time.monotonic() - began))
                began = time.monotonic()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning(f"could not {what}; trying again", error=type(error).__name__)

    async def _a_batch(self, work: Work) -> int:
        now = self._clock()
        async with transaction(self._sessions) as session:
            return await work(session, now, now.astimezone(self._tz).date())

    async def keep_register(self) -> int:
        """One batch of each: people whose class is due to be looked at (birthdays, ends of pauses, new policies); findings
        nothing was done about, told to those who watch; the next month's rows of statistics and the festivals to come;
        reminders of self-tests. Returns how many there were."""
        return sum([await self._a_batch(work) for work in self._register_work])

    async def keep_lists(self) -> int:
        """One batch of each: kept duties that are stale; visitors and offices whose hour has come; tasks nobody did;
        entries of the ledger to look at. Returns how many there were."""
        return sum([await self._a_batch(work) for work in self._list_work])

    async def _open_months(self, session: AsyncSession, _: datetime, today: date) -> int:
        return await calendar.keep(session, today=today, tz=self._tz)

    async def _judge_duties(self, session: AsyncSession, now: datetime, today: date) -> int:
        return await kept.look_again(session, now=now, today=today, tz=self._tz)

    async def _send_lists(self, session: AsyncSession, now: datetime, _: date) -> int:
        return await daily.take_due(session, now=now, tz=self._tz)

    async def _raise_overdue(self, session: AsyncSession, now: datetime, _: date) -> int:
        return await daily.raise_overdue_tasks(session, now=now, tz=self._tz)

    async def _examine(self, session: AsyncSession, now: datetime, _: date) -> int:
        return await examining.take_due(session, now=now, tz=self._tz)

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


async def _classify(session: AsyncSession, now: datetime, today: date) -> int:
    return await classifying.take_due(session, now=now, today=today)


async def _remind(session: AsyncSession, now: datetime, today: date) -> int:
    due = await reminders.take_due(session, today=today)
    for one in due:
        facts.tell(
            session, "finding.reminder", region_code=one.region_code, alarm_id=None, now=now,
            finding_id=one.finding_id, elder_id=one.elder_id, kind=one.kind, topic=one.topic, times=one.count,
        )  # fmt: skip
    return len(due)


async def _plan_festivals(session: AsyncSession, now: datetime, today: date) -> int:
    return await specials.plan_festivals(session, now=now, today=today)


async def _remind_of_self_tests(session: AsyncSession, now: datetime, _: date) -> int:
    return await drills.remind(session, now=now)
