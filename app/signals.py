"""«Look now»: PostgreSQL's LISTEN/NOTIFY wakes this process's loops. A signal is only a hint: every loop also looks by
itself from time to time, so a lost one costs a second, never a fact."""

from __future__ import annotations

import asyncio
from enum import StrEnum

import asyncpg

from app import logs
from app.db import driver_arguments

_CHANNEL = "shouwang"
_RETRY_S = 1.0
log = logs.get("signals")


class Signal(StrEnum):
    FEED = "feed"  # facts were committed
    OUTBOX = "outbox"  # notices wait
    WEBHOOKS = "webhooks"  # deliveries to subscribers wait
    CREDENTIALS = "credentials"  # a device's log-in at the broker changed (said by a trigger: deleting says it too)
    CATALOGUE = "catalogue"  # a device profile, a gateway's names or a device of a configured family changed
    IMPORTS = "imports"  # a list waits for its dry run, or to be written


def signal_sql(signal: Signal) -> str:
    """The expression that tells every process when its transaction commits: part of the statement that makes the cause."""
    return f"pg_notify('{_CHANNEL}', '{signal.value}')"


class Signals:
    """One listening connection for a process; loops wait on the event of their signal."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.events = {signal: asyncio.Event() for signal in Signal}
        self._more: list[tuple[frozenset[Signal], asyncio.Event]] = []

    def listen(self, *signals: Signal) -> asyncio.Event:
        """Another loop's own event, set by any of these signals: the loops of `events` clear theirs."""
        event = asyncio.Event()
        self._more.append((frozenset(signals), event))
        return event

    async def run(self) -> None:
        """Listen until cancelled, across restarts of the database."""
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("listening again soon", error=type(error).__name__)
            self._wake_all()
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(**driver_arguments(self._url), timeout=10)
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        try:
            await connection.add_listener(_CHANNEL, lambda _c, _p, _ch, payload: self._heard(str(payload)))
            self._wake_all()  # whatever was said while nobody listened
            await gone.wait()
        finally:
            await connection.close(timeout=2)

    def _heard(self, payload: str) -> None:
        if payload in {signal.value for signal in Signal}:
            signal = Signal(payload)
            self.events[signal].set()
            for signals, event in self._more:
                if signal in signals:
                    event.set()

    def _wake_all(self) -> None:
        for event in [*self.events.values(), *(event for _, event in self._more)]:
            event.set()


async def wait(event: asyncio.Event, *, at_most_s: float) -> None:
    """Return when the event is set, or after a while; the event is cleared."""
    try:
        async with asyncio.timeout(at_most_s):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
