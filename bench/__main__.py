"""`make bench`: prints the figures of docs/benchmarks.md.

Everything runs on this machine: broker (Debian's mosquitto with the shipped limits if it is there, otherwise the
embedded one), embedded PostgreSQL with fsync on, two server processes, the receiver and the generator.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import uvloop

from app.access.sealing import Sealer
from app.db import migrate
from app.embedded.broker import EmbeddedBroker, free_port
from app.embedded.postgres import EmbeddedPostgres
from app.key_files import new_key
from bench import district, watches
from bench import statistics as of_the_district
from bench.generator import Publisher

DOORS = int(os.environ.get("BENCH_DOORS", "60000"))
STORM = int(os.environ.get("BENCH_STORM", "5000"))
STEADY_S = int(os.environ.get("BENCH_STEADY_S", "15"))
PAST_ROWS = int(os.environ.get("BENCH_PAST_ROWS", "1000000"))
MANY = int(os.environ.get("BENCH_ELDERS", "100000"))
FIRST = 12_000
PASSWORD = "bench-password-1"  # noqa: S105 - for a server that lives a minute


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.token_key = new_key(), new_key()
        self.http, self.hook, self.mqtt = free_port(18300), free_port(18301), free_port(18302)
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.postgres = EmbeddedPostgres(
            self.folder, options={"log_min_duration_statement": "50"} if os.environ.get("BENCH_LOG") else {}
        ).start()
        migrate(self.postgres.url())
        self.broker_name = self._start_broker()
        self.children.append(subprocess.Popen([sys.executable, "-m", "bench.receiver", str(self.hook)]))
        self.servers = [
            self._serve("api,ingest,worker", self.http), self._serve("worker", free_port(18310))
        ]  # fmt: skip

    def _serve(self, roles: str, port: int) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ, "SHOUWANG_DATABASE_URL": self.postgres.url(), "SHOUWANG_DATA_KEY": self.key,
            "SHOUWANG_TOKEN_KEY": self.token_key, "SHOUWANG_MQTT_URL": f"mqtt://127.0.0.1:{self.mqtt}",
            "SHOUWANG_DATA_DIR": str(self.folder / "server"), "SHOUWANG_HTTP_PORT": str(port),
            "SHOUWANG_ADMIN_PASSWORD": PASSWORD, "SHOUWANG_ALLOW_PRIVATE_WEBHOOKS": "true",
            "SHOUWANG_LOG_LEVEL": "WARNING",
        }  # fmt: skip
        script = str(Path(sys.executable).parent / "shouwang")
        server = subprocess.Popen([script, "serve", "--roles", roles], env=environment, stdout=subprocess.DEVNULL)
        self.children.append(server)
        return server

    def _start_broker(self) -> str:
        mosquitto = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if mosquitto is None:
            self.embedded = EmbeddedBroker(self.folder, self.mqtt).start()
            return "iotcore (embedded)"
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            "max_inflight_messages 2000\npersistence false\n"
        )
        self.children.append(subprocess.Popen([mosquitto, "-c", str(config)], stderr=subprocess.DEVNULL))
        return "mosquitto"

    def stop(self) -> None:
        for child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
        if hasattr(self, "embedded"):
            self.embedded.stop()
        self.postgres.stop()

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(host=self.postgres.url().split("host=")[1], user="postgres", database="shouwang")

    def memory_mb(self) -> int:
        """Of all server processes together."""
        texts = [Path(f"/proc/{server.pid}/status").read_text() for server in self.servers]
        return sum(int(text.split("VmRSS:")[1].split()[0]) for text in texts) // 1024

    # --- measurements ------------------------------------------------------------------------------------------------

    async def doors(self, db: asyncpg.Connection, http: aiohttp.ClientSession, devices: int) -> float:
        """Door events journalled a second, from the first publish to the last commit."""
        tag = time.time_ns()
        messages = [
            (f"devices/door-{i % devices}/event", b'{"type":"door","state":"open","id":"%d-%d"}' % (tag, i))
            for i in range(DOORS)
        ]
        publisher = await Publisher().connect(self.mqtt, f"bench-{tag}")
        before = await self.journalled(http)
        began = time.perf_counter()
        await publisher.flood(messages)
        while await self.journalled(http) < before + DOORS:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.1)
        took = time.perf_counter() - began
        await publisher.close()
        written = await db.fetchval("SELECT count(*) FROM device_events WHERE event_id LIKE $1", f"{tag}-%")
        assert written == DOORS, f"{written} of {DOORS} events in the journal"
        return DOORS / took

    async def journalled(self, http: aiohttp.ClientSession) -> int:
        """The server's own count of door events, made after their commits."""
        async with http.get(f"http://127.0.0.1:{self.http}/metrics") as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith('shouwang_events_total{outcome="journalled",type="door"}'):
                    return int(float(line.split()[-1]))
        return 0

    async def storm(self, http: aiohttp.ClientSession, first: int) -> float:
        """Alerts delivered a second: SOS of different elders, two webhook contacts each."""
        tag = time.time_ns()
        messages = [(f"devices/sos-{first + i}/event", b'{"type":"sos","id":"%d-%d"}' % (tag, i)) for i in range(STORM)]
        publisher = await Publisher().connect(self.mqtt, f"bench-{tag}")
        await self.take(http)
        began = time.time()
        await publisher.flood(messages)
        while int(await (await http.get(f"http://127.0.0.1:{self.hook}/count")).text()) < 2 * STORM:
            if time.time() - began > 120:
                raise RuntimeError("the storm's alerts did not arrive")
            await asyncio.sleep(0.02)
        heard = await self.take(http)
        await publisher.close()
        return 2 * STORM / (max(max(moments) for moments in heard.values()) - began)

    async def steady(self, http: aiohttp.ClientSession, first: int) -> tuple[float, float, float]:
        """p50, p95, p99 in milliseconds from publish to the contact's request, at 100 SOS/s."""
        tag, count = time.time_ns(), STEADY_S * 100
        messages = [(f"devices/sos-{first + i}/event", b'{"type":"sos","id":"%d-%d"}' % (tag, i)) for i in range(count)]
        publisher = await Publisher().connect(self.mqtt, f"bench-{tag}")
        await self.take(http)
        moments = await publisher.pace(messages, per_second=100)
        await asyncio.sleep(2)
        heard = await self.take(http)
        await publisher.close()
        waits = [
            (t - moments[int(event.split("-")[1])]) * 1000
            for event, times in heard.items()
            if event.startswith(str(tag))
            for t in times
        ]
        if len(waits) != 2 * count:
            print(f"  ! {len(waits)} of {2 * count} alerts arrived")
        cuts = statistics.quantiles(waits, n=100)
        return cuts[49], cuts[94], cuts[98]

    async def take(self, http: aiohttp.ClientSession) -> dict[str, list[float]]:
        answer: dict[str, Any] = json.loads(await (await http.get(f"http://127.0.0.1:{self.hook}/take")).text())
        return dict(answer["times"])

    async def lists(self, http: aiohttp.ClientSession, token: str, elder: str) -> dict[str, float]:
        """p95 in milliseconds of 100 requests each."""
        found = {}
        paths = (
            "/elders?limit=50",
            f"/elders?limit=50&region_code={district.VILLAGE}",
            "/alarms?limit=50",
            "/devices?limit=50",
            f"/elders/{elder}/timeline?limit=50",
            "/devices/door-7/events?limit=50",
        )
        for path in paths:
            waits = []
            for _ in range(100):
                began = time.perf_counter()
                async with http.get(
                    f"http://127.0.0.1:{self.http}/api/v1{path}", headers={"Authorization": f"Bearer {token}"}
                ) as answer:
                    await answer.read()
                    assert answer.status == 200, path
                waits.append((time.perf_counter() - began) * 1000)
            found[path.replace(elder, "{id}")] = statistics.quantiles(waits, n=20)[18]
        return found

    async def token(self, http: aiohttp.ClientSession) -> str:
        for _ in range(200):
            try:
                form = {"username": "admin", "password": PASSWORD}
                async with http.post(f"http://127.0.0.1:{self.http}/api/v1/auth/token", data=form) as answer:
                    return str((await answer.json())["access_token"])
            except (aiohttp.ClientError, KeyError):
                await asyncio.sleep(0.1)
        raise RuntimeError("the server did not come up")


async def measure(bench: Bench) -> None:
    import base64

    sealer = Sealer(base64.b64decode(bench.key))
    db = await bench.connect()
    async with aiohttp.ClientSession() as http:
        await bench.token(http)  # the server is up
        await district.village(db)
        hook = f"http://127.0.0.1:{bench.hook}"
        await district.people(db, sealer, first=0, count=FIRST, hook=hook)
        await db.execute("ANALYZE")
        print(
            f"broker {bench.broker_name}, PostgreSQL {await db.fetchval('SHOW server_version')}, "
            f"fsync {await db.fetchval('SHOW fsync')}, {os.cpu_count()} cores"
        )
        await _round(bench, db, http, f"{FIRST} elders, empty journal", first=0)
        print(f"growing to {MANY} elders and {PAST_ROWS} journal rows …")
        for start in range(FIRST, MANY, 10_000):
            await district.people(db, sealer, first=start, count=min(10_000, MANY - start), hook=hook)
        await district.past(db, rows=PAST_ROWS, devices=min(MANY, 100_000))
        # What PostgreSQL does by itself in the minutes after a filling (vacuum, and its log on the disk) is not measured.
        await db.execute("VACUUM (ANALYZE)")
        await db.execute("CHECKPOINT")
        await asyncio.to_thread(os.sync)
        await _round(bench, db, http, f"{MANY} elders, {PAST_ROWS} journal rows", first=FIRST)
        elder = str(await db.fetchval("SELECT elder_id FROM alarms LIMIT 1"))
        token = await bench.token(http)  # the first one has run out by now
        for path, p95 in (await bench.lists(http, token, elder)).items():
            print(f"  GET {path:<52} p95 {p95:6.1f} ms")
        await of_the_district.measure(db, http, f"http://127.0.0.1:{bench.http}", token)
    await db.close()


async def _quiet(db: asyncpg.Connection) -> None:
    """Close what the last measurement opened: thousands of open alarms would go on escalating into the next."""
    await db.execute("UPDATE alarms SET state = 'resolved', outcome = 'test', resolved_at = now(), next_at = NULL "
                     "WHERE state <> 'resolved'")  # fmt: skip
    await asyncio.sleep(1)


async def _waiting_for_the_register(db: asyncpg.Connection) -> int:
    """People whose duties are to be judged anew, as after a long list or on the first of a month: work beside the alarms."""
    return int(await db.fetchval("SELECT count(*) FROM visit_duties WHERE look_on <= current_date"))


async def _round(bench: Bench, db: asyncpg.Connection, http: aiohttp.ClientSession, title: str, *, first: int) -> None:
    print(f"\n{title}")
    await bench.doors(db, http, 500)  # warm
    print(
        f"  door events journalled          {await bench.doors(db, http, 2000):10.0f} /s   (best of one, {DOORS} events)"
    )
    print(f"  SOS to two webhook contacts     {await bench.storm(http, first):10.0f} alerts/s   ({STORM} SOS)")
    await _quiet(db)
    waiting = await _waiting_for_the_register(db)
    p50, p95, p99 = await bench.steady(http, first + STORM)
    print(f"  publish → contact at 100 SOS/s   p50 {p50:.1f} ms   p95 {p95:.1f} ms   p99 {p99:.1f} ms")
    if waiting:
        judged = waiting - await _waiting_for_the_register(db)
        print(f"  (the register judged {judged} people's duties anew meanwhile, {waiting - judged} still wait)")
    print(f"  server memory                   {bench.memory_mb():10d} MB", flush=True)
    await _quiet(db)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        bench = Bench(Path(name))
        try:
            bench.start()
            uvloop.run(measure(bench))
        finally:
            bench.stop()
    watches.run(MANY)


if __name__ == "__main__":
    main()
