"""The contacts' side: a bare HTTP server that notes when each webhook arrived. A process of its own.

GET /take answers `{"count", "times": {event_id: [seconds, …]}}` and forgets; anything else is a webhook.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import defaultdict

import uvloop

_EVENT = re.compile(rb'"event_id":\s*"([^"]+)"')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
times: dict[str, list[float]] = defaultdict(list)


class Receiver(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            found = _LENGTH.search(head)
            size = end + 4 + (int(found.group(1)) if found else 0)
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /take"):
            text = json.dumps({"count": sum(map(len, times.values())), "times": times}).encode()
            times.clear()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
        elif head.startswith(b"GET /count"):
            text = str(sum(map(len, times.values()))).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
        else:
            event = _EVENT.search(body)
            times[event.group(1).decode() if event else ""].append(time.time())
            self._transport.write(_OK)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
