"""The wall: PostgreSQL's row-level security, made from `app.access.scope`, and stepping behind it (docs/adr/0018).

A transaction for a principal begins as the server, which owns the tables and sees everything, and steps behind the wall
as soon as it is known who asks: one statement says how far they see and takes one of three roles that own nothing. What
the server then must do for everybody (an alarm tells its whole circle) it does `beyond` the wall, and says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from app.access import scope
from app.access.principal import Principal
from app.access.scope import WALLS, Wall
from app.access.vocabulary import Role
from app.db import Sessions, transaction
from app.settings import SettingsError


class Reach(StrEnum):
    """The database role a principal's transactions run under: each has policies, and so plans, of its own."""

    EVERYWHERE = "shouwang_everywhere"
    REGION = "shouwang_region"
    VISITOR = "shouwang_visitor"


def reach_of(who: Principal) -> Reach:
    """How far somebody sees."""
    if who.role is Role.VISITOR:
        return Reach.VISITOR
    return Reach.REGION if who.region_code else Reach.EVERYWHERE


# --- stepping behind it ----------------------------------------------------------------------------------------------

_REACH = "reach"
# Planned each time: how many rows a plan meets depends on who asks.
_BEHIND = sa.text(
    f"""
    SELECT set_config('{scope.PRINCIPAL}', :principal, true), set_config('{scope.FROM}', :region, true),
           set_config('{scope.UNTIL}', :region || '~', true), set_config('{scope.VISITOR}', '', true),
           set_config('{scope.ELDERS}', '', true),
           set_config('plan_cache_mode', 'force_custom_plan', true), set_config('role', :reach, true)
    """
)
# «Today» is now: a pairing that ended, or begins tomorrow, shows nothing.
_AS_VISITOR = sa.text(
    f"""
    SELECT set_config('{scope.ELDERS}', CAST(ARRAY(
               SELECT a.elder_id FROM assignments a JOIN elders e ON e.id = a.elder_id
               WHERE a.visitor_id = :visitor AND a.created_at <= :now AND (a.ended_at IS NULL OR a.ended_at > :now)
                 AND e.region_code ^@ CAST(:region AS text)) AS text), true),
           set_config('{scope.PRINCIPAL}', :principal, true), set_config('{scope.FROM}', :region, true),
           set_config('{scope.UNTIL}', :region || '~', true),
           set_config('{scope.VISITOR}', CAST(CAST(:visitor AS uuid) AS text), true),
           set_config('plan_cache_mode', 'force_custom_plan', true), set_config('role', :reach, true)
    """  # noqa: S608 - constants
)
_ROLE = sa.text("SELECT set_config('role', :role, true)")


async def step_behind(session: AsyncSession, who: Principal, *, now: datetime) -> None:
    """From here to its end this transaction sees and changes what `who` may. One statement."""
    reach = reach_of(who)
    values: dict[str, Any] = {"principal": str(who.id), "region": who.region_code, "reach": reach.value}
    if reach is Reach.VISITOR:
        values |= {"visitor": who.visitor_id, "now": now}
    await session.execute(_AS_VISITOR if reach is Reach.VISITOR else _BEHIND, values)
    session.info[_REACH] = reach


@asynccontextmanager
async def beyond(session: AsyncSession, because: str) -> AsyncIterator[None]:
    """Do what follows as the server, for a reason that the reader of the code is told: what it reads here must not reach
    the one who asked. Changes that were made before are held to the wall; behind it already: nothing to do."""
    reach = session.info.get(_REACH)
    if reach is None:
        yield
        return
    assert because
    await session.flush()
    await session.execute(_ROLE, {"role": "none"})
    session.info[_REACH] = None
    try:
        yield
        await session.flush()
    finally:
        session.info[_REACH] = reach
        with suppress(SQLAlchemyError):  # the transaction has failed: nothing more can be done in it
            await session.execute(_ROLE, {"role": reach.value})


@asynccontextmanager
async def walled(sessions: Sessions, who: Principal, *, now: datetime) -> AsyncIterator[AsyncSession]:
    """A transaction of one's own on behalf of somebody: a stream's reads, an export in the background."""
    async with transaction(sessions) as session:
        await step_behind(session, who, now=now)
        yield session


async def hidden(session: AsyncSession, ids: Collection[UUID]) -> bool:
    """Whether one of these ids is of a row that is there, and that the one who asks does not see (any more)."""
    question = _rows_of()
    seen = set((await session.execute(question, {"ids": list(ids)})).scalars())
    async with beyond(session, "only whether something is hidden comes of it"):
        there = set((await session.execute(question, {"ids": list(ids)})).scalars())
    return bool(there - seen)


@cache
def _rows_of() -> sa.TextClause:
    """Which of `:ids` are ids of rows in any table that has a wall for somebody."""
    known = SQLModel.metadata.tables
    walled_tables = [
        name
        for name, wall in WALLS.items()
        if wall.everywhere and wall.region != "true" and "id" in known[name].columns
        and isinstance(known[name].columns["id"].type, sa.Uuid)
    ]  # fmt: skip
    return sa.text(
        " UNION ".join(f"SELECT id FROM {name} WHERE id = ANY(CAST(:ids AS uuid[]))" for name in walled_tables)  # noqa: S608
    )


# --- raising it: at the end of each migration -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Policy:
    name: str
    role: Reach
    command: str  # ALL, SELECT, …
    using: str | None
    check: str | None

    def create(self, table: str) -> str:
        using = f" USING ({self.using.format(t=table)})" if self.using else ""
        check = f" WITH CHECK ({self.check.format(t=table)})" if self.check else ""
        return f"CREATE POLICY {self.name} ON {table} FOR {self.command} TO {self.role.value}{using}{check}"


_SIGN = "wall_everywhere"  # every table has this policy; its comment tells which wall stands


def policies_of(wall: Wall) -> list[_Policy]:
    """The policies that make a wall. Without one for its role, nothing is there."""
    found = [_Policy(_SIGN, Reach.EVERYWHERE, "ALL", "true" if wall.everywhere else "false", None)]
    for role, sees in ((Reach.REGION, wall.region), (Reach.VISITOR, wall.visitor)):
        name = f"wall_{role.value.removeprefix('shouwang_')}"
        writes = (wall.writes if role is Reach.REGION else "false") if wall.writes else sees
        if writes == sees:
            found.append(_Policy(name, role, "ALL", sees, sees))
        else:
            found.append(_Policy(name, role, "SELECT", sees, None))
            found.append(_Policy(f"{name}_adds", role, "INSERT", None, writes))
            found.append(_Policy(f"{name}_changes", role, "UPDATE", writes, writes))
            found.append(_Policy(f"{name}_removes", role, "DELETE", writes, None))
        if wall.appended:
            found.append(_Policy(f"{name}_appends", role, "INSERT", None, "true"))
    return found


def _statements(table: str, wall: Wall, there: list[str]) -> Iterator[str]:
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
    for name in there:
        yield f"DROP POLICY {name} ON {table}"
    for policy in policies_of(wall):
        yield policy.create(table)
    yield f"REVOKE ALL ON {table} FROM {_ROLES}"
    if wall.everywhere:
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {_ROLES}"


_ROLES = ", ".join(reach.value for reach in Reach)
_MADE_MEANWHILE, _NO_RIGHT = ("42710", "23505"), "42501"
_THERE = sa.text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")
_MINE = sa.text("SELECT pg_has_role(current_user, CAST(:role AS name), 'SET')")


class RolesMissing(SettingsError):
    """The database account may neither make the roles nor take them; says what to run."""


def _make_roles(connection: sa.Connection) -> None:
    """Roles belong to the whole cluster: another database, or another migration right now, may have made them.

    Raises `RolesMissing`."""
    owner = connection.scalar(sa.text("SELECT quote_ident(current_user)"))
    refused = []
    for reach in Reach:
        make = f"CREATE ROLE {reach.value} NOLOGIN"
        take = f"GRANT {reach.value} TO {owner} WITH INHERIT FALSE, SET TRUE"
        there = connection.scalar(_THERE, {"role": reach.value})
        if not there and not _allowed(connection, make):
            refused += [make, take]
        elif not connection.scalar(_MINE, {"role": reach.value}) and not _allowed(connection, take):
            refused.append(take)
    if refused:
        raise RolesMissing(
            f"the database account {owner} may not make the roles that requests run under (docs/adr/0018). A database "
            f"administrator runs once:  {'; '.join(refused)};  then migrate again"
        )


def _allowed(connection: sa.Connection, statement: str) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(sa.text(statement))
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == _NO_RIGHT:
            return False
        if state not in _MADE_MEANWHILE:
            raise
    return True


_STANDING = sa.text(
    """
    SELECT c.relname AS table, c.relrowsecurity AS up,
           array_agg(p.polname::text) FILTER (WHERE p.polname ^@ 'wall_') AS policies,
           max(obj_description(p.oid, 'pg_policy')) FILTER (WHERE p.polname = :sign) AS sign,
           has_table_privilege(:role, c.oid, 'SELECT') AS granted
    FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') GROUP BY c.oid
    """
)


def raise_walls(connection: sa.Connection) -> None:
    """Bring the roles and every table's wall to what `WALLS` says, after a migration, and after a dump was restored where
    the roles were not. Touches only tables whose wall differs: each is locked for it."""
    _make_roles(connection)
    connection.execute(sa.text(f"GRANT USAGE ON SCHEMA public TO {_ROLES}"))
    values = {"sign": _SIGN, "role": Reach.EVERYWHERE.value}
    standing = {row.table: row for row in connection.execute(_STANDING, values)}
    for table, wall in WALLS.items():
        now = standing[table]
        wanted = hashlib.sha256("\n".join(_statements(table, wall, [])).encode()).hexdigest()[:16]
        if now.up and now.sign == wanted and now.granted == wall.everywhere:
            continue
        for statement in _statements(table, wall, now.policies or []):
            connection.execute(sa.text(statement.replace(":", "\\:")))
        connection.execute(sa.text(f"COMMENT ON POLICY {_SIGN} ON {table} IS '{wanted}'"))
