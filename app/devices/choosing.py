"""Under which profile a device is registered: the one that is asked for, if it can be; otherwise the one that read it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.devices.codec import Codec
from app.devices.codecs import PROFILES
from app.errors import InvalidInput


async def choose_profile(session: AsyncSession, codecs: Sequence[Codec], device_id: str, wanted: str | None) -> str:
    """Raises `InvalidInput` when the profile does not exist or cannot have a device of this id."""
    prefixes = {codec.name: tuple(codec.id_prefixes) for codec in codecs if codec.name != PROFILES}
    families = [name for name, begins in prefixes.items() if begins and device_id.startswith(begins)]
    name = wanted or await _guess(session, device_id) or next(iter(families), "native")
    if name == "native":
        if families:
            raise InvalidInput(
                f"an id that begins so is one of {' or '.join(families)}; leave `profile` out, or name the family",
                field="profile",
            )
        return name
    if name not in prefixes:
        return await _configured(session, name, device_id, prefixes)
    _must_begin(device_id, name, prefixes[name])
    return name


async def _guess(session: AsyncSession, device_id: str) -> str | None:
    found: str | None = await session.scalar(
        sa.text("SELECT profile_guess FROM unclaimed_devices WHERE device_id = :id"), {"id": device_id}
    )
    return found


async def _configured(session: AsyncSession, name: str, device_id: str, prefixes: dict[str, tuple[str, ...]]) -> str:
    """Held until the end of the transaction, so that nobody deletes the profile meanwhile."""
    row = (
        await session.execute(
            sa.text(
                "SELECT definition ->> 'extends' AS extends FROM device_profiles "
                "WHERE name = :name AND withdrawn_at IS NULL FOR SHARE"
            ),
            {"name": name},
        )
    ).one_or_none()
    if row is None:
        raise InvalidInput(
            f"no such profile; there are {', '.join(sorted(prefixes))} and those of GET /api/v1/device-profiles",
            field="profile",
        )
    if row.extends is not None:
        _must_begin(device_id, row.extends, prefixes.get(row.extends, ()))
    return name


def _must_begin(device_id: str, family: str, begins: tuple[str, ...]) -> None:
    if begins and not device_id.startswith(begins):
        raise InvalidInput(
            f"the id of a device of {family} begins with {' or '.join(begins)}; GET /api/v1/devices/unclaimed lists those "
            "that were heard",
            field="device_id",
        )
