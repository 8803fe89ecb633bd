"""附件1: the survey form of one elder (policy row 49)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from app.elders.form_words import SERVICE, TICK
from app.elders.vocabulary import Service
from app.reports.forms.look import Sheet, day

TITLE = "特殊困难老年人探访关爱服务摸底表"
_ROW = 40
# As they stand on the form, top to bottom: left column, middle column.
_PAIRS = (
    (Service.HEALTH_MANAGEMENT, Service.EMOTIONAL_SUPPORT),
    (Service.HOME_SAFETY, Service.SANITATION),
    (Service.DAILY_LIVING, Service.EMERGENCY_AID),
    (Service.REHABILITATION, Service.RECREATION),
)


@dataclass(frozen=True, slots=True, repr=False)  # people
class Relative:
    name: str
    relation: str
    phone: str


@dataclass(frozen=True, slots=True, repr=False)  # people
class Survey:
    """What the form says of one elder. Masked or not is decided before."""

    surveyed_on: date | None
    name: str
    sex: str
    age: int
    id_number: str
    category: str
    ability: str
    address: str
    family: Sequence[Relative]
    services: Sequence[Service]
    notes: Mapping[Service, str]


def draw(survey: Survey) -> bytes:
    """The form as a workbook."""
    sheet = Sheet("摸底表", widths=[13, 17, 13, 17, 13, 17])
    sheet.heading(1, TITLE)
    sheet.line(2, 0, day(survey.surveyed_on), last=5, align="right")
    for column, (label, value) in enumerate((("姓名", survey.name), ("性别", survey.sex), ("年龄", survey.age))):
        sheet.label(3, column * 2, label)
        sheet.value(3, column * 2 + 1, value)
    sheet.label(4, 0, "身份证号码")
    sheet.value(4, 1, survey.id_number, last=5)
    sheet.label(5, 0, "类别")
    sheet.value(5, 1, survey.category, last=2)
    sheet.label(5, 3, "身体能力")
    sheet.value(5, 4, survey.ability, last=5)
    sheet.label(6, 0, "家庭住址")
    sheet.value(6, 1, survey.address, last=5, align="left")
    sheet.sheet.set_row(2, 24)
    for row, text in ((3, survey.name), (4, ""), (6, survey.address[: len(survey.address) // 4])):
        sheet.tall(row, {1: text}, least=_ROW)
    sheet.tall(5, {1: survey.category[::2], 4: survey.ability[::2]}, least=_ROW)  # each over two columns
    _services(sheet, _family(sheet, 7, survey.family), survey)
    return sheet.finish()


def _family(sheet: Sheet, row: int, family: Sequence[Relative]) -> int:
    sheet.label(row, 0, "家  庭  成  员", last=5)
    sheet.sheet.set_row(row, _ROW)
    for number, one in enumerate(family or [Relative("", "", "")], start=1):
        for column, (label, value) in enumerate((("姓名", one.name), ("关系", one.relation), ("联系方式", one.phone))):
            sheet.label(row + number, column * 2, label)
            sheet.value(row + number, column * 2 + 1, value)
        sheet.tall(row + number, {1: one.name, 3: one.relation, 5: one.phone}, least=_ROW)
    return row + 1 + max(len(family), 1)


def _services(sheet: Sheet, row: int, survey: Survey) -> None:
    sheet.label(row, 0, "探 访 关 爱 服 务 内 容", last=5)
    sheet.sheet.set_row(row, _ROW)
    for number, pair in enumerate(_PAIRS, start=1):
        for column, service in enumerate(pair):
            sheet.label(row + number, column * 2, SERVICE[service])
            sheet.value(row + number, column * 2 + 1, _wanted(survey, service))
        texts = {column * 2 + 1: _wanted(survey, service) for column, service in enumerate(pair)}
        other = _wanted(survey, Service.OTHER)
        sheet.tall(row + number, {**texts, 5: other[: len(other) // len(_PAIRS) + 1]}, least=_ROW)
    sheet.label(row + 1, 4, SERVICE[Service.OTHER], down=len(_PAIRS) - 1)
    sheet.value(row + 1, 5, _wanted(survey, Service.OTHER), down=len(_PAIRS) - 1)


def _wanted(survey: Survey, service: Service) -> str:
    """What is wanted in words; a tick when it is wanted and nothing was said of it."""
    return survey.notes.get(service) or (TICK if service in survey.services else "")
