"""`python -m app.imports`, started by `office`: works on lists until none waits, with little priority and bounded memory."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from app import logs, words
from app.access.sealing import Sealer
from app.clock import system_clock
from app.db import connect, sessions
from app.imports.work import Work
from app.key_files import KeyFile

_MOST_MEMORY = 3 * 1024**3  # of addresses, not of pages in use: a list of 100,000 people needs a fraction


async def work(given: dict[str, Any]) -> None:
    """Do what waits."""
    sealer = _sealer(given)
    engine = connect(given["url"], pool=2)
    try:
        await Work(sessions(engine), sealer, system_clock, ZoneInfo(given["timezone"])).do_all()
    finally:
        await engine.dispose()


def _sealer(given: dict[str, Any]) -> Sealer:
    """With the keys as they are now, and as they will be: they may be exchanged while this process works."""
    if given["data_key_file"] is None:
        return Sealer(*(base64.b64decode(key) for key in given["data_keys"]))
    file = KeyFile(Path(given["data_key_file"]))
    return Sealer(*file.read(), reread=file.changed)


def main() -> None:
    """Read what is needed from standard input, and begin."""
    given = json.loads(sys.stdin.read())
    os.nice(10)  # alarms go first
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    logs.set_up(given["log_level"])
    words.speak(given["language"])
    asyncio.run(work(given))


if __name__ == "__main__":
    main()
