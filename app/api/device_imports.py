"""Lists of devices: looked at (the dry run), and written when nothing in them is wrong."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, within
from app.access.wall import beyond
from app.api.bodies import DeviceIdText
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.devices import bind_within
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.devices import wearing
from app.devices.choosing import choose_profile
from app.devices.tables import Device
from app.devices.vocabulary import DeviceKind
from app.elders import register
from app.elders.identity import read_id_number
from app.elders.tables import Elder
from app.errors import InvalidInput, NotFound

router = APIRouter(route_class=Transactional, tags=["devices"], dependencies=[Depends(idempotent)])
MOST_ROWS = 2000  # as a body of 1 MiB has

# What the head of a column may say, in lower case → the field.
_HEADS = {
    "device_id": "device_id", "设备编号": "device_id", "设备号": "device_id", "设备id": "device_id", "编号": "device_id",
    "kind": "kind", "类型": "kind", "设备类型": "kind", "角色": "kind",
    "profile": "profile", "配置": "profile", "协议": "profile", "设备系列": "profile",
    "place": "place", "位置": "place", "安装位置": "place",
    "region_code": "region_code", "区划代码": "region_code", "行政区划代码": "region_code",
    "elder_id": "elder_id", "老人id": "elder_id",
    "id_number": "id_number", "身份证号": "id_number", "身份证号码": "id_number", "老人身份证号": "id_number",
}  # fmt: skip
_KINDS = {
    "求救按钮": DeviceKind.SOS_BUTTON, "紧急按钮": DeviceKind.SOS_BUTTON, "跌倒探测器": DeviceKind.FALL_DETECTOR,
    "门磁": DeviceKind.DOOR_SENSOR, "人体传感器": DeviceKind.MOTION_SENSOR, "床垫": DeviceKind.BED_SENSOR,
    "烟感": DeviceKind.SMOKE_DETECTOR, "烟雾报警器": DeviceKind.SMOKE_DETECTOR, "燃气报警器": DeviceKind.GAS_DETECTOR,
    "水浸": DeviceKind.WATER_SENSOR, "网关": DeviceKind.GATEWAY, "其他": DeviceKind.OTHER,
}  # fmt: skip
_DEVICE_ID: TypeAdapter[str] = TypeAdapter(DeviceIdText)


class RowIssueOut(BaseModel):
    row: int = Field(description="As a spreadsheet numbers it: the head is row 1.")
    column: str | None = Field(description="The head of the column.", examples=["身份证号"])
    message: str = Field(description="What to mend, in Chinese.")


class DeviceImportOut(BaseModel):
    dry_run: bool
    written: bool = Field(description="False for a dry run, and when a row has an error: then nothing was written.")
    rows: int
    new: int = Field(description="Devices that are not registered yet.")
    changed: int = Field(description="Registered ones whose place, role, profile or wearer changes.")
    unchanged: int
    errors: list[RowIssueOut] = Field(description="At most 200.")


class Deed(StrEnum):
    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(slots=True)
class Line:
    """One row that could be read."""

    number: int
    device_id: str
    kind: DeviceKind
    given: dict[str, str]
    titles: dict[str, str]
    elder_id: UUID | None = None

    def say(self, issues: list[RowIssueOut], column: str, message: str) -> None:
        issues.append(RowIssueOut(row=self.number, column=self.titles.get(column, column), message=message))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a row does."""

    deed: Deed
    line: Line
    there: Device | None
    fields: dict[str, Any]
    region_code: str


@router.post(
    "/devices/imports",
    responses=responses(413),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Register many devices from a list (CSV or XLSX)",
)
async def import_devices(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    content: Annotated[
        bytes, Body(media_type="text/csv", examples=["设备编号,类型,位置,身份证号\nsos-0001,求救按钮,卧室床头,"])
    ],
    dry_run: Annotated[bool, Query(description="Only look: what would be written, and what is wrong.")] = False,
) -> DeviceImportOut:
    """Columns by their heads, in any order: `device_id` 设备编号 and `kind` 类型 are needed; `profile` 协议, `place` 位置,
    `region_code` 区划代码, and whose it is by `elder_id` or `id_number` 身份证号. All or nothing: with one error nothing is
    written. The same list again changes nothing."""
    issues: list[RowIssueOut] = []
    lines = _read(content, issues)
    await _find_elders(session, who, parts, lines, issues, now.astimezone(parts.tz).date())
    async with beyond(session, "an id is registered once, wherever it is"):
        found = select(Device).where(col(Device.device_id).in_([line.device_id for line in lines]))
        there = {device.device_id: device for device in (await session.execute(found)).scalars()}
    plans = [await _plan(session, who, parts, line, there.get(line.device_id), issues) for line in lines]
    counts = Counter(plan.deed for plan in plans if plan is not None)
    written = not dry_run and not issues
    if written:
        for plan in plans:
            if plan is not None:
                await _write(session, who, plan, now)
        audit.note(
            session, who, action="devices.imported", subject_type="device", subject_id="", now=now,
            region_code=who.region_code or None, rows=len(lines), **{deed.value: counts[deed] for deed in Deed},
        )  # fmt: skip
    issues.sort(key=lambda issue: issue.row)
    return DeviceImportOut(
        dry_run=dry_run, written=written, rows=len(lines), new=counts[Deed.NEW], changed=counts[Deed.CHANGED],
        unchanged=counts[Deed.UNCHANGED], errors=issues[:200],
    )  # fmt: skip


# --- reading ---------------------------------------------------------------------------------------------------------------


def _read(content: bytes, issues: list[RowIssueOut]) -> list[Line]:
    """The lines that can be read; what is wrong with the others goes to `issues`. Raises `InvalidInput` for no list at all."""
    rows = list(_rows(content))
    if not rows:
        raise InvalidInput(
            "the list is empty; its first row names the columns, device_id 设备编号 and kind 类型 at least"
        )
    heads = [_HEADS.get(cell.strip().lower()) for cell in rows[0]]
    missing = [name for name in ("device_id", "kind") if name not in heads]
    if missing:
        raise InvalidInput(f"the first row names no column {' and no '.join(missing)}; known are {', '.join(_HEADS)}")
    if len(rows) > MOST_ROWS + 1:
        raise InvalidInput(f"more than {MOST_ROWS} rows; send them in parts")
    titles = {name: title.strip() for name, title in zip(heads, rows[0], strict=True) if name}
    lines: dict[str, Line] = {}
    for number, cells in enumerate(rows[1:], start=2):
        given = {name: cell.strip() for name, cell in zip(heads, cells, strict=False) if name and cell.strip()}
        line = _line(number, given, titles, issues) if given else None
        if line is not None and line.device_id in lines:
            issues.append(
                RowIssueOut(
                    row=number, column=titles["device_id"], message=f"与第 {lines[line.device_id].number} 行重复"
                )
            )
        elif line is not None:
            lines[line.device_id] = line
    return list(lines.values())


def _rows(content: bytes) -> Iterator[list[str]]:
    if content.startswith(b"PK"):
        raise InvalidInput("this is a workbook; save it as CSV and send that (UTF-8 or GB 18030)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("gb18030")  # what Excel and WPS write in China
        except UnicodeDecodeError:
            raise InvalidInput("neither UTF-8 nor GB 18030; save the list as CSV in one of them") from None
    if "\x00" in text:
        raise InvalidInput("the list holds a zero byte; save it as CSV")
    first = text.split("\n", 1)[0]
    yield from csv.reader(io.StringIO(text), delimiter="\t" if first.count("\t") > first.count(",") else ",")


def _line(number: int, given: dict[str, str], titles: dict[str, str], issues: list[RowIssueOut]) -> Line | None:
    wrong: dict[str, str] = {}
    try:
        device_id = _DEVICE_ID.validate_python(given.get("device_id", ""))
    except ValidationError:
        wrong["device_id"] = "缺少设备编号,或编号中有 / + # 等不能用的字符(1 至 128 个字符)"
    kind = _KINDS.get(given.get("kind", "")) or _kind(given.get("kind", ""))
    if kind is None:
        wrong["kind"] = f"类型不认识,可用:{'、'.join(_KINDS)},或 {', '.join(DeviceKind)}"
    if len(given.get("place", "")) > 100 or not given.get("place", "").isprintable():
        wrong["place"] = "位置超过 100 字,或含有控制字符"
    if "elder_id" in given and not _is_uuid(given["elder_id"]):
        wrong["elder_id"] = "不是老人的 ID"
    issues += [RowIssueOut(row=number, column=titles.get(name, name), message=text) for name, text in wrong.items()]
    if wrong or kind is None:
        return None
    return Line(number, device_id, kind, given, titles, UUID(given["elder_id"]) if "elder_id" in given else None)


def _kind(text: str) -> DeviceKind | None:
    return DeviceKind(text) if text in set(DeviceKind) else None


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


# --- comparing with the register -------------------------------------------------------------------------------------------


async def _find_elders(
    session: Any, who: Any, parts: Any, lines: Sequence[Line], issues: list[RowIssueOut], today: date
) -> None:
    """Whose devices they are. People outside the account's region are not there."""
    by_hash: dict[bytes, list[Line]] = {}
    for line in lines:
        number = line.given.get("id_number")
        if number is not None and line.elder_id is None:
            try:
                known = read_id_number(number.upper(), today=today).number
            except InvalidInput:
                line.say(issues, "id_number", "身份证号不对,请对照证件")
                continue
            for index in parts.sealer.indexes(known):
                by_hash.setdefault(index, []).append(line)
    query = select(col(Elder.id), col(Elder.id_number_index)).where(within(who, col(Elder.region_code)))
    named = {line.elder_id for line in lines if line.elder_id is not None}
    there = set((await session.execute(query.where(col(Elder.id).in_(named)))).scalars()) if named else set()
    if by_hash:
        for elder_id, index in await session.execute(query.where(col(Elder.id_number_index).in_(list(by_hash)))):
            for line in by_hash[index]:
                line.elder_id = elder_id
                there.add(elder_id)
    for line in lines:
        by = "elder_id" if "elder_id" in line.given else "id_number"
        if by in line.given and line.elder_id not in there and not any(i.row == line.number for i in issues):
            line.say(issues, by, "没有登记过这位老人,或不在您的辖区")


async def _plan(
    session: Any, who: Any, parts: Any, line: Line, there: Device | None, issues: list[RowIssueOut]
) -> Plan | None:
    if there is not None and not who.sees(there.region_code):
        line.say(issues, "device_id", "这个编号已被登记")
        return None
    fields: dict[str, Any] = {"kind": line.kind} | ({"place": line.given["place"]} if "place" in line.given else {})
    try:
        if there is None or "profile" in line.given:
            fields["profile"] = await choose_profile(session, parts.codecs, line.device_id, line.given.get("profile"))
    except InvalidInput as error:
        line.say(issues, "profile", f"协议不对:{error.detail}")
        return None
    region = line.given.get("region_code")
    try:
        if region is not None:
            await register.must_be_region(session, who, region)
    except (InvalidInput, NotFound):
        line.say(issues, "region_code", "没有这个区划,或不在您的辖区(12 位代码)")
        return None
    if there is None:
        return Plan(Deed.NEW, line, None, fields, region or who.region_code)
    wears = await wearing.wearer(session, line.device_id) if line.elder_id is not None else None
    changes = {name: value for name, value in fields.items() if getattr(there, name) != value}
    same = not changes and line.elder_id in (None, wears)
    return Plan(Deed.UNCHANGED if same else Deed.CHANGED, line, there, changes, there.region_code)


async def _write(session: Any, who: Any, plan: Plan, now: datetime) -> None:
    device = plan.there
    if plan.deed is Deed.UNCHANGED:
        return
    if device is None:
        device = await wearing.register(
            session, device_id=plan.line.device_id, kind=plan.fields["kind"], profile=plan.fields["profile"],
            place=plan.fields.get("place"), region_code=plan.region_code, now=now,
        )  # fmt: skip
    elif plan.fields:
        await wearing.change(session, device, plan.fields, now=now)
    audit.note(
        session, who, action="device.registered" if plan.deed is Deed.NEW else "device.changed", subject_type="device",
        subject_id=device.device_id, now=now, region_code=device.region_code, kind=device.kind.value,
        profile=device.profile,
    )  # fmt: skip
    if plan.line.elder_id is not None:
        await bind_within(session, who, device, plan.line.elder_id, now)
