"""What devices log in to the broker with: issued, rotated, revoked, looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.db import Sessions
from app.devices import passwords
from app.devices.mqtt import read_url
from app.devices.tables import DeviceCredential
from app.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """The server's own account at the broker: the user and password of MQTT_URL."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BrokerTrust:
    """How this server and its broker know each other. `secret` is what a broker shows that asks us (EMQX)."""

    embedded: bool
    server: ServerLogin | None = None
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Issued:
    """A new password, to be shown once."""

    device_id: str
    username: str
    password: str = field(repr=False)
    issued_at: datetime
    rotated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Login:
    """A device that the broker lets in."""

    username: str
    device_id: str
    password_hash: str = field(repr=False)


def trust(settings: Settings) -> BrokerTrust:
    """How this server and its broker know each other. Raises `SettingsError` for an MQTT_URL that is none."""
    url = settings.mqtt_url.get_secret_value()
    if not url:
        return BrokerTrust(embedded=True, secret=settings.mqtt_auth_secret.get_secret_value())
    try:
        login = server_login(url)
    except ValueError as error:
        raise SettingsError(f"SHOUWANG_MQTT_URL {error}") from None
    return BrokerTrust(embedded=False, server=login, secret=settings.mqtt_auth_secret.get_secret_value())


def server_login(mqtt_url: str) -> ServerLogin | None:
    """The account in MQTT_URL; None when it names none."""
    address = read_url(mqtt_url)
    return ServerLogin(address.username, address.password or "") if address.username else None


def username_for(device_id: str, server: ServerLogin | None) -> str:
    """The device id itself, wherever it can be a user name. Otherwise (a colon ends the name in Mosquitto's file, white
    space around it is lost, the server's name is taken) one with a slash, which no device id has: so it is nobody else's,
    and no rule for devices in general gives it another's topics."""
    fits = ":" not in device_id and device_id == device_id.strip()
    if fits and (server is None or device_id != server.username):
        return device_id
    return "device/" + quote(device_id, safe="")


async def issue(session: AsyncSession, device_id: str, *, server: ServerLogin | None, now: datetime) -> Issued:
    """A new password in place of the one before, if any; the one before is good for nothing from the commit on. The
    caller holds the device's row."""
    password = passwords.invent()
    row = await session.get(DeviceCredential, device_id, populate_existing=True)
    if row is None:
        row = DeviceCredential(device_id=device_id, username=username_for(device_id, server), issued_at=now)
        session.add(row)
    elif row.revoked_at is not None:
        row.issued_at, row.rotated_at, row.revoked_at = now, None, None
        row.username = username_for(device_id, server)
    else:
        row.rotated_at = now
    row.password_hash = passwords.hashed(password)
    await session.flush()
    return Issued(device_id, row.username, password, row.issued_at, row.rotated_at)


async def revoke(session: AsyncSession, device_id: str, *, now: datetime) -> bool:
    """The device is let in no more. False: it had no password that could be revoked."""
    done = await session.execute(
        sa.update(DeviceCredential)
        .where(col(DeviceCredential.device_id) == device_id, col(DeviceCredential.revoked_at).is_(None))
        .values(password_hash=None, revoked_at=now)
        .returning(col(DeviceCredential.device_id))
    )
    return done.first() is not None


async def of(session: AsyncSession, device_id: str) -> DeviceCredential | None:
    """When a device's password was issued, rotated, revoked."""
    return await session.get(DeviceCredential, device_id, populate_existing=True)


_TEXTS = ARRAY(sa.Text)
_LOGINS = select(
    col(DeviceCredential.username), col(DeviceCredential.device_id), col(DeviceCredential.password_hash)
).where(col(DeviceCredential.password_hash).is_not(None))


async def logins(session: AsyncSession) -> Sequence[Login]:
    """Every device that has a password, by user name."""
    rows = await session.execute(_LOGINS.order_by(sa.collate(col(DeviceCredential.username), "C")))
    return [Login(row.username, row.device_id, row.password_hash) for row in rows]


class Lookups:
    """Log-ins by user name, in natural batches: what is asked while one query runs shares the next. After a restart of
    the broker all devices come back at once."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._asked: dict[str, asyncio.Future[Login | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def login(self, username: str) -> Login | None:
        """The device of this user name, if it has a password. Raises what the database raises."""
        if username not in self._asked:
            self._asked[username] = asyncio.get_running_loop().create_future()
        answer = self._asked[username]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(answer)  # others may wait for the same

    async def _ask(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                async with self._sessions() as session:
                    query = _LOGINS.where(col(DeviceCredential.username) == sa.any_(sa.literal([*asked], _TEXTS)))
                    rows = (await session.execute(query)).all()
            except Exception as error:  # noqa: BLE001 - it belongs to those who ask
                for answer in asked.values():
                    answer.set_exception(error)
                    answer.exception()  # whoever asked may have left
                continue
            found = {row.username: Login(row.username, row.device_id, row.password_hash) for row in rows}
            for username, answer in asked.items():
                answer.set_result(found.get(username))
