"""Who did what: written in the transaction of the deed, numbered and chained by the database (migration 0002).

Rows hold ids, never names of elders, visitors or contacts: the log outlives the identity of a person who was erased.
Sealed values appear as "changed", never as themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import ANYWHERE, Origin, Principal, within
from app.access.tables import AuditEntry
from app.db import Hands, before_commit

Actor = dict[str, Any]
NOBODY: Actor = {"type": "anonymous"}  # somebody who is not logged in
_PENDING = "audit_rows"
_INSERT = sa.text(
    """
    INSERT INTO audit_log (at, actor, action, subject_type, subject_id, region_code, detail, origin)
    SELECT (r ->> 'at')::timestamptz, r -> 'actor', r ->> 'action', r ->> 'subject_type', r ->> 'subject_id',
           r ->> 'region_code', r -> 'detail', r -> 'origin'
    FROM jsonb_array_elements(CAST(:rows AS jsonb)) WITH ORDINALITY AS given(r, n) ORDER BY n
    """
)


def console(command: str) -> Actor:
    """Somebody at the server's own command line."""
    return {"type": "console", "name": command}


# --- writing ---------------------------------------------------------------------------------------------------------


def note(
    session: AsyncSession,
    principal: Principal,
    *,
    action: str,
    subject_type: str,
    subject_id: object,
    now: datetime,
    region_code: str | None = None,
    **detail: Any,
) -> None:
    """One line of the audit log. `region_code` says which auditors see it; without one only those of everything do."""
    write(
        session, principal.who(), action=action, subject_type=subject_type, subject_id=subject_id, now=now,
        region_code=region_code, origin=principal.origin, **detail,
    )  # fmt: skip


def write(
    session: AsyncSession,
    actor: Actor,
    *,
    action: str,
    subject_type: str,
    subject_id: object,
    now: datetime,
    region_code: str | None = None,
    origin: Origin = ANYWHERE,
    **detail: Any,
) -> None:
    """Like `note`, for a deed without a principal: a log-in, the command line, a scheduled job.

    The row is written at the end of the transaction: writers of the chain wait for each other, and only for a commit.
    """
    rows: list[dict[str, Any]] = session.info.setdefault(_PENDING, [])
    rows.append(
        {
            "at": now,
            "actor": actor,
            "action": action,
            "subject_type": subject_type,
            "subject_id": str(subject_id),
            "region_code": region_code,
            "detail": detail,
            "origin": _shown(origin),
        }
    )
    before_commit(session, _append, early=True)


async def _append(session: Hands) -> None:
    rows = session.info.pop(_PENDING, [])
    await session.flush()
    await session.execute(_INSERT, {"rows": json.dumps(rows, default=str)})


def _shown(origin: Origin) -> dict[str, str]:
    given = {"address": origin.address, "user_agent": origin.user_agent, "request_id": origin.request_id}
    return {name: text for name, text in given.items() if text}


def changes(before: Mapping[str, Any], after: Mapping[str, Any], *, plain: Collection[str]) -> dict[str, Any]:
    """What changed, for `detail`: `plain` fields as `{"from", "to"}`, every other one as "changed"."""
    found: dict[str, Any] = {}
    for name in sorted(after):
        if name not in before or before[name] != after[name]:
            found[name] = {"from": before.get(name), "to": after[name]} if name in plain else "changed"
    return found


# --- reading ---------------------------------------------------------------------------------------------------------


def seen_by(who: Principal) -> sa.ColumnElement[bool]:
    """Rows of the principal's region; rows without a region belong to those who see everything."""
    inside = within(who, col(AuditEntry.region_code))
    return inside if who.region_code else sa.or_(inside, col(AuditEntry.region_code).is_(None))


async def entries(
    session: AsyncSession,
    who: Principal,
    *,
    limit: int,
    before: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    subject_type: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Sequence[AuditEntry]:
    """One page, newest first. `action` may be the beginning of one (`user` finds `user.created`)."""
    query = select(AuditEntry).where(seen_by(who))
    if actor is not None:
        query = query.where(
            sa.or_(col(AuditEntry.actor)["id"].astext == actor, col(AuditEntry.actor)["name"].astext == actor)
        )
    if action is not None:
        query = query.where(
            sa.or_(col(AuditEntry.action) == action, col(AuditEntry.action).startswith(action + ".", autoescape=True))
        )
    if subject_type is not None:
        query = query.where(col(AuditEntry.subject_type) == subject_type)
    if subject is not None:
        query = query.where(col(AuditEntry.subject_id) == subject)
    if since is not None:
        query = query.where(col(AuditEntry.at) >= since)
    if until is not None:
        query = query.where(col(AuditEntry.at) < until)
    if before is not None:
        query = query.where(col(AuditEntry.id) < before)
    return (await session.execute(query.order_by(col(AuditEntry.id).desc()).limit(limit + 1))).scalars().all()


# --- verifying -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """How far the log goes. Noted outside the database, it shows later that nothing before it was changed."""

    rows: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.rows}:{self.hash.hex()}"

    @classmethod
    def read(cls, text: str) -> Head:
        """From `str(head)`. Raises `ValueError` for anything else."""
        number, _, digest = text.strip().partition(":")
        if not number.isdigit() or len(digest) != 64:
            raise ValueError("a head looks like 1234:<64 hexadecimal digits>, as `shouwang verify-audit` prints it")
        return cls(int(number), bytes.fromhex(digest))


@dataclass(frozen=True, slots=True)
class Broken:
    """The first row that does not fit, and why."""

    row: int
    because: str


_BEGINNING = hashlib.sha256(b"shouwang audit log").digest()
_BATCH = 2000
# The content that the trigger hashes, spelled here a second time: a changed trigger does not change what is checked.
_ROWS = sa.text(
    """
    SELECT id, previous_hash, hash,
           jsonb_build_array(id, at, actor, action, subject_type, subject_id, region_code, detail, origin)::text AS content
    FROM audit_log WHERE id > :after ORDER BY id LIMIT :batch
    """
)


async def head(session: AsyncSession) -> Head:
    """What the database says of the log's length and last hash."""
    row = (await session.execute(sa.text("SELECT rows, hash FROM audit_head"))).one()
    return Head(row.rows, bytes(row.hash))


async def verify(session: AsyncSession, *, noted: Sequence[Head] = ()) -> Head | Broken:
    """Walk the whole chain in one snapshot. The head when all is well; otherwise the first row that was removed, altered,
    inserted or cut off. `noted` heads are compared too: an earlier one that fits shows that all before it is as it was."""
    await session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    await session.execute(sa.text("SET LOCAL timezone = 'UTC'"))
    known = (await session.execute(sa.text("SELECT rows, hash FROM audit_head"))).one_or_none()
    wanted = {one.rows: one for one in noted}
    last = Head(0, _BEGINNING)
    while batch := (await session.execute(_ROWS, {"after": last.rows, "batch": _BATCH})).all():
        for row in batch:
            wrong = _judge(row, last)
            if wrong is not None:
                return wrong
            last = Head(row.id, bytes(row.hash))
            if row.id in wanted and wanted[row.id].hash != last.hash:
                return Broken(row.id, "its hash is not the one that was noted: the log was rewritten up to here")
    return _judge_end(last, Head(known.rows, bytes(known.hash)) if known else None, noted)


def _judge(row: Any, last: Head) -> Broken | None:
    if row.id != last.rows + 1:
        return Broken(last.rows + 1, f"it was removed: row {row.id} follows row {last.rows}")
    if bytes(row.previous_hash) != last.hash:
        return Broken(row.id, "it does not continue the row before it: it or that one was replaced or inserted")
    if hashlib.sha256(last.hash + row.content.encode()).digest() != bytes(row.hash):
        return Broken(row.id, "it was altered: its content does not give its hash")
    return None


def _judge_end(last: Head, known: Head | None, noted: Sequence[Head]) -> Head | Broken:
    if known is None:
        return Broken(
            last.rows + 1, "the head of the log was removed: whether rows are missing at the end is not known"
        )
    longest = max((known.rows, *(one.rows for one in noted)))
    if longest > last.rows:
        return Broken(last.rows + 1, f"it was removed: the log ends at row {last.rows}, and had {longest}")
    if known.rows < last.rows:
        return Broken(known.rows + 1, f"it was inserted past the head of the log, which is at row {known.rows}")
    if known.hash != last.hash:
        return Broken(last.rows, "its hash is not the one the head of the log holds: it was replaced")
    return last
