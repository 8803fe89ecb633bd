"""Debian's mosquitto with the shipped configuration, and a client of it that remembers what happened."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.properties import Properties

from tests.authority import Authority

SHIPPED = Path(__file__).resolve().parent.parent / "deploy" / "mosquitto"
SERVER = "shouwang"
SERVER_PASSWORD = "correct horse"


def until(
    true: Callable[[], object], otherwise: str, detail: Callable[[], object] = str, timeout_s: float = 20.0
) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{otherwise} {detail()}"
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """Only the paths and the ports are put in place; with `tls` (certificate, key) both doors speak
    TLS, and with `asks_the_server` the server must show a certificate of that authority.

    What `shouwang mosquitto-auth` writes is expected in `auth`.
    """

    def __init__(
        self, folder: Path, *, tls: tuple[Path, Path] | None = None, asks_the_server: Authority | None = None
    ) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed")
        self.program = program
        self.folder = folder
        self.auth = folder / "auth"
        self.pid_file = folder / "pid"
        self.port = _free_port()  # for devices
        self.server_port = _free_port()
        for path in (folder / "data", self.auth):
            path.mkdir(parents=True)
        (folder / "mosquitto.conf").write_text(self.configuration(tls, asks_the_server), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def configuration(self, tls: tuple[Path, Path] | None, asks: Authority | None) -> str:
        text = (SHIPPED / "mosquitto.conf").read_text(encoding="utf-8")
        secured = f"certfile {tls[0]}\nkeyfile {tls[1]}\n" if tls else ""
        asked = f"cafile {asks.ca_file}\nrequire_certificate true\n" if asks else ""
        for shipped, here in {
            "\nlistener 1884\n": f"\nlistener {self.server_port} 127.0.0.1\n{secured}{asked}",
            "\nlistener 1883\n": f"\nlistener {self.port} 127.0.0.1\n{secured}",
            "/mosquitto/data/": f"{self.folder / 'data'}/",
        }.items():
            assert text.count(shipped) == 1, f"{shipped!r} is not there once"
            text = text.replace(shipped, here)
        text = text.replace("/mosquitto/auth/", f"{self.auth}/")
        lines = [f"pid_file {self.pid_file}"]
        if os.geteuid() == 0:  # as root mosquitto would become a user that cannot reach pytest's folders
            lines.append("user root")
        return text + "\n".join(lines) + "\n"

    @property
    def url(self) -> str:
        """The server's own way in."""
        return f"mqtt://{SERVER}:{SERVER_PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.server_port}"

    def start(self) -> Mosquitto:
        with open(self.folder / "log", "ab") as log:
            command = [self.program, "-c", str(self.folder / "mosquitto.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self.answers, "mosquitto did not start", self.log)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.server_port)) == 0

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]


class Client:
    """A paho client that remembers what it got. Its session stays with the broker when it leaves."""

    def __init__(
        self,
        broker: Mosquitto,
        user: str | None,
        password: str | None = None,
        *,
        name: str = "test",
        client_id: str | None = None,
        will: str | None = None,
        trusts: Authority | None = None,
        at: int | None = None,
        version: mqtt.MQTTProtocolVersion = mqtt.MQTTv311,
    ) -> None:
        self.got: list[str] = []
        self.came: list[tuple[str, str]] = []
        self.refused: str | None = None
        self.session_present = False
        self.puback: list[str] = []
        self._answered = threading.Event()
        self._subscribed = threading.Event()
        self.gone = threading.Event()
        session: dict[str, Any] = {} if version == mqtt.MQTTv5 else {"clean_session": False}
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id or f"{user}-{name}",
            protocol=version,
            reconnect_on_failure=False,
            **session,
        )
        if user is not None:
            self._client.username_pw_set(user, password)
        if will is not None:
            self._client.will_set(will, b'{"online": false}', qos=1, retain=True)
        if trusts is not None:
            self._client.tls_set(str(trusts.ca_file))
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_publish = lambda _client, _data, _mid, reason, _properties: self.puback.append(str(reason))
        self._client.on_disconnect = lambda *_: self.gone.set()
        self._client.connect("127.0.0.1", at or (broker.server_port if user == SERVER else broker.port))
        self._client.loop_start()
        assert self._answered.wait(10), broker.log()

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Properties | None) -> None:
        self.refused = str(reason) if reason.is_failure else None
        self.session_present = flags.session_present
        self._answered.set()

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.got.append(message.payload.decode())
        self.came.append((message.topic, message.payload.decode()))

    def subscribe(self, *topics: str) -> Client:
        for topic in topics:
            self._subscribed.clear()
            self._client.subscribe(topic, qos=1)
            assert self._subscribed.wait(10)
        return self

    def publish(self, topic: str, payloads: list[str], *, retain: bool = False) -> Client:
        for sent in [self._client.publish(topic, payload, qos=1, retain=retain) for payload in payloads]:
            sent.wait_for_publish(30)
            assert sent.is_published()
        return self

    def vanish(self) -> None:
        """Without a word: the broker publishes the last will."""
        socket_ = self._client.socket()
        assert socket_ is not None
        socket_.close()

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
