"""Contacts of an elder: the family and neighbours who are told."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right
from app.access.sealing import mask_phone
from app.api import pages
from app.api.bodies import Body, Name, Phone, etag, example, explicit, if_match
from app.api.channels import ChannelIn, ChannelOut, checked, with_secrets
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.reveals import RevealDep, note_reveal
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.elders.phones import normal_phone
from app.elders.tables import Contact
from app.errors import InvalidInput, VersionMismatch
from app.ids import new_uuid
from app.notify import ways
from app.notify.ways import Way

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])
Relation = Annotated[Name, StringConstraints(max_length=50)]


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
    query = select(Contact).where(col(Contact.elder_id) == elder_id)
    rows = await pages.newest(session, query, col(Contact.id), limit, cursor)
    note_reveal(reveal, session, who, "contacts.revealed", elder, (elder.name, *(row.name for row in rows)), now)
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
    given = checked(body.channels, parts)
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
    note_reveal(reveal, session, who, "contacts.revealed", elder, (elder.name, found.name), now)
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
        given = checked(body.channels, parts)
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


async def _contact_out(
    session: Any, contact: Contact, parts: PartsDep, given: list[Way] | None = None, *, plainly: bool = False
) -> ContactOut:
    known = await ways.of(session, "contact_id", [contact.id], sealer=parts.sealer, plainly=plainly)
    shown = with_secrets(known.get(contact.id, []), given or [])
    return ContactOut.model_validate(_contact_shape(contact, shown, parts, plainly))


def _contact_shape(contact: Contact, channels: list[dict[str, Any]], parts: PartsDep, plainly: bool) -> dict[str, Any]:
    phone = parts.sealer.open_optional(contact.phone_sealed, record=contact.id)
    return {
        "id": contact.id, "name": contact.name, "relation": contact.relation,
        "phone": phone if plainly else mask_phone(phone), "is_emergency": contact.is_emergency,
        "priority": contact.priority, "channels": channels,
    }  # fmt: skip
