"""How often a password may be guessed: counted in PostgreSQL, so that all processes count together (docs/adr/0011).

A try is counted before the password is checked and given back when it was right, so that tries side by side cannot slip
past the limit. Who the account knows - an address or a device it logged in from before - is counted apart from
strangers: whoever hammers an account's name from elsewhere slows down strangers, not the duty desk.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import TooManyRequests
from app.ids import new_uuid

WINDOW = timedelta(minutes=5)
TRIES_OF_ONE = 10  # one account from one address, or from one known device
TRIES_OF_AN_ADDRESS = 100  # all accounts together, from one address that they do not know
TRIES_BY_STRANGERS = 30  # one account, from all addresses that it does not know
_BEING_CHECKED = timedelta(seconds=30)  # longer than a check takes: its process has died
PLACE_LIFE = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One count. `key` is a keyed hash: names and addresses are not stored."""

    key: bytes
    limit: int
    whose: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A try that is counted. Give it back with `forgive` when the password was right."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Full:
    """No try is left. `undecided` when some that are counted are still being checked, and may be given back."""

    wait_s: int
    whose: str
    undecided: bool

    def refusal(self) -> TooManyRequests:
        return TooManyRequests(f"too many failed log-ins {self.whose}; wait {self.wait_s} s", retry_after_s=self.wait_s)


class Hasher:
    """Keyed hashes for names and addresses. It holds a secret: it has no repr of its own fields."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"log-in limits", "sha256")

    def __call__(self, *parts: str) -> bytes:
        text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256")

    def place(self, address: str) -> bytes:
        return self("place", network_of(address))


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 customer is given."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def buckets_of(hasher: Hasher, *, username: str, address: str, device: str | None, known: bool) -> list[Bucket]:
    """Which counts a try goes into. `device` is one this account logged in from; `known` says it did so from here."""
    name, network = username.lower(), network_of(address)
    if device is not None:
        return [Bucket(hasher("device", name, device), TRIES_OF_ONE, "to this account from this device")]
    own = Bucket(hasher("pair", name, network), TRIES_OF_ONE, "to this account from this address")
    if known:
        return [own]
    return [
        own,
        Bucket(hasher("address", network), TRIES_OF_AN_ADDRESS, "from this address"),
        Bucket(hasher("strangers", name), TRIES_BY_STRANGERS, "to this account from addresses that it does not know"),
    ]


async def take(session: AsyncSession, buckets: list[Bucket], *, now: datetime) -> Taken | Full:
    """Count a try in all buckets, or in none when one is full. Commit before the password is checked."""
    locks = sorted(int.from_bytes(bucket.key[:8], signed=True) for bucket in buckets)
    await session.execute(
        sa.text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS given(key)"), {"keys": locks}
    )
    rows = await session.execute(
        sa.text(
            "SELECT bucket, count(*) AS n, min(at) AS oldest, bool_or(NOT settled AND at > :fresh) AS undecided "
            "FROM login_tries WHERE bucket = ANY(CAST(:buckets AS bytea[])) AND at > :since GROUP BY bucket"
        ),
        {"buckets": [b.key for b in buckets], "since": now - WINDOW, "fresh": now - _BEING_CHECKED},
    )
    counts = {bytes(row.bucket): row for row in rows}
    for bucket in buckets:
        row = counts.get(bucket.key)
        if row is not None and row.n >= bucket.limit:
            wait = max(1, int((row.oldest + WINDOW - now).total_seconds()) + 1)
            return Full(wait, bucket.whose, row.undecided)
    taken = Taken(new_uuid(now))
    await session.execute(
        sa.text(
            "INSERT INTO login_tries (id, bucket, at, settled) "
            "SELECT :id, key, :now, false FROM unnest(CAST(:buckets AS bytea[])) AS given(key)"
        ),
        {"id": taken.id, "now": now, "buckets": [bucket.key for bucket in buckets]},
    )
    return taken


async def settle(session: AsyncSession, taken: Taken) -> None:
    """The password was wrong: the try stays counted."""
    await session.execute(sa.text("UPDATE login_tries SET settled = true WHERE id = :id"), {"id": taken.id})


async def forgive(session: AsyncSession, taken: Taken, buckets: list[Bucket]) -> None:
    """The password was right: the try is given back, and the failures of the same account from the same place too."""
    await session.execute(
        sa.text("DELETE FROM login_tries WHERE id = :id OR bucket = :own"),
        {"id": taken.id, "own": buckets[0].key},
    )


# --- places an account knows -----------------------------------------------------------------------------------------


async def knows(session: AsyncSession, user_id: UUID, place: bytes, *, now: datetime) -> bool:
    found = await session.scalar(
        sa.text("SELECT 1 FROM known_places WHERE user_id = :user AND place = :place AND last_seen_at > :since"),
        {"user": user_id, "place": place, "since": now - PLACE_LIFE},
    )
    return found is not None


async def remember(session: AsyncSession, user_id: UUID, place: bytes, *, now: datetime) -> None:
    await session.execute(
        sa.text(
            "INSERT INTO known_places (user_id, place, last_seen_at) VALUES (:user, :place, :now) "
            "ON CONFLICT (user_id, place) DO UPDATE SET last_seen_at = excluded.last_seen_at"
        ),
        {"user": user_id, "place": place, "now": now},
    )


async def sweep(session: AsyncSession, *, now: datetime) -> None:
    """Forget what no longer counts."""
    await session.execute(sa.text("DELETE FROM login_tries WHERE at < :before"), {"before": now - WINDOW})
    await session.execute(
        sa.text("DELETE FROM known_places WHERE last_seen_at < :before"), {"before": now - PLACE_LIFE}
    )
