"""Bytes to rows of text: XLSX and CSV as Excel, WPS and others save them.

The XLSX reader is small and our own (docs/adr/0027): it goes through the sheet once and holds to limits while it does, it
sees numbers as they were written (an ID number loses no digit here), and it knows no entities, links or macros to follow.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import IO
from xml.parsers import expat

MOST_BYTES = 16 * 1024 * 1024
MOST_ROWS = 100_000
MOST_COLUMNS = 64
_MOST_UNPACKED = 512 * 1024 * 1024
_MOST_TEXTS = 2_000_000
_MOST_CELL = 4000
_PIECE = 256 * 1024
_OLE = b"\xd0\xcf\x11\xe0"
Start = Callable[[str, dict[str, str]], None]
End = Callable[[str], None]
SAVE_AS = "请在 Excel 或 WPS 中另存为 .xlsx 或 .csv 后再上传"


class Kind(StrEnum):
    XLSX = "xlsx"
    CSV = "csv"


class Unreadable(Exception):
    """The file cannot be taken; `str()` says in Chinese what to mend."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row with its number as the spreadsheet shows it (from 1), cells from column A on."""

    number: int
    cells: list[str]


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


def rows_of(content: bytes, *, most_unpacked: int = _MOST_UNPACKED) -> Iterator[Row]:
    """All rows, empty ones left out. Raises `Unreadable`, also on the way."""
    rows = _xlsx(content, most_unpacked) if kind_of(content) is Kind.XLSX else _csv(content)
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
    csv.field_size_limit(_MOST_CELL * 4)
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


# --- XLSX ------------------------------------------------------------------------------------------------------------


def _xlsx(content: bytes, most_unpacked: int) -> Iterator[Row]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            names = {info.filename: info for info in book.infolist()}
            if len(names) > 2000 or sum(info.file_size for info in names.values()) > most_unpacked:
                raise Unreadable("文件解压后太大,请只保留需要导入的工作表")
            if any(info.flag_bits & 1 for info in names.values()):
                raise Unreadable("文件设有密码,请取消密码后再上传")
            texts = _shared_texts(book) if "xl/sharedStrings.xml" in names else []
            yield from _Sheet(texts).rows(book.open(_first_sheet(book)))
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, ValueError, expat.ExpatError):
        raise Unreadable(f"文件已损坏:{SAVE_AS}") from None


def _first_sheet(book: zipfile.ZipFile) -> str:
    """The path of the first sheet that is shown."""
    targets: dict[str, str] = {}
    sheets: list[str] = []

    def relation(name: str, given: dict[str, str]) -> None:
        if name == "Relationship":
            targets[given.get("Id", "")] = given.get("Target", "")

    def sheet(name: str, given: dict[str, str]) -> None:
        if name == "sheet" and given.get("state", "visible") == "visible":
            sheets.extend(value for key, value in given.items() if key.rpartition(":")[2] == "id")

    _parse(book.open("xl/_rels/workbook.xml.rels"), start=relation)
    _parse(book.open("xl/workbook.xml"), start=sheet)
    for ident in sheets:
        target = targets.get(ident, "")
        path = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
        if path in book.namelist() and "worksheets/" in path:
            return path
    raise Unreadable("工作簿里没有工作表")


def _shared_texts(book: zipfile.ZipFile) -> list[str]:
    texts: list[str] = []
    parts: list[str] = []
    state = {"t": False, "phonetic": False}

    def start(name: str, _: dict[str, str]) -> None:
        if name == "si":
            parts.clear()
        elif name == "t":
            state["t"] = not state["phonetic"]
        elif name == "rPh":
            state["phonetic"] = True

    def end(name: str) -> None:
        if name == "si":
            texts.append(_unescaped("".join(parts)[:_MOST_CELL]))
            if len(texts) > _MOST_TEXTS:
                raise Unreadable("文件中的文字太多,请只保留需要导入的工作表")
        elif name == "t":
            state["t"] = False
        elif name == "rPh":
            state["phonetic"] = False

    def said(text: str) -> None:
        if state["t"]:
            parts.append(text)

    _parse(book.open("xl/sharedStrings.xml"), start=start, end=end, said=said)
    return texts


class _Sheet:
    """Goes through a sheet and gives its rows as they come."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._ready: list[Row] = []
        self._number = 0
        self._column = -1
        self._cells: dict[int, str] = {}
        self._kind = "n"
        self._value: list[str] = []
        self._reading = self._phonetic = False

    def rows(self, stream: IO[bytes]) -> Iterator[Row]:
        parser = _parser(start=self._start, end=self._end, said=self._said)
        taken = 0
        while piece := stream.read(_PIECE):
            taken += len(piece)
            if taken > _MOST_UNPACKED:
                raise Unreadable("文件解压后太大,请只保留需要导入的工作表")
            parser.Parse(piece, False)
            yield from self._ready
            self._ready.clear()
        parser.Parse(b"", True)
        yield from self._ready

    def _start(self, name: str, given: dict[str, str]) -> None:
        if name == "c":
            self._kind = given.get("t", "n")
            self._column = _column_of(given["r"]) if "r" in given else self._column + 1
            self._value.clear()
        elif name in ("v", "t"):
            self._reading = not self._phonetic
        elif name == "row":
            number = given.get("r")
            self._number = int(number) if number else self._number + 1
            self._column, self._cells = -1, {}
        elif name == "rPh":
            self._phonetic = True

    def _said(self, text: str) -> None:
        if self._reading:
            self._value.append(text)

    def _end(self, name: str) -> None:
        if name in ("v", "t"):
            self._reading = False
        elif name == "c":
            if self._value and 0 <= self._column < MOST_COLUMNS:
                self._cells[self._column] = self._text("".join(self._value))
        elif name == "row":
            if any(text.strip() for text in self._cells.values()):
                last = max(self._cells)
                self._ready.append(Row(self._number, [self._cells.get(at, "") for at in range(last + 1)]))
        elif name == "rPh":
            self._phonetic = False

    def _text(self, raw: str) -> str:
        match self._kind:
            case "s":
                return self._texts[int(raw)]
            case "n":
                return _number(raw)
            case "b":
                return "是" if raw == "1" else "否"
            case "e":
                return ""  # #N/A and the like say nothing
            case _:
                return _unescaped(raw[:_MOST_CELL])


_PLAIN = re.compile(r"-?[0-9]{1,32}")


def _number(raw: str) -> str:
    """As a person would write it. What had to be rounded stays as it was written, so that it can be told from what was not."""
    if _PLAIN.fullmatch(raw):
        return raw
    try:
        value = Decimal(raw)
    except InvalidOperation:
        return raw
    if abs(value) < 10**15:
        whole = value.to_integral_value()
        return str(int(whole)) if whole == value else f"{value:f}"
    return raw


_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def _column_of(reference: str) -> int:
    """A1 → 0, AA7 → 26."""
    column = 0
    for char in reference:
        if not "A" <= char <= "Z":
            break
        column = column * 26 + ord(char) - 64
    return column - 1


def column_letter(index: int) -> str:
    """0 → A, 26 → AA."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _parser(*, start: Start | None = None, end: End | None = None, said: End | None = None) -> expat.XMLParserType:
    """A parser that knows no document type: entities, and what they blow up to, begin with one."""
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise Unreadable(f"文件中有不允许的内容(DTD):{SAVE_AS}")

    parser.StartDoctypeDeclHandler = refuse
    parser.CharacterDataHandler = said
    parser.buffer_text = True

    def first(name: str, given: dict[str, str]) -> None:
        """The root tells whether names carry a prefix; most do not, and then nothing stands between."""
        plain = ":" not in name
        parser.StartElementHandler = start if plain or start is None else lambda n, g: start(_local(n), g)
        parser.EndElementHandler = end if plain or end is None else lambda n: end(_local(n))
        if start is not None:
            start(_local(name), given)

    parser.StartElementHandler = first
    return parser


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _parse(stream: IO[bytes], *, start: Start | None = None, end: End | None = None, said: End | None = None) -> None:
    parser = _parser(start=start, end=end, said=said)
    taken = 0
    while piece := stream.read(_PIECE):
        taken += len(piece)
        if taken > _MOST_UNPACKED:
            raise Unreadable("文件解压后太大,请只保留需要导入的工作表")
        parser.Parse(piece, False)
    parser.Parse(b"", True)
