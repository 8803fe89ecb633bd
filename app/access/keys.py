"""API keys of front ends: `sw_<id>_<secret>`, shown once, kept as a hash, with rights and a region of their own.

A key is held by an account and lives as long as that account could make it today (docs/adr/0035).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, normal_scope, within
from app.access.tables import ApiKey, User
from app.access.vocabulary import EVERY_CREDENTIAL, KeyScope, Right, Role
from app.access.wall import beyond
from app.errors import Conflict, InvalidInput, NotFound, NotLoggedIn, VersionMismatch
from app.ids import new_uuid

PREFIX = "sw_"
_ID_CHARS = 32
_SECRET_BYTES = 32
_USE_NOTED_EVERY = timedelta(minutes=1)
_UNKNOWN = "the API key is not one of ours, or it was revoked or has expired"


def looks_like_one(credential: str) -> bool:
    return credential.startswith(PREFIX)


async def make(
    session: AsyncSession,
    who: Principal,
    *,
    name: str,
    scopes: Collection[KeyScope],
    region_code: str,
    expires_at: datetime | None,
    now: datetime,
) -> tuple[ApiKey, str]:
    """A key within the maker's own rights and region, and its text, which nobody can read again.

    Raises `InvalidInput` for rights or a region beyond the maker's own, and for an expiry that has passed."""
    region = normal_scope(region_code)
    check(who, scopes=scopes, region_code=region, expires_at=expires_at, now=now)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        id=new_uuid(now), name=name, secret_hash=_hash(secret), scopes=_ordered(scopes), region_code=region,
        created_by=who.id, held_by=who.id, created_at=now, expires_at=expires_at,
    )  # fmt: skip
    session.add(key)
    await session.flush()
    return key, f"{PREFIX}{key.id.hex}_{secret}"


def check(
    who: Principal, *, scopes: Collection[KeyScope], region_code: str, expires_at: datetime | None, now: datetime
) -> None:
    beyond = sorted(scope.value for scope in scopes if not who.may(Right(scope.value)))
    if beyond:
        raise InvalidInput(f"you have no right to give {', '.join(beyond)}", field="scopes")
    if not who.sees(region_code):
        raise InvalidInput("the scope must lie within your own", field="region_code")
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("this moment has passed", field="expires_at")


def _ordered(scopes: Collection[KeyScope]) -> list[str]:
    return [scope.value for scope in KeyScope if scope in scopes]


async def key_within(
    session: AsyncSession, who: Principal, key_id: UUID, *, version: int | None = None, lock: bool = False
) -> ApiKey:
    """Raises `NotFound` for a key that is absent or outside the scope, alike."""
    query = select(ApiKey).where(col(ApiKey.id) == key_id, within(who, col(ApiKey.region_code)))
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such API key")
    if version is not None and version != found.version:
        raise VersionMismatch("the API key changed since you read it; read it again")
    return found


async def list_keys(session: AsyncSession, who: Principal, *, limit: int, before: UUID | None) -> Sequence[ApiKey]:
    query = select(ApiKey).where(within(who, col(ApiKey.region_code)))
    if before:
        query = query.where(col(ApiKey.id) < before)
    return (await session.execute(query.order_by(col(ApiKey.id).desc()).limit(limit + 1))).scalars().all()


async def principal(session: AsyncSession, credential: str, *, now: datetime) -> tuple[Principal, bool]:
    """Who shows this key, and whether its use is to be noted. Raises `NotLoggedIn`, alike for every reason."""
    key_id, secret = _parts(credential)
    found = (await session.execute(_HELD.where(col(ApiKey.id) == key_id))).one_or_none() if key_id else None
    right = hmac.compare_digest(_hash(secret), found.ApiKey.secret_hash if found else bytes(32))
    who = _living(found.ApiKey, found.User, now) if found and right else None
    if found is None or who is None:
        raise NotLoggedIn(_UNKNOWN)
    return who, found.ApiKey.last_used_at is None or now - found.ApiKey.last_used_at >= _USE_NOTED_EVERY


async def standing(session: AsyncSession, key_id: UUID, *, now: datetime) -> Principal | None:
    """The key as it is now; None when it has ended."""
    found = (await session.execute(_HELD.where(col(ApiKey.id) == key_id))).one_or_none()
    return _living(found.ApiKey, found.User, now) if found else None


_HELD = select(ApiKey, User).join(User, col(User.id) == col(ApiKey.held_by))


def _living(key: ApiKey, holder: User, now: datetime) -> Principal | None:
    if (
        key.revoked_at is not None
        or (key.expires_at is not None and key.expires_at <= now)
        or beyond_holder(key, holder)
    ):
        return None
    rights = EVERY_CREDENTIAL | {Right(scope) for scope in key.scopes}
    return Principal(key.id, key.name, None, key.region_code, None, rights, key.expires_at)


# --- the account that holds a key ------------------------------------------------------------------------------------


def beyond_holder(key: ApiKey, holder: User) -> str | None:
    """Why this account could not make the key today; None when it could."""
    who = Principal(holder.id, holder.username, Role(holder.role), holder.region_code, holder.visitor_id)
    if not holder.active:
        return "its account is not active"
    if not who.may(Right.API_KEYS):
        return "its account may not make keys any more"
    if not all(who.may(Right(scope)) for scope in key.scopes):
        return "its account has not all its rights any more"
    return None if who.sees(key.region_code) else "its account does not see its region any more"


async def take_over(session: AsyncSession, who: Principal, key: ApiKey, *, now: datetime) -> None:
    """From now on `who`, an account, holds the key. Raises `InvalidInput` for what they could not make themselves, and
    `Conflict` for a key that has ended."""
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise Conflict("the API key has ended; make a new one")
    check(who, scopes=[KeyScope(scope) for scope in key.scopes], region_code=key.region_code, expires_at=None, now=now)
    before, key.held_by = key.held_by, who.id
    key.version += 1
    audit.note(
        session, who, action="api_key.taken_over", subject_type="api_key", subject_id=key.id, now=now,
        region_code=key.region_code, changes={"held_by": {"from": str(before), "to": str(who.id)}},
    )  # fmt: skip


async def revoke_beyond(session: AsyncSession, who: Principal, holder: User, *, now: datetime) -> None:
    """After `holder` was changed by `who`: revoke the keys it could not make any more."""
    query = select(ApiKey).where(col(ApiKey.held_by) == holder.id, col(ApiKey.revoked_at).is_(None))
    async with beyond(session, "keys end with the account that holds them, wherever they see"):
        for key in (await session.scalars(query.order_by(col(ApiKey.id)).with_for_update())).all():
            because = beyond_holder(key, holder)
            if because is None:
                continue
            key.revoked_at = now
            key.version += 1
            audit.note(
                session, who, action="api_key.revoked", subject_type="api_key", subject_id=key.id, now=now,
                region_code=key.region_code, because=because, held_by=str(holder.id),
            )  # fmt: skip


async def note_use(session: AsyncSession, key_id: UUID, *, now: datetime) -> None:
    """Whoever finds the row held by another leaves it: that one notes the same minute."""
    await session.execute(
        sa.text(
            "UPDATE api_keys SET last_used_at = :now WHERE id IN "
            "(SELECT id FROM api_keys WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)"
        ),
        {"id": key_id, "now": now},
    )


def _parts(credential: str) -> tuple[UUID | None, str]:
    rest = credential.removeprefix(PREFIX)
    ident, mark, secret = rest[:_ID_CHARS], rest[_ID_CHARS : _ID_CHARS + 1], rest[_ID_CHARS + 1 :]
    try:
        return (UUID(hex=ident) if mark == "_" and len(ident) == _ID_CHARS else None), secret
    except ValueError:
        return None, secret


def _hash(secret: str) -> bytes:
    """Plain SHA-256 is enough: the secret is 256 random bits, there is nothing to guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
