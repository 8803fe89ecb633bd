"""Putting devices into service: the guided test ("press now"), its evidence, and the monthly self-test that comes after.

A test is a short window in which one device is expected to say one thing. What it says then is journalled, seen, and told
to whoever tests, not to the family. Everything else alarms as ever (docs/adr/0029): another danger, the same one after it
was seen, a report of before the test, and smoke that does not end with the test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Hands
from app.devices.edges import Because, Edge
from app.devices.events import CLOCK_TOLERANCE, Bed, Door, Event, Gas, Heartbeat, Motion, Smoke, Status, WaterLeak
from app.devices.journal import Journalled
from app.devices.vocabulary import DeviceKind
from app.errors import Conflict, InvalidInput
from app.ids import new_uuid

WINDOW: Final = timedelta(minutes=2)
BOUNCE: Final = timedelta(seconds=10)  # a button that is tested is pressed twice
EACH: Final = timedelta(days=31)  # "monthly"
REMIND: Final = timedelta(days=7)
_BATCH = 2000

# What a device of a kind is there for. These kinds are tested monthly.
EXPECTED: Final[dict[DeviceKind, tuple[str, ...]]] = {
    DeviceKind.SOS_BUTTON: ("sos",),
    DeviceKind.FALL_DETECTOR: ("fall", "fall_warning"),
    DeviceKind.SMOKE_DETECTOR: ("smoke",),
    DeviceKind.GAS_DETECTOR: ("gas",),
    DeviceKind.WATER_SENSOR: ("water_leak",),
}
_ALSO: Final[dict[DeviceKind, tuple[str, ...]]] = {
    DeviceKind.DOOR_SENSOR: ("door",),
    DeviceKind.MOTION_SENSOR: ("motion",),
    DeviceKind.BED_SENSOR: ("bed",),
}
MAY_EXPECT: Final = ("sos", "fall", "fall_warning", "smoke", "gas", "water_leak", "door", "motion", "bed", "press",
                     "switch", "heartbeat", "vitals", "cancel")  # fmt: skip


class Outcome(StrEnum):
    WAITING = "waiting"
    SEEN = "seen"
    NOT_SEEN = "not_seen"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Drill:
    """A window, open or not. `seen_at`: when the expected word arrived."""

    id: UUID
    device_id: str
    expects: Sequence[str]
    started_at: datetime
    ends_at: datetime
    seen_at: datetime | None = None


class Part(StrEnum):
    """What an observation is to a test."""

    NONE = "none"  # it is no part of it, and alarms as ever
    SEEN = "seen"  # it is what was waited for
    AGAIN = "again"  # the same press once more, or the same condition still said


def part_in(test: Drill, one: Journalled) -> Part:
    """Whether what a device says belongs to its test. Doubt is an alarm."""
    seen, because = one.seen, one.edge_reason
    if seen.event.type not in test.expects or not _begins(seen.event) or seen.retained:
        return Part.NONE
    if not test.started_at <= seen.received_at <= test.ends_at or because is Because.UNHEARD:
        return Part.NONE
    if seen.occurred_at < test.started_at - CLOCK_TOLERANCE:
        return Part.NONE  # it waited somewhere: a press of before
    if test.seen_at is None:
        return Part.SEEN if one.edge is Edge.NEWS and because is not Because.STILL else Part.NONE
    if because is Because.NEVER_TOLD or one.edge is Edge.REPEAT:
        return Part.AGAIN
    return Part.AGAIN if seen.received_at <= test.seen_at + BOUNCE else Part.NONE


def _begins(event: Event) -> bool:
    match event:
        case Smoke(active) | Gas(active) | WaterLeak(active) | Motion(active):
            return active
        case Door() | Bed() | Heartbeat():
            return True
        case Status():
            return False
        case _:
            return True


def expected_of(kind: DeviceKind, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """What a test waits for. Raises `InvalidInput` for a kind that says nothing by itself, when nothing was asked for."""
    if wanted:
        unknown = sorted(set(wanted) - set(MAY_EXPECT))
        if unknown:
            raise InvalidInput(f"{', '.join(unknown)}: must be of {', '.join(MAY_EXPECT)}", field="expects")
        return tuple(dict.fromkeys(wanted))
    expected = EXPECTED.get(kind) or _ALSO.get(kind)
    if expected is None:
        raise InvalidInput(f"a device of the kind {kind.value} has nothing of its own to say: name it", field="expects")
    return expected


# What a device says, the most telling first → what it is.
_TELLS: Final = {
    "sos": DeviceKind.SOS_BUTTON, "fall": DeviceKind.FALL_DETECTOR, "fall_warning": DeviceKind.FALL_DETECTOR,
    "smoke": DeviceKind.SMOKE_DETECTOR, "gas": DeviceKind.GAS_DETECTOR, "water_leak": DeviceKind.WATER_SENSOR,
    "door": DeviceKind.DOOR_SENSOR, "bed": DeviceKind.BED_SENSOR, "motion": DeviceKind.MOTION_SENSOR,
}  # fmt: skip


def kind_by_what_it_says(said: Sequence[str]) -> DeviceKind | None:
    """A guess, for whoever claims it; None: it said nothing that tells."""
    return next((kind for word, kind in _TELLS.items() if word in said), None)


# --- a test ------------------------------------------------------------------------------------------------------------------

_COLUMNS = (
    "t.id, t.device_id, t.elder_id, t.expects, t.started_at, t.ends_at, t.started_by, t.note, t.seen_at, t.event_id, "
    "t.event_type, t.cancelled_at"
)


async def start(
    session: AsyncSession,
    *,
    device_id: str,
    elder_id: UUID | None,
    expects: Sequence[str],
    window: timedelta,
    by: dict[str, Any],
    note: str | None,
    now: datetime,
) -> UUID:
    """Open the window. Raises `Conflict` while another is open, or while an alarm that the device could join is."""
    open_ = await session.scalar(
        sa.text(
            "SELECT id FROM device_tests WHERE device_id = :device_id AND cancelled_at IS NULL AND seen_at IS NULL "
            "AND ends_at > :now LIMIT 1"
        ),
        {"device_id": device_id, "now": now},
    )
    if open_ is not None:
        raise Conflict("a test of this device is going on; wait for its end, or cancel it")
    alarm = elder_id and await session.scalar(
        sa.text(
            "SELECT id FROM alarms WHERE elder_id = :elder_id AND state <> 'resolved' AND kind = ANY(CAST(:kinds AS text[])) "
            "LIMIT 1"
        ),
        {"elder_id": elder_id, "kinds": ["fall" if kind == "fall_warning" else kind for kind in expects]},
    )
    if alarm:
        raise Conflict("an alarm of this kind is unresolved for the wearer: deal with it first")
    id_ = new_uuid(now)
    await session.execute(
        sa.text(
            "INSERT INTO device_tests (id, device_id, elder_id, expects, started_at, ends_at, started_by, note) "
            "VALUES (:id, :device_id, :elder_id, :expects, :now, :ends_at, CAST(:by AS jsonb), :note)"
        ),
        {
            "id": id_, "device_id": device_id, "elder_id": elder_id, "expects": list(expects), "now": now,
            "ends_at": now + window, "by": json.dumps(by, ensure_ascii=False), "note": note,
        },
    )  # fmt: skip
    await session.execute(
        sa.text("UPDATE devices SET testing_until = :ends_at WHERE device_id = :device_id"),
        {"ends_at": now + window, "device_id": device_id},
    )
    return id_


async def cancel(session: AsyncSession, test_id: UUID, device_id: str, *, now: datetime) -> bool:
    """End the window before its time. False: it is over."""
    done = await session.execute(
        sa.text(
            "UPDATE device_tests SET cancelled_at = :now WHERE id = :id AND device_id = :device_id "
            "AND cancelled_at IS NULL AND seen_at IS NULL AND ends_at > :now RETURNING id"
        ),
        {"id": test_id, "device_id": device_id, "now": now},
    )
    if done.first() is None:
        return False
    await session.execute(
        sa.text("UPDATE devices SET testing_until = NULL WHERE device_id = :device_id"), {"device_id": device_id}
    )
    return True


async def find(session: AsyncSession, device_id: str, test_id: UUID) -> Any:
    return (
        await session.execute(
            sa.text(f"SELECT {_COLUMNS} FROM device_tests t WHERE t.id = :id AND t.device_id = :device_id"),  # noqa: S608
            {"id": test_id, "device_id": device_id},
        )
    ).one_or_none()


async def of_device(session: AsyncSession, device_id: str, *, before: UUID | None, limit: int) -> Sequence[Any]:
    """Newest first."""
    return (
        await session.execute(
            sa.text(
                f"SELECT {_COLUMNS} FROM device_tests t WHERE t.device_id = :device_id "  # noqa: S608 - constant columns
                "AND (CAST(:before AS uuid) IS NULL OR t.id < :before) ORDER BY t.id DESC LIMIT :limit"
            ),
            {"device_id": device_id, "before": before, "limit": limit},
        )
    ).all()


def outcome_of(row: Any, *, now: datetime) -> Outcome:
    if row.seen_at is not None:
        return Outcome.SEEN
    if row.cancelled_at is not None:
        return Outcome.CANCELLED
    return Outcome.WAITING if row.ends_at > now else Outcome.NOT_SEEN


# --- on the way of an event ---------------------------------------------------------------------------------------------------

_OPEN = sa.text(
    """
    SELECT t.id, t.device_id, t.expects, t.started_at, t.ends_at, t.seen_at
    FROM unnest(CAST(:device_id AS text[])) AS i(device_id)
    CROSS JOIN LATERAL (
        SELECT * FROM device_tests WHERE device_id = i.device_id AND cancelled_at IS NULL ORDER BY id DESC LIMIT 1
    ) t
    """
)
_SEEN = sa.text(
    """
    WITH seen AS (
        SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:device_id AS text[]), CAST(:seen_at AS timestamptz[]),
                             CAST(:event AS uuid[]), CAST(:type AS text[])) AS s(id, device_id, seen_at, event, type)
    ),
    evidence AS (
        UPDATE device_tests t SET seen_at = s.seen_at, event_id = s.event, event_type = s.type
        FROM seen s WHERE t.id = s.id AND t.seen_at IS NULL
    )
    UPDATE devices d SET test_due_at = s.seen_at + CAST(:each AS interval), test_remind_at = s.seen_at + CAST(:each AS interval)
    FROM seen s WHERE d.device_id = s.device_id AND d.test_due_at IS NOT NULL
    """
)
_MARK = sa.text(
    """
    UPDATE device_events v SET data = v.data || jsonb_build_object('_test', m.test::text)
    FROM unnest(CAST(:event AS uuid[]), CAST(:test AS uuid[])) AS m(event, test) WHERE v.id = m.event
    """
)
# What only was a test has not been told: if it is said again when the test is over, it is news.
_NOT_TOLD = sa.text(
    """
    UPDATE device_states s SET raised_at = NULL, raises = 0, version = s.version + 1
    FROM unnest(CAST(:device_id AS text[])) AS i(device_id)
    WHERE s.device_id = i.device_id AND s.value IN ('smoke', 'gas', 'water_leak')
    """
)


@dataclass(frozen=True, slots=True)
class Passed:
    """A test that saw what it waited for: how many seconds after its start."""

    test: Drill
    one: Journalled
    seconds: float


async def take(session: Hands, journalled: Sequence[Journalled]) -> list[Passed]:
    """Take out of the way of alarms what belongs to a test (`Journalled.tested`). Of batches without one, nothing is asked."""
    those = [one for one in journalled if one.fresh and one.testing_until and one.seen.received_at <= one.testing_until]
    if not those:
        return []
    ids = sorted({one.seen.device_id for one in those})
    tests = {row.device_id: Drill(*row) for row in await session.execute(_OPEN, {"device_id": ids})}
    passed: list[Passed] = []
    for one in those:
        test = tests.get(one.seen.device_id)
        part = part_in(test, one) if test else Part.NONE
        if test is None or part is Part.NONE:
            continue
        one.tested = test.id
        if part is Part.SEEN:
            seconds = (one.seen.received_at - test.started_at).total_seconds()
            passed.append(Passed(test, one, seconds))
            tests[test.device_id] = Drill(
                test.id, test.device_id, test.expects, test.started_at, test.ends_at, one.seen.received_at
            )
    tested = [one for one in those if one.tested]
    if tested:
        await session.execute(_MARK, {"event": [one.id for one in tested], "test": [one.tested for one in tested]})
        conditions = [one.seen.device_id for one in tested if isinstance(one.seen.event, Smoke | Gas | WaterLeak)]
        if conditions:
            await session.execute(_NOT_TOLD, {"device_id": sorted(set(conditions))})
    if passed:
        await session.execute(_SEEN, {
            "id": [one.test.id for one in passed],
            "device_id": [one.test.device_id for one in passed],
            "seen_at": [one.one.seen.received_at for one in passed],
            "event": [one.one.id for one in passed],
            "type": [one.one.seen.event.type for one in passed],
            "each": EACH,
        })  # fmt: skip
    return passed


# --- what is over, and what is due -------------------------------------------------------------------------------------------

_ENDED = sa.text(
    """
    WITH over AS (
        SELECT id FROM device_tests WHERE closed_at IS NULL AND ends_at <= :now ORDER BY ends_at LIMIT :batch
        FOR UPDATE SKIP LOCKED
    )
    UPDATE device_tests t SET closed_at = :now FROM over, devices d
    WHERE t.id = over.id AND d.device_id = t.device_id
    RETURNING t.id, t.device_id, t.seen_at, t.cancelled_at, t.expects, d.region_code,
        (SELECT b.elder_id FROM bindings b WHERE b.device_id = t.device_id AND b.unbound_at IS NULL LIMIT 1) AS elder_id,
        (SELECT e.region_code FROM bindings b JOIN elders e ON e.id = b.elder_id
         WHERE b.device_id = t.device_id AND b.unbound_at IS NULL LIMIT 1) AS elder_region,
        (SELECT s.value FROM device_states s WHERE s.device_id = t.device_id AND s.raised_at IS NULL
           AND s.value IN ('smoke', 'gas', 'water_leak') LIMIT 1) AS still
    """
)


async def take_ended(session: Hands, *, now: datetime) -> Sequence[Any]:
    """Windows that are over since the last look, each once. `still`: a danger that began in the test and has not ended."""
    rows: Sequence[Any] = (await session.execute(_ENDED, {"now": now, "batch": _BATCH})).all()
    still = [row.device_id for row in rows if row.still]
    if still:
        await session.execute(_TOLD_NOW, {"device_id": still, "now": now})
    return rows


_TOLD_NOW = sa.text(
    """
    UPDATE device_states s SET raised_at = :now, raises = 1, version = s.version + 1
    FROM unnest(CAST(:device_id AS text[])) AS i(device_id)
    WHERE s.device_id = i.device_id AND s.raised_at IS NULL AND s.value IN ('smoke', 'gas', 'water_leak')
    """
)
_REMIND = sa.text(
    """
    WITH due AS (
        SELECT device_id FROM devices WHERE test_remind_at <= :now ORDER BY test_remind_at LIMIT :batch
        FOR UPDATE SKIP LOCKED
    )
    UPDATE devices d SET test_remind_at = :again FROM due WHERE d.device_id = due.device_id
    RETURNING d.region_code, d.device_id
    """
)


@dataclass(frozen=True, slots=True)
class Digest:
    """Devices of one place whose self-test is due."""

    region_code: str
    count: int
    device_ids: Sequence[str]  # some of them


async def take_reminders(session: Hands, *, now: datetime) -> list[Digest]:
    """One batch of devices whose monthly self-test is due, told by place; again after a week. Empty: none."""
    rows = (await session.execute(_REMIND, {"now": now, "again": now + REMIND, "batch": _BATCH})).all()
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.region_code, []).append(row.device_id)
    return [Digest(code, len(ids), sorted(ids)[:20]) for code, ids in sorted(places.items())]


_DUE = """
    SELECT d.device_id, d.kind, d.place, d.region_code, b.elder_id, d.test_due_at,
           (SELECT max(t.seen_at) FROM device_tests t WHERE t.device_id = d.device_id) AS last_tested_at
    FROM devices d JOIN bindings b ON b.device_id = d.device_id AND b.unbound_at IS NULL
    WHERE d.test_due_at <= :now AND d.region_code LIKE :scope
"""


async def due(
    session: AsyncSession, *, scope: str, now: datetime, after: tuple[datetime, str] | None, limit: int
) -> Sequence[Any]:
    """Worn devices whose self-test is due, the longest due first."""
    where, values = "", {"now": now, "scope": scope + "%", "limit": limit}
    if after:
        where = " AND (d.test_due_at, d.device_id) > (:at, :id)"
        values |= {"at": after[0], "id": after[1]}
    query = sa.text(f"{_DUE}{where} ORDER BY d.test_due_at, d.device_id LIMIT :limit")
    return (await session.execute(query, values)).all()


async def must_be_tested(session: AsyncSession, device_id: str, kind: DeviceKind, *, now: datetime) -> None:
    """From now on the device is one that is tested monthly, or is not. The first test is due at once."""
    due_at = now if kind in EXPECTED else None
    await session.execute(
        sa.text("UPDATE devices SET test_due_at = :due_at, test_remind_at = :remind WHERE device_id = :device_id"),
        {"due_at": due_at, "remind": due_at and due_at + REMIND, "device_id": device_id},
    )
