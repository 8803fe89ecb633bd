"""Upkeep of the register goes on beside the alarms: in small bites, with rests, each kind of work in its turn."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.upkeep import LISTS, REGISTER, Upkeep
from tests.world import TZ, World


class Pile:
    """Work that is due, a batch at a time."""

    def __init__(self, name: str, batches: int, done: list[str], takes_s: float = 0.0) -> None:
        self.__name__ = name
        self._batches, self._done, self._takes_s = batches, done, takes_s

    async def __call__(self, session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
        if self._batches == 0:
            return 0
        self._batches -= 1
        await asyncio.sleep(self._takes_s)
        self._done.append(self.__name__)
        return 1


async def test_a_list_at_its_hour_does_not_wait_for_a_hundred_thousand_duties(world: World) -> None:
    done: list[str] = []
    upkeep = Upkeep(world.sessions, world.time, TZ)
    duties = asyncio.create_task(upkeep.until_done(Pile("duties", 5, done)))
    while not done:
        await asyncio.sleep(0)
    await upkeep.until_done(Pile("lists", 1, done))
    assert "lists" in done[:3]
    await duties
    assert sorted(done) == ["duties"] * 5 + ["lists"]


async def test_it_rests_nine_times_as_long_as_it_works_and_does_one_thing_at_a_time(world: World) -> None:
    done: list[str] = []
    upkeep = Upkeep(world.sessions, world.time, TZ)
    began = time.monotonic()
    await asyncio.gather(
        upkeep.until_done(Pile("duties", 2, done, takes_s=0.02)),
        upkeep.until_done(Pile("months", 2, done, takes_s=0.02)),
    )
    assert time.monotonic() - began >= 4 * 10 * 0.02


async def test_what_finds_nothing_is_asked_once_and_costs_no_rest(world: World) -> None:
    done: list[str] = []
    upkeep = Upkeep(world.sessions, world.time, TZ)
    began = time.monotonic()
    await upkeep.a_batch_of_each({**REGISTER, **LISTS})  # each as the ticks call it, on a real database
    took = time.monotonic() - began
    began = time.monotonic()
    await upkeep.until_done(Pile("nothing", 0, done))
    assert done == []
    assert time.monotonic() - began < max(took, 0.2)


async def test_a_database_that_is_away_ends_one_round_and_not_the_next(world: World) -> None:
    calls = 0

    async def flaky(session: AsyncSession, now: datetime, tz: ZoneInfo) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OperationalError("SELECT 1", {}, OSError("away"))
        return 0

    upkeep = Upkeep(world.sessions, world.time, TZ)
    await upkeep.until_done(flaky)
    await asyncio.wait_for(upkeep.until_done(flaky), 5)
    assert calls == 2
