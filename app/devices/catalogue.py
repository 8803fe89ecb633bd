"""What decoding needs to know, kept in the database so that any process can take over: configured profiles, the names of
Zigbee gateways, and which devices are not native ones. Each ingest process holds a copy and renews it at a signal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.devices.codec import Codec, Knowledge, Learned, Named, Registered
from app.devices.codecs import filters
from app.devices.profiles import Profile, from_directory
from app.devices.reading import storable
from app.devices.vocabulary import DeviceKind, ProfileSource
from app.signals import Signal, signal_sql

log = logs.get("catalogue")
_AT_ONCE = 2000  # rows read before the rest of the process has its turn

_TELL = sa.text(f"SELECT {signal_sql(Signal.CATALOGUE)}")


@dataclass(frozen=True, slots=True)
class Kept:
    """A configured profile and where it comes from."""

    profile: Profile
    source: ProfileSource
    file: str | None
    created_at: datetime
    updated_at: datetime
    version: int


async def tell(session: AsyncSession) -> None:
    """Every ingest process renews its copy when this transaction commits."""
    await session.execute(_TELL)


# --- loading ----------------------------------------------------------------------------------------------------------------


async def load(session: AsyncSession, tz: ZoneInfo) -> Knowledge:
    """Everything that is known now."""
    names: dict[str, Named] = {}
    devices: dict[str, Registered] = {}
    rows = await session.stream(sa.text("SELECT topic, base, address, model FROM zigbee_names"))
    async for part in rows.partitions(_AT_ONCE):
        names.update({row.topic: Named(row.base, row.address, row.model) for row in part})
        await asyncio.sleep(0)
    rows = await session.stream(sa.text("SELECT device_id, profile, kind FROM devices WHERE profile <> 'native'"))
    async for part in rows.partitions(_AT_ONCE):
        devices.update({row.device_id: Registered(row.profile, DeviceKind(row.kind)) for row in part})
        await asyncio.sleep(0)
    compiled = {kept.profile.name: kept.profile.compiled() for kept in await profiles(session)}
    return Knowledge(tz, names, devices, compiled)


async def load_for(session: AsyncSession, topic: str, tz: ZoneInfo) -> Knowledge:
    """What a dry run of one message needs: profiles, the name behind its topic; devices are added by `with_devices`."""
    parts = topic.split("/")
    above = ["/".join(parts[:length]) for length in range(1, min(len(parts), 40) + 1)]
    rows = await session.execute(
        sa.text("SELECT topic, base, address, model FROM zigbee_names WHERE topic = ANY(CAST(:topics AS text[]))"),
        {"topics": above},
    )
    names = {row.topic: Named(row.base, row.address, row.model) for row in rows}
    return Knowledge(tz, names, {}, {kept.profile.name: kept.profile.compiled() for kept in await profiles(session)})


async def with_devices(session: AsyncSession, known: Knowledge, ids: Collection[str]) -> Knowledge:
    """The same, knowing how these devices are registered."""
    rows = await session.execute(
        sa.text("SELECT device_id, profile, kind FROM devices WHERE device_id = ANY(CAST(:ids AS text[]))"),
        {"ids": sorted(ids)},
    )
    found = {row.device_id: Registered(row.profile, DeviceKind(row.kind)) for row in rows}
    return replace(known, devices=found)


# --- profiles -----------------------------------------------------------------------------------------------------------

_PROFILES = "SELECT name, definition, source, file, created_at, updated_at, version FROM device_profiles"


async def profiles(session: AsyncSession) -> list[Kept]:
    """The profiles in force, by name. One that this version can no longer read is left out, and said."""
    rows = await session.execute(sa.text(f"{_PROFILES} WHERE withdrawn_at IS NULL ORDER BY name"))
    return [kept for row in rows if (kept := _kept(row)) is not None]


async def profile(session: AsyncSession, name: str, *, lock: bool = False) -> Kept | None:
    query = f"{_PROFILES} WHERE withdrawn_at IS NULL AND name = :name{' FOR UPDATE' if lock else ''}"
    row = (await session.execute(sa.text(query), {"name": name})).one_or_none()
    return _kept(row) if row is not None else None


def _kept(row: Any) -> Kept | None:
    try:
        read = Profile.model_validate(row.definition)
        read.compiled()
    except ValueError:
        log.error("a stored device profile cannot be read", profile=row.name)
        return None
    return Kept(read, ProfileSource(row.source), row.file, row.created_at, row.updated_at, row.version)


async def withdrawn_topics(session: AsyncSession) -> list[str]:
    """Topic filters of profiles that are no longer in force."""
    rows = await session.execute(sa.text(f"{_PROFILES} WHERE withdrawn_at IS NOT NULL"))
    return [topic for row in rows if (kept := _kept(row)) is not None and (topic := kept.profile.subscription)]


async def put_profile(
    session: AsyncSession, profile: Profile, *, source: ProfileSource, file: str | None, now: datetime
) -> bool:
    """Put a profile in force, or a new wording of it. False: another one of this name is (from the other source)."""
    done = await session.execute(
        sa.text(
            "INSERT INTO device_profiles AS p (name, definition, source, file, created_at, updated_at, version) "
            "VALUES (:name, CAST(:definition AS jsonb), :source, :file, :now, :now, 1) ON CONFLICT (name) DO UPDATE "
            "SET definition = excluded.definition, source = excluded.source, file = excluded.file, updated_at = :now, "
            "withdrawn_at = NULL, version = p.version + 1, "
            "created_at = CASE WHEN p.withdrawn_at IS NULL THEN p.created_at ELSE :now END "
            "WHERE p.withdrawn_at IS NOT NULL OR p.source = excluded.source RETURNING name"
        ),
        {
            "name": profile.name,
            "definition": json.dumps(profile.model_dump(mode="json", exclude_none=True), ensure_ascii=False),
            "source": source.value,
            "file": file,
            "now": now,
        },
    )
    if done.first() is None:
        return False
    await tell(session)
    return True


async def withdraw_profile(session: AsyncSession, name: str, *, now: datetime) -> None:
    """The profile is no longer in force."""
    await session.execute(
        sa.text("UPDATE device_profiles SET withdrawn_at = :now, version = version + 1 WHERE name = :name"),
        {"name": name, "now": now},
    )
    await tell(session)


async def devices_under(session: AsyncSession, name: str, *, outside: str | None = None) -> int:
    """How many devices are registered under a profile; `outside`: of those beyond this region."""
    found: int | None = await session.scalar(
        sa.text("SELECT count(*) FROM devices WHERE profile = :name AND NOT starts_with(region_code, :outside)")
        if outside is not None
        else sa.text("SELECT count(*) FROM devices WHERE profile = :name"),
        {"name": name} | ({"outside": outside} if outside is not None else {}),
    )
    return found or 0


async def load_directory(
    session: AsyncSession, directory: Path, codecs: Sequence[Codec], *, now: datetime
) -> list[str]:
    """Bring the profiles of a directory into force, and withdraw those that are no longer in it. What is wrong with a file
    is answered, and its profiles stay as they were: a typing mistake takes no device out of service."""
    found, faults = from_directory(directory, filters(codecs))
    await session.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('shouwang.device_profiles'))"))
    before = {kept.profile.name: kept for kept in await profiles(session)}
    for name, (file, read) in found.items():
        there = before.get(name)
        if there is not None and there.source is ProfileSource.FILE and there.profile == read and there.file == file:
            continue
        if not await put_profile(session, read, source=ProfileSource.FILE, file=file, now=now):
            faults.append(f"{file}: {name} was made through the API; delete it there, or give this one another name")
    if not faults:
        for name, kept in before.items():
            if kept.source is ProfileSource.FILE and name not in found:
                if await devices_under(session, name):
                    faults.append(
                        f"{kept.file}: {name} is gone from the directory, but devices are registered under it"
                    )
                else:
                    await withdraw_profile(session, name, now=now)
    return faults


# --- gateways' names -----------------------------------------------------------------------------------------------------

_KEEP_NAMES = sa.text(
    """
    WITH told AS (
        SELECT * FROM unnest(CAST(:topic AS text[]), CAST(:address AS text[]), CAST(:model AS text[]))
                      AS t(topic, address, model)
    ),
    gone AS (
        DELETE FROM zigbee_names n WHERE n.base = CAST(:base AS text) AND NOT EXISTS (SELECT FROM told t WHERE t.topic = n.topic)
        RETURNING n.topic
    ),
    kept AS (
        INSERT INTO zigbee_names AS n (topic, base, address, model, told_at)
        SELECT topic, CAST(:base AS text), address, model, CAST(:now AS timestamptz) FROM told ORDER BY topic
        ON CONFLICT (topic) DO UPDATE SET base = excluded.base, address = excluded.address, model = excluded.model,
            told_at = excluded.told_at
        WHERE (n.base, n.address) IS DISTINCT FROM (excluded.base, excluded.address)
           OR n.model IS DISTINCT FROM excluded.model
        RETURNING n.topic
    ),
    changed AS (SELECT topic FROM gone UNION ALL SELECT topic FROM kept)
    SELECT CASE WHEN EXISTS (SELECT FROM changed) THEN pg_notify('shouwang', 'catalogue')::text END
    """
)


async def keep_names(session: Any, learned: Learned, *, now: datetime) -> None:
    """All names of one gateway, in the place of those it told before. Other processes hear of it when they changed."""
    names = _storable(learned.names)
    await session.execute(_KEEP_NAMES, {
        "topic": list(names),
        "address": [named.address for named in names.values()],
        "model": [named.model for named in names.values()],
        "base": learned.base,
        "now": now,
    })  # fmt: skip


def _storable(names: Mapping[str, Named]) -> dict[str, Named]:
    """Names and models as a database takes them; the topic of such a name could not arrive either."""
    return {
        topic: replace(named, model=named.model[:200] if named.model and storable(named.model) else None)
        for topic, named in names.items()
        if storable(topic) and len(topic) <= 500
    }
