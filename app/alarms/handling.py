"""People answer: acknowledge, attend, resolve, comment, escalate. Each is one compare-and-set with its consequences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alarms import aftermath, entries, facts
from app.alarms.calming import already_told
from app.alarms.state import Move, after
from app.alarms.vocabulary import AlarmState, Outcome
from app.errors import IllegalTransition, NotFound, VersionMismatch
from app.notify import outbox
from app.notify.outbox import Planned, Recipient
from app.notify.vocabulary import ASKING, ChannelKind, Purpose, RecipientType
from app.words import say

DEFAULT_ETA_MINUTES = 15
REMIND_AFTER = timedelta(minutes=60)  # somebody is there and has not said how it ended
_LATER_WORDS = frozenset({Purpose.REPEATED, Purpose.REMINDED, Purpose.ACKNOWLEDGED})


@dataclass(frozen=True, slots=True)
class Held:
    """An alarm locked for this transaction."""

    id: UUID
    elder_id: UUID
    region_code: str
    state: AlarmState
    round: int
    trigger_device_id: str | None


async def hold(session: AsyncSession, alarm_id: UUID, *, version: int | None = None) -> Held:
    """Lock an alarm. Raises `NotFound`, and `VersionMismatch` when If-Match named another version."""
    row = (
        await session.execute(
            sa.text(
                "SELECT id, elder_id, region_code, state, round, trigger_device_id, version FROM alarms "
                "WHERE id = :id FOR UPDATE"
            ),
            {"id": alarm_id},
        )
    ).first()
    if row is None:
        raise NotFound("no such alarm")
    if version is not None and version != row.version:
        raise VersionMismatch("the alarm changed since you read it; read it again")
    return Held(row.id, row.elder_id, row.region_code, AlarmState(row.state), row.round, row.trigger_device_id)


async def acknowledge(
    session: AsyncSession, alarm: Held, *, by: dict[str, Any], eta_minutes: int | None, note: str | None, now: datetime
) -> None:
    """Somebody promises to be there within `eta_minutes`. What still waits to be sent is cancelled."""
    minutes = DEFAULT_ETA_MINUTES if eta_minutes is None else eta_minutes
    due = now + timedelta(minutes=minutes)
    await _move(
        session,
        alarm,
        Move.ACKNOWLEDGE,
        by,
        "acknowledged_at = :now, acknowledged_by = CAST(:who AS jsonb), promise_due_at = :due, next_at = :due",
        now=now,
        who=_json(by),
        due=due,
    )
    await outbox.cancel_waiting(session, alarm.id, ASKING)
    words = say("reason.acknowledged", name=by["name"], minutes=minutes)
    await _tell_others(session, alarm, Purpose.ACKNOWLEDGED, words, by, now)
    await _tell_device(session, alarm, say("device.acknowledged", name=by["name"], minutes=minutes), now)
    await _write(session, alarm, "acknowledged", by, now, eta_minutes=minutes, note=note, promise_due_at=due)


async def attend(session: AsyncSession, alarm: Held, *, by: dict[str, Any], note: str | None, now: datetime) -> None:
    """Somebody is with the elder."""
    await _move(
        session,
        alarm,
        Move.ATTEND,
        by,
        "attended_at = :now, attended_by = CAST(:who AS jsonb), promise_due_at = NULL, next_at = :due",
        now=now,
        who=_json(by),
        due=now + REMIND_AFTER,
    )
    await outbox.cancel_waiting(session, alarm.id, ASKING)
    await _tell_others(session, alarm, Purpose.ACKNOWLEDGED, say("reason.attending", name=by["name"]), by, now)
    await _tell_device(session, alarm, say("device.attending", name=by["name"]), now)
    await _write(session, alarm, "attending", by, now, note=note)


async def resolve(
    session: AsyncSession,
    alarm: Held,
    *,
    by: dict[str, Any],
    outcome: Outcome,
    note: str | None,
    now: datetime,
    tz: ZoneInfo,
    tell_device: bool = True,
) -> None:
    """The end, with an outcome: terminal. What a real emergency asks for afterwards is asked in the same transaction."""
    await _move(
        session,
        alarm,
        Move.RESOLVE,
        by,
        "resolved_at = :now, outcome = :outcome, promise_due_at = NULL, next_at = NULL, unreachable_since = NULL",
        now=now,
        outcome=outcome.value,
    )
    await outbox.cancel_waiting(session, alarm.id, ASKING | _LATER_WORDS)
    words = say("reason.resolved", outcome=say(f"outcome.{outcome.value}"))
    await _tell_others(session, alarm, Purpose.RESOLVED, words, by, now)
    if tell_device:
        await _tell_device(session, alarm, say("device.resolved"), now)
    await _write(session, alarm, "resolved", by, now, outcome=outcome.value, note=note)
    await aftermath.ask(session, alarm.id, outcome, now=now, tz=tz)


async def comment(session: AsyncSession, alarm: Held, *, by: dict[str, Any], text: str, now: datetime) -> None:
    """A remark in the alarm's history."""
    await entries.write(session, [(alarm.id, "comment", by, {"text": text})], now=now)
    facts.tell(session, "alarm.commented", region_code=alarm.region_code, alarm_id=alarm.id, now=now, by=by)


async def escalate(session: AsyncSession, alarm: Held, *, by: dict[str, Any], now: datetime) -> None:
    """The next step now, not at its time. Only an open alarm escalates: otherwise somebody is already on it."""
    if alarm.state is not AlarmState.OPEN:
        raise IllegalTransition(f"an alarm that is {alarm.state.value} does not escalate: somebody answered it")
    await session.execute(
        sa.text("UPDATE alarms SET next_at = :now, version = version + 1 WHERE id = :id"), {"id": alarm.id, "now": now}
    )
    await entries.write(session, [(alarm.id, "escalate_asked", by, {"because": say("reason.asked")})], now=now)


async def tell_device_open(session: AsyncSession, alarm: Held, *, now: datetime) -> None:
    """The promise passed: the elder hears that somebody else is being called."""
    await _tell_device(session, alarm, say("device.open"), now)


# --- the common parts of a move --------------------------------------------------------------------------------------


_PEOPLE = frozenset({"user", "contact", "visitor"})  # an API key may be a machine: its answer is no person's


async def _move(
    session: AsyncSession, alarm: Held, move: Move, by: dict[str, Any], sets: str, *, now: datetime, **values: Any
) -> None:
    """Compare and set; the lock of `hold` makes the comparison certain, the WHERE makes it visible. The first answer by a
    person is kept apart: a promise that passes takes `acknowledged_at` back."""
    answered = now if by["type"] in _PEOPLE else None
    done = await session.execute(
        sa.text(
            f"UPDATE alarms SET state = :to, {sets}, round = round + 1, version = version + 1, "  # noqa: S608
            "answered_at = coalesce(answered_at, CAST(:answered AS timestamptz)) "
            "WHERE id = :id AND state = :from RETURNING id"
        ),
        {
            "id": alarm.id,
            "from": alarm.state.value,
            "to": after(alarm.state, move).value,
            "now": now,
            "answered": answered,
            **values,
        },
    )
    assert done.first() is not None


async def _tell_others(
    session: AsyncSession, alarm: Held, purpose: Purpose, words: str, by: dict[str, Any], now: datetime
) -> None:
    told = await already_told(session, alarm.id, but=str(by.get("id", "")))
    await outbox.plan(session, [Planned(alarm.id, purpose, alarm.round + 1, words, who) for who in told], now=now)


async def _tell_device(session: AsyncSession, alarm: Held, words: str, now: datetime) -> None:
    """The device that called, and the elder's other buttons and gateways: they can speak. What an earlier message would
    have said is no longer so."""
    await outbox.cancel_waiting(session, alarm.id, frozenset({Purpose.DEVICE_STATE}))
    rows = await session.execute(
        sa.text(
            "SELECT d.device_id FROM bindings b JOIN devices d USING (device_id) WHERE b.elder_id = :elder_id "
            "AND b.unbound_at IS NULL AND (d.kind IN ('sos_button', 'gateway') OR d.device_id = :trigger)"
        ),
        {"elder_id": alarm.elder_id, "trigger": alarm.trigger_device_id},
    )
    planned = [
        Planned(
            alarm.id,
            Purpose.DEVICE_STATE,
            alarm.round + 1,
            words,
            Recipient(RecipientType.DEVICE, row.device_id, row.device_id[:100], "device", ChannelKind.DEVICE, None),
        )
        for row in rows
    ]
    await outbox.plan(session, planned, now=now)


async def _write(session: AsyncSession, alarm: Held, kind: str, by: dict[str, Any], now: datetime, **data: Any) -> None:
    await entries.write(session, [(alarm.id, kind, by, data)], now=now)
    facts.tell(
        session,
        f"alarm.{kind}",
        region_code=alarm.region_code,
        alarm_id=alarm.id,
        now=now,
        by=by,
        **{name: value for name, value in data.items() if name != "note"},
    )


def _json(by: dict[str, Any]) -> str:
    return json.dumps(by, default=str)
