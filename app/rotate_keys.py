"""`shouwang rotate-keys`: what an operator sees of a rotation of the data keys, and in which order things are done.

The keys come from a file that running servers read again (embedded, or DATA_KEY_FILE): then this command makes the new key
itself. Or from DATA_KEY, which a process reads at its start: then the operator has put the new key there already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from app.access import audit
from app.access.sealing import Sealer
from app.clock import Clock
from app.db import Sessions, transaction
from app.key_files import KeyFile, new_key
from app.privacy import rotation
from app.privacy.rotation import Process
from app.settings import Keys

_LOOK_S = 0.5
_PATIENCE = timedelta(seconds=30)  # processes read the file each 5 s; transactions end within 30 s
STEPS = """There is only one data key, and everything is sealed with it. To exchange it while the servers run:
  1. `shouwang new-key` prints a new key. In every process set SHOUWANG_DATA_KEY=OLD,NEW and restart one after the other:
     now each can open what is sealed with either.
  2. In every process set SHOUWANG_DATA_KEY=NEW,OLD and restart one after the other: the first key seals.
     (A single process may begin here.)
  3. `shouwang rotate-keys` with the same setting.
  4. When it says so, SHOUWANG_DATA_KEY=NEW everywhere. Keep OLD with the backups that were made before."""


class NotNow(Exception):
    """Why it cannot go on, and what would mend it."""


class Rotation:
    """One run of the command. `say` shows a line."""

    def __init__(self, sessions: Sessions, keys: Keys, clock: Clock, say: rotation.Say) -> None:
        self._sessions = sessions
        self._keys = keys
        self._clock = clock
        self._say = say
        self._sealer = Sealer(*keys.data)

    async def status(self) -> dict[str, int]:
        """How much of each table needs another key than the first."""
        async with self._sessions() as session:
            return await rotation.left(session, self._sealer)

    async def run(self) -> None:
        """Raises `NotNow`; whatever was done until then stays done, and the next run goes on."""
        if not await self._has_something_to_do():
            raise NotNow(STEPS)
        target = self._sealer.key_ids[0]
        self._say(f"Sealing with key {target}; others known: {', '.join(self._sealer.key_ids[1:]) or 'none'}.")
        await self._note("data_key.rotation_begun", target)
        await self._everybody("can open what is sealed with it", lambda process: target in process.keys)
        await self._everybody("seals with it", lambda process: process.keys[:1] == (target,))
        await self._old_transactions_end(self._clock())
        unopened = await self._reseal()
        if unopened:
            raise NotNow(
                f"{unopened} rows open with none of the keys given. If their key exists, add it behind the others and "
                "run this again; no key is taken away until then."
            )
        await self._finish(target)

    async def _has_something_to_do(self) -> bool:
        if len(self._keys.data) > 1 or any((await self.status()).values()):
            return True  # a rotation that was begun, or values from before keys had names
        if self._keys.data_file is None:
            return False
        self._keys.data_file.put_first(new_key())
        self._sealer = Sealer(*self._keys.data_file.read())
        self._say(f"Made a new key in {self._keys.data_file.path}; running servers read it within 5 seconds.")
        return True

    async def _everybody(self, what: str, good: rotation.Judge) -> None:
        """Wait until every running process does. Those that got their keys at their start never will: say so."""
        end = self._clock() + _PATIENCE
        while others := [one for one in await self._processes() if not good(one)]:
            if self._clock() > end or (self._keys.data_file is None and all(one.keys for one in others)):
                raise NotNow(_refusal(what, others, self._keys.data_file))
            await asyncio.sleep(_LOOK_S)

    async def _processes(self) -> list[Process]:
        async with self._sessions() as session:
            return await rotation.processes(session, now=self._clock())

    async def _old_transactions_end(self, since: datetime) -> None:
        """What was sealed with the old key a moment ago may still be on its way to its commit."""
        while True:
            async with self._sessions() as session:
                if not await rotation.older_transactions(session, than=since) or self._clock() > since + _PATIENCE:
                    return
            await asyncio.sleep(_LOOK_S)

    async def _reseal(self) -> int:
        self._say("Left to do: " + _counts(await self.status()))
        lost: dict[str, int] = {}
        async for step in rotation.reseal(self._sessions, self._sealer):
            lost[step.table] = step.unopened
            self._say(f"{step.table}: {step.done} of {step.of}")
        return sum(lost.values())

    async def _finish(self, target: str) -> None:
        await self._everybody("seals with it", lambda process: process.keys[:1] == (target,))
        await self._old_transactions_end(self._clock())
        if await self._reseal():
            raise NotNow("rows came that open with none of the keys; run this again")
        counted = await self.status()
        if any(counted.values()):
            raise NotNow(f"rows were sealed with another key meanwhile ({_counts(counted)}); run this again")
        old = self._sealer.key_ids[1:]
        await self._note("data_key.rotated", target, replaces=list(old))
        self._say(f"Counted: no value in any table needs another key than {target}.")
        if old:
            self._say(self._farewell(old))

    def _farewell(self, old: Sequence[str]) -> str:
        names, file = ", ".join(old), self._keys.data_file
        if file is None:
            return (
                f"The old key {names} is no longer needed by this database: take it out of SHOUWANG_DATA_KEY. Keep it "
                "with the backups that were made before, as long as those are kept."
            )
        retired = file.path.with_name(file.path.name + ".retired")
        file.keep_first(retired)
        return (
            f"The old key {names} is no longer needed by this database: it was moved to {retired}. Backups made before "
            "need it; delete it when they are gone."
        )

    async def _note(self, action: str, key_id: str, **detail: Any) -> None:
        async with transaction(self._sessions) as session:
            audit.write(
                session, audit.console("shouwang rotate-keys"), action=action, subject_type="data_key",
                subject_id=key_id, now=self._clock(), **detail,
            )  # fmt: skip


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{table} {count}" for table, count in counted.items() if count) or "nothing"


def _refusal(what: str, others: Sequence[Process], file: KeyFile | None) -> str:
    names = ", ".join(one.name for one in others)
    if any(not one.keys for one in others):
        mend = "they run a version that does not say which keys it has: upgrade them first"
    elif file is None:
        mend = "give them the keys in SHOUWANG_DATA_KEY, the new one first, and restart them"
    else:
        mend = f"does their DATA_KEY_FILE hold the same keys as {file.path}?"
    return f"Not every running process {what}: {names}. {mend[0].upper()}{mend[1:]}; then run this again."
