"""The only file that talks paho. Messages come in with a receipt; they are acknowledged when the receipt is given back.

paho's thread only hands messages over (an exception there would kill it silently). A receipt remembers the connection
it came on: packet ids are reused after a reconnect, so an old receipt must not acknowledge a new message. What was not
acknowledged the broker hands over again.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from app import logs
from app.clock import Clock
from app.devices.events import Frame

log = logs.get("mqtt")
_KEEPALIVE_S = 20
_RECONNECT_S = (1, 8)
_PUBLISH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Received:
    """A frame with what is needed to acknowledge it."""

    frame: Frame
    mid: int
    qos: int
    connection: int


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None


def read_url(url: str) -> Address:
    """`mqtt://user:password@host:1883` or `mqtts://…` (8883). Raises ValueError with what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ValueError("must look like mqtt://host:1883 or mqtts://host:8883")
    tls = parts.scheme == "mqtts"
    return Address(
        parts.hostname,
        parts.port or (8883 if tls else 1883),
        tls,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


class MqttClient:
    """One connection to the broker: a persistent session when it subscribes, a clean one when it only publishes."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        subscriptions: Sequence[str],
        clock: Clock,
        ca_file: str = "",
    ) -> None:
        address = read_url(url)
        self._address = address
        self._topics = list(subscriptions)
        self._clock = clock
        self._inbox: deque[Received] = deque()
        self._arrived = asyncio.Event()
        self._wake_lock = threading.Lock()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection = 0
        self._subscribed = False
        self.refused: str | None = None  # why the broker does not let us in or subscribe
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv311,
            clean_session=not subscriptions,
            manual_ack=True,
        )
        if address.username is not None:
            self._client.username_pw_set(address.username, address.password)
        if address.tls:
            self._client.tls_set_context(ssl.create_default_context(cafile=ca_file or None))
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(*_RECONNECT_S)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    @property
    def healthy(self) -> bool:
        """Connected, subscribed to everything, and the network thread is alive."""
        thread = self._client._thread
        return self._client.is_connected() and self._subscribed and thread is not None and thread.is_alive()

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._loop = asyncio.get_running_loop()
        self._subscribed = not self._topics
        self._client.connect_async(self._address.host, self._address.port, keepalive=_KEEPALIVE_S)
        self._client.loop_start()

    async def stop(self) -> None:
        """Disconnect; what was not acknowledged waits at the broker."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def take(self, at_most: int) -> list[Received]:
        """Whatever has arrived, at least one."""
        while not self._inbox:
            self._arrived.clear()
            with self._wake_lock:
                self._woken = False
            if not self._inbox:
                await self._arrived.wait()
        taken: list[Received] = []
        while self._inbox and len(taken) < at_most:
            taken.append(self._inbox.popleft())
        return taken

    @property
    def waiting(self) -> int:
        return len(self._inbox)

    def acknowledge(self, received: Sequence[Received]) -> None:
        """PUBACK, for messages of the present connection only."""
        for one in received:
            if one.connection == self._connection and one.qos:
                self._client.ack(one.mid, one.qos)

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "(topic is not UTF-8)"
        frame = Frame(topic, bytes(message.payload), self._clock(), bool(message.retain))
        self._inbox.append(Received(frame, message.mid, message.qos, self._connection))
        with self._wake_lock:
            if self._woken:
                return
            self._woken = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    # --- publishing --------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, payload: bytes) -> None:
        """QoS 1, until the broker has it. Raises ConnectionError or TimeoutError when it does not take it."""
        if not self._client.is_connected():
            raise ConnectionError("not connected to the broker")
        info = self._client.publish(topic, payload, qos=1)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise ConnectionError("the broker did not take the message")
        await asyncio.to_thread(info.wait_for_publish, _PUBLISH_TIMEOUT_S)
        if not info.is_published():
            raise TimeoutError("no PUBACK in time")

    # --- the connection, on paho's thread ----------------------------------------------------------------------------

    def _on_connect(
        self, client: paho.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self.refused = f"the broker refuses the connection: {reason}"
            log.error("refused by the broker", reason=str(reason))
            return
        self._connection += 1
        self.refused = None
        if self._topics:
            self._subscribed = False
            client.subscribe([(topic, 1) for topic in self._topics])
        log.info("connected", host=self._address.host, port=self._address.port)

    def _on_subscribe(
        self, _client: paho.Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        refused = [topic for topic, reason in zip(self._topics, reasons, strict=False) if reason.is_failure]
        if refused:
            self.refused = f"the broker refuses to subscribe to {', '.join(refused)}"
            log.error("subscription refused", topics=refused)
        else:
            self._subscribed = True

    def _on_connect_fail(self, *_: Any) -> None:
        log.warning("the broker does not answer", host=self._address.host, port=self._address.port)

    def _on_disconnect(self, _client: paho.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        self._subscribed = not self._topics
        if reason.is_failure:
            log.warning("disconnected", reason=str(reason))
