"""The way of one event, on one page: decode → journal → the wearer at that time → is it news, or a test? → the home's
state → judge → raise → commit → acknowledge.

Natural batches: whatever arrived while the last commit was running is taken together. One event waits for nobody; ten
thousand share a commit. Nothing is acknowledged to the broker before its row is committed; a message the database
refuses is found and quarantined, and the others go on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import assert_never
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from app import logs, metrics
from app.access.sealing import Sealer
from app.alarms import drills, facts
from app.alarms.calming import Calming, calm
from app.alarms.raising import Report, raise_alarms
from app.clock import Clock
from app.db import Hands
from app.devices import catalogue, commissioning, journal, reuse, states
from app.devices.codec import Ignored, Learned, Registry, Rejected
from app.devices.events import Frame, Observation, Status
from app.devices.journal import Journalled
from app.devices.mqtt import MqttClient, Received
from app.devices.vocabulary import RejectReason
from app.faults import crash_at
from app.lanes import Away, Lane
from app.rules import judge
from app.rules.verdict import Calm, Nothing, Raise
from app.watches import following

log = logs.get("ingest")
_BATCH = 500
_RETRY_S = 0.5


class Ingest:
    """One consumer of one broker connection. `run()` until cancelled."""

    def __init__(
        self, mqtt: MqttClient, registry: Registry, lane: Lane, clock: Clock, tz: ZoneInfo, sealer: Sealer
    ) -> None:
        self._mqtt = mqtt
        self._registry = registry
        self._lane = lane
        self._clock = clock
        self._tz = tz
        self._sealer = sealer
        self.last_commit: datetime | None = None
        self.working_since: datetime | None = None

    async def run(self) -> None:
        while True:
            received = await self._mqtt.take(_BATCH)
            self.working_since = received[0].frame.received_at
            await self._commit(received)
            crash_at("after_commit_before_ack")
            self._mqtt.acknowledge(received)
            self.working_since = None
            self.last_commit = self._clock()

    def _seal(self, content: bytes, record: UUID) -> bytes:
        return self._sealer.seal_bytes(content, record=record)

    async def _commit(self, received: Sequence[Received]) -> None:
        """Commit a batch; across restarts of the database, and without the one message it will not take."""
        frames = [one.frame for one in received]
        while True:
            try:
                await self.swallow(frames)
                return
            except Exception as error:  # noqa: BLE001 - this loop ends only with the process
                if not _condemns_a_message(error):
                    log.warning("not committed; trying again", error=type(error).__name__, messages=len(frames))
                    await asyncio.sleep(_RETRY_S)
                    continue
                if len(frames) > 1:
                    for half in (received[: len(received) // 2], received[len(received) // 2 :]):
                        await self._commit(half)
                    return
                if await self._quarantine_unstorable(frames[0], type(error).__name__):
                    return

    async def swallow(self, frames: Sequence[Frame]) -> None:
        """One transaction for a batch of frames."""
        now = self._clock()
        observations, rejects, learned = self._decode(frames)
        async with self._lane.transaction() as session:
            journalled = await journal.write(session, [seen for seen, _ in observations])
            crash_at("after_journal")
            events = [(seen, frame) for seen, frame in observations if not isinstance(seen.event, Status)]
            rejects += await reuse.tell_apart(session, journalled, [frame for _, frame in events])
            unknown = [(seen, frame) for one, (seen, frame) in zip(journalled, events, strict=True) if not one.known]
            unknown += await journal.unknown_status(session, observations)
            # A retained status comes again at each connection: it is listed to be claimed, and not piled up.
            rejects += [
                (frame, _unknown_device(seen))
                for seen, frame in unknown
                if not (seen.retained and isinstance(seen.event, Status))
            ]
            await journal.note_unclaimed(session, unknown)
            for one in learned:
                await catalogue.keep_names(session, one, now=now)
            await journal.quarantine(session, rejects, seal=self._seal)
            await states.settle(session, journalled)
            passed = await commissioning.take(session, journalled)
            drills.tell_seen(session, passed, now=now)
            fresh = [one for one in journalled if one.fresh and not one.tested]
            await following.follow(session, fresh, now=now, tz=self._tz)
            await following.nudge(session, [seen for seen, _ in observations], now=now)
            await self._decide(session, fresh, now)
            crash_at("before_commit")
        _count(journalled, rejects, self._clock())
        if passed:
            await drills.confirm(self._mqtt, passed)

    def _decode(
        self, frames: Sequence[Frame]
    ) -> tuple[list[tuple[Observation, Frame]], list[tuple[Frame, Rejected]], list[Learned]]:
        observations: list[tuple[Observation, Frame]] = []
        rejects: list[tuple[Frame, Rejected]] = []
        learned: list[Learned] = []
        for frame in frames:
            for decoded in self._registry.decode(frame):
                match decoded:
                    case Observation():
                        observations.append((decoded, frame))
                    case Rejected():
                        rejects.append((frame, decoded))
                    case Learned():
                        self._registry.learn(decoded)  # the messages behind it are read with it
                        learned.append(decoded)
                    case Ignored():
                        metrics.EVENTS.labels("none", "ignored").inc()
                    case _:
                        assert_never(decoded)
        return observations, rejects, learned

    async def _decide(self, session: Hands, fresh: Sequence[Journalled], now: datetime) -> None:
        """Judge in the order of arrival; reports gather until an elder's «I am fine» comes between them."""
        reports: list[Report] = []
        for one in fresh:
            verdict = judge(one.seen, one.edge_reason)
            match verdict:
                case Raise(only_joins=True) if one.elder_id is None:
                    pass
                case Raise() if one.elder_id is None or one.region_code is None:
                    facts.tell(
                        session,
                        "event.unmatched",
                        region_code=one.region_code or "",
                        alarm_id=None,
                        now=now,
                        device_id=one.seen.device_id,
                        kind=verdict.kind.value,
                        event=str(one.id),
                    )
                case Raise():
                    reports.append(_report(one, verdict))
                case Calm() if one.elder_id is not None:
                    await raise_alarms(session, reports, now=now, tz=self._tz)
                    reports = []
                    word = Calming(
                        one.elder_id, verdict.kinds, verdict.because, one.seen.occurred_at, one.seen.device_id
                    )
                    await calm(session, word, now=now)
                case Calm() | Nothing():
                    pass
                case _:
                    assert_never(verdict)
        await raise_alarms(session, reports, now=now, tz=self._tz)

    async def _quarantine_unstorable(self, frame: Frame, why: str) -> bool:
        """False: the database is away, and the message must be tried again."""
        reject = Rejected(RejectReason.NOT_STORABLE, f"the message could not be stored ({why})")
        try:
            async with self._lane.transaction() as session:
                await journal.quarantine(session, [(frame, reject)], seal=self._seal)
        except Away:
            await asyncio.sleep(_RETRY_S)
            return False
        log.error("message not storable, quarantined", error=why)
        return True


def _condemns_a_message(error: Exception) -> bool:
    """Whether the fault lies in what a message says (bad data, a broken constraint, too much of something), not in the
    way to the database, which is tried for ever."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in ("22", "23", "54")
    return not isinstance(error, Away)


def _report(one: Journalled, verdict: Raise) -> Report:
    assert one.elder_id is not None
    assert one.region_code is not None
    return Report(
        elder_id=one.elder_id, region_code=one.region_code, kind=verdict.kind, severity=verdict.severity,
        because=verdict.because, occurred_at=one.seen.occurred_at, received_at=one.seen.received_at,
        late=one.seen.late, event=one.id, device_id=one.seen.device_id, event_id=one.seen.event_id,
        only_joins=verdict.only_joins,
    )  # fmt: skip


def _unknown_device(seen: Observation) -> Rejected:
    what = (
        f"no device of this id is registered under {seen.source.profile}"
        if seen.source.guarded
        else "no such device is registered"
    )
    return Rejected(RejectReason.UNKNOWN_DEVICE, f"{what}; POST /api/v1/devices claims it", seen.device_id)


def _count(journalled: Sequence[Journalled], rejects: Sequence[tuple[Frame, Rejected]], now: datetime) -> None:
    outcomes = Counter(
        (one.seen.event.type, "journalled" if one.fresh else "duplicate") for one in journalled if one.known
    )
    outcomes.update(("none", f"rejected_{reject.reason.value}") for _, reject in rejects)
    for (type_, outcome), count in outcomes.items():
        metrics.EVENTS.labels(type_, outcome).inc(count)
    for one in journalled:
        metrics.EVENT_TO_COMMIT.observe((now - one.seen.received_at).total_seconds())
