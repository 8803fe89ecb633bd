"""The ledger's history in chains that show what was removed or altered: one for each elder, sealed together once an hour
(docs/adr/0025). A chain holds digests only, so what must be erased can be erased - with a line that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Hands, before_commit

# --- writing ---------------------------------------------------------------------------------------------------------

_PENDING = "ledger_links"


def keep(session: AsyncSession, visit_id: UUID) -> None:
    """This visit was written or changed: at the end of the transaction its chain gets a line, when it really differs. The
    elder is locked, so nobody waits for anybody at the chain itself."""
    session.info.setdefault(_PENDING, {})[visit_id] = None
    before_commit(session, _append, early=True)


async def _append(session: Hands) -> None:
    ids = list(session.info.pop(_PENDING, {}))
    await session.flush()
    await session.execute(sa.text("SELECT ledger_append(CAST(:ids AS uuid[]))"), {"ids": ids})


async def erased(session: AsyncSession, elder_id: UUID) -> None:
    """What was held about somebody is gone or emptied: their chain says so, and goes on from what is left."""
    await session.flush()
    await session.execute(sa.text("SELECT ledger_erased(:elder)"), {"elder": elder_id})


_UNSEALED = sa.text(
    "SELECT elder_id, rows, hash FROM ledger_heads WHERE rows > sealed ORDER BY elder_id FOR NO KEY UPDATE"
)


async def seal(session: AsyncSession, now: datetime) -> Head | None:
    """Put all heads that moved since the last seal under one hash. None when none did. One at a time."""
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(7301313)"))
    moved = (await session.execute(_UNSEALED)).all()
    last = await head(session)
    if not moved:
        return None
    root = _root((row.elder_id, row.rows, bytes(row.hash)) for row in moved)
    made = Head(last.seals + 1, _seal_hash(last.hash, last.seals + 1, now, len(moved), root))
    await session.execute(
        sa.text(
            "INSERT INTO ledger_seals (seq, at, heads, root, previous_hash, hash) "
            "VALUES (:seq, :at, :heads, :root, :previous, :hash)"
        ),
        {"seq": made.seals, "at": now, "heads": len(moved), "root": root, "previous": last.hash, "hash": made.hash},
    )
    await session.execute(
        sa.text(
            "INSERT INTO ledger_seal_heads (seal, elder_id, rows, hash) SELECT :seal, h.elder_id, h.rows, h.hash "
            "FROM ledger_heads h WHERE h.rows > h.sealed"
        ),
        {"seal": made.seals},
    )
    await session.execute(sa.text("UPDATE ledger_heads SET sealed = rows WHERE rows > sealed"))
    return made


def _root(heads: Any) -> bytes:
    """One hash over (elder, rows, hash), in the order of the elders' ids."""
    return hashlib.sha256("\n".join(f"{elder}:{rows}:{hash_.hex()}" for elder, rows, hash_ in heads).encode()).digest()


def _seal_hash(previous: bytes, seq: int, at: datetime, heads: int, root: bytes) -> bytes:
    return hashlib.sha256(previous + f"{seq}:{at.timestamp():.6f}:{heads}:{root.hex()}".encode()).digest()


# --- verifying -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """How many seals there are, and the last one's hash. Noted outside the database, it shows later that nothing that was
    sealed by then was changed."""

    seals: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seals}:{self.hash.hex()}"

    @classmethod
    def read(cls, text: str) -> Head:
        """From `str(head)`. Raises `ValueError` for anything else."""
        number, _, digest = text.strip().partition(":")
        if not number.isdigit() or len(digest) != 64:
            raise ValueError("a head looks like 12:<64 hexadecimal digits>, as `shouwang verify-ledger` prints it")
        return cls(int(number), bytes.fromhex(digest))


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that does not fit, and why. Ids only."""

    what: str
    because: str

    def __str__(self) -> str:
        return f"{self.what}: {self.because}"


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything fits."""

    visits: int
    links: int
    head: Head


_BEGINNING = hashlib.sha256(b"shouwang ledger").digest()
_SEALS_BEGIN = hashlib.sha256(b"shouwang ledger seals").digest()
_BATCH = 500
# The contents that the chain's function digests, spelled here a second time: a changed function does not change what is
# checked.
_VISITS = """
    SELECT v.id, v.elder_id, v.version, sha256(convert_to(jsonb_build_array(
               v.id, v.elder_id, v.visitor_id, v.method, v.outcome, v.started_at, v.ended_at, v.services, v.health, v.note,
               v.alarm_id, v.qualifying, v.non_qualifying_code, v.same_as, v.late, v.override, v.override_reason,
               v.override_by, v.voided_at, v.void_reason, v.created_at, v.created_by, v.version, v.place_code,
               (SELECT coalesce(jsonb_agg(p.visitor_id ORDER BY p.visitor_id), '[]') FROM visit_partners p
                WHERE p.visit_id = v.id))::text, 'UTF8')) AS digest
    FROM visits v WHERE v.elder_id = ANY(CAST(:ids AS uuid[]))
"""
_VERSIONS = """
    SELECT n.visit_id AS id, n.version, sha256(convert_to(jsonb_build_array(
               n.visit_id, n.version, n.data, n.replaced_at, n.replaced_by, n.reason)::text, 'UTF8')) AS digest
    FROM visit_versions n JOIN visits v ON v.id = n.visit_id WHERE v.elder_id = ANY(CAST(:ids AS uuid[]))
"""
_LINKS = """
    SELECT elder_id, seq, of, visit_id, version, digest, previous_hash, hash,
           sha256(previous_hash || convert_to(jsonb_build_array(elder_id, seq, at, of, visit_id, version,
               encode(digest, 'hex'))::text, 'UTF8')) AS computed
    FROM ledger_chain WHERE elder_id = ANY(CAST(:ids AS uuid[])) ORDER BY elder_id, seq
"""
_ELDERS = sa.text(
    "SELECT elder_id FROM (SELECT elder_id FROM ledger_heads WHERE elder_id > :after UNION "
    "SELECT elder_id FROM ledger_chain WHERE elder_id > :after UNION SELECT elder_id FROM visits WHERE elder_id > :after "
    "UNION SELECT elder_id FROM ledger_seal_heads WHERE elder_id > :after) AS everybody ORDER BY elder_id LIMIT :batch"
)


async def head(session: AsyncSession) -> Head:
    """The last seal."""
    query = sa.text("SELECT seq, hash FROM ledger_seals ORDER BY seq DESC LIMIT 1")
    row = (await session.execute(query)).first()
    return Head(row.seq, bytes(row.hash)) if row else Head(0, _SEALS_BEGIN)


async def verify(session: AsyncSession, *, noted: Sequence[Head] = ()) -> Whole | list[Broken]:
    """Walk every chain and the seals over them, in one snapshot. What was removed, altered or inserted past the ledger is
    named by its id; so is a seal that is not the one that was noted."""
    await session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    await session.execute(sa.text("SET LOCAL timezone = 'UTC'"))
    broken, last = await _walk_seals(session, noted)
    visits = links = 0
    after = UUID(int=0)
    while ids := (await session.execute(_ELDERS, {"after": after, "batch": _BATCH})).scalars().all():
        found = await _walk_elders(session, ids)
        broken += found.broken
        visits, links, after = visits + found.visits, links + found.links, ids[-1]
    return broken or Whole(visits, links, last)


async def _walk_seals(session: AsyncSession, noted: Sequence[Head]) -> tuple[list[Broken], Head]:
    broken: list[Broken] = []
    wanted, last = {one.seals: one for one in noted}, Head(0, _SEALS_BEGIN)
    for row in (await session.execute(sa.text("SELECT * FROM ledger_seals ORDER BY seq"))).all():
        name = f"seal {row.seq}"
        heads = await session.execute(
            sa.text("SELECT elder_id, rows, hash FROM ledger_seal_heads WHERE seal = :seq ORDER BY elder_id"),
            {"seq": row.seq},
        )
        if row.seq != last.seals + 1 or bytes(row.previous_hash) != last.hash:
            broken.append(Broken(name, "it does not continue the one before: one was removed, replaced or inserted"))
        if _root((h.elder_id, h.rows, bytes(h.hash)) for h in heads) != bytes(row.root):
            broken.append(Broken(name, "the heads under it are not those that were sealed"))
        elif _seal_hash(bytes(row.previous_hash), row.seq, row.at, row.heads, bytes(row.root)) != bytes(row.hash):
            broken.append(Broken(name, "it was altered: its content does not give its hash"))
        last = Head(row.seq, bytes(row.hash))
        if row.seq in wanted and wanted[row.seq].hash != last.hash:
            broken.append(Broken(name, "its hash is not the one that was noted: the ledger was rewritten up to here"))
    missing = [one for one in noted if one.seals > last.seals]
    broken += [Broken(f"seal {one.seals}", f"it was removed: the last is {last.seals}") for one in missing]
    return broken, last


@dataclass(slots=True)
class _Found:
    broken: list[Broken]
    visits: int
    links: int


async def _walk_elders(session: AsyncSession, ids: Sequence[UUID]) -> _Found:
    values = {"ids": list(ids)}
    sealed = await session.execute(
        sa.text("SELECT elder_id, rows, hash FROM ledger_seal_heads WHERE elder_id = ANY(CAST(:ids AS uuid[]))"), values
    )
    wanted = {(row.elder_id, row.rows): bytes(row.hash) for row in sealed}
    heads = await session.execute(
        sa.text("SELECT elder_id, rows, hash FROM ledger_heads WHERE elder_id = ANY(CAST(:ids AS uuid[]))"), values
    )
    known = {row.elder_id: row for row in heads}
    broken: list[Broken] = []
    ends: dict[UUID, tuple[int, bytes]] = {}
    said: dict[tuple[str, UUID, int], bytes] = {}
    links = (await session.execute(sa.text(_LINKS), values)).all()
    for row in links:
        rows, hash_ = ends.get(row.elder_id, (0, _BEGINNING))
        name = f"chain of elder {row.elder_id}, line {row.seq}"
        if row.seq != rows + 1 or bytes(row.previous_hash) != hash_:
            broken.append(Broken(name, "it does not continue the line before: one was removed, replaced or inserted"))
        elif bytes(row.computed) != bytes(row.hash):
            broken.append(Broken(name, "it was altered: its content does not give its hash"))
        elif wanted.get((row.elder_id, row.seq), row.hash) != bytes(row.hash):
            broken.append(Broken(name, "it is not the one that was sealed"))
        ends[row.elder_id] = (row.seq, bytes(row.hash))
        if row.of == "erased":
            said.pop(("version", row.visit_id, row.version), None)
        else:
            said[row.of, row.visit_id, row.version if row.of == "version" else 0] = bytes(row.digest)
    for elder_id in ids:
        rows, hash_ = ends.get(elder_id, (0, _BEGINNING))
        longest = max([0, *(n for elder, n in wanted if elder == elder_id)])
        head_ = known.get(elder_id)
        if rows < longest or (head_ is not None and rows < head_.rows):
            broken.append(Broken(f"chain of elder {elder_id}", f"lines after {rows} were removed"))
        elif rows and (head_ is None or (head_.rows, bytes(head_.hash)) != (rows, hash_)):
            broken.append(Broken(f"chain of elder {elder_id}", "its head is not the one that was kept"))
    there = {("visit", row.id, 0): bytes(row.digest) for row in await session.execute(sa.text(_VISITS), values)}
    visits = len(there)
    there |= {
        ("version", row.id, row.version): bytes(row.digest) for row in await session.execute(sa.text(_VERSIONS), values)
    }
    for key in sorted(said.keys() | there.keys(), key=str):
        of, visit_id, version = key
        name = f"visit {visit_id}" if of == "visit" else f"kept version {version} of visit {visit_id}"
        if key not in there:
            broken.append(Broken(name, "it was removed"))
        elif key not in said:
            broken.append(Broken(name, "it was inserted past the ledger: no chain has it"))
        elif said[key] != there[key]:
            broken.append(Broken(name, "it was altered past the ledger: it is not as its chain says"))
    return _Found(broken, visits, len(links))
