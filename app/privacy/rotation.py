"""Sealing everything anew with the first key, beside a running server.

What is left to do stands in the values themselves (each says its key), so a rotation that was killed goes on where it was.
A batch is opened and sealed outside any transaction and written in one short statement that waits for nobody: rows that
somebody holds, or that changed meanwhile, are met again in the next pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.sealing import PREFIX, Sealer
from app.clock import monotonic
from app.db import Sessions, transaction
from app.privacy.sealed import SEALED, Sealed

BATCH = 200
_REST = 1.0  # times as long as the batch before: alarms have the database for themselves half of the time
_BETWEEN_PASSES_S = 0.5
_ALIVE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one table is. `unopened`: rows that none of the keys opens; they are left as they are."""

    table: str
    done: int
    of: int
    unopened: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A running process, and the data keys it last said it has, the sealing one first."""

    name: str
    keys: tuple[str, ...]


Say = Callable[[str], None]
Judge = Callable[[Process], bool]


def _left(one: Sealed) -> str:
    """Rows with a value or hash that needs another key than the first."""
    tests = (f"substring({column} FROM 1 FOR {PREFIX}) <> :prefix" for column in (*one.columns, *one.hashes))
    return "(" + " OR ".join(tests) + ")"


async def left(session: AsyncSession, sealer: Sealer) -> dict[str, int]:
    """How many rows of each table still need another key than the first."""
    found: dict[str, int] = {}
    for one in SEALED:
        query = sa.text(f"SELECT count(*) FROM {one.table} WHERE {_left(one)}")  # noqa: S608 - constants
        found[one.table] = await session.scalar(query, {"prefix": sealer.prefix}) or 0
    return found


async def reseal(sessions: Sessions, sealer: Sealer) -> AsyncIterator[Progress]:
    """Pass over all tables until nothing is left that one of the keys opens."""
    while True:
        async with sessions() as session:
            todo = await left(session, sealer)
        before, lost = sum(todo.values()), 0
        for one in SEALED:
            if todo[one.table]:
                last = Progress(one.table, 0, todo[one.table])
                async for last in _pass(sessions, one, sealer, of=todo[one.table]):
                    yield last
                lost += last.unopened
        if before == lost:
            return
        await asyncio.sleep(_BETWEEN_PASSES_S)


async def _pass(sessions: Sessions, one: Sealed, sealer: Sealer, *, of: int) -> AsyncIterator[Progress]:
    after: Sequence[Any] | None = None
    done = unopened = 0
    while True:
        began = monotonic()
        async with sessions() as session:
            rows = await _read(session, one, sealer, after)
        if not rows:
            return
        changes, lost = _sealed_anew(one, rows, sealer)
        async with transaction(sessions) as session:
            done += await _write(session, one, changes)
        unopened += lost
        after = [rows[-1][name] for name in one.key]
        yield Progress(one.table, done, max(of, done), unopened)
        await asyncio.sleep(_REST * (monotonic() - began))


async def _read(
    session: AsyncSession, one: Sealed, sealer: Sealer, after: Sequence[Any] | None
) -> list[dict[str, Any]]:
    key = ", ".join(one.key)
    from_here = f"AND ({key}) > ({', '.join(f':k{n}' for n in range(len(one.key)))})" if after else ""
    query = (
        f"SELECT {key}, {', '.join((*one.columns, *one.hashes))} FROM {one.table} "  # noqa: S608 - constants
        f"WHERE {_left(one)} {from_here} ORDER BY {key} LIMIT {BATCH}"
    )
    values = {"prefix": sealer.prefix} | {f"k{n}": value for n, value in enumerate(after or ())}
    return [dict(row) for row in (await session.execute(sa.text(query), values)).mappings()]


Change = dict[str, Any]


def _sealed_anew(one: Sealed, rows: Sequence[Mapping[str, Any]], sealer: Sealer) -> tuple[list[Change], int]:
    """New values beside the old ones, and how many rows no key opens."""
    changes, lost = [], 0
    for row in rows:
        record = one.record(row)
        try:
            plain = {c: None if row[c] is None else sealer.open_bytes(row[c], record=record) for c in one.columns}
        except InvalidTag:
            lost += 1
            continue
        change = {name: row[name] for name in one.key}
        for column, text in plain.items():
            change[f"old_{column}"] = row[column]
            change[column] = None if text is None else sealer.seal_bytes(text, record=record)
        for column, (source, of) in one.hashes.items():
            text = plain[source]
            change[column] = None if text is None else sealer.index(of(text.decode()))
        changes.append(change)
    return changes, lost


async def _write(session: AsyncSession, one: Sealed, changes: Sequence[Change]) -> int:
    """Rows that somebody holds or changed meanwhile are left for the next pass."""
    if not changes:
        return 0
    made = (*one.columns, *one.hashes)
    given = (*one.key, *made, *(f"old_{column}" for column in one.columns))
    kinds = {name: "uuid[]" if name == "id" else "text[]" for name in one.key}
    lists = ", ".join(f"CAST(:{name} AS {kinds.get(name, 'bytea[]')})" for name in given)
    same_row = " AND ".join(f"t.{name} = n.{name}" for name in one.key)
    unchanged = " AND ".join(f"t.{column} IS NOT DISTINCT FROM n.old_{column}" for column in one.columns)
    query = f"""
        WITH n AS (SELECT * FROM unnest({lists}) AS n({", ".join(given)})),
        free AS (SELECT {", ".join(f"t.{name}" for name in one.key)} FROM {one.table} t
                 JOIN n ON {same_row} WHERE {unchanged} FOR UPDATE OF t SKIP LOCKED)
        UPDATE {one.table} t SET {", ".join(f"{column} = n.{column}" for column in made)}
        FROM n JOIN free ON {" AND ".join(f"free.{name} = n.{name}" for name in one.key)}
        WHERE {same_row}
    """  # noqa: S608 - constants
    binds = [sa.bindparam(name, type_=sa.ARRAY(BYTEA)) for name in given if name not in kinds]
    values = {name: [change[name] for change in changes] for name in given}
    done = await session.execute(sa.text(query).bindparams(*binds), values)
    return int(done.rowcount)  # type: ignore[attr-defined]


# --- the processes beside us -----------------------------------------------------------------------------------------


async def processes(session: AsyncSession, *, now: datetime) -> list[Process]:
    """Who runs, with which keys."""
    rows = await session.execute(
        sa.text("SELECT process, part, data_keys FROM heartbeats WHERE seen_at > :since ORDER BY process, part"),
        {"since": now - _ALIVE},
    )
    return [Process(f"{row.process} ({row.part})", tuple(row.data_keys)) for row in rows]


async def older_transactions(session: AsyncSession, *, than: datetime) -> int:
    """Transactions that may still commit what they sealed before that moment."""
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
        "AND xact_start < :than AND pid <> pg_backend_pid()"
    )
    return await session.scalar(query, {"than": than}) or 0
