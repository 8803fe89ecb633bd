"""Passwords: what a good one is (after NIST SP 800-63B: length and no guessable ones, no rules of composition), and argon2.

One hash takes a tenth of a second and 64 MB, so hashing has threads of its own: somebody who hammers the log-in does not
take the threads that the rest of the server needs, and waits in a line that ends.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

from pwdlib import PasswordHash

from app.errors import InvalidInput, Unavailable

MIN_LENGTH = 10
MAX_LENGTH = 256
_MIN_DIFFERENT = 5
_LONGEST_LINE = 64
_hasher = PasswordHash.recommended()
_threads = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="argon2")
_waiting = 0


def check_rules(password: str, *, username: str, field: str = "password") -> None:
    """Raises `InvalidInput` that names every rule the password breaks."""
    text = _normal(password)
    broken = []
    if len(text) < MIN_LENGTH:
        broken.append(f"it has {len(text)} characters, and needs at least {MIN_LENGTH}")
    if len(text) > MAX_LENGTH:
        broken.append(f"it has more than {MAX_LENGTH} characters")
    if len(set(text)) < _MIN_DIFFERENT:
        broken.append(f"it has fewer than {_MIN_DIFFERENT} different characters")
    if _core(text) == _core(_normal(username)):
        broken.append("it is the username")
    if _counts(text):
        broken.append("it counts up or down")
    if _guessed_first(text):
        broken.append("it is on the list of passwords that are guessed first")
    if broken:
        advice = "three or four unrelated words make a good one"
        raise InvalidInput(f"this password cannot be used: {'; '.join(broken)} ({advice})", field=field)


def _normal(password: str) -> str:
    """The same keys give the same password whatever input method sent them (full-width digits, composed letters)."""
    return unicodedata.normalize("NFKC", password)


def _core(text: str) -> str:
    """The word without what people put behind it: `Zichuan2026!` is `zichuan`."""
    word = text.casefold().strip()
    return word.rstrip("0123456789!@#$%^&*?._-~+=") or word


def _counts(text: str) -> bool:
    """`12345678901234`, `abcdefghijk`, backwards too: a list of guesses has them at any length."""
    steps = {(ord(after) - ord(before)) % 10 if after.isdigit() and before.isdigit() else ord(after) - ord(before)
             for before, after in pairwise(text.casefold())}  # fmt: skip
    return steps in ({1}, {-1}, {9})


def _guessed_first(text: str) -> bool:
    word = text.casefold().strip()
    return word in _common() or _core(word) in _common()


@cache
def _common() -> frozenset[str]:
    lines = Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


async def hash_password(password: str) -> str:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, _hasher.hash, _normal(password))


def _check(password: str, hashed: str | None) -> bool:
    return _hasher.verify(password, hashed or _nobodys())


@cache
def _nobodys() -> str:
    """Verified when no such account exists, so that a wrong name takes as long as a wrong password."""
    return _hasher.hash(secrets.token_urlsafe(16))


async def verify(password: str, hashed: str | None) -> bool:
    """Whether it is the password; with no hash it takes as long and is not. Raises `Unavailable` when too many wait."""
    global _waiting
    if _waiting >= _LONGEST_LINE:
        raise Unavailable("too many log-ins at once; try again in a few seconds")
    _waiting += 1
    try:
        loop = asyncio.get_running_loop()
        good = await loop.run_in_executor(_threads, _check, _normal(password), hashed)
    finally:
        _waiting -= 1
    return good and hashed is not None


def invent() -> str:
    """A password for a person to copy once."""
    return secrets.token_urlsafe(12)
