"""附件3: everybody enrolled in one township or village (policy row 51), as a workbook and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from app.reports.forms.look import Sheet, day, plain_in_csv

TITLE = "特殊困难老年人探访关爱服务汇总表"
COLUMNS = ("序号", "姓名", "性别", "年龄", "身份证号", "家庭住址", "类别", "身体能力", "备注")
_LEFT = {5, 8}


@dataclass(frozen=True, slots=True, repr=False)  # people
class Line:
    """One elder. Masked or not is decided before."""

    name: str
    sex: str
    age: int
    id_number: str
    address: str
    category: str
    ability: str
    remark: str

    def cells(self, number: int) -> tuple[object, ...]:
        return (
            number, self.name, self.sex, self.age, self.id_number, self.address, self.category, self.ability, self.remark,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    place: str
    on: date
    lines: Sequence[Line]


def draw(summary: Summary) -> bytes:
    """The form as a workbook."""
    sheet = Sheet("汇总表", widths=[6, 11, 6, 6, 22, 34, 24, 22, 20], landscape=True)
    sheet.heading(3, TITLE)
    sheet.line(2, 0, f"镇（办）：{summary.place}", last=4)
    sheet.line(2, 5, day(summary.on), last=8, align="right")
    for column, title in enumerate(COLUMNS):
        sheet.label(3, column, title)
    for row, line in enumerate(summary.lines, start=4):
        cells = line.cells(row - 3)
        for column, text in enumerate(cells):
            sheet.value(row, column, text, align="left" if column in _LEFT else "center")
        sheet.tall(row, dict(enumerate(cells)), least=24)
    end = 4 + len(summary.lines)
    sheet.line(end, 0, "填表人：", last=4)
    sheet.line(end, 5, "分管领导：", last=8)
    sheet.sheet.set_row(2, 24)
    sheet.sheet.set_row(3, 30)
    sheet.sheet.set_row(end, 30)
    sheet.sheet.repeat_rows(3)
    sheet.sheet.freeze_panes(4, 0)
    return sheet.finish()


def draw_csv(summary: Summary) -> bytes:
    """The same as CSV in UTF-8 with the mark by which Excel and WPS know it. ID numbers carry an apostrophe: without it
    a spreadsheet makes numbers of them and loses the last digits."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for number, line in enumerate(summary.lines, start=1):
        cells = [plain_in_csv(str(cell)) for cell in line.cells(number)]
        cells[4] = f"'{line.id_number}"
        writer.writerow(cells)
    return b"\xef\xbb\xbf" + text.getvalue().encode()
