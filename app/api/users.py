"""Accounts within the region of who manages them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel import col, select

from app.access import accounts, audit, tokens
from app.access.principal import Right, normal_scope, within
from app.access.tables import User
from app.access.vocabulary import Role
from app.api import pages
from app.api.auth import Password
from app.api.bodies import Body, Scope, etag, example, explicit, if_match
from app.api.context import NowDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders.register import must_be_visitor
from app.errors import InvalidInput
from app.ids import VisitorId

router = APIRouter(route_class=Transactional, tags=["accounts"], dependencies=[Depends(idempotent)])
_PLAIN = ("role", "region_code", "visitor_id", "active")


class UserIn(Body):
    model_config = example(
        username="desk-7",
        password="three-words-nobody-joins",  # noqa: S106
        role="operator",
        region_code="370302001",
    )
    username: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._@-]{3,64}$")] = Field(examples=["desk-7"])
    password: Password = Field(repr=False, examples=["three-words-nobody-joins"])
    role: Role
    region_code: Scope = Field(examples=["370302001"])
    visitor_id: UUID | None = Field(default=None, description="Who an account of the role `visitor` belongs to.")


class UserChange(Body):
    model_config = example(role="operator", region_code="370302001", active=True)
    role: Role | None = None
    region_code: Scope | None = None
    visitor_id: UUID | None = None
    active: bool | None = Field(default=None, description="false puts the account to rest and ends its log-ins.")


class PasswordIn(Body):
    model_config = example(password="another-four-words-together")  # noqa: S106
    password: Password = Field(repr=False, examples=["another-four-words-together"])


class UserOut(BaseModel):
    id: UUID
    username: str
    role: Role
    region_code: str
    visitor_id: UUID | None
    active: bool
    created_at: datetime


@router.get("/users", dependencies=[needs(Right.ACCOUNTS)], summary="Accounts within your region")
async def users(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[UserOut]:
    before = pages.decode(cursor, UUID)
    query = select(User).where(within(who, col(User.region_code)))
    if before:
        query = query.where(col(User.id) < before[0])
    rows = (await session.execute(query.order_by(col(User.id).desc()).limit(limit + 1))).scalars().all()
    return pages.Page[UserOut].model_validate(pages.page(rows, limit, _shape, "id"))


@router.post("/users", status_code=201, dependencies=[needs(Right.ACCOUNTS)], summary="Make an account")
async def add_user(body: UserIn, response: Response, who: PrincipalDep, session: SessionDep, now: NowDep) -> UserOut:
    """Within your own region and with no more rights than you have. A password has 10 to 256 characters, is not the
    username and is not one that everybody tries first; no mixture of kinds of characters is asked for."""
    accounts.check_gift(who, role=body.role, region_code=body.region_code)
    if body.visitor_id is not None:
        await must_be_visitor(session, who, body.visitor_id)
    user = await accounts.create(
        session, username=body.username, password=body.password, role=body.role, region_code=body.region_code,
        visitor_id=VisitorId(body.visitor_id) if body.visitor_id else None, now=now,
    )  # fmt: skip
    audit.note(
        session, who, action="user.created", subject_type="user", subject_id=user.id, now=now,
        region_code=user.region_code, username=user.username, role=user.role.value, scope=user.region_code,
        visitor_id=user.visitor_id,
    )  # fmt: skip
    response.headers.update({**etag(user.version), "Location": f"/api/v1/users/{user.id}"})
    return UserOut.model_validate(_shape(user))


@router.get("/users/{user_id}", responses=responses(404), dependencies=[needs(Right.ACCOUNTS)], summary="One account")
async def user(user_id: UUID, response: Response, who: PrincipalDep, session: SessionDep) -> UserOut:
    found = await accounts.user_within(session, who, user_id)
    response.headers.update(etag(found.version))
    return UserOut.model_validate(_shape(found))


@router.patch(
    "/users/{user_id}",
    responses=responses(404, 412),
    dependencies=[needs(Right.ACCOUNTS)],
    summary="Change an account",
)
async def change_user(
    user_id: UUID,
    body: UserChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> UserOut:
    """Only the fields that are given change, at once, for tokens that are out too. The last active administrator of a
    region stays one. API keys that the account holds and could not make any more are revoked: let somebody take over
    those that are still used first (`POST /api-keys/{key_id}/take-over`)."""
    fields = explicit(body)
    for name in ("role", "region_code", "active"):
        if name in fields and fields[name] is None:
            raise InvalidInput("cannot be null; leave it out to keep it", field=name)
    found = await accounts.user_within(session, who, user_id, version=version, lock=True)
    if body.visitor_id is not None and body.visitor_id != found.visitor_id:
        await must_be_visitor(session, who, body.visitor_id)
    if body.region_code is not None:
        fields["region_code"] = normal_scope(body.region_code)
    before = {name: getattr(found, name) for name in _PLAIN}
    await accounts.change(session, who, found, fields, now=now)
    audit.note(
        session, who, action="user.changed", subject_type="user", subject_id=user_id, now=now,
        region_code=found.region_code,
        changes=audit.changes(before, {name: getattr(found, name) for name in _PLAIN}, plain=_PLAIN),
    )  # fmt: skip
    response.headers.update(etag(found.version))
    return UserOut.model_validate(_shape(found))


@router.post(
    "/users/{user_id}/password",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.ACCOUNTS)],
    summary="Give an account a new password",
)
async def reset_password(user_id: UUID, body: PasswordIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """All log-ins of the account end."""
    found = await accounts.user_within(session, who, user_id, lock=True)
    accounts.check_gift(who, role=found.role, region_code=found.region_code)
    await accounts.set_password(session, found, body.password)
    audit.note(
        session, who, action="user.password_reset", subject_type="user", subject_id=user_id, now=now,
        region_code=found.region_code, changes={"password": "changed"},
    )  # fmt: skip


@router.post(
    "/users/{user_id}/revoke-tokens",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.ACCOUNTS)],
    summary="End all log-ins of an account",
)
async def revoke_tokens(user_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """Every access and refresh token of the account is dead from now on, its open streams within seconds."""
    found = await accounts.user_within(session, who, user_id)
    await tokens.revoke_all(session, found.id)
    audit.note(
        session, who, action="user.tokens_revoked", subject_type="user", subject_id=user_id, now=now,
        region_code=found.region_code,
    )  # fmt: skip


def _shape(user: User) -> dict[str, object]:
    return {name: getattr(user, name) for name in UserOut.model_fields}
