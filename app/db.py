"""The database: engine, sessions, column helpers, migrations. Nobody but `transaction()` calls commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlmodel import SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

Sessions = async_sessionmaker[AsyncSession]


# Every hot query goes by an index. A prepared plan made while a table was small would scan it whole, and be kept while a
# storm fills the table; planning each time instead costs milliseconds an alarm.
SERVER_SETTINGS = {"application_name": "shouwang", "timezone": "UTC", "jit": "off", "enable_seqscan": "off"}


def connect(url: str, *, pool: int = 10) -> AsyncEngine:
    """An engine on asyncpg. Parameters never appear in its errors: they may be personal data."""
    return create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=pool,
        max_overflow=pool,
        pool_pre_ping=False,
        pool_timeout=10,
        hide_parameters=True,
        connect_args={"server_settings": SERVER_SETTINGS},
    )


def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine, expire_on_commit=False)


class Hands(Protocol):
    """What the way of one event needs of a transaction: a session, or a lane's (`app.lanes`)."""

    @property
    def info(self) -> dict[Any, Any]: ...
    async def execute(self, statement: sa.TextClause, params: Mapping[str, Any] = ..., /) -> Any: ...
    async def scalar(self, statement: sa.TextClause, params: Mapping[str, Any] = ..., /) -> Any: ...
    async def flush(self) -> None: ...


LastAct = Callable[[Hands], Awaitable[None]]


def before_commit(session: Hands, act: LastAct, *, early: bool = False) -> None:
    """Do `act` once at the end of this session's transaction, however often it is asked for. `early` ones go first: acts
    take locks that are held until the commit, and all transactions take them in the same order."""
    acts: list[LastAct] = session.info.setdefault("before_commit_early" if early else "before_commit", [])
    if act not in acts:
        acts.append(act)


@asynccontextmanager
async def transaction(maker: Sessions) -> AsyncIterator[AsyncSession]:
    """One unit of work: committed at the end, rolled back on any exception."""
    async with maker() as session, session.begin():
        yield session
        await last_acts(session)


async def last_acts(session: Hands) -> None:
    """Do what was left for the end of the transaction."""
    for name in ("before_commit_early", "before_commit"):
        for act in session.info.pop(name, []):
            await act(session)


def driver_arguments(url: str) -> dict[str, Any]:
    """asyncpg's arguments from a SQLAlchemy address (a Unix socket stands in `?host=`)."""
    parsed = sa.make_url(url)
    given = {
        "host": parsed.query.get("host") or parsed.host,
        "port": parsed.port,
        "user": parsed.username,
        "password": parsed.password,
        "database": parsed.database,
        "ssl": parsed.query.get("ssl"),
    }
    return {name: value for name, value in given.items() if value is not None}


# --- column helpers ------------------------------------------------------------------------------------------------


def text_enum(
    kind: type[StrEnum], *, name: str, nullable: bool = False, default: StrEnum | None = None
) -> sa.Column[Any]:
    """A closed vocabulary as text with a named CHECK: readable in psql, changed by migration.

    `default` is the database's, for rows that other programs write.
    """
    return sa.Column(
        sa.Enum(
            kind,
            native_enum=False,
            create_constraint=True,
            name=name,
            length=32,
            values_callable=lambda members: [member.value for member in members],
        ),
        nullable=nullable,
        server_default=None if default is None else default.value,
    )


def moment(*, nullable: bool = False, index: bool = False) -> sa.Column[datetime]:
    """A point in time with zone."""
    return sa.Column(sa.DateTime(timezone=True), nullable=nullable, index=index)


# --- migrations ----------------------------------------------------------------------------------------------------

_MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def _alembic(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = url
    return config


def migrate(url: str) -> None:
    """Bring the schema to the newest version. Safe to run from several processes at once (advisory lock)."""
    command.upgrade(_alembic(url), "head")


def check_schema(url: str) -> None:
    """Raise when the tables in code and the migrations differ."""
    command.check(_alembic(url))


def newest_revision() -> str:
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert head is not None
    return head


async def schema_revision(session: AsyncSession) -> str | None:
    """The version the database is at; None when it has no schema yet."""
    if (await session.scalar(sa.text("SELECT to_regclass('alembic_version')"))) is None:
        return None
    revision: str | None = await session.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return revision
