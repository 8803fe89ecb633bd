"""The shapes of alarms and notices that others rely on (design section 5), made from rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from cryptography.exceptions import InvalidTag

from app import logs
from app.access.sealing import Sealer, mask_address, mask_phone
from app.elders.identity import age_on

log = logs.get("alarms")

# Everything the shape of an alarm needs, from `alarms a JOIN elders e`.
COLUMNS = """
    a.id AS alarm_id, a.kind, a.severity, a.state AS alarm_state, a.because, a.trigger_device_id, a.trigger_event_id,
    a.occurred_at, a.received_at, a.late, a.raised_at, a.first_sent_at, a.acknowledged_at, a.acknowledged_by,
    a.promise_due_at, a.attended_at, a.attended_by, a.resolved_at, a.outcome, a.repeats, a.step, a.next_at,
    a.unreachable_since, a.version AS alarm_version, e.id AS elder_id, e.name AS elder_name, e.sex, e.birth_date,
    e.region_code, e.phone_sealed, e.address_sealed
"""


class Shapes:
    """Makes shapes; holds what that needs: the seal and the time zone for ages and times."""

    def __init__(self, sealer: Sealer, tz: ZoneInfo) -> None:
        self._sealer = sealer
        self._tz = tz

    def alarm(self, row: Mapping[str, Any], *, now: datetime, plainly: bool = False) -> dict[str, Any]:
        """An alarm. `plainly` opens the address and phone: only for those who must go there."""
        state = row["alarm_state"]
        return {
            "id": str(row["alarm_id"]),
            "elder": self.elder(row, now=now, plainly=plainly),
            "kind": row["kind"],
            "severity": row["severity"],
            "state": state,
            "because": row["because"],
            "trigger": {
                "device_id": row["trigger_device_id"],
                "event_id": row["trigger_event_id"],
                "occurred_at": self.time(row["occurred_at"]),
                "received_at": self.time(row["received_at"]),
                "late": row["late"],
            },
            "raised_at": self.time(row["raised_at"]),
            "first_sent_at": self.time(row["first_sent_at"]),
            "acknowledged_at": self.time(row["acknowledged_at"]),
            "acknowledged_by": row["acknowledged_by"],
            "promise_due_at": self.time(row["promise_due_at"]),
            "attended_at": self.time(row["attended_at"]),
            "attended_by": row["attended_by"],
            "resolved_at": self.time(row["resolved_at"]),
            "outcome": row["outcome"],
            "repeats": row["repeats"],
            "escalation": {"step": row["step"], "next_at": self.time(row["next_at"]) if state == "open" else None},
            "unreachable_since": self.time(row["unreachable_since"]),
        }

    def elder(self, row: Mapping[str, Any], *, now: datetime, plainly: bool) -> dict[str, Any]:
        """The elder within an alarm."""
        elder_id: UUID = row["elder_id"]
        phone = self._open(row["phone_sealed"], elder_id)
        address = self._open(row["address_sealed"], elder_id)
        return {
            "id": str(elder_id),
            "name": row["elder_name"],
            "sex": row["sex"],
            "age": age_on(row["birth_date"], now.astimezone(self._tz).date()),
            "region_code": row["region_code"],
            "phone": phone if plainly else mask_phone(phone),
            "address": address if plainly else mask_address(address),
        }

    def _open(self, sealed: bytes | None, elder_id: UUID) -> str | None:
        """A field that does not open (sealed with a lost key) is left out: the alarm must reach people without it."""
        try:
            return self._sealer.open_optional(sealed, record=elder_id)
        except InvalidTag:
            log.error("a sealed field of an elder does not open", elder=str(elder_id))
            return None

    def notice(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": str(row["id"]),
            "alarm_id": str(row["alarm_id"]),
            "recipient": {
                "type": row["recipient_type"],
                "id": row["recipient_id"],
                "name": row["recipient_name"],
                "role": row["recipient_role"],
            },
            "channel": row["channel"],
            "purpose": row["purpose"],
            "state": row["state"],
            "reason": row["reason"],
            "attempts": row["attempts"],
            "created_at": self.time(row["created_at"]),
            "sent_at": self.time(row["sent_at"]),
            "error": row["error"],
        }

    def time(self, moment: datetime | None) -> str | None:
        """RFC 3339 with the offset of the district."""
        return None if moment is None else moment.astimezone(self._tz).isoformat(timespec="milliseconds")

    def clock_time(self, moment: datetime) -> str:
        """How a person says it: 14:05."""
        local = moment.astimezone(self._tz)
        return f"{local.hour:02}:{local.minute:02}"
