"""附件2: the visits of one elder in one month (policy row 50)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from app.elders.form_words import SERVICE, TICK
from app.elders.vocabulary import Service
from app.reports.forms.look import Sheet

TITLE = "特殊困难老年人探访关爱服务记录表"
_ROWS = 12  # a form with fewer visits has empty rows, for the pen


@dataclass(frozen=True, slots=True)
class Line:
    """One visit or attempt."""

    on: date
    services: Collection[Service]
    signed: str
    remark: str


@dataclass(frozen=True, slots=True)
class Month:
    """What the form says of one elder's month."""

    township: str
    village: str
    name: str
    first_day: date
    lines: Sequence[Line]


def draw(month: Month) -> bytes:
    """The form as a workbook."""
    services = list(SERVICE.items())
    sheet = Sheet("记录表", widths=[13, *[9.5] * len(services), 16, 22], landscape=True)
    last = sheet.columns - 1
    sheet.heading(2, TITLE)
    place = f"{month.township or '_____镇（街道）'}  {month.village or '_____村（社区）'}"
    sheet.line(2, 0, place, last=7)
    sheet.line(2, 8, f"{month.first_day.year}年{month.first_day.month}月", last=last, align="right")
    sheet.line(3, 0, f"老年人姓名：{month.name}", last=last)
    for column, title in enumerate(("日期", *(word for _, word in services), "服务人员签字", "备注")):
        sheet.label(4, column, title)
    lines = [*month.lines, *[None] * (_ROWS - len(month.lines))]
    for row, line in enumerate(lines, start=5):
        ticks = [TICK if line and service in line.services else "" for service, _ in services]
        cells = [f"{line.on.month}月{line.on.day}日" if line else "", *ticks, line.signed if line else ""]
        for column, text in enumerate(cells):
            sheet.value(row, column, text)
        sheet.value(row, last, line.remark if line else "", align="left")
        sheet.tall(row, {last - 1: line.signed, last: line.remark} if line else {}, least=28)
    for row in (2, 3):
        sheet.sheet.set_row(row, 24)
    sheet.sheet.set_row(4, 34)
    sheet.sheet.repeat_rows(4)
    return sheet.finish()
