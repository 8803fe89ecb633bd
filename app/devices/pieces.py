"""A socket that reads and writes in large pieces, for a protocol library that asks for single bytes."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

_PIECE = 65_536


class Buffered:
    """Wraps a non-blocking socket (plain or TLS). `dry`: the last read found nothing more to take just now."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._read = b""
        self._at = 0
        self._out = bytearray()
        self.dry = False

    def recv(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end of the stream. Raises BlockingIOError (or TLS's word for it) when dry."""
        at = self._at
        if at >= len(self._read):
            self.dry = True
            self._read = self._inner.recv(_PIECE)
            self.dry = False
            at = 0
            if not self._read:
                self.dry = True
                self._at = 0
                return b""
        piece = self._read[at : at + size]
        self._at = at + len(piece)
        return piece

    def send(self, data: bytes | bytearray) -> int:
        """Keep for the next `flush()`."""
        self._out += data
        return len(data)

    def flush(self) -> bool:
        """Write what was kept; False when the socket took only a part. Raises OSError when it is gone."""
        while self._out:
            try:
                sent = self._inner.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return False
            del self._out[:sent]
        return True

    def pending(self) -> int:
        return len(self._read) - self._at

    def fileno(self) -> int:
        return int(self._inner.fileno())

    def setblocking(self, flag: bool) -> None:
        self._inner.setblocking(flag)

    def close(self) -> None:
        with suppress(OSError):
            self.flush()  # a DISCONNECT that was just said
        self._inner.close()
