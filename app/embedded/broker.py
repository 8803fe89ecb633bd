"""An embedded MQTT broker (rumqttd, from the `iotcore` wheel) on the loopback address only.

It keeps nothing on disk and knows no passwords: for trying out and for tests. A district runs Mosquitto or EMQX.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from iotcore import Broker

from app.embedded.ownership import Ownership

LOOPBACK = "127.0.0.1"
_INFLIGHT = 2000  # un-acknowledged messages a client may hold; also what bounds the memory of ingest


class EmbeddedBroker:
    """Starts the broker as a child that ends with us, or joins the one another process of this DATA_DIR owns."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self._ownership = Ownership(data_dir / f"broker-{port}.lock")
        self._broker: Broker | None = None
        self.port = port

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    def start(self) -> EmbeddedBroker:
        """Start or join. Raises `RuntimeError` that names the setting when the port is somebody else's."""
        if not self._ownership.take():
            return self
        broker = Broker(port=self.port, listen=LOOPBACK, max_inflight_count=_INFLIGHT)
        restore = _ignore_interrupts()
        try:
            broker.start()
        except OSError:
            self._ownership.release()
            raise RuntimeError(
                f"port {self.port} on {LOOPBACK} is taken by another program; set SHOUWANG_MQTT_PORT to a free port, "
                "or SHOUWANG_MQTT_URL to use the broker that is there"
            ) from None
        finally:
            restore()
        self._broker = broker
        return self

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.stop()
            self._broker = None
        self._ownership.release()


def _ignore_interrupts() -> Callable[[], object]:
    """The child inherits «ignore SIGINT»: Ctrl-C is ours to handle, the broker stops after ingest has acknowledged."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGINT, before)


def free_port(preferred: int) -> int:
    """`preferred` when nothing listens there, otherwise any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RuntimeError("no free port")
