"""Keeps a Mosquitto's password and access files in step with the database (`shouwang mosquitto-auth`).

Files are replaced as a whole, then the broker is told to read them again, which also cuts off every connected device
whose password is no longer good. Beside the files lie their `version`, written last, and a note of which broker was told
of which version: after a crash between writing and telling, or when the broker was being started meanwhile, it is told
again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from app import signals
from app.db import Sessions
from app.devices import credentials
from app.devices.credentials import Login, ServerLogin
from app.devices.mosquitto_files import (
    BadFile,
    access_file,
    difference,
    password_file,
    read_passwords,
    server_access_file,
    server_password_file,
)

PASSWORDS, ACCESS = "passwords", "acl"
SERVER_PASSWORDS, SERVER_ACCESS = "server-passwords", "server-acl"
VERSION, TOLD = "version", ".told"
_MODE = 0o600
_BREATH_S = 0.5  # between two times the broker reads its files: many changes at once are one
_MOST_NAMES = 20
_PROGRAM = "mosquitto"

Say = Callable[[str], None]


class Teller(Protocol):
    """Tells a running broker to read its files again."""

    def broker(self) -> str | None:
        """Which process would be told; None when none runs that could be."""

    async def tell(self) -> None:
        """Raises OSError when it cannot be told."""


class Nobody:
    """Whoever runs the broker watches `version` (deploy/mosquitto/run.sh)."""

    def broker(self) -> str | None:
        return None

    async def tell(self) -> None:
        raise OSError("nobody is to be told")


class ByPidFile:
    """SIGHUP to the process that the broker's `pid_file` names, if it is a Mosquitto that handles it by now: one that is
    still starting would be killed by it, and reads the new files anyway or is told at the next look."""

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file

    def broker(self) -> str | None:
        try:
            pid = int(self._pid_file.read_text().strip())
            proc = Path("/proc") / str(pid)
            if (proc / "comm").read_text().strip() != _PROGRAM or not _handles(proc, signal.SIGHUP):
                return None
            started = (proc / "stat").read_text().rpartition(")")[2].split()[19]
        except (OSError, ValueError, IndexError):
            return None
        return f"{pid}@{started}"

    async def tell(self) -> None:
        os.kill(int(self._pid_file.read_text().strip()), signal.SIGHUP)


class ByCommand:
    """A command of the deployer's, like `systemctl reload mosquitto`. Without a shell."""

    def __init__(self, command: str) -> None:
        self._words = shlex.split(command)

    def broker(self) -> str | None:
        return "command"

    async def tell(self) -> None:
        process = await asyncio.create_subprocess_exec(*self._words, stdin=asyncio.subprocess.DEVNULL)
        if (code := await process.wait()) != 0:
            raise OSError(f"the reload command ended with {code}")


def _handles(proc: Path, number: signal.Signals) -> bool:
    caught = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@dataclass(frozen=True, slots=True)
class More:
    """Files of accounts that are no devices of the register (gateways of other families)."""

    passwords: Path | None = None
    access: Path | None = None


class Keeper:
    """One broker's files. `look()` brings them in step once; `run()` does so for ever."""

    def __init__(
        self, folder: Path, server: ServerLogin, teller: Teller, *, more: More | None = None, say: Say
    ) -> None:
        self._folder = folder
        self._server = server
        self._teller = teller
        self._more = more or More()
        self._say = say
        self._warned: str | None = None

    async def look(self, sessions: Sessions) -> bool:
        """Write what differs and tell the broker. True when it changed or told anything. Raises `BadFile`, OSError,
        SQLAlchemyError."""
        async with sessions() as session:
            devices = await credentials.logins(session)
        wrote = self._write(list(devices))
        return await self._tell() or wrote

    async def run(self, sessions: Sessions, changed: asyncio.Event, *, every_s: float) -> None:
        """Look at every sign of a change and every `every_s` seconds, whatever goes away meanwhile."""
        while True:
            try:
                await self.look(sessions)
                self._warned = None
            except FAILURES as error:
                self._warn(in_words(error))
            await asyncio.sleep(_BREATH_S)
            await signals.wait(changed, at_most_s=every_s)

    def _write(self, devices: list[Login]) -> bool:
        more = read_passwords(self._more.passwords.read_text(encoding="utf-8")) if self._more.passwords else {}
        further = self._more.access.read_text(encoding="utf-8") if self._more.access else ""
        files = {  # rules first: nobody is let in before they stand
            SERVER_ACCESS: server_access_file(),
            ACCESS: access_file(devices, further),
            SERVER_PASSWORDS: server_password_file(self._server, _read(self._folder / SERVER_PASSWORDS) or ""),
            PASSWORDS: password_file(devices, more),
        }
        before = _read(self._folder / PASSWORDS) or ""
        wrote = [name for name, text in files.items() if _replace(self._folder / name, text)]
        for name in wrote:
            if name != PASSWORDS:
                self._say(f"{name} written")
        found = difference(before, files[PASSWORDS])
        for word, names in (("let in", found.added), ("new password", found.changed), ("shut out", found.removed)):
            if names:
                self._say(f"{word}: {_some(names)}")
        if left_out := tuple(device.username for device in devices if device.username in more):
            self._warn(f"left out, because the name is a further account's: {_some(left_out)}")
        return bool(wrote)

    async def _tell(self) -> bool:
        content = hashlib.sha256()
        for name in (PASSWORDS, ACCESS, SERVER_PASSWORDS, SERVER_ACCESS):
            content.update((self._folder / name).read_bytes())
        _replace(self._folder / VERSION, content.hexdigest() + "\n")
        broker = self._teller.broker()
        if broker is None:
            return False  # a broker that is started later reads the files by itself, and is told once more
        note = f"{broker} {content.hexdigest()}\n"
        if _read(self._folder / TOLD) == note:
            return False
        await self._teller.tell()
        _replace(self._folder / TOLD, note)
        self._say("the broker reads its files again")
        return True

    def _warn(self, sentence: str) -> None:
        if sentence != self._warned:  # once, not at every look
            self._say(f"warning: {sentence}")
        self._warned = sentence


FAILURES = (BadFile, OSError, SQLAlchemyError, TimeoutError)


def in_words(error: Exception) -> str:
    """What went wrong at a look, and with which file."""
    match error:
        case BadFile():
            return str(error)
        case SQLAlchemyError() | TimeoutError() | ConnectionError():
            return f"the database does not answer, or has no such table yet ({type(error).__name__}); trying again"
        case OSError(filename=str() as name):
            return f"{name}: {error.strerror}"
        case _:
            return str(error)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _replace(path: Path, text: str) -> bool:
    """Put `text` there as a whole, readable by its owner alone; as root, the owner is the folder's. False: it was there."""
    if _read(path) == text:
        return False
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), _MODE)
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return True
