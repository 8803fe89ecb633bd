"""The deliveries as a queue: claimed with a lease, recorded after sending, paused and taken up again.

Locks are taken in one order everywhere: subscriptions by id, then deliveries. Claiming skips what others hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.signals import Signal, signal_sql
from app.webhooks.terms import Terms
from app.webhooks.vocabulary import TEST, PauseReason

log = logs.get("webhooks")
LEASE = timedelta(seconds=30)  # longer than one sending can take


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery this worker holds until its lease ends. `attempt` is the fence: a later holder has a higher one."""

    id: UUID
    subscription_id: UUID
    event_type: str
    attempt: int
    tries: int  # of the schedule that runs now


@dataclass(frozen=True, slots=True)
class Delivered:
    status: int


@dataclass(frozen=True, slots=True)
class Failed:
    """It may work later, by the schedule. `gone`: the receiver wants nothing any more."""

    why: str
    status: int | None = None
    after_s: float | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """It no longer concerns the subscriber."""

    why: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The subscription may not be sent to now."""

    reason: PauseReason


Outcome = Delivered | Failed | Withdrawn | Stopped


@dataclass(frozen=True, slots=True)
class Result:
    claim: Claim
    outcome: Outcome
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery after its result was written."""

    result: Result
    state: str
    occurred_at: datetime


# A failing receiver gets one request at a time, so that those that hang cannot use up the places of the others.
_ROOM = "greatest(CASE WHEN s.failing_since IS NULL THEN :most ELSE 1 END - coalesce(b.n, 0), 0)"
_BUSY = "(SELECT * FROM unnest(CAST(:busy AS uuid[]), CAST(:n AS int[])) AS b(id, n)) b ON b.id = s.id"
_CLAIM = sa.text(
    f"""
    UPDATE webhook_deliveries SET state = 'sending', attempts = attempts + 1, due_at = :lease_until
    WHERE id = ANY(ARRAY(
        SELECT d.id FROM webhook_subscriptions s LEFT JOIN {_BUSY} CROSS JOIN LATERAL (
            SELECT id, due_at FROM webhook_deliveries
            WHERE subscription_id = s.id AND state IN ('pending', 'sending') AND due_at <= :now
            ORDER BY due_at, id LIMIT {_ROOM} FOR UPDATE SKIP LOCKED
        ) d
        WHERE s.paused_at IS NULL ORDER BY d.due_at, d.id LIMIT :limit))
    RETURNING id, subscription_id, event_type, attempts, attempts - attempts_before AS tries
    """  # noqa: S608 - constants
)
_NEXT_DUE = sa.text(
    f"""
    SELECT min(d.due_at) FROM webhook_subscriptions s LEFT JOIN {_BUSY} CROSS JOIN LATERAL (
        SELECT due_at FROM webhook_deliveries WHERE subscription_id = s.id AND state IN ('pending', 'sending')
        ORDER BY due_at LIMIT 1
    ) d
    WHERE s.paused_at IS NULL AND {_ROOM} > 0
    """  # noqa: S608 - constants
)


async def claim(
    session: AsyncSession, *, limit: int, most_each: int, busy: Mapping[UUID, int], now: datetime
) -> tuple[list[Claim], datetime | None]:
    """Take up to `limit` due deliveries for this worker alone, at most `most_each` of a subscription beside the `busy`
    ones it already has. Also returns when the next waits to be taken."""
    held = Counter(busy)
    values = {"most": most_each, "now": now, "lease_until": now + LEASE, "limit": limit}
    rows = await session.execute(_CLAIM, {**values, "busy": list(held), "n": list(held.values())})
    claims = [Claim(r.id, r.subscription_id, r.event_type, r.attempts, r.tries) for r in rows]
    held.update(one.subscription_id for one in claims)
    after = {"most": most_each, "busy": list(held), "n": list(held.values())}
    next_due: datetime | None = await session.scalar(_NEXT_DUE, after)
    return claims, next_due


# --- recording -------------------------------------------------------------------------------------------------------

_HOLD_SUBSCRIPTIONS = sa.text(
    "SELECT id, paused_at IS NOT NULL AS paused FROM webhook_subscriptions WHERE id = ANY(CAST(:ids AS uuid[])) "
    "ORDER BY id FOR UPDATE"
)
# What was to be tried again while the subscription came to rest is held with the others.
_RECORD = sa.text(
    """
    UPDATE webhook_deliveries AS d
    SET state = CASE WHEN r.state = 'pending' AND s.paused_at IS NOT NULL THEN 'held' ELSE r.state END,
        due_at = r.due_at, last_attempt_at = coalesce(r.sent_at, d.last_attempt_at), delivered_at = r.delivered_at,
        http_status = r.http_status, error = r.error
    FROM unnest(CAST(:id AS uuid[]), CAST(:attempt AS int[]), CAST(:state AS text[]), CAST(:due_at AS timestamptz[]),
                CAST(:sent_at AS timestamptz[]), CAST(:delivered_at AS timestamptz[]), CAST(:http_status AS int[]),
                CAST(:error AS text[]))
         AS r(id, attempt, state, due_at, sent_at, delivered_at, http_status, error),
         webhook_subscriptions s
    WHERE d.id = r.id AND d.attempts = r.attempt AND d.state = 'sending' AND s.id = d.subscription_id
    RETURNING d.id, d.state, d.occurred_at
    """
)
_WELL = sa.text(
    "UPDATE webhook_subscriptions SET failing_since = NULL, failures = 0 "
    "WHERE id = ANY(CAST(:ids AS uuid[])) AND (failing_since IS NOT NULL OR failures > 0)"
)
_ILL = sa.text(
    """
    UPDATE webhook_subscriptions s SET failing_since = coalesce(failing_since, r.at), failures = failures + r.given_up
    FROM unnest(CAST(:ids AS uuid[]), CAST(:at AS timestamptz[]), CAST(:given_up AS int[])) AS r(id, at, given_up)
    WHERE s.id = r.id
    """
)
_PAUSE = sa.text(
    "UPDATE webhook_subscriptions SET paused_at = :now, paused_reason = :reason, version = version + 1 "
    "WHERE id = ANY(CAST(:ids AS uuid[])) AND paused_at IS NULL RETURNING id"
)
_TOO_LONG = sa.text(
    "SELECT id FROM webhook_subscriptions WHERE paused_at IS NULL AND (failing_since <= :before OR failures >= :failures) "
    "ORDER BY id FOR UPDATE SKIP LOCKED"  # another worker that holds one judges it itself
)
_KEEP_BACK = sa.text(
    "UPDATE webhook_deliveries SET state = 'held' WHERE subscription_id = ANY(CAST(:ids AS uuid[])) "
    "AND (state = 'pending' OR (state = 'sending' AND due_at < :now))"
)


async def record(session: AsyncSession, results: Sequence[Result], *, terms: Terms, now: datetime) -> list[Settled]:
    """Write what became of claimed deliveries, what it says about each receiver, and who comes to rest because of it."""
    by_id = {result.claim.id: result for result in results}
    involved = {result.claim.subscription_id for result in results}
    await session.execute(_HOLD_SUBSCRIPTIONS, {"ids": sorted(involved)})
    rows = [_as_row(by_id[id_], terms, now) for id_ in sorted(by_id)]
    names = ("id", "attempt", "state", "due_at", "sent_at", "delivered_at", "http_status", "error")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    settled = [Settled(by_id[row.id], row.state, row.occurred_at) for row in await session.execute(_RECORD, columns)]
    await _judge_receivers(session, settled)
    for reason in PauseReason:
        wanted = {s.result.claim.subscription_id for s in settled if _pauses(s.result.outcome) is reason}
        await pause(session, wanted, reason, now=now)
    await pause_failing(session, terms=terms, now=now)
    return settled


def _as_row(result: Result, terms: Terms, now: datetime) -> tuple[Any, ...]:
    claim, sent = result.claim, result.sent_at
    match result.outcome:
        case Delivered(status):
            return claim.id, claim.attempt, "delivered", now, sent, now, status, None
        case Failed(why, status, after_s, gone):
            test = claim.event_type == TEST
            wait = None if gone else terms.next_try(claim.tries, asked_s=after_s, test=test)
            state = "failed" if wait is None else "pending"
            return claim.id, claim.attempt, state, now + (wait or timedelta()), sent, None, status, why[:300]
        case Withdrawn(why):
            return claim.id, claim.attempt, "withdrawn", now, None, None, None, why
        case Stopped():
            return claim.id, claim.attempt, "held", now, None, None, None, None


def _pauses(outcome: Outcome) -> PauseReason | None:
    match outcome:
        case Failed(gone=True):
            return PauseReason.GONE
        case Stopped(reason):
            return reason
        case Delivered() | Failed() | Withdrawn():
            return None


async def _judge_receivers(session: AsyncSession, settled: Sequence[Settled]) -> None:
    well = {s.result.claim.subscription_id for s in settled if isinstance(s.result.outcome, Delivered)}
    ill: dict[UUID, list[Settled]] = {}
    for one in settled:
        claim = one.result.claim
        if isinstance(one.result.outcome, Failed) and claim.event_type != TEST and claim.subscription_id not in well:
            ill.setdefault(claim.subscription_id, []).append(one)
    if well:
        await session.execute(_WELL, {"ids": sorted(well)})
    if ill:
        await session.execute(
            _ILL,
            {
                "ids": list(ill),
                "at": [min(s.result.sent_at for s in failed) for failed in ill.values()],
                "given_up": [sum(s.state == "failed" for s in failed) for failed in ill.values()],
            },
        )


# --- resting ---------------------------------------------------------------------------------------------------------


async def pause(session: AsyncSession, ids: Collection[UUID], reason: PauseReason, *, now: datetime) -> None:
    """These subscriptions rest; what waits for them is held. The caller holds their rows."""
    if not ids:
        return
    rows = await session.execute(_PAUSE, {"ids": sorted(ids), "reason": reason.value, "now": now})
    paused = [row.id for row in rows]
    if paused:
        log.warning("subscriptions rest", reason=reason.value, subscriptions=[str(id_) for id_ in paused])
        await session.execute(_KEEP_BACK, {"ids": paused, "now": now})


async def pause_failing(session: AsyncSession, *, terms: Terms, now: datetime) -> None:
    """Whoever could be told nothing for too long rests."""
    rows = await session.execute(_TOO_LONG, {"before": now - terms.pause_after, "failures": terms.pause_after_failures})
    await pause(session, [row.id for row in rows], PauseReason.FAILING, now=now)


# --- sending again ---------------------------------------------------------------------------------------------------

_AGAIN = "state = 'pending', due_at = :now, attempts_before = attempts, delivered_at = NULL"


async def send_again(session: AsyncSession, delivery_id: UUID, *, now: datetime) -> None:
    """The same message once more, now, with its schedule from the start. One that is being sent is left alone."""
    await session.execute(
        sa.text(f"UPDATE webhook_deliveries SET {_AGAIN} WHERE id = :id AND state <> 'sending'"),  # noqa: S608
        {"id": delivery_id, "now": now},
    )
    await wake(session)


async def send_failed_again(
    session: AsyncSession, subscription_id: UUID, *, since: datetime | None, now: datetime
) -> int:
    """Everything that failed or was held (of events since then), now. Returns how many."""
    done = await session.execute(
        sa.text(
            f"UPDATE webhook_deliveries SET {_AGAIN} WHERE subscription_id = :id AND state IN ('failed', 'held') "  # noqa: S608
            "AND event_type <> :test AND (CAST(:since AS timestamptz) IS NULL OR occurred_at >= :since)"
        ),
        {"id": subscription_id, "since": since, "now": now, "test": TEST},
    )
    await wake(session)
    return int(done.rowcount)  # type: ignore[attr-defined]


async def wake(session: AsyncSession) -> None:
    """Tell the workers, when this transaction commits."""
    await session.execute(sa.text(f"SELECT {signal_sql(Signal.WEBHOOKS)}"))


# --- tidying ---------------------------------------------------------------------------------------------------------


async def sweep(session: AsyncSession, *, terms: Terms, now: datetime) -> int:
    """The log is kept for a time, and so is an old secret; a receiver that nobody writes to may fail too long as well.
    Returns how many lines of the log went."""
    await pause_failing(session, terms=terms, now=now)
    await session.execute(
        sa.text(
            "UPDATE webhook_subscriptions SET previous_secret_sealed = NULL, previous_secret_until = NULL "
            "WHERE previous_secret_until <= :now"
        ),
        {"now": now},
    )
    gone = await session.execute(
        sa.text("DELETE FROM webhook_deliveries WHERE created_at < :before AND state NOT IN ('pending', 'sending')"),
        {"before": now - terms.keep_log},
    )
    return int(gone.rowcount)  # type: ignore[attr-defined]
