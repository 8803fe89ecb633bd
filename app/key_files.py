"""Keys as text: 32 random bytes in base64; and a file of them, one a line, which a running server reads again."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

KEY_BYTES = 32
MOST_KEYS = 8
_HINT = "(`shouwang new-key` prints a good one)"


def new_key() -> str:
    """32 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def decode(text: str) -> bytes:
    """A key from its text. Raises `ValueError`, which never holds the text."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is not base64 {_HINT}") from None
    if len(key) != KEY_BYTES or len(set(key)) < 8:
        raise ValueError(f"is weak: it must be 32 random bytes in base64 {_HINT}")
    return key


def decode_all(texts: Sequence[str]) -> tuple[bytes, ...]:
    """Several keys, the one that seals first. Raises `ValueError` for none, too many, or one that comes twice."""
    keys = tuple(decode(text) for text in texts)
    if not keys:
        raise ValueError(f"holds no key {_HINT}")
    if len(keys) > MOST_KEYS or len(set(keys)) != len(keys):
        raise ValueError(f"must hold different keys, at most {MOST_KEYS}")
    return keys


class KeyFile:
    """One key a line, the one that seals first; lines with # are remarks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> tuple[bytes, ...]:
        """Raises `OSError`, or `ValueError` for what are no keys."""
        self._seen = self._stamp()
        return decode_all(self._lines())

    def changed(self) -> tuple[bytes, ...] | None:
        """The keys if the file is another than when it was read last; None when it is the same, or cannot be read."""
        try:
            return None if self._stamp() == self._seen else self.read()
        except (OSError, ValueError):
            return None  # half written, or away for a moment: what we have is still good

    def put_first(self, text: str) -> None:
        """Give a new key the first place; those there stay behind it. Whole or not at all, also when the power goes."""
        self._write([text, *self._lines()])

    def keep_first(self, retired: Path) -> None:
        """Only the first key stays; the others go to the end of the file `retired`."""
        first, *others = self._lines()
        handle = os.open(retired, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "w") as file:
            file.writelines(line + "\n" for line in others)
            file.flush()
            os.fsync(file.fileno())
        self._write([first])

    def _lines(self) -> list[str]:
        lines = (line.strip() for line in self.path.read_text().splitlines())
        return [line for line in lines if line and not line.startswith("#")]

    def _write(self, lines: Sequence[str]) -> None:
        new = self.path.with_name(self.path.name + ".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(line + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        known = self.path.stat()
        if os.geteuid() == 0:
            os.chown(new, known.st_uid, known.st_gid)  # a server that runs as another user must go on reading it
        os.replace(new, self.path)

    def _stamp(self) -> tuple[int, int, int]:
        seen = self.path.stat()
        return seen.st_mtime_ns, seen.st_size, seen.st_ino
