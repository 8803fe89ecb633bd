"""Who asks, what they may, and how far they see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import jwt
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.tables import User
from app.access.vocabulary import Role
from app.errors import NotAllowed, NotLoggedIn

TOKEN_LIFE = timedelta(hours=12)
_ALGORITHM = "HS256"


class Right(StrEnum):
    READ = "read"
    HANDLE_ALARMS = "handle_alarms"
    RECORD_VISITS = "record_visits"
    MANAGE = "manage"  # people, devices, bindings, policies, regions
    REVEAL = "reveal"
    ACCOUNTS = "accounts"


_RIGHTS: dict[Role, frozenset[Right]] = {
    Role.ADMIN: frozenset(Right),
    Role.SUPERVISOR: frozenset(Right) - {Right.ACCOUNTS},
    Role.OPERATOR: frozenset({Right.READ, Right.HANDLE_ALARMS, Right.RECORD_VISITS}),
    Role.VISITOR: frozenset({Right.READ, Right.HANDLE_ALARMS, Right.RECORD_VISITS}),
    Role.AUDITOR: frozenset({Right.READ}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """An account with its region: it sees codes that begin with `region_code`, and nothing else exists for it."""

    id: UUID
    username: str
    role: Role
    region_code: str
    visitor_id: UUID | None

    def must(self, right: Right) -> None:
        """Raises `NotAllowed` when the role has no such right."""
        if right not in _RIGHTS[self.role]:
            raise NotAllowed(f"the role {self.role.value} has no right to {right.value.replace('_', ' ')}")

    def sees(self, region_code: str) -> bool:
        return region_code.startswith(self.region_code)

    def who(self) -> dict[str, Any]:
        """How the account appears in histories."""
        return {"type": "user", "id": str(self.id), "name": self.username}


def within(principal: Principal, column: Any) -> sa.ColumnElement[bool]:
    """The one filter of scope: rows whose region code begins with the principal's. Every list and look-up uses it."""
    return sa.cast(column, sa.Text).like(principal.region_code + "%")


def normal_scope(code: str) -> str:
    """A scope as a prefix: `370302000000` and `370302` both mean the district, `370302001000` the township."""
    if len(code) == 12:
        if code.endswith("000000"):
            return code[:6]
        if code.endswith("000"):
            return code[:9]
    return code


def issue_token(user: User, *, key: bytes, now: datetime) -> tuple[str, int]:
    """A bearer token and its life in seconds."""
    claims = {"sub": str(user.id), "iat": now, "exp": now + TOKEN_LIFE}
    return jwt.encode(claims, key, algorithm=_ALGORITHM), int(TOKEN_LIFE.total_seconds())


async def principal_of(session: AsyncSession, token: str, *, key: bytes, now: datetime) -> Principal:
    """Raises `NotLoggedIn` for a token that is forged, expired, or of an account that is no longer active."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            options={"verify_exp": False, "verify_iat": False, "require": ["sub", "exp"]},
        )
        user_id = UUID(claims["sub"])
        expired = now.timestamp() >= float(claims["exp"])
    except (jwt.InvalidTokenError, ValueError, TypeError):
        raise NotLoggedIn("the bearer token is not one of ours; get one from POST /api/v1/auth/token") from None
    if expired:
        raise NotLoggedIn("the bearer token has expired; get a new one from POST /api/v1/auth/token")
    user = (await session.execute(select(User).where(col(User.id) == user_id))).scalar_one_or_none()
    if user is None or not user.active:
        raise NotLoggedIn("the account of this token is no longer active")
    return Principal(user.id, user.username, user.role, user.region_code, user.visitor_id)
