"""The alarms' side of sending: what a notice says when it goes out, and what follows from how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from app import logs, metrics
from app.access.sealing import Sealer
from app.alarms import entries, facts
from app.alarms.links import Links
from app.alarms.views import COLUMNS, Shapes
from app.db import Hands
from app.ids import NoticeId
from app.lanes import Lane
from app.notify import outbox
from app.notify.channel import GiveUp, Letter, Sent
from app.notify.circle import of_circle
from app.notify.outbox import Claim, Planned, Recipient, Result, Settled
from app.notify.vocabulary import ASKING, ChannelKind, Purpose, RecipientType
from app.words import say

log = logs.get("alarms")
_LETTERS = outbox.claiming(
    f"""
    SELECT n.id AS notice_id, n.attempts, n.purpose, n.reason, n.recipient_type, n.recipient_id, n.recipient_name,
           n.recipient_role, n.channel, n.channel_id, c.address_sealed AS channel_address,
           c.secret_sealed AS channel_secret, {COLUMNS},
           CASE n.recipient_type
               WHEN 'visitor' THEN {
        of_circle(visitor="CAST(n.recipient_id AS uuid)", elder="e.id", region="e.region_code", began="a.raised_at")
    }
               WHEN 'device' THEN coalesce((SELECT true FROM bindings w WHERE w.device_id = n.recipient_id
                                            AND w.elder_id = e.id AND w.unbound_at IS NULL LIMIT 1), false)
               ELSE true  -- a contact's channels go with the contact
           END AS of_circle
    FROM claimed n
    CROSS JOIN LATERAL (SELECT * FROM alarms WHERE id = n.alarm_id LIMIT 1) a
    CROSS JOIN LATERAL (SELECT * FROM elders WHERE id = a.elder_id LIMIT 1) e
    LEFT JOIN LATERAL (SELECT * FROM channels WHERE id = n.channel_id LIMIT 1) c ON true
    """  # noqa: S608 - a constant
)

# The failed notice's recipient, their next channel after the failed one (the first, where it was replaced meanwhile), and
# whether the alarm still waits.
_NEXT_CHANNEL = sa.text(
    """
    SELECT n.id, n.alarm_id, n.purpose, n.round, n.recipient_type, n.recipient_id, n.recipient_name, n.recipient_role,
           next.id AS channel_id, next.kind AS channel
    FROM notices n
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n.recipient_type IN ('contact', 'visitor') THEN CAST(n.recipient_id AS uuid) END AS id
    ) person
    LEFT JOIN channels failed ON failed.id = n.channel_id
    CROSS JOIN LATERAL (
        SELECT ch.id, ch.kind FROM channels ch
        WHERE ch.position > coalesce(failed.position, -1) AND (ch.contact_id = person.id OR ch.visitor_id = person.id)
        ORDER BY ch.position LIMIT 1
    ) next
    JOIN alarms a ON a.id = n.alarm_id
    WHERE n.id = ANY(CAST(:ids AS uuid[]))
      AND (a.state = 'open' OR n.purpose <> ALL(CAST(:asking AS text[])))
    """
)

# Open alarms of which nobody could be told this time and no way to anybody is left: every notice of the last telling
# failed. Whoever was reached in an earlier one has not answered, and cannot be reached any more.
_UNREACHABLE = sa.text(
    """
    UPDATE alarms a
    SET unreachable_since = :now, version = version + 1,
        next_at = CASE WHEN step < jsonb_array_length(plan -> 'steps') - 1 THEN :now ELSE next_at END
    WHERE a.id = ANY(CAST(:alarm_ids AS uuid[])) AND a.state = 'open' AND a.unreachable_since IS NULL
      AND NOT EXISTS (
          SELECT FROM notices n WHERE n.alarm_id = a.id AND n.recipient_type IN ('contact', 'visitor')
          AND (n.state IN ('pending', 'sending') OR n.state IN ('sent', 'delivered') AND n.round = (
              SELECT max(round) FROM notices t WHERE t.alarm_id = a.id AND t.recipient_type IN ('contact', 'visitor')
              AND t.purpose = ANY(CAST(:asking AS text[])))))
    RETURNING a.id, a.region_code
    """
)

_FIRST_SENT = sa.text(
    """
    UPDATE alarms SET first_sent_at = :now WHERE id = ANY(CAST(:alarm_ids AS uuid[])) AND first_sent_at IS NULL
    RETURNING received_at
    """
)
_REACHED = sa.text(
    """
    UPDATE alarms SET unreachable_since = NULL, version = version + 1
    WHERE id = ANY(CAST(:alarm_ids AS uuid[])) AND unreachable_since IS NOT NULL
    """
)


class AlarmDesk:
    """See `app.notify.dispatcher.Desk`."""

    def __init__(self, sealer: Sealer, shapes: Shapes, links: Links) -> None:
        self._sealer = sealer
        self._shapes = shapes
        self._links = links

    # --- what a notice says ------------------------------------------------------------------------------------------

    async def take(self, lane: Lane, *, limit: int, now: datetime) -> list[tuple[Claim, Letter | GiveUp]]:
        """Claim due notices and compose their letters, one way to the database and back."""
        rows = (await lane.at_once(_LETTERS, outbox.lease(now, limit))).mappings()
        alarms: dict[UUID, dict[str, Any]] = {}
        return [(outbox.claim_of(row), self._letter_if_it_opens(row, alarms, now)) for row in rows]

    def _letter_if_it_opens(self, row: Any, alarms: dict[UUID, dict[str, Any]], now: datetime) -> Letter | GiveUp:
        try:
            return self._letter(row, alarms, now)
        except InvalidTag:  # sealed with another key: this one fails, the others go out
            log.error("a sealed address does not open", notice=str(row["notice_id"]))
            return outbox.NOBODY

    def _letter(self, row: Any, alarms: dict[UUID, dict[str, Any]], now: datetime) -> Letter | GiveUp:
        notice_id = NoticeId(row["notice_id"])
        if not row["of_circle"]:
            return outbox.OUTSIDE
        match ChannelKind(row["channel"]):
            case ChannelKind.DEVICE:
                return self._to_device(notice_id, row, now)
            case _ if row["channel_address"] is None:
                return outbox.NOBODY
            case _:
                channel_id: UUID = row["channel_id"]
                address = self._sealer.open(row["channel_address"], record=channel_id)
                secret = self._sealer.open_optional(row["channel_secret"], record=channel_id)
        alarm = alarms.get(row["alarm_id"])
        if alarm is None:
            alarm = alarms[row["alarm_id"]] = self._shapes.alarm(row, now=now, plainly=True)
        url = self._links.url(notice_id)
        if row["channel"] == ChannelKind.WEBHOOK.value:  # machines read the payload
            title, text, short = "", "", {}
        else:
            title, text = self._words(row, now)
            text = f"{text}\n{say('notice.link', url=url)}"
            kind = say(f"kind.{row['kind']}")
            short = {"name": row["elder_name"], "kind": kind, "because": row["because"], "link": url}
        return Letter(
            notice_id=notice_id,
            address=address,
            secret=secret,
            title=title,
            text=text,
            short=short,
            payload={
                "type": row["purpose"],
                "timestamp": self._shapes.time(now),
                "data": {
                    "alarm": alarm,
                    "recipient": {
                        "type": row["recipient_type"],
                        "id": row["recipient_id"],
                        "name": row["recipient_name"],
                        "role": row["recipient_role"],
                    },
                    "reason": row["reason"],
                    "ack_url": url,
                },
            },
            composed_at=now,
        )

    def _words(self, row: Any, now: datetime) -> tuple[str, str]:
        """Title and text, as a person reads them."""
        kind = say(f"kind.{row['kind']}")
        return (
            say("notice.title", severity=say(f"severity.{row['severity']}"), name=row["elder_name"], kind=kind),
            say(
                f"notice.{row['purpose']}",
                because=row["because"],
                reason=row["reason"],
                time=self._shapes.clock_time(row["raised_at"]),
                minutes=int((now - row["raised_at"]).total_seconds() // 60),
            ),
        )

    def _to_device(self, notice_id: NoticeId, row: Mapping[str, Any], now: datetime) -> Letter:
        payload = {
            "type": "alarm_state",
            "alarm_id": str(row["alarm_id"]),
            "state": row["alarm_state"],
            "message": row["reason"],
        }
        return Letter(notice_id, row["recipient_id"], None, "", row["reason"], {}, payload, now)

    # --- what follows ------------------------------------------------------------------------------------------------

    async def next_due(self, lane: Lane) -> datetime | None:
        return await outbox.next_due(lane)

    async def record(self, session: Hands, results: Sequence[Result[Claim]], *, now: datetime) -> list[Settled]:
        """Write what became of notices, with what follows: next channels, first-sent times, facts."""
        settled = await outbox.record(session, results, now=now)
        await self._follow(session, settled, now)
        return settled

    def count(self, settled: Sequence[Settled], *, now: datetime) -> None:
        """The metrics of notices, after their record was committed."""
        for one in settled:
            metrics.NOTICES.labels(one.claim.channel.value, one.state).inc()
            if isinstance(one.outcome, Sent) and one.claim.attempt == 1:
                metrics.NOTICE_SECONDS.observe((now - one.created_at).total_seconds())

    async def _follow(self, session: Hands, settled: Sequence[Settled], now: datetime) -> None:
        if not settled:
            return
        sent = [s for s in settled if isinstance(s.outcome, Sent) and s.claim.channel is not ChannelKind.DEVICE]
        untold = sorted({s.claim.alarm_id for s in sent if s.row["untold"]})
        if untold:
            for row in await session.execute(_FIRST_SENT, {"alarm_ids": untold, "now": now}):
                metrics.EVENT_TO_FIRST_NOTICE.observe((now - row.received_at).total_seconds())
        self._tell_the_feed(session, settled, now)
        reached = sorted(
            {s.claim.alarm_id for s in sent if s.row["was_unreachable"] and s.claim.channel is not ChannelKind.CONSOLE}
        )
        if reached:
            await session.execute(_REACHED, {"alarm_ids": reached})
        # A failed delivery starts the recipient's next channel now; a failure that may pass is tried again beside it.
        failed = [
            s
            for s in settled
            if not isinstance(s.outcome, Sent)
            and s.outcome != outbox.OUTSIDE
            and (s.state == "failed" or s.claim.attempt == 1)
        ]
        if failed:
            await self._start_next_channels(session, failed, now)
        lost = sorted({s.claim.alarm_id for s in settled if s.state == "failed" and s.claim.purpose in ASKING})
        if lost:
            await self._say_unreachable(session, lost, now)

    async def _start_next_channels(self, session: Hands, failed: Sequence[Settled], now: datetime) -> None:
        rows = await session.execute(
            _NEXT_CHANNEL, {"ids": [s.claim.id for s in failed], "asking": [p.value for p in ASKING]}
        )
        await outbox.plan(session, [
            Planned(row.alarm_id, Purpose(row.purpose), row.round, say("reason.next_channel"),
                    Recipient(RecipientType(row.recipient_type), row.recipient_id, row.recipient_name,
                              row.recipient_role, ChannelKind(row.channel), row.channel_id))
            for row in rows
        ], now=now)  # fmt: skip

    async def _say_unreachable(self, session: Hands, alarm_ids: list[UUID], now: datetime) -> None:
        rows = (
            await session.execute(
                _UNREACHABLE, {"alarm_ids": alarm_ids, "now": now, "asking": [p.value for p in ASKING]}
            )
        ).all()
        because = "every channel of everybody failed"
        await entries.write(session, [(row.id, "unreachable", None, {"because": because}) for row in rows], now=now)
        for row in rows:
            facts.tell(
                session, "alarm.unreachable", region_code=row.region_code, alarm_id=row.id, now=now, because=because
            )

    def _tell_the_feed(self, session: Hands, settled: Sequence[Settled], now: datetime) -> None:
        for one in settled:
            if one.state not in ("sent", "delivered", "failed"):
                continue
            row = one.row
            facts.tell(
                session,
                "notice.failed" if one.state == "failed" else "notice.sent",
                region_code=row["region_code"],
                alarm_id=one.claim.alarm_id,
                now=now,
                notice_id=str(one.claim.id),
                channel=one.claim.channel.value,
                purpose=one.claim.purpose.value,
                recipient={"type": row["recipient_type"], "name": row["recipient_name"], "role": row["recipient_role"]},
                reason=row["reason"],
                error=row["error"],
            )
