"""`shouwang replay`: a recording, or an elder's journal, run through the rules; alarms as JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.devices.events import Observation, Status
from app.devices.reading import moment
from app.elders.history import status_periods
from app.elders.status import status_on
from app.elders.vocabulary import Observed
from app.errors import InvalidInput, NotFound
from app.rules.cover import Cover, PeriodKind
from app.rules.replaying import Alarm, Recorded, Replay, Taken, received_order
from app.rules.settings import Document, RuleFault, Rules, lay_over, read_document
from app.watches.due import covering
from app.watches.recorded import BadLine, from_journal_row, read_lines
from app.watches.settings import rulebook

Write = Callable[[str], None]


def timezone() -> ZoneInfo:
    """The zone of the installation: a replay of a file needs no other setting, and no database."""
    name = os.environ.get("SHOUWANG_TIMEZONE", "Asia/Shanghai")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise InvalidInput(f"SHOUWANG_TIMEZONE is no time zone: {name[:60]}", field="timezone") from None


@dataclass(frozen=True, slots=True)
class Span:
    """Which alarms are printed, and how far time passes."""

    begins: datetime | None
    ends: datetime | None

    @classmethod
    def read(cls, begins: str, ends: str, tz: ZoneInfo) -> Span:
        """Times as people write them: RFC 3339, local without a zone, or a day (`--to` includes the day)."""
        span = cls(_moment("--from", begins, tz, last=False), _moment("--to", ends, tz, last=True))
        if span.begins and span.ends and span.begins > span.ends:
            raise InvalidInput("--from comes after --to", field="from")
        return span

    def tells(self, alarm: Alarm) -> bool:
        return self.begins is None or alarm.at >= self.begins


def _moment(name: str, text: str, tz: ZoneInfo, *, last: bool) -> datetime | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        found = moment(text, tz)
        if found is None:
            raise InvalidInput(
                f"{name} must be a time like 2026-10-01T08:00:00+08:00, or a day", field=name.strip("-")
            ) from None
        return found
    return datetime(day.year, day.month, day.day, *((23, 59, 59) if last else (0, 0, 0)), tzinfo=tz)


def read_rules(path: Path | None) -> Document:
    """The settings of a file: the body of `PUT /rules`, or its `settings` alone. Raises `InvalidInput` saying what to
    mend."""
    if path is None:
        return {}
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field="rules") from None
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}", field="rules") from None
    if isinstance(body, dict) and "settings" in body:
        body = body["settings"]
    try:
        return read_document(body)
    except RuleFault as fault:
        raise InvalidInput(f"{path}: {fault}", field=fault.path) from None


def tried(in_force: Sequence[Document], document: Document) -> Rules:
    """What would hold with this document on top. Raises `InvalidInput` where it sets a floor above a ceiling."""
    try:
        return lay_over([*in_force, document], strict=bool(document))
    except RuleFault as fault:
        raise InvalidInput(f"--rules: {fault}", field=fault.path) from None


def from_file(
    path: Path, document: Document, span: Span, tz: ZoneInfo, *, dementia: bool, write: Write
) -> list[BadLine]:
    """Replay a recording. Lines that cannot be read are returned; the others are replayed without them."""
    bad: list[BadLine] = []
    good: list[Recorded] = []
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as lines:
            for one in read_lines(lines, tz):
                if isinstance(one, BadLine):
                    bad.append(one)
                else:
                    good.append(one)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field="events") from None
    _print(Replay(tried((), document), tz, dementia=dementia).run(received_order(good), until=span.ends), span, write)
    return bad


_PERSON = sa.text("SELECT region_code, dementia, observed FROM elders WHERE id = :id")
# Everything that devices of this person said, in the order it came: ids grow with time.
_JOURNAL = sa.text(
    """
    SELECT j.id, j.device_id, j.type, j.occurred_at, j.device_time, j.received_at, j.late, j.data, d.kind, d.place
    FROM (SELECT DISTINCT device_id FROM bindings WHERE elder_id = :elder_id) b
    JOIN device_events j ON j.device_id = b.device_id AND j.elder_id = :elder_id
    JOIN devices d ON d.device_id = j.device_id
    WHERE CAST(:ends AS timestamptz) IS NULL OR j.received_at <= :ends
    ORDER BY j.id
    """
)


# A device that is off the network now: when it or its broker said so is the last that was heard of it.
_DEVICES = sa.text(
    """
    SELECT b.device_id, b.unbound_at, d.kind, d.place, d.last_seen_at, d.online
    FROM bindings b JOIN devices d ON d.device_id = b.device_id
    WHERE b.elder_id = :elder_id ORDER BY b.bound_at
    """
)
_PERIODS = sa.text(
    "SELECT kind, begins_at, coalesce(ended_at, ends_at) AS ends_at FROM watch_periods "
    "WHERE elder_id = :elder_id AND coalesce(ended_at, ends_at) > begins_at"
)


async def from_journal(
    session: AsyncSession, elder_id: UUID, document: Document, span: Span, tz: ZoneInfo, *, now: datetime, write: Write
) -> None:
    """Replay what an elder's devices said, by the settings in force for this elder with those tried laid over them, and
    with the periods and statuses of that time. Time passes up to `now`."""
    person = (await session.execute(_PERSON, {"id": elder_id})).first()
    if person is None:
        raise NotFound("no such elder")
    rows = (await session.execute(_JOURNAL, {"elder_id": elder_id, "ends": span.ends})).mappings()
    events = [one for one in (from_journal_row(dict(row)) for row in rows) if one is not None]
    until = min(span.ends or now, now)
    devices = (await session.execute(_DEVICES, {"elder_id": elder_id})).all()
    events += [_offline(row) for row in devices if row.unbound_at is None and row.online is False and row.last_seen_at]
    book = await rulebook(session, [elder_id], now=now)
    in_force = [one.settings for one in book.versions(person.region_code, elder_id)]
    replay = Replay(
        tried(in_force, document),
        tz,
        dementia=person.dementia,
        bedridden=person.observed == Observed.BEDRIDDEN,
        covers=await _covers(session, elder_id, until, tz),
        taken=[Taken(row.device_id, row.unbound_at.timestamp()) for row in devices if row.unbound_at is not None],
    )
    _print(replay.run(received_order(events), until=until), span, write)


def _offline(row: Any) -> Recorded:
    """The word of a network that a device is gone, which the journal does not hold."""
    at = row.last_seen_at
    seen = Observation(device_id=row.device_id, event=Status(False), received_at=at, occurred_at=at)
    return Recorded(seen, row.kind, row.place)


async def _covers(session: AsyncSession, elder_id: UUID, until: datetime, tz: ZoneInfo) -> list[Cover]:
    """What was not told: periods of the home, and the statuses of the register, day by day."""
    covers = [
        Cover(PeriodKind(row.kind), row.begins_at.timestamp(), row.ends_at.timestamp())
        for row in await session.execute(_PERIODS, {"elder_id": elder_id})
    ]
    statuses = (await status_periods(session, [elder_id])).get(elder_id, ())
    day = min((one.since for one in statuses), default=date.max)
    while day <= until.astimezone(tz).date():
        following = day + timedelta(days=1)
        kind = covering(status_on(statuses, day).effects)
        if kind is not None:
            begins, ends = (datetime.combine(one, time(), tz).timestamp() for one in (day, following))
            covers.append(Cover(kind, begins, ends))
        day = following
    return covers


def _print(alarms: Iterable[Alarm], span: Span, write: Write) -> None:
    for alarm in alarms:
        if span.tells(alarm):
            write(
                json.dumps(
                    {
                        "at": alarm.at.isoformat(timespec="seconds"),
                        "kind": alarm.kind.value,
                        "severity": alarm.severity.value,
                        "because": alarm.because,
                    },
                    ensure_ascii=False,
                )
            )
