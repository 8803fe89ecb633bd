"""Accounts: made, found, changed, logged in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit, guard, keys, passwords, tokens
from app.access.guard import Bucket, Full, Hasher, Taken
from app.access.principal import Principal, normal_scope, within
from app.access.tables import User
from app.access.tokens import Tokens
from app.access.vocabulary import RIGHTS_OF, Role
from app.access.wall import beyond
from app.db import Sessions, transaction
from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch
from app.ids import VisitorId, new_uuid

_PATIENCE_S = 10.0  # how long a try waits for those beside it to be decided
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True)
class Access:
    """What accounts and credentials need of a running server. One a process; it prints no secret."""

    tokens: Tokens
    hasher: Hasher


# --- finding and making ----------------------------------------------------------------------------------------------


async def by_name(session: AsyncSession, username: str) -> User | None:
    if "\x00" in username:  # cannot be stored, so no account has it
        return None
    query = select(User).where(sa.func.lower(col(User.username)) == username.lower())
    return (await session.execute(query)).scalar_one_or_none()


async def user_within(
    session: AsyncSession, who: Principal, user_id: UUID, *, version: int | None = None, lock: bool = False
) -> User:
    """Raises `NotFound` for an account that is absent or outside the scope, alike."""
    query = select(User).where(col(User.id) == user_id, within(who, col(User.region_code)))
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("no such account")
    if version is not None and version != found.version:
        raise VersionMismatch("the account changed since you read it; read it again")
    return found


async def create(
    session: AsyncSession,
    *,
    username: str,
    password: str,
    role: Role,
    region_code: str,
    visitor_id: VisitorId | None,
    now: datetime,
) -> User:
    """A new account. Raises `InvalidInput` for a weak password, a scope that is none (the filter of scope trusts it to
    be digits) or a visitor's account without a visitor, and `Conflict` for a name that is taken."""
    passwords.check_rules(password, username=username)
    _check_scope(region_code)
    _check_visitor(role, visitor_id)
    async with beyond(session, "a name is one account's, wherever it is: it logs in without saying where"):
        taken = await by_name(session, username)
    if taken is not None:
        raise Conflict("an account of this username exists", field="username")
    user = User(
        id=new_uuid(now),
        username=username,
        password_hash=await passwords.hash_password(password),
        role=role,
        region_code=normal_scope(region_code),
        visitor_id=visitor_id,
        created_at=now,
    )
    session.add(user)
    await session.flush()
    return user


def _check_scope(region_code: str) -> None:
    if region_code and not (region_code.isascii() and region_code.isdigit() and len(region_code) in (6, 9, 12)):
        raise InvalidInput("a scope has 6, 9 or 12 digits; an empty one means everything", field="region_code")


def _check_visitor(role: Role, visitor_id: UUID | None) -> None:
    if role is Role.VISITOR and visitor_id is None:
        raise InvalidInput("an account of the role visitor names its visitor", field="visitor_id")


def check_gift(who: Principal, *, role: Role, region_code: str) -> None:
    """Nobody gives a right or a region beyond their own. Raises `InvalidInput`."""
    if not RIGHTS_OF[role] <= who.rights:
        raise InvalidInput("a role may not have rights that you do not have yourself", field="role")
    if not who.sees(normal_scope(region_code)):
        raise InvalidInput("the scope must lie within your own", field="region_code")


async def first_administrator(session: AsyncSession, *, username: str, password: str, now: datetime) -> str | None:
    """On an empty table: make the administrator and return the password to print once. Otherwise None."""
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(7301303)"))  # two servers may start at once
    if (await session.scalar(select(sa.func.count()).select_from(User))) != 0:
        return None
    chosen = password or passwords.invent()
    user = await create(
        session, username=username, password=chosen, role=Role.ADMIN, region_code="", visitor_id=None, now=now
    )
    audit.write(
        session, audit.console("shouwang serve"), action="user.created", subject_type="user", subject_id=user.id,
        now=now, region_code="", username=username, role=user.role.value, scope="",
    )  # fmt: skip
    return chosen


# --- changing --------------------------------------------------------------------------------------------------------


async def change(
    session: AsyncSession, who: Principal, user: User, fields: Mapping[str, Any], *, now: datetime
) -> None:
    """Change role, region, visitor or activity of an account within the changer's power. An account that is put to rest
    loses its log-ins at once, and the API keys that it could not make any more are revoked.

    Raises `InvalidInput` for what lies beyond the changer, `Conflict` when a region would lose its last administrator.
    """
    role = Role(fields.get("role", user.role))
    region = normal_scope(fields.get("region_code", user.region_code))
    visitor_id = fields.get("visitor_id", user.visitor_id)
    active = fields.get("active", user.active)
    _check_scope(region)
    check_gift(who, role=role, region_code=region)
    check_gift(who, role=user.role, region_code=user.region_code)  # nor takes away what is above
    if active:
        _check_visitor(role, visitor_id)
    if user.role is Role.ADMIN and user.active and not (role is Role.ADMIN and active and user.region_code == region):
        await _keep_an_administrator(session, user, role=role, region_code=region, active=active)
    user.role, user.region_code, user.visitor_id, user.active = role, region, visitor_id, active
    user.version += 1
    await session.flush()
    if not active:
        await tokens.revoke_all(session, user.id)
    await keys.revoke_beyond(session, who, user, now=now)


async def _keep_an_administrator(
    session: AsyncSession, user: User, *, role: Role, region_code: str, active: bool
) -> None:
    """A trigger holds this too, against two changes at once; here it is said kindly."""
    if active and role is Role.ADMIN and user.region_code.startswith(region_code):
        return
    async with beyond(session, "administrators of the regions above count too"):
        others = await session.scalar(
            sa.text(
                "SELECT count(*) FROM users WHERE role = 'admin' AND active AND id <> :id "
                "AND left(CAST(:region AS text), length(region_code)) = region_code"
            ),
            {"id": user.id, "region": user.region_code},
        )
    if not others:
        raise Conflict("this is the last active administrator of its region; make another one first")


async def set_password(session: AsyncSession, user: User, password: str) -> None:
    """A new password, by the rules. All log-ins of the account end."""
    passwords.check_rules(password, username=user.username)
    user.password_hash = await passwords.hash_password(password)
    user.version += 1
    await session.flush()
    await tokens.revoke_all(session, user.id)


# --- logging in ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """How a try to log in went. `user` is whose name was given, if anybody's; `good` says the password was theirs."""

    user: User | None
    good: bool
    taken: Taken
    buckets: list[Bucket]


async def check_login(
    access: Access, sessions: Sessions, *, username: str, password: str, address: str, device: str | None, now: datetime
) -> Checked:
    """Count the try in a transaction of its own, then check the password outside any. Raises `TooManyRequests`."""
    waited = 0.0
    while True:
        async with transaction(sessions) as session:
            user = await by_name(session, username)
            buckets = guard.buckets_of(
                access.hasher, username=username, address=address,
                device=access.tokens.device_of(device, user.id if user else None, now=now),
                known=await guard.knows(
                    session, user.id if user else UUID(int=0), access.hasher.place(address), now=now
                ),
            )  # fmt: skip
            taken = await guard.take(session, buckets, now=now)
        if isinstance(taken, Taken):
            break
        if not taken.undecided or waited >= _PATIENCE_S:
            raise taken.refusal()
        await asyncio.sleep(_LOOK_AGAIN_S)
        waited += _LOOK_AGAIN_S
    good = await passwords.verify(password, user.password_hash if user else None)
    return Checked(user, good and user is not None and user.active, taken, buckets)


async def welcome(session: AsyncSession, access: Access, checked: Checked, *, address: str, now: datetime) -> None:
    """After a good password: the try is given back, and the place is known from now on."""
    assert checked.user is not None
    await guard.forgive(session, checked.taken, checked.buckets)
    await guard.remember(session, checked.user.id, access.hasher.place(address), now=now)


async def check_own_password(
    session: AsyncSession, access: Access, user: User, password: str, *, address: str, now: datetime
) -> bool | Full:
    """Whether it is the account's password; counted like a log-in from here. The caller commits, whatever it answers."""
    async with beyond(session, "tries are counted before anybody is known"):
        return await _check_counted(session, access, user, password, address=address, now=now)


async def _check_counted(
    session: AsyncSession, access: Access, user: User, password: str, *, address: str, now: datetime
) -> bool | Full:
    own = guard.buckets_of(access.hasher, username=user.username, address=address, device=None, known=True)
    taken = await guard.take(session, own, now=now)
    if isinstance(taken, Full):
        return taken
    if await passwords.verify(password, user.password_hash):
        await guard.forgive(session, taken, own)
        return True
    await guard.settle(session, taken)
    return False


async def sweep(session: AsyncSession, *, now: datetime) -> None:
    """Forget expired log-ins and limits that no longer count."""
    await tokens.sweep(session, now=now)
    await guard.sweep(session, now=now)
