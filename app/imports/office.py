"""Starts the process that works on lists when some wait; one at a time. It gets what it needs through its standard input:
keys stand in no argument and no environment."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.clock import Clock
from app.db import Sessions, transaction
from app.imports import queue
from app.settings import Keys
from app.signals import wait

log = logs.get("imports")
_LOOK_EVERY_S = 5.0
_REST_AFTER_A_CRASH_S = 5.0


class Office:
    """See the module. `run()` until cancelled."""

    def __init__(
        self, sessions: Sessions, clock: Clock, wake: asyncio.Event, *, url: str, keys: Keys, told: dict[str, str]
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._wake = wake
        self._url = url
        self._keys = keys
        self._told = told

    async def run(self) -> None:
        """Look for lists when told, and now and then: a process that died leaves its list behind."""
        while True:
            try:
                async with transaction(self._sessions) as session:
                    some = await queue.waiting(session, now=self._clock())
                if some:
                    await self._work()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("could not look for imports; looking again", error=type(error).__name__)
            await wait(self._wake, at_most_s=_LOOK_EVERY_S)

    async def _work(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOUWANG_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.imports", stdin=asyncio.subprocess.PIPE, env=environment
        )
        try:
            await process.communicate(json.dumps(self._given()).encode())
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if process.returncode:
            log.warning("the process that works on imports ended badly", code=process.returncode)
            await asyncio.sleep(_REST_AFTER_A_CRASH_S)

    def _given(self) -> dict[str, Any]:
        """The keys are those of this process, or the file they come from: they may be exchanged while it works."""
        file = self._keys.data_file
        return {
            "url": self._url,
            "data_keys": [] if file else [base64.b64encode(key).decode() for key in self._keys.data],
            "data_key_file": str(file.path) if file else None,
            **self._told,
        }


def told(*, timezone: str, language: str, log_level: str) -> dict[str, Any]:
    """What the process must know beside addresses and keys."""
    return {"timezone": timezone, "language": language, "log_level": log_level}
