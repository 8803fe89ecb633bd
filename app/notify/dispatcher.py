"""Claim and commit → send outside any transaction → record. Many tasks at once; any number of processes.

What a message says and what follows from its result belong to whoever writes it - the alarms, the digests: they come in
as `Desk`. Each desk has a dispatcher of its own: what one sends never stands in front of the other's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from app import logs
from app.clock import Clock
from app.db import Hands
from app.faults import crash_at
from app.lanes import Away, Lane
from app.notify import outbox
from app.notify.channel import Channels, GiveUp, Letter, Outcome, TryAgain
from app.notify.outbox import Claimed, Result
from app.signals import wait

log = logs.get("dispatcher")
_AT_ONCE = 400
_BATCH = 200  # claimed at a time: the next batch is claimed while this one is being sent
_LOOK_AGAIN_S = 1.0
_FULL_S = 0.002
_AFTER_SOME_S = 0.05  # a signal comes with every new notice; this is when to ask what else is due
_GATHER_S = 0.005  # results of one alarm come together; nobody waits for their record
_BESIDE_OTHERS_S = 0.02  # what is due is held by another worker's transaction


C = TypeVar("C", bound=Claimed)
S = TypeVar("S")


class Desk(Protocol[C, S]):
    """The writer's side of sending: claims of the kind `C`, and what is known of them once recorded, `S`."""

    async def take(self, lane: Lane, *, limit: int, now: datetime) -> Sequence[tuple[C, Letter | GiveUp]]:
        """Claim up to `limit` due messages with their letters, or why there is nobody to go to any more."""
        ...

    async def next_due(self, lane: Lane) -> datetime | None:
        """When the next message waits to be taken."""
        ...

    async def record(self, session: Hands, results: Sequence[Result[C]], *, now: datetime) -> Sequence[S]:
        """Write what became of claimed messages, and what follows from it, in one transaction."""
        ...

    def count(self, settled: Sequence[S], *, now: datetime) -> None:
        """The metrics, once the record is committed."""
        ...


class Dispatcher(Generic[C, S]):
    """One worker's sending for one desk. `run()` until cancelled; the rows tell another worker everything if it dies.

    `at_once`: messages on their way at a time; `look_again_s`: how long nothing new is looked for without a signal."""

    def __init__(
        self,
        lanes: tuple[Lane, Lane],
        channels: Channels,
        desk: Desk[C, S],
        clock: Clock,
        wake: asyncio.Event,
        *,
        at_once: int = _AT_ONCE,
        look_again_s: float = _LOOK_AGAIN_S,
    ) -> None:
        self._taking, self._recording = lanes
        self._channels = channels
        self._desk = desk
        self._clock = clock
        self._wake = wake
        self._free = at_once
        self._look_again_s = look_again_s
        self._results: asyncio.Queue[Result[C]] = asyncio.Queue()
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
        due = await self._desk.next_due(self._taking)
        if due is None:
            return self._look_again_s
        return min(self._look_again_s, max(_BESIDE_OTHERS_S, (due - now).total_seconds()))

    async def _send(self, claim: C, letter: Letter | GiveUp) -> None:
        outcome: Outcome
        channel = self._channels.get(claim.channel)
        if isinstance(letter, GiveUp):
            outcome = letter
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
        batch: list[Result[C]] = []
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

    def _pending_results(self) -> list[Result[C]]:
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    async def _record(self, results: Sequence[Result[C]]) -> None:
        if not results:
            return
        crash_at("after_send_before_record")
        now = self._clock()
        async with self._recording.transaction() as session:
            settled = await self._desk.record(session, results, now=now)
        self._desk.count(settled, now=now)
