"""The devices' side of MQTT: publish with QoS 1 and wait for the broker's word; hear what devices are told.

paho's network thread only hands over to the event loop; all state lives in the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from simulator.terminal import SimulatorError

_TAKEN_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Command:
    """What the server told a device."""

    device_id: str
    body: dict[str, Any]
    at: float  # the loop's time


class Mqtt:
    """One connection that speaks for all simulated devices. Use it as an async context."""

    def __init__(self, url: str, username: str | None = None, password: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise SimulatorError(f"--mqtt {url!r} is not an MQTT address, for example mqtt://127.0.0.1:1883")
        self.url = f"{parts.scheme}://{parts.hostname}:{parts.port or (8883 if parts.scheme == 'mqtts' else 1883)}"
        self._host = parts.hostname
        self._port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"simulator-{secrets.token_hex(5)}")
        name = username or (unquote(parts.username) if parts.username else None)
        if name:
            self._client.username_pw_set(name, password or (unquote(parts.password) if parts.password else None))
        if parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.max_inflight_messages_set(500)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._connected: asyncio.Future[None] | None = None
        self._subscribed: dict[int, asyncio.Future[None]] = {}
        self._topics: set[str] = set()
        self.commands: dict[str, list[Command]] = defaultdict(list)
        self.on_command: Callable[[Command], None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._connected = self._loop.create_future()
        self._client.on_connect = self._on_connect
        self._client.on_publish = lambda _c, _u, mid, _r, _p: self._hand_over(self._was_taken, mid)
        self._client.on_subscribe = lambda _c, _u, mid, codes, _p: self._hand_over(self._was_subscribed, mid, codes)
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 5)
        self._client.connect_async(self._host, self._port, keepalive=30)
        self._client.loop_start()
        try:
            await asyncio.wait_for(asyncio.shield(self._connected), 10)
        except TimeoutError:
            await self._stop()
            raise SimulatorError(f"no MQTT broker answers at {self.url}; is --mqtt right?") from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Publish and wait until the broker has it. Raises `SimulatorError` when it does not take it."""
        loop = asyncio.get_running_loop()
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN):  # without a connection it is queued
            raise SimulatorError(f"MQTT: cannot publish to {topic}: {paho.error_string(info.rc)}")
        if qos == 0:
            return
        taken: asyncio.Future[None] = loop.create_future()
        self._waiting[info.mid] = taken
        try:
            await asyncio.wait_for(taken, _TAKEN_WITHIN_S)
        except TimeoutError:
            raise SimulatorError(f"MQTT: the broker took nothing for {_TAKEN_WITHIN_S:.0f} s ({topic})") from None
        finally:
            self._waiting.pop(info.mid, None)

    async def listen_to(self, topic: str) -> None:
        """Subscribe (QoS 1) and wait for the broker's word; again after each reconnect."""
        self._topics.add(topic)
        await self._subscribe(topic)

    async def _subscribe(self, topic: str) -> None:
        code, mid = self._client.subscribe(topic, qos=1)
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            return  # not connected: on_connect subscribes
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscribed[mid] = granted
        try:
            await asyncio.wait_for(granted, 10)
        except TimeoutError:
            raise SimulatorError(f"MQTT: the broker does not answer a subscription to {topic}") from None
        finally:
            self._subscribed.pop(mid, None)

    async def _stop(self) -> None:
        with contextlib.suppress(Exception):
            self._client.disconnect()
        # loop_stop joins the network thread: it ends with the disconnect, so this is short.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._client.loop_stop), 1.5)

    # In paho's thread: only hand over.

    def _hand_over(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are leaving
                self._loop.call_soon_threadsafe(call, *arguments)

    def _on_connect(self, _client: Any, _user: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._hand_over(self._was_connected, bool(code.is_failure), str(code))

    def _on_message(self, _client: Any, _user: Any, message: paho.MQTTMessage) -> None:
        self._hand_over(self._was_told, message.topic, bytes(message.payload))

    # In the event loop.

    def _was_connected(self, failed: bool, reason: str) -> None:
        assert self._connected is not None
        if self._connected.done():
            for topic in self._topics:
                self._client.subscribe(topic, qos=1)
        elif failed:
            self._connected.set_exception(SimulatorError(f"the MQTT broker at {self.url} refuses: {reason}"))
        else:
            self._connected.set_result(None)

    def _was_taken(self, mid: int) -> None:
        taken = self._waiting.get(mid)
        if taken is not None and not taken.done():
            taken.set_result(None)

    def _was_subscribed(self, mid: int, codes: list[Any]) -> None:
        granted = self._subscribed.get(mid)
        if granted is None or granted.done():
            return
        if any(code.is_failure for code in codes):
            granted.set_exception(SimulatorError(f"the MQTT broker refuses a subscription: {codes[0]}"))
        else:
            granted.set_result(None)

    def _was_told(self, topic: str, payload: bytes) -> None:
        parts = topic.split("/")
        if len(parts) != 3 or parts[2] != "command" or self._loop is None:
            return
        try:
            body = json.loads(payload)
        except ValueError:
            body = None
        command = Command(parts[1], body if isinstance(body, dict) else {"raw": repr(payload)}, self._loop.time())
        self.commands[command.device_id].append(command)
        if self.on_command is not None:
            self.on_command(command)
