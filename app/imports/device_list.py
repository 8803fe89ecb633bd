"""A list of devices, as a spreadsheet holds it: rows of a file to lines that can be compared with the register. Pure.

What is wrong with a row is said in Chinese, by row and column; one bad row hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final
from uuid import UUID

from app.devices.vocabulary import DeviceKind
from app.elders.identity import read_id_number
from app.errors import InvalidInput
from app.imports.files import Row, Unreadable, rows_of
from app.imports.reading import normal_id, squeezed, why_no_id

MOST_ROWS: Final = 2000
_MOST_UNPACKED = 32 * 1024 * 1024  # it is read while others wait
_LOOK_IN = 20  # rows: a title and a note may stand above the head
_MOST_TEXT = 100

# What the head of a column may say, without spaces and in lower case → the field.
HEADS: Final[Mapping[str, str]] = {
    "device_id": "device_id", "设备编号": "device_id", "设备号": "device_id", "设备id": "device_id", "编号": "device_id",
    "kind": "kind", "类型": "kind", "设备类型": "kind", "角色": "kind",
    "profile": "profile", "配置": "profile", "协议": "profile", "设备系列": "profile",
    "model": "model", "型号": "model", "设备型号": "model",
    "place": "place", "位置": "place", "安装位置": "place",
    "region_code": "region_code", "区划代码": "region_code", "行政区划代码": "region_code",
    "elder_id": "elder_id", "老人id": "elder_id",
    "id_number": "id_number", "身份证号": "id_number", "身份证号码": "id_number", "老人身份证号": "id_number",
}  # fmt: skip
KINDS: Final[Mapping[str, DeviceKind]] = {
    "求救按钮": DeviceKind.SOS_BUTTON, "紧急按钮": DeviceKind.SOS_BUTTON, "紧急呼叫按钮": DeviceKind.SOS_BUTTON,
    "呼叫按钮": DeviceKind.SOS_BUTTON, "一键呼叫器": DeviceKind.SOS_BUTTON, "跌倒探测器": DeviceKind.FALL_DETECTOR,
    "门磁": DeviceKind.DOOR_SENSOR, "人体传感器": DeviceKind.MOTION_SENSOR, "床垫": DeviceKind.BED_SENSOR,
    "烟感": DeviceKind.SMOKE_DETECTOR, "烟雾报警器": DeviceKind.SMOKE_DETECTOR, "燃气报警器": DeviceKind.GAS_DETECTOR,
    "水浸": DeviceKind.WATER_SENSOR, "网关": DeviceKind.GATEWAY, "其他": DeviceKind.OTHER,
} | {kind.value: kind for kind in DeviceKind}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issue:
    """What is wrong with a row, as a clerk reads it. `row`: as the spreadsheet numbers it; `column`: the head as written."""

    row: int
    column: str | None
    message: str


@dataclass(slots=True)
class Line:
    """One row that could be read."""

    number: int
    device_id: str
    kind: DeviceKind
    given: Mapping[str, str]
    titles: Mapping[str, str]
    elder_id: UUID | None = None
    id_number: str | None = field(default=None, repr=False)

    def issue(self, name: str, message: str) -> Issue:
        return Issue(self.number, self.titles.get(name, name), message)


def read_list(content: bytes, *, today: date, is_id: Callable[[str], bool]) -> tuple[list[Line], list[Issue]]:
    """The lines that can be read, and what is wrong with the others. `is_id`: whether a device can be called so. Raises
    `Unreadable` for what is no list of devices."""
    rows = iter(rows_of(content, most_unpacked=_MOST_UNPACKED))
    titles, at = _head(rows)
    lines: dict[str, Line] = {}
    issues: list[Issue] = []
    for count, row in enumerate(rows):
        if count >= MOST_ROWS:
            raise Unreadable(f"超过 {MOST_ROWS} 行设备,请分成几个文件")
        given = {name: row.cells[i].strip() for name, i in at.items() if i < len(row.cells) and row.cells[i].strip()}
        if not given:
            continue
        read = _line(row.number, given, titles, today, is_id)
        if not isinstance(read, Line):
            issues += read
        elif read.device_id in lines:
            issues.append(read.issue("device_id", f"与第 {lines[read.device_id].number} 行重复"))
        else:
            lines[read.device_id] = read
    return list(lines.values()), issues


def _head(rows: Iterator[Row]) -> tuple[dict[str, str], dict[str, int]]:
    """The titles as they are written, and where each field stands: the first row that names a device and its kind."""
    closest: set[str] = set()
    for _, row in zip(range(_LOOK_IN), rows, strict=False):
        at: dict[str, int] = {}
        for index, cell in enumerate(row.cells):
            if (name := HEADS.get(squeezed(cell).lower())) is not None:
                at.setdefault(name, index)
        if {"device_id", "kind"} <= set(at):
            return {name: row.cells[index].strip() for name, index in at.items()}, at
        closest = max(closest, set(at), key=len)
    missing = "、".join(
        title for name, title in (("device_id", "“设备编号”"), ("kind", "“类型”")) if name not in closest
    )
    raise Unreadable(f"表头缺少{missing}列;认得的列名:{'、'.join(HEADS)}")


def _line(
    number: int, given: Mapping[str, str], titles: Mapping[str, str], today: date, is_id: Callable[[str], bool]
) -> Line | Sequence[Issue]:
    wrong: dict[str, str] = {}
    device_id, kind = given.get("device_id", ""), KINDS.get(given.get("kind", "").lower())
    if not is_id(device_id):
        wrong["device_id"] = "缺少设备编号,或编号中有 / + # 等不能用的字符(1 至 128 个字符)"
    if kind is None:
        wrong["kind"] = f"类型不认识,可用:{'、'.join(KINDS)}"
    for name, what in (("place", "位置"), ("model", "型号")):
        text = given.get(name, "")
        if len(text) > _MOST_TEXT or not text.isprintable():
            wrong[name] = f"{what}超过 {_MOST_TEXT} 字,或含有换行等控制字符"
    elder_id, id_number = None, None
    if "elder_id" in given and (elder_id := _uuid(given["elder_id"])) is None:
        wrong["elder_id"] = "不是老人的 ID"
    if "id_number" in given:
        text = normal_id(given["id_number"])
        try:
            id_number = read_id_number(text, today=today).number
        except InvalidInput as error:
            wrong["id_number"] = why_no_id(text, error)[1]
    if wrong or kind is None:
        return [Issue(number, titles.get(name, name), message) for name, message in wrong.items()]
    return Line(number, device_id, kind, given, titles, elder_id, id_number)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
