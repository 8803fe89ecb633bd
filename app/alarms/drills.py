"""What a guided test of a device tells, and to whom: the duty desk and the tester through the feed, the device itself. Not
the family; unless what was a test does not end with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from app import logs
from app.alarms import facts
from app.alarms.raising import Report, raise_alarms
from app.db import Hands
from app.devices import commissioning
from app.devices.commissioning import Passed
from app.rules.verdict import AlarmKind, Severity
from app.words import say

log = logs.get("drills")
_STILL = {"smoke": Severity.CRITICAL, "gas": Severity.CRITICAL, "water_leak": Severity.MAJOR}


class Speaks(Protocol):
    async def publish(self, topic: str, payload: bytes) -> None: ...


def tell_seen(session: Hands, passed: Sequence[Passed], *, now: datetime) -> None:
    """A test saw what it waited for: who watches the feed sees it within the second."""
    for one in passed:
        facts.tell(
            session, "device.test_seen", region_code=one.one.region_code or "", alarm_id=None, now=now,
            device_id=one.test.device_id, test_id=str(one.test.id), type=one.one.seen.event.type, seconds=round(one.seconds, 3),
        )  # fmt: skip


async def confirm(speaker: Speaks, passed: Sequence[Passed]) -> None:
    """The device hears that it was heard, as it would hear that help is coming. Best effort: the evidence is written."""
    for one in passed:
        if one.one.seen.source.profile != "native":
            continue  # other families have no way back
        body = {"type": "test", "test_id": str(one.test.id), "state": "seen", "message": say("test.seen")}
        try:
            payload = json.dumps(body, ensure_ascii=False).encode()
            await speaker.publish(f"devices/{one.test.device_id}/command", payload)
        except (ConnectionError, TimeoutError) as error:
            log.warning("a device could not be told that its test was seen", error=type(error).__name__)


async def end(session: Hands, *, now: datetime, tz: ZoneInfo) -> int:
    """Tests whose window is over: one that saw nothing is told, and a danger that began in one and has not ended alarms now.
    Returns how many there were."""
    rows = await commissioning.take_ended(session, now=now)
    still = []
    for row in rows:
        if row.seen_at is None and row.cancelled_at is None:
            facts.tell(
                session, "device.test_not_seen", region_code=row.region_code, alarm_id=None, now=now,
                device_id=row.device_id, test_id=str(row.id), expects=list(row.expects),
            )  # fmt: skip
        if row.still and row.elder_id is not None:
            still.append(_still(row.elder_id, row.elder_region or row.region_code, row.still, row.device_id, now))
    await raise_alarms(session, still, now=now, tz=tz)
    return len(rows)


def _still(elder_id: UUID, region_code: str, kind: str, device_id: str, now: datetime) -> Report:
    because = f"{say(f'because.{kind}')}({say('doubt.never_told')})"
    return Report(
        elder_id=elder_id, region_code=region_code, kind=AlarmKind(kind), severity=_STILL[kind], because=because,
        occurred_at=now, received_at=now, device_id=device_id,
    )  # fmt: skip


async def remind(session: Hands, *, now: datetime) -> int:
    """The monthly self-tests that are due, as one fact a place. Returns how many places there were."""
    digests = await commissioning.take_reminders(session, now=now)
    for one in digests:
        facts.tell(
            session, "device.tests_due", region_code=one.region_code, alarm_id=None, now=now,
            count=one.count, device_ids=list(one.device_ids), message=say("test.due", count=one.count),
        )  # fmt: skip
    return len(digests)
