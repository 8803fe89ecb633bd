"""Accounts: made, found, logged in."""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import passwords
from app.access.principal import normal_scope
from app.access.tables import User
from app.access.vocabulary import Role
from app.errors import Conflict, InvalidInput, NotLoggedIn, TooManyRequests
from app.ids import VisitorId, new_uuid

_TRIES = 10
_WINDOW = timedelta(minutes=5)


class LoginGuard:
    """Failed log-ins per account name, in this process; the count for all processes comes with the trust issue."""

    def __init__(self) -> None:
        self._failures: dict[str, deque[datetime]] = defaultdict(deque)

    def check(self, username: str, now: datetime) -> None:
        """Raises `TooManyRequests` with the seconds to wait."""
        failures = self._failures[username.lower()]
        while failures and now - failures[0] > _WINDOW:
            failures.popleft()
        if len(failures) >= _TRIES:
            wait = int((failures[0] + _WINDOW - now).total_seconds()) + 1
            raise TooManyRequests(f"{_TRIES} failed log-ins in 5 minutes; wait {wait} s", retry_after_s=wait)

    def failed(self, username: str, now: datetime) -> None:
        if len(self._failures) > 10_000:
            self._failures.clear()
        self._failures[username.lower()].append(now)


async def log_in(session: AsyncSession, guard: LoginGuard, *, username: str, password: str, now: datetime) -> User:
    """The account, or `NotLoggedIn` without saying which of name and password was wrong."""
    guard.check(username, now)
    user = await by_name(session, username)
    if not await passwords.verify(password, user.password_hash if user else None) or user is None or not user.active:
        guard.failed(username, now)
        raise NotLoggedIn("the username or the password is wrong")
    return user


async def by_name(session: AsyncSession, username: str) -> User | None:
    query = select(User).where(sa.func.lower(col(User.username)) == username.lower())
    return (await session.execute(query)).scalar_one_or_none()


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
    """A new account. Raises `InvalidInput` for a weak password or a scope that is none (the filter of scope trusts it to
    be digits), and `Conflict` for a name that is taken."""
    passwords.check_rules(password, username=username)
    if region_code and not (region_code.isascii() and region_code.isdigit() and len(region_code) in (6, 9, 12)):
        raise InvalidInput("a scope has 6, 9 or 12 digits; an empty one means everything", field="region_code")
    if await by_name(session, username) is not None:
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


async def first_administrator(session: AsyncSession, *, username: str, password: str, now: datetime) -> str | None:
    """On an empty table: make the administrator and return the password to print once. Otherwise None."""
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(7301303)"))  # two servers may start at once
    if (await session.scalar(select(sa.func.count()).select_from(User))) != 0:
        return None
    chosen = password or passwords.invent()
    await create(session, username=username, password=chosen, role=Role.ADMIN, region_code="", visitor_id=None, now=now)
    return chosen
