"""Who asks, what they may, and how far they see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import sqlalchemy as sa

from app.access.vocabulary import RIGHTS_OF, Right, Role
from app.errors import NotAllowed

__all__ = ["ANYWHERE", "Origin", "Principal", "Right", "begins", "normal_scope", "within"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, for the audit log: never for a decision about rights."""

    address: str = ""
    user_agent: str = ""
    request_id: str = ""


ANYWHERE = Origin()
DISTRICT_DIGITS = 6  # of a scope; that of a township is longer


@dataclass(frozen=True, slots=True)
class Principal:
    """An account or an API key with its region: it sees codes that begin with `region_code`, and nothing else exists
    for it. An account has a role, which gives its rights; a key has none, and the rights it was made with."""

    id: UUID
    username: str  # of a key: its name
    role: Role | None
    region_code: str
    visitor_id: UUID | None
    granted: frozenset[Right] | None = None  # of a key
    expires_at: datetime | None = None  # of the token or key that was shown
    login_id: UUID | None = None  # of a token: the log-in it comes from
    origin: Origin = ANYWHERE

    @property
    def rights(self) -> frozenset[Right]:
        if self.granted is not None:
            return self.granted
        return RIGHTS_OF[self.role] if self.role else frozenset()

    def may(self, right: Right) -> bool:
        return right in self.rights

    def must(self, right: Right) -> None:
        """Raises `NotAllowed` when the role or the key has no such right."""
        if not self.may(right):
            holder = f"the role {self.role.value}" if self.role else "this API key"
            raise NotAllowed(f"{holder} has no right to {right.value}")

    def must_oversee_a_district(self) -> None:
        """Raises `NotAllowed` for an account or key of a township or village: what all regions share is not theirs to change."""
        if len(self.region_code) > DISTRICT_DIGITS:
            raise NotAllowed("all regions share this: only an account or key of the whole district may change it")

    def sees(self, region_code: str) -> bool:
        return region_code.startswith(self.region_code)

    def who(self) -> dict[str, Any]:
        """How the account or key appears in histories."""
        return {"type": "user" if self.role else "api_key", "id": str(self.id), "name": self.username}

    def asking_from(self, origin: Origin) -> Self:
        return replace(self, origin=origin)

    def same_power(self, other: Principal) -> bool:
        """Whether nothing changed in what may be done and seen: a stream that is open may stay open."""
        return (self.rights, self.region_code, self.visitor_id) == (other.rights, other.region_code, other.visitor_id)


def within(principal: Principal, column: Any) -> sa.ColumnElement[bool]:
    """The filter of scope: rows whose region code begins with the principal's. Every list and look-up by region uses it,
    and the database's own wall (`app.access.scope`) stands behind it."""
    return begins(column, principal.region_code)


def begins(column: Any, prefix: str) -> sa.ColumnElement[bool]:
    """Region codes below a prefix. `^@` and not LIKE: only operators that leak nothing may use an index behind the wall."""
    return sa.cast(column, sa.Text).op("^@", is_comparison=True)(sa.cast(prefix, sa.Text))


def normal_scope(code: str) -> str:
    """A scope as a prefix: `370302000000` and `370302` both mean the district, `370302001000` the township."""
    if len(code) == 12:
        if code.endswith("000000"):
            return code[:6]
        if code.endswith("000"):
            return code[:9]
    return code
