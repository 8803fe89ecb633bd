"""Claim and commit → send outside any transaction → record. Many tasks at once; any number of processes.

What a notice says and what follows from its result belong to the alarms: they come in as `Desk`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from app import logs, metrics
from app.clock import Clock
from app.db import Hands
from app.faults import crash_at
from app.lanes import Away, Lane
from app.notify import outbox
from app.notify.channel import Channels, GiveUp, Letter, Outcome, Sent, TryAgain
from app.notify.outbox import Claim, Result, Settled
from app.signals import wait

log = logs.get("dispatcher")
_AT_ONCE = 400
_BATCH = 200  # claimed at a time: the next batch is claimed while this one is being sent
_LOOK_AGAIN_S = 1.0
_FULL_S = 0.002
_AFTER_SOME_S = 0.05  # a signal comes with every new notice; this is when to ask what else is due
_GATHER_S = 0.005  # results of one alarm come together; nobody waits for their record
_BESIDE_OTHERS_S = 0.02  # what is due is held by another worker's transaction


class Desk(Protocol):
    """The alarms' side of sending."""

    async def take(self, lane: Lane, *, limit: int, now: datetime) -> Sequence[tuple[Claim, Letter | None]]:
        """Claim up to `limit` due notices with their letters; None: there is nobody to go to any more."""
        ...

    async def settled(self, session: Hands, settled: Sequence[Settled], now: datetime) -> None:
        """What follows: next channels, first-sent times, facts. In the transaction of the record."""
        ...


class Dispatcher:
    """One worker's sending. `run()` until cancelled; the rows tell another worker everything if it dies."""

    def __init__(
        self, lanes: tuple[Lane, Lane], channels: Channels, desk: Desk, clock: Clock, wake: asyncio.Event
    ) -> None:
        self._taking, self._recording = lanes
        self._channels = channels
        self._desk = desk
        self._clock = clock
        self._wake = wake
        self._free = _AT_ONCE
        self._results: asyncio.Queue[Result] = asyncio.Queue()
        self._sending: set[asyncio.Task[None]] = set()
        self.last_look: datetime | None = None

    async def run(self) -> None:
        recorder = asyncio.create_task(self._record_forever())
        try:
            while True:
                try:
                    rest_s = await self._take()
                    self.last_look = self._clock()
                except Away as error:
                    log.warning("database away; looking again", error=type(error).__name__)
                    rest_s = _LOOK_AGAIN_S
                if rest_s:
                    await wait(self._wake, at_most_s=rest_s)
        finally:
            recorder.cancel()
            for task in self._sending:
                task.cancel()

    async def drain(self) -> int:
        """Send everything that is due now and record it; returns how many. For tests and a calm shutdown."""
        count = 0
        while True:
            await self._take()
            if not self._sending:
                return count
            count += len(self._sending)
            await asyncio.gather(*self._sending)
            await self._record(self._pending_results())

    async def _take(self) -> float:
        """Claim what is due and start sending it. Returns how many seconds there is nothing more to take."""
        if self._free <= 0:
            return _FULL_S
        now = self._clock()
        taken = await self._desk.take(self._taking, limit=min(self._free, _BATCH), now=now)
        if taken:
            crash_at("after_claim")
        self._free -= len(taken)
        for claim, letter in taken:
            task = asyncio.create_task(self._send(claim, letter))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        if taken:
            return 0.0 if len(taken) == _BATCH else _AFTER_SOME_S
        due = await outbox.next_due(self._taking)
        if due is None:
            return _LOOK_AGAIN_S
        return min(_LOOK_AGAIN_S, max(_BESIDE_OTHERS_S, (due - now).total_seconds()))

    async def _send(self, claim: Claim, letter: Letter | None) -> None:
        outcome: Outcome
        channel = self._channels.get(claim.channel)
        if letter is None:
            outcome = GiveUp("the recipient no longer has this channel")
        elif channel is None:
            outcome = GiveUp(f"this server has no {claim.channel.value} channel")
        else:
            try:
                async with asyncio.timeout(outbox.LEASE.total_seconds() - 5):
                    outcome = await channel.send(letter)
            except TimeoutError:
                outcome = TryAgain("no answer in time")
            except Exception as error:  # noqa: BLE001 - a mistake in one channel must not lose the notice or the sender
                log.error("a channel raised", channel=claim.channel.value, error=type(error).__name__)
                outcome = TryAgain(f"unexpected {type(error).__name__}")
        self._free += 1
        await self._results.put(Result(claim, outcome))

    async def _record_forever(self) -> None:
        """Natural batches again: whatever was answered while the last record was being written."""
        batch: list[Result] = []
        while True:
            if not batch:
                batch = [await self._results.get()]
                await asyncio.sleep(_GATHER_S)
            batch += self._pending_results()
            try:
                await self._record(batch[:500])
                batch = batch[500:]
            except Away as error:
                log.warning("could not record; trying again", error=type(error).__name__)
                await asyncio.sleep(_LOOK_AGAIN_S)

    def _pending_results(self) -> list[Result]:
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    async def _record(self, results: Sequence[Result]) -> None:
        if not results:
            return
        crash_at("after_send_before_record")
        now = self._clock()
        async with self._recording.transaction() as session:
            settled = await outbox.record(session, results, now=now)
            await self._desk.settled(session, settled, now)
        for one in settled:
            metrics.NOTICES.labels(one.claim.channel.value, one.state).inc()
            if isinstance(one.outcome, Sent) and one.claim.attempt == 1:
                metrics.NOTICE_SECONDS.observe((now - one.created_at).total_seconds())
