"""Erasing somebody who has left: no identity stays; statistics and the audit log do (PIPL 47; docs/adr/0021)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.sealing import Sealer
from app.access.tables import idempotency_record
from app.access.wall import beyond
from app.elders import history
from app.elders.tables import Elder
from app.elders.vocabulary import ElderStatus, StatusReason
from app.errors import Conflict
from app.privacy.held import ERASED, HELD, Held
from app.visits import chain

_ANSWERS = 500
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ErasureReason(StrEnum):
    """Why somebody is erased; the audit log keeps it."""

    LEFT_PROGRAMME = "left_programme"
    ASKED_BY_ELDER = "asked_by_elder"
    ASKED_BY_FAMILY = "asked_by_family"
    CONSENT_WITHDRAWN = "consent_withdrawn"
    NO_LONGER_NEEDED = "no_longer_needed"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why it cannot be done now, and what would mend it."""

    code: str
    detail: str


class Fate(StrEnum):
    DELETED = "deleted"
    CLEARED = "cleared"  # the row stays for statistics, without identity
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Part:
    """What happens to the rows of one table."""

    table: str
    title: str
    fate: Fate
    rows: int


def _fate(one: Held) -> Fate:
    return Fate.DELETED if one.deleted else Fate.CLEARED if one.becomes else Fate.KEPT


async def obstacles(session: AsyncSession, elder: Elder) -> list[Obstacle]:
    """Nothing when the person may be erased."""
    found = []
    refused = (elder.status, elder.status_reason) == (ElderStatus.PAUSED, StatusReason.REFUSED)
    if elder.status not in (ElderStatus.MOVED, ElderStatus.DECEASED) and not refused:
        found.append(
            Obstacle(
                "still_enrolled",
                "the person is still in the programme: set the status to moved or deceased, or to paused with the "
                "reason refused, first",
            )
        )
    query = "SELECT count(*) FROM alarms WHERE elder_id = :elder AND state <> 'resolved'"
    if count := await session.scalar(sa.text(query), {"elder": elder.id}):
        found.append(Obstacle("open_alarm", f"{count} alarms of this person are not resolved: resolve them first"))
    return found


async def preview(session: AsyncSession, elder: Elder) -> list[Part]:
    """What would happen to which rows."""
    async with beyond(session, "counts of what erasing would reach"):
        return [Part(one.table, one.title, _fate(one), await _count(session, one, elder.id)) for one in HELD]


async def _count(session: AsyncSession, one: Held, elder_id: UUID) -> int:
    query = sa.text(f"SELECT count(*) FROM {one.table} t WHERE {one.where()}")  # noqa: S608 - constants
    return await session.scalar(query, {"elder": elder_id}) or 0


async def erase(
    session: AsyncSession, elder: Elder, *, sealer: Sealer, by: str, now: datetime, today: date
) -> list[Part]:
    """Erase somebody, in this transaction. `elder` is locked. Raises `Conflict` with what stands in the way."""
    async with beyond(session, "what is held about a person goes wherever it lies, also where they lived before"):
        return await _erase_all(session, elder, sealer=sealer, by=by, now=now, today=today)


async def _erase_all(
    session: AsyncSession, elder: Elder, *, sealer: Sealer, by: str, now: datetime, today: date
) -> list[Part]:
    if standing := await obstacles(session, elder):
        raise Conflict("; ".join(one.detail for one in standing))
    if elder.status is ElderStatus.PAUSED:  # whoever is erased is enrolled no longer
        await history.set_status(
            session, elder, status=ElderStatus.MOVED, reason=None, since=today, until=None, evidence=ERASED, by=by,
            now=now, today=today,
        )  # fmt: skip
    await session.flush()
    await _forget_answers(session, await _ids(session, elder.id), sealer)
    parts = []
    for one in HELD:
        rows = await _erase_part(session, one, elder.id, now)
        parts.append(Part(one.table, one.title, _fate(one), rows))
    await chain.erased(session, elder.id)
    session.expire(elder)
    return parts


async def _erase_part(session: AsyncSession, one: Held, elder_id: UUID, now: datetime) -> int:
    statement = one.erasing()
    if statement is None:
        return await _count(session, one, elder_id)
    values = {"elder": elder_id} | ({"now": now} if ":now" in statement else {})
    done = await session.execute(sa.text(statement), values)
    return int(done.rowcount)  # type: ignore[attr-defined]


# --- idempotent answers ----------------------------------------------------------------------------------------------


async def _ids(session: AsyncSession, elder_id: UUID) -> set[str]:
    """What an answer about this person would name."""
    found = {str(elder_id)}
    for table in ("contacts", "family_members", "consents", "assessments", "findings", "alarms", "visits"):
        query = sa.text(f"SELECT id FROM {table} WHERE elder_id = :elder")  # noqa: S608 - constants
        found |= {str(one) for one in (await session.scalars(query, {"elder": elder_id})).all()}
    return found


async def _forget_answers(session: AsyncSession, ids: set[str], sealer: Sealer) -> None:
    """Answers of the last two days are sealed: each is opened, and those about the person go."""
    after = ("", "")
    while True:
        rows = (
            await session.execute(
                sa.text(
                    "SELECT principal, key, body_sealed FROM idempotent_answers WHERE (principal, key) > (:p, :k) "
                    "ORDER BY principal, key LIMIT :batch"
                ),
                {"p": after[0], "k": after[1], "batch": _ANSWERS},
            )
        ).all()
        for row in rows:
            if row.body_sealed is not None and _names(row, ids, sealer):
                await session.execute(
                    sa.text("DELETE FROM idempotent_answers WHERE principal = :p AND key = :k"),
                    {"p": row.principal, "k": row.key},
                )
        if len(rows) < _ANSWERS:
            return
        after = (rows[-1].principal, rows[-1].key)


def _names(row: sa.Row[tuple[str, str, bytes]], ids: set[str], sealer: Sealer) -> bool:
    try:
        text = sealer.open(row.body_sealed, record=idempotency_record(row.principal, row.key))
    except InvalidTag:
        return True  # nobody can read it; nor do we know that it says nothing
    return not ids.isdisjoint(_UUID.findall(text))


def summary(parts: list[Part]) -> dict[str, dict[str, int]]:
    """Counts for the audit log."""
    return {
        fate.value: {part.table: part.rows for part in parts if part.fate is fate and part.rows}
        for fate in (Fate.DELETED, Fate.CLEARED)
    }
