"""The only file that talks paho. Messages come in with a receipt; they are acknowledged when the receipt is given back.

paho runs on the event loop (`loop_read`, `loop_write`, `loop_misc`), not on a thread of its own: nothing has to be handed
over, and nothing can die unseen. A receipt remembers the connection it came on: packet ids are reused after a reconnect,
so an old receipt must not acknowledge a new message. What was not acknowledged the broker hands over again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from app import logs
from app.clock import Clock
from app.devices.events import Frame
from app.devices.pieces import Buffered

log = logs.get("mqtt")
_KEEPALIVE_S = 20
_RECONNECT_S = (1.0, 8.0)
_PUBLISH_TIMEOUT_S = 5.0
_AT_ONCE = 200  # packets read before the rest of the process has its turn
_MOST_WAITING = 20_000  # messages in memory; beyond it the broker keeps them


_MOST_HANG_UPS = 2
_ASK_AGAIN_AFTER = timedelta(minutes=10)


def _is_special(topic: str) -> bool:
    """Whether a filter begins with `$`, also within a shared subscription."""
    plain = topic.split("/", 2)[-1] if topic.startswith("$share/") else topic
    return plain.startswith("$")


@dataclass(slots=True)
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
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom we trust, and the certificate we show (files; empty: the system's authorities, and none)."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def context(self) -> ssl.SSLContext:
        """Checks the broker's certificate and its host name. Raises ValueError that names the file that is none."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except (ssl.SSLError, OSError):
            raise ValueError(f"{self.ca_file} is no file of certificates (PEM)") from None
        if self.cert_file:
            try:
                context.load_cert_chain(self.cert_file, self.key_file)
            except (ssl.SSLError, OSError):
                raise ValueError(
                    f"{self.cert_file} and {self.key_file} are no certificate with its key (PEM)"
                ) from None
        return context


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


class _Client(paho.Client):
    """paho with a socket that reads and writes in large pieces (it asks for single bytes itself), and without its search
    for callbacks by topic, which costs a fifth of a flood and finds nothing: there is one for all."""

    def __init__(self, *args: Any, on_each: Callable[[paho.MQTTMessage], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._on_each = on_each

    def _create_socket(self) -> Any:
        return Buffered(super()._create_socket())

    def _handle_on_message(self, message: paho.MQTTMessage) -> None:
        self._on_each(message)


class MqttClient:
    """One connection to the broker: a persistent session when it subscribes, a clean one when it only publishes."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        subscriptions: Sequence[str],
        clock: Clock,
        tls: Tls | None = None,
    ) -> None:
        address = read_url(url)
        self._address = address
        self._topics = list(subscriptions)
        self._leave: list[str] = []
        self._asked: dict[int, list[str]] = {}
        self._hung_up = 0
        self._hung_up_at: datetime | None = None
        self.unheard: list[str] = []  # topics the broker does not carry; the others are not lost for them
        self._clock = clock
        self._inbox: deque[Received] = deque()
        self._arrived = asyncio.Event()
        self._connection = 0
        self._subscribed = False
        self._socket: Buffered | None = None
        self._reading = False
        self._flushing = False
        self._lost = asyncio.Event()
        self._published: dict[int, asyncio.Future[None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self.refused: str | None = None  # why the broker does not let us in or subscribe
        self._client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv311,
            clean_session=not subscriptions,
            manual_ack=True,
            on_each=self._on_message,
        )
        if address.username is not None:
            self._client.username_pw_set(address.username, address.password)
        if address.tls:
            self._client.tls_set_context((tls or Tls()).context())
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_socket_close = self._on_socket_close
        # paho would write at every packet; here what one turn of the loop made goes out together.
        self._client.on_socket_register_write = lambda *_: self._flush_soon()

    @property
    def healthy(self) -> bool:
        """Connected, subscribed to everything, and somebody looks after the connection."""
        keeper = self._keeper
        return self._client.is_connected() and self._subscribed and keeper is not None and not keeper.done()

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._subscribed = not self._topics
        self._client.connect_async(self._address.host, self._address.port, keepalive=_KEEPALIVE_S)
        self._keeper = asyncio.create_task(self._keep_connected(), name="mqtt")

    async def stop(self) -> None:
        """Disconnect; what was not acknowledged waits at the broker."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._client.is_connected():
            self._client.disconnect()
            self._flush()
        self._stop_watching()
        self._client._sock_close()

    def follow(self, topics: Sequence[str], *, leave: Sequence[str] = ()) -> None:
        """Subscribe to these from now on, and to nothing else. `leave`: what a session the broker kept may still hold."""
        wanted = list(dict.fromkeys(topics))
        added = [topic for topic in wanted if topic not in self._topics]
        gone = [topic for topic in self._topics if topic not in wanted]
        self._topics = wanted
        self._leave = [topic for topic in dict.fromkeys([*leave, *gone]) if topic not in wanted]
        if self._client.is_connected():
            if gone:
                self._client.unsubscribe(gone)
            ordinary = [topic for topic in added if not _is_special(topic)]
            if ordinary:
                self._subscribed = False
                self._ask(ordinary)
            self._ask_for_special([topic for topic in added if _is_special(topic)])

    def _ask(self, topics: list[str]) -> None:
        _, mid = self._client.subscribe([(topic, 1) for topic in topics])
        if mid is not None:
            self._asked[mid] = topics

    def _ask_for_special(self, topics: list[str]) -> None:
        """Topics that begin with `$`, apart and last: some brokers hang up on whoever asks for one, and the families that
        use them must not cost the others their ears. After two such hang-ups they are left out for a while."""
        if not topics:
            return
        since = self._hung_up_at
        if self._hung_up >= _MOST_HANG_UPS and since is not None and self._clock() - since < _ASK_AGAIN_AFTER:
            self.unheard = topics
        else:
            self._ask(topics)

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def take(self, at_most: int) -> list[Received]:
        """Whatever has arrived, at least one."""
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        inbox = self._inbox
        taken = [inbox.popleft() for _ in range(min(len(inbox), at_most))]
        if not self._reading and self._socket is not None and len(inbox) < _MOST_WAITING:
            self._watch()
        return taken

    @property
    def waiting(self) -> int:
        return len(self._inbox)

    def acknowledge(self, received: Sequence[Received]) -> None:
        """PUBACK, for messages of the present connection only."""
        ack, connection = self._client.ack, self._connection
        for one in received:
            if one.connection == connection and one.qos:
                ack(one.mid, one.qos)

    def _on_message(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "(topic is not UTF-8)"
        frame = Frame(topic, bytes(message.payload), self._clock(), bool(message.retain))
        self._inbox.append(Received(frame, message.mid, message.qos, self._connection))
        self._arrived.set()

    # --- publishing --------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, payload: bytes) -> None:
        """QoS 1, until the broker has it. Raises ConnectionError or TimeoutError when it does not take it."""
        if not self._client.is_connected():
            raise ConnectionError("not connected to the broker")
        info = self._client.publish(topic, payload, qos=1)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise ConnectionError("the broker did not take the message")
        taken = self._published[info.mid] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                await taken
        finally:
            self._published.pop(info.mid, None)

    def _on_publish(self, _client: paho.Client, _userdata: Any, mid: int, _reason: Any, _properties: Any) -> None:
        taken = self._published.get(mid)
        if taken is not None and not taken.done():
            taken.set_result(None)

    # --- the socket on the event loop --------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        """Connect, look after keep-alive each second, and connect again with growing patience."""
        patience, most = _RECONNECT_S
        while True:
            self._lost.clear()
            try:
                await asyncio.to_thread(self._client.reconnect)  # names, TCP and TLS may take their time
            except ssl.SSLError as error:
                why = getattr(error, "verify_message", "") or error.reason or "the TLS handshake failed"
                self.refused = f"no TLS connection to the broker: {why}"
                log.error("no TLS connection to the broker", host=self._address.host, port=self._address.port,
                          reason=why)  # fmt: skip
            except (OSError, ValueError) as error:
                log.warning("the broker does not answer", host=self._address.host, port=self._address.port,
                            error=type(error).__name__)  # fmt: skip
            else:
                self._socket = self._client._sock  # type: ignore[assignment]
                self._watch()
                self._flush()
                while not self._lost.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await self._lost.wait()
                    self._client.loop_misc()
                    if self._client.is_connected():
                        patience = _RECONNECT_S[0]
            await asyncio.sleep(patience)
            patience = min(patience * 2, most)

    def _watch(self) -> None:
        assert self._socket is not None
        self._reading = True
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
        self._readable()  # what the buffers hold already does not wake the loop

    def _stop_watching(self) -> None:
        self._reading = False
        if self._socket is not None and (fileno := self._socket.fileno()) >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(fileno)
            loop.remove_writer(fileno)

    def _readable(self) -> None:
        """Read what is there, in turns with the rest of the process."""
        socket = self._socket
        if socket is None or not self._reading:
            return
        if len(self._inbox) >= _MOST_WAITING:
            self._stop_watching()  # take() watches again
            return
        read = self._client.loop_read
        for _ in range(_AT_ONCE):
            if read() != paho.MQTT_ERR_SUCCESS or socket.dry:
                return
        asyncio.get_running_loop().call_soon(self._readable)

    def _flush_soon(self) -> None:
        if not self._flushing and self._socket is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write out what paho has to say, in one piece; the rest when the socket has room again."""
        self._flushing = False
        socket = self._socket
        if socket is None:
            return
        self._client.loop_write()
        if self._socket is None:
            return  # lost while writing
        loop = asyncio.get_running_loop()
        try:
            done = socket.flush()
        except OSError:
            return  # reading will find the connection gone
        if done:
            loop.remove_writer(socket.fileno())
        else:
            loop.add_writer(socket.fileno(), self._flush)

    def _on_socket_close(self, _client: paho.Client, _userdata: Any, _socket: Any) -> None:
        self._stop_watching()
        self._socket = None

    # --- the connection ----------------------------------------------------------------------------------------------

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
            self._asked.clear()
            ordinary = [topic for topic in self._topics if not _is_special(topic)]
            leave = [topic for topic in self._leave if not _is_special(topic)]
            if leave:
                client.unsubscribe(leave)
            if ordinary:
                self._ask(ordinary)
            else:
                self._ask_for_special(self._topics)
        log.info("connected", host=self._address.host, port=self._address.port)

    def _on_subscribe(
        self, _client: paho.Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        asked = self._asked.pop(mid, self._topics)
        refused = [topic for topic, reason in zip(asked, reasons, strict=False) if reason.is_failure]
        if asked and all(_is_special(topic) for topic in asked):
            self._hung_up = 0
            self.unheard = refused
            self._subscribed = self._subscribed or (self.refused is None and not self._asked)
        elif refused:
            self.refused = f"the broker refuses to subscribe to {', '.join(refused)}"
            log.error("subscription refused", topics=refused)
        else:
            self._subscribed = True
            if len(asked) == len(
                [topic for topic in self._topics if not _is_special(topic)]
            ):  # the first of a connection
                self._ask_for_special([topic for topic in self._topics if _is_special(topic)])

    def _on_disconnect(self, _client: paho.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        self._subscribed = not self._topics
        waiting = [topic for topics in self._asked.values() for topic in topics]
        if waiting and all(_is_special(topic) for topic in waiting):
            self._hung_up += 1
            self._hung_up_at = self._clock()
            log.error("the broker hangs up on a subscription that begins with $", topics=waiting)
        self._asked.clear()
        self._lost.set()
        if reason.is_failure:
            log.warning("disconnected", reason=str(reason))
