"""`shouwang replay`: a recording, or an elder's journal, run through the rules; alarms as JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.devices.reading import moment
from app.elders.vocabulary import Observed
from app.errors import InvalidInput, NotFound
from app.rules.replaying import Alarm, Recorded, Replay, received_order
from app.rules.settings import Document, RuleFault, Rules, lay_over, read_document
from app.watches.recorded import BadLine, from_journal_row, read_lines

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
        document = read_document(body)
        lay_over([document], strict=True)
    except RuleFault as fault:
        raise InvalidInput(f"{path}: {fault}", field=fault.path) from None
    return document


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
    _print(Replay(lay_over([document]), tz, dementia=dementia).run(received_order(good), until=span.ends), span, write)
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


async def from_journal(
    session: AsyncSession, elder_id: UUID, document: Document, span: Span, tz: ZoneInfo, *, now: datetime, write: Write
) -> None:
    """Replay what an elder's devices said, by the settings tried on top of the defaults. Time passes up to `now`."""
    person = (await session.execute(_PERSON, {"id": elder_id})).first()
    if person is None:
        raise NotFound("no such elder")
    rows = (await session.execute(_JOURNAL, {"elder_id": elder_id, "ends": span.ends})).mappings()
    events = [one for one in (from_journal_row(dict(row)) for row in rows) if one is not None]
    rules: Rules = lay_over([document])
    bedridden = person.observed == Observed.BEDRIDDEN
    replay = Replay(rules, tz, dementia=person.dementia, bedridden=bedridden)
    _print(replay.run(received_order(events), until=min(span.ends or now, now)), span, write)


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
