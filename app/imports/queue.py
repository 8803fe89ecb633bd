"""Imports in the database: handed in, asked for, taken by one process at a time, forgotten. The database is the timer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal, within
from app.access.sealing import Sealer
from app.elders import register
from app.elders.vocabulary import RegionLevel
from app.errors import Conflict, InvalidInput, NotFound
from app.ids import new_uuid
from app.imports.files import Unreadable, kind_of
from app.imports.tables import ElderImport, ElderImportRow
from app.imports.vocabulary import WAITING, Mode, Outcome, State
from app.signals import Signal, signal_sql

LEASE = timedelta(seconds=60)
MOST_TRIES = 3
_FILES_FOR = timedelta(days=3)
_RESULTS_FOR = timedelta(days=30)
_MOST_WAITING = 5  # of one importer: more are a mistake of a script


async def hand_in(
    session: AsyncSession,
    who: Principal,
    content: bytes,
    *,
    filename: str | None,
    place_code: str | None,
    sealer: Sealer,
    now: datetime,
) -> ElderImport:
    """Keep a list for its dry run. Raises `InvalidInput` for what is no list, and for a place outside the scope."""
    try:
        kind_of(content)
    except Unreadable as error:
        raise InvalidInput(str(error), field="file") from None
    if place_code is not None:
        place_code = f"{place_code:0<12}"
        try:
            place = await register.region_within(session, who, place_code)
        except NotFound as error:
            raise InvalidInput(error.detail, field="region_code") from None
        if place.level is RegionLevel.DISTRICT:
            raise InvalidInput("a list is of a township or a village: give its code", field="region_code")
    waiting = select(sa.func.count()).where(
        col(ElderImport.state).in_(WAITING), col(ElderImport.created_by)["id"].astext == str(who.id)
    )
    if (await session.scalar(waiting) or 0) >= _MOST_WAITING:
        raise Conflict(f"{_MOST_WAITING} imports of yours are waiting or running; let them end first")
    import_id = new_uuid(now)
    made = ElderImport(
        id=import_id,
        region_code=who.region_code,
        place_code=place_code,
        filename=filename,
        size=len(content),
        file_sealed=sealer.seal_bytes(content, record=import_id),
        state=State.UPLOADED,
        tries=0,
        created_by=who.who(),
        created_at=now,
    )
    session.add(made)
    await session.flush()
    await _wake(session)
    return made


def open_file(sealer: Sealer, kept: ElderImport) -> bytes:
    assert kept.file_sealed is not None
    return sealer.open_bytes(kept.file_sealed, record=kept.id)


async def _wake(session: AsyncSession) -> None:
    await session.execute(sa.text(f"SELECT {signal_sql(Signal.IMPORTS)}"))


# --- reading ---------------------------------------------------------------------------------------------------------

_LIGHT = sa.orm.defer(ElderImport.file_sealed, raiseload=True)  # type: ignore[arg-type]


async def import_within(session: AsyncSession, who: Principal, import_id: UUID, *, lock: bool = False) -> ElderImport:
    """Raises `NotFound` for an id that is absent or outside the scope, alike."""
    query = (
        select(ElderImport)
        .options(_LIGHT)
        .where(col(ElderImport.id) == import_id, within(who, col(ElderImport.region_code)))
    )
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such import")
    return found


async def list_imports(
    session: AsyncSession, who: Principal, *, limit: int, before: UUID | None
) -> Sequence[ElderImport]:
    query = select(ElderImport).options(_LIGHT).where(within(who, col(ElderImport.region_code)))
    if before:
        query = query.where(col(ElderImport.id) < before)
    return (await session.execute(query.order_by(col(ElderImport.id).desc()).limit(limit + 1))).scalars().all()


async def rows(
    session: AsyncSession,
    import_id: UUID,
    *,
    limit: int,
    after: int = -1,
    outcome: Outcome | None = None,
    with_issues: bool = False,
) -> Sequence[ElderImportRow]:
    """Rows in the order of the sheet: at most `limit` after row `after`."""
    query = select(ElderImportRow).where(col(ElderImportRow.import_id) == import_id, col(ElderImportRow.row) > after)
    if outcome:
        query = query.where(col(ElderImportRow.outcome) == outcome)
    if with_issues:
        query = query.where(col(ElderImportRow.issues) != sa.text("'[]'::jsonb"))
    return (await session.execute(query.order_by(col(ElderImportRow.row)).limit(limit))).scalars().all()


# --- deciding --------------------------------------------------------------------------------------------------------


async def ask_commit(session: AsyncSession, who: Principal, found: ElderImport, mode: Mode) -> bool:
    """Have the checked list written. False when it was asked for before. Raises `Conflict` when it cannot be."""
    match found.state:
        case State.COMMITTING | State.COMMITTED:
            if found.mode is not mode:
                raise Conflict("this import was committed in the other mode")
            return False
        case State.UPLOADED:
            raise Conflict("the dry run is not finished; ask for the import until its state is checked")
        case State.FAILED | State.CANCELLED:
            raise Conflict(f"the import is {found.state.value}; upload the file again")
        case State.CHECKED:
            pass
    has_file = await session.scalar(
        select(col(ElderImport.file_sealed).is_not(None)).where(col(ElderImport.id) == found.id)
    )
    if not has_file:
        raise Conflict("the file was deleted after three days; upload it again")
    wrong = found.counts.get(Outcome.ERROR.value, 0)
    if mode is Mode.ALL_OR_NOTHING and wrong:
        raise Conflict(f"{wrong} rows have errors: mend them and upload again, or commit with mode=good_rows_only")
    found.state, found.mode, found.committed_by = State.COMMITTING, mode, who.who()
    found.rows_done, found.tries = 0, 0
    await session.flush()
    await _wake(session)
    return True


async def cancel(session: AsyncSession, found: ElderImport, *, now: datetime) -> None:
    """Forget the file. Raises `Conflict` once it is being written or was."""
    if found.state in (State.COMMITTING, State.COMMITTED):
        raise Conflict(f"the import is {found.state.value}; what it wrote is changed in the register")
    await session.execute(
        sa.text(
            "UPDATE elder_imports SET state = 'cancelled', failure = NULL, file_sealed = NULL, holder = NULL, "
            "leased_until = NULL, finished_at = coalesce(finished_at, :now) WHERE id = :id"
        ),
        {"id": found.id, "now": now},
    )
    await session.refresh(found, ["state", "failure", "finished_at"])


# --- working ---------------------------------------------------------------------------------------------------------


async def waiting(session: AsyncSession, *, now: datetime) -> bool:
    """Whether there is work that nobody does: new, or of a process that is believed dead."""
    found = await session.scalar(
        sa.text(
            "SELECT 1 FROM elder_imports WHERE state IN ('uploaded', 'committing') "
            "AND (leased_until IS NULL OR leased_until < :now) LIMIT 1"
        ),
        {"now": now},
    )
    return found is not None


async def take(session: AsyncSession, *, holder: UUID, now: datetime) -> ElderImport | None:
    """The oldest that waits, for this process; None when there is none. One that brought down several processes fails."""
    while True:
        query = (
            select(ElderImport)
            .where(
                col(ElderImport.state).in_(WAITING),
                sa.or_(col(ElderImport.leased_until).is_(None), col(ElderImport.leased_until) < now),
            )
            .order_by(col(ElderImport.id))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        found = (await session.execute(query)).scalar_one_or_none()
        if found is None:
            return None
        if found.tries < MOST_TRIES:
            found.holder, found.leased_until, found.tries = holder, now + LEASE, found.tries + 1
            await session.flush()
            return found
        await fail(
            session, found.id, None, "处理这个文件时程序几次中断,请检查文件(是否过大、格式是否异常)后再上传", now=now
        )
        session.expire(found)


class Lost(Exception):
    """Another process took the import over: this one stops, and nothing of its transaction stays."""


async def progress(session: AsyncSession, import_id: UUID, holder: UUID, *, now: datetime, **values: Any) -> None:
    """Note how far it is, and that the holder lives. Raises `Lost`."""
    given = {"holder": holder, "leased_until": now + LEASE, **values}
    await _set(session, import_id, holder, given)


async def fail(session: AsyncSession, import_id: UUID, holder: UUID | None, why: str, *, now: datetime) -> None:
    """It cannot be read or may not be written: says why, and forgets the file. `holder` None: whoever had it is dead."""
    await _set(session, import_id, holder, {**_DONE, "state": State.FAILED, "failure": why[:500], "finished_at": now})


async def settle(session: AsyncSession, import_id: UUID, holder: UUID, state: State, **values: Any) -> None:
    """The run is over: the list is checked, or written (then its file is forgotten). Raises `Lost`."""
    done = _DONE if state is State.COMMITTED else {"holder": None, "leased_until": None}
    await _set(session, import_id, holder, {**done, "state": state, **values})


_DONE: dict[str, Any] = {"holder": None, "leased_until": None, "file_sealed": None}


async def _set(session: AsyncSession, import_id: UUID, holder: UUID | None, values: dict[str, Any]) -> None:
    statement = sa.update(ElderImport).where(col(ElderImport.id) == import_id)
    if holder is not None:
        statement = statement.where(col(ElderImport.holder) == holder)
    done = await session.execute(statement.values(**values).execution_options(synchronize_session=False))
    if done.rowcount != 1:  # type: ignore[attr-defined]
        raise Lost


async def sweep(session: AsyncSession, now: datetime) -> None:
    """Files nobody used go after three days, results after thirty."""
    await session.execute(
        sa.text(
            "UPDATE elder_imports SET file_sealed = NULL WHERE file_sealed IS NOT NULL AND created_at < :before "
            "AND state NOT IN ('uploaded', 'committing')"
        ),
        {"before": now - _FILES_FOR},
    )
    await session.execute(
        sa.text("DELETE FROM elder_imports WHERE created_at < :before AND state NOT IN ('uploaded', 'committing')"),
        {"before": now - _RESULTS_FOR},
    )
