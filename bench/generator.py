"""A bare MQTT 3.1.1 publisher: packets are made beforehand, a window of unacknowledged ones is kept full."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence

_WINDOW = 2000


def _field(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, digit = divmod(size, 128)
        out.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(out)


def connect_packet(client_id: str) -> bytes:
    body = _field(b"MQTT") + bytes([4, 2]) + struct.pack("!H", 60) + _field(client_id.encode())
    return b"\x10" + _length(len(body)) + body


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """QoS 1."""
    body = _field(topic.encode()) + struct.pack("!H", packet_id) + payload
    return b"\x32" + _length(len(body)) + body


class Publisher:
    """One connection that publishes."""

    async def connect(self, port: int, client_id: str) -> Publisher:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(connect_packet(client_id))
        await self._reader.readexactly(4)  # CONNACK
        self._acked = 0
        self._sent = 0
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._read_acks())
        return self

    async def _read_acks(self) -> None:
        rest = 0
        while data := await self._reader.read(65536):
            whole, rest = divmod(len(data) + rest, 4)  # every packet that comes is a PUBACK of 4 bytes
            self._acked += whole
            self._moved.set()

    async def flood(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """As fast as the window allows; returns when all are acknowledged."""
        packets = [publish_packet(topic, payload, i % 65000 + 1) for i, (topic, payload) in enumerate(messages)]
        target = self._acked + len(packets)
        for start in range(0, len(packets), 200):
            while self._sent - self._acked > _WINDOW:
                self._moved.clear()
                await self._moved.wait()
            chunk = packets[start : start + 200]
            self._writer.write(b"".join(chunk))
            self._sent += len(chunk)
            await self._writer.drain()
        while self._acked < target:
            self._moved.clear()
            await self._moved.wait()

    async def pace(self, messages: Sequence[tuple[str, bytes]], *, per_second: float) -> list[float]:
        """At a steady rate; returns the moment each was written."""
        began, moments = time.perf_counter(), []
        for i, (topic, payload) in enumerate(messages):
            wait = began + i / per_second - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            moments.append(time.time())
            self._writer.write(publish_packet(topic, payload, i % 65000 + 1))
            self._sent += 1
        return moments

    async def close(self) -> None:
        self._writer.write(b"\xe0\x00")
        await self._writer.drain()
        self._task.cancel()
        self._writer.close()
