"""API keys of front ends."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from app.access import audit, keys
from app.access.principal import Right
from app.access.tables import ApiKey
from app.access.vocabulary import KeyScope
from app.api import pages
from app.api.bodies import Body, Moment, Name, Scope, etag, example, explicit, if_match
from app.api.context import NowDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.errors import InvalidInput

router = APIRouter(route_class=Transactional, tags=["accounts"], dependencies=[Depends(idempotent)])
_SCOPES = Field(min_length=1, max_length=len(KeyScope), examples=[["elders:read", "alarms:read"]])


class KeyIn(Body):
    model_config = example(
        name="值班大屏", scopes=["elders:read", "alarms:read", "alarms:write"], region_code="370302001",
        expires_at="2199-12-31T00:00:00+08:00",
    )  # fmt: skip
    name: Name = Field(examples=["值班大屏"])
    scopes: list[KeyScope] = _SCOPES
    region_code: Scope = Field(examples=["370302001"])
    expires_at: Moment | None = Field(default=None, description="Never when absent.")


class KeyChange(Body):
    model_config = example(name="值班大屏 二号")
    name: Name | None = None
    expires_at: Moment | None = Field(default=None, description="null: never.")


class KeyOut(BaseModel):
    id: UUID
    name: str
    scopes: list[KeyScope]
    region_code: str
    created_by: UUID
    held_by: UUID = Field(
        description="The account it stands on: the key ends when this one could not make it any more."
    )
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class NewKey(KeyOut):
    key: str = Field(repr=False, description="Shown in this answer and never again. `Authorization: Bearer <key>`.")


@router.get("/api-keys", dependencies=[needs(Right.API_KEYS)], summary="API keys within your region")
async def api_keys(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[KeyOut]:
    """Revoked ones too."""
    before = pages.decode(cursor, UUID)
    rows = await keys.list_keys(session, who, limit=limit, before=before[0] if before else None)
    return pages.Page[KeyOut].model_validate(pages.page(rows, limit, _shape, "id"))


@router.post("/api-keys", status_code=201, dependencies=[needs(Right.API_KEYS)], summary="Make an API key")
async def add_key(body: KeyIn, response: Response, who: PrincipalDep, session: SessionDep, now: NowDep) -> NewKey:
    """Within your own region and rights. The key is shown once; the server keeps a hash of it. It ends when your account
    could not make it any more: when it is put to rest, is no administrator any more, or sees less."""
    made, text = await keys.make(
        session, who, name=body.name, scopes=body.scopes, region_code=body.region_code, expires_at=body.expires_at,
        now=now,
    )  # fmt: skip
    audit.note(
        session, who, action="api_key.made", subject_type="api_key", subject_id=made.id, now=now,
        region_code=made.region_code, name=made.name, scopes=made.scopes, expires_at=made.expires_at,
    )  # fmt: skip
    response.headers.update({**etag(made.version), "Location": f"/api/v1/api-keys/{made.id}"})
    response.headers["Cache-Control"] = "no-store"
    return NewKey.model_validate({**_shape(made), "key": text})


@router.get("/api-keys/{key_id}", responses=responses(404), dependencies=[needs(Right.API_KEYS)], summary="One API key")
async def api_key(key_id: UUID, response: Response, who: PrincipalDep, session: SessionDep) -> KeyOut:
    found = await keys.key_within(session, who, key_id)
    response.headers.update(etag(found.version))
    return KeyOut.model_validate(_shape(found))


@router.patch(
    "/api-keys/{key_id}",
    responses=responses(404, 412),
    dependencies=[needs(Right.API_KEYS)],
    summary="Rename an API key, or move its end",
)
async def change_key(
    key_id: UUID,
    body: KeyChange,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> KeyOut:
    """Rights and region stay as they were made; a revoked key stays revoked."""
    fields = explicit(body)
    if "name" in fields and fields["name"] is None:
        raise InvalidInput("cannot be null; leave it out to keep it", field="name")
    found = await keys.key_within(session, who, key_id, version=version, lock=True)
    scopes = [KeyScope(scope) for scope in found.scopes]
    keys.check(who, scopes=scopes, region_code=found.region_code, expires_at=fields.get("expires_at"), now=now)
    before = {name: getattr(found, name) for name in fields}
    for name, value in fields.items():
        setattr(found, name, value)
    found.version += 1
    audit.note(
        session, who, action="api_key.changed", subject_type="api_key", subject_id=key_id, now=now,
        region_code=found.region_code, changes=audit.changes(before, fields, plain=("name", "expires_at")),
    )  # fmt: skip
    response.headers.update(etag(found.version))
    return KeyOut.model_validate(_shape(found))


@router.delete(
    "/api-keys/{key_id}",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.API_KEYS)],
    summary="Revoke an API key",
)
async def revoke_key(key_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """From now on it answers 401; its open streams end within seconds. It stays in the list. Twice is once."""
    found = await keys.key_within(session, who, key_id, lock=True)
    if found.revoked_at is not None:
        return
    found.revoked_at = now
    found.version += 1
    audit.note(
        session, who, action="api_key.revoked", subject_type="api_key", subject_id=key_id, now=now,
        region_code=found.region_code,
    )  # fmt: skip


@router.post(
    "/api-keys/{key_id}/take-over",
    responses=responses(404, 409),
    dependencies=[needs(Right.API_KEYS)],
    summary="Hold an API key yourself",
)
async def take_over_key(
    key_id: UUID, response: Response, who: PrincipalDep, session: SessionDep, now: NowDep
) -> KeyOut:
    """From now on it stands on your account: do this before the account that holds it is put to rest. The key itself
    stays the same."""
    found = await keys.key_within(session, who, key_id, lock=True)
    await keys.take_over(session, who, found, now=now)
    response.headers.update(etag(found.version))
    return KeyOut.model_validate(_shape(found))


def _shape(key: ApiKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in KeyOut.model_fields}
