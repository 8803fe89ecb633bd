"""Alembic's entry: async engine, advisory lock, lock_timeout."""

from __future__ import annotations

import asyncio
import threading

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

import app.tables  # noqa: F401 - every table enters the metadata
from app.access.wall import raise_walls

_LOCK = 7_301_302  # one migration at a time, whoever starts it


def _run(connection: sa.Connection) -> None:
    context.configure(connection=connection, target_metadata=SQLModel.metadata, compare_type=True)
    with context.begin_transaction():
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        connection.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
        context.run_migrations()
        if context.get_context().get_current_revision() == context.script.get_current_head():
            raise_walls(connection)


async def _main() -> None:
    engine = create_async_engine(context.config.attributes["url"])
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


def _start() -> None:
    asyncio.run(_main())


# Called from code that may already run an event loop: a thread of its own has none.
_thread_error: list[BaseException] = []


def _guarded() -> None:
    try:
        _start()
    except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
        _thread_error.append(error)


_thread = threading.Thread(target=_guarded)
_thread.start()
_thread.join()
if _thread_error:
    raise _thread_error[0]
