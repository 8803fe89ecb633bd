"""What visitors and offices are told once a day. The database is the timer: `digest_timers.next_at`; a message is
written once for its key, however many workers look, and sent by a dispatcher of its own (app/notify/digests.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.wall import beyond
from app.elders.policy import Period
from app.elders.tables import Elder
from app.elders.vocabulary import DutyRole
from app.errors import VersionMismatch
from app.ids import new_uuid
from app.notify import digests
from app.notify.digests import Digest
from app.notify.vocabulary import DigestKind
from app.visits import tasks
from app.visits.calendar import Span, span_of
from app.visits.duties import due_of
from app.visits.hours import Hours, Rising, at, next_time, silent_from, speak_from, turn
from app.visits.kept import is_open
from app.visits.rules import Due
from app.visits.special import Special
from app.visits.vocabulary import TaskKind
from app.visits.work_tables import DigestSetting
from app.words import say

_BATCH = 20  # visitors: some hundreds of elders, some tens of milliseconds
_NAMED = 20  # names in one paragraph
_RISE_AGAIN = timedelta(days=1)


# --- settings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """All settings, so that looking one up is pure: a visitor's own, then the nearest region's, then the plain ones."""

    rows: Sequence[DigestSetting]

    def hours(self, region_code: str, visitor_id: UUID | None = None) -> Hours:
        row = next((r for r in self.rows if visitor_id is not None and r.visitor_id == visitor_id), None)
        row = row or self._nearest(region_code)
        return Hours(row.at, row.quiet_from, row.quiet_until, row.enabled) if row else Hours()

    def rising(self, region_code: str) -> Rising:
        row = self._nearest(region_code)
        if row is None:
            return Rising()
        return Rising(row.week_village, row.week_township, row.month_village, row.month_township)

    def _nearest(self, region_code: str) -> DigestSetting | None:
        covering = [r for r in self.rows if r.region_code is not None and region_code.startswith(r.region_code)]
        return max(covering, key=lambda r: len(r.region_code or ""), default=None)


async def settings(session: AsyncSession) -> Settings:
    return Settings((await session.execute(select(DigestSetting))).scalars().all())


async def set_hours(
    session: AsyncSession,
    of: Mapping[str, Any],
    fields: Mapping[str, Any],
    *,
    version: int | None,
    now: datetime,
    tz: ZoneInfo,
) -> DigestSetting:
    """Keep a region's or a visitor's setting; whom it concerns is looked at when the chosen hour comes next. Raises
    `VersionMismatch`."""
    [(name, value)] = of.items()
    query = select(DigestSetting).where(col(getattr(DigestSetting, name)) == value).with_for_update()
    row = (await session.execute(query)).scalar_one_or_none()
    if version is not None and version != (row.version if row else 0):
        raise VersionMismatch("the setting changed since you read it; read it again")
    if row is None:
        plain = {name: getattr(Rising(), name) for name in Rising.__dataclass_fields__}
        row = DigestSetting(id=new_uuid(now), **of, **{**plain, **fields})
        session.add(row)
    else:
        for field, given in fields.items():
            setattr(row, field, given)
        row.version += 1
    hours = Hours(row.at, row.quiet_from, row.quiet_until, row.enabled)
    values = {
        "region": of.get("region_code"),
        "visitor": str(of.get("visitor_id")),
        "next_at": next_time(now, hours, tz),
    }
    await session.flush()
    async with beyond(session, "timers are the worker's; this only says when it looks at those concerned"):
        await session.execute(_PLAN_ANEW, values)
    return row


# --- the timer -------------------------------------------------------------------------------------------------------

# A new row has no time yet: its first message comes at the next chosen hour, not at once.
_DUE = sa.text(
    """
    SELECT t.kind, t.ref, t.next_at, coalesce(v.region_code, r.code) AS region_code, v.id AS visitor_id, v.name
    FROM digest_timers t
    LEFT JOIN visitors v ON t.kind = 'visitor' AND v.id = CAST(CASE t.kind WHEN 'visitor' THEN t.ref END AS uuid)
    LEFT JOIN regions r ON t.kind = 'region' AND r.code = t.ref
    WHERE t.next_at IS NULL OR t.next_at <= :now
    ORDER BY t.next_at NULLS FIRST, t.kind, t.ref LIMIT :batch FOR UPDATE OF t SKIP LOCKED
    """
)
_SET = sa.text(
    """
    UPDATE digest_timers t SET next_at = w.next_at
    FROM unnest(CAST(:kind AS text[]), CAST(:ref AS text[]), CAST(:next_at AS timestamptz[])) AS w(kind, ref, next_at)
    WHERE t.kind = w.kind AND t.ref = w.ref
    """
)
# Who has a nearer setting is looked at too early by it, which does no harm: their own hours decide, and a day's message
# is written once.
_PLAN_ANEW = sa.text(
    """
    UPDATE digest_timers t SET next_at = :next_at
    WHERE CASE WHEN CAST(:region AS text) IS NULL THEN t.kind = 'visitor' AND t.ref = :visitor
               WHEN t.kind = 'region' THEN t.ref ^@ :region
               ELSE EXISTS (SELECT FROM visitors v WHERE v.id::text = t.ref AND v.region_code ^@ :region) END
    """
)
_FORGET = sa.text("DELETE FROM digest_timers WHERE kind = :kind AND ref = :ref")


async def take_due(session: AsyncSession, *, now: datetime, tz: ZoneInfo) -> int:
    """One batch of visitors and offices whose hour has come. Returns how many there were."""
    rows = (await session.execute(_DUE, {"now": now, "batch": _BATCH})).all()
    if not rows:
        return 0
    chosen = await settings(session)
    visitors: list[tuple[Any, Hours]] = []
    regions: list[tuple[Any, Hours]] = []
    times: list[tuple[str, str, datetime]] = []
    for row in rows:
        if row.region_code is None:
            await session.execute(_FORGET, {"kind": row.kind, "ref": row.ref})
            continue
        hours = chosen.hours(row.region_code, row.visitor_id)
        its = turn(now, hours, tz) if row.next_at else None
        times.append((row.kind, row.ref, its.next_at if its else next_time(now, hours, tz)))
        if its and its.write:
            (visitors if row.kind == "visitor" else regions).append((row, hours))
    await _tell_visitors(session, visitors, now=now, tz=tz)
    for row, hours in regions:
        if not await _tell_office(session, row.region_code, chosen.rising(row.region_code), hours, now=now, tz=tz):
            times = [(k, ref, now + timedelta(minutes=1)) if (k, ref) == (row.kind, row.ref) else (k, ref, when)
                     for k, ref, when in times]  # fmt: skip
    kind, ref, next_at = ([one[n] for one in times] for n in range(3))
    await session.execute(_SET, {"kind": kind, "ref": ref, "next_at": next_at})
    return len(rows)


_KEPT = timedelta(days=90)  # messages hold names; longer than a month, so that no closing month is told twice


async def forget_old(session: AsyncSession, now: datetime) -> None:
    """Messages are not kept for good."""
    await session.execute(sa.text("DELETE FROM digests WHERE created_at < :before"), {"before": now - _KEPT})


# --- visitors --------------------------------------------------------------------------------------------------------

# Backups are asked where nobody is primary, and where it is overdue or an emergency left a visit to make.
_PAIRED = sa.text(
    """
    SELECT a.visitor_id, a.elder_id, a.role = 'primary' OR NOT EXISTS (
               SELECT FROM assignments p WHERE p.elder_id = a.elder_id AND p.ended_at IS NULL AND p.role = 'primary'
           ) AS first,
           (SELECT min(s.position) FROM round_stops s JOIN rounds r ON r.id = s.round_id
            WHERE r.cancelled_at IS NULL AND s.day = :today AND s.elder_id = a.elder_id
              AND s.visitor_id = a.visitor_id) AS planned
    FROM assignments a JOIN elders e ON e.id = a.elder_id
    WHERE a.visitor_id = ANY(CAST(:visitors AS uuid[])) AND a.ended_at IS NULL AND e.status IN ('active', 'paused')
    """
)


@dataclass(frozen=True, slots=True)
class Call:
    """Somebody a visitor is told of today."""

    elder: Elder
    due: Due
    follow_up_by: datetime | None
    planned: int | None  # the place in today's round

    def shape(self) -> dict[str, Any]:
        return {
            "elder": {"id": str(self.elder.id), "name": self.elder.name, "region_code": self.elder.region_code},
            "period": self.due.often.period, "period_end": self.due.span.end, "visits_required": self.due.visits_required,
            "visits_done": self.due.visits_done, "overdue": self.due.overdue,
            "special_period": self.due.special.name if self.due.special else None,
            "follow_up_by": self.follow_up_by, "planned_today": self.planned is not None,
        }  # fmt: skip


async def calls_of(
    session: AsyncSession, visitors: Collection[UUID], *, now: datetime, tz: ZoneInfo
) -> Mapping[UUID, list[Call]]:
    """What is due today for each of these visitors."""
    today = now.astimezone(tz).date()
    pairs = (await session.execute(_PAIRED, {"visitors": list(visitors), "today": today})).all()
    ids = sorted({row.elder_id for row in pairs})
    people = (await session.execute(select(Elder).where(col(Elder.id).in_(ids)))).scalars().all()
    asked = await tasks.open_tasks(session, ids, now=now)
    by = {id_: min((row.due_at for row in rows if row.kind == TaskKind.FOLLOW_UP), default=None)
          for id_, rows in asked.items()}  # fmt: skip
    known = await due_of(session, people, on=today, tz=tz, follow_ups=[id_ for id_, when in by.items() if when])
    elders = {elder.id: elder for elder in people}
    found: dict[UUID, list[Call]] = {}
    for row in pairs:
        call = Call(elders[row.elder_id], known[row.elder_id], by.get(row.elder_id), row.planned)
        concerned = row.first or call.due.overdue or call.follow_up_by or call.planned is not None
        if is_open(call.due) and concerned:
            found.setdefault(row.visitor_id, []).append(call)
    for calls in found.values():
        calls.sort(key=lambda call: (call.due.span.end, call.elder.name, call.elder.id))
    return found


# Called back and nobody did anything since; told to whoever is asked first for the elder.
_CALLED_BACK = sa.text(
    """
    SELECT a.visitor_id, f.id, f.kind, f.topic, f.elder_id, e.name, e.region_code
    FROM assignments a JOIN elders e ON e.id = a.elder_id JOIN findings f ON f.elder_id = a.elder_id
    WHERE a.visitor_id = ANY(CAST(:visitors AS uuid[])) AND a.ended_at IS NULL AND f.ended_at IS NULL
      AND (f.reminders > 0 OR f.remind_on <= :today) AND e.status IN ('active', 'paused')
      AND (a.role = 'primary' OR NOT EXISTS (SELECT FROM assignments p WHERE p.elder_id = a.elder_id
                                             AND p.ended_at IS NULL AND p.role = 'primary'))
    ORDER BY e.name, f.id
    """
)


async def called_back(session: AsyncSession, visitors: Collection[UUID], *, today: date) -> Mapping[UUID, list[Any]]:
    """Hazards, hardship and duties that each of these visitors is reminded of."""
    found: dict[UUID, list[Any]] = {}
    for row in await session.execute(_CALLED_BACK, {"visitors": list(visitors), "today": today}):
        found.setdefault(row.visitor_id, []).append(row)
    return found


# Devices whose self-test is due, of the people whom the visitor is asked first for.
_TO_TEST = sa.text(
    """
    SELECT a.visitor_id, d.device_id, d.kind, d.place, d.test_due_at, e.id AS elder_id, e.name, e.region_code
    FROM assignments a JOIN elders e ON e.id = a.elder_id
    JOIN bindings b ON b.elder_id = a.elder_id AND b.unbound_at IS NULL
    JOIN devices d ON d.device_id = b.device_id
    WHERE a.visitor_id = ANY(CAST(:visitors AS uuid[])) AND a.ended_at IS NULL AND d.test_due_at <= :now
      AND e.status = 'active'
      AND (a.role = 'primary' OR NOT EXISTS (SELECT FROM assignments p WHERE p.elder_id = a.elder_id
                                             AND p.ended_at IS NULL AND p.role = 'primary'))
    ORDER BY e.name, d.test_due_at, d.device_id
    """
)


async def to_test(session: AsyncSession, visitors: Collection[UUID], *, now: datetime) -> Mapping[UUID, list[Any]]:
    """Devices that each of these visitors should test with the person who wears them ("press now")."""
    found: dict[UUID, list[Any]] = {}
    for row in await session.execute(_TO_TEST, {"visitors": list(visitors), "now": now}):
        found.setdefault(row.visitor_id, []).append(row)
    return found


def tests_alone_are_told(tests: Iterable[Any], now: datetime) -> bool:
    """A self-test waits for the next visit: alone it is a message on the day it is due, and each week after."""
    return any((now - row.test_due_at).days % 7 == 0 for row in tests)


async def message_of(
    session: AsyncSession, visitor_id: UUID, region_code: str, *, now: datetime, tz: ZoneInfo
) -> Digest | None:
    """What a visitor would be told now; None: nothing."""
    return (await _messages(session, {visitor_id: (region_code, Hours())}, now=now, tz=tz)).get(visitor_id)


async def _messages(
    session: AsyncSession, visitors: Mapping[UUID, tuple[str, Hours]], *, now: datetime, tz: ZoneInfo
) -> Mapping[UUID, Digest]:
    calls = await calls_of(session, visitors, now=now, tz=tz)
    findings = await called_back(session, visitors, today=now.astimezone(tz).date())
    tests = await to_test(session, visitors, now=now)
    return {
        id_: for_visitor(
            id_, region, calls.get(id_, ()), findings.get(id_, ()), tests.get(id_, ()), hours, now=now, tz=tz
        )
        for id_, (region, hours) in visitors.items()
        if id_ in calls or id_ in findings or tests_alone_are_told(tests.get(id_, ()), now)
    }


async def _tell_visitors(
    session: AsyncSession, due: Sequence[tuple[Any, Hours]], *, now: datetime, tz: ZoneInfo
) -> None:
    if not due:
        return
    whom = {row.visitor_id: (row.region_code, hours) for row, hours in due}
    for message in (await _messages(session, whom, now=now, tz=tz)).values():
        await digests.plan(session, message, now=now)


def for_visitor(
    visitor_id: UUID, region_code: str, calls: Sequence[Call], findings: Sequence[Any], tests: Sequence[Any], hours: Hours, *,
    now: datetime, tz: ZoneInfo,
) -> Digest:  # fmt: skip
    """One message with everything: what is planned today, what an emergency left, what is overdue, the rest by when it is
    due, what was found and nobody followed, and which devices are to be tested. Names, and nothing that is sealed. Pure."""
    today = now.astimezone(tz).date()
    overdue = sum(1 for call in calls if call.due.overdue)
    key = "due_overdue" if overdue else "due" if calls else "only_findings" if findings else "only_tests"
    title = say(f"digest.{key}", people=len(calls), overdue=overdue, findings=len(findings), devices=len(tests))
    lines, left = [], list(calls)

    def paragraph(key: str, chosen: Iterable[Call], **figures: object) -> None:
        named = list(chosen)
        if named:
            lines.append(say(f"digest.{key}", names=_names([call.elder.name for call in named]), **figures))
            ids = {call.elder.id for call in named}
            left[:] = [call for call in left if call.elder.id not in ids]

    paragraph("planned", sorted((c for c in left if c.planned is not None), key=lambda c: c.planned or 0))
    for call in sorted((c for c in left if c.follow_up_by), key=lambda c: (c.follow_up_by, c.elder.id)):
        assert call.follow_up_by is not None
        paragraph("follow_up", [call], by=f"{call.follow_up_by.astimezone(tz):%m-%d %H:%M}")
    paragraph("overdue", [call for call in left if call.due.overdue])
    for special in _asking(left):
        mine = [c for c in left if c.due.special == special and _special_asks(c)]
        paragraph("special", mine, period=special.name, by=f"{special.span.end:%m-%d}")
    for period in Period:
        for end in sorted({c.due.span.end for c in left if c.due.often.period is period}):
            mine = [c for c in left if c.due.often.period is period and c.due.span.end == end]
            paragraph(period.value, mine, by=f"{end:%m-%d}")
    if findings:
        named = [say("digest.finding", name=row.name, what=say(f"finding.{row.kind}")) for row in findings]
        lines.append(say("digest.findings", names=_names(list(dict.fromkeys(named)))))
    if tests:
        named = [say("digest.device", name=row.name, what=row.place or say(f"device.{row.kind}")) for row in tests]
        lines.append(say("digest.tests", names=_names(list(dict.fromkeys(named)))))
    to_press = [{"device_id": row.device_id, "kind": row.kind, "place": row.place, "due_since": row.test_due_at,
                 "elder": {"id": row.elder_id, "name": row.name, "region_code": row.region_code}} for row in tests]  # fmt: skip
    left_open = [{"id": row.id, "kind": row.kind, "topic": row.topic, "elder": {"id": row.elder_id, "name": row.name,
                  "region_code": row.region_code}} for row in findings]  # fmt: skip
    return Digest(
        DigestKind.DUE, f"{today}", visitor_id, region_code, title, "\n".join(lines),
        {"day": str(today), "visits": [call.shape() for call in calls], "findings": left_open,
         "self_tests": to_press},
        frozenset([call.elder.id for call in calls] + [row.elder_id for row in (*findings, *tests)]), now,
        silent_from(now, hours, tz),
    )  # fmt: skip


def _asking(calls: Sequence[Call]) -> list[Special]:
    """The special periods that still ask for something, those that end first before the others."""
    found = {call.due.special for call in calls if call.due.special is not None and _special_asks(call)}
    return sorted(found, key=lambda special: (special.span.end, special.name, special.id))


def _special_asks(call: Call) -> bool:
    there = call.due.special_progress
    return there is not None and not there.fulfilled


def _names(names: Sequence[str]) -> str:
    shown = say("digest.comma").join(names[:_NAMED])
    return shown if len(names) <= _NAMED else say("digest.and_more", names=shown, people=len(names))


# --- offices ---------------------------------------------------------------------------------------------------------

_OFFICE = sa.text(
    """
    SELECT d.role, d.visitor_id FROM duties d
    WHERE d.region_code = ANY(CAST(:regions AS text[])) AND d.since <= :today AND (d.until IS NULL OR d.until >= :today)
      AND EXISTS (SELECT FROM channels c WHERE c.visitor_id = d.visitor_id AND c.kind NOT IN ('voice', 'device'))
    ORDER BY d.role, d.visitor_id
    """
)


async def _offices(session: AsyncSession, region_code: str, today: date) -> tuple[list[UUID], list[UUID]]:
    """Who is to be told in a village and in its township: heads, their deputies where there is none; those on duty."""
    township = region_code[:9] + "000"
    rows = (await session.execute(_OFFICE, {"regions": [region_code, township], "today": today})).all()
    held: dict[str, list[UUID]] = {}
    for row in rows:
        held.setdefault(row.role, []).append(row.visitor_id)
    heads = held.get(DutyRole.VILLAGE_HEAD) or held.get(DutyRole.DEPUTY) or []
    return heads, held.get(DutyRole.TOWNSHIP_DUTY, [])


_UNVISITED = sa.text(
    """
    SELECT d.elder_id, e.name, e.region_code, r.name AS village
    FROM visit_duties d JOIN elders e ON e.id = d.elder_id JOIN regions r ON r.code = e.region_code
    WHERE d.region_code ^@ :prefix AND d.still > 0 AND d.period = :period AND d.period_end = :end
    ORDER BY e.region_code, e.name, d.elder_id
    """
)
_ANY_STALE = sa.text("SELECT EXISTS (SELECT FROM visit_duties WHERE region_code ^@ :prefix AND look_on <= :today)")


async def _tell_office(
    session: AsyncSession, region_code: str, rising: Rising, hours: Hours, *, now: datetime, tz: ZoneInfo
) -> bool:
    """A week or month is about to close with people unvisited: the village head first, then the township's duty, each
    once a period. False: the kept duties of the place are being judged anew; ask again soon."""
    today = now.astimezone(tz).date()
    township = region_code.endswith("000")
    prefix = region_code[:9] if township else region_code
    closing = []
    for period in Period:
        span = span_of(period, today)
        lead = rising.township(period) if township else rising.village(period)
        if (span.end - today).days <= lead:
            closing.append((period, span))
    if not closing:
        return True
    if await session.scalar(_ANY_STALE, {"prefix": prefix, "today": today}):
        return False
    heads, duty = await _offices(session, region_code, today)
    told = duty if township else heads or duty  # a step with nobody in it costs no time
    for period, span in closing:
        values = {"prefix": prefix, "period": period.value, "end": span.end}
        rows = (await session.execute(_UNVISITED, values)).all()
        if rows:
            for visitor_id in told:
                message = for_office(visitor_id, region_code, period, span, rows, hours, now=now, tz=tz)
                await digests.plan(session, message, now=now)
    return True


def for_office(
    visitor_id: UUID, region_code: str, period: Period, span: Span, rows: Sequence[Any], hours: Hours, *,
    now: datetime, tz: ZoneInfo,
) -> Digest:  # fmt: skip
    """Who was not visited in a week or month that is about to close, by village. Pure."""
    title = say(f"digest.closing_{period.value}", people=len(rows), by=f"{span.end:%m-%d}")
    villages: dict[str, list[str]] = {}
    for row in rows:
        villages.setdefault(row.village, []).append(row.name)
    lines = [say("digest.village", village=name, people=len(names), names=_names(names))
             for name, names in villages.items()]  # fmt: skip
    data = {"period": period.value, "period_start": str(span.start), "period_end": str(span.end),
            "region_code": region_code,
            "unvisited": [{"id": str(row.elder_id), "name": row.name, "region_code": row.region_code}
                          for row in rows]}  # fmt: skip
    return Digest(
        DigestKind.UNVISITED, f"{period.value}:{span.start}:{region_code}", visitor_id, region_code, title,
        "\n".join(lines), data, frozenset(row.elder_id for row in rows), now, silent_from(now, hours, tz),
    )  # fmt: skip


# --- what an emergency left and nobody did ---------------------------------------------------------------------------

_RISE = sa.text(
    "SELECT id, risen FROM care_tasks WHERE rise_at <= :now ORDER BY rise_at LIMIT 50 FOR UPDATE SKIP LOCKED"
)
_RISEN = sa.text("UPDATE care_tasks SET risen = :risen, rise_at = :again WHERE id = :id")


async def raise_overdue_tasks(session: AsyncSession, *, now: datetime, tz: ZoneInfo) -> int:
    """A follow-up or assessment that is overdue: the village head is told, a day later the township's duty. Returns how
    many tasks were looked at."""
    due = {row.id: row.risen for row in await session.execute(_RISE, {"now": now})}
    if not due:
        return 0
    still = {row.id: row for row in await tasks.overdue_ones(session, list(due), now=now)}
    chosen = await settings(session)
    for id_, risen in due.items():
        row = still.get(id_)
        again = now + _RISE_AGAIN if row is not None and risen == 0 else None
        if row is not None:
            hours = chosen.hours(row.region_code)
            heads, duty = await _offices(session, row.region_code, now.astimezone(tz).date())
            for visitor_id in (heads or duty) if risen == 0 else duty:
                await digests.plan(session, for_task(visitor_id, row, risen, hours, now=now, tz=tz), now=now)
        await session.execute(_RISEN, {"id": id_, "risen": risen + 1, "again": again})
    return len(due)


def for_task(visitor_id: UUID, row: Any, risen: int, hours: Hours, *, now: datetime, tz: ZoneInfo) -> Digest:
    """A task that nobody did in time. Pure."""
    by = f"{row.due_at.astimezone(tz):%m-%d %H:%M}"
    start = speak_from(now, hours, tz)
    return Digest(
        DigestKind.TASK_OVERDUE, f"{row.id}:{risen}", visitor_id, row.region_code,
        say(f"digest.task_{row.kind}", name=row.elder_name), say("digest.task", because=row.because, by=by),
        {"task": {"id": str(row.id), "kind": row.kind, "due_at": row.due_at, "because": row.because},
         "elder": {"id": str(row.elder_id), "name": row.elder_name, "region_code": row.region_code}},
        frozenset([row.elder_id]), start,
        max(silent_from(start, hours, tz), at(start.astimezone(tz).date(), hours.at, tz) + timedelta(hours=12)),
    )  # fmt: skip
