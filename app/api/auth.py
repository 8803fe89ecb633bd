"""Log-in, refresh, and the own account."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Cookie, Depends, Form, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import accounts, audit, guard, tokens
from app.access.accounts import Checked
from app.access.guard import Full
from app.access.principal import Origin, Right
from app.access.tables import User
from app.access.tokens import DEVICE_LIFE, Issued, Reused
from app.access.vocabulary import Role
from app.api.bodies import Body, example
from app.api.context import NowDep, OriginDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import refusal, responses
from app.api.transactional import Transactional, idempotent
from app.errors import InvalidInput, NotLoggedIn

public = APIRouter(route_class=Transactional, tags=["auth"])
router = APIRouter(route_class=Transactional, tags=["auth"], dependencies=[Depends(idempotent)])
DEVICE_COOKIE = "shouwang_device"
_WRONG = "the username or the password is wrong"
Password = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TokenAnswer(BaseModel):
    access_token: str = Field(repr=False, description="Goes into `Authorization: Bearer`.")
    token_type: str = "bearer"  # noqa: S105 - OAuth's word
    expires_in: int = Field(description="Seconds.")
    refresh_token: str = Field(
        repr=False,
        description="Gives the next pair, once. Keep only the newest: one that is used twice ends the whole log-in.",
    )


class LoginForm(Body):
    model_config = ConfigDict(extra="ignore", **example(username="admin", password="the-password-you-were-shown"))  # noqa: S106
    grant_type: Literal["password", "refresh_token"] | None = None
    username: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    password: Password | None = Field(default=None, repr=False)
    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, repr=False
    )

    @model_validator(mode="after")
    def _complete(self) -> LoginForm:
        if self.grant_type == "refresh_token":
            if not self.refresh_token:
                raise ValueError("grant_type=refresh_token needs `refresh_token`")
        elif not self.username or not self.password:
            raise ValueError("a log-in needs `username` and `password`")
        return self


class PasswordChange(Body):
    model_config = example(old_password="the-password-you-have", password="three-words-nobody-joins")  # noqa: S106
    old_password: Password = Field(repr=False)
    password: Password = Field(repr=False, examples=["three-words-nobody-joins"])


class Me(BaseModel):
    type: Literal["user", "api_key"]
    id: UUID
    username: str = Field(description="Of an API key: its name.")
    role: Role | None = Field(description="Null for an API key.")
    region_code: str
    visitor_id: UUID | None
    rights: list[Right]
    expires_at: datetime | None = Field(description="When this token or key ends.")


# --- tokens ----------------------------------------------------------------------------------------------------------


@public.post(
    "/auth/token", response_model=TokenAnswer, responses=responses(401, 422, 429), summary="Log in, or refresh a log-in"
)
async def token(
    form: Annotated[LoginForm, Form()],
    response: Response,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    origin: OriginDep,
    device: Annotated[str | None, Cookie(alias=DEVICE_COOKIE, max_length=500, include_in_schema=False)] = None,
) -> TokenAnswer | JSONResponse:
    """As a form: `username` and `password`, or `grant_type=refresh_token` and `refresh_token`. The answer's
    `access_token` goes into `Authorization: Bearer`; before it ends, the `refresh_token` gives the next pair."""
    response.headers["Cache-Control"] = "no-store"
    if form.grant_type == "refresh_token":
        return await _refresh(session, parts, form.refresh_token or "", origin, now)
    username, password = form.username or "", form.password or ""
    checked = await accounts.check_login(
        parts.access, parts.sessions, username=username, password=password, address=origin.address, device=device,
        now=now,
    )  # fmt: skip
    if not checked.good or checked.user is None:
        await guard.settle(session, checked.taken)
        _note_failure(session, parts, checked, username, origin, now)
        return refusal(NotLoggedIn(_WRONG))  # returned, not raised: what was counted and noted is committed
    await accounts.welcome(session, parts.access, checked, address=origin.address, now=now)
    issued = await parts.access.tokens.log_in(session, checked.user, now=now)
    audit.write(
        session, _actor(checked.user), action="login.succeeded", subject_type="user", subject_id=checked.user.id,
        now=now, region_code=checked.user.region_code, origin=origin, login_id=str(issued.login_id),
    )  # fmt: skip
    if parts.access.tokens.device_of(device, checked.user.id, now=now) is None:
        _set_device(response, parts, checked.user, now)
    return _answer(issued)


def _answer(issued: Issued) -> TokenAnswer:
    return TokenAnswer(
        access_token=issued.access_token, expires_in=issued.expires_in, refresh_token=issued.refresh_token
    )


def _set_device(response: Response, parts: Parts, user: User, now: datetime) -> None:
    """No proof of who somebody is: it only keeps the limits that strangers fill from closing the log-in to this device."""
    response.set_cookie(
        DEVICE_COOKIE, parts.access.tokens.device_token(user.id, now=now), max_age=int(DEVICE_LIFE.total_seconds()),
        path="/api/v1/auth", secure=parts.secure_cookies, httponly=True, samesite="strict",
    )  # fmt: skip


def _note_failure(
    session: AsyncSession, parts: Parts, checked: Checked, username: str, origin: Origin, now: datetime
) -> None:
    """An unknown username may be a mistyped password: only a keyed hash shows whether the same one comes again."""
    user = checked.user
    tried = {} if user else {"tried": parts.access.hasher("tried", username.lower()).hex()[:16]}
    audit.write(
        session, audit.NOBODY, action="login.failed", subject_type="user", subject_id=user.id if user else "unknown",
        now=now, region_code=user.region_code if user else None, origin=origin,
        **tried, **({"because": "the account is not active"} if user and not user.active else {}),
    )  # fmt: skip


async def _refresh(
    session: AsyncSession, parts: Parts, text: str, origin: Origin, now: datetime
) -> TokenAnswer | JSONResponse:
    found = await parts.access.tokens.refresh(session, text, now=now)
    if isinstance(found, Reused):
        audit.write(
            session, audit.NOBODY, action="login.refresh_reused", subject_type="user", subject_id=found.user_id,
            now=now, region_code=found.region_code, origin=origin, login_id=str(found.login_id),
        )  # fmt: skip
        return refusal(
            NotLoggedIn("this refresh token was used before, so its whole log-in has ended; log in with the password")
        )
    return _answer(found)


def _actor(user: User) -> audit.Actor:
    return {"type": "user", "id": str(user.id), "name": user.username}


# --- the own account -------------------------------------------------------------------------------------------------


@router.get("/me", dependencies=[needs(Right.SELF_READ)], summary="The account or key of this token")
async def me(who: PrincipalDep) -> Me:
    return Me(
        type="user" if who.role else "api_key", id=who.id, username=who.username, role=who.role,
        region_code=who.region_code, visitor_id=who.visitor_id, rights=[r for r in Right if who.may(r)],
        expires_at=who.expires_at,
    )  # fmt: skip


@router.post(
    "/me/password",
    status_code=204,
    response_model=None,
    responses=responses(429),
    dependencies=[needs(Right.SELF_WRITE)],
    summary="Change your own password",
)
async def change_own_password(
    body: PasswordChange, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> Response:
    """Asks for the old one. All your log-ins end, this one too: log in again with the new password."""
    user = await accounts.user_within(session, who, who.id, lock=True)
    checked = await accounts.check_own_password(
        session, parts.access, user, body.old_password, address=who.origin.address, now=now
    )
    if isinstance(checked, Full):
        raise checked.refusal()
    if not checked:
        audit.note(
            session, who, action="user.password_refused", subject_type="user", subject_id=user.id, now=now,
            region_code=user.region_code,
        )  # fmt: skip
        return refusal(InvalidInput("the old password is wrong", field="old_password"))
    if body.password == body.old_password:
        raise InvalidInput("this is the old password; choose another one", field="password")
    await accounts.set_password(session, user, body.password)
    audit.note(
        session, who, action="user.password_changed", subject_type="user", subject_id=user.id, now=now,
        region_code=user.region_code, changes={"password": "changed"},
    )  # fmt: skip
    return Response(status_code=204)


@router.post(
    "/me/revoke-tokens", status_code=204, dependencies=[needs(Right.SELF_WRITE)], summary="End all your log-ins"
)
async def revoke_own_tokens(who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """Every access and refresh token of your account is dead from now on, this one too."""
    await tokens.revoke_all(session, who.id)
    audit.note(
        session, who, action="user.tokens_revoked", subject_type="user", subject_id=who.id, now=now,
        region_code=who.region_code,
    )  # fmt: skip


@router.post("/me/log-out", status_code=204, dependencies=[needs(Right.SELF_WRITE)], summary="End this log-in")
async def log_out(who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """This token and its refresh token are dead from now on; other log-ins of the account go on."""
    if who.login_id is not None:
        await tokens.log_out(session, who.login_id, now=now)
    audit.note(
        session, who, action="login.ended", subject_type="user", subject_id=who.id, now=now,
        region_code=who.region_code, login_id=str(who.login_id),
    )  # fmt: skip
