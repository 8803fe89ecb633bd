"""A district in the database: invented elders, each with a button, a door and two webhook contacts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg

from app.access.sealing import Sealer
from app.ids import new_uuid

VILLAGE = "370302001001"
_TABLES = ("elders", "contacts", "channels", "devices", "bindings")
_FROM = datetime(2026, 1, 1, tzinfo=UTC)


async def people(db: asyncpg.Connection, sealer: Sealer, *, first: int, count: int, hook: str) -> None:
    """Elders `first` … with devices `sos-N` and `door-N`."""
    tables: dict[str, list[tuple[object, ...]]] = {name: [] for name in _TABLES}
    elders, contacts, channels, devices, bindings = (tables[name] for name in _TABLES)
    for n in range(first, first + count):
        at = _FROM + timedelta(seconds=n)
        elder = new_uuid(at)
        sealed = sealer.seal(f"370302194001{n:06d}", record=elder)
        elders.append(
            (
                elder,
                f"老人{n}",
                "female",
                at.date().replace(year=1940),
                sealed,
                sealer.index(f"bench-{n}"),
                sealer.seal("+8613800000000", record=elder),
                sealer.seal("样板村三组12号", record=elder),
                VILLAGE,
                ["living_alone"],
                [],
                "active",
                at,
                at,
                1,
                False,
                "general",
                at.date().replace(year=2027),  # classed already: the daily job is not what is measured
            )
        )
        for who in ("daughter", "son"):
            contact, channel = new_uuid(at), new_uuid(at)
            contacts.append((contact, elder, f"{who}{n}", who, True, 1, at, 1))
            channels.append(
                (
                    channel,
                    contact,
                    0,
                    "webhook",
                    sealer.seal(f"{hook}/{who}", record=channel),
                    sealer.seal("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", record=channel),
                )
            )
        for kind, name in (("sos_button", f"sos-{n}"), ("door_sensor", f"door-{n}")):
            devices.append((name, kind, "native", VILLAGE, at, 1))
            bindings.append((new_uuid(at), name, elder, at))
    await db.copy_records_to_table(
        "elders",
        records=elders,
        columns=[
            "id",
            "name",
            "sex",
            "birth_date",
            "id_number_sealed",
            "id_number_index",
            "phone_sealed",
            "address_sealed",
            "region_code",
            "tags",
            "services",
            "status",
            "created_at",
            "updated_at",
            "version",
            "dementia",
            "care_level",
            "reclassify_on",
        ],
    )
    # What is due is judged already too.
    await db.execute("UPDATE visit_duties SET look_on = DATE '2027-01-01' WHERE look_on < DATE '2026-01-01'")
    await db.copy_records_to_table(
        "contacts",
        records=contacts,
        columns=["id", "elder_id", "name", "relation", "is_emergency", "priority", "created_at", "version"],
    )
    await db.copy_records_to_table(
        "channels",
        records=channels,
        columns=["id", "contact_id", "position", "kind", "address_sealed", "secret_sealed"],
    )
    await db.copy_records_to_table(
        "devices", records=devices, columns=["device_id", "kind", "profile", "region_code", "created_at", "version"]
    )
    await db.copy_records_to_table("bindings", records=bindings, columns=["id", "device_id", "elder_id", "bound_at"])


async def village(db: asyncpg.Connection) -> None:
    await db.execute(
        "INSERT INTO regions (code, name, level, parent_code, created_at) "
        "VALUES ($1, '样板村', 'village', '370302001000', now())",
        VILLAGE,
    )


async def past(db: asyncpg.Connection, *, rows: int, devices: int) -> None:
    """Journal rows of the last months, and 20 visits and 5 alarms of one elder with a long history."""
    step = 100_000
    for start in range(0, rows, step):
        await db.execute(
            """
            INSERT INTO device_events (id, device_id, elder_id, type, event_id, occurred_at, received_at, late, data)
            SELECT uuidv7(make_interval(secs => -9000000 + n * 8)), 'door-' || (n % $3), b.elder_id, 'door', 'past-' || n,
                   now() - make_interval(secs => 9000000 - n * 8), now() - make_interval(secs => 9000000 - n * 8), false,
                   '{"state": "open"}'
            FROM generate_series($1::int, $2::int) n JOIN bindings b ON b.device_id = 'door-' || (n % $3)
            """, start, min(start + step, rows) - 1, devices)  # fmt: skip
        await asyncio.sleep(0)
    await db.execute("ANALYZE")
