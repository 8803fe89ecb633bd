"""Where the table begins and what its columns hold: found by the words of its head, among titles, merged cells and notes.

Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.imports.files import Row, Unreadable
from app.imports.vocabulary import Column

_OWN = frozenset({Column.NUMBER, Column.NAME, Column.ID_NUMBER})
_LOOK_IN = 40  # rows: nobody has a longer title
_WORDS: Mapping[Column, Sequence[str]] = {
    Column.NUMBER: ("序号", "编号", "序", "no"),
    Column.NAME: ("姓名", "老年人姓名", "老人姓名", "名字", "探访对象", "探访对象姓名", "对象姓名"),
    Column.SEX: ("性别",),
    Column.AGE: ("年龄", "周岁", "实际年龄"),
    Column.ID_NUMBER: (
        "身份证号", "身份证号码", "身份证", "公民身份号码", "公民身份证号码", "居民身份证号", "居民身份证号码",
        "证件号码", "证件号", "身份号码",
    ),
    Column.ADDRESS: ("家庭住址", "家庭地址", "住址", "地址", "详细地址", "详细住址", "居住地址", "现住址", "居住地"),
    Column.CATEGORY: ("类别", "人员类别", "老人类别", "老年人类别", "对象类别", "困难类别", "类型", "人员类型"),
    Column.ABILITY: (
        "身体能力", "能力", "能力等级", "能力评估", "评估等级", "自理能力", "身体状况", "生活自理能力", "失能等级", "失能情况",
    ),
    Column.DISABILITY: ("残疾等级", "残疾级别", "残疾情况", "残疾", "残疾类别及等级"),
    Column.REMARKS: ("备注", "说明", "备注说明"),
    Column.PHONE: ("联系电话", "电话", "手机", "手机号", "手机号码", "电话号码", "联系方式", "本人电话", "老人电话"),
    Column.TOWNSHIP: ("镇办", "镇", "镇街", "街道", "镇街道", "乡镇", "乡镇街道", "所属镇办", "所属镇街", "所在镇办", "镇街办"),
    Column.VILLAGE: (
        "村居", "村", "社区", "村社区", "村庄", "村名", "所属村居", "所在村居", "村委会", "行政村", "村居社区", "村居名称",
        "所属村社区", "区划代码", "村代码", "行政区划代码", "村居代码",
    ),
}  # fmt: skip
_MEANING = {word: column for column, words in _WORDS.items() for word in words}
_NOTES = re.compile(
    r"填表人|填报人|制表人|经办人|分管领导|负责人|审核人|审核|填报单位|填表单位|盖章|公章|制表日期|填表日期|备注[:：]|注[:：]|"
    r"说明[:：]|填表说明|合计|共计|总计|小计|以上共|以下空白"
)
_DIGITS = re.compile(r"[0-9０-９]{4}|[*＊]{4}")  # no word of a signature
_DATE = re.compile(r"[0-9]{0,4}年[0-9]{0,2}月[0-9]{0,2}日")
_PLACE = re.compile(r"(?:镇|镇街道|镇办|镇街|街道|乡镇)(?:[:：])(.+)")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of the table."""

    row: int  # its last row's number
    at: Mapping[Column, int]  # which column stands where
    titles: Mapping[int, str]  # as they are written, by column index
    unknown: Sequence[str]  # titles that mean nothing here
    place: str | None  # 镇（办）：… above it

    def cell(self, row: Row, column: Column) -> str:
        """What the row says there; where the cell is merged with those above, what they say, but nobody shares a name."""
        at = self.at.get(column)
        if at is None:
            return ""
        own = row.cells[at] if at < len(row.cells) else ""
        return own if own.strip() or column in _OWN else row.under.get(at, "")


def normal_title(text: str) -> str:
    """身 份 证 号（18位）* → 身份证号."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\s|[*:：、/·.\-_]", "", text).lower()
    bare = re.sub(r"\([^)]*\)", "", text)
    return bare or text.strip("()")


def meaning(text: str) -> Column | None:
    """What a title means; of `镇（办）` also the words in brackets count."""
    if not text or len(text) > 40:
        return None
    squeezed = re.sub(r"[\s()（）*:：、/]", "", unicodedata.normalize("NFKC", text)).lower()
    return _MEANING.get(squeezed) or _MEANING.get(normal_title(text))


def has_head(rows: Sequence[Row]) -> bool:
    """Whether the list is on this sheet."""
    try:
        find_head(rows)
    except Unreadable:
        return False
    return True


def find_head(rows: Sequence[Row]) -> Head:
    """The head, from the first rows. Raises `Unreadable` when there is none with name and ID number."""
    best: dict[Column, int] = {}
    for index, row in enumerate(rows[:_LOOK_IN]):
        at = _meanings(row)
        best = max(best, at, key=len)
        if Column.NAME in at and Column.ID_NUMBER in at:
            titles = {i: cell.strip() for i, cell in enumerate(row.cells) if cell.strip()}
            last = row
            below = rows[index + 1] if index + 1 < len(rows) else None
            if below is not None and below.number == row.number + 1 and _is_second_line(below, at):
                at, last = {**_meanings(below), **at}, below
                for column, where in _meanings(below).items():
                    if where not in {at[c] for c in at if c is not column}:
                        at[column] = where
                titles |= {i: cell.strip() for i, cell in enumerate(below.cells) if cell.strip()}
            taken = set(at.values())
            unknown = [title for i, title in sorted(titles.items()) if i not in taken and meaning(title) is None]
            return Head(last.number, at, titles, unknown, _place(rows[:index]))
    missing = [word for column, word in ((Column.NAME, "姓名"), (Column.ID_NUMBER, "身份证号")) if column not in best]
    raise Unreadable(
        f"没有找到表头:前 {_LOOK_IN} 行里没有一行同时有“姓名”和“身份证号”(缺 {'、'.join(missing) or '其一'})"
    )


def _meanings(row: Row) -> dict[Column, int]:
    found: dict[Column, int] = {}
    for index, cell in enumerate(row.cells):
        column = meaning(cell)
        if column is not None:
            found.setdefault(column, index)
    return found


def _is_second_line(row: Row, at: Mapping[Column, int]) -> bool:
    """A head of two lines: the one below has titles, and nothing under name and ID number (they are merged downward)."""
    cells = {i: cell for i, cell in enumerate(row.cells) if cell.strip()}
    return bool(_meanings(row)) and at[Column.NAME] not in cells and at[Column.ID_NUMBER] not in cells


def _place(rows: Sequence[Row]) -> str | None:
    for row in rows:
        for cell in row.cells:
            squeezed = re.sub(r"[\s()（）_]", "", cell)
            found = _PLACE.search(squeezed)
            if found:
                return found[1].strip("_") or None
    return None


def people(rows: Iterator[Row], head: Head) -> Iterator[Row]:
    """The rows below the head that are meant to be people: no notes, sums, signatures, repeated heads, empty lines."""
    for row in rows:
        if row.number > head.row and not _says_nothing(row, head):
            yield row


def _says_nothing(row: Row, head: Head) -> bool:
    number_at = head.at.get(Column.NUMBER)
    told = [cell.strip() for at, cell in enumerate(row.cells) if cell.strip() and at != number_at]
    if not told:  # a number waiting for a name, or a note in the first column
        return True
    number = head.cell(row, Column.ID_NUMBER).strip()
    at = _meanings(row)
    if at.get(Column.NAME) == head.at[Column.NAME] and at.get(Column.ID_NUMBER) == head.at[Column.ID_NUMBER]:
        return True
    if _DIGITS.search(number) or _is_somebody(row, head):
        return False
    every = [cell.strip() for cell in row.cells if cell.strip()]
    if any(_NOTES.search(re.sub(r"\s", "", cell)) for cell in every):
        return True
    if number:
        return False
    return len(every) == 1 and (len(every[0]) > 12 or _DATE.search(re.sub(r"\s", "", every[0])) is not None)


def _is_somebody(row: Row, head: Head) -> bool:
    """Without a number, but with a name and a sex or an age: somebody whose number was forgotten, whatever the remarks say."""
    age = unicodedata.normalize("NFKC", head.cell(row, Column.AGE))
    told = head.cell(row, Column.SEX).strip() in ("男", "女") or re.fullmatch(r"\s*[0-9]{1,3}\s*周?岁?\s*", age)
    return bool(head.cell(row, Column.NAME).strip() and told)
