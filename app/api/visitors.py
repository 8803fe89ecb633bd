"""Those who visit and hold offices: volunteers, social workers, village heads."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, begins, within
from app.access.sealing import mask_phone
from app.api import pages
from app.api.bodies import Body, Name, Phone, Region12, Short, etag, example, explicit, if_match
from app.api.channels import ChannelIn, ChannelOut, checked, with_secrets
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.reveals import RevealDep, note_reveal
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.phones import normal_phone
from app.elders.tables import Visitor
from app.elders.vocabulary import VisitorKind
from app.errors import InvalidInput, VersionMismatch
from app.ids import new_uuid
from app.notify import ways
from app.notify.ways import Way

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])


class VisitorIn(Body):
    model_config = example(
        name="李志愿", kind="volunteer", organisation="般阳志愿服务队", phone="13800000001", region_code="370302001000",
        channels=[{"kind": "console", "address": "李志愿"}],
    )  # fmt: skip
    name: Name = Field(examples=["李志愿"])
    kind: VisitorKind = VisitorKind.VOLUNTEER
    organisation: Short | None = None
    phone: Phone | None = None
    region_code: Region12
    channels: list[ChannelIn] = Field(default=[], max_length=10)


class VisitorChange(Body):
    model_config = example(organisation="般阳志愿服务队", phone="13900000001")

    name: Name | None = None
    kind: VisitorKind | None = None
    organisation: Short | None = None
    phone: Phone | None = None
    region_code: Region12 | None = None
    channels: list[ChannelIn] | None = Field(default=None, max_length=10)


class VisitorOut(BaseModel):
    id: UUID
    name: str
    kind: VisitorKind
    organisation: str | None
    phone: str | None
    region_code: str
    channels: list[ChannelOut]


@router.get("/visitors", dependencies=[needs(Right.ELDERS_READ)], summary="Visitors within your scope")
async def visitors(
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
) -> pages.Page[VisitorOut]:
    before = pages.decode(cursor, UUID)
    query = select(Visitor).where(within(who, col(Visitor.region_code)))
    if region_code:
        query = query.where(begins(col(Visitor.region_code), region_code))
    if before:
        query = query.where(col(Visitor.id) < before[0])
    rows = (await session.execute(query.order_by(col(Visitor.id).desc()).limit(limit + 1))).scalars().all()
    known = await ways.of(session, "visitor_id", [r.id for r in rows], sealer=parts.sealer, plainly=False)
    return pages.Page[VisitorOut].model_validate(
        pages.page(rows, limit, lambda v: _visitor_shape(v, known.get(v.id, []), parts, plainly=False), "id")
    )


@router.post(
    "/visitors",
    status_code=201,
    responses=responses(),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Add a visitor",
)
async def add_visitor(
    body: VisitorIn, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> VisitorOut:
    await register.must_be_region(session, who, body.region_code)
    given = checked(body.channels, parts)
    visitor_id = new_uuid(now)
    phone = normal_phone(body.phone) if body.phone else None
    visitor = Visitor(
        id=visitor_id,
        phone_sealed=parts.sealer.seal_optional(phone, record=visitor_id),
        created_at=now,
        **body.model_dump(include={"name", "kind", "organisation", "region_code"}),
    )
    session.add(visitor)
    await session.flush()
    await ways.replace(session, "visitor_id", visitor_id, given, sealer=parts.sealer, now=now)
    audit.note(
        session,
        who,
        action="visitor.added",
        subject_type="visitor",
        subject_id=visitor_id,
        now=now,
        region_code=visitor.region_code,
    )
    response.headers.update(etag(visitor.version))
    return await _visitor_out(session, visitor, parts, given)


@router.get(
    "/visitors/{visitor_id}", responses=responses(404), dependencies=[needs(Right.ELDERS_READ)], summary="One visitor"
)
async def visitor(
    visitor_id: UUID,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    reveal: RevealDep = None,
) -> VisitorOut:
    found = await register.visitor_within(session, who, visitor_id)
    note_reveal(reveal, session, who, "visitor.revealed", found, (found.name,), now)
    response.headers.update(etag(found.version))
    return await _visitor_out(session, found, parts, plainly=reveal is not None)


@router.patch(
    "/visitors/{visitor_id}",
    responses=responses(404, 412),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Change a visitor",
)
async def change_visitor(
    visitor_id: UUID,
    body: VisitorChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> VisitorOut:
    """`channels`, when given, replace the channels before."""
    found = await register.visitor_within(session, who, visitor_id)
    await session.refresh(found, with_for_update=True)
    if version is not None and version != found.version:
        raise VersionMismatch("the visitor changed since you read it; read it again")
    fields = explicit(body)
    for name in ("name", "kind", "region_code", "channels"):
        if name in fields and fields[name] is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    if body.region_code is not None:
        await register.must_be_region(session, who, body.region_code)
    before = {name: getattr(found, name) for name in ("kind", "region_code")}
    for name in ("name", "kind", "organisation", "region_code"):
        if name in fields:
            setattr(found, name, fields[name])
    if "phone" in fields:
        phone = normal_phone(body.phone) if body.phone else None
        found.phone_sealed = parts.sealer.seal_optional(phone, record=visitor_id)
    given: list[Way] = []
    if body.channels is not None:
        given = checked(body.channels, parts)
        await ways.replace(session, "visitor_id", visitor_id, given, sealer=parts.sealer, now=now)
    found.version += 1
    await session.flush()
    audit.note(
        session,
        who,
        action="visitor.changed",
        subject_type="visitor",
        subject_id=visitor_id,
        now=now,
        region_code=found.region_code,
        changes=audit.changes(before, fields, plain=before),
    )
    response.headers.update(etag(found.version))
    return await _visitor_out(session, found, parts, given)


async def _visitor_out(
    session: Any, visitor: Visitor, parts: PartsDep, given: list[Way] | None = None, *, plainly: bool = False
) -> VisitorOut:
    known = await ways.of(session, "visitor_id", [visitor.id], sealer=parts.sealer, plainly=plainly)
    shown = with_secrets(known.get(visitor.id, []), given or [])
    return VisitorOut.model_validate(_visitor_shape(visitor, shown, parts, plainly=plainly))


def _visitor_shape(
    visitor: Visitor, channels: list[dict[str, Any]], parts: PartsDep, *, plainly: bool
) -> dict[str, Any]:
    phone = parts.sealer.open_optional(visitor.phone_sealed, record=visitor.id)
    return {
        "id": visitor.id, "name": visitor.name, "kind": visitor.kind, "organisation": visitor.organisation,
        "phone": phone if plainly else mask_phone(phone), "region_code": visitor.region_code, "channels": channels,
    }  # fmt: skip
