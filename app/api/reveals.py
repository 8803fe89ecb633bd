"""Showing what is sealed: a right, a stated purpose, and an audit row in the transaction of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import audit
from app.access.principal import Principal, Right
from app.api.bodies import one_line
from app.api.context import PrincipalDep
from app.discretion import without_identity
from app.elders.tables import Elder, Visitor

Purpose = Annotated[
    str,
    StringConstraints(min_length=2, max_length=200, strip_whitespace=True),
    AfterValidator(one_line),
    Field(description="Why, for the audit log: names and numbers are left out of it.", examples=["回访核对地址"]),
]
_WANTED = "say why: add purpose=… (2 to 200 characters); it is written into the audit log"


@dataclass(frozen=True, slots=True)
class Reveal:
    """Somebody with the right asked to see, and said why."""

    purpose: str

    def note(
        self,
        session: AsyncSession,
        who: Principal,
        *,
        action: str,
        subject_type: str,
        subject_id: UUID | str,
        region_code: str | None,
        names: tuple[str, ...],
        now: datetime,
        **detail: Any,
    ) -> None:
        """The audit row. `names` are those of the people shown: they do not get into it."""
        audit.note(
            session, who, action=action, subject_type=subject_type, subject_id=subject_id, now=now,
            region_code=region_code, purpose=without_identity(self.purpose, *names), **detail,
        )  # fmt: skip


def note_reveal(
    reveal: Reveal | None,
    session: AsyncSession,
    who: Principal,
    action: str,
    of: Elder | Visitor,
    names: tuple[str, ...],
    now: datetime,
) -> None:
    """The audit row of a reveal of what belongs to somebody of the register, if one was asked for."""
    if reveal:
        reveal.note(
            session, who, action=action, subject_type=action.split(".")[0], subject_id=of.id,
            region_code=of.region_code, names=names, now=now,
        )  # fmt: skip


def must_say_why(purpose: str | None) -> str:
    """Raises the problem of a missing query parameter."""
    if purpose is None:
        raise RequestValidationError([{"type": "missing", "loc": ("query", "purpose"), "msg": _WANTED, "input": None}])
    return purpose


async def asked(
    who: PrincipalDep,
    reveal: Annotated[
        bool, Query(description="Show sealed fields: needs the right `reveal` and a `purpose`, and is an audit row.")
    ] = False,
    purpose: Annotated[Purpose | None, Query()] = None,
) -> Reveal | None:
    """What `?reveal=true&purpose=…` asks for; None when it does not."""
    if not reveal:
        return None
    who.must(Right.REVEAL)
    return Reveal(must_say_why(purpose))


RevealDep = Annotated[Reveal | None, Depends(asked)]
