"""Which process owns an embedded server: the holder of a file lock, which the kernel drops when the holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Ownership:
    """An exclusive lock on a file. `take()` tells whether this process is now the owner."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def take(self) -> bool:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def free_slot(folder: Path, kind: str, *, limit: int = 64) -> tuple[int, Ownership]:
    """The lowest number not taken by another living process of this folder: a name that survives a restart."""
    for number in range(limit):
        slot = Ownership(folder / f"{kind}-{number}.lock")
        if slot.take():
            return number, slot
    raise RuntimeError(f"more than {limit} processes of kind {kind} share {folder}")
