"""The wall in a real database: what a transaction on somebody's behalf sees when no query filters anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.access.principal import Principal
from app.access.scope import WALLS
from app.access.vocabulary import Role
from app.access.wall import Reach, RolesMissing, beyond, raise_walls, reach_of, walled
from app.db import connect, migrate, sessions, transaction
from app.embedded.postgres import EmbeddedPostgres
from tests.world import OTHER_VILLAGE, VILLAGE, World


def somebody(region: str, role: Role = Role.SUPERVISOR, visitor: UUID | None = None) -> Principal:
    return Principal(uuid4(), "somebody", role, region, visitor)


async def seen(world: World, who: Principal, table: str = "elders") -> set[str]:
    column = "name" if table in ("elders", "visitors", "contacts") else "id"
    async with walled(world.sessions, who, now=world.time()) as session:
        return {str(value) for value in (await session.execute(sa.text(f"SELECT {column} FROM {table}"))).scalars()}


async def test_a_table_read_whole_shows_what_is_ones_own(world: World) -> None:
    """No query here filters by region: the wall does."""
    for name, region in (("王桂英", VILLAGE), ("李大山", OTHER_VILLAGE)):
        elder = await world.elder(name, region=region)
        await world.contact(elder, f"{name}的女儿")
        await world.press_sos(await world.device(elder))
    everybody = somebody("")
    assert await seen(world, everybody) == {"王桂英", "李大山"}
    assert await seen(world, somebody("370302")) == {"王桂英", "李大山"}
    assert await seen(world, somebody(VILLAGE)) == {"王桂英"}
    assert await seen(world, somebody("370303")) == set()
    for table in ("contacts", "channels", "alarms", "alarm_entries", "notices", "bindings", "device_events"):
        both, own = await seen(world, everybody, table), await seen(world, somebody(VILLAGE), table)
        other = await seen(world, somebody(OTHER_VILLAGE), table)
        assert own, table
        assert other, table
        assert own | other == both, table
        assert not own & other, table


async def test_a_message_is_seen_by_whoever_sees_everybody_it_names(world: World) -> None:
    """And by the visitor it went to only while they all are theirs."""
    mine, beside, foreign = (
        await world.elder("本户"),
        await world.elder("邻户"),
        await world.elder("外户", region=OTHER_VILLAGE),
    )
    visitor = await world.visitor("李志愿", of=mine)
    for key, about in (("mine", [mine.id]), ("both", [mine.id, beside.id]), ("foreign", [mine.id, foreign.id])):
        await world.do(
            "INSERT INTO digests (id, kind, key, visitor_id, region_code, title, text, data, about, state, attempts, position, "
            "created_at, due_at, expires_at) VALUES (gen_random_uuid(), 'visits.due', :key, :visitor, :region, 'x', 'x', '{}', "
            "CAST(:about AS uuid[]), 'pending', 0, 0, now(), now(), now() + interval '1 day')",
            key=key, visitor=visitor.id, region=VILLAGE, about=about,
        )  # fmt: skip

    async def keys(who: Principal) -> set[str]:
        async with walled(world.sessions, who, now=world.time()) as session:
            return set((await session.execute(sa.text("SELECT key FROM digests"))).scalars())

    account = somebody(VILLAGE, Role.VISITOR, visitor.id)
    assert await keys(somebody("")) == {"mine", "both", "foreign"}
    assert await keys(somebody(VILLAGE)) == {"mine", "both"}
    assert await keys(account) == {"mine"}
    await world.do("UPDATE assignments SET ended_at = :now", now=world.time())
    assert await keys(account) == set()


async def test_a_role_without_a_scope_sees_nothing(world: World) -> None:
    """Nor does one whose scope belonged to the transaction before, on the same connection."""
    elder = await world.elder()
    await world.press_sos(await world.device(elder))
    async with walled(world.sessions, somebody(VILLAGE), now=world.time()):
        pass
    for reach in (Reach.REGION, Reach.VISITOR):
        for table, wall in WALLS.items():
            async with world.sessions() as session:
                await session.execute(sa.text("SELECT set_config('role', :role, true)"), {"role": reach.value})
                count = sa.text(f"SELECT count(*) FROM {table}")
                if not wall.everywhere:
                    with pytest.raises(DBAPIError, match="permission denied"):
                        await session.execute(count)
                elif wall.region != "true":
                    assert await session.scalar(count) == 0, (reach, table)


async def test_what_is_foreign_is_not_changed_either(world: World) -> None:
    """UPDATE and DELETE meet no row; INSERT is refused by the database."""
    elder = await world.elder("李大山", region=OTHER_VILLAGE)
    who = somebody(VILLAGE)
    async with walled(world.sessions, who, now=world.time()) as session:
        for statement in (
            "UPDATE elders SET dementia = true RETURNING id",
            "DELETE FROM elder_facts RETURNING elder_id",
        ):
            assert (await session.execute(sa.text(statement))).all() == []
    insert = sa.text("INSERT INTO family_members (id, elder_id, name, relation, lives_with, supporter, lives_away,"
                     " created_at, version) VALUES (:id, :elder, 'x', 'y', false, false, false, now(), 1)")  # fmt: skip
    with pytest.raises(DBAPIError, match="row-level security"):
        async with walled(world.sessions, who, now=world.time()) as session:
            await session.execute(insert, {"id": uuid4(), "elder": elder.id})
    async with walled(world.sessions, somebody(OTHER_VILLAGE), now=world.time()) as session:
        await session.execute(insert, {"id": uuid4(), "elder": elder.id})


async def test_beyond_the_wall_and_back(world: World) -> None:
    """Steps out for what is said, and is back after it, also when that failed."""
    await world.elder("李大山", region=OTHER_VILLAGE)
    count = sa.text("SELECT count(*) FROM elders")
    async with walled(world.sessions, somebody(VILLAGE), now=world.time()) as session:
        assert await session.scalar(count) == 0
        async with beyond(session, "a test"):
            assert await session.scalar(count) == 1
            async with beyond(session, "a test within"):
                assert await session.scalar(count) == 1
            assert await session.scalar(count) == 1
        assert await session.scalar(count) == 0
        with pytest.raises(LookupError):
            async with beyond(session, "a test that fails"):
                raise LookupError
        assert await session.scalar(count) == 0
    async with transaction(world.sessions) as session, beyond(session, "the server is there already"):
        assert await session.scalar(count) == 1


async def test_a_visitor_sees_those_assigned_now(world: World) -> None:
    """Not before the pairing begins, not after it ended, not outside the account's region."""
    mine, hers, far = (
        await world.elder("王桂英"),
        await world.elder("赵秀兰"),
        await world.elder("李大山", region=OTHER_VILLAGE),
    )
    visitor = await world.visitor("张网格")
    colleague = await world.visitor("刘网格")
    me = somebody(VILLAGE, Role.VISITOR, visitor.id)
    assert reach_of(me) is Reach.VISITOR
    assert await seen(world, me) == set()
    assert await seen(world, me, "visitors") == {"张网格"}
    for elder in (mine, far):
        await world.assign(elder, visitor)
    await world.assign(hers, colleague)
    for elder in (mine, hers):
        await world.contact(elder, f"{elder.name}的女儿")
        await world.press_sos(await world.device(elder))
    assert await seen(world, me) == {"王桂英"}
    assert await seen(world, me, "contacts") == {"王桂英的女儿"}
    assert len(await seen(world, me, "alarms")) == 1
    assert await seen(world, me, "visitors") == {"张网格"}
    assert len(await seen(world, somebody(VILLAGE), "alarms")) == 2
    world.clock.now -= timedelta(days=1)
    assert await seen(world, me) == set()  # the pairing is of tomorrow
    world.clock.now += timedelta(days=1)
    async with transaction(world.sessions) as session:
        await session.execute(sa.text("UPDATE assignments SET ended_at = :now"), {"now": world.time()})
    assert await seen(world, me) == set()
    assert await seen(world, me, "alarms") == set()


@pytest.fixture
async def plain_owner(postgres: EmbeddedPostgres) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """A database of an account that is no superuser, and an administrator's connection."""
    url = make_url(postgres.url("postgres"))
    admin = await asyncpg.connect(host=url.query["host"], user="postgres", database="postgres")
    name = f"plain_{uuid4().hex[:8]}"
    await admin.execute(f"CREATE ROLE {name} LOGIN")
    await admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    try:
        yield admin, postgres.url(name).replace("postgres@", f"{name}@")
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE {name}")
        await admin.close()


async def test_an_ordinary_owner_is_told_what_an_administrator_runs(
    plain_owner: tuple[asyncpg.Connection, str],
) -> None:
    """What `shouwang migrate` says is enough, word for word; then it stands, and is not built twice."""
    admin, url = plain_owner
    with pytest.raises(RolesMissing) as refused:
        migrate(url)
    for statement in str(refused.value).split("runs once:")[1].split(";")[:-1]:
        await admin.execute(statement)
    migrate(url)
    engine = connect(url, pool=1)
    try:
        async with engine.begin() as connection:
            before = await connection.scalar(sa.text("SELECT max(oid) FROM pg_policy"))
            await connection.run_sync(raise_walls)
            assert await connection.scalar(sa.text("SELECT max(oid) FROM pg_policy")) == before
            await connection.execute(sa.text("REVOKE ALL ON elders FROM shouwang_everywhere"))  # a dump without rights
            await connection.run_sync(raise_walls)
        async with walled(sessions(engine), somebody(""), now=World(url).time()) as session:
            assert await session.scalar(sa.text("SELECT count(*) FROM regions")) == 14
            assert await session.scalar(sa.text("SELECT count(*) FROM elders")) == 0
            assert await session.scalar(sa.text("SELECT current_user")) == "shouwang_everywhere"
    finally:
        await engine.dispose()


async def test_every_table_of_the_database_has_its_wall(world: World) -> None:
    """Also one that a migration made without the code knowing it."""
    async with world.sessions() as session:
        rows = await session.execute(
            sa.text(
                "SELECT relname, relrowsecurity FROM pg_class "
                "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'alembic_version'"
            )
        )
        assert {row.relname: row.relrowsecurity for row in rows} == dict.fromkeys(WALLS, True)
