"""Devices and who wears them. A binding has a history: a new one ends the one before at the same moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.devices import catalogue, commissioning, states
from app.devices.tables import Device
from app.devices.vocabulary import DeviceKind
from app.ids import new_uuid


async def register(
    session: AsyncSession,
    *,
    device_id: str,
    kind: DeviceKind,
    profile: str,
    place: str | None,
    region_code: str,
    now: datetime,
) -> Device:
    """Register a device; it leaves the list of the unclaimed."""
    device = Device(
        device_id=device_id, kind=kind, profile=profile, place=place, region_code=region_code, created_at=now
    )
    session.add(device)
    await session.flush()
    await commissioning.must_be_tested(session, device_id, kind, now=now)
    await session.execute(sa.text("DELETE FROM unclaimed_devices WHERE device_id = :id"), {"id": device_id})
    if profile != "native":
        await catalogue.tell(session)  # decoding must know whose words these are
    return device


async def change(session: AsyncSession, device: Device, fields: Mapping[str, Any], *, now: datetime) -> None:
    """Change a device's place, role or profile. With another role or profile it says other things: what was known of it is
    forgotten, and decoding is told."""
    means_other = any(name in fields and fields[name] != getattr(device, name) for name in ("kind", "profile"))
    for name, value in fields.items():
        setattr(device, name, value)
    device.version += 1
    await session.flush()
    if means_other:
        await states.forget(session, device.device_id)
        await commissioning.must_be_tested(session, device.device_id, device.kind, now=now)
        await catalogue.tell(session)


async def bind(session: AsyncSession, device: Device, *, elder_id: UUID, region_code: str, now: datetime) -> None:
    """From now on `elder_id` wears the device. The same wearer again changes nothing."""
    current = await wearer(session, device.device_id)
    if current == elder_id:
        return
    await unbind(session, device.device_id, now=now)
    await session.execute(
        sa.text("INSERT INTO bindings (id, device_id, elder_id, bound_at) VALUES (:id, :device_id, :elder_id, :now)"),
        {"id": new_uuid(now), "device_id": device.device_id, "elder_id": elder_id, "now": now},
    )
    await states.forget(session, device.device_id)
    device.region_code = region_code
    device.version += 1
    await session.flush()


async def unbind(session: AsyncSession, device_id: str, *, now: datetime) -> bool:
    """Nobody wears the device any more. False: nobody did."""
    done = await session.execute(
        sa.text("UPDATE bindings SET unbound_at = :now WHERE device_id = :id AND unbound_at IS NULL RETURNING id"),
        {"id": device_id, "now": now},
    )
    return done.first() is not None


async def wearer(session: AsyncSession, device_id: str) -> UUID | None:
    """Who wears the device now."""
    found: UUID | None = await session.scalar(
        sa.text("SELECT elder_id FROM bindings WHERE device_id = :id AND unbound_at IS NULL FOR UPDATE"),
        {"id": device_id},
    )
    return found


# Devices with their present wearer, in the shape of the contract.
DEVICE_ROWS = """
    SELECT d.device_id, d.kind, d.profile, d.model, d.place, d.online, d.battery, d.last_seen_at, d.created_at, d.region_code,
           d.version, b.elder_id
    FROM devices d LEFT JOIN bindings b ON b.device_id = d.device_id AND b.unbound_at IS NULL
"""


def device_shape(row: Any) -> dict[str, Any]:
    """A device as the contract shows it."""
    return {name: getattr(row, name) for name in ("device_id", "kind", "profile", "model", "elder_id", "place", "online",
                                                  "battery", "last_seen_at")}  # fmt: skip
