"""Log-ins and their tokens: a short access token that is asked about at each request, and a refresh token used once.

The access token (JWT) names its log-in; the log-in's row and the account's generation decide whether it still lives. So
one step - ending a log-in, or moving the account to its next generation - ends every token at once, in all processes.
Refresh tokens are random, kept as hashes, and replaced by each use; one that comes a second time ends its log-in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.principal import Principal
from app.access.tables import LogIn, RefreshToken, User
from app.access.vocabulary import Role
from app.errors import NotLoggedIn
from app.ids import new_uuid

REFRESH_PREFIX = "swr_"
DEVICE_LIFE = timedelta(days=180)
_ALGORITHM = "HS256"
_AGAIN = "get a new one from POST /api/v1/auth/token"


@dataclass(frozen=True, slots=True)
class Issued:
    """What a log-in gives. Shown once; neither token appears in a repr."""

    user_id: UUID
    login_id: UUID
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class Reused:
    """A refresh token came a second time: its log-in has been ended."""

    user_id: UUID
    login_id: UUID
    region_code: str


class Tokens:
    """Makes and reads tokens. It holds a secret: nothing of it in its repr."""

    def __init__(self, key: bytes, *, access_life: timedelta, refresh_life: timedelta) -> None:
        self._access_key = hmac.digest(key, b"access token", "sha256")
        self._device_key = hmac.digest(key, b"device token", "sha256")
        self._access_life = access_life
        self._refresh_life = refresh_life

    async def log_in(self, session: AsyncSession, user: User, *, now: datetime) -> Issued:
        """A new log-in of the generation that `user` had when its password was read: a reset in between ends it."""
        login = LogIn(
            id=new_uuid(now), user_id=user.id, generation=user.token_generation, created_at=now,
            expires_at=now + self._refresh_life,
        )  # fmt: skip
        session.add(login)
        await session.flush()
        return await self._issue(session, user.id, login.id, now=now)

    async def refresh(self, session: AsyncSession, token: str, *, now: datetime) -> Issued | Reused:
        """New tokens for a refresh token. Raises `NotLoggedIn` for one that is unknown or whose log-in is over; answers
        `Reused` for one that was used before, with its log-in ended: commit that."""
        hashed = _hash(token)
        used = await session.execute(
            sa.text(
                "UPDATE refresh_tokens SET used_at = :now WHERE hash = :hash AND used_at IS NULL RETURNING login_id"
            ),
            {"hash": hashed, "now": now},
        )
        login_id = used.scalar_one_or_none()
        if login_id is None:
            return await self._reused(session, hashed, now=now)
        living = (await session.execute(_LIVING, {"login": login_id, "now": now})).one_or_none()
        if living is None:
            raise NotLoggedIn(f"the log-in of this refresh token is over; {_AGAIN} with username and password")
        return await self._issue(session, living.id, login_id, now=now)

    async def _issue(self, session: AsyncSession, user_id: UUID, login_id: UUID, *, now: datetime) -> Issued:
        refresh = REFRESH_PREFIX + secrets.token_urlsafe(32)
        session.add(RefreshToken(hash=_hash(refresh), login_id=login_id, issued_at=now))
        claims = {"sub": str(user_id), "sid": str(login_id), "iat": now, "exp": now + self._access_life}
        access = jwt.encode(claims, self._access_key, algorithm=_ALGORITHM)
        return Issued(user_id, login_id, access, refresh, int(self._access_life.total_seconds()))

    async def _reused(self, session: AsyncSession, hashed: bytes, *, now: datetime) -> Reused:
        owner = (
            await session.execute(
                sa.text(
                    "UPDATE logins l SET ended_at = coalesce(l.ended_at, :now) FROM refresh_tokens t, users u "
                    "WHERE t.hash = :hash AND l.id = t.login_id AND u.id = l.user_id "
                    "RETURNING l.id, l.user_id, u.region_code"
                ),
                {"hash": hashed, "now": now},
            )
        ).one_or_none()
        if owner is None:
            raise NotLoggedIn(f"the refresh token is not one of ours; {_AGAIN} with username and password")
        return Reused(owner.user_id, owner.id, owner.region_code)

    async def principal(self, session: AsyncSession, token: str, *, now: datetime) -> Principal:
        """Who shows this access token. Raises `NotLoggedIn` for one that is forged, expired, or of a log-in or an account
        that has ended."""
        try:
            claims = jwt.decode(
                token, self._access_key, algorithms=[_ALGORITHM],
                options={"verify_exp": False, "verify_iat": False, "require": ["sub", "sid", "exp"]},
            )  # fmt: skip
            user_id, login_id = UUID(claims["sub"]), UUID(claims["sid"])
            expires_at = datetime.fromtimestamp(float(claims["exp"]), UTC)
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
            raise NotLoggedIn(f"the bearer token is not one of ours; {_AGAIN}") from None
        if now >= expires_at:
            raise NotLoggedIn(f"the bearer token has expired; {_AGAIN} (a refresh token will do)")
        user = (await session.execute(_LIVING, {"login": login_id, "now": now})).one_or_none()
        if user is None or user.id != user_id:
            raise NotLoggedIn("the log-in of this token is over: logged out, revoked, or its account is not active")
        return Principal(
            user.id, user.username, Role(user.role), user.region_code, user.visitor_id, None, expires_at, login_id
        )

    # --- devices: what lets a browser or program that logged in before past the limits that strangers fill ------------

    def device_token(self, user_id: UUID, *, now: datetime) -> str:
        claims = {"sub": str(user_id), "dev": secrets.token_urlsafe(12), "exp": now + DEVICE_LIFE}
        return jwt.encode(claims, self._device_key, algorithm=_ALGORITHM)

    def device_of(self, token: str | None, user_id: UUID | None, *, now: datetime) -> str | None:
        """The name of the device when the token was given to it at a log-in of this account; otherwise None."""
        if not token or user_id is None:
            return None
        try:
            claims = jwt.decode(
                token, self._device_key, algorithms=[_ALGORITHM],
                options={"verify_exp": False, "require": ["sub", "dev", "exp"]},
            )  # fmt: skip
            good = claims["sub"] == str(user_id) and now.timestamp() < float(claims["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError):
            return None
        return str(claims["dev"]) if good else None


# The one question behind every request with a token: is its log-in alive, and whose is it?
_LIVING = sa.text(
    """
    SELECT u.id, u.username, u.role, u.region_code, u.visitor_id
    FROM logins l JOIN users u ON u.id = l.user_id
    WHERE l.id = :login AND l.ended_at IS NULL AND l.expires_at > :now AND u.active AND u.token_generation = l.generation
    """
)


def _hash(token: str) -> bytes:
    """Plain SHA-256 is enough: the token is 256 random bits, there is nothing to guess."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


async def log_out(session: AsyncSession, login_id: UUID, *, now: datetime) -> None:
    """End one log-in."""
    await session.execute(
        sa.text("UPDATE logins SET ended_at = :now WHERE id = :id AND ended_at IS NULL"), {"id": login_id, "now": now}
    )


async def revoke_all(session: AsyncSession, user_id: UUID) -> None:
    """End every log-in of an account, those that are just being made too."""
    await session.execute(
        sa.text("UPDATE users SET token_generation = token_generation + 1 WHERE id = :id"), {"id": user_id}
    )


async def sweep(session: AsyncSession, *, now: datetime) -> None:
    """Forget log-ins that expired or ended a day ago, with their refresh tokens."""
    await session.execute(
        sa.text("DELETE FROM logins WHERE expires_at < :before OR ended_at < :before"),
        {"before": now - timedelta(days=1)},
    )
