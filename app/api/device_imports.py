"""Lists of devices: looked at (the dry run), and written when nothing in them is wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, within
from app.access.wall import beyond
from app.api.bodies import DeviceIdText
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.devices import bind_within
from app.api.problems import responses
from app.api.transactional import idempotent
from app.api.uploads import UploadDep, Uploading
from app.devices import wearing
from app.devices.choosing import choose_profile
from app.devices.tables import Device
from app.elders import register
from app.elders.tables import Elder
from app.errors import InvalidInput, NotFound
from app.imports.device_list import Issue, Line, read_list
from app.imports.files import Unreadable

router = APIRouter(route_class=Uploading, tags=["devices"], dependencies=[Depends(idempotent)])
_DEVICE_ID: TypeAdapter[str] = TypeAdapter(DeviceIdText)
_SHEET = {"schema": {"type": "string", "format": "binary"}}
_LIST = {
    "schema": {"type": "string", "format": "binary"},
    "examples": {"list": {"value": "设备编号,类型,位置,身份证号\nsos-0001,求救按钮,卧室床头,"}},
}
_FORM = {
    "schema": {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
}


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
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"text/csv": _LIST, "application/octet-stream": _SHEET, "multipart/form-data": _FORM},
        }
    },
)
async def import_devices(
    upload: UploadDep,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    dry_run: Annotated[bool, Query(description="Only look: what would be written, and what is wrong.")] = False,
) -> DeviceImportOut:
    """XLSX, or CSV (UTF-8, GBK, UTF-16; commas, tabs, semicolons), as the body itself or as the field `file` of a form; at
    most 1 MiB and 2,000 rows. Columns by their heads, in any order and below any title: `device_id` 设备编号 and `kind` 类型
    are needed; `profile` 协议, `model` 型号, `place` 位置, `region_code` 区划代码, and whose it is by `elder_id` or
    `id_number` 身份证号. All or nothing: with one error nothing is written. The same list again changes nothing."""
    try:
        lines, issues = await asyncio.to_thread(
            read_list, upload.content, today=now.astimezone(parts.tz).date(), is_id=_is_device_id
        )
    except Unreadable as error:
        raise InvalidInput(str(error), field="file") from None
    await _find_elders(session, who, parts, lines, issues)
    async with beyond(session, "an id is registered once, wherever it is"):
        found = select(Device).where(col(Device.device_id).in_([line.device_id for line in lines]))
        there = {device.device_id: device for device in (await session.execute(found)).scalars()}
    rows = len({line.number for line in lines} | {issue.row for issue in issues})
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
        dry_run=dry_run, written=written, rows=rows, new=counts[Deed.NEW], changed=counts[Deed.CHANGED],
        unchanged=counts[Deed.UNCHANGED], errors=[RowIssueOut(**asdict(issue)) for issue in issues[:200]],
    )  # fmt: skip


def _is_device_id(text: str) -> bool:
    try:
        _DEVICE_ID.validate_python(text)
    except ValidationError:
        return False
    return True


# --- comparing with the register -------------------------------------------------------------------------------------------


async def _find_elders(session: Any, who: Any, parts: Any, lines: Sequence[Line], issues: list[Issue]) -> None:
    """Whose devices they are. People outside the account's region are not there."""
    by_hash: dict[bytes, list[Line]] = {}
    for line in lines:
        if line.id_number is not None and line.elder_id is None:
            for index in parts.sealer.indexes(line.id_number):
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
        if by in line.given and line.elder_id not in there:
            issues.append(line.issue(by, "没有登记过这位老人,或不在您的辖区"))


async def _plan(
    session: Any, who: Any, parts: Any, line: Line, there: Device | None, issues: list[Issue]
) -> Plan | None:
    if there is not None and not who.sees(there.region_code):
        issues.append(line.issue("device_id", "这个编号已被登记"))
        return None
    fields: dict[str, Any] = {"kind": line.kind}
    fields |= {name: line.given[name] for name in ("place", "model") if name in line.given}
    try:
        if there is None or "profile" in line.given:
            fields["profile"] = await choose_profile(session, parts.codecs, line.device_id, line.given.get("profile"))
    except InvalidInput as error:
        issues.append(line.issue("profile", f"协议不对:{error.detail}"))
        return None
    region = line.given.get("region_code")
    try:
        if region is not None:
            await register.must_be_region(session, who, region)
    except (InvalidInput, NotFound):
        issues.append(line.issue("region_code", "没有这个区划,或不在您的辖区(12 位代码)"))
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
        device.model = plan.fields.get("model")
    elif plan.fields:
        await wearing.change(session, device, plan.fields, now=now)
    audit.note(
        session, who, action="device.registered" if plan.deed is Deed.NEW else "device.changed", subject_type="device",
        subject_id=device.device_id, now=now, region_code=device.region_code, kind=device.kind.value,
        profile=device.profile,
    )  # fmt: skip
    if plan.line.elder_id is not None:
        await bind_within(session, who, device, plan.line.elder_id, now)
