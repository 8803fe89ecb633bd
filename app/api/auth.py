"""Log-in, the own account, accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlmodel import col, select

from app.access import accounts, audit
from app.access.principal import Principal, Right, issue_token, normal_scope, within
from app.access.tables import User
from app.access.vocabulary import Role
from app.api import pages
from app.api.bodies import Body, Scope, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders.register import must_be_visitor
from app.errors import InvalidInput
from app.ids import VisitorId

public = APIRouter(route_class=Transactional, tags=["auth"])
router = APIRouter(route_class=Transactional, tags=["auth"], dependencies=[Depends(idempotent)])


class TokenAnswer(BaseModel):
    access_token: str
    token_type: str = "bearer"  # noqa: S105 - OAuth's word
    expires_in: int = Field(description="Seconds.")


class LoginForm(Body):
    model_config = ConfigDict(extra="ignore", **example(username="admin", password="the-password-you-were-shown"))  # noqa: S106
    username: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class UserIn(Body):
    model_config = example(username="duty-desk", password="choose-a-long-one", role="operator", region_code="370302001")  # noqa: S106
    username: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._@-]{3,64}$")] = Field(examples=["duty-desk"])
    password: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(examples=["choose-a-long-one"])
    role: Role
    region_code: Scope = Field(examples=["370302001"])
    visitor_id: UUID | None = None


class UserOut(BaseModel):
    id: UUID
    username: str
    role: Role
    region_code: str
    visitor_id: UUID | None
    active: bool
    created_at: datetime


class Me(BaseModel):
    id: UUID
    username: str
    role: Role
    region_code: str
    visitor_id: UUID | None


@public.post("/auth/token", responses=responses(401, 422, 429), summary="Log in")
async def token(form: Annotated[LoginForm, Form()], session: SessionDep, parts: PartsDep, now: NowDep) -> TokenAnswer:
    """Username and password as a form; the answer's `access_token` goes into `Authorization: Bearer`."""
    user = await accounts.log_in(session, parts.guard, username=form.username, password=form.password, now=now)
    text, seconds = issue_token(user, key=parts.token_key, now=now)
    return TokenAnswer(access_token=text, expires_in=seconds)


@router.get("/me", summary="The account of this token")
async def me(who: PrincipalDep) -> Me:
    return Me(id=who.id, username=who.username, role=who.role, region_code=who.region_code, visitor_id=who.visitor_id)


@router.get("/users", summary="Accounts within your region")
async def users(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[UserOut]:
    who.must(Right.ACCOUNTS)
    before = pages.decode(cursor, UUID)
    query = select(User).where(within(who, col(User.region_code)))
    if before:
        query = query.where(col(User.id) < before[0])
    rows = (await session.execute(query.order_by(col(User.id).desc()).limit(limit + 1))).scalars().all()
    return pages.Page[UserOut].model_validate(pages.page(rows, limit, _shape, "id"))


@router.post("/users", status_code=201, responses=responses(409), summary="Make an account")
async def add_user(body: UserIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> UserOut:
    who.must(Right.ACCOUNTS)
    _within_own_scope(who, body.region_code)
    if body.visitor_id is not None:
        await must_be_visitor(session, who, body.visitor_id)
    user = await accounts.create(
        session, username=body.username, password=body.password, role=body.role, region_code=body.region_code,
        visitor_id=VisitorId(body.visitor_id) if body.visitor_id else None, now=now,
    )  # fmt: skip
    audit.note(
        session,
        who,
        action="user.created",
        subject_type="user",
        subject_id=user.id,
        now=now,
        region_code=user.region_code,
        role=user.role.value,
    )
    return UserOut.model_validate(_shape(user))


def _within_own_scope(who: Principal, scope: str) -> None:
    if not normal_scope(scope).startswith(who.region_code):
        raise InvalidInput("the scope must lie within your own", field="region_code")


def _shape(user: User) -> dict[str, object]:
    return {name: getattr(user, name) for name in UserOut.model_fields}
