"""Homes that are due to be looked at: judged as they are now, by the settings of now. The database is the timer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alarms.raising import Report, raise_alarms
from app.elders.status import EFFECTS, AlarmsGo, Effects
from app.elders.vocabulary import CareLevel, ElderStatus, Observed, StatusReason
from app.rules.cover import Cover, PeriodKind
from app.rules.home import Home, forget_device
from app.rules.verdict import AlarmKind
from app.rules.watches import watch
from app.rules.watching import Device, Ease, Rise, View
from app.visits import tasks
from app.visits.tasks import Asked
from app.visits.vocabulary import TaskKind
from app.watches import bridges, easing
from app.watches.following import read_state, write_state
from app.watches.settings import rulebook
from app.words import say

_BATCH: Final = 200
_REMEMBERED: Final = timedelta(days=8)  # a period that ended still says from when a silence counts
_VISIT_WITHIN: Final = timedelta(days=1)

_DUE = sa.text(
    "SELECT elder_id FROM home_states WHERE due_at <= :now ORDER BY due_at LIMIT :batch FOR UPDATE SKIP LOCKED"
)
_HOMES = sa.text(
    """
    SELECT h.elder_id, h.state, e.region_code, e.dementia, e.observed, e.status, e.status_reason, e.care_level
    FROM unnest(CAST(:ids AS uuid[])) AS i(id)
    CROSS JOIN LATERAL (SELECT * FROM home_states WHERE elder_id = i.id LIMIT 1) h
    CROSS JOIN LATERAL (SELECT * FROM elders WHERE id = i.id LIMIT 1) e
    """
)
_DEVICES = sa.text(
    """
    SELECT b.elder_id, d.device_id, d.kind, d.place, greatest(d.last_seen_at, b.bound_at) AS heard, d.online
    FROM bindings b
    CROSS JOIN LATERAL (SELECT * FROM devices WHERE device_id = b.device_id LIMIT 1) d
    WHERE b.elder_id = ANY(CAST(:ids AS uuid[])) AND b.unbound_at IS NULL
    """
)
_PERIODS = sa.text(
    """
    SELECT elder_id, kind, begins_at, coalesce(ended_at, ends_at) AS ends_at FROM watch_periods
    WHERE elder_id = ANY(CAST(:ids AS uuid[])) AND ends_at > :since AND coalesce(ended_at, ends_at) > begins_at
    """
)
_KEEP = sa.text(
    """
    UPDATE home_states h SET state = x.state, due_at = x.due_at, version = h.version + 1
    FROM unnest(CAST(:elder_id AS uuid[]), CAST(:state AS text[]), CAST(:due_at AS timestamptz[]))
         AS x(elder_id, state, due_at)
    WHERE h.elder_id = x.elder_id
    """
)
# Whoever wears a device is watched over, also before it said anything.
_BEGIN = sa.text(
    """
    INSERT INTO home_states (elder_id, state, due_at, version)
    SELECT DISTINCT b.elder_id, '{}', CAST(:now AS timestamptz), 1 FROM bindings b  -- hourly: one walk over them
    WHERE b.unbound_at IS NULL AND NOT EXISTS (SELECT FROM home_states h WHERE h.elder_id = b.elder_id)
    ORDER BY 1
    ON CONFLICT DO NOTHING
    """
)


async def begin(session: AsyncSession, now: datetime) -> None:
    """A state for every home that has devices and none yet: those that speak get one by speaking."""
    await session.execute(_BEGIN, {"now": now})


async def find_due(session: AsyncSession, *, now: datetime) -> list[UUID]:
    """The homes to look at, locked; those that another worker holds are its own."""
    return list((await session.execute(_DUE, {"now": now, "batch": _BATCH})).scalars())


async def take_due(
    session: AsyncSession, *, now: datetime, tz: ZoneInfo, zigbee_bases: Collection[str] = ("zigbee2mqtt",)
) -> int:
    """Look at a batch of homes; raise, grow and ease in the same transaction. Returns how many there were."""
    ids = await find_due(session, now=now)
    if not ids:
        return 0
    rows = (await session.execute(_HOMES, {"ids": ids})).all()
    devices, periods = await _devices(session, ids), await _periods(session, ids, now)
    gone = await bridges.gone(session, devices, roots=zigbee_bases)
    book = await rulebook(session, ids, now=now)
    reports: list[Report] = []
    eased: list[tuple[UUID, Ease]] = []
    kept: list[tuple[UUID, str, datetime | None]] = []
    asking: set[UUID] = set()
    for row in rows:
        home = read_state(row.state)
        view = View(
            tz, book.rules(row.region_code, row.elder_id), dementia=row.dementia,
            bedridden=row.observed == Observed.BEDRIDDEN, covers=(*periods[row.elder_id], *_by_status(row, now)),
            devices=devices[row.elder_id], bridges=gone.get(row.elder_id, ()),
        )  # fmt: skip
        _forget_unbound(home, view)
        found = watch(home, view, now.timestamp())
        for one in found.told:
            match one:
                case Rise():
                    reports.append(_report(row, one, now))
                case Ease():
                    eased.append((row.elder_id, one))
        if row.care_level == CareLevel.KEY:
            asking.add(row.elder_id)
        kept.append((row.elder_id, write_state(home), _moment(found.again)))
    await session.execute(_KEEP, {
        "elder_id": [one for one, _, _ in kept], "state": [state for _, state, _ in kept],
        "due_at": [due_at for _, _, due_at in kept],
    })  # fmt: skip
    await raise_alarms(session, reports, now=now, tz=tz)
    await _ask_for_visits(session, [one for one in reports if one.elder_id in asking], now=now, tz=tz)
    await easing.ease(session, eased, now=now, tz=tz)
    return len(ids)


def _report(row: Any, rise: Rise, now: datetime) -> Report:
    return Report(
        elder_id=row.elder_id, region_code=row.region_code, kind=rise.kind, severity=rise.severity,
        because=rise.because, occurred_at=_moment(rise.since) or now, received_at=now, device_id=rise.device_id,
    )  # fmt: skip


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _forget_unbound(home: Home, view: View) -> None:
    for device_id in [one for one in home.gadgets if one not in view.devices]:
        forget_device(home, device_id)


def _by_status(row: Any, now: datetime) -> list[Cover]:
    """What the register says: in hospital, away, moved, deceased. Looked at again each day, so that it ends with the
    status."""
    reason = StatusReason(row.status_reason) if row.status_reason else None
    kind = covering(EFFECTS[ElderStatus(row.status), reason])
    return [] if kind is None else [Cover(kind, 0, (now + timedelta(days=1)).timestamp())]


def covering(effects: Effects) -> PeriodKind | None:
    """What a status of the register holds back, as a period does."""
    if effects.alarms is AlarmsGo.AS_USUAL:
        return None
    return PeriodKind.MAINTENANCE if effects.collect_devices else PeriodKind.AWAY


async def _devices(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, dict[str, Device]]:
    found: dict[UUID, dict[str, Device]] = defaultdict(dict)
    for row in await session.execute(_DEVICES, {"ids": list(ids)}):
        found[row.elder_id][row.device_id] = Device(row.kind, row.place, row.heard.timestamp(), row.online)
    return found


async def _periods(session: AsyncSession, ids: Collection[UUID], now: datetime) -> dict[UUID, list[Cover]]:
    found: dict[UUID, list[Cover]] = defaultdict(list)
    for row in await session.execute(_PERIODS, {"ids": list(ids), "since": now - _REMEMBERED}):
        cover = Cover(PeriodKind(row.kind), row.begins_at.timestamp(), row.ends_at.timestamp())
        found[row.elder_id].append(cover)
    return found


_ALARMS = sa.text(
    "SELECT id, elder_id FROM alarms WHERE elder_id = ANY(CAST(:ids AS uuid[])) AND kind = ANY(CAST(:kinds AS text[])) "
    "AND state <> 'resolved'"
)


async def _ask_for_visits(session: AsyncSession, reports: Sequence[Report], *, now: datetime, tz: ZoneInfo) -> None:
    """A device of a key person that is silent asks for a visit: nobody else would notice."""
    blind = {one.elder_id: one for one in reports if one.kind in (AlarmKind.DEVICE_SILENT, AlarmKind.BRIDGE_OFFLINE)}
    if not blind:
        return
    kinds = [AlarmKind.DEVICE_SILENT.value, AlarmKind.BRIDGE_OFFLINE.value]
    for row in (await session.execute(_ALARMS, {"ids": list(blind), "kinds": kinds})).all():
        because = say("task.silent_device", because=blind[row.elder_id].because)[:500]
        asked = Asked(row.elder_id, row.id, TaskKind.FOLLOW_UP, because, _VISIT_WITHIN)
        await tasks.ask(session, asked, now=now, tz=tz)
