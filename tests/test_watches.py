"""Rules over time on a real database: folded at ingest, found by the tick, raised once, grown, eased; settings; periods."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa

from app.db import transaction
from app.devices.vocabulary import DeviceKind
from app.errors import InvalidInput
from app.rules.home import Home, Where
from app.rules.verdict import DEVICE_HEALTH, Severity
from app.watches import due, replaying
from app.watches.replaying import Span
from tests.test_api import refused
from tests.test_catalogue import Families
from tests.world import TZ, Person, World, unique

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")


async def home(world: World, **fields: Any) -> tuple[Person, str, str]:
    """An elder with a door and a motion sensor, a daughter, at ten in the morning."""
    world.clock.now = (world.clock.now + timedelta(days=1)).astimezone(TZ).replace(hour=10, minute=0, second=0)
    elder = await world.elder(**fields)
    await world.contact(elder, "女儿")
    door = await world.device(elder, unique(), kind=DeviceKind.DOOR_SENSOR, place="入户大门")
    motion = await world.device(elder, unique(), kind=DeviceKind.MOTION_SENSOR, place="客厅")
    return elder, door, motion


async def state(world: World, elder: Person) -> Home:
    text = await world.value("SELECT state FROM home_states WHERE elder_id = :id", id=elder.id)
    return msgspec.json.decode(text, type=Home)


async def test_a_silent_home_is_noticed_told_and_calmed_by_life(world: World) -> None:
    elder, door, motion = await home(world)
    await world.message(door, {"type": "door", "state": "closed"})
    await world.message(motion, {"type": "motion"})
    await world.live(minutes=169)
    assert not await world.alarms(elder)
    await world.live(minutes=2)
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity) == ("no_activity", "major")
    assert "2小时50分钟" in alarm.because
    assert "客厅" in alarm.because
    world.expect_heard("女儿", "alarm.raised")
    await world.live(minutes=60)
    alarm = await world.alarm(elder)
    assert alarm.severity == "critical"
    assert "3小时50分钟" in alarm.because  # the reason grows with it
    await world.message(motion, {"type": "motion"})
    await world.watch()
    alarm = await world.alarm(elder)
    assert (alarm.severity, alarm.state) == ("minor", "open")
    assert "又有了动静" in world.expect_heard("女儿", "alarm.calmed").reason


async def test_an_open_door_is_raised_once_by_many_workers_and_closes_itself(world: World) -> None:
    elder, door, motion = await home(world)
    await world.message(motion, {"type": "motion"})
    await world.message(door, {"type": "door", "state": "open"})
    await world.watch()
    world.clock.now += timedelta(minutes=31)
    await world.message(motion, {"type": "motion"})
    took = await asyncio.gather(*(world.ticks.watch() for _ in range(4)))
    assert sum(took) == 1
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity, alarm.repeats) == ("door_left_open", "warning", 0)
    await world.message(door, {"type": "door", "state": "closed"})
    await world.watch()
    alarm = (await world.alarms(elder))[0]
    assert (alarm.state, alarm.outcome) == ("resolved", "other")
    entries = await world.rows("SELECT data FROM alarm_entries WHERE alarm_id = :id AND kind = 'resolved'", id=alarm.id)
    assert "门已关上" in entries[0].data["note"]


async def test_two_processes_that_fold_the_same_home_lose_nothing(world: World) -> None:
    elder, door, motion = await home(world)
    other = world.another_ingest()
    for number in range(12):
        world.clock.now += timedelta(seconds=70)
        frames = [world.frame(motion, {"type": "motion"})]
        swing = [world.frame(door, {"type": "door", "state": "open" if number % 2 == 0 else "closed"})]
        await asyncio.gather(world.ingest.swallow(frames), other.swallow(swing))
    kept = await state(world, elder)
    assert kept.moved == pytest.approx(world.clock.now.timestamp())
    assert len(kept.gadgets[door].flips) == 12
    assert kept.where in (Where.HOME, Where.DOOR)


async def test_a_busy_home_is_written_once_a_minute(world: World) -> None:
    elder, _, motion = await home(world)
    for _ in range(30):
        world.clock.now += timedelta(seconds=4)
        await world.message(motion, {"type": "motion"})
    assert await world.value("SELECT version FROM home_states WHERE elder_id = :id", id=elder.id) <= 4


async def test_devices_trouble_the_desk_and_not_the_family(world: World) -> None:
    elder, door, _ = await home(world, dementia=True)  # dementia makes a key person
    await world.message(door, {"type": "heartbeat", "battery": 12})
    await world.live(minutes=1)
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity) == ("battery_low", "warning")
    assert "12%" in alarm.because
    await world.live(minutes=27 * 60)
    kinds = {one.kind: one for one in await world.alarms(elder)}
    assert "device_silent" in kinds
    world.hears_nothing("女儿")
    assert all(one.unreachable_since is None for one in kinds.values())
    tasks = await world.rows("SELECT kind, because FROM care_tasks WHERE elder_id = :id", id=elder.id)
    assert [one.kind for one in tasks] == ["follow_up"]
    assert "失联" in tasks[0].because
    # The devices are heard again, and the battery was changed.
    for device in (door, *await world.rows("SELECT device_id FROM bindings WHERE elder_id = :id", id=elder.id)):
        await world.message(getattr(device, "device_id", device), {"type": "heartbeat", "battery": 90})
    await world.live(minutes=11)
    assert {one.state for one in await world.alarms(elder) if one.kind in DEVICE_HEALTH} == {"resolved"}


async def test_a_gateway_that_is_gone_is_one_alarm(world: World) -> None:
    elder, door, motion = await home(world)
    gateway = await world.device(elder, unique(), kind=DeviceKind.GATEWAY, place="客厅网关")
    await world.message(motion, {"type": "motion"})
    await world.message(gateway, {"online": True}, leaf="status")
    await world.watch()
    await world.message(gateway, {"online": False}, leaf="status", retained=True)
    await world.live(minutes=30 * 60)
    assert [one.kind for one in await world.alarms(elder)] == ["bridge_offline"]
    await world.message(gateway, {"online": True}, leaf="status")
    await world.message(door, {"type": "heartbeat"})
    await world.message(motion, {"type": "heartbeat"})
    await world.live(minutes=11)
    assert (await world.alarms(elder))[0].state == "resolved"


async def test_forty_devices_under_a_gateway_of_nobody_are_one_alarm(world: World) -> None:
    """The gateway was never registered, and its devices hang in three homes: one of them tells, the others keep silent."""
    people = [await world.elder() for _ in range(3)]
    addresses = [f"0x{number:016x}" for number in range(40)]
    devices = []
    for number, address in enumerate(addresses):
        kind = DeviceKind.MOTION_SENSOR
        devices.append(await world.device(people[number % 3], f"zigbee:{address}", kind=kind, profile="zigbee2mqtt"))
    by_name = await world.device(
        people[0], "zigbee2mqtt:楼道~1门磁", kind=DeviceKind.DOOR_SENSOR, profile="zigbee2mqtt"
    )
    families = Families(world)
    await families.following.load()
    names = [{"friendly_name": f"m{n}", "ieee_address": a} for n, a in enumerate(addresses)]
    await families.say("zigbee2mqtt/bridge/devices", names, retained=True)
    for number in range(40):
        await families.say(f"zigbee2mqtt/m{number}", {"occupancy": True})
    await families.say("zigbee2mqtt/楼道/门磁", {"contact": True})
    for state in ("online", "offline", "offline"):
        await families.say("zigbee2mqtt/bridge/state", {"state": state}, retained=True)
        world.clock.now += timedelta(seconds=20)
    await world.live(minutes=30 * 60)
    (alarm,) = [one for person in people for one in await world.alarms(person)]
    assert (alarm.kind, alarm.severity, alarm.state) == ("bridge_offline", "minor", "open")
    assert "41个设备(共3户)" in alarm.because
    await families.say("zigbee2mqtt/bridge/state", {"state": "online"}, retained=True)
    for number in range(40):
        await families.say(f"zigbee2mqtt/m{number}", {"occupancy": True})
    await families.say("zigbee2mqtt/楼道/门磁", {"contact": True})
    await world.live(minutes=25)
    assert [one.state for person in people for one in await world.alarms(person)] == ["resolved"]
    assert len(devices) + len([by_name]) == 41
    await world.live(minutes=27 * 60)  # one by one they are silent now
    later = [one.kind for person in people for one in await world.alarms(person) if one.state == "open"]
    assert later.count("device_silent") == 3


async def test_a_device_that_was_taken_away_is_forgotten(world: World) -> None:
    elder, door, motion = await home(world)
    await world.message(motion, {"type": "motion"})
    await world.message(door, {"type": "door", "state": "open"})
    await world.watch()
    await world.bind(door, None)
    await world.live(minutes=60)
    assert [one.kind for one in await world.alarms(elder)] == []
    assert door not in (await state(world, elder)).gadgets


async def test_who_has_a_device_is_watched_before_it_says_anything(world: World) -> None:
    elder = await world.elder()
    await world.device(elder)
    async with transaction(world.sessions) as session:
        await due.begin(session, world.clock.now)
    await world.live(minutes=27 * 60)
    assert [one.kind for one in await world.alarms(elder)] == ["device_silent"]


async def test_who_is_in_hospital_is_not_missed_and_a_fall_there_is(world: World) -> None:
    elder, _, motion = await home(world)
    await world.message(motion, {"type": "motion"})
    await world.do("UPDATE elders SET status = 'paused', status_reason = 'in_hospital' WHERE id = :id", id=elder.id)
    await world.live(minutes=600)
    assert not await world.alarms(elder)
    radar = await world.device(elder, unique(), kind=DeviceKind.FALL_DETECTOR)
    await world.message(radar, {"type": "fall"})
    assert [one.kind for one in await world.alarms(elder)] == ["fall"]


async def test_the_journal_is_replayed_as_it_was_lived(world: World) -> None:
    elder, door, motion = await home(world)
    began = world.clock.now
    await world.message(door, {"type": "door", "state": "closed"})
    await world.message(motion, {"type": "motion"})
    await world.live(minutes=300)
    printed: list[str] = []
    async with transaction(world.sessions) as session:
        await session.execute(sa.text("SET TRANSACTION READ ONLY"))
        span = Span(began, None)
        await replaying.from_journal(session, elder.id, {}, span, TZ, now=world.clock.now, write=printed.append)
    alarms = [msgspec.json.decode(line) for line in printed]
    assert [(one["kind"], one["severity"]) for one in alarms] == [("no_activity", "major"), ("no_activity", "critical")]
    lived = await world.alarm(elder)
    assert datetime.fromisoformat(alarms[0]["at"]) == lived.raised_at
    assert lived.severity == Severity.CRITICAL


async def test_the_journal_is_replayed_by_the_settings_and_periods_of_the_home(world: World) -> None:
    """What holds for the elder counts, what is tried lies on top, and nobody who was away is missed."""
    elder, door, motion = await home(world)
    await world.message(door, {"type": "door", "state": "closed"})
    await world.message(motion, {"type": "motion"})
    began = world.clock.now
    await world.do(
        "INSERT INTO rule_versions (id, region_code, elder_id, settings, valid_from, created_at, created_by) "
        """VALUES (gen_random_uuid(), NULL, :id, '{"no_activity": {"floor_minutes": 40, "ceiling_minutes": 60}}', """
        ":now, :now, 'x')",
        id=elder.id, now=began,
    )  # fmt: skip
    world.clock.now += timedelta(minutes=200)

    async def kinds(document: dict[str, Any]) -> list[tuple[str, int]]:
        printed: list[str] = []
        async with transaction(world.sessions) as session:
            span = Span(None, None)
            await replaying.from_journal(
                session, elder.id, document, span, TZ, now=world.clock.now, write=printed.append
            )
        alarms = [msgspec.json.decode(line) for line in printed]
        return [(one["kind"], (datetime.fromisoformat(one["at"]) - began) // timedelta(minutes=1)) for one in alarms]

    assert await kinds({}) == [("no_activity", 60), ("no_activity", 120)]
    assert await kinds({"no_activity": {"ceiling_minutes": 100}}) == [("no_activity", 100), ("no_activity", 160)]
    with pytest.raises(InvalidInput, match="floor_minutes: 40 is above ceiling_minutes"):
        await kinds({"no_activity": {"ceiling_minutes": 30}})
    await world.do(
        "INSERT INTO watch_periods (id, elder_id, kind, begins_at, ends_at, created_at, created_by) "
        "VALUES (gen_random_uuid(), :id, 'away', :now, :ends, :now, 'x')",
        id=elder.id, now=began, ends=began + timedelta(minutes=90),
    )  # fmt: skip
    assert await kinds({}) == [("no_activity", 150)]
    await world.do(
        "INSERT INTO elder_statuses (id, elder_id, status, reason, since, recorded_at, recorded_by) "
        "VALUES (gen_random_uuid(), :id, 'paused', 'in_hospital', :day, :now, 'x')",
        id=elder.id, now=began, day=began.date() - timedelta(days=1),
    )  # fmt: skip
    assert await kinds({}) == []
    await world.do("DELETE FROM elder_statuses WHERE elder_id = :id", id=elder.id)
    await world.do("DELETE FROM watch_periods WHERE elder_id = :id", id=elder.id)
    await world.do("UPDATE devices SET online = false WHERE device_id = :id", id=motion)
    await world.do(
        "UPDATE bindings SET unbound_at = :at WHERE device_id = :id", id=door, at=began + timedelta(minutes=10)
    )
    assert ("device_silent", 30) in await kinds({})


async def test_a_look_at_due_homes_goes_by_the_index(world: World) -> None:
    await world.do("SET enable_seqscan = on")
    plan = await world.rows("EXPLAIN " + str(due._DUE.text), now=world.clock.now, batch=200)
    assert any("ix_home_states_due_at" in row[0] for row in plan)


# --- settings and periods, by the API ---------------------------------------------------------------------------------


def test_settings_of_region_and_elder_with_sources_ranges_and_history(live: Live) -> None:
    admin, village = live.admin, live.village("370302005000")
    elder = live.elder(village)
    base = admin.seen("/rules", elder_id=elder["id"])
    assert base["settings"]["no_activity"]["ceiling_minutes"] == 170
    assert base["sources"] == {}
    assert base["fields"]["no_activity"]["ceiling_minutes"]["max"] == 2880
    done = admin.put("/rules", json={"region_code": village, "settings": {"no_activity": {"ceiling_minutes": 200}}})
    assert done.status_code == 200, done.text
    admin.put(
        "/rules", json={"elder_id": elder["id"], "settings": {"no_activity": {"day_to": "18:00"}}, "note": "睡得早"}
    )
    held = admin.seen("/rules", elder_id=elder["id"])
    assert held["settings"]["no_activity"]["ceiling_minutes"] == 200
    assert held["settings"]["no_activity"]["day_to"] == "18:00"
    assert held["sources"]["no_activity.ceiling_minutes"]["scope"] == "region"
    assert held["sources"]["no_activity.day_to"]["scope"] == "elder"
    assert [one["note"] for one in admin.items("/rules/history", elder_id=elder["id"])] == ["睡得早"]
    admin.put("/rules", json={"region_code": village, "settings": {}})
    assert admin.seen("/rules", elder_id=elder["id"])["settings"]["no_activity"]["ceiling_minutes"] == 170
    for settings, field in (
        ({"no_activity": {"ceiling_minutes": 5}}, "no_activity.ceiling_minutes"),
        ({"no_activity": {"ceiling_minutes": 60}}, "no_activity.floor_minutes"),
        ({"night_exit": {"night_from": "23:00", "night_to": "23:00"}}, "no time at all"),
        ({"party": {}}, "party"),
    ):
        refused(admin.put("/rules", json={"elder_id": elder["id"], "settings": settings}), 422, field)
    unknown = {"region_code": "370302999999", "settings": {"tamper": {"enabled": False}}}
    refused(admin.put("/rules", json=unknown), 422, "no such region")
    late = {"elder_id": elder["id"], "settings": {}, "valid_from": "2020-01-01T00:00:00Z"}
    refused(admin.put("/rules", json=late), 422, "from now on")


def test_settings_keep_to_their_scope(live: Live) -> None:
    village, other = live.village(), live.village("370302002000")
    here, elsewhere = live.elder(village), live.elder(other)
    supervisor, operator = live.user("supervisor", village), live.user("operator", village)
    change = {"settings": {"tamper": {"enabled": False}}}
    assert supervisor.put("/rules", json={"elder_id": here["id"], **change}).status_code == 200
    assert supervisor.put("/rules", json={"region_code": village, **change}).status_code == 200
    refused(supervisor.put("/rules", json={"elder_id": elsewhere["id"], **change}), 404)
    refused(supervisor.put("/rules", json={"region_code": other, **change}), 404)
    refused(supervisor.put("/rules", json={"region_code": village[:9], **change}), 404)
    refused(supervisor.get("/rules", params={"elder_id": elsewhere["id"]}), 404)
    refused(operator.put("/rules", json={"elder_id": here["id"], **change}), 403)
    assert operator.seen("/rules", elder_id=here["id"])["settings"]["tamper"]["enabled"] is False


def test_periods_always_end_and_say_what_they_never_cover(live: Live) -> None:
    admin, elder = live.admin, live.elder()
    path = f"/elders/{elder['id']}/watch-periods"
    now = datetime.now(TZ)
    refused(admin.post(path, json={"kind": "away"}), 422)
    for kind, days in (("away", 91), ("maintenance", 8)):
        ends = (now + timedelta(days=days)).isoformat()
        refused(admin.post(path, json={"kind": kind, "ends_at": ends}), 422, "within")
    made = admin.made(path, kind="away", ends_at=(now + timedelta(days=5)).isoformat(), note="去女儿家")
    assert set(made["never_covers"]) == {"sos", "fall", "smoke", "gas", "water_leak", "reported"}
    assert "no_activity" in made["covers"]
    assert not set(made["covers"]) & set(made["never_covers"])
    assert [one["id"] for one in admin.items(path)] == [made["id"]]
    timeline = admin.items(f"/elders/{elder['id']}/timeline")
    assert any(one["kind"] == "away" and one["data"]["note"] == "去女儿家" for one in timeline)
    ended = admin.post(f"/watch-periods/{made['id']}/end")
    assert ended.status_code == 200, ended.text
    refused(admin.post(f"/watch-periods/{made['id']}/end"), 409, "over")
    outside = live.user("operator", live.village("370302002000"))
    refused(outside.get(path), 404)
    refused(outside.post(f"/watch-periods/{made['id']}/end"), 404)
