"""The two runs over a list: the dry one, and the one in earnest. Each piece is noted, so that another process may go on
where this one died (docs/adr/0027)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app import logs
from app.access import audit
from app.access.principal import Principal, Right, within
from app.access.sealing import Sealer, mask_id_number
from app.access.standing import standing
from app.access.wall import beyond, walled
from app.clock import Clock
from app.db import Sessions, transaction
from app.elders import bulk, moving, policies, register
from app.elders.tables import Elder, Region
from app.imports import queue
from app.imports.columns import Head, find_head, has_head, people
from app.imports.files import Row, Unreadable, rows_of
from app.imports.judging import Judge, Verdict
from app.imports.places import Places
from app.imports.queue import Lost
from app.imports.reading import Draft, Issue, Reader, plain_name
from app.imports.tables import ElderImport
from app.imports.vocabulary import Column, Mode, Outcome, Severity, State

log = logs.get("imports")
_PIECE = 1000
_IN_ONE_NOTE = 500  # people: some 20 KB
_CHANGED_SINCE = "登记在检查之后有变化,有的行不能写入,所以一行也没有写入。下面是重新检查的结果"


class _Changed(Exception):
    """All or nothing, and a row is no longer possible."""


@dataclass
class _Done:
    enrolled: list[str] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    moved_away: list[str] = field(default_factory=list)


@dataclass
class _List:
    """A list being worked on: its rows, and all that judging them needs."""

    kept: ElderImport
    who: Principal
    head: Head
    rows: Sequence[Row]
    judge: Judge
    now: datetime
    today: date
    counts: Counter[str] = field(default_factory=Counter)
    done_in: dict[str, _Done] = field(default_factory=dict)  # not yet in the audit log, by village

    def pieces(self) -> Iterator[tuple[int, list[Draft]]]:
        for start in range(0, len(self.rows), _PIECE):
            yield start, [self.judge.reader.draft(row) for row in self.rows[start : start + _PIECE]]


class Work:
    """Takes imports and does them, one after the other. Any number of processes may."""

    def __init__(self, sessions: Sessions, sealer: Sealer, clock: Clock, tz: ZoneInfo) -> None:
        self._sessions = sessions
        self._sealer = sealer
        self._clock = clock
        self._tz = tz
        self._holder = uuid4()

    async def do_all(self) -> int:
        """Until none waits. Returns how many runs were made."""
        done = 0
        while True:
            async with transaction(self._sessions) as session:
                kept = await queue.take(session, holder=self._holder, now=self._clock())
            if kept is None:
                return done
            await self._do(kept)
            done += 1

    async def _do(self, kept: ElderImport) -> None:
        try:
            opened = await self._open(kept)
            if kept.state is State.UPLOADED:
                await self._check(opened)
            elif kept.mode is Mode.ALL_OR_NOTHING:
                await self._commit_whole(opened)
            else:
                await self._commit_good(opened)
        except Unreadable as error:
            async with transaction(self._sessions) as session:
                await queue.fail(session, kept.id, self._holder, str(error), now=self._clock())
        except Lost:
            log.warning("an import was taken over by another process", import_id=str(kept.id))

    # --- opening -------------------------------------------------------------------------------------------------------

    async def _open(self, kept: ElderImport) -> _List:
        content = queue.open_file(self._sealer, kept)
        rows = list(await asyncio.to_thread(lambda: list(rows_of(content, holds=has_head))))
        head = find_head(rows)
        meant = list(people(iter(rows), head))
        if not meant:
            raise Unreadable("表头下面没有人员")
        now = self._clock()
        today = now.astimezone(self._tz).date()
        async with transaction(self._sessions) as session:
            who = await standing(session, kept.committed_by or kept.created_by, now=now)
            if who is None or not who.may(Right.ELDERS_WRITE) or not kept.region_code.startswith(who.region_code):
                raise Unreadable("上传人的账号已停用,或权限、辖区有变化")
            if not who.sees(kept.place_code or who.region_code):
                raise Unreadable("所选的镇(街道)或村(社区)已不在您的辖区")
            in_force = await policies.in_force(session)
            places = await _places(session, who, kept.place_code)
        judge = Judge(Reader(head, today), places, self._sealer, in_force, today, head.place)
        return _List(kept, who, head, meant, judge, now, today)

    # --- the dry run ---------------------------------------------------------------------------------------------------

    async def _check(self, opened: _List, *notices: str) -> None:
        kept = opened.kept
        told = [*notices, *_notices(opened.head)]
        async with transaction(self._sessions) as session:
            await session.execute(sa.text("DELETE FROM elder_import_rows WHERE import_id = :id"), {"id": kept.id})
            await self._progress(session, opened, rows_done=0, rows_total=len(opened.rows), counts={}, notices=told)
        for start, drafts in opened.pieces():
            async with self._behind_the_wall(opened) as session:
                verdicts = await self._judge(session, opened, drafts)
                await self._keep(session, opened, verdicts)
                await self._progress(session, opened, rows_done=start + len(drafts), counts=dict(opened.counts))
        async with transaction(self._sessions) as session:
            await queue.settle(
                session, kept.id, self._holder, State.CHECKED, checked_at=self._clock(), mode=None, committed_by=None
            )

    async def _judge(
        self, session: AsyncSession, opened: _List, drafts: Sequence[Draft], *, lock: bool = False
    ) -> list[Verdict]:
        by_number, foreign = await self._by_number(session, drafts, lock)
        by_mask = await self._by_mask(session, opened.who, drafts, lock)
        verdicts = []
        for draft in drafts:
            if draft.masked is not None:
                verdicts.append(
                    opened.judge.judge(draft, by_mask.get((draft.name or "", draft.masked), []), foreign=False)
                )
                continue
            number = draft.identity.number if draft.identity else None
            elder = by_number.get(number) if number else None
            verdicts.append(opened.judge.judge(draft, [elder] if elder else [], foreign=number in foreign))
        return verdicts

    async def _by_number(
        self, session: AsyncSession, drafts: Sequence[Draft], lock: bool
    ) -> tuple[dict[str, Elder], set[str]]:
        """Whom the numbers belong to; and those that belong to somebody outside the scope."""
        given = [d.identity.number for d in drafts if d.identity is not None]
        numbers = {form: number for number in given for form in self._sealer.indexes(number)}
        if not numbers:
            return {}, set()
        wanted = sa.any_(sa.cast(list(numbers), ARRAY(BYTEA)))
        query = select(Elder).where(col(Elder.id_number_index) == wanted).order_by(col(Elder.id))
        seen = (await session.execute(_locked(query) if lock else query)).scalars()
        found = {numbers[elder.id_number_index]: elder for elder in seen if elder.id_number_index is not None}
        async with beyond(session, "one person is enrolled once, wherever that is"):
            known = await session.execute(
                select(col(Elder.id_number_index)).where(col(Elder.id_number_index) == wanted)
            )
        return found, {numbers[index] for (index,) in known if index is not None} - found.keys()

    async def _by_mask(
        self, session: AsyncSession, who: Principal, drafts: Sequence[Draft], lock: bool
    ) -> dict[tuple[str, str], list[Elder]]:
        names = {name for d in drafts if d.masked is not None for name in (d.name, d.padded) if name is not None}
        if not names:
            return {}
        wanted = sa.any_(sa.cast(sorted(names), ARRAY(sa.Text)))
        query = (
            select(Elder).where(within(who, col(Elder.region_code)), col(Elder.name) == wanted).order_by(col(Elder.id))
        )
        found: dict[tuple[str, str], list[Elder]] = {}
        for elder in (await session.execute(_locked(query) if lock else query)).scalars():
            number = self._sealer.open_optional(elder.id_number_sealed, record=elder.id)
            if number is None:  # erased
                continue
            masked = mask_id_number(number)
            found.setdefault((plain_name(elder.name), masked), []).append(elder)
        return found

    # --- in earnest ----------------------------------------------------------------------------------------------------

    async def _commit_good(self, opened: _List) -> None:
        """Piece by piece, each a transaction with its rows, its audit and how far it is."""
        done = opened.kept.rows_done
        opened.counts = Counter(opened.kept.counts if done else {})
        for start, drafts in opened.pieces():
            async with self._behind_the_wall(opened) as session:
                numbers = [draft.identity.number for draft in drafts if draft.identity is not None]
                await register.lock_numbers(session, numbers, sealer=self._sealer)
                verdicts = await self._judge(session, opened, drafts, lock=True)
                if start + len(drafts) <= done:  # written by a process that died; judged only to know whom it named
                    continue
                verdicts = await self._write(session, opened, verdicts)
                await self._keep(session, opened, verdicts)
                self._note(session, opened)
                await self._progress(session, opened, rows_done=start + len(drafts), counts=dict(opened.counts))
        async with transaction(self._sessions) as session:
            await queue.settle(session, opened.kept.id, self._holder, State.COMMITTED, finished_at=self._clock())

    async def _commit_whole(self, opened: _List) -> None:
        """One transaction for all rows; how far it is is told from another.

        Numbers are not locked here: a hundred thousand would fill the database's table of locks. The unique index stands.
        """
        try:
            async with self._behind_the_wall(opened) as session:
                for start, drafts in opened.pieces():
                    verdicts = await self._judge(session, opened, drafts, lock=True)
                    if not any(verdict.outcome is Outcome.ERROR for verdict in verdicts):
                        verdicts = await self._write(session, opened, verdicts)
                    if any(verdict.outcome is Outcome.ERROR for verdict in verdicts):
                        raise _Changed
                    await self._keep(session, opened, verdicts)
                    await session.flush()
                    session.expunge_all()
                    async with transaction(self._sessions) as beside:
                        await self._progress(beside, opened, rows_done=start + len(drafts), counts=dict(opened.counts))
                self._note(session, opened)
                await queue.settle(
                    session, opened.kept.id, self._holder, State.COMMITTED, finished_at=self._clock(),
                    counts=dict(opened.counts),
                )  # fmt: skip
        except _Changed:
            await self._check(await self._open(opened.kept), _CHANGED_SINCE)

    async def _write(self, session: AsyncSession, opened: _List, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Write what the verdicts say. Returns them with the new people; one that the database refused is an error."""
        given: dict[str, Any] = {"by": opened.who.id, "sealer": self._sealer, "now": opened.now, "today": opened.today}
        made = await self._enrol(session, opened, [v for v in verdicts if v.outcome is Outcome.CREATE], given)
        changes = [v for v in verdicts if v.outcome is Outcome.UPDATE]
        stay = [(v.elder, v.fields) for v in changes if v.elder is not None and "region_code" not in v.fields]
        await bulk.change_many(session, stay, **given)
        left: dict[int, str] = {}
        for verdict in changes:
            if verdict.elder is not None and "region_code" in verdict.fields:
                left[verdict.draft.row] = verdict.elder.region_code
                await self._move(session, opened, verdict.elder, verdict.fields)
        result = [made.get(verdict.draft.row, verdict) for verdict in verdicts]
        self._remember(opened, result, left)
        return result

    async def _enrol(
        self, session: AsyncSession, opened: _List, verdicts: Sequence[Verdict], given: dict[str, Any]
    ) -> dict[int, Verdict]:
        """By row. Somebody may have enrolled one of them in this moment, or in a region that is not seen from here."""
        try:
            async with session.begin_nested():
                people_ = [(v.draft.identity, v.fields) for v in verdicts if v.draft.identity is not None]
                elders = await bulk.enrol_many(session, people_, **given)
        except IntegrityError:
            if len(verdicts) == 1:
                return {verdicts[0].draft.row: self._refused(opened, verdicts[0])}
            half = len(verdicts) // 2
            first = await self._enrol(session, opened, verdicts[:half], given)
            return first | await self._enrol(session, opened, verdicts[half:], given)
        return {
            v.draft.row: Verdict(v.draft, v.outcome, v.issues, v.fields, elder)
            for v, elder in zip(verdicts, elders, strict=True)
        }

    def _refused(self, opened: _List, verdict: Verdict) -> Verdict:
        issue = opened.judge.reader.issue(
            Severity.ERROR, "not_here", "不能在本辖区登记此人,请与上级民政部门核对", Column.ID_NUMBER
        )
        return Verdict(verdict.draft, Outcome.ERROR, [*verdict.issues, issue])

    async def _move(self, session: AsyncSession, opened: _List, elder: Elder, fields: Any) -> None:
        await register.change_elder(
            session, opened.who, elder, fields, sealer=self._sealer, now=opened.now, today=opened.today
        )
        await moving.take_along(session, elder.id, elder.region_code)

    def _behind_the_wall(self, opened: _List) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction that sees and changes what the importer may."""
        return walled(self._sessions, opened.who, now=opened.now)

    # --- keeping -------------------------------------------------------------------------------------------------------

    def _remember(self, opened: _List, verdicts: Sequence[Verdict], left: dict[int, str]) -> None:
        """Who was enrolled, changed, or moved away, by village: for the audit log."""
        for verdict in verdicts:
            if verdict.elder is None or verdict.outcome not in (Outcome.CREATE, Outcome.UPDATE):
                continue
            held = opened.done_in.setdefault(verdict.elder.region_code, _Done())
            if verdict.outcome is Outcome.CREATE:
                held.enrolled.append(str(verdict.elder.id))
            else:
                held.changed.append({"id": str(verdict.elder.id), "fields": sorted(verdict.fields)})
            before = left.get(verdict.draft.row)
            if before is not None:
                opened.done_in.setdefault(before, _Done()).moved_away.append(str(verdict.elder.id))

    def _note(self, session: AsyncSession, opened: _List) -> None:
        """Rows of the audit log for each village of a transaction, with the ids of its people, so many in each that a page of
        the log stays readable: a row for each person would hold up everybody who writes the chained log, and the more the
        longer one transaction writes it."""
        for place, done in opened.done_in.items():
            for name, ids in asdict(done).items():
                for start in range(0, len(ids), _IN_ONE_NOTE):
                    audit.note(
                        session, opened.who, action="elder.imported", subject_type="import", subject_id=opened.kept.id,
                        now=opened.now, region_code=place, **{name: ids[start : start + _IN_ONE_NOTE]},
                    )  # fmt: skip
        opened.done_in.clear()

    async def _keep(self, session: AsyncSession, opened: _List, verdicts: Sequence[Verdict]) -> None:
        opened.counts.update(verdict.outcome.value for verdict in verdicts)
        opened.counts["warning"] += sum(1 for v in verdicts if v.outcome is not Outcome.ERROR and v.issues)
        await session.execute(_KEEP, {
            "id": opened.kept.id,
            "row": [v.draft.row for v in verdicts],
            "outcome": [v.outcome.value for v in verdicts],
            "elder": [v.elder.id if v.elder else None for v in verdicts],
            "changes": [",".join(sorted(v.fields)) if v.outcome is Outcome.UPDATE else "" for v in verdicts],
            "issues": [_issues(v.issues) for v in verdicts],
        })  # fmt: skip

    async def _progress(self, session: AsyncSession, opened: _List, **values: Any) -> None:
        await queue.progress(session, opened.kept.id, self._holder, now=self._clock(), **values)


_KEEP = sa.text(
    """
    INSERT INTO elder_import_rows (import_id, row, outcome, elder_id, changes, issues)
    SELECT :id, r.row, r.outcome, r.elder, string_to_array(r.changes, ','), CAST(r.issues AS jsonb)
    FROM unnest(CAST(:row AS int[]), CAST(:outcome AS text[]), CAST(:elder AS uuid[]), CAST(:changes AS text[]),
                CAST(:issues AS text[])) AS r(row, outcome, elder, changes, issues)
    ON CONFLICT (import_id, row) DO UPDATE SET outcome = excluded.outcome, elder_id = excluded.elder_id,
                                               changes = excluded.changes, issues = excluded.issues
    """
)


def _locked(query: Any) -> Any:
    """FOR NO KEY UPDATE: an alarm of the same elder, which names the row by its key, need not wait."""
    return query.with_for_update(key_share=True)


def _issues(issues: Sequence[Issue]) -> str:
    return json.dumps([issue.shape() for issue in issues], ensure_ascii=False) if issues else "[]"


def _notices(head: Head) -> list[str]:
    """What concerns the whole list."""
    if not head.unknown:
        return []
    names = "、".join(title[:20] for title in head.unknown[:20])
    return [f"这些列没有导入:{names}"]


async def _places(session: AsyncSession, who: Principal, place_code: str | None) -> Places:
    query = select(Region).where(within(who, col(Region.code)))
    names = {region.code: region.name for region in (await session.execute(query)).scalars()}
    default = place_code
    if default is None and len(who.region_code) in (9, 12):
        default = f"{who.region_code:0<12}"
    return Places(names, default)
