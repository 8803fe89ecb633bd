"""One `shouwang serve` on embedded parts for the stories that speak HTTP, with a receiver for its webhooks.

A test module takes it with `pytest_plugins = ["tests.live"]` and the fixture `live` (and imports this file for types
only: pytest wants to load it first); `xdist_group("live")` or `("live-2")` lets modules share one of two. All people
are invented; every story makes a village of its own, so that none sees another's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest
import requests
from _pytest.nodeid import coerce_node_id
from paho.mqtt import publish
from stdnum.iso7064 import mod_11_2

from app.embedded.broker import free_port
from tests.rooms import roomy_memory

PASSWORD = "correct-horse-1"
USER_PASSWORD = "a-long-password-7"
BROKER_SECRET = "b6a1f0c59d2e4783-what-a-broker-shows"
TOWNSHIP = "370302001000"
OTHER_TOWNSHIP = "370302002000"
T = TypeVar("T")
_numbers = itertools.count(1)
_people = itertools.count(130)  # before it are the examples of the document
_villages = itertools.count(100)  # 001 is the one of the examples


def id_number(birth: str = "19400101") -> str:
    """A new valid ID number (of nobody) with this birth date."""
    first = f"370302{birth}{next(_people):03d}"
    return first + mod_11_2.calc_check_digit(first)


def soon(look: Callable[[], T], *, within_s: float = 10) -> T:
    """What `look` finds as soon as it finds something."""
    end = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)
    return found


class Api(requests.Session):
    """A caller: paths below /api/v1 (or at the root, with a host), a token, no redirects."""

    def __init__(self, base: str, token: str | None = None) -> None:
        super().__init__()
        self.base = base
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:  # type: ignore[override]
        url = path if path.startswith("http") else f"{self.base}/api/v1{path}"
        return super().request(method, url, **{"timeout": 20, "allow_redirects": False, **options})

    def made(self, path: str, **body: Any) -> dict[str, Any]:
        """POST that must make something."""
        answer = self.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def seen(self, path: str, **params: Any) -> dict[str, Any]:
        """GET that must answer."""
        answer = self.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def items(self, path: str, **params: Any) -> list[dict[str, Any]]:
        return self.seen(path, **params)["items"]


@dataclass
class Event:
    id: str | None = None
    type: str | None = None
    data: Any = None


@dataclass
class Receiver:
    """Takes webhooks: (path, headers, body), answered with `status`."""

    status: int = 200
    taken: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list, repr=False)
    raw: list[tuple[str, bytes]] = field(default_factory=list, repr=False)  # what the signatures are of

    def __post_init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                owner.raw.append((self.path, body))
                owner.taken.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                self.send_response(500 if self.path.startswith("/broken") else owner.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def first(self, path: str) -> dict[str, Any]:
        """The first letter to this path."""
        return soon(lambda: next((body for p, _, body in self.taken if p == path), None))


@dataclass
class Live:
    base: str
    mqtt_port: int
    folder: Path
    log: Path
    receiver: Receiver

    broker_secret = BROKER_SECRET
    soon = staticmethod(soon)
    id_number = staticmethod(id_number)

    def __post_init__(self) -> None:
        self.anonymous = Api(self.base)
        self.admin = self.log_in("admin", PASSWORD)

    def log_in(self, username: str, password: str) -> Api:
        # From an office of their own: stories in which somebody guesses passwords do not slow the others down.
        office, form = {"X-Forwarded-For": "192.0.2.1"}, {"username": username, "password": password}
        answer = self.anonymous.post("/auth/token", data=form, headers=office)
        assert answer.status_code == 200, answer.text
        return Api(self.base, answer.json()["access_token"])

    def user(self, role: str, region_code: str, *, assigned: Sequence[dict[str, Any]] = ()) -> Api:
        """Somebody logged in. A visitor sees the elders `assigned` to them, and no other."""
        name = f"{role}-{next(_numbers)}"
        body: dict[str, Any] = {"username": name, "password": USER_PASSWORD, "role": role, "region_code": region_code}
        if role == "visitor":  # an account of a visitor is somebody's
            body["visitor_id"] = self.visitor(f"{region_code:0<12}"[:12])["id"]
            for elder in assigned:
                self.admin.made(f"/elders/{elder['id']}/visitors", visitor_id=body["visitor_id"], role="primary")
        self.admin.made("/users", **body)
        return self.log_in(name, USER_PASSWORD)

    def spare_admin(self) -> Api:
        """A log-in of an account like the administrator's: one that may end, made without hashing a password again."""
        name = f"spare-{next(_numbers)}"
        self.rows(
            "INSERT INTO users SELECT (jsonb_populate_record(u, jsonb_build_object('id', $1::text, 'username', $2::text))).* "
            "FROM users u WHERE username = 'admin'", str(uuid4()), name,
        )  # fmt: skip
        return self.log_in(name, PASSWORD)

    def village(self, township: str = TOWNSHIP) -> str:
        code = f"{township[:9]}{next(_villages):03d}"
        self.admin.made("/regions", code=code, name=f"村{code[-3:]}")
        return code

    def elder(self, village: str | None = None, **fields: Any) -> dict[str, Any]:
        village = village or self.village()
        return self.admin.made(
            "/elders", **{"name": "王桂英", "id_number": id_number(), "region_code": village, **fields}
        )

    def contact(self, elder: dict[str, Any], path: str, **fields: Any) -> dict[str, Any]:
        """A daughter with a webhook at the receiver's `path`."""
        channels = [{"kind": "webhook", "address": self.receiver.url(path)}]
        return self.admin.made(
            f"/elders/{elder['id']}/contacts", **{"name": "王小梅", "relation": "女儿", "channels": channels, **fields}
        )

    def visitor(self, region_code: str, **fields: Any) -> dict[str, Any]:
        return self.admin.made("/visitors", **{"name": "李志愿", "region_code": region_code, **fields})

    def device(self, elder: dict[str, Any] | None = None, kind: str = "sos_button") -> str:
        device_id = f"dev-{next(_numbers)}"
        bound = {"elder_id": elder["id"]} if elder else {}
        self.admin.made("/devices", device_id=device_id, kind=kind, **bound)
        return device_id

    def alarm(self, elder: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return self.admin.made("/alarms", **{"elder_id": elder["id"], "note": "邻居听到呼救", **fields})

    def say(self, topic: str, payload: dict[str, Any] | bytes) -> None:
        """Publish as a device does."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        publish.single(topic, data, qos=1, hostname="127.0.0.1", port=self.mqtt_port)

    def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """Straight from the database: for what no route shows."""

        async def ask() -> list[asyncpg.Record]:
            sockets = self.folder / "postgres" / "run"
            connection = await asyncpg.connect(host=str(sockets), user="postgres", database="shouwang")
            try:
                return await connection.fetch(query, *values)
            finally:
                await connection.close()

        return asyncio.run(ask())

    @contextmanager
    def feed(self, api: Api, last_event_id: str | None = None) -> Iterator[Iterator[Event]]:
        """The alarm feed as a browser reads it; the connection is open when this yields."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        with api.get("/alarms/stream", headers=headers, stream=True, timeout=10) as answer:
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = _events(answer)
            next(events)  # the greeting, with the number to resume from
            yield events


def _events(answer: requests.Response) -> Iterator[Event]:
    event = Event()
    for line in answer.iter_lines(chunk_size=1, decode_unicode=False):
        text = line.decode()
        name, _, value = text.partition(":")
        match name:
            case "id":
                event.id = value.strip()
            case "event":
                event.type = value.strip()
            case "data":
                event.data = json.loads(value)
            case "" if not text:
                if event.id:  # a ping is only a comment
                    yield event
                event = Event()


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    """As root PostgreSQL runs as another user, who must reach the folder."""
    folder = Path(tempfile.mkdtemp(prefix="sw-live-", dir=roomy_memory()))
    folder.chmod(0o755)
    http, mqtt = free_port(0), free_port(0)
    settings = {
        "DATA_DIR": str(folder),
        "HTTP_PORT": str(http),
        "MQTT_PORT": str(mqtt),
        "ADMIN_PASSWORD": PASSWORD,
        "MQTT_AUTH_SECRET": BROKER_SECRET,
        "ALLOW_PRIVATE_WEBHOOKS": "true",
        "ACCESS_TOKEN_SECONDS": "14400",  # the tests share one log-in
        "TRUSTED_PROXIES": "127.0.0.1",  # so that a story may come from another address
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOUWANG_")}
    environment |= {f"SHOUWANG_{name}": value for name, value in settings.items()}
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("shouwang")), "serve"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    receiver = Receiver()
    try:
        soon(lambda: _healthy(http) or server.poll() is not None, within_s=60)
        assert server.poll() is None, log.read_text()
        yield Live(f"http://127.0.0.1:{http}", mqtt, folder, log, receiver)
    finally:
        receiver.server.shutdown()
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _healthy(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """schemathesis names its tests by operation, but gives all the same node id: xdist would run only one of them."""
    for item in items:
        whole, at, group = item.nodeid.partition("@")  # xdist may have named the group already
        if whole.endswith("::test_no_answer_that_is_not_declared"):
            item._id = coerce_node_id(f"{whole.rpartition('::')[0]}::{item.name}{at}{group}")
