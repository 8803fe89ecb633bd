"""Everything held about one elder, for the person and the family (PIPL 45): JSON for machines, a page for people.

Read in one snapshot and given piece by piece: a home with many sensors has a long journal.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.sealing import Sealer
from app.db import Sessions
from app.privacy.held import HELD, Held
from app.privacy.labels import COLUMNS, VALUES
from app.privacy.sealed import SEALED

_CHUNK = 500
_SEALED = {one.table: one for one in SEALED}
_SUFFIX = "_sealed"
# Who looked at the person's data, and who changed it.
_AUDIT = Held(
    "audit_log", "查看与更改记录", "t.subject_type IN ('elder', 'contacts') AND t.subject_id = CAST(:elder AS text)",
    hides=("id", "subject_type", "subject_id", "previous_hash", "hash"),
)  # fmt: skip
SECTIONS = (*HELD, _AUDIT)

Row = dict[str, Any]


class Exporter:
    """Reads one person's rows; opens what is sealed."""

    def __init__(self, sessions: Sessions, sealer: Sealer, tz: ZoneInfo) -> None:
        self._sessions = sessions
        self._sealer = sealer
        self._tz = tz

    async def as_json(self, elder_id: UUID, *, at: datetime) -> AsyncIterator[bytes]:
        """One object: `sections`, each with its `name`, `title` and `rows`."""
        yield _line(f'{{"elder_id": "{elder_id}", "exported_at": "{self._text(at)}", "sections": [')
        first = True
        async for one, rows in self._sections(elder_id):
            head = {"name": one.table, "title": one.title}
            yield _line(("" if first else ",") + json.dumps(head, ensure_ascii=False)[:-1] + ', "rows": [')
            first, first_row = False, True
            async for row in rows:
                text = json.dumps(row, ensure_ascii=False, default=self._text)
                yield _line(text if first_row else "," + text)
                first_row = False
            yield _line("]}")
        yield _line("]}")

    async def as_page(self, elder_id: UUID, *, at: datetime) -> AsyncIterator[bytes]:
        """A page that needs nothing from elsewhere and prints."""
        yield _line(_HEAD.format(at=self._text(at)))
        async for one, rows in self._sections(elder_id):
            yield _line(f"<h2>{html.escape(one.title)}</h2>")
            columns: list[str] | None = None
            async for row in rows:
                if columns is None:
                    columns = list(row)
                    titles = "".join(f"<th>{html.escape(COLUMNS.get(name, name))}</th>" for name in columns)
                    yield _line(f"<table><tr>{titles}</tr>")
                cells = "".join(f"<td>{html.escape(self._words(row[name]))}</td>" for name in columns)
                yield _line(f"<tr>{cells}</tr>")
            yield _line("<p>无</p>" if columns is None else "</table>")
        yield _line("</body></html>")

    async def _sections(self, elder_id: UUID) -> AsyncIterator[tuple[Held, AsyncIterator[Row]]]:
        async with self._sessions() as session:
            await session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            for one in SECTIONS:
                yield one, self._rows(session, one, elder_id)

    async def _rows(self, session: AsyncSession, one: Held, elder_id: UUID) -> AsyncIterator[Row]:
        query = sa.text(f"SELECT * FROM {one.table} t WHERE {one.where()} ORDER BY {one.order}")  # noqa: S608 - constants
        found = await session.stream(query, {"elder": elder_id}, execution_options={"yield_per": _CHUNK})
        async for row in found.mappings():
            yield self._shown(one, dict(row))

    def _shown(self, one: Held, row: Mapping[str, Any]) -> Row:
        shown: Row = {}
        for name, value in row.items():
            if name in one.hides:
                continue
            if name.endswith(_SUFFIX):
                shown[name.removesuffix(_SUFFIX)] = self._opened(one, row, value)
            else:
                shown[name] = value
        return shown

    def _opened(self, one: Held, row: Mapping[str, Any], value: bytes | None) -> str | None:
        if value is None:
            return None
        try:
            content = self._sealer.open_bytes(value, record=_SEALED[one.table].record(row))
        except InvalidTag:
            return "(无法解密)"
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "base64:" + base64.b64encode(content).decode()

    def _text(self, value: Any) -> str:
        match value:
            case datetime():
                return value.astimezone(self._tz).isoformat(timespec="seconds")
            case date():
                return value.isoformat()
            case _:
                return str(value)

    def _words(self, value: Any) -> str:
        match value:
            case None:
                return ""
            case datetime():
                return value.astimezone(self._tz).strftime("%Y-%m-%d %H:%M")
            case list():
                return "、".join(self._words(item) for item in value)
            case dict():
                return "；".join(f"{COLUMNS.get(name, name)}：{self._words(item)}" for name, item in value.items())
            case _:
                text = self._text(value)
                return VALUES.get(text, text)


def exported_columns(one: Held, columns: Sequence[str]) -> list[str]:
    """What of a table's columns an export shows, by the names it shows them under."""
    return [name.removesuffix(_SUFFIX) for name in columns if name not in one.hides]


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


_HEAD = """<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><title>个人信息副本</title>
<style>body{{font:14px/1.5 sans-serif;margin:2em}}table{{border-collapse:collapse;width:100%}}
th,td{{border:1px solid #999;padding:2px 6px;text-align:left;vertical-align:top;word-break:break-word}}
h2{{margin:1.2em 0 .3em;font-size:16px}}@media print{{body{{margin:0}}}}</style></head>
<body><h1>个人信息副本</h1><p>导出时间：{at}。依据《中华人民共和国个人信息保护法》第四十五条提供，含敏感个人信息，请妥善保管。</p>"""
