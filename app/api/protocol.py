"""HTTP as uvicorn speaks it, with limits it has none for: how large the head of a request may be, and how long head and
unwanted body may take. Whoever trickles (slowloris) loses the connection before a handler runs."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 32 * 1024
MOST_HEADERS = 100


class _TooLarge(Exception):
    """The head is larger than we read. The parser turns it into its own error."""


class GuardedProtocol(HttpToolsProtocol):
    """See the module."""

    head_s = 10.0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._timer: asyncio.TimerHandle | None = None
        self._in_body = False
        self._head = 0  # bytes of the head so far, at least
        self._too_large = False

    # --- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head += len(data)
            if self._timer is None:  # an idle connection wakes, perhaps with nothing but empty lines
                self._arm()
        super().data_received(data)
        if not self._in_body and self._head > MOST_HEAD and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    # --- one request -------------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._measure(len(self.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            self._measure(MOST_HEAD + 1)

    def on_headers_complete(self) -> None:
        self._measure(len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers))
        self._in_body, self._head = True, 0
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body, self._head = False, 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._arm()  # the rest of a body that nobody wanted may still come, not for ever

    def _measure(self, size: int) -> None:
        if size > MOST_HEAD:
            self._too_large = True
            raise _TooLarge

    # --- the limits --------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(self.head_s, self._too_late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._arm()  # an earlier request on this connection is being answered
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read gets an answer like any other: a problem, and nothing about the server."""
        if self.transport.is_closing():
            return
        status, title = (b"431 Request Header Fields Too Large", "The head of the request is too large")
        if not self._too_large:
            status, title = (b"400 Bad Request", "The request cannot be read")
        body = (
            f'{{"type":"https://shouwang.invalid/problems/bad-request","title":"{title}","status":{status[:3].decode()},'
            f'"detail":"{title.lower()}","errors":[]}}'
        ).encode()
        lines = [
            b"HTTP/1.1 " + status,
            b"content-type: application/problem+json",
            b"content-length: " + str(len(body)).encode(),
            b"cache-control: no-store",
            b"x-content-type-options: nosniff",
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()
