"""One worker's part: facts to deliveries, then claim and commit → send outside any transaction → record.

Many requests at once, a few for each subscription; any number of workers. The order within a subscription is that of the
feed as far as nothing has to be tried again: receivers sort by `timestamp` and `data`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app import logs, metrics
from app.clock import Clock
from app.db import Sessions, transaction
from app.faults import crash_at
from app.notify.channel import GiveUp, TryAgain
from app.notify.channels._http import Http
from app.signals import wait
from app.webhooks import queue
from app.webhooks.fan_out import fan_out
from app.webhooks.messages import Composer, Message
from app.webhooks.queue import Claim, Delivered, Failed, Outcome, Result, Stopped, Withdrawn
from app.webhooks.terms import Terms

log = logs.get("webhooks")
TIMEOUT_S = 10.0
_AT_ONCE = 200
_MOST_EACH = 8
_LOOK_AGAIN_S = 1.0
_GAP_S = 0.02  # facts that follow each other share a look
_IDLE_GAP_S = 0.25  # nobody subscribes: the feed's every commit need not be looked at
_BESIDE_OTHERS_S = 0.05  # what is due is held by another worker's transaction
_AWAY = (SQLAlchemyError, OSError, TimeoutError)


class Sender:
    """`run()` until cancelled; the rows tell another worker everything if it dies."""

    def __init__(
        self,
        sessions: Sessions,
        composer: Composer,
        http: Http,
        clock: Clock,
        wake: asyncio.Event,
        terms: Terms,
        *,
        most_each: int = _MOST_EACH,
    ) -> None:
        self._sessions = sessions
        self._composer = composer
        self._http = http
        self._clock = clock
        self._wake = wake
        self._terms = terms
        self._most_each = most_each
        self._busy: Counter[UUID] = Counter()
        self._results: asyncio.Queue[Result] = asyncio.Queue()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        recorder = asyncio.create_task(self._record_forever())
        try:
            while not recorder.done():
                gap_s = _GAP_S
                try:
                    if await self._read_feed():
                        gap_s = _IDLE_GAP_S
                    rest_s = await self._take()
                except _AWAY as error:
                    log.warning("database away; looking again", error=type(error).__name__)
                    rest_s = _LOOK_AGAIN_S
                await asyncio.sleep(gap_s)
                if rest_s > gap_s:
                    await wait(self._wake, at_most_s=rest_s - gap_s)
            recorder.result()  # it never returns: what it raised ends this loop, which is watched
        finally:
            recorder.cancel()
            for task in self._sending:
                task.cancel()

    async def drain(self) -> int:
        """Send everything that is due now and record it; returns how many. For tests."""
        await self._read_feed()
        count = 0
        while True:
            await self._take()
            if not self._sending:
                return count
            count += len(self._sending)
            await asyncio.gather(*self._sending)
            await self._record(self._pending_results())

    async def close(self) -> None:
        await self._http.close()

    async def _read_feed(self) -> bool:
        """Whatever was committed since the last look. True when nobody subscribes to anything."""
        while True:
            async with transaction(self._sessions) as session:
                done = await fan_out(session, now=self._clock())
            if not done.facts:
                return done.idle

    async def _take(self) -> float:
        """Claim what is due and start sending it. Returns how many seconds there is nothing more to take."""
        free = _AT_ONCE - self._busy.total()
        if free <= 0:
            return _LOOK_AGAIN_S  # a place that becomes free wakes us
        now = self._clock()
        async with transaction(self._sessions) as session:
            claims, due = await queue.claim(session, limit=free, most_each=self._most_each, busy=self._busy, now=now)
            made = await self._composer.compose(session, [c.id for c in claims], now=now) if claims else {}
        if claims:
            crash_at("after_webhook_claim")
        for claim in claims:
            self._busy[claim.subscription_id] += 1
            task = asyncio.create_task(self._deliver(claim, made.get(claim.id)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        if due is None:
            return _LOOK_AGAIN_S
        nothing_now = 0.0 if claims else _BESIDE_OTHERS_S
        return min(_LOOK_AGAIN_S, max(nothing_now, (due - now).total_seconds()))

    async def _deliver(self, claim: Claim, made: Message | Failed | Withdrawn | Stopped | None) -> None:
        sent_at = self._clock()
        outcome: Outcome
        try:
            match made:
                case None:
                    outcome = Withdrawn("the subscription was deleted")
                case Message():
                    outcome = await self._post(made, sent_at)
                case _:
                    outcome = made
        except Exception as error:  # noqa: BLE001 - a mistake with one message must not lose it, or the sender
            log.error("a message was not sent", delivery=str(claim.id), error=type(error).__name__)
            outcome = Failed(f"unexpected {type(error).__name__}")
        await self._results.put(Result(claim, outcome, sent_at))

    async def _post(self, message: Message, now: datetime) -> Outcome:
        """Standard Webhooks: 2xx is delivered, 410 ends the subscription, everything else is tried again."""
        try:
            async with asyncio.timeout(queue.LEASE.total_seconds() - 5):
                answer = await self._http.post(message.url, message.body, message.headers(now))
        except TimeoutError:
            return Failed("no answer in time")
        if isinstance(answer, TryAgain | GiveUp):
            return Failed(answer.why)
        status = answer.status
        if 200 <= status < 300:
            return Delivered(status)
        if 300 <= status < 400:
            return Failed(f"redirects are not followed (status {status})", status)
        return Failed(f"status {status}", status, answer.retry_after_s, gone=status == 410)

    async def _record_forever(self) -> None:
        """Natural batches: whatever was answered while the last record was being written."""
        batch: list[Result] = []
        while True:
            if not batch:
                batch = [await self._results.get()]
            batch += self._pending_results()
            try:
                await self._record(batch)
                batch = []
            except _AWAY as error:
                log.warning("could not record; trying again", error=type(error).__name__)
                await asyncio.sleep(_LOOK_AGAIN_S)

    def _pending_results(self) -> list[Result]:
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    async def _record(self, results: list[Result]) -> None:
        crash_at("after_webhook_send_before_record")
        now = self._clock()
        async with transaction(self._sessions) as session:
            settled = await queue.record(session, results, terms=self._terms, now=now)
        for result in results:
            self._busy[result.claim.subscription_id] -= 1
        self._busy += Counter()  # without the zeros
        for one in settled:
            metrics.WEBHOOK_DELIVERIES.labels(one.state).inc()
            if one.state == "delivered" and one.result.claim.attempt == 1:
                metrics.WEBHOOK_SECONDS.observe((now - one.occurred_at).total_seconds())
        self._wake.set()
