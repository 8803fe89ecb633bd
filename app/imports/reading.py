"""One row of the list becomes a draft: what it says, and in Chinese what cannot be understood, by column.

Pure. Nothing is compared with the register here. Messages quote no names, numbers or addresses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from app.elders.identity import Identity, age_on, read_id_number
from app.elders.phones import normal_phone
from app.elders.vocabulary import CareLevel, Sex
from app.errors import InvalidInput
from app.imports.columns import Head
from app.imports.raw import Row
from app.imports.vocabulary import Column, Severity
from app.imports.words import Unknown, read_ability, read_category, read_grade, read_sex
from app.imports.workbook import column_letter

T = TypeVar("T")
_SPACES = re.compile(r"[\s\u200b-\u200f\u2060\ufeff\u00a0]+")
_PADDED = re.compile(r"(?<=[\u3400-\u9fff])[\s\u3000\u00a0]+(?=[\u3400-\u9fff])")  # 张　三, as wide as 欧阳建国
_AS_FORMULA = re.compile(r'="(.*)"')  # ="3703…", so that a spreadsheet shows every digit
_APOSTROPHES = "'’‘`´＇"
_ROUNDED = re.compile(r"[0-9](?:\.[0-9]+)?E\+?[0-9]+", re.IGNORECASE)
_MASKED_ID = re.compile(r"[0-9]{6}\*{8}[0-9]{3}[0-9X]")
_LOST = "被存成了数字,末几位已丢失:请把该列设为“文本”格式,重新填写 18 位号码"


@dataclass(frozen=True, slots=True)
class Issue:
    """Something to mend or to look at: where, and what to do, in Chinese."""

    severity: Severity
    code: str
    message: str
    column: str | None = None  # the letter
    title: str | None = None  # as the head of the column says

    def shape(self) -> dict[str, str | None]:
        return {
            "severity": self.severity.value, "code": self.code, "column": self.column, "header": self.title,
            "message": self.message,
        }  # fmt: skip


@dataclass(slots=True)
class Draft:
    """What one row says. `fields` has the names of the register; what is not in it was not said."""

    row: int
    name: str | None = None
    padded: str | None = None  # the name as it is written: 张　三
    identity: Identity | None = None
    masked: str | None = None  # 370302********1226
    sex: Sex | None = None
    age: int | None = None
    township: str = ""
    village: str = ""
    category: str = ""  # as written: equal to what the form would say, it changes nothing
    ability: str = ""
    care_level: CareLevel | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        return any(issue.severity is Severity.ERROR for issue in self.issues)


class Reader:
    """Reads the rows under one head, as of a day."""

    def __init__(self, head: Head, today: date) -> None:
        self._head = head
        self._today = today

    def draft(self, row: Row) -> Draft:
        """Never raises: what is wrong is in `issues`."""
        draft = Draft(row.number)
        self._name(row, draft)
        self._id_number(row, draft)
        self._sex_and_age(row, draft)
        for column, limit in ((Column.TOWNSHIP, 100), (Column.VILLAGE, 100)):
            setattr(draft, column.value, squeezed(self._head.cell(row, column))[:limit])
        self._address(row, draft)
        self._phone(row, draft)
        self._remarks(row, draft)
        self._category(row, draft)
        self._ability(row, draft)
        return draft

    def issue(self, severity: Severity, code: str, message: str, column: Column | None = None) -> Issue:
        """With the letter and the title of its column."""
        at = self._head.at.get(column) if column else None
        if at is None:
            return Issue(severity, code, message)
        return Issue(severity, code, message, column_letter(at), self._head.titles.get(at))

    def _wrong(self, draft: Draft, code: str, message: str, column: Column) -> None:
        draft.issues.append(self.issue(Severity.ERROR, code, message, column))

    def _name(self, row: Row, draft: Draft) -> None:
        padded = _one_line(self._head.cell(row, Column.NAME))
        name = plain_name(padded)
        if not name:
            self._wrong(draft, "name_missing", "缺少姓名", Column.NAME)
        elif len(name) > 100 or _control(name):
            self._wrong(draft, "name_unusable", "姓名过长,或含有控制字符", Column.NAME)
        else:
            draft.name, draft.padded = name, padded

    def _id_number(self, row: Row, draft: Draft) -> None:
        text = normal_id(self._head.cell(row, Column.ID_NUMBER))
        if not text:
            self._wrong(draft, "id_missing", "缺少身份证号", Column.ID_NUMBER)
        elif _MASKED_ID.fullmatch(text):
            draft.masked = text
        elif "*" in text:
            self._wrong(draft, "id_masked", "身份证号不完整(有 * 号),请填 18 位号码", Column.ID_NUMBER)
        elif _ROUNDED.fullmatch(text):
            self._wrong(draft, "id_digits_lost", f"身份证号{_LOST}", Column.ID_NUMBER)
        elif re.fullmatch(r"[0-9]{15}", text):
            self._wrong(draft, "id_of_15_digits", "这是 15 位的旧身份证号,请填 18 位号码", Column.ID_NUMBER)
        else:
            try:
                draft.identity = read_id_number(text, today=self._today)
            except InvalidInput as error:
                self._wrong(draft, *why_no_id(text, error), Column.ID_NUMBER)

    def _sex_and_age(self, row: Row, draft: Draft) -> None:
        sex = draft.sex = self._try(draft, Column.SEX, self._head.cell(row, Column.SEX), read_sex)
        text = re.sub(r"周?岁$", "", squeezed(self._head.cell(row, Column.AGE)))
        age = draft.age = int(text) if re.fullmatch(r"[0-9]{1,3}", text) else None
        if text and age is None:
            self._warn(draft, "age_unreadable", "年龄不是数字,已忽略:年龄由身份证号计算", Column.AGE)
        known = draft.identity
        if known is None:
            return
        if sex is not None and sex is not known.sex:
            self._warn(draft, "sex_differs", "性别与身份证号不符,以身份证号为准", Column.SEX)
        if age is not None and age != (real := age_on(known.birth_date, self._today)):
            self._warn(draft, "age_differs", f"年龄与身份证号不符,按身份证号为 {real} 周岁", Column.AGE)

    def _warn(self, draft: Draft, code: str, message: str, column: Column) -> None:
        draft.issues.append(self.issue(Severity.WARNING, code, message, column))

    def _address(self, row: Row, draft: Draft) -> None:
        address = _one_line(self._head.cell(row, Column.ADDRESS))
        if len(address) > 200 or _control(address):
            self._wrong(draft, "address_unusable", "住址超过 200 字,或含有控制字符", Column.ADDRESS)
        elif address:
            draft.fields["address"] = address

    def _phone(self, row: Row, draft: Draft) -> None:
        text = squeezed(self._head.cell(row, Column.PHONE)).strip(_APOSTROPHES)
        if not text or text in ("无", "/", "-", "—"):
            return
        if re.fullmatch(r"\*{3,}[0-9]{4}", text):
            draft.fields["phone"] = text
            return
        try:
            draft.fields["phone"] = normal_phone(text)
        except InvalidInput:
            hint = ";几个号码只留一个" if re.search(r"[,，、/;；]", text) else ""
            self._wrong(draft, "phone_unusable", f"电话号码不对,例如 13800000000 或 0533-5180000{hint}", Column.PHONE)

    def _remarks(self, row: Row, draft: Draft) -> None:
        remarks = self._head.cell(row, Column.REMARKS).replace("\r\n", "\n").replace("\r", "\n").strip()
        if len(remarks) > 500 or _control(remarks.replace("\n", "").replace("\t", "")):
            self._wrong(draft, "remarks_unusable", "备注超过 500 字,或含有控制字符", Column.REMARKS)
        elif remarks:
            draft.fields["remarks"] = remarks

    def _category(self, row: Row, draft: Draft) -> None:
        draft.category = self._head.cell(row, Column.CATEGORY).strip()
        read = self._try(draft, Column.CATEGORY, draft.category, read_category)
        if read is None:
            return
        draft.care_level = read.care_level
        if read.tags is not None:
            draft.fields["tags"], draft.fields["other_tags"] = read.tags, read.other_tags

    def _ability(self, row: Row, draft: Draft) -> None:
        draft.ability = self._head.cell(row, Column.ABILITY).strip()
        read = self._try(draft, Column.ABILITY, draft.ability, read_ability)
        grade = self._try(draft, Column.DISABILITY, self._head.cell(row, Column.DISABILITY), read_grade)
        said = {
            "ability_level": read and read.level,
            "observed": read and read.observed,
            "disability_grade": grade or (read and read.disability_grade),
            "dementia": read and read.dementia,
        }
        draft.fields.update({name: value for name, value in said.items() if value is not None})

    def _try(self, draft: Draft, column: Column, text: str, read: Callable[[str], T]) -> T | None:
        try:
            return read(text)
        except Unknown as error:
            self._wrong(draft, f"{column.value}_unknown", str(error), column)
            return None


def squeezed(text: str) -> str:
    """Without any spaces, full-width characters made half-width."""
    return _SPACES.sub("", unicodedata.normalize("NFKC", text))


def plain_name(name: str) -> str:
    """Without the spaces that make a short Chinese name as wide as a long one."""
    return _PADDED.sub("", name.strip())


def normal_id(text: str) -> str:
    """An ID number as it should be: no spaces, no apostrophe, no ="…", half-width, X in upper case."""
    text = squeezed(text).strip(_APOSTROPHES)
    formula = _AS_FORMULA.fullmatch(text)
    return (formula[1] if formula else text).strip(_APOSTROPHES).upper().replace("×", "X")


def _one_line(text: str) -> str:
    """Line ends inside a cell are there for its looks."""
    return re.sub(r"\s*[\r\n]+\s*", " ", text).strip()


def _control(text: str) -> bool:
    return any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)


def why_no_id(text: str, error: InvalidInput) -> tuple[str, str]:
    """Why an ID number is none, and what to mend."""
    if not re.fullmatch(r"[1-9][0-9]{16}[0-9X]", text):
        return "id_shape", f"身份证号应为 17 位数字加 1 位数字或 X,这里是 {len(text)} 位"
    if text.endswith("000"):
        return "id_digits_lost", f"身份证号末三位是 000,很可能{_LOST}"
    if "last character" in error.detail:
        return "id_checksum", "身份证号校验位不对,有一位填错了,请对照证件"
    return "id_birth_date", "身份证号中的出生日期不存在,或在今天之后"
