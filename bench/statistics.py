"""Statistics at the district's size: 100,000 elders in 450 villages, 3,000,000 visits over a year, 60,000 alarms."""

from __future__ import annotations

import asyncio
import os
import statistics
import time

import aiohttp
import asyncpg

VISITS = int(os.environ.get("BENCH_VISITS", "3000000"))
ALARMS = int(os.environ.get("BENCH_ALARMS", "60000"))
_VILLAGES, _VISITORS = 450, 10  # visitors: of each village
_TOWNSHIP, _VILLAGE = "370302001", "370302001001"


# What `coverage_refresh` computes person by person, for everybody at once: compared with it for some.
_MONTHS_OF_PEOPLE = """
    INSERT INTO elder_months (elder_id, month, place_code, care_level, counted_from, excused, evidenced, visits, attempts,
                              first_on, last_on, gap_days)
    WITH zone AS (SELECT timezone AS z, opened_through FROM coverage_calendar),
    days AS (
        SELECT elder_id, qualifying, (started_at AT TIME ZONE z)::date AS day FROM visits, zone WHERE qualifying
        UNION ALL SELECT elder_id, qualifying, (started_at AT TIME ZONE z)::date FROM visits, zone WHERE NOT qualifying
    ),
    person AS (SELECT e.*, (e.created_at AT TIME ZONE z)::date AS enrolled_on, opened_through FROM elders e, zone),
    gaps AS (
        SELECT d.*, date_trunc('month', day)::date AS month, CASE WHEN qualifying THEN day - 1 - coalesce(
                   lag(day) OVER (PARTITION BY d.elder_id, date_trunc('month', day), qualifying ORDER BY day),
                   greatest(date_trunc('month', day)::date, p.enrolled_on) - 1) END AS gap
        FROM days d JOIN person p ON p.id = d.elder_id
    ),
    counted AS (
        SELECT elder_id, month, count(*) FILTER (WHERE qualifying) AS visits, count(*) FILTER (WHERE NOT qualifying) AS attempts,
               min(day) FILTER (WHERE qualifying) AS first_on, max(day) FILTER (WHERE qualifying) AS last_on,
               greatest(max(gap), 0) AS gap_days
        FROM gaps GROUP BY elder_id, month
    )
    SELECT p.id, m::date, p.region_code, p.care_level, greatest(m::date, p.enrolled_on),
           CASE WHEN s.since < m + interval '1 month' THEN 'in_hospital' END, true, coalesce(c.visits, 0),
           coalesce(c.attempts, 0), c.first_on, c.last_on, coalesce(c.gap_days, 0)
    FROM person p CROSS JOIN LATERAL generate_series(
        date_trunc('month', p.enrolled_on::timestamp), p.opened_through::timestamp, interval '1 month') m
    LEFT JOIN counted c ON c.elder_id = p.id AND c.month = m::date
    LEFT JOIN elder_statuses s ON s.elder_id = p.id
"""


async def fill(db: asyncpg.Connection) -> None:
    """People spread over the villages, each with a visit every twelve days or so; one in fifty was never visited, one in a
    hundred is in hospital. The triggers are off while it is filled; the kept rows are then computed for everybody at once."""
    townships = [row["code"] for row in await db.fetch(
        "SELECT code FROM regions WHERE level = 'township' ORDER BY code"
    )]  # fmt: skip
    codes = [f"{townships[n % len(townships)][:9]}{n // len(townships) + 1:03d}" for n in range(_VILLAGES)]
    await db.execute(
        "INSERT INTO regions (code, name, level, parent_code, created_at) SELECT c, '村' || right(c, 3), 'village', "
        "left(c, 9) || '000', now() FROM unnest($1::text[]) c ON CONFLICT DO NOTHING", codes)  # fmt: skip
    async with db.transaction():
        await db.execute("SET LOCAL session_replication_role = replica")
        await db.execute(
            "CREATE TEMP TABLE people AS SELECT id, row_number() OVER (ORDER BY id) - 1 AS n, "
            "$1::text[] AS codes FROM elders", codes)  # fmt: skip
        await db.execute(
            "UPDATE elders e SET region_code = p.codes[p.n % 450 + 1], created_at = now() - interval '13 months', "
            "care_level = (ARRAY['key', 'secondary', 'general'])[p.n % 3 + 1] FROM people p WHERE p.id = e.id"
        )
        await db.execute(
            "INSERT INTO elder_statuses (id, elder_id, status, reason, since, evidence, recorded_at, recorded_by) "
            "SELECT gen_random_uuid(), id, 'paused', 'in_hospital', current_date - 40, '住院证', now(), 'bench' "
            "FROM people WHERE n % 100 = 7"
        )
        await db.execute(
            "CREATE TEMP TABLE goers AS SELECT gen_random_uuid() AS id, v, w FROM generate_series(0, $1::int - 1) v, "
            "generate_series(0, $2::int - 1) w", _VILLAGES, _VISITORS)  # fmt: skip
        await db.execute(
            "INSERT INTO visitors (id, name, kind, region_code, created_at, version) "
            "SELECT id, '探访员' || v || '-' || w, 'volunteer', ($1::text[])[v + 1], now(), 1 FROM goers", codes)  # fmt: skip
        await db.execute("ANALYZE people")
        await db.execute("ANALYZE goers")
        await db.execute(
            """
            INSERT INTO visits (id, elder_id, region_code, place_code, visitor_id, method, outcome, started_at, ended_at,
                                services, qualifying, created_at, created_by, non_qualifying_code)
            SELECT uuidv7(make_interval(secs => -s)), p.id, p.codes[p.n % 450 + 1], p.codes[p.n % 450 + 1], g.id, 'home',
                   CASE WHEN k % 20 = 0 THEN 'nobody_home' ELSE 'met' END, now() - make_interval(secs => s),
                   now() - make_interval(secs => s - 1500), '{daily_living}', k % 20 <> 0, now(), 'bench',
                   CASE WHEN k % 20 = 0 THEN 'attempt' END
            FROM generate_series(1, $1::int) k
            JOIN people p ON p.n = (k::bigint * 7919) % (SELECT count(*) FROM people)
            JOIN goers g ON g.v = p.n % 450 AND g.w = p.n / 450 % $2::int,
            LATERAL (SELECT (k::bigint * 104729) % (365 * 86400) + 3600 AS s) t WHERE p.n % 50 <> 3
            """, VISITS, _VISITORS)  # fmt: skip
        await db.execute(
            """
            INSERT INTO alarms (id, elder_id, region_code, kind, severity, state, because, trigger_device_id, occurred_at,
                                received_at, late, raised_at, first_sent_at, answered_at, resolved_at, outcome, repeats,
                                plan, plan_from, step, round, version)
            SELECT uuidv7(make_interval(secs => -s)), p.id, p.codes[p.n % 450 + 1], 'sos', 'critical', 'resolved', 'x',
                   'sos-' || p.n, t.at, t.at, false, t.at, t.at + interval '1 s', t.at + make_interval(secs => k % 200),
                   t.at + interval '1 h', (ARRAY['false_alarm', 'real_emergency', 'elder_well'])[k % 3 + 1], 0, '{}', t.at,
                   0, 0, 1
            FROM generate_series(1, $1::int) k
            JOIN people p ON p.n = (k::bigint * 7919) % (SELECT count(*) FROM people),
            LATERAL (SELECT (k::bigint * 104729) % (365 * 86400) + 3600 AS s) x,
            LATERAL (SELECT now() - make_interval(secs => x.s) AS at) t
            """, ALARMS)  # fmt: skip
    await asyncio.sleep(5)  # whoever waited for these rows is through: vacuum cannot tidy behind an older snapshot
    await db.execute("VACUUM ANALYZE visits, visitors, elders, alarms, elder_statuses")
    await db.execute("DELETE FROM elder_months")
    await db.execute("TRUNCATE coverage_sums")
    await db.execute(_MONTHS_OF_PEOPLE)
    await db.execute("VACUUM ANALYZE elder_months, coverage_sums")
    wrong = await db.fetchval(
        "WITH these AS (SELECT array_agg(id) AS ids FROM (SELECT id FROM elders ORDER BY id LIMIT 500) e) "
        "SELECT count(*) FROM these, coverage_rows(ids, array_fill(date '1900-01-01', ARRAY[cardinality(ids)]), NULL) r "
        "LEFT JOIN elder_months m ON m.elder_id = r.elder_id AND m.month = r.month WHERE m.* IS DISTINCT FROM r.*"
    )
    assert wrong == 0, f"{wrong} rows are not what the database itself computes"


async def measure(db: asyncpg.Connection, http: aiohttp.ClientSession, base: str, token: str) -> None:
    """Prints the median and the slowest of five requests of each route."""
    began = time.perf_counter()
    await fill(db)
    visits, rows = (
        await db.fetchval("SELECT count(*) FROM visits"),
        await db.fetchval("SELECT count(*) FROM elder_months"),
    )
    print(f"\nstatistics: {visits} visits, {rows} people's months (filled in {time.perf_counter() - began:.0f} s)")
    month = await db.fetchval("SELECT to_char(now() - interval '1 month', 'YYYY-MM')")
    visitor = await db.fetchval("SELECT visitor_id FROM visits WHERE qualifying AND place_code = $1 LIMIT 1", _VILLAGE)
    for path in (
        f"/stats/coverage?month={month}",
        f"/stats/coverage?month={month}&group_by=township",
        f"/stats/coverage?month={month}&group_by=village",
        f"/stats/coverage?month={month}&group_by=care_level",
        f"/stats/coverage?month={month}&group_by=village&region_code={_TOWNSHIP}",
        f"/stats/coverage?month={month}&region_code={_VILLAGE}",
        "/stats/coverage/forecast?group_by=village",
        "/stats/coverage/trend?months=12",
        f"/stats/coverage/trend?months=12&region_code={_VILLAGE}",
        f"/stats/coverage/elders?month={month}&excluded=in_hospital",
        f"/stats/coverage/elders?month={month}&standing=unvisited&region_code={_VILLAGE}",
        f"/stats/alarms?month={month}&group_by=kind",
        f"/stats/alarms?month={month}&group_by=device_model",
        f"/stats/alarms?month={month}&region_code={_VILLAGE}",
        f"/stats/visitors?month={month}&limit=200",
        f"/visitors/{visitor}/hours?months=12",
        f"/reports/township-review?region_code={_TOWNSHIP}",
    ):
        waits = []
        for _ in range(6):
            start = time.perf_counter()
            async with http.get(f"{base}/api/v1{path}", headers={"Authorization": f"Bearer {token}"}) as answer:
                await answer.read()
                assert answer.status == 200, (path, answer.status)
            waits.append((time.perf_counter() - start) * 1000)
        waits = waits[1:]
        shown = path.replace(str(visitor), "{id}")
        print(f"  GET {shown:<78} median {statistics.median(waits):6.1f} ms   slowest {max(waits):6.1f} ms", flush=True)
