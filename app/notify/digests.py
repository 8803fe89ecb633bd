"""The outbox of messages that are no alarms: what is due today, what will not be made in time. A queue of its own with a
few places of its own, so that nothing of it ever stands in front of an alarm (docs/adr/0023).

One row is one message to one visitor; when a channel fails for good the row goes on to the person's next one. Voice calls
are for alarms. A message that could not be brought by its time is dropped: tomorrow has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from app import logs, metrics
from app.access.sealing import Sealer
from app.db import Hands
from app.ids import NoticeId, new_uuid
from app.lanes import Lane
from app.notify.channel import GiveUp, Letter, Sent, TryAgain
from app.notify.circle import of_circle
from app.notify.outbox import MAX_ATTEMPTS, NOBODY, OUTSIDE, Result, backoff, lease
from app.notify.vocabulary import ChannelKind, DigestKind

log = logs.get("digests")


@dataclass(frozen=True, slots=True)
class Digest:
    """A message to write. `key`: one message of a kind, to one person, for one key."""

    kind: DigestKind
    key: str
    visitor_id: UUID
    region_code: str
    title: str
    text: str
    data: Mapping[str, Any]
    about: frozenset[UUID]  # the elders it names
    due_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DigestClaim:
    """A message this worker holds until its lease ends; `attempt` is the fence, as for notices."""

    id: NoticeId
    attempt: int
    channel: ChannelKind


@dataclass(frozen=True, slots=True)
class DigestSettled:
    claim: DigestClaim
    state: str


_PLAN = sa.text(
    """
    INSERT INTO digests (id, kind, key, visitor_id, region_code, title, text, data, about, state, attempts, position,
                         created_at, due_at, expires_at)
    VALUES (:id, :kind, :key, :visitor_id, :region_code, :title, :text, CAST(:data AS jsonb), CAST(:about AS uuid[]),
            'pending', 0, 0, :now, :due_at, :expires_at)
    ON CONFLICT (visitor_id, kind, key) DO NOTHING RETURNING id
    """
)


async def plan(session: Hands, digest: Digest, *, now: datetime) -> bool:
    """Write a message to send. False: this one was written before, by whichever worker."""
    row = await session.execute(
        _PLAN,
        {
            "id": new_uuid(now),
            "kind": digest.kind.value,
            "key": digest.key,
            "visitor_id": digest.visitor_id,
            "region_code": digest.region_code,
            "title": digest.title,
            "text": digest.text,
            "data": json.dumps(digest.data, default=_plain, ensure_ascii=False),
            "about": sorted(digest.about),
            "now": now,
            "due_at": digest.due_at,
            "expires_at": digest.expires_at,
        },
    )
    return row.first() is not None


def _plain(value: Any) -> str:
    """RFC 3339 for times, text for the rest."""
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


# `position` counts the person's channels that failed for good; the next one is looked up when it is taken.
_TAKE = sa.text(
    f"""
    WITH claimed AS (
        UPDATE digests SET state = 'sending', attempts = attempts + 1, due_at = :lease_until
        WHERE id = ANY(ARRAY(SELECT id FROM digests WHERE state IN ('pending', 'sending') AND due_at <= :now
                             ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED))
        RETURNING *
    )
    SELECT d.id, d.attempts, d.kind, d.title, d.text, d.data, d.created_at, d.expires_at < :now AS over,
           NOT EXISTS (
               SELECT FROM unnest(d.about) AS named(id) LEFT JOIN elders e ON e.id = named.id
               WHERE e.id IS NULL OR NOT {
        of_circle(visitor="d.visitor_id", elder="e.id", region="e.region_code", began="d.created_at")
    }
           ) AS of_circle,
           v.id AS visitor_id, v.name AS visitor_name, c.id AS channel_id, c.kind AS channel, c.address_sealed,
           c.secret_sealed
    FROM claimed d
    CROSS JOIN LATERAL (SELECT id, name FROM visitors WHERE id = d.visitor_id LIMIT 1) v
    LEFT JOIN LATERAL (
        SELECT id, kind, address_sealed, secret_sealed FROM channels WHERE visitor_id = d.visitor_id
        AND kind NOT IN ('voice', 'device') ORDER BY position, id OFFSET d.position LIMIT 1
    ) c ON true
    """  # noqa: S608 - a constant
)
_NEXT = sa.text("SELECT min(due_at) AS due_at FROM digests WHERE state IN ('pending', 'sending')")
_RECORD = sa.text(
    """
    UPDATE digests AS d
    SET state = CASE WHEN r.state = 'pending' AND r.due_at > d.expires_at THEN 'failed' ELSE r.state END,
        due_at = r.due_at, sent_at = r.sent_at, channel = r.channel, position = d.position + r.next,
        attempts = CASE WHEN r.next > 0 THEN 0 ELSE d.attempts END,
        error = CASE WHEN r.error = :nobody AND d.error IS NOT NULL THEN d.error ELSE r.error END
    FROM unnest(CAST(:id AS uuid[]), CAST(:attempt AS int[]), CAST(:state AS text[]), CAST(:due_at AS timestamptz[]),
                CAST(:sent_at AS timestamptz[]), CAST(:error AS text[]), CAST(:channel AS text[]),
                CAST(:next AS int[])) AS r(id, attempt, state, due_at, sent_at, error, channel, next)
    WHERE d.id = r.id AND d.attempts = r.attempt AND d.state = 'sending'
    RETURNING d.id, d.state
    """
)
# A day's or a period's message is written again without whom it should not have named, by whoever looks next.
_WRITE_ANEW = sa.text(
    """
    WITH gone AS (
        DELETE FROM digests WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'failed'
        AND kind IN ('visits.due', 'visits.unvisited') RETURNING kind, visitor_id, region_code
    )
    UPDATE digest_timers t SET next_at = :now FROM gone
    WHERE (t.kind, t.ref) = (CASE gone.kind WHEN 'visits.due' THEN 'visitor' ELSE 'region' END,
                             CASE gone.kind WHEN 'visits.due' THEN CAST(gone.visitor_id AS text) ELSE gone.region_code END)
    """
)


class DigestDesk:
    """See `app.notify.dispatcher.Desk`."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def take(self, lane: Lane, *, limit: int, now: datetime) -> list[tuple[DigestClaim, Letter | GiveUp]]:
        """Claim due messages with their letters. None goes out when nobody's channel is left, when its time is over, and
        when it names somebody who is not the visitor's any more."""
        rows = (await lane.at_once(_TAKE, lease(now, limit))).mappings()
        return [(self._claim(row), self._letter(row, now)) for row in rows]

    def _claim(self, row: Any) -> DigestClaim:
        # A row without a channel is given up whatever it is called; the console is not used for it.
        return DigestClaim(NoticeId(row["id"]), row["attempts"], ChannelKind(row["channel"] or ChannelKind.CONSOLE))

    def _letter(self, row: Any, now: datetime) -> Letter | GiveUp:
        if not row["of_circle"]:
            return OUTSIDE
        if row["channel_id"] is None or row["over"]:
            return NOBODY
        channel_id: UUID = row["channel_id"]
        try:
            address = self._sealer.open(row["address_sealed"], record=channel_id)
            secret = self._sealer.open_optional(row["secret_sealed"], record=channel_id)
        except InvalidTag:
            log.error("a sealed address does not open", digest=str(row["id"]))
            return NOBODY
        recipient = {"type": "visitor", "id": str(row["visitor_id"]), "name": row["visitor_name"], "role": "visitor"}
        return Letter(
            notice_id=NoticeId(row["id"]), address=address, secret=secret, title=row["title"], text=row["text"],
            short={"name": row["visitor_name"], "because": row["title"]},
            payload={"type": row["kind"], "timestamp": row["created_at"].isoformat(),
                     "data": {**row["data"], "recipient": recipient, "reason": row["title"]}},
            composed_at=now, digest=True,
        )  # fmt: skip

    async def next_due(self, lane: Lane) -> datetime | None:
        moment: datetime | None = (await lane.at_once(_NEXT, {})).first().due_at
        return moment

    async def record(
        self, session: Hands, results: Sequence[Result[DigestClaim]], *, now: datetime
    ) -> list[DigestSettled]:
        """Write what became of messages. A channel that will never work is followed by the person's next one."""
        ordered = sorted(results, key=lambda r: r.claim.id)
        columns = [_as_row(result, now) for result in ordered]
        state, due_at, sent_at, error, next_ = (list(column) for column in zip(*columns, strict=True))
        rows = await session.execute(
            _RECORD,
            {
                "nobody": NOBODY.why,
                "id": [r.claim.id for r in ordered],
                "attempt": [r.claim.attempt for r in ordered],
                "channel": [r.claim.channel.value for r in ordered],
                "state": state,
                "due_at": due_at,
                "sent_at": sent_at,
                "error": error,
                "next": next_,
            },
        )
        if stale := [r.claim.id for r in ordered if r.outcome == OUTSIDE]:
            await session.execute(_WRITE_ANEW, {"ids": stale, "now": now})
        claims = {r.claim.id: r.claim for r in ordered}
        return [DigestSettled(claims[row["id"]], row["state"]) for row in rows.mappings()]

    def count(self, settled: Sequence[DigestSettled], *, now: datetime) -> None:
        """The metrics of messages, after their record was committed."""
        for one in settled:
            metrics.DIGESTS.labels(one.claim.channel.value, one.state).inc()


def _as_row(result: Result[DigestClaim], now: datetime) -> tuple[str, datetime, datetime | None, str | None, int]:
    match result.outcome:
        case Sent(delivered=delivered):
            return "delivered" if delivered else "sent", now, now, None, 0
        case GiveUp(why=why) if result.outcome in (NOBODY, OUTSIDE):
            return "failed", now, None, why, 0
        case GiveUp(why=why):
            return "pending", now, None, why[:500], 1
        case TryAgain(why=why) if result.claim.attempt >= MAX_ATTEMPTS:
            return "pending", now, None, f"{why[:400]} (after {result.claim.attempt} attempts)", 1
        case TryAgain(why=why, after_s=after_s):
            return "pending", now + backoff(result.claim.attempt, after_s), None, why[:500], 0
