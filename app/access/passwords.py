"""Argon2 hashes, made in a thread: one takes a tenth of a second."""

from __future__ import annotations

import asyncio
import secrets

from pwdlib import PasswordHash

from app.errors import InvalidInput

MIN_LENGTH = 10
MAX_LENGTH = 256
_hasher = PasswordHash.recommended()
# Verified when no such account exists, so that a wrong name takes as long as a wrong password.
_NOBODY = _hasher.hash(secrets.token_urlsafe(16))


def check_rules(password: str, *, username: str) -> None:
    """Raises `InvalidInput` that says what a good password is."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise InvalidInput(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters", field="password")
    if password.lower() == username.lower() or len(set(password)) < 5:
        raise InvalidInput(
            "choose a password that is not the username and has 5 or more different characters", field="password"
        )


async def hash_password(password: str) -> str:
    return await asyncio.to_thread(_hasher.hash, password)


async def verify(password: str, hashed: str | None) -> bool:
    good = await asyncio.to_thread(_hasher.verify, password, hashed or _NOBODY)
    return good and hashed is not None


def invent() -> str:
    """A password for a person to copy once."""
    return secrets.token_urlsafe(12)
