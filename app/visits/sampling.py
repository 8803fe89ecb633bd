"""Sample lists for audit: random, and the same for everybody who draws them with the same public seed.

An entry's place in the draw is the SHA-256 of `seed:id`. The ids are the server's, made before anybody knows the seed; the
seed is published by others (a lottery number, a stock index of a day to come), and every draw is kept. So nobody can steer
which entries are looked at, and anybody can draw again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

_POPULATION = sa.text(
    "SELECT id FROM visits WHERE place_code ^@ :prefix AND started_at >= :start AND started_at < :end "
    "AND voided_at IS NULL ORDER BY id"
)


async def population(session: AsyncSession, prefix: str, *, start: datetime, end: datetime) -> Sequence[UUID]:
    """Every entry of a region and time that was not voided, visits and attempts, in the order of their ids."""
    return (await session.execute(_POPULATION, {"prefix": prefix, "start": start, "end": end})).scalars().all()


def draw(ids: Iterable[UUID], *, seed: str, size: int) -> list[UUID]:
    """The sample, in the order in which it is drawn."""
    return sorted(ids, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest())[:size]


def fingerprint(ids: Iterable[UUID]) -> bytes:
    """From which entries a sample was drawn."""
    return hashlib.sha256("\n".join(map(str, sorted(ids))).encode()).digest()
