"""An alarm is raised, or a repeat joins the one that is unresolved; with its first notices, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa

from app.alarms import facts
from app.alarms.escalation import Plan, next_time
from app.alarms.recipients import chosen, circle, reaches_a_person
from app.db import Hands
from app.elders.status import EFFECTS, AlarmsGo
from app.ids import new_uuid
from app.notify import outbox
from app.notify.outbox import Planned, Recipient
from app.notify.vocabulary import ChannelKind, Purpose, RecipientType
from app.rules.verdict import DEVICE_HEALTH, AlarmKind, Severity
from app.words import language, say

_REPEAT_GAP = timedelta(seconds=10)  # a bouncing button does not ring the promiser's phone ten times


@dataclass(frozen=True, slots=True)
class Report:
    """What asks for an alarm: a device's event or a person's word. `presses` counts equal ones of one batch;
    `only_joins`: it is no news, and only an unresolved alarm takes it."""

    elder_id: UUID
    region_code: str
    kind: AlarmKind
    severity: Severity
    because: str
    occurred_at: datetime
    received_at: datetime
    late: bool = False
    event: UUID | None = None
    device_id: str | None = None
    event_id: str | None = None
    presses: int = 1
    by: dict[str, Any] | None = None
    only_joins: bool = False


@dataclass(frozen=True, slots=True)
class Raised:
    alarm_id: UUID
    fresh: bool


# One statement decides between «new» and «joins»: two servers that see the same press make one alarm. A more urgent
# repeat makes the alarm more urgent and starts its plan again.
_RAISE = sa.text(
    """
    WITH report AS (
        SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:elder_id AS uuid[]), CAST(:region_code AS text[]),
                CAST(:kind AS text[]), CAST(:severity AS text[]), CAST(:because AS text[]), CAST(:event AS uuid[]),
                CAST(:device_id AS text[]), CAST(:event_id AS text[]), CAST(:occurred_at AS timestamptz[]),
                CAST(:received_at AS timestamptz[]), CAST(:late AS bool[]), CAST(:repeats AS int[]),
                CAST(:plan AS text[]), CAST(:next_at AS timestamptz[]), CAST(:entry AS uuid[]), CAST(:by AS text[]),
                CAST(:only_joins AS bool[]))
            AS r(id, elder_id, region_code, kind, severity, because, event, device_id, event_id, occurred_at,
                 received_at, late, repeats, plan, next_at, entry, by, only_joins)
    ),
    raised AS (
    INSERT INTO alarms AS a (id, elder_id, region_code, kind, severity, state, because, trigger_event,
        trigger_device_id, trigger_event_id, occurred_at, received_at, late, raised_at, repeats, plan, plan_from,
        step, round, next_at, version)
    SELECT r.id, r.elder_id, r.region_code, r.kind, r.severity, 'open',
           r.because || coalesce(CAST(:status_notes AS jsonb) ->> e.status_reason, ''), r.event, r.device_id,
           r.event_id, r.occurred_at, r.received_at, r.late, :now, r.repeats, CAST(r.plan AS jsonb), :now, 0, 0,
           r.next_at, 1
    FROM report r LEFT JOIN elders e ON e.id = r.elder_id
    WHERE NOT r.only_joins OR EXISTS (
        SELECT FROM alarms o WHERE o.elder_id = r.elder_id AND o.kind = r.kind AND o.state <> 'resolved'
    )
    ORDER BY r.elder_id, r.kind
    ON CONFLICT (elder_id, kind) WHERE state <> 'resolved' DO UPDATE SET
        repeats = a.repeats + excluded.repeats + 1,
        severity = CASE WHEN more_urgent(excluded.severity, a.severity) THEN excluded.severity ELSE a.severity END,
        because = CASE WHEN more_urgent(excluded.severity, a.severity) THEN excluded.because ELSE a.because END,
        plan = CASE WHEN more_urgent(excluded.severity, a.severity) THEN excluded.plan ELSE a.plan END,
        plan_from = CASE WHEN more_urgent(excluded.severity, a.severity) THEN excluded.plan_from ELSE a.plan_from END,
        step = CASE WHEN more_urgent(excluded.severity, a.severity) THEN 0 ELSE a.step END,
        next_at = CASE WHEN more_urgent(excluded.severity, a.severity) AND a.state = 'open'
                       THEN excluded.next_at ELSE a.next_at END,
        round = a.round + 1, version = a.version + 1
    RETURNING old.id IS NULL AS fresh, old.severity AS severity_before, a.id, a.elder_id, a.region_code, a.kind,
              a.severity, a.state, a.repeats, a.round, a.acknowledged_by, a.attended_by
    ),
    history AS (
        INSERT INTO alarm_entries (id, alarm_id, at, kind, by, data)
        SELECT r.entry, raised.id, :now, CASE WHEN raised.fresh THEN 'raised' ELSE 'repeated' END, CAST(r.by AS jsonb),
               jsonb_build_object('because', r.because, 'presses', r.repeats + 1, 'device_id', r.device_id,
                                  'late', r.late)
        FROM raised JOIN report r ON r.elder_id = raised.elder_id AND r.kind = raised.kind
    )
    SELECT * FROM raised
    """
)


async def raise_alarms(session: Hands, reports: Sequence[Report], *, now: datetime, tz: ZoneInfo) -> list[Raised]:
    """Raise or join, one row an (elder, kind). Everybody of the first instant is planned in the same transaction."""
    merged = _merge(reports)
    if not merged:
        return []
    people, policies = await circle(
        session, [r.elder_id for r in merged], [r.region_code for r in merged], now=now, tz=tz
    )
    plans = [policies.plan_for(r.kind, r.severity, r.region_code, now=now, tz=tz) for r in merged]
    rows = (await session.execute(_RAISE, _columns(merged, plans, now))).all()
    plan_of = {(r.elder_id, r.kind.value): plan for r, plan in zip(merged, plans, strict=True)}
    notices: list[Planned] = []
    for row in rows:
        more_urgent = not row.fresh and row.severity != row.severity_before and row.state == "open"
        if row.fresh or more_urgent:
            plan = plan_of[row.elder_id, row.kind]  # the one just written
            told = chosen(people.get(row.elder_id, {}), plan.steps[0].targets)
            reason = say("reason.raised" if row.fresh else "reason.raised_again")
            notices += [Planned(row.id, Purpose.RAISED, row.round, reason, who) for who in told]
            if not reaches_a_person(told) and row.kind not in DEVICE_HEALTH:
                # Nobody to tell in this instant: the next step costs no time.
                await session.execute(
                    sa.text("UPDATE alarms SET next_at = :now WHERE id = :id"), {"now": now, "id": row.id}
                )
        else:
            notices += await _tell_the_answerer(session, row, now)
        kind = "raised" if row.fresh else "repeated"
        facts.tell(
            session,
            f"alarm.{kind}",
            region_code=row.region_code,
            alarm_id=row.id,
            now=now,
            severity=row.severity,
            kind=row.kind,
            repeats=row.repeats,
        )
    await outbox.plan(session, notices, now=now)
    return [Raised(row.id, row.fresh) for row in rows]


def _merge(reports: Sequence[Report]) -> list[Report]:
    """Equal kinds of one elder become one report: the first, with the count and the greatest urgency."""
    merged: dict[tuple[UUID, AlarmKind], Report] = {}
    for report in reports:
        key = (report.elder_id, report.kind)
        first = merged.get(key)
        if first is None:
            merged[key] = report
        else:
            urgent = min(first, report, key=lambda r: r.severity.rank)
            news = first if report.only_joins or not first.only_joins else report
            merged[key] = replace(
                news, presses=first.presses + report.presses, severity=urgent.severity, because=urgent.because
            )
    return sorted(merged.values(), key=lambda r: (r.elder_id.bytes, r.kind.value))


def _columns(reports: list[Report], plans: list[Plan], now: datetime) -> dict[str, Any]:
    return {
        "now": now,
        "status_notes": _status_notes(language()),
        "id": [new_uuid(now) for _ in reports],
        "elder_id": [r.elder_id for r in reports],
        "region_code": [r.region_code for r in reports],
        "kind": [r.kind.value for r in reports],
        "severity": [r.severity.value for r in reports],
        "because": [r.because for r in reports],
        "event": [r.event for r in reports],
        "device_id": [r.device_id for r in reports],
        "event_id": [r.event_id for r in reports],
        "occurred_at": [r.occurred_at for r in reports],
        "received_at": [r.received_at for r in reports],
        "late": [r.late for r in reports],
        "repeats": [r.presses - 1 for r in reports],
        "plan": [plan.text for plan in plans],
        "entry": [new_uuid(now) for _ in reports],
        "only_joins": [r.only_joins for r in reports],
        "by": [msgspec.json.encode(r.by).decode() if r.by else None for r in reports],
        "next_at": [next_time(plan, step=0, plan_from=now, now=now) for plan in plans],
    }


@cache
def _status_notes(_: str) -> str:
    """What the register says of people who should not be there. No status ever silences an alarm: they are told more."""
    noted = {reason for (_, reason), effects in EFFECTS.items() if reason and effects.alarms is AlarmsGo.WITH_A_NOTE}
    notes = {reason.value: f" ({say(f'status.{reason.value}')})" for reason in noted}
    return msgspec.json.encode(notes).decode()


async def _tell_the_answerer(session: Hands, row: Any, now: datetime) -> list[Planned]:
    """A repeat while somebody is on the way, or there, tells that person again."""
    by = row.attended_by or row.acknowledged_by
    if row.state not in ("acknowledged", "attending") or not by or by.get("type") not in ("contact", "visitor"):
        return []
    recent = await session.scalar(
        sa.text(
            "SELECT EXISTS (SELECT FROM notices WHERE alarm_id = :id AND purpose = 'alarm.repeated' "
            "AND (state IN ('pending', 'sending') OR created_at > :since))"
        ),
        {"id": row.id, "since": now - _REPEAT_GAP},
    )
    who = None if recent else await answerer(session, by)
    return [Planned(row.id, Purpose.REPEATED, row.round, say("reason.repeated"), who)] if who else []


async def answerer(session: Hands, by: dict[str, Any]) -> Recipient | None:
    """The person who answered, with the first channel they have now."""
    row = (
        await session.execute(
            sa.text(
                "SELECT id, kind FROM channels WHERE contact_id = :id OR visitor_id = :id ORDER BY position LIMIT 1"
            ),
            {"id": UUID(by["id"])},
        )
    ).first()
    if row is None:
        return None
    return Recipient(RecipientType(by["type"]), by["id"], by["name"], "answerer", ChannelKind(row.kind), row.id)
