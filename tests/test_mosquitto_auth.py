"""Devices prove who they are to Debian's mosquitto: the shipped configuration, `shouwang mosquitto-auth` beside it, and
`shouwang serve` behind it, as processes of their own. All people are invented."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import requests

from app.clock import system_clock
from app.embedded.broker import free_port
from app.embedded.postgres import EmbeddedPostgres
from tests.authority import Authority
from tests.brokers import SERVER, SERVER_PASSWORD, SHIPPED, Client, Mosquitto, until
from tests.world import DATA_KEY, TOKEN_KEY, World

pytestmark = [pytest.mark.mosquitto, pytest.mark.slow]
SHOUWANG = str(Path(sys.executable).parent / "shouwang")
ADMIN_PASSWORD = "an-invented-pass-phrase-7"


@dataclass
class Process:
    """A `shouwang` command with its output."""

    command: list[str]
    folder: Path
    environment: dict[str, str]
    name: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        return self

    def said(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise


@dataclass
class Place:
    """A broker, what keeps it in step, the server, and the API to it."""

    folder: Path
    database: str
    broker: Mosquitto
    mqtt_url: str = ""
    more: dict[str, str] = field(default_factory=dict)
    running: list[Process] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    http: int = field(default_factory=lambda: free_port(0))
    token: str = ""

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("SHOUWANG_")}
        return inherited | {
            "SHOUWANG_DATABASE_URL": self.database,
            "SHOUWANG_MQTT_URL": self.mqtt_url or self.broker.url,
            "SHOUWANG_DATA_DIR": str(self.folder),
            "SHOUWANG_HTTP_PORT": str(self.http),
            "SHOUWANG_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "SHOUWANG_DATA_KEY": base64.b64encode(DATA_KEY).decode(),
            "SHOUWANG_TOKEN_KEY": base64.b64encode(TOKEN_KEY).decode(),
            **self.more,
        }

    def run(self, name: str, *words: str) -> Process:
        process = Process([SHOUWANG, *words], self.folder, self.environment, name).start()
        self.running.append(process)
        return process

    def once(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [SHOUWANG, "mosquitto-auth", "--folder", str(self.broker.auth), "--once", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def keep(self, *words: str) -> Process:
        """`mosquitto-auth` as a watcher, and the broker, which needs its files."""
        how = words or ("--pid-file", str(self.broker.pid_file))
        keeper = self.run("keeper", "mosquitto-auth", "--folder", str(self.broker.auth), *how)
        until((self.broker.auth / "version").exists, "no files were written", keeper.said)
        return keeper

    async def serve(self, *, ready: bool = True) -> Process:
        server = self.run("server", "serve")
        until(lambda: self._answer("/readyz") in ((200,) if ready else (200, 503)), "no server", server.said, 60)
        if ready:
            form = {"username": "admin", "password": ADMIN_PASSWORD}
            answer = requests.post(f"{self.base}/api/v1/auth/token", data=form, timeout=10)
            self.token = answer.json()["access_token"]
        return server

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def _answer(self, path: str) -> int:
        try:
            return requests.get(self.base + path, timeout=5).status_code
        except requests.ConnectionError:
            return 0

    def ready(self) -> dict[str, Any]:
        return {found["name"]: found for found in requests.get(f"{self.base}/readyz", timeout=5).json()["findings"]}

    def credentials(self, device: str, method: str = "POST") -> dict[str, Any]:
        answer = requests.request(
            method, f"{self.base}/api/v1/devices/{device}/credentials", timeout=10,
            headers={"Authorization": f"Bearer {self.token}"},
        )  # fmt: skip
        assert answer.ok, answer.text
        return answer.json() if answer.content else {}

    def client(self, user: str | None, password: str | None = None, **more: Any) -> Client:
        self.clients.append(Client(self.broker, user, password, **more))
        return self.clients[-1]

    def comes_in(self, user: str, password: str, **more: Any) -> Client:
        """The device connects as soon as the broker knows it."""
        end = time.monotonic() + 15
        while (client := self.client(user, password, **more)).refused:
            assert time.monotonic() < end, client.refused
            client.leave()
            time.sleep(0.1)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.leave()
        for process in reversed(self.running):
            process.stop()
        self.broker.stop()


@pytest.fixture
def place(tmp_path: Path, database: str) -> Iterator[Place]:
    place = Place(tmp_path, database, Mosquitto(tmp_path / "broker"))
    try:
        yield place
    finally:
        place.close()


@pytest.fixture
async def village(database: str) -> AsyncIterator[World]:
    world = World(database, clock=system_clock)
    yield world
    await world.close()


async def journal(village: World) -> list[tuple[str, str]]:
    rows = await village.rows("SELECT device_id, event_id FROM device_events ORDER BY id")
    return [(row.device_id, row.event_id) for row in rows]


async def comes(true: Callable[[], Any], otherwise: Callable[[], object] = str, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not await true():
        assert time.monotonic() < end, otherwise()
        await asyncio.sleep(0.05)


def event(id_: str, type_: str = "sos") -> list[str]:
    return [f'{{"type": "{type_}", "id": "{id_}"}}']


# --- each device only for itself ------------------------------------------------------------------------------------------


async def test_a_device_speaks_for_itself_and_for_nobody_else(place: Place, village: World) -> None:
    elder = await village.elder()
    mine, other = await village.device(elder, "button-1"), await village.device(elder, "button-2")
    keeper = place.keep()
    place.broker.start()
    server = await place.serve()
    assert place.client(None).refused, "without a name"
    assert place.client(SERVER, SERVER_PASSWORD, at=place.broker.port).refused, (
        "the server's account by the devices' door"
    )
    assert place.client(mine, "guessed").refused, "before it has a password"

    given = place.credentials(mine)
    assert (given["username"], given["client_id"]) == (mine, mine)
    theirs = place.credentials(other)
    assert place.client(mine, given["password"], at=place.broker.server_port).refused, "by the server's own door"
    device = place.comes_in(mine, given["password"])
    assert place.client(mine, theirs["password"]).refused, "with another's password"
    assert place.client(mine, given["password"][:-1]).refused

    device.publish(given["topics"]["publish"][1], ['{"online": true}'], retain=True)
    device.publish(given["topics"]["publish"][0], event("own"))
    for topic in (f"devices/{other}/event", f"devices/{other}/status", f"devices/{mine}/command", "devices/x/event"):
        place.comes_in(mine, given["password"]).publish(topic, event("in another's name"))
    # MQTT 5 has a word for it.
    refused = place.comes_in(mine, given["password"], version=mqtt.MQTTv5)
    refused.publish(f"devices/{other}/event", event("in another's name"))
    assert refused.puback == ["Not authorized"]
    # A last will is a message too.
    place.comes_in(mine, given["password"], will=f"devices/{other}/status").vanish()
    place.comes_in(mine, given["password"], will=f"devices/{mine}/status").publish(
        given["topics"]["publish"][0], event("last")
    ).vanish()

    await comes(lambda: _has(village, (mine, "last")), server.said)
    assert await journal(village) == [(mine, "own"), (mine, "last")]
    await comes(lambda: village.value("SELECT online = false FROM devices WHERE device_id = 'button-1'"))
    assert await village.value("SELECT online IS NULL FROM devices WHERE device_id = 'button-2'")
    assert (await village.rejected(), await village.value("SELECT count(*) FROM unclaimed_devices")) == ([], 0)
    for secret in (given["password"], theirs["password"], SERVER_PASSWORD):
        assert secret not in keeper.said() + server.said()
        for path in place.broker.auth.iterdir():
            assert secret not in path.read_text(encoding="utf-8"), path
    assert {oct(path.stat().st_mode & 0o777) for path in place.broker.auth.iterdir()} == {"0o600"}


async def _has(village: World, wanted: tuple[str, str]) -> bool:
    return wanted in await journal(village)


async def test_a_device_hears_only_what_is_said_to_it(place: Place, village: World) -> None:
    """Mosquitto grants every subscription and then brings nothing of what the device may not read."""
    elder = await village.elder()
    mine, other = await village.device(elder, "button-1"), await village.device(elder, "button-2")
    place.keep()
    place.broker.start()
    server = await place.serve()
    device = place.comes_in(mine, place.credentials(mine)["password"])
    neighbour = place.comes_in(other, place.credentials(other)["password"])
    device.subscribe(
        f"devices/{mine}/command", f"devices/{other}/command", "devices/#", "devices/+/command", "#", "$SYS/#",
        "$CONTROL/#", f"$share/g/devices/{other}/command", "$share/shouwang/devices/+/event",
    )  # fmt: skip
    neighbour.subscribe(f"devices/{other}/command").publish(
        f"devices/{other}/status", ['{"online": true}'], retain=True
    )
    alarm = requests.post(
        f"{place.base}/api/v1/alarms", json={"elder_id": str(elder.id), "note": "邻居听到呼救"}, timeout=10,
        headers={"Authorization": f"Bearer {place.token}"},
    )  # fmt: skip
    assert alarm.status_code == 201
    acknowledged = requests.post(
        f"{place.base}/api/v1/alarms/{alarm.json()['id']}/acknowledge", json={"eta_minutes": 5}, timeout=10,
        headers={"Authorization": f"Bearer {place.token}"},
    )  # fmt: skip
    assert acknowledged.ok, acknowledged.text
    until(lambda: "acknowledged" in "".join(device.got), "the command did not reach the device", server.said)
    until(lambda: "acknowledged" in "".join(neighbour.got), "the command did not reach the other device")
    other_says = Client(place.broker, SERVER, SERVER_PASSWORD)
    other_says.publish(f"devices/{other}/command", ["for the neighbour"]).leave()
    until(lambda: "for the neighbour" in neighbour.got, "what comes later did not come")
    assert {topic for topic, _ in device.came} == {f"devices/{mine}/command"}


async def test_a_device_cannot_take_the_place_of_another_or_of_the_server(place: Place, village: World) -> None:
    """Under another's client id a broker would end that one's connection, and with a clean session its waiting
    messages."""
    mine, other = await village.device(None, "button-1"), await village.device(None, "button-2")
    place.keep()
    place.broker.start()
    server = await place.serve()
    given = place.credentials(mine)
    neighbour = place.comes_in(other, place.credentials(other)["password"], client_id="whatever")
    own_id = next(place.folder.glob("instance-id")).read_text().strip()
    for stolen in (other, f"shouwang-{own_id}-ingest-0"):
        thief = place.comes_in(mine, given["password"], client_id=stolen)
        thief.leave()
    assert not neighbour.gone.is_set()
    assert "disconnected" not in server.said()
    neighbour.publish(f"devices/{other}/event", event("still there"))
    await comes(lambda: _has(village, (other, "still there")), server.said)


# --- revoked and rotated --------------------------------------------------------------------------------------------------


async def test_a_revoked_device_is_cut_off_while_the_server_goes_on(place: Place, village: World) -> None:
    one, two = await village.device(None, "button-1"), await village.device(None, "button-2")
    keeper = place.keep()
    place.broker.start()
    server = await place.serve()
    lost, kept = place.credentials(one), place.credentials(two)
    thief = place.comes_in(one, lost["password"])
    device = place.comes_in(two, kept["password"])
    for number in range(20):
        device.publish(f"devices/{two}/event", event(f"before-{number}", "motion"))
    place.credentials(one, "DELETE")
    began = time.monotonic()
    numbers = 0
    while not thief.gone.is_set():
        device.publish(f"devices/{two}/event", event(f"while-{numbers}", "motion"))
        numbers += 1
        assert time.monotonic() - began < 10, keeper.said()
    assert time.monotonic() - began < 3, "cut off, but late"
    assert place.client(one, lost["password"]).refused
    device.publish(f"devices/{two}/event", event("after", "motion"))
    await comes(lambda: _has(village, (two, "after")), server.said)
    assert len(await journal(village)) == 20 + numbers + 1, "the server missed something"
    assert not device.gone.is_set()
    assert "disconnected" not in server.said()
    assert f"shut out: {one}" in keeper.said()
    assert place.credentials(one, "GET")["state"] == "revoked"
    again = place.credentials(one)["password"]
    place.comes_in(one, again).publish(f"devices/{one}/event", event("back"))
    await comes(lambda: _has(village, (one, "back")))


async def test_a_rotated_password_works_and_the_old_one_stops(place: Place, village: World) -> None:
    device = await village.device(None, "button-1")
    keeper = place.keep()
    place.broker.start()
    await place.serve()
    old = place.credentials(device)["password"]
    connected = place.comes_in(device, old)
    new = place.credentials(device)
    assert new["password"] != old
    assert new["rotated_at"] is not None
    assert connected.gone.wait(10), "connected with the old password"
    assert place.client(device, old).refused
    assert place.client(device, new["password"]).refused is None
    assert f"new password: {device}" in keeper.said()


async def test_a_device_that_is_deleted_from_the_register_is_cut_off(place: Place, village: World) -> None:
    device = await village.device(None, "button-1")
    place.keep("--pid-file", str(place.broker.pid_file), "--every", "3600")  # only the sign can wake it
    place.broker.start()
    await place.serve()
    connected = place.comes_in(device, place.credentials(device)["password"])
    await village.do("DELETE FROM devices WHERE device_id = 'button-1'")
    assert connected.gone.wait(10)


async def test_a_device_whose_id_cannot_be_a_user_name(place: Place, village: World) -> None:
    """A colon ends the name in Mosquitto's file; `shouwang` is the server's own. Their names are nobody's device id."""
    odd, taken, near = "AA:BB:01", SERVER, "device"
    for device in (odd, taken, near):
        await village.device(None, device)
    place.keep()
    place.broker.start()
    server = await place.serve()
    clients = {}
    for device in (odd, taken, near):
        given = place.credentials(device)
        assert (given["username"] == device) == (device == near)
        place.comes_in(given["username"], given["password"], at=place.broker.port).publish(
            "devices/sos-9/event", event("another's")
        ).leave()
        clients[device] = place.comes_in(given["username"], given["password"], at=place.broker.port)
        clients[device].subscribe(*given["topics"]["subscribe"])
        clients[device].publish(f"devices/{device}/event", event(f"of {device}"))
    await comes(lambda: _has(village, (near, f"of {near}")), server.said)
    assert await journal(village) == [(device, f"of {device}") for device in (odd, taken, near)]
    speaker = Client(place.broker, SERVER, SERVER_PASSWORD)
    for device in (odd, taken, near):
        speaker.publish(f"devices/{device}/command", [f"to {device}"])
    for device, client in clients.items():
        until(lambda: client.got, f"the command did not come to {device}")  # noqa: B023 - waited for here
        assert client.got == [f"to {device}"]
    speaker.leave()


# --- what goes away and comes back ----------------------------------------------------------------------------------------


async def test_the_queue_of_an_absent_server_survives_every_reconcile(place: Place, village: World) -> None:
    device = await village.device(None, "button-1")
    keeper = place.keep()
    place.broker.start()
    server = await place.serve()
    password = place.credentials(device)["password"]
    place.comes_in(device, password).publish(f"devices/{device}/event", event("known"))
    await comes(lambda: _has(village, (device, "known")), server.said)
    server.stop()
    place.comes_in(device, password).publish(f"devices/{device}/event", event("waiting-1"))
    await _reconcile(place, village, keeper, "spare-1")
    place.broker.stop()
    place.broker.start()
    await _reconcile(place, village, keeper, "spare-2")
    place.comes_in(device, password).publish(f"devices/{device}/event", event("waiting-2"))
    await _reconcile(place, village, keeper, "spare-3")
    await place.serve()
    await comes(lambda: _has(village, (device, "waiting-2")))
    assert sorted(id_ for _, id_ in await journal(village)) == ["known", "waiting-1", "waiting-2"]


async def _reconcile(place: Place, village: World, keeper: Process, name: str) -> None:
    """A new device is let in, by hand in the database: the broker reads its files again."""
    before = keeper.said().count("reads its files again")
    await village.password(await village.device(None, name))
    until(lambda: keeper.said().count("reads its files again") > before, "not told", keeper.said)
    assert place.broker.process is not None
    assert place.broker.process.poll() is None


async def test_the_keeper_outlives_the_broker_and_the_database(
    place: Place, village: World, postgres: EmbeddedPostgres
) -> None:
    first, second, third = [await village.device(None, f"button-{n}") for n in (1, 2, 3)]
    keeper = place.keep("--pid-file", str(place.broker.pid_file), "--every", "1")
    place.broker.start()
    await place.serve()
    one = place.credentials(first)["password"]
    place.comes_in(first, one)
    place.broker.stop(signal.SIGKILL)  # its pid file stays and names nobody
    two = place.credentials(second)["password"]
    until(lambda: f"let in: {second}" in keeper.said(), "not written while the broker was away", keeper.said)
    place.broker.start()
    place.comes_in(second, two)

    await village.engine.dispose()
    postgres.restart(immediate=True)
    until(lambda: _works(place), "the server does not come back", keeper.said)
    three = place.credentials(third)["password"]
    connected = place.comes_in(third, three)
    place.credentials(third, "DELETE")
    assert connected.gone.wait(10), keeper.said()
    assert keeper.process is not None
    assert keeper.process.poll() is None, keeper.said()
    assert "Traceback" not in keeper.said()


def _works(place: Place) -> bool:
    answer = requests.get(
        f"{place.base}/api/v1/devices", timeout=10, headers={"Authorization": f"Bearer {place.token}"}
    )
    return answer.ok


async def test_a_pid_file_that_names_another_program_harms_nobody(place: Place, village: World) -> None:
    """SIGHUP would end it."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        place.broker.pid_file.write_text(f"{bystander.pid}\n")
        done = place.once("--pid-file", str(place.broker.pid_file))
        assert done.returncode == 0, done.stderr
        assert "reads its files again" not in done.stdout
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


# --- the command itself ---------------------------------------------------------------------------------------------------


async def test_once_says_what_it_changed_and_then_changes_nothing(place: Place, village: World) -> None:
    for name in ("button-1", "button-2"):
        await village.password(await village.device(None, name))
    done = place.once()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "server-acl written", "acl written", "server-passwords written", "let in: button-1, button-2",
    ]  # fmt: skip
    written = {path.name: path.read_bytes() for path in place.broker.auth.iterdir()}
    assert place.once().stdout == "Nothing to change.\n"
    assert {path.name: path.read_bytes() for path in place.broker.auth.iterdir()} == written

    place.broker.start()
    told = place.once("--pid-file", str(place.broker.pid_file))
    assert told.stdout == "the broker reads its files again\n", "this broker was not told of this version yet"
    assert place.once("--pid-file", str(place.broker.pid_file)).stdout == "Nothing to change.\n"
    await village.do(
        "UPDATE device_credentials SET password_hash = NULL, revoked_at = now() WHERE device_id = 'button-1'"
    )
    done = place.once("--reload", f"kill -HUP {place.broker.pid_file.read_text().strip()}")
    assert done.stdout.splitlines() == ["shut out: button-1", "the broker reads its files again"]
    failed = place.once("--reload", "false")
    assert failed.stdout == "Nothing to change.\n", "it was told by the same command before"
    (place.broker.auth / ".told").unlink()
    failed = place.once("--reload", "false")
    assert failed.returncode == 1
    assert failed.stderr == "shouwang: the reload command ended with 1\n"


async def test_further_accounts_stand_beside_the_devices(place: Place, village: World) -> None:
    """A gateway of another family: its password from mosquitto_passwd, its topics in Mosquitto's own form."""
    await village.device(None, "button-1")
    passwords, rules = place.folder / "further", place.folder / "further-acl"
    subprocess.run(
        ["mosquitto_passwd", "-c", "-b", str(passwords), "gateway", "gateway-password"], check=True, capture_output=True
    )
    rules.write_text("user gateway\ntopic write zigbee2mqtt/#\n")
    more = ("--more-passwords", str(passwords), "--more-acl", str(rules))
    done = place.once(*more)
    assert "gateway" in done.stdout
    place.broker.start()
    server = place.client(SERVER, SERVER_PASSWORD).subscribe("zigbee2mqtt/#", "devices/+/event")
    gateway = place.client("gateway", "gateway-password")
    assert gateway.refused is None
    gateway.publish("zigbee2mqtt/door", ["open"])
    until(lambda: server.got == ["open"], "the gateway was not heard", lambda: server.got)
    passwords.write_text("gateway = gateway-password\n")
    failed = place.once(*more)
    assert failed.returncode == 1
    assert "line 1 of the further passwords is not `name:hash`" in failed.stderr
    failed = place.once("--more-passwords", str(place.folder / "nowhere"))
    assert failed.returncode == 1
    assert "nowhere: No such file" in failed.stderr


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("", "SHOUWANG_MQTT_URL must name your Mosquitto"), ("mqtt://127.0.0.1:1883", "the server's own account")],
)
async def test_without_an_account_of_the_server_it_says_what_is_missing(place: Place, url: str, sentence: str) -> None:
    place.more["SHOUWANG_MQTT_URL"] = url
    done = place.once()
    assert done.returncode == 1
    assert sentence in done.stderr
    assert list(place.broker.auth.iterdir()) == []


async def test_the_shipped_script_waits_for_the_files_and_passes_changes_on(place: Place, village: World) -> None:
    """As compose runs it: keeper and broker share a folder and nothing else."""
    device = await village.device(None, "button-1")
    configuration = place.broker.folder / "mosquitto.conf"
    script = Process(
        ["/bin/sh", str(SHIPPED / "run.sh"), str(configuration)], place.folder,
        {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin", "AUTH_DIR": str(place.broker.auth)}, "script",
    )  # fmt: skip
    place.running.append(script.start())
    until(lambda: "waiting for" in script.said(), "it does not wait", script.said)
    assert not place.broker.pid_file.exists()
    place.keep("--every", "3600")
    until(place.broker.pid_file.exists, "the broker was not started", script.said)
    await place.serve()
    given = place.credentials(device)
    connected = place.comes_in(device, given["password"])
    place.credentials(device, "DELETE")
    assert connected.gone.wait(10), script.said()
    pid = int(place.broker.pid_file.read_text())
    script.stop()
    assert script.process is not None
    assert script.process.returncode == 0, script.said()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_several_servers_share_the_messages_with_one_account(place: Place, village: World) -> None:
    place.more["SHOUWANG_MQTT_SHARED_GROUP"] = "shouwang"
    device = await village.device(None, "button-1")
    place.keep()
    place.broker.start()
    server = await place.serve()
    place.comes_in(device, place.credentials(device)["password"]).publish(
        f"devices/{device}/event", event("through the group")
    )
    await comes(lambda: _has(village, (device, "through the group")), server.said)


# --- TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


async def test_server_and_device_connect_by_tls(
    tmp_path: Path, database: str, village: World, authority: Authority
) -> None:
    """The broker asks the server for a certificate too."""
    own, key = authority.sign("server", "127.0.0.1")
    shown, shown_key = authority.sign("shouwang")
    broker = Mosquitto(tmp_path / "broker", tls=(own, key), asks_the_server=authority)
    place = Place(tmp_path, database, broker, broker.url.replace("mqtt://", "mqtts://"))
    place.more = {
        "SHOUWANG_MQTT_CA_FILE": str(authority.ca_file),
        "SHOUWANG_MQTT_CERT_FILE": str(shown),
        "SHOUWANG_MQTT_KEY_FILE": str(shown_key),
    }
    try:
        device = await village.device(None, "button-1")
        place.keep()
        broker.start()
        server = await place.serve()
        given = place.credentials(device)
        client = place.comes_in(device, given["password"], trusts=authority)
        client.subscribe(f"devices/{device}/command").publish(f"devices/{device}/event", event("by TLS"))
        await comes(lambda: _has(village, (device, "by TLS")), server.said)
        assert place.client(device, "wrong", trusts=authority).refused
        server.stop()
        # Without its own certificate the server is not let in, and says so.
        del place.more["SHOUWANG_MQTT_CERT_FILE"], place.more["SHOUWANG_MQTT_KEY_FILE"]
        place.http = free_port(0)
        await place.serve(ready=False)
        until(lambda: "broker" in place.ready(), "it calls itself ready")
    finally:
        place.close()


@pytest.mark.parametrize("how", ["another authority", "another host"])
async def test_the_server_refuses_a_broker_it_cannot_trust(
    tmp_path: Path, database: str, village: World, authority: Authority, how: str
) -> None:
    signer = Authority(tmp_path / "stranger", "stranger") if how == "another authority" else authority
    hosts = ("127.0.0.1",) if how == "another authority" else ("broker.example.org", "127.0.0.2")
    broker = Mosquitto(tmp_path / "broker", tls=signer.sign("server", *hosts))
    place = Place(tmp_path, database, broker, broker.url.replace("mqtt://", "mqtts://"))
    place.more = {"SHOUWANG_MQTT_CA_FILE": str(authority.ca_file)}
    try:
        place.keep()
        broker.start()
        server = await place.serve(ready=False)
        until(lambda: "no TLS connection" in str(place.ready().get("broker")), "it does not say why", place.ready)
        found = place.ready()["broker"]
        assert found["blocking"]
        assert ("IP address mismatch" in found["detail"]) == (how == "another host"), found
        assert "connected" not in [line.split('"event":')[-1] for line in server.said().splitlines()]
        assert "New client connected" not in broker.log()
        assert SERVER_PASSWORD not in server.said()
    finally:
        place.close()
