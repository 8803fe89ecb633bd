"""The audit log, for those who may read it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from app.access import audit
from app.access.principal import Right
from app.access.tables import AuditEntry
from app.api import pages
from app.api.bodies import Moment
from app.api.context import PrincipalDep, SessionDep, needs
from app.api.transactional import Transactional, idempotent

router = APIRouter(route_class=Transactional, tags=["audit"], dependencies=[Depends(idempotent)])
_TEXT = r"^[^\x00]*$"


class Actor(BaseModel):
    type: str = Field(examples=["user"], description="user, api_key, anonymous or console.")
    id: str | None = None
    name: str | None = None


class From(BaseModel):
    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


class AuditOut(BaseModel):
    number: int = Field(description="1, 2, 3 … without a gap.")
    at: datetime
    actor: Actor
    action: str = Field(examples=["elder.changed"])
    subject_type: str = Field(examples=["elder"])
    subject_id: str
    region_code: str | None
    origin: From
    detail: dict[str, Any] = Field(
        examples=[{"changes": {"status": {"from": "active", "to": "moved"}, "phone": "changed"}}]
    )
    hash: str = Field(description="Covers this row and the hash of the one before: `shouwang verify-audit`.")


@router.get("/audit-log", dependencies=[needs(Right.AUDIT_READ)], summary="Who did what within your scope")
async def audit_log(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    actor: Annotated[str | None, Query(max_length=100, pattern=_TEXT, description="An id, or a name.")] = None,
    action: Annotated[
        str | None, Query(max_length=64, pattern=_TEXT, description="`user.created`, or `user` for all of them.")
    ] = None,
    subject_type: Annotated[str | None, Query(max_length=32, pattern=_TEXT)] = None,
    subject: Annotated[
        str | None, Query(max_length=128, pattern=_TEXT, description="The id of what it is about.")
    ] = None,
    since: Annotated[Moment | None, Query(alias="from", description="Not before.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Before.")] = None,
) -> pages.Page[AuditOut]:
    """Newest first. Nobody can change or remove a row."""
    before = pages.decode(cursor, int)
    rows = await audit.entries(
        session, who, limit=limit, before=before[0] if before else None, actor=actor, action=action,
        subject_type=subject_type, subject=subject, since=since, until=until,
    )  # fmt: skip
    return pages.Page[AuditOut].model_validate(pages.page(rows, limit, _shape, "id"))


def _shape(row: AuditEntry) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in AuditOut.model_fields if name not in ("number", "hash")}
    return {**shown, "number": row.id, "hash": row.hash.hex()}
