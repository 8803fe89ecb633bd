"""Contacts of an elder, visitors, and who is paired with whom."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, begins, within
from app.access.sealing import mask_phone
from app.api import pages
from app.api.bodies import AN_ID, Body, Name, Phone, Region12, Short, etag, example, explicit, if_match
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.reveals import Reveal, RevealDep
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.phones import normal_phone
from app.elders.tables import Assignment, Contact, Elder, Visitor
from app.elders.vocabulary import AssignmentRole, VisitorKind
from app.errors import InvalidInput, NotFound, VersionMismatch
from app.ids import new_uuid
from app.notify import ways
from app.notify.vocabulary import ChannelKind
from app.notify.ways import Way

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])
Relation = Annotated[Name, StringConstraints(max_length=50)]
PersonChannel = Annotated[ChannelKind, Field(examples=["webhook"])]


class ChannelIn(Body):
    kind: PersonChannel
    address: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]+$")] = Field(
        examples=["https://example.org/hooks/anna"]
    )
    secret: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]+$")] | None = Field(
        default=None, description="webhook: `whsec_…`, made and shown once when absent; robots: the signing secret."
    )


class ChannelOut(BaseModel):
    kind: ChannelKind
    address: str
    secret: str | None = Field(default=None, description="Only in the answer that made it.")


class ContactIn(Body):
    model_config = example(
        name="王小梅", relation="女儿", phone="13800000000", is_emergency=True, priority=1,
        channels=[{"kind": "webhook", "address": "https://example.org/hooks/anna"}],
    )  # fmt: skip
    name: Name = Field(examples=["王小梅"])
    relation: Relation = Field(examples=["女儿"])
    phone: Phone | None = None
    is_emergency: bool = True
    priority: int = Field(default=1, ge=1, le=100)
    channels: list[ChannelIn] = Field(default=[], max_length=10, description="In the order they are tried.")


class ContactChange(Body):
    model_config = example(phone="13900000000", priority=2)
    name: Name | None = None
    relation: Relation | None = None
    phone: Phone | None = None
    is_emergency: bool | None = None
    priority: int | None = Field(default=None, ge=1, le=100)
    channels: list[ChannelIn] | None = Field(default=None, max_length=10)


class ContactOut(BaseModel):
    id: UUID
    name: str
    relation: str
    phone: str | None
    is_emergency: bool
    priority: int
    channels: list[ChannelOut]


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


class AssignmentIn(Body):
    model_config = example(visitor_id=AN_ID, role="primary")
    visitor_id: UUID
    role: AssignmentRole = AssignmentRole.PRIMARY


class AssignmentOut(BaseModel):
    visitor_id: UUID
    name: str
    role: AssignmentRole
    created_at: datetime
    ended_at: datetime | None


# --- contacts --------------------------------------------------------------------------------------------------------


@router.get(
    "/elders/{elder_id}/contacts",
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_READ)],
    summary="An elder's contacts",
)
async def contacts(
    elder_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    reveal: RevealDep = None,
) -> pages.Page[ContactOut]:
    elder = await register.elder_within(session, who, elder_id)
    before = pages.decode(cursor, UUID)
    query = select(Contact).where(col(Contact.elder_id) == elder_id)
    if before:
        query = query.where(col(Contact.id) < before[0])
    rows = (await session.execute(query.order_by(col(Contact.id).desc()).limit(limit + 1))).scalars().all()
    _note_reveal(reveal, session, who, "contacts.revealed", elder, (elder.name, *(row.name for row in rows)), now)
    plainly = reveal is not None
    known = await ways.of(session, "contact_id", [r.id for r in rows], sealer=parts.sealer, plainly=plainly)
    return pages.Page[ContactOut].model_validate(
        pages.page(rows, limit, lambda c: _contact_shape(c, known.get(c.id, []), parts, plainly), "id")
    )


@router.post(
    "/elders/{elder_id}/contacts",
    status_code=201,
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Add a contact",
)
async def add_contact(
    elder_id: UUID,
    body: ContactIn,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
) -> ContactOut:
    """Emergency contacts are told at once and in parallel, each on the first channel that works."""
    elder = await register.elder_within(session, who, elder_id)
    given = ways.check([Way(c.kind, c.address, c.secret) for c in body.channels], parts.channels)
    contact_id = new_uuid(now)
    phone = normal_phone(body.phone) if body.phone else None
    contact = Contact(
        id=contact_id,
        elder_id=elder_id,
        phone_sealed=parts.sealer.seal_optional(phone, record=contact_id),
        created_at=now,
        **body.model_dump(include={"name", "relation", "is_emergency", "priority"}),
    )
    session.add(contact)
    await session.flush()
    await ways.replace(session, "contact_id", contact_id, given, sealer=parts.sealer, now=now)
    audit.note(
        session,
        who,
        action="contact.added",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=elder.region_code,
        contact_id=str(contact_id),
    )
    response.headers.update(etag(contact.version))
    return await _contact_out(session, contact, parts, given)


@router.get(
    "/elders/{elder_id}/contacts/{contact_id}",
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_READ)],
    summary="One contact",
)
async def contact(
    elder_id: UUID,
    contact_id: UUID,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    reveal: RevealDep = None,
) -> ContactOut:
    elder = await register.elder_within(session, who, elder_id)
    found = await register.contact_within(session, who, elder_id, contact_id)
    _note_reveal(reveal, session, who, "contacts.revealed", elder, (elder.name, found.name), now)
    response.headers.update(etag(found.version))
    return await _contact_out(session, found, parts, plainly=reveal is not None)


@router.patch(
    "/elders/{elder_id}/contacts/{contact_id}",
    responses=responses(404, 412),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Change a contact",
)
async def change_contact(
    elder_id: UUID,
    contact_id: UUID,
    body: ContactChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> ContactOut:
    """`channels`, when given, replace the channels before."""
    found = await register.contact_within(session, who, elder_id, contact_id)
    await session.refresh(found, with_for_update=True)
    if version is not None and version != found.version:
        raise VersionMismatch("the contact changed since you read it; read it again")
    fields = explicit(body)
    for name in ("name", "relation", "is_emergency", "priority", "channels"):
        if name in fields and fields[name] is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    elder = await register.elder_within(session, who, elder_id)
    before = {name: getattr(found, name) for name in ("relation", "is_emergency", "priority")}
    for name in ("name", "relation", "is_emergency", "priority"):
        if name in fields:
            setattr(found, name, fields[name])
    if "phone" in fields:
        phone = normal_phone(body.phone) if body.phone else None
        found.phone_sealed = parts.sealer.seal_optional(phone, record=contact_id)
    given: list[Way] | None = None
    if body.channels is not None:
        given = ways.check([Way(c.kind, c.address, c.secret) for c in body.channels], parts.channels)
        await ways.replace(session, "contact_id", contact_id, given, sealer=parts.sealer, now=now)
    found.version += 1
    await session.flush()
    audit.note(
        session,
        who,
        action="contact.changed",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=elder.region_code,
        contact_id=str(contact_id),
        changes=audit.changes(before, fields, plain=before),
    )
    response.headers.update(etag(found.version))
    return await _contact_out(session, found, parts, given)


@router.delete(
    "/elders/{elder_id}/contacts/{contact_id}",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Remove a contact",
)
async def remove_contact(elder_id: UUID, contact_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    elder = await register.elder_within(session, who, elder_id)
    found = await register.contact_within(session, who, elder_id, contact_id)
    await session.delete(found)
    audit.note(
        session,
        who,
        action="contact.removed",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=elder.region_code,
        contact_id=str(contact_id),
    )


# --- visitors --------------------------------------------------------------------------------------------------------


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
    given = ways.check([Way(c.kind, c.address, c.secret) for c in body.channels], parts.channels)
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
    known = await ways.of(session, "visitor_id", [visitor_id], sealer=parts.sealer, plainly=False)
    shown = _with_secrets(known.get(visitor_id, []), given)
    return VisitorOut.model_validate(_visitor_shape(visitor, shown, parts, plainly=False))


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
    _note_reveal(reveal, session, who, "visitor.revealed", found, (found.name,), now)
    plainly = reveal is not None
    known = await ways.of(session, "visitor_id", [visitor_id], sealer=parts.sealer, plainly=plainly)
    response.headers.update(etag(found.version))
    return VisitorOut.model_validate(_visitor_shape(found, known.get(visitor_id, []), parts, plainly=plainly))


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
        given = ways.check([Way(c.kind, c.address, c.secret) for c in body.channels], parts.channels)
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


# --- assignments -----------------------------------------------------------------------------------------------------


@router.get(
    "/elders/{elder_id}/visitors",
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_READ)],
    summary="Who is paired with an elder",
)
async def assignments(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[AssignmentOut]:
    await register.elder_within(session, who, elder_id)
    before = pages.decode(cursor, UUID)
    query = select(Assignment).where(col(Assignment.elder_id) == elder_id)
    if before:
        query = query.where(col(Assignment.id) < before[0])
    found = (await session.execute(query.order_by(col(Assignment.id).desc()).limit(limit + 1))).scalars().all()
    names = await register.visitor_names(session, [a.visitor_id for a in found])
    shown = [_assignment(a, names[a.visitor_id]) for a in found[:limit]]
    more = pages.encode(found[limit - 1].id) if len(found) > limit else None
    return pages.Page[AssignmentOut](items=shown, next_cursor=more)


@router.post(
    "/elders/{elder_id}/visitors",
    status_code=201,
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Pair a visitor",
)
async def assign(
    elder_id: UUID, body: AssignmentIn, who: PrincipalDep, session: SessionDep, now: NowDep
) -> AssignmentOut:
    elder = await register.elder_within(session, who, elder_id)
    paired = await register.must_be_visitor(session, who, body.visitor_id)
    made = await register.assign(session, elder, paired, role=body.role, now=now)
    audit.note(
        session,
        who,
        action="visitor.assigned",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=elder.region_code,
        visitor_id=str(paired.id),
        role=body.role.value,
    )
    return _assignment(made, paired.name)


@router.delete(
    "/elders/{elder_id}/visitors/{visitor_id}",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="End a pairing",
)
async def unassign(elder_id: UUID, visitor_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    elder = await register.elder_within(session, who, elder_id)
    query = select(Assignment).where(
        col(Assignment.elder_id) == elder_id,
        col(Assignment.visitor_id) == visitor_id,
        col(Assignment.ended_at).is_(None),
    )
    current = (await session.execute(query)).scalar_one_or_none()
    if current is None:
        raise NotFound("this visitor is not paired with this elder")
    current.ended_at = now
    audit.note(
        session,
        who,
        action="visitor.unassigned",
        subject_type="elder",
        subject_id=elder_id,
        now=now,
        region_code=elder.region_code,
        visitor_id=str(visitor_id),
    )


# --- shapes ----------------------------------------------------------------------------------------------------------


def _note_reveal(
    reveal: Reveal | None,
    session: Any,
    who: Any,
    action: str,
    of: Elder | Visitor,
    names: tuple[str, ...],
    now: datetime,
) -> None:
    if reveal:
        reveal.note(
            session, who, action=action, subject_type=action.split(".")[0], subject_id=of.id,
            region_code=of.region_code, names=names, now=now,
        )  # fmt: skip


async def _contact_out(
    session: Any, contact: Contact, parts: PartsDep, given: list[Way] | None = None, *, plainly: bool = False
) -> ContactOut:
    known = await ways.of(session, "contact_id", [contact.id], sealer=parts.sealer, plainly=plainly)
    shown = _with_secrets(known.get(contact.id, []), given or [])
    return ContactOut.model_validate(_contact_shape(contact, shown, parts, plainly))


def _with_secrets(channels: list[dict[str, Any]], given: list[Way]) -> list[dict[str, Any]]:
    """The answer that makes a webhook shows its secret, once."""
    for channel, way in zip(channels, given, strict=False):
        if way.kind is ChannelKind.WEBHOOK:
            channel["secret"] = way.secret
    return channels


async def _visitor_out(session: Any, visitor: Visitor, parts: PartsDep, given: list[Way]) -> VisitorOut:
    known = await ways.of(session, "visitor_id", [visitor.id], sealer=parts.sealer, plainly=False)
    shown = _with_new_secrets(known.get(visitor.id, []), given)
    return VisitorOut.model_validate(_visitor_shape(visitor, shown, parts, plainly=False))


def _with_new_secrets(shown: list[dict[str, Any]], given: list[Way]) -> list[dict[str, Any]]:
    """A webhook's secret is shown in the answer that made it, and never again."""
    for channel, way in zip(shown, given, strict=False):
        if way.kind is ChannelKind.WEBHOOK:
            channel["secret"] = way.secret
    return shown


def _contact_shape(contact: Contact, channels: list[dict[str, Any]], parts: PartsDep, plainly: bool) -> dict[str, Any]:
    phone = parts.sealer.open_optional(contact.phone_sealed, record=contact.id)
    return {
        "id": contact.id, "name": contact.name, "relation": contact.relation,
        "phone": phone if plainly else mask_phone(phone), "is_emergency": contact.is_emergency,
        "priority": contact.priority, "channels": channels,
    }  # fmt: skip


def _visitor_shape(
    visitor: Visitor, channels: list[dict[str, Any]], parts: PartsDep, *, plainly: bool
) -> dict[str, Any]:
    phone = parts.sealer.open_optional(visitor.phone_sealed, record=visitor.id)
    return {
        "id": visitor.id, "name": visitor.name, "kind": visitor.kind, "organisation": visitor.organisation,
        "phone": phone if plainly else mask_phone(phone), "region_code": visitor.region_code, "channels": channels,
    }  # fmt: skip


def _assignment(made: Assignment, name: str) -> AssignmentOut:
    return AssignmentOut(
        visitor_id=made.visitor_id, name=name, role=made.role, created_at=made.created_at, ended_at=made.ended_at
    )
