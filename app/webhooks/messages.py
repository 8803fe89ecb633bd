"""What a subscriber is sent: the event, and the alarm as an API reader without reveal sees it at the time of sending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks import Webhook as Signer
from yarl import URL

from app.access.sealing import Sealer
from app.alarms.views import COLUMNS, Shapes
from app.webhooks import owners
from app.webhooks.owners import Owner
from app.webhooks.queue import Failed, Stopped, Withdrawn
from app.webhooks.vocabulary import KINDS, TEST, EventType, OwnerType, Subject

MOVED = "the elder no longer lives in the subscription's region"
UNKNOWN = "this server does not know events of this type"
_SEALED = "the address or the secret was sealed with another key"
_ROWS = sa.text(
    f"""
    SELECT d.id AS delivery_id, d.event_type, d.occurred_at AS event_at, s.id AS subscription_id, s.region_code AS scope,
           s.owner_type, s.owner_id, s.description, s.url_sealed, s.secret_sealed, s.previous_secret_sealed,
           s.previous_secret_until, f.data AS detail, {COLUMNS}
    FROM webhook_deliveries d JOIN webhook_subscriptions s ON s.id = d.subscription_id
    LEFT JOIN feed_events f ON f.seq = d.seq
    LEFT JOIN alarms a ON a.id = d.alarm_id LEFT JOIN elders e ON e.id = a.elder_id
    WHERE d.id = ANY(CAST(:ids AS uuid[]))
    """  # noqa: S608 - a constant
)


@dataclass(frozen=True, slots=True)
class Message:
    """One POST, ready. The address and the secrets are open for the time of sending; they enter no log and no error."""

    id: UUID
    url: URL = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    body: bytes = field(repr=False)

    def headers(self, now: datetime) -> dict[str, str]:
        """Standard Webhooks: one signature for each secret that counts."""
        moment = now.astimezone(UTC)
        text = self.body.decode()
        return {
            "Content-Type": "application/json",
            "User-Agent": "shouwang",
            "webhook-id": str(self.id),
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": " ".join(Signer(secret).sign(str(self.id), moment, text) for secret in self.secrets),
        }


class Composer:
    """Makes messages from deliveries; holds what that needs."""

    def __init__(self, sealer: Sealer, shapes: Shapes) -> None:
        self._sealer = sealer
        self._shapes = shapes

    async def compose(
        self, session: AsyncSession, ids: Sequence[UUID], *, now: datetime
    ) -> dict[UUID, Message | Failed | Withdrawn | Stopped]:
        """What each delivery is to be sent as, or why it is not sent. One that is missing was deleted meanwhile."""
        rows = (await session.execute(_ROWS, {"ids": list(ids)})).mappings().all()
        active = await owners.standing(session, {_owner(row) for row in rows})
        made: dict[UUID, Message | Failed | Withdrawn | Stopped] = {}
        for row in rows:
            refused = owners.why_not(active.get(_owner(row)), row["scope"])
            made[row["delivery_id"]] = Stopped(refused) if refused else self._message(row, now)
        return made

    def _message(self, row: Any, now: datetime) -> Message | Failed | Withdrawn:
        try:
            payload = self.payload(row, now=now)
            if isinstance(payload, Withdrawn):
                return payload
            record: UUID = row["subscription_id"]
            secrets = [self._sealer.open(row["secret_sealed"], record=record)]
            if row["previous_secret_until"] is not None and row["previous_secret_until"] > now:
                secrets.append(self._sealer.open(row["previous_secret_sealed"], record=record))
            url = URL(self._sealer.open(row["url_sealed"], record=record))
        except InvalidTag:
            return Failed(_SEALED)
        return Message(row["delivery_id"], url, tuple(secrets), msgspec.json.encode(payload))

    def payload(self, row: Any, *, now: datetime) -> dict[str, Any] | Withdrawn:
        """`{"type", "timestamp", "data"}`; `timestamp` is the event's time, `data` is as of now."""
        if row["event_type"] == TEST:
            data: dict[str, Any] = {"webhook_id": str(row["subscription_id"]), "description": row["description"]}
        else:
            try:
                kind = KINDS[EventType(row["event_type"])]
            except ValueError:
                return Withdrawn(UNKNOWN)
            match kind.subject:
                case Subject.ALARM:
                    if row["elder_id"] is None or not row["region_code"].startswith(row["scope"]):
                        return Withdrawn(MOVED)
                    data = {"alarm": self._shapes.alarm(row, now=now), "detail": row["detail"] or {}}
        return {"type": row["event_type"], "timestamp": self._shapes.time(row["event_at"]), "data": data}

    async def preview(self, session: AsyncSession, delivery_id: UUID, *, now: datetime) -> dict[str, Any] | None:
        """What the delivery would say if it were sent now; None when it would not be sent."""
        row = (await session.execute(_ROWS, {"ids": [delivery_id]})).mappings().first()
        payload = self.payload(row, now=now) if row is not None else None
        return payload if isinstance(payload, dict) else None


def _owner(row: Any) -> Owner:
    return Owner(OwnerType(row["owner_type"]), row["owner_id"])
