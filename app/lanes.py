"""A lane: one connection of its own for a loop that must be quick (taking events in, claiming, recording).

It speaks the same statements as a session (`sa.text` with named parameters), straight to asyncpg: at a hundred alarms a
second SQLAlchemy's share of each statement is what a person would wait for. Everything else uses sessions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.asyncpg import dialect as AsyncpgDialect
from sqlalchemy.exc import SQLAlchemyError

from app.db import SERVER_SETTINGS, driver_arguments, last_acts

# The database is away, or comes back: the statement may be tried again.
Away = (
    SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError
)  # fmt: skip


# Every statement of a lane is written so that one plan serves one row and a thousand alike (lateral look-ups with a
# limit); planning each time would cost more than the work.
_SETTINGS = {**SERVER_SETTINGS, "plan_cache_mode": "force_generic_plan"}


class Row(asyncpg.Record):  # type: ignore[misc]
    """A row whose columns are read by name, like SQLAlchemy's."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Rows(list[Any]):
    """What a statement gave, with the few ways of reading that the hot paths use."""

    def all(self) -> Rows:
        return self

    def mappings(self) -> Rows:
        return self

    def first(self) -> Any:
        return self[0] if self else None


class LaneTransaction:
    """See `app.db.Hands`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.info: dict[Any, Any] = {}

    async def execute(self, statement: sa.TextClause, params: Mapping[str, Any] | None = None, /) -> Rows:
        sql, names = _compiled(statement)
        return Rows(await self._connection.fetch(sql, *[params[name] for name in names] if params else ()))

    async def scalar(self, statement: sa.TextClause, params: Mapping[str, Any] | None = None, /) -> Any:
        rows = await self.execute(statement, params)
        return rows[0][0] if rows else None

    async def flush(self) -> None:
        """Nothing is held back here."""


class Lane:
    """One connection, made when it is needed and again when it was lost. For one task at a time.

    `durable=False`: its commits do not wait for the disk. For what may be forgotten when the database's machine dies, and
    is then done again: a claim, whose notice is then sent a second time under the same id."""

    def __init__(self, url: str, *, durable: bool = True) -> None:
        self._url = url
        self._settings = _SETTINGS if durable else {**_SETTINGS, "synchronous_commit": "off"}
        self._connection: asyncpg.Connection | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[LaneTransaction]:
        """One unit of work, like `app.db.transaction`."""
        connection = await self._open()
        async with connection.transaction():
            hands = LaneTransaction(connection)
            yield hands
            await last_acts(hands)

    async def at_once(self, statement: sa.TextClause, params: Mapping[str, Any]) -> Rows:
        """One statement that is its own transaction: committed when this returns."""
        return await LaneTransaction(await self._open()).execute(statement, params)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(timeout=2)

    async def _open(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                **driver_arguments(self._url), timeout=10, record_class=Row, server_settings=self._settings
            )
            await self._connection.set_type_codec(
                "jsonb", schema="pg_catalog", format="binary",
                encoder=lambda text: b"\x01" + text.encode(),  # JSON text, as in a session
                decoder=lambda data: msgspec.json.decode(memoryview(data)[1:]),
            )  # fmt: skip
        return self._connection


@lru_cache(maxsize=256)
def _compiled(statement: sa.TextClause) -> tuple[str, tuple[str, ...]]:
    compiled = statement.compile(dialect=AsyncpgDialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup or ())
