"""What the forms share: paper, fonts, borders, and cells that are text whatever they begin with.

Fonts are asked for by name, as official papers are set; a computer without them takes what it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from io import BytesIO
from math import ceil
from typing import Any
from unicodedata import east_asian_width

import xlsxwriter

_TITLE, _BODY, _HEAD = "方正小标宋简体", "仿宋_GB2312", "黑体"
_A4 = 9
_LINE = 15.6  # points of a line of 12-point text
# What a spreadsheet would take for a formula, were it typed in.
_FORMULA = re.compile(r"[=+\-@\t\r]")


class Sheet:
    """One A4 sheet being filled, top to bottom. Nothing is written to disk: it holds personal data."""

    def __init__(self, name: str, *, widths: list[float], landscape: bool = False) -> None:
        self._bytes = BytesIO()
        self._book = xlsxwriter.Workbook(
            self._bytes, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
        )
        self._formats: dict[tuple[Any, ...], Any] = {}
        self.sheet = self._book.add_worksheet(name)
        self.columns = len(widths)
        self._widths = widths
        for column, width in enumerate(widths):
            self.sheet.set_column(column, column, width)
        self.sheet.set_paper(_A4)
        if landscape:
            self.sheet.set_landscape()
        self.sheet.set_margins(left=0.6, right=0.6, top=0.8, bottom=0.7)
        self.sheet.center_horizontally()
        self.sheet.fit_to_pages(1, 0)  # one page wide, as many as it takes
        self.sheet.set_footer('&C&"仿宋_GB2312,Regular"&10第 &P 页 共 &N 页')

    def style(self, font: str = _BODY, size: int = 12, **more: Any) -> Any:
        """A format; equal ones are one."""
        key = (font, size, *sorted(more.items()))
        if key not in self._formats:
            given = {"font_name": font, "font_size": size, "valign": "vcenter", "text_wrap": True, **more}
            self._formats[key] = self._book.add_format(given)
        return self._formats[key]

    def cell(self, row: int, first: int, text: object, *, last: int | None = None, down: int = 0, **style: Any) -> None:
        """Text in one cell, or in one merged from several (`last` column, `down` rows more)."""
        written = text if isinstance(text, int) else str(text)
        if isinstance(written, str) and _FORMULA.match(written):
            style["quote_prefix"] = True  # text, also after somebody edits the cell
        if style.get("align") == "left" and style.get("border"):
            style["indent"] = 1
        look = self.style(**style)
        if (last is not None and last > first) or down:
            self.sheet.merge_range(row, first, row + down, first if last is None else last, "", look)
        if isinstance(written, int):
            self.sheet.write_number(row, first, written, look)
        else:
            self.sheet.write_string(row, first, written, look)

    def heading(self, number: int, title: str) -> None:
        """附件 N at the left, the title across the sheet."""
        self.sheet.set_row(0, 24)
        self.cell(0, 0, f"附件 {number}", last=self.columns - 1, font=_HEAD, size=16)
        self.sheet.set_row(1, 40)
        self.cell(1, 0, title, last=self.columns - 1, font=_TITLE, size=20, align="center")

    def line(self, row: int, first: int, text: str, *, last: int, align: str = "left") -> None:
        """A line outside the table."""
        self.cell(row, first, text, last=last, align=align)

    def label(self, row: int, first: int, text: str, *, last: int | None = None, down: int = 0) -> None:
        self.cell(row, first, text, last=last, down=down, font=_HEAD, border=1, align="center")

    def value(
        self, row: int, first: int, text: object, *, last: int | None = None, down: int = 0, align: str = "center"
    ) -> None:
        self.cell(row, first, text, last=last, down=down, border=1, align=align)

    def tall(self, row: int, texts: Mapping[int, object], *, least: float) -> None:
        """As tall as the longest of these texts needs (by column). Spreadsheets make no merged row fit by itself."""
        lines = max((_lines(str(text), self._widths[column]) for column, text in texts.items()), default=1)
        self.sheet.set_row(row, max(least, lines * _LINE + 6))

    def finish(self) -> bytes:
        """The workbook."""
        self.sheet.print_area(0, 0, self.sheet.dim_rowmax, self.columns - 1)
        self._book.close()
        return self._bytes.getvalue()


def _lines(text: str, width: float) -> int:
    """How many lines a text takes in a column so wide; a Chinese character is as wide as two letters, and a bit."""
    sizes = [sum(2.2 if east_asian_width(char) in "WF" else 1.1 for char in line) for line in text.split("\n")]
    return sum(max(1, ceil(size / max(width - 1.5, 1))) for size in sizes)


def day(on: date | None) -> str:
    """2026年5月1日; without a day the blank that is filled by hand."""
    return "    年    月    日" if on is None else f"{on.year}年{on.month}月{on.day}日"


def plain_in_csv(text: str) -> str:
    """A cell of a CSV file that a spreadsheet does not take for a formula. Undone by `app/imports` at the way back."""
    return f"'{text}" if re.match(r"'*[=+\-@\t\r]", text) else text
