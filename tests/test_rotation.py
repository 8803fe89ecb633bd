"""Keys are exchanged while the server runs and writes; killed, it goes on; at the end it is counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

import app.tables
from app.access import audit
from app.access.sealing import Sealer
from app.db import transaction
from app.elders import register
from app.errors import Conflict
from app.key_files import KeyFile
from app.privacy import rotation
from app.privacy.sealed import SEALED
from app.readiness import beat
from app.rotate_keys import NotNow, Rotation
from app.settings import Keys
from tests.world import ADMIN, DATA_KEY, TZ, VILLAGE, World, id_number

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
NEW, THIRD = bytes(range(40, 72)), bytes(range(80, 112))


@pytest.mark.unit
def test_every_sealed_column_and_every_hash_is_registered() -> None:
    """Whoever adds one adds it to app/privacy/sealed.py, or it would be lost with the old key."""
    assert app.tables
    found, hashes = set(), set()
    for table in SQLModel.metadata.tables.values():
        found |= {(table.name, c.name) for c in table.columns if c.name.endswith("_sealed")}
        hashes |= {(table.name, c.name) for c in table.columns if c.name.endswith("_index")}
    assert found == {(one.table, column) for one in SEALED for column in one.columns}
    assert hashes == {(one.table, column) for one in SEALED for column in one.hashes}
    for one in SEALED:
        assert tuple(c.name for c in SQLModel.metadata.tables[one.table].primary_key) == one.key


async def reseal(world: World, *keys: bytes) -> dict[str, rotation.Progress]:
    return {step.table: step async for step in rotation.reseal(world.sessions, Sealer(*keys))}


async def left(world: World, *keys: bytes) -> int:
    async with world.sessions() as session:
        return sum((await rotation.left(session, Sealer(*keys))).values())


async def shown(world: World, *keys: bytes, **search: Any) -> list[tuple[str, str | None, str | None]]:
    """Names, phones and addresses as this key opens them."""
    sealer = Sealer(*keys)
    async with world.sessions() as session:
        found = await register.list_elders(session, ADMIN, limit=500, before=None, **search)
        return sorted(
            (
                sealer.open(one.id_number_sealed, record=one.id),
                sealer.open_optional(one.phone_sealed, record=one.id),
                sealer.open_optional(one.address_sealed, record=one.id),
            )
            for one in found
        )


async def test_everything_is_sealed_anew_and_found_as_before(world: World) -> None:
    elders = [await world.elder(f"老人{n}") for n in range(3)]
    await world.elder("无电话", phone=None, address=None)
    await world.contact(elders[0], "王小明", channels=("webhook", "sms"))
    await world.visitor("李志愿", of=elders[0])
    await world.message("nobody", b"\xff not json")
    before = await shown(world, DATA_KEY)
    assert await left(world, DATA_KEY) == 0
    assert await left(world, NEW, DATA_KEY) >= 4 + 2 + 1 + 1
    done = await reseal(world, NEW, DATA_KEY)
    assert {"elders", "channels", "rejected_messages"} <= done.keys()
    assert done["elders"] == rotation.Progress("elders", 4, 4)
    assert await left(world, NEW) == 0
    assert await shown(world, NEW) == before  # the old key is not needed
    tail = Sealer(NEW).indexes(register.phone_tail("0000"))
    assert len(await shown(world, NEW, phone_tails=tail)) == 3
    assert len(await shown(world, NEW, id_numbers=Sealer(NEW).indexes(before[0][0]))) == 1


async def test_values_and_hashes_without_a_key_name_are_rotated_too(world: World) -> None:
    """As the first release wrote them; the server finds and opens them all the time."""
    from tests.test_sealing import sealed_by_version_1

    elder = await world.elder(phone="13800001234")
    number = (await shown(world, DATA_KEY))[0][0]
    await world.do(
        "UPDATE elders SET id_number_sealed = :id, id_number_index = substring(id_number_index FROM 6), "
        "phone_tail_index = substring(phone_tail_index FROM 6)",
        id=sealed_by_version_1(DATA_KEY, number, elder.id.bytes),
    )
    assert len(await shown(world, DATA_KEY, id_numbers=world.sealer.indexes(number))) == 1
    assert await left(world, DATA_KEY) == 1
    await reseal(world, DATA_KEY)
    assert await left(world, DATA_KEY) == 0
    row = (await world.rows("SELECT id_number_index, phone_tail_index FROM elders"))[0]
    assert row.id_number_index == world.sealer.index(number)
    assert row.phone_tail_index == world.sealer.index(register.phone_tail("13800001234"))


async def test_one_person_is_enrolled_once_whichever_key_a_process_seals_with(world: World) -> None:
    person = {"name": "王桂英", "id_number": id_number(777), "region_code": VILLAGE}

    async def enrol(*keys: bytes) -> None:
        async with transaction(world.sessions) as session:
            now = world.time()
            await register.enrol(session, ADMIN, person, sealer=Sealer(*keys), now=now, today=now.astimezone(TZ).date())

    await enrol(DATA_KEY, NEW)
    with pytest.raises(Conflict):
        await enrol(NEW, DATA_KEY)


async def test_a_row_that_somebody_holds_or_changes_is_taken_later(world: World) -> None:
    held, changed, free = [await world.elder(name) for name in ("甲", "乙", "丙")]
    sealer, elders = Sealer(NEW, DATA_KEY), SEALED[0]
    async with world.sessions() as busy, transaction(world.sessions) as session:
        await busy.execute(sa.text("SELECT FROM elders WHERE id = :id FOR UPDATE"), {"id": held.id})
        rows = await rotation._read(session, elders, sealer, None)
        changes, _ = rotation._sealed_anew(elders, rows, sealer)
        await world.do(  # a new phone, after it was read
            "UPDATE elders SET phone_sealed = :phone WHERE id = :id",
            phone=world.sealer.seal("13900000000", record=changed.id), id=changed.id,
        )  # fmt: skip
        assert await rotation._write(session, elders, changes) == 1
    assert await left(world, NEW, DATA_KEY) == 2
    await reseal(world, NEW, DATA_KEY)
    assert await left(world, NEW) == 0
    assert sorted(phone for _, phone, _ in await shown(world, NEW)) == ["+8613800000000"] * 2 + ["13900000000"]
    assert free.id


async def test_what_no_key_opens_is_counted_and_left(world: World) -> None:
    lost, _ = await world.elder("甲"), await world.elder("乙")
    await world.do(
        "UPDATE elders SET phone_sealed = :lost WHERE id = :id",
        lost=Sealer(THIRD).seal("13911111111", record=lost.id), id=lost.id,
    )  # fmt: skip
    steps = [step async for step in rotation.reseal(world.sessions, Sealer(NEW, DATA_KEY))]
    assert [(step.done, step.unopened) for step in steps if step.table == "elders"] == [(1, 1), (0, 1)]
    said: list[str] = []
    run = Rotation(world.sessions, Keys((NEW, DATA_KEY), b""), world.time, said.append)
    with pytest.raises(NotNow, match="1 rows open with none of the keys"):
        await run.run()
    run = Rotation(world.sessions, Keys((NEW, DATA_KEY, THIRD), b""), world.time, said.append)
    await run.run()
    assert said[-2].startswith("Counted: no value")
    assert await left(world, NEW) == 0


async def test_it_does_not_begin_while_a_process_could_not_follow(world: World) -> None:
    await world.elder()
    run = Rotation(world.sessions, Keys((NEW, DATA_KEY), b""), world.time, lambda _: None)
    old, new = Sealer(DATA_KEY).key_ids, Sealer(NEW, DATA_KEY).key_ids

    async def says(process: str, keys: tuple[str, ...]) -> None:
        async with transaction(world.sessions) as session:
            await beat(session, process=process, part="api", ok=True, detail="", data_keys=keys, now=world.time())

    await says("east:1", new)
    await says("west:1", old)
    with pytest.raises(NotNow, match=r"can open what is sealed with it: west:1 \(api\)\. Give them the keys"):
        await run.run()
    await says("west:1", (old[0], new[0]))
    with pytest.raises(NotNow, match=r"seals with it: west:1"):
        await run.run()
    assert await left(world, NEW, DATA_KEY) > 0  # nothing was done
    await says("west:1", new)
    await run.run()
    assert await left(world, NEW) == 0
    actions = [row.action for row in await world.rows("SELECT action FROM audit_log ORDER BY id")]
    assert actions == ["data_key.rotation_begun"] * 3 + ["data_key.rotated"]
    async with world.sessions() as session:
        assert isinstance(await audit.verify(session), audit.Head)


async def test_with_one_key_in_the_settings_it_says_the_steps(world: World) -> None:
    await world.elder()
    with pytest.raises(NotNow, match="SHOUWANG_DATA_KEY=OLD,NEW"):
        await Rotation(world.sessions, Keys((DATA_KEY,), b""), world.time, lambda _: None).run()


def _many(live: Live, village: str, sealer: Sealer, count: int) -> None:
    """More people than one batch takes, past the API."""
    ids = [uuid4() for _ in range(count)]
    live.rows(
        "INSERT INTO elders (id, name, sex, birth_date, id_number_sealed, id_number_index, phone_sealed, region_code, tags, "
        "services, dementia, status, created_at, updated_at, version, reclassify_on) "
        "SELECT id, '批量', 'female', '1940-01-01', number, hash, phone, $5, '{}', '{}', false, 'active', now(), now(), 1, "
        "NULL FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[]) AS given(id, number, hash, phone)",
        ids,
        [sealer.seal(f"bulk-{n}", record=one) for n, one in enumerate(ids)],
        [sealer.index(f"bulk-{n}") for n in range(count)],
        [sealer.seal("+8613800000000", record=one) for one in ids],
        village,
    )


@pytest.mark.xdist_group("live")
def test_the_command_beside_a_server_that_is_asked_and_writes(live: Live) -> None:
    """Killed in the middle, run again; meanwhile people are enrolled, revealed, found and an alarm is raised."""
    village = live.village()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOUWANG_")}
    environment["SHOUWANG_DATA_DIR"] = str(live.folder)
    command = [str(os.path.join(os.path.dirname(sys.executable), "shouwang")), "rotate-keys"]
    made: list[dict[str, Any]] = []
    broken: list[str] = []
    stop = threading.Event()
    known = live.elder(village, phone="13812349876", address="般阳路9号")
    old = KeyFile(live.folder / "data_key").read()
    _many(live, village, Sealer(*old), 400)

    def busy() -> None:
        api = live.log_in("admin", "correct-horse-1")
        while not stop.is_set():
            try:
                elder = live.elder(village, phone="13812345555", address="测试路")
                shown = api.seen(f"/elders/{elder['id']}", reveal="true", purpose="轮换时")
                assert shown["phone"] == "+8613812345555"
                assert api.seen(f"/elders/{known['id']}", reveal="true", purpose="轮换时")["address"] == "般阳路9号"
                assert len(api.items("/elders", phone_tail="5555", purpose="轮换时", region_code=village)) > 0
                made.append(elder)
            except AssertionError as error:
                broken.append(str(error))
                return

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=live.folder) as first:
            assert first.stdout
            for line in first.stdout:
                if re.match(r"elders: \d+ of \d+", line):
                    first.kill()
                    break
        assert len(KeyFile(live.folder / "data_key").read()) == 2
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, cwd=live.folder)
        assert again.returncode == 0, again.stdout + again.stderr
        wrote = len(made)
        live.soon(lambda: len(made) > wrote or broken)  # and it goes on
    finally:
        stop.set()
        thread.join()
    assert not broken
    assert "Counted: no value in any table needs another key" in again.stdout
    assert "is no longer needed by this database" in again.stdout
    keys = KeyFile(live.folder / "data_key").read()
    assert len(keys) == 1
    assert keys[0] not in old
    status = subprocess.run(
        [*command, "--status"], env=environment, capture_output=True, text=True, timeout=60, cwd=live.folder
    )
    assert all(line.split()[0] == "0" for line in status.stdout.splitlines()), status.stdout
    only_new = Sealer(*keys)
    for row in live.rows("SELECT id, phone_sealed FROM elders WHERE phone_sealed IS NOT NULL"):
        assert only_new.open(row["phone_sealed"], record=UUID(str(row["id"]))).startswith("+86")
    assert live.admin.seen(f"/elders/{known['id']}", reveal="true", purpose="轮换后")["phone"] == "+8613812349876"
