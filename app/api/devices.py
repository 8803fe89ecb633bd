"""Devices, their bindings, what they said, the unclaimed, and the quarantine."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, within
from app.access.sealing import Sealer
from app.access.wall import beyond
from app.api import pages
from app.api.bodies import AN_ID, Body, DeviceIdText, Region12, Short, etag, example, explicit, if_match
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.reveals import Reveal, RevealDep
from app.api.transactional import Transactional, idempotent
from app.devices import wearing
from app.devices.choosing import choose_profile
from app.devices.commissioning import kind_by_what_it_says
from app.devices.tables import Device, DeviceState, RejectedMessage, UnclaimedDevice
from app.devices.vocabulary import DeviceKind, RejectReason
from app.elders import register
from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch

router = APIRouter(route_class=Transactional, tags=["devices"], dependencies=[Depends(idempotent)])
DeviceId = Annotated[str, Path(max_length=128, pattern=r"^[^\x00]+$", examples=["sos-0001"])]
Place = Annotated[Short, StringConstraints(max_length=100)]


class DeviceIn(Body):
    model_config = example(device_id="sos-0001", kind="sos_button", place="卧室床头", region_code="370302001000")
    device_id: DeviceIdText
    kind: DeviceKind
    profile: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9_.-]*$")] | None = Field(
        default=None,
        description="The family or configured profile that reads it (GET /device-profiles). Left out: the one that read "
        "it while it was unclaimed, or the one its id belongs to, or native.",
        examples=["native"],
    )
    model: Place | None = Field(
        default=None, examples=["WS101"], description="Maker and model; statistics count by it."
    )
    place: Place | None = Field(default=None, examples=["卧室床头"])
    region_code: Region12 | None = Field(default=None, description="Whose device it is until it is bound.")
    elder_id: UUID | None = Field(default=None, description="Binds it at once, like PUT …/binding.")


class DeviceOut(BaseModel):
    device_id: str
    kind: DeviceKind
    profile: str
    model: str | None
    elder_id: UUID | None
    place: str | None
    online: bool | None
    battery: int | None
    last_seen_at: datetime | None


class DeviceChange(Body):
    model_config = example(place="卧室床头", kind="sos_button")
    kind: DeviceKind | None = Field(default=None, description="Its role: what its words mean.")
    place: Place | None = Field(default=None, description="Where in the home it is; null: nowhere said.")
    profile: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9_.-]*$")] | None = None
    model: Place | None = Field(default=None, examples=["WS101"], description="Maker and model; null: not known.")


class StateOut(BaseModel):
    field: str = Field(description="The field of the device's messages.", examples=["contact"])
    value: str = Field(examples=["open"])
    since: datetime
    said_at: datetime = Field(description="When it was said last; to about five seconds when nothing changed.")


class BindingIn(Body):
    model_config = example(elder_id=AN_ID)
    elder_id: UUID


class BindingOut(BaseModel):
    elder_id: UUID
    bound_at: datetime
    unbound_at: datetime | None


class EventOut(BaseModel):
    id: UUID
    device_id: str
    elder_id: UUID | None
    type: str
    event_id: str | None
    occurred_at: datetime
    received_at: datetime
    late: bool
    data: dict[str, Any]


class UnclaimedOut(BaseModel):
    device_id: str
    first_seen_at: datetime
    last_seen_at: datetime
    messages: int
    last_topic: str
    profile_guess: str = Field(description="The family or configured profile that read it: what it is claimed under.")
    said: list[str] = Field(description="The kinds of things it said so far.", examples=[["sos", "heartbeat"]])
    kind_guess: DeviceKind | None = Field(description="What it seems to be, by what it said.")
    last_payload: str | None = Field(
        description="The beginning of what it sent last. Only with `reveal` and a purpose: a message may hold anything."
    )


class RejectedOut(BaseModel):
    id: UUID
    received_at: datetime
    topic: str
    device_id: str | None
    reason: RejectReason
    detail: str
    payload: str | None = Field(description="Only with `reveal` and a purpose: a message may hold anything.")
    encoding: Literal["utf-8", "base64"] | None


@router.get("/devices", dependencies=[needs(Right.DEVICES_READ)], summary="Devices within your scope, newest first")
async def devices(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    elder_id: UUID | None = None,
) -> pages.Page[DeviceOut]:
    before = pages.decode(cursor, datetime, str)
    where: list[str] = ["true"]
    values: dict[str, Any] = {"limit": limit + 1}
    if before:
        where.append("(d.created_at, d.device_id) < (:at, :id)")
        values |= {"at": before[0], "id": before[1]}
    if elder_id:
        where.append("b.elder_id = :elder_id")
        values["elder_id"] = elder_id
    rows = (
        await session.execute(
            sa.text(
                f"{wearing.DEVICE_ROWS} WHERE {' AND '.join(where)} "
                "ORDER BY d.created_at DESC, d.device_id DESC LIMIT :limit"
            ),
            values,
        )
    ).all()
    return pages.Page[DeviceOut].model_validate(
        pages.page(rows, limit, wearing.device_shape, "created_at", "device_id")
    )


@router.post(
    "/devices",
    status_code=201,
    responses=responses(409),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Register (claim) a device",
)
async def register_device(
    body: DeviceIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> DeviceOut:
    async with beyond(session, "an id is one device's, wherever it is: the broker knows no regions"):
        taken = await session.scalar(select(col(Device.device_id)).where(col(Device.device_id) == body.device_id))
    if taken is not None:
        raise Conflict("a device of this id is registered already", field="device_id")
    if body.region_code:
        await register.must_be_region(session, who, body.region_code)
    profile = await choose_profile(session, parts.codecs, body.device_id, body.profile)
    device = await wearing.register(
        session, device_id=body.device_id, kind=body.kind, profile=profile, place=body.place,
        region_code=body.region_code or who.region_code, now=now,
    )  # fmt: skip
    device.model = body.model
    audit.note(
        session,
        who,
        action="device.registered",
        subject_type="device",
        subject_id=device.device_id,
        now=now,
        region_code=device.region_code,
        kind=device.kind.value,
        profile=device.profile,
    )
    if body.elder_id is not None:
        await bind_within(session, who, device, body.elder_id, now)
    response.headers.update(etag(device.version))
    return await _out(session, device.device_id)


@router.get(
    "/devices/unclaimed",
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Devices that speak and that nobody registered",
)
async def unclaimed(
    who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep, limit: pages.Limit = 50,
    cursor: pages.Cursor = None, reveal: RevealDep = None,
) -> pages.Page[UnclaimedOut]:  # fmt: skip
    """Nobody knows yet whose they are: for those who may register devices. The beginning of what they sent is shown with
    `reveal=true` and a purpose, by right; all of it is in GET /rejected-messages?device_id=…"""
    before = pages.decode(cursor, datetime, str)
    query = select(UnclaimedDevice)
    if before:
        query = query.where(
            sa.tuple_(col(UnclaimedDevice.last_seen_at), col(UnclaimedDevice.device_id)) < tuple(before)
        )
    query = query.order_by(col(UnclaimedDevice.last_seen_at).desc(), col(UnclaimedDevice.device_id).desc())
    rows = (await session.execute(query.limit(limit + 1))).scalars().all()
    sent = await _last_sent(session, who, reveal, [row.device_id for row in rows[:limit]], parts.sealer, now)
    return pages.Page[UnclaimedOut].model_validate(
        pages.page(rows, limit, lambda u: _unclaimed_shape(u, sent), "last_seen_at", "device_id")
    )


_EXCERPT = 500  # characters of a payload beside an unclaimed device


def _unclaimed_shape(row: UnclaimedDevice, sent: Mapping[str, str]) -> dict[str, Any]:
    names = ("device_id", "first_seen_at", "last_seen_at", "messages", "last_topic", "profile_guess", "said")
    shown = {name: getattr(row, name) for name in names}
    return {**shown, "kind_guess": kind_by_what_it_says(row.said), "last_payload": sent.get(row.device_id)}


async def _last_sent(
    session: Any, who: Any, reveal: Reveal | None, device_ids: Sequence[str], sealer: Sealer, now: datetime
) -> dict[str, str]:
    """The beginning of the last message of each, for those who may see it and said why."""
    if not device_ids or reveal is None:
        return {}
    query = (
        select(RejectedMessage)
        .where(col(RejectedMessage.device_id).in_(device_ids))
        .distinct(col(RejectedMessage.device_id))
        .order_by(col(RejectedMessage.device_id), col(RejectedMessage.id).desc())
    )
    rows = (await session.execute(query)).scalars().all()
    _note_reveal(session, who, reveal, rows, now)
    found = {row.device_id: _as_text(_content(row, sealer))[0] for row in rows}
    return {device_id: text[:_EXCERPT] for device_id, text in found.items() if device_id and text}


@router.get(
    "/devices/{device_id}", responses=responses(404), dependencies=[needs(Right.DEVICES_READ)], summary="One device"
)
async def device(device_id: DeviceId, response: Response, who: PrincipalDep, session: SessionDep) -> DeviceOut:
    found = await device_within(session, who, device_id)
    response.headers.update(etag(found.version))
    return await _out(session, device_id)


@router.patch(
    "/devices/{device_id}",
    responses=responses(404, 412),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Change a device's place, role or profile",
)
async def change_device(
    device_id: DeviceId, body: DeviceChange, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep,
    now: NowDep, version: Annotated[int | None, Depends(if_match)] = None,
) -> DeviceOut:  # fmt: skip
    """Only the fields that are given change. Send If-Match with the ETag you read to refuse a lost update."""
    found = await device_within(session, who, device_id, lock=True)
    if version is not None and version != found.version:
        raise VersionMismatch("the device was changed in between; read it again")
    fields = explicit(body)
    for name in ("kind", "profile"):
        if name in fields and fields[name] is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    if "profile" in fields:
        fields["profile"] = await choose_profile(session, parts.codecs, device_id, fields["profile"])
    before = {name: getattr(found, name) for name in fields}
    await wearing.change(session, found, fields, now=now)
    audit.note(
        session, who, action="device.changed", subject_type="device", subject_id=device_id, now=now,
        region_code=found.region_code, changes=audit.changes(before, fields, plain=("kind", "place", "profile", "model")),
    )  # fmt: skip
    response.headers.update(etag(found.version))
    return await _out(session, device_id)


@router.get(
    "/devices/{device_id}/states",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_READ)],
    summary="What is known of the device's fields: open or closed, smoke or none, and since when",
)
async def device_states(
    device_id: DeviceId, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[StateOut]:
    await device_within(session, who, device_id)
    before = pages.decode(cursor, datetime, str)
    query = select(DeviceState).where(col(DeviceState.device_id) == device_id)
    if before:
        query = query.where(sa.tuple_(col(DeviceState.since), col(DeviceState.field)) < tuple(before))
    query = query.order_by(col(DeviceState.since).desc(), col(DeviceState.field).desc()).limit(limit + 1)
    rows = (await session.execute(query)).scalars().all()
    return pages.Page[StateOut].model_validate(
        pages.page(rows, limit, lambda r: {n: getattr(r, n) for n in StateOut.model_fields}, "since", "field")
    )


@router.put(
    "/devices/{device_id}/binding",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Who wears the device from now on",
)
async def bind(
    device_id: DeviceId, body: BindingIn, who: PrincipalDep, session: SessionDep, parts: PartsDep
) -> DeviceOut:
    """The binding before ends at the same moment; events belong to whoever wore the device when they happened."""
    found = await device_within(session, who, device_id, lock=True)
    await bind_within(session, who, found, body.elder_id, parts.clock())  # after the lock: moments follow one another
    return await _out(session, device_id)


@router.delete(
    "/devices/{device_id}/binding",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Nobody wears it",
)
async def unbind(device_id: DeviceId, who: PrincipalDep, session: SessionDep, parts: PartsDep) -> None:
    found = await device_within(session, who, device_id, lock=True)
    now = parts.clock()
    wore = await wearing.wearer(session, device_id)
    if not await wearing.unbind(session, device_id, now=now):
        raise NotFound("the device is bound to nobody")
    audit.note(
        session,
        who,
        action="device.unbound",
        subject_type="device",
        subject_id=device_id,
        now=now,
        region_code=found.region_code,
        changes={"elder_id": {"from": wore, "to": None}},
    )


@router.get(
    "/devices/{device_id}/binding",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_READ)],
    summary="Who wore the device when",
)
async def bindings(
    device_id: DeviceId, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[BindingOut]:
    await device_within(session, who, device_id)
    before = pages.decode(cursor, UUID)
    rows = (
        await session.execute(
            sa.text(
                "SELECT b.id, b.elder_id, b.bound_at, b.unbound_at FROM bindings b WHERE b.device_id = :device_id "
                "AND (CAST(:before AS uuid) IS NULL OR b.id < :before) ORDER BY b.id DESC LIMIT :limit"
            ),
            {"device_id": device_id, "before": before[0] if before else None, "limit": limit + 1},
        )
    ).all()
    return pages.Page[BindingOut].model_validate(
        pages.page(rows, limit, lambda r: {n: getattr(r, n) for n in BindingOut.model_fields}, "id")
    )


@router.get(
    "/devices/{device_id}/events",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_READ)],
    summary="What a device said, newest first",
)
async def events(
    device_id: DeviceId, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[EventOut]:
    """Events of a wearer outside your scope are left out."""
    await device_within(session, who, device_id)
    before = pages.decode(cursor, UUID)
    rows = (
        await session.execute(
            sa.text(
                "SELECT v.* FROM device_events v WHERE v.device_id = :device_id "
                "AND (CAST(:before AS uuid) IS NULL OR v.id < :before) ORDER BY v.id DESC LIMIT :limit"
            ),
            {"device_id": device_id, "before": before[0] if before else None, "limit": limit + 1},
        )
    ).all()
    return pages.Page[EventOut].model_validate(
        pages.page(rows, limit, lambda r: {n: getattr(r, n) for n in EventOut.model_fields}, "id")
    )


@router.get(
    "/rejected-messages", dependencies=[needs(Right.DEVICES_WRITE)], summary="Messages that could not be used, and why"
)
async def rejected(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    device_id: Annotated[str | None, Query(max_length=128, pattern=r"^[^\x00]*$")] = None,
    reason: RejectReason | None = None,
    reveal: RevealDep = None,
) -> pages.Page[RejectedOut]:
    """For those who may register devices; what the messages say with `reveal=true` and a purpose, by right. One of a
    registered device is its region's; one of an unknown device is anybody's to claim."""
    before = pages.decode(cursor, UUID)
    query = select(RejectedMessage)
    if device_id:
        query = query.where(col(RejectedMessage.device_id) == device_id)
    if reason:
        query = query.where(col(RejectedMessage.reason) == reason)
    if before:
        query = query.where(col(RejectedMessage.id) < before[0])
    rows = (await session.execute(query.order_by(col(RejectedMessage.id).desc()).limit(limit + 1))).scalars().all()
    if reveal is not None:
        _note_reveal(session, who, reveal, rows[:limit], now)
    return pages.Page[RejectedOut].model_validate(
        pages.page(rows, limit, lambda row: _rejected_shape(row, parts.sealer if reveal else None), "id")
    )


def _note_reveal(session: Any, who: Any, reveal: Reveal, rows: Sequence[RejectedMessage], now: datetime) -> None:
    """One audit row for the messages of a page; none for an empty one."""
    if rows:
        reveal.note(
            session, who, action="quarantine.revealed", subject_type="quarantine", subject_id="", names=(), now=now,
            region_code=who.region_code or None, messages=len(rows), newest=max(row.id for row in rows),
        )  # fmt: skip


def _rejected_shape(row: RejectedMessage, sealer: Sealer | None) -> dict[str, Any]:
    payload, encoding = (None, None) if sealer is None else _as_text(_content(row, sealer))
    shown = {name: getattr(row, name) for name in ("id", "received_at", "topic", "device_id", "reason", "detail")}
    return {**shown, "payload": payload, "encoding": encoding}


def _content(row: RejectedMessage, sealer: Sealer) -> bytes | None:
    if row.payload_sealed is None:
        return row.payload
    try:
        return sealer.open_bytes(row.payload_sealed, record=row.id)
    except InvalidTag:  # sealed with a lost key: the others are still shown
        return None


def _as_text(content: bytes | None) -> tuple[str | None, str | None]:
    if content is None:
        return None, None
    try:
        return content.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(content).decode(), "base64"


async def device_within(session: Any, who: Any, device_id: str, *, lock: bool = False) -> Device:
    """A device of the principal's region. Raises `NotFound`, for a foreign one like for one that is nowhere."""
    query = select(Device).where(col(Device.device_id) == device_id, within(who, col(Device.region_code)))
    found: Device | None = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such device")
    return found


async def bind_within(session: Any, who: Any, device: Device, elder_id: UUID, now: datetime) -> None:
    try:
        elder = await register.elder_within(session, who, elder_id)
    except NotFound:
        raise InvalidInput("no such elder", field="elder_id") from None
    wore = await wearing.wearer(session, device.device_id)
    await wearing.bind(session, device, elder_id=elder.id, region_code=elder.region_code, now=now)
    audit.note(
        session,
        who,
        action="device.bound",
        subject_type="device",
        subject_id=device.device_id,
        now=now,
        region_code=elder.region_code,
        elder_id=str(elder.id),
        changes={"elder_id": {"from": wore, "to": elder.id}},
    )


async def _out(session: Any, device_id: str) -> DeviceOut:
    row = (await session.execute(sa.text(f"{wearing.DEVICE_ROWS} WHERE d.device_id = :id"), {"id": device_id})).one()
    return DeviceOut.model_validate(wearing.device_shape(row))
