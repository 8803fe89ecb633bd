"""XLSX to rows of text.

The reader is small and our own (docs/adr/0027): it goes through the sheet once and holds to limits while it does, it sees
numbers as they were written (an ID number loses no digit here), and it knows no entities, links or macros to follow.
"""

from __future__ import annotations

import io
import itertools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import IO
from xml.parsers import expat

from app.imports.raw import MOST_CELL, MOST_COLUMNS, SAVE_AS, Row, Unreadable

MOST_UNPACKED = 512 * 1024 * 1024
_MOST_TEXTS = 2_000_000
_MOST_SHEETS = 100
_MOST_MERGED = 200_000
_LOOK_IN = 60  # rows of a sheet, to tell whether the list is on it
_PIECE = 256 * 1024
Start = Callable[[str, dict[str, str]], None]
End = Callable[[str], None]
Holds = Callable[[Sequence[Row]], bool]
Merged = Mapping[int, Sequence[tuple[int, int]]]  # first row: column, last row


def xlsx_rows(content: bytes, holds: Holds | None, most_unpacked: int) -> Iterator[Row]:
    """The rows of the sheet with the list."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            names = {info.filename: info for info in book.infolist()}
            if len(names) > 2000 or sum(info.file_size for info in names.values()) > most_unpacked:
                raise Unreadable("文件解压后太大,请只保留需要导入的工作表")
            if any(info.flag_bits & 1 for info in names.values()):
                raise Unreadable("文件设有密码,请取消密码后再上传")
            texts = _shared_texts(book) if "xl/sharedStrings.xml" in names else []
            path = _sheet_of(book, texts, holds)
            yield from _Sheet(texts, _merged(book.open(path))).rows(book.open(path))
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, ValueError, expat.ExpatError):
        raise Unreadable(f"文件已损坏:{SAVE_AS}") from None


def _sheet_of(book: zipfile.ZipFile, texts: list[str], holds: Holds | None) -> str:
    """The path of the sheet with the list, the first of all when none has one. Two lists are refused: which is meant, or
    whether both are, only a person can tell, and nobody is to be left out in silence."""
    shown = _sheets(book)
    if not shown:
        raise Unreadable("工作簿里没有工作表")
    if holds is None or len(shown) == 1:
        return shown[0]
    if len(shown) > _MOST_SHEETS:
        raise Unreadable("工作表太多,请只保留需要导入的工作表")
    having = [
        at for at, path in enumerate(shown)
        if holds(list(itertools.islice(_Sheet(texts, {}).rows(book.open(path)), _LOOK_IN)))
    ]  # fmt: skip
    if len(having) > 1:
        which = "、".join(str(at + 1) for at in having)
        raise Unreadable(f"第 {which} 个工作表都是名单:请合并成一个,或者分别另存为文件后逐个上传")
    return shown[having[0]] if having else shown[0]


def _sheets(book: zipfile.ZipFile) -> list[str]:
    """The paths of the sheets that are shown, in their order."""
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
    there = set(book.namelist())
    found = []
    for ident in sheets:
        target = targets.get(ident, "")
        path = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
        if path in there and "worksheets/" in path:
            found.append(path)
    return found


_MERGE = re.compile(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]{1,3})([0-9]{1,7}):[A-Z]{1,3}([0-9]{1,7})"')


def _merged(stream: IO[bytes]) -> Merged:
    """The cells that are merged downward. They stand behind the rows, so the sheet is gone through once more, as bytes."""
    found: dict[int, list[tuple[int, int]]] = {}
    count, rest, taken = 0, b"", 0
    while piece := stream.read(_PIECE):
        taken += len(piece)
        if taken > MOST_UNPACKED:
            raise Unreadable("文件解压后太大,请只保留需要导入的工作表")
        piece = rest + piece
        end = 0
        for match in _MERGE.finditer(piece):
            end = match.end()
            first, last = int(match[2]), int(match[3])
            if last > first and (count := count + 1) <= _MOST_MERGED:
                found.setdefault(first, []).append((_column_of(match[1].decode()), last))
        rest = piece[max(end, len(piece) - 200) :]
    return found


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
            texts.append(_unescaped("".join(parts)[:MOST_CELL]))
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

    def __init__(self, texts: list[str], merged: Merged) -> None:
        self._texts = texts
        self._merged = merged
        self._under: dict[int, tuple[int, str]] = {}  # column: the last row of the merged cell, and what stands in it
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
            if taken > MOST_UNPACKED:
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
            under = self._merged_above() if self._merged else {}
            if any(text.strip() for text in self._cells.values()):
                last = max(self._cells)
                self._ready.append(Row(self._number, [self._cells.get(at, "") for at in range(last + 1)], under))
        elif name == "rPh":
            self._phonetic = False

    def _merged_above(self) -> dict[int, str]:
        """What stands in the merged cells that reach down into this row."""
        self._under = {at: (last, text) for at, (last, text) in self._under.items() if last >= self._number}
        under = {at: text for at, (_, text) in self._under.items()}
        for at, last in self._merged.get(self._number, ()):
            self._under[at] = (last, self._cells.get(at, ""))
        return under

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
                return _unescaped(raw[:MOST_CELL])


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
        if taken > MOST_UNPACKED:
            raise Unreadable("文件解压后太大,请只保留需要导入的工作表")
        parser.Parse(piece, False)
    parser.Parse(b"", True)
