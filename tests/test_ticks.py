"""The scheduler stops without a fault in its log."""

import asyncio
import logging
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from app.db import connect, sessions
from app.ticks import Ticks


@pytest.mark.unit
async def test_what_is_at_work_when_it_stops_is_no_fault(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = asyncio.Event()

    async def long_work(_: Ticks) -> int:
        working.set()
        await asyncio.sleep(60)
        return 0

    monkeypatch.setattr(Ticks, "look", long_work)
    monkeypatch.setattr(Ticks, "watch", long_work)
    ticks = Ticks(sessions(connect("postgresql:///nowhere")), lambda: datetime.now(UTC), ZoneInfo("Asia/Shanghai"))
    ticks.start()
    await asyncio.wait_for(working.wait(), 10)
    ticks.stop()
    await asyncio.sleep(0.05)
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
