"""One PostgreSQL for each test process, and in it a fresh copy of the migrated database for each story."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.db import migrate
from app.embedded.postgres import EmbeddedPostgres
from tests.rooms import roomy_memory
from tests.world import OTHER_VILLAGE, TOWNSHIP, VILLAGE, World

FAST = {  # survives the death of any process, not of the machine
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "120",
    "autovacuum": "off",
}
_names = itertools.count(1)


async def _connect(server: EmbeddedPostgres, database: str = "postgres") -> asyncpg.Connection:
    url = make_url(server.url(database))
    return await asyncpg.connect(host=url.query["host"], user="postgres", database=database)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """As root the server runs as another user, who must reach the folder: pytest's own folders are closed to others."""
    home = Path(tempfile.mkdtemp(prefix="sw-pg-", dir=roomy_memory()))
    home.chmod(0o755)
    server = EmbeddedPostgres(home, options=FAST).start()
    try:
        migrate(server.url("shouwang"))
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
async def template(postgres: EmbeddedPostgres) -> str:
    """The migrated database with two villages."""
    connection = await _connect(postgres, "shouwang")
    await connection.execute(
        "INSERT INTO regions (code, name, level, parent_code, created_at) VALUES "
        f"('{VILLAGE}', '测试一村', 'village', '{TOWNSHIP}', now()), "
        f"('{OTHER_VILLAGE}', '测试二村', 'village', '{TOWNSHIP}', now())"
    )
    await connection.close()
    return "shouwang"


@pytest.fixture
async def database(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    """The address of a database of one's own."""
    name = f"story_{next(_names)}"
    connection = await _connect(postgres)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield postgres.url(name)
    finally:
        if connection.is_closed():  # the story restarted the server
            connection = await _connect(postgres)
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    world = World(database)
    try:
        yield world
    finally:
        await world.close()
