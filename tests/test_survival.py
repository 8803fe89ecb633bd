"""Real processes that are killed and restarted: nothing is lost, nothing is doubled (invariants 1, 3 and 4).

The database and the broker belong to the test and outlive the server. All people are invented.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import paho.mqtt.client as mqtt
import pytest
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from app.access.principal import Principal
from app.access.tables import User
from app.clock import system_clock
from app.db import transaction
from app.embedded.broker import EmbeddedBroker, free_port
from app.embedded.postgres import EmbeddedPostgres
from app.webhooks import subscriptions
from app.webhooks.vocabulary import EventType
from tests.world import DATA_KEY, TOKEN_KEY, Person, World

pytestmark = pytest.mark.slow
SHOUWANG = Path(sys.executable).parent / "shouwang"
INGEST_POINTS = ("after_journal", "before_commit", "after_commit_before_ack")
SEND_POINTS = ("after_claim", "after_send_before_record")


async def until(true: Callable[[], Any], otherwise: Callable[[], object] = str, *, timeout_s: float = 60) -> None:
    """Wait while the loop runs (it answers the webhooks). `true` may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = true()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, otherwise()
        await asyncio.sleep(0.03)


# --- what outlives the server ---------------------------------------------------------------------------------------------


@dataclass
class Receiver:
    """Takes webhooks and remembers (person, type, webhook-id)."""

    port: int = 0
    heard: list[tuple[str, str, str]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.heard.append((request.match_info["name"], body["type"], request.headers["webhook-id"]))
        return web.Response()

    def ids(self, name: str, type_: str = "alarm.raised") -> list[str]:
        return [id_ for who, what, id_ in self.heard if (who, what) == (name, type_)]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{name}", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    yield receiver
    await runner.cleanup()


class Mosquitto:
    """Debian's mosquitto with persistence, open to everybody on the loopback."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed")
        self.port = free_port(0)
        folder.mkdir()
        lines = [
            f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence true",
            f"persistence_location {folder}/", "max_queued_messages 0", "max_inflight_messages 0",
        ]  # fmt: skip
        if os.geteuid() == 0:
            lines.append("user root")
        self._command = [program, "-c", str(folder / "mosquitto.conf")]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Mosquitto:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "mosquitto").start()
    yield broker
    broker.stop()


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path, free_port(0)).start()
    yield broker
    broker.stop()


class Publisher:
    """A device that sends with QoS 1 and sends again after a reconnect."""

    def __init__(self, port: int) -> None:
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="the-devices", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._acknowledged: set[int] = set()  # paho queues what is published without a connection, and says it failed
        self._client.on_publish = lambda _client, _data, mid, *_: self._acknowledged.add(mid)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    async def connected(self) -> Publisher:
        await until(self._client.is_connected, lambda: "the publisher does not connect")
        return self

    def publish(self, device: str, body: dict[str, Any]) -> mqtt.MQTTMessageInfo:
        return self._client.publish(f"devices/{device}/event", json.dumps(body), qos=1)

    async def taken(self, sent: Sequence[mqtt.MQTTMessageInfo]) -> None:
        """The broker has them all."""
        await until(
            lambda: self._acknowledged.issuperset(one.mid for one in sent), lambda: "the broker did not take everything"
        )

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


# --- the server -----------------------------------------------------------------------------------------------------------


class Server:
    """`shouwang serve` as a process of its own."""

    def __init__(self, folder: Path, database: str, mqtt_url: str, **more: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port = free_port(0)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.upper().startswith("SHOUWANG_")
        } | {
            "SHOUWANG_DATABASE_URL": database,
            "SHOUWANG_MQTT_URL": mqtt_url,
            "SHOUWANG_DATA_DIR": str(folder),
            "SHOUWANG_HTTP_PORT": str(self.port),
            "SHOUWANG_ALLOW_PRIVATE_WEBHOOKS": "true",
            "SHOUWANG_ADMIN_PASSWORD": "an-invented-pass-phrase-7",
            "SHOUWANG_DATA_KEY": base64.b64encode(DATA_KEY).decode(),
            "SHOUWANG_TOKEN_KEY": base64.b64encode(TOKEN_KEY).decode(),
            **more,
        }
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, *, crash_at: str = "", ready: bool = True) -> Server:
        """`ready=False`: it may die before it answers."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(SHOUWANG), "serve"],
                cwd=self.folder,
                env=self.environment | {"_SHOUWANG_CRASH_AT": crash_at},
                stdout=log,
                stderr=log,
            )
        if ready:
            await until(self._ready, self.log)
        return self

    async def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200
        return False

    async def dies(self) -> None:
        """By its own hand, at the injected point."""
        process = self.process
        assert process is not None
        await until(lambda: process.poll() is not None, lambda: f"it did not crash; {self.log()}")
        assert process.returncode == -signal.SIGKILL

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]


StartServer = Callable[..., Server]


@pytest.fixture
def server(tmp_path: Path, database: str) -> Iterator[StartServer]:
    """Makes servers of this test's database; all end with it."""
    made: list[Server] = []

    def make(mqtt_url: str, name: str = "one", **more: str) -> Server:
        made.append(Server(tmp_path / name, database, mqtt_url, **more))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
async def village(database: str) -> AsyncIterator[World]:
    """A world in real time: only the register, the server does the rest."""
    world = World(database, clock=system_clock)
    yield world
    await world.close()


async def homes(village: World, receiver: Receiver, count: int) -> list[tuple[Person, str, str]]:
    """Elders, each with a contact on a webhook and a button: (elder, contact's name, device)."""
    found = []
    for number, elder in enumerate(await village.elders([f"老人{n}" for n in range(count)])):
        name = f"contact-{number}"
        await village.contact(elder, name, addresses=[receiver.url(name)])
        found.append((elder, name, await village.device(elder, f"button-{number}")))
    return found


async def journal(village: World) -> list[str]:
    return [row.event_id for row in await village.rows("SELECT event_id FROM device_events")]


# --- kill -9 at injected points -------------------------------------------------------------------------------------------


async def crash_and_come_back(
    village: World, receiver: Receiver, server: StartServer, mqtt_url: str, port: int, *points: str
) -> None:
    """The server dies at one point after the other, each time with the same messages on their way."""
    elder = await village.elder()
    for name in ("daughter", "son"):
        await village.contact(elder, name, addresses=[receiver.url(name)])
    button = await village.device(elder)
    process = await server(mqtt_url).start(crash_at=points[0])
    publisher = await Publisher(port).connected()
    try:
        sent = [
            publisher.publish(button, {"type": "door", "state": "open", "id": "door-1"}),
            publisher.publish(button, {"type": "sos", "id": "press-1"}),
            publisher.publish(button, {"type": "door", "state": "closed", "id": "door-2"}),
        ]
        await publisher.taken(sent)
        for point, following in itertools.pairwise([*points, ""]):
            await process.dies()
            if point == "before_commit":
                assert await journal(village) == []
            # The dead worker's lease runs out.
            await village.do("UPDATE notices SET due_at = due_at - interval '1 minute' WHERE state = 'sending'")
            await process.start(crash_at=following, ready=not following)
        await until(lambda: receiver.ids("daughter") and receiver.ids("son"), process.log)

        async def complete() -> bool:
            waiting = await village.value("SELECT count(*) FROM notices WHERE state IN ('pending', 'sending')")
            return waiting == 0 and len(await journal(village)) == 3

        await until(complete, process.log)
    finally:
        publisher.leave()
    assert sorted(await journal(village)) == ["door-1", "door-2", "press-1"]
    alarm = await village.alarm(elder)
    assert (alarm.state, alarm.repeats) == ("open", 0)
    for name in ("daughter", "son"):
        assert len(set(receiver.ids(name))) == 1, receiver.heard
    if "after_send_before_record" in points:
        assert len(receiver.heard) > 2  # what went out before the crash went out again, with the same id
    process.stop()


@pytest.mark.mosquitto
@pytest.mark.parametrize("point", INGEST_POINTS + SEND_POINTS)
async def test_killed_anywhere_nothing_is_lost_and_nothing_is_doubled(
    village: World, receiver: Receiver, server: StartServer, mosquitto: Mosquitto, point: str
) -> None:
    await crash_and_come_back(village, receiver, server, mosquitto.url, mosquitto.port, point)


async def test_killed_three_times_at_the_embedded_broker(
    village: World, receiver: Receiver, server: StartServer, embedded_broker: EmbeddedBroker
) -> None:
    await crash_and_come_back(
        village, receiver, server, embedded_broker.url, embedded_broker.port,
        "before_commit", "after_commit_before_ack", "after_send_before_record",
    )  # fmt: skip


# --- a subscriber's messages ------------------------------------------------------------------------------------------------


async def test_a_subscriber_hears_it_in_spite_of_two_kills_with_the_same_webhook_id(
    village: World, receiver: Receiver, server: StartServer, embedded_broker: EmbeddedBroker
) -> None:
    elder = await village.elder()
    await village.contact(elder, "daughter", addresses=[receiver.url("daughter")])
    process = await server(embedded_broker.url).start(crash_at="after_webhook_claim")
    async with transaction(village.sessions) as session:
        admin = (await session.execute(select(User))).scalar_one()
        owner = Principal(admin.id, admin.username, admin.role, admin.region_code, None)
        await subscriptions.create(
            session, owner, url=receiver.url("front"), event_types=[EventType.ALARM_RAISED], region_code=None,
            description=None, sealer=village.sealer, now=system_clock(),
        )  # fmt: skip
    await village.message(await village.device(elder), {"type": "sos"})
    for following, sent in (("after_webhook_send_before_record", 0), ("", 1)):
        await process.dies()
        assert len(receiver.ids("front")) == sent
        # The dead worker's lease runs out.
        await village.do("UPDATE webhook_deliveries SET due_at = due_at - interval '1 minute' WHERE state = 'sending'")
        await process.start(crash_at=following, ready=not following)
    await until(lambda: len(receiver.ids("front")) == 2, process.log)
    assert len(set(receiver.ids("front"))) == 1

    async def delivered() -> bool:
        return [row.state for row in await village.rows("SELECT state FROM webhook_deliveries")] == ["delivered"]

    await until(delivered, process.log)
    process.stop()


# --- the database goes away -----------------------------------------------------------------------------------------------


async def database_restarts_under_load(
    village: World, receiver: Receiver, server: StartServer, mqtt_url: str, port: int, postgres: EmbeddedPostgres
) -> None:
    known = await homes(village, receiver, 100)
    process = await server(mqtt_url).start()
    publisher = await Publisher(port).connected()
    try:
        sent = []
        for press in range(3):
            for number, (_, _, button) in enumerate(known):
                sent.append(publisher.publish(button, {"type": "sos", "id": f"{number}-{press}"}))
                if (press, number) == (1, 20):
                    await village.engine.dispose()
                    postgres.restart(immediate=True)
                if number % 20 == 0:
                    await asyncio.sleep(0.01)
        await publisher.taken(sent)

        async def complete() -> bool:
            try:
                return len(await journal(village)) == 300
            except (SQLAlchemyError, OSError):
                return False

        await until(complete, process.log)
        await until(lambda: all(receiver.ids(name) for _, name, _ in known), process.log)
    finally:
        publisher.leave()
    assert len(set(await journal(village))) == 300
    alarms = await village.alarms()
    assert {alarm.elder_id for alarm in alarms} == {elder.id for elder, _, _ in known}
    assert [alarm.repeats for alarm in alarms] == [2] * 100
    for _, name, _ in known:
        assert len(set(receiver.ids(name))) == 1
    process.stop()


@pytest.mark.mosquitto
async def test_the_database_restarts_under_load(
    village: World, receiver: Receiver, server: StartServer, mosquitto: Mosquitto, postgres: EmbeddedPostgres
) -> None:
    await database_restarts_under_load(village, receiver, server, mosquitto.url, mosquitto.port, postgres)


async def test_the_database_restarts_under_load_with_the_embedded_broker(
    village: World, receiver: Receiver, server: StartServer, embedded_broker: EmbeddedBroker, postgres: EmbeddedPostgres
) -> None:
    await database_restarts_under_load(village, receiver, server, embedded_broker.url, embedded_broker.port, postgres)


# --- the broker goes away -------------------------------------------------------------------------------------------------


@pytest.mark.mosquitto
async def test_the_broker_restarts_under_load(
    village: World, receiver: Receiver, server: StartServer, mosquitto: Mosquitto
) -> None:
    known = await homes(village, receiver, 20)
    process = await server(mosquitto.url).start()
    publisher = await Publisher(mosquitto.port).connected()
    try:
        sent = []
        for press in range(10):
            sent += [
                publisher.publish(button, {"type": "sos", "id": f"{n}-{press}"}) for n, (*_, button) in enumerate(known)
            ]
            if press == 4:
                mosquitto.stop()
            if press == 7:
                mosquitto.start()
            await asyncio.sleep(0.02)
        await publisher.taken(sent)

        async def complete() -> bool:
            return len(await journal(village)) == 200

        await until(complete, process.log)
    finally:
        publisher.leave()
    assert len(set(await journal(village))) == 200
    assert [alarm.repeats for alarm in await village.alarms()] == [9] * 20
    for _, name, _ in known:
        await until(lambda name=name: receiver.ids(name))
        assert len(set(receiver.ids(name))) == 1
    process.stop()


# --- two servers ----------------------------------------------------------------------------------------------------------


async def two_servers(
    village: World, receiver: Receiver, server: StartServer, mqtt_url: str, port: int, *, group: str
) -> None:
    await village.policy((2, ["emergency_contacts"]), repeat=1000)
    known = await homes(village, receiver, 20)
    both = [server(mqtt_url, name, SHOUWANG_MQTT_SHARED_GROUP=group) for name in ("one", "two")]
    await asyncio.gather(*(one.start() for one in both))
    publisher = await Publisher(port).connected()
    try:
        await publisher.taken(
            [
                publisher.publish(button, {"type": "sos", "id": f"{number}-{press}"})
                for press in range(3)
                for number, (*_, button) in enumerate(known)
            ]
        )
        await until(lambda: all(receiver.ids(name, "alarm.escalated") for _, name, _ in known), both[0].log)
    finally:
        publisher.leave()
    await until(lambda: village.value("SELECT count(*) = 2 FROM heartbeats"), both[0].log)
    await asyncio.sleep(1)  # a second telling would come by now
    assert len(await journal(village)) == 60
    assert [alarm.repeats for alarm in await village.alarms()] == [2] * 20
    for _, name, _ in known:
        assert len(receiver.ids(name)) == 1
        assert len(receiver.ids(name, "alarm.escalated")) == 1
    for one in both:
        await stops_calmly(one)
    assert await village.value("SELECT count(*) FROM heartbeats") == 0


async def stops_calmly(one: Server) -> None:
    """At once, and nothing in the log looks like a fault."""
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 5
    assert one.process is not None
    assert one.process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in one.log(), one.log()


@pytest.mark.mosquitto
async def test_two_servers_share_the_messages(
    village: World, receiver: Receiver, server: StartServer, mosquitto: Mosquitto
) -> None:
    await two_servers(village, receiver, server, mosquitto.url, mosquitto.port, group="shouwang")


async def test_two_servers_that_both_get_every_message(
    village: World, receiver: Receiver, server: StartServer, embedded_broker: EmbeddedBroker
) -> None:
    await two_servers(village, receiver, server, embedded_broker.url, embedded_broker.port, group="")
