"""What would fail before an alarm does. `/readyz` and `shouwang check` say the same (design section 7, invariant 8)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import newest_revision, schema_revision

_LATE = timedelta(seconds=30)
_SILENT = timedelta(seconds=30)
_FORGOTTEN = timedelta(minutes=10)
_LONG_FAILING = timedelta(hours=1)
_A_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not ready. `blocking`: alarms would be lost or late; otherwise somebody has work to do."""

    name: str
    blocking: bool
    count: int
    detail: str
    ids: tuple[str, ...] = ()


_SAMPLE = 20
_QUESTIONS: tuple[tuple[str, bool, str, str], ...] = (
    (
        "overdue_step", True, "alarms whose next step is more than 30 s late: no worker takes them",
        "SELECT id::text FROM alarms WHERE next_at < :late",
    ),
    (
        "stuck_notice", True, "notices more than 30 s late: no worker sends them",
        "SELECT id::text FROM notices WHERE state IN ('pending', 'sending') AND due_at < :late",
    ),
    (
        "dead_part", True, "parts of a running server that stopped reporting, or report a fault",
        "SELECT process || ' ' || part FROM heartbeats WHERE seen_at > :forgotten AND (NOT ok OR seen_at < :silent)",
    ),
    (
        "elder_without_reachable_contact", False, "active elders without an emergency contact who has a channel",
        "SELECT e.id::text FROM elders e WHERE e.status = 'active' AND NOT EXISTS (SELECT FROM contacts c "
        "JOIN channels ch ON ch.contact_id = c.id WHERE c.elder_id = e.id AND c.is_emergency)",
    ),
    (
        "device_never_seen", False, "devices bound to an elder that never sent anything",
        "SELECT d.device_id FROM devices d JOIN bindings b ON b.device_id = d.device_id AND b.unbound_at IS NULL "
        "WHERE d.last_seen_at IS NULL",
    ),
    (
        "device_test_overdue", False, "devices bound to an elder whose monthly self-test is more than a week late: "
        "GET /api/v1/devices/tests/due lists them, POST /api/v1/devices/{device_id}/tests tests one",
        "SELECT d.device_id FROM devices d JOIN bindings b ON b.device_id = d.device_id AND b.unbound_at IS NULL "
        "WHERE d.test_due_at < :week_ago",
    ),
    (
        "device_of_departed", False, "devices still bound to somebody who moved away or died: collect or rebind them",
        "SELECT b.device_id FROM bindings b JOIN elders e ON e.id = b.elder_id "
        "WHERE b.unbound_at IS NULL AND e.status IN ('moved', 'deceased')",
    ),
    (
        "classification_late", False, "people whose class was to be looked at before yesterday: no worker does it",
        "SELECT id::text FROM elders WHERE reclassify_on < CAST(:today AS date) - 1",
    ),
    (
        "roster_hole", False, "villages with active elders and no reachable village head or deputy today",
        "SELECT DISTINCT e.region_code FROM elders e WHERE e.status = 'active' AND NOT EXISTS (SELECT FROM duties d "
        "JOIN channels ch ON ch.visitor_id = d.visitor_id WHERE d.region_code = e.region_code "
        "AND d.role IN ('village_head', 'deputy') AND d.since <= :today AND (d.until IS NULL OR d.until >= :today))",
    ),
    (
        "unreachable_alarm", False, "open alarms of which nobody could be told",
        "SELECT id::text FROM alarms WHERE state <> 'resolved' AND unreachable_since IS NOT NULL",
    ),
    (
        "paused_webhook", False, "webhook subscriptions that hear nothing: paused by the server, see their paused_reason",
        "SELECT id::text FROM webhook_subscriptions WHERE paused_at IS NOT NULL AND paused_reason <> 'by_hand'",
    ),
    (
        "failing_webhook", False, "webhook subscriptions to which nothing could be delivered for more than an hour",
        "SELECT id::text FROM webhook_subscriptions WHERE paused_at IS NULL AND failing_since < :long_failing",
    ),
)  # fmt: skip

# Asked where a server should be running. What died long ago is forgotten as a dead part, and is missed here.
_MISSING_PART = (
    "no running process reports that it does this work; start one with `shouwang serve` (see --roles), or alarms are not "
    "taken in, not told or not escalated"
)
_MISSING = sa.text(
    """
    SELECT role FROM unnest(ARRAY['ingest', 'worker']) AS wanted(role)
    WHERE NOT EXISTS (SELECT FROM heartbeats WHERE seen_at >= :silent AND role = ANY(string_to_array(part, '+')))
    """
)

_EMBEDDED_BROKER = (
    "the MQTT broker is the embedded one: it lets everybody in under any name and keeps nothing on disk. It is for trying "
    "out; set SHOUWANG_MQTT_URL to a Mosquitto or EMQX before real devices connect"
)
# Asked when the broker is one that can tell devices apart.
_OWN_BROKER: tuple[tuple[str, bool, str, str], ...] = (
    (
        "device_without_credentials", False, "devices bound to an elder that have no password at the broker, or a "
        "revoked one: POST /api/v1/devices/{device_id}/credentials gives one",
        "SELECT d.device_id FROM devices d JOIN bindings b ON b.device_id = d.device_id AND b.unbound_at IS NULL "
        "LEFT JOIN device_credentials c ON c.device_id = d.device_id AND c.password_hash IS NOT NULL "
        "WHERE d.profile = 'native' AND c.device_id IS NULL",
    ),
)  # fmt: skip


async def look(
    session: AsyncSession,
    *,
    now: datetime,
    today: date,
    embedded_broker: bool | None,
    doing: Collection[str] | None = None,
) -> list[Finding]:
    """Everything that is not ready, the blocking first. Ids only: no names, no addresses.

    `embedded_broker` says whether the broker is the one that asks nobody for a password; None: leave that out. `doing`: the
    roles the asking process has itself; what neither it nor another process does is then a finding. None: leave that out.
    """
    revision = await schema_revision(session)
    if revision != newest_revision():
        return [Finding("schema", True, 1, f"the schema is at {revision}; run `shouwang migrate`")]
    values = {
        "late": now - _LATE, "silent": now - _SILENT, "forgotten": now - _FORGOTTEN, "today": today,
        "long_failing": now - _LONG_FAILING, "week_ago": now - _A_WEEK,
    }  # fmt: skip
    found: list[Finding] = []
    if doing is not None:
        undone = await session.execute(_MISSING, {"silent": values["silent"]})
        missing = [row.role for row in undone if row.role not in doing]
        if missing:
            found.append(Finding("missing_part", True, len(missing), _MISSING_PART, tuple(missing)))
    if embedded_broker:
        found.append(Finding("embedded_broker", False, 1, _EMBEDDED_BROKER))
    questions = _QUESTIONS if embedded_broker is not False else (*_QUESTIONS, *_OWN_BROKER)
    for name, blocking, detail, query in questions:
        text = sa.text(f"SELECT id, count(*) OVER () FROM ({query}) AS q(id) LIMIT {_SAMPLE}")  # noqa: S608 - constants
        used = {key: value for key, value in values.items() if f":{key}" in query}
        rows = (await session.execute(text, used)).all()
        if rows:
            found.append(Finding(name, blocking, rows[0][1], detail, tuple(row[0] for row in rows)))
    return found


async def beat(
    session: AsyncSession,
    *,
    process: str,
    part: str,
    ok: bool,
    detail: str,
    now: datetime,
    data_keys: Sequence[str] = (),
) -> None:
    """A part of this process says how it is, and which data keys it has, the sealing one first."""
    await session.execute(
        sa.text(
            "INSERT INTO heartbeats (process, part, seen_at, ok, detail, data_keys) "
            "VALUES (:process, :part, :now, :ok, :detail, :data_keys) "
            "ON CONFLICT (process, part) DO UPDATE SET seen_at = excluded.seen_at, ok = excluded.ok, "
            "detail = excluded.detail, data_keys = excluded.data_keys"
        ),
        {"process": process, "part": part, "now": now, "ok": ok, "detail": detail, "data_keys": list(data_keys)},
    )


async def leave(session: AsyncSession, *, process: str) -> None:
    """A calm shutdown is no fault."""
    await session.execute(sa.text("DELETE FROM heartbeats WHERE process = :process"), {"process": process})


async def processes_of(session: AsyncSession, *, host: str) -> list[str]:
    """The processes of a machine that have a heartbeat."""
    rows = await session.execute(
        sa.text("SELECT DISTINCT process FROM heartbeats WHERE starts_with(process, :host)"), {"host": host + ":"}
    )
    return [row.process for row in rows]
