"""Bytes to rows of text: XLSX and CSV as Excel, WPS and others save them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from enum import StrEnum

from app.imports.raw import MOST_BYTES, MOST_CELL, MOST_COLUMNS, MOST_ROWS, SAVE_AS, Row, Unreadable
from app.imports.workbook import MOST_UNPACKED, Holds, xlsx_rows

_OLE = b"\xd0\xcf\x11\xe0"


class Kind(StrEnum):
    XLSX = "xlsx"
    CSV = "csv"


def kind_of(content: bytes) -> Kind:
    """What the file is, by what stands in it and not by its name. Raises `Unreadable`. Quick: nothing is unpacked."""
    if not content.strip():
        raise Unreadable("文件是空的")
    if content.startswith(_OLE):
        raise Unreadable(f"这是旧版 .xls 文件,或者文件设有密码:{SAVE_AS}(不要设密码)")
    if content.startswith(b"PK"):
        if b"vbaProject.bin" in content:
            raise Unreadable(f"文件中含有宏,不能接收:{SAVE_AS}")
        if b"xl/workbook.xml" not in content:
            raise Unreadable(f"不是 Excel 工作簿:{SAVE_AS}")
        return Kind.XLSX
    if content.startswith((b"%PDF", b"{\\rtf", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf", b"\x89PNG", b"\xff\xd8\xff")):
        raise Unreadable(f"文件类型不对:{SAVE_AS}")
    if re.match(rb"\s*(\xef\xbb\xbf)?\s*<", content[:200]):
        raise Unreadable(f"这是网页或 XML,不是表格:{SAVE_AS}")
    return Kind.CSV


def rows_of(content: bytes, *, holds: Holds | None = None, most_unpacked: int = MOST_UNPACKED) -> Iterator[Row]:
    """All rows, empty ones left out. Of a workbook those of the sheet whose first rows `holds` the list; without `holds`, of
    the first one shown. Raises `Unreadable`, also on the way, and for a workbook with several lists."""
    rows = xlsx_rows(content, holds, most_unpacked) if kind_of(content) is Kind.XLSX else _csv(content)
    for count, row in enumerate(rows):
        if count >= MOST_ROWS:
            raise Unreadable(f"超过 {MOST_ROWS} 行,请分成几个文件")
        yield row


# --- CSV -------------------------------------------------------------------------------------------------------------


def text_of(content: bytes) -> str:
    """Decoded: UTF-8 with or without a mark, UTF-16 with one (Excel's «Unicode text»), GB18030 (GBK, GB2312)."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return _decoded(content, encoding)
    try:
        return _decoded(content, "utf-8")
    except Unreadable:
        return _decoded(content, "gb18030")


def _decoded(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable(f"认不出文字编码:{SAVE_AS}(CSV UTF-8 或 GBK 都可以)") from None
    if "\x00" in text:
        raise Unreadable(f"不是文本文件:{SAVE_AS}")
    return text


def _csv(content: bytes) -> Iterator[Row]:
    text = text_of(content)
    csv.field_size_limit(MOST_CELL * 4)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    try:
        for number, cells in enumerate(reader, start=1):
            if any(cell.strip() for cell in cells):
                yield Row(number, [_unquoted(cell) for cell in cells[:MOST_COLUMNS]])
    except csv.Error:
        raise Unreadable(f"第 {reader.line_num} 行附近引号不成对,或有过长的单元格") from None


def _delimiter(text: str) -> str:
    """Comma, tab or semicolon: the one that stands most often in the lines at the beginning."""
    head = text[:20_000]
    return max(",\t;", key=lambda char: (head.count(char), char == ","))


def _unquoted(cell: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from taking text for a formula (`plain_in_csv` of the forms)."""
    return cell[1:] if re.match(r"'+[=+\-@\t\r]", cell) else cell


__all__ = ["MOST_BYTES", "MOST_ROWS", "SAVE_AS", "Kind", "Row", "Unreadable", "kind_of", "rows_of", "text_of"]
