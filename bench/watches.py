"""How fast due homes are found and judged among 100,000.

    python -m bench.watches [homes]

A database of its own: every home has a state, a door and a motion sensor; most are due in some hours, some now.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg

from app.db import Sessions, connect, migrate, sessions, transaction
from app.embedded.postgres import EmbeddedPostgres
from app.watches import due

DUE = 400
_TZ = ZoneInfo("Asia/Shanghai")
_FILL = """
    INSERT INTO elders (id, name, sex, birth_date, id_number_sealed, id_number_index, region_code, tags, dementia, services,
                        status, created_at, updated_at, version)
    SELECT gen_random_uuid(), 'n', 'female', '1940-01-01', '\\x00', decode(lpad(to_hex(i), 16, '0'), 'hex'), '370302001000',
           '{}', false, '{}', 'active', now(), now(), 1
    FROM generate_series(1, $1::int) AS i;
"""
_HOMES = """
    INSERT INTO home_states (elder_id, state, due_at, version)
    SELECT id, format('{"moved":%s,"heard":%s,"where":"home","contact":true,"inside":true,"by":"m"}', $1::float, $1::float),
           now() + interval '1 minute' + (row_number() OVER ()) * interval '100 milliseconds', 1
    FROM elders
"""
_DEVICES = """
    INSERT INTO devices (device_id, kind, profile, place, region_code, last_seen_at, created_at, version)
    SELECT id || kind, kind, 'native', '客厅', '370302001000', now(), now(), 1
    FROM elders CROSS JOIN unnest(ARRAY['door_sensor', 'motion_sensor']) AS kind
"""
_BINDINGS = """
    INSERT INTO bindings (id, device_id, elder_id, bound_at)
    SELECT gen_random_uuid(), d.device_id, e.id, now()
    FROM elders e JOIN devices d ON d.device_id IN (e.id || 'door_sensor', e.id || 'motion_sensor')
"""


async def measure(url: str, homes: int) -> None:
    """Fill, and print what a tick costs when nothing is due, and when some homes are."""
    db = await asyncpg.connect(host=url.split("host=")[1], user="postgres", database="shouwang")
    await db.execute(_FILL.replace("$1::int", str(homes)))
    heard = (datetime.now(UTC) - timedelta(minutes=30)).timestamp()
    await db.execute(_HOMES.replace("$1::float", str(heard)))
    await db.execute(_DEVICES)
    await db.execute(_BINDINGS)
    await db.execute("VACUUM ANALYZE")
    engine = connect(url, pool=2)
    maker = sessions(engine)
    nothing, found, looked = [], [], []
    for _ in range(30):
        nothing.append(await _look(maker))
    for _ in range(10):
        await db.execute(
            "UPDATE home_states SET due_at = now() WHERE elder_id IN (SELECT elder_id FROM home_states LIMIT $1)", DUE
        )
        began = time.perf_counter()
        async with transaction(maker) as session:
            count = len(await due.find_due(session, now=datetime.now(UTC) + timedelta(seconds=1)))
            found.append(time.perf_counter() - began)
        assert count == min(due._BATCH, DUE)
        looked.append(await _look(maker))
        while await _look(maker, count=True):
            pass
    print(f"{homes} homes, each with two devices; one batch is {due._BATCH}")
    for name, times in (("nothing due", nothing), (f"{DUE} due: found and locked", found), ("judged and kept", looked)):
        print(f"  {name:<28} p50 {statistics.median(times) * 1000:6.1f} ms   max {max(times) * 1000:6.1f} ms")
    await engine.dispose()
    await db.close()


async def _look(maker: Sessions, *, count: bool = False) -> float:
    began = time.perf_counter()
    async with transaction(maker) as session:
        done = await due.take_due(session, now=datetime.now(UTC), tz=_TZ)
    return float(done) if count else time.perf_counter() - began


def run(homes: int) -> None:
    """All of it, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder)).start()
        try:
            migrate(server.url())
            asyncio.run(measure(server.url(), homes))
        finally:
            server.stop()


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
