"""What decoding knows, kept in the database; subscriptions that follow it; the way of other families' events. All people
are invented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from app.db import transaction
from app.devices import catalogue, codecs, wearing
from app.devices.codec import Registry
from app.devices.events import Frame, Observation
from app.devices.following import Following
from app.devices.mqtt import MqttClient
from app.devices.profiles import Profile
from app.devices.vocabulary import DeviceKind, ProfileSource
from app.embedded.broker import EmbeddedBroker, free_port
from app.ingest import Ingest
from tests.test_survival import Mosquitto
from tests.world import START, TZ, VILLAGE, Person, World

FAMILY = "王小明"
ADDRESS = "0x00158d0001a2b3c4"


class Families:
    """The world's ingest with every family, and the loop that keeps it abreast."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.registry = Registry(codecs.families())
        self.changed = asyncio.Event()
        self.following = Following(self.registry, world.sessions, self.changed, TZ)
        self.ingest = Ingest(world.hand, self.registry, world.lane(), world.time, TZ, world.sealer)  # type: ignore[arg-type]

    async def say(self, topic: str, body: Any, *, retained: bool = False) -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.ingest.swallow([Frame(topic, payload, self.world.time(), retained)])

    async def device(self, device_id: str, profile: str, kind: DeviceKind = DeviceKind.SOS_BUTTON) -> Person:
        elder = await self.world.elder()
        await self.world.contact(elder, FAMILY)
        now = self.world.time()
        async with transaction(self.world.sessions) as session:
            made = await wearing.register(
                session, device_id=device_id, kind=kind, profile=profile, place=None, region_code=VILLAGE, now=now
            )
            await wearing.bind(session, made, elder_id=elder.id, region_code=VILLAGE, now=now)
        return elder

    async def profile(self, **fields: Any) -> None:
        async with transaction(self.world.sessions) as session:
            read = Profile.model_validate(fields)
            assert await catalogue.put_profile(
                session, read, source=ProfileSource.API, file=None, now=self.world.time()
            )

    async def directory(self, folder: Path) -> list[str]:
        async with transaction(self.world.sessions) as session:
            return await catalogue.load_directory(session, folder, codecs.families(), now=self.world.time())

    async def in_force(self) -> dict[str, ProfileSource]:
        async with transaction(self.world.sessions) as session:
            return {kept.profile.name: kept.source for kept in await catalogue.profiles(session)}


@pytest.fixture
def families(world: World) -> Families:
    return Families(world)


def bridge(**names: str) -> bytes:
    return json.dumps([{"ieee_address": a, "friendly_name": n, "type": "EndDevice"} for n, a in names.items()]).encode()


# --- the way of an event -------------------------------------------------------------------------------------------------


async def test_a_press_is_an_sos_by_the_role_in_the_register(world: World, families: Families) -> None:
    """Even when the copy in memory is older than the registration: the journal asks the register anyway."""
    elder = await families.device("zigbee2mqtt:hs1eb", "zigbee2mqtt")
    assert families.registry.known.devices == {}
    await families.say("zigbee2mqtt/hs1eb", {"action": "single"})
    assert (await world.alarm(elder)).kind == "sos"
    await families.following.load()
    assert families.registry.known.devices["zigbee2mqtt:hs1eb"].kind is DeviceKind.SOS_BUTTON


async def test_the_same_word_of_another_role_is_no_alarm(world: World, families: Families) -> None:
    elder = await families.device("zigbee2mqtt:doorbell", "zigbee2mqtt", DeviceKind.OTHER)
    for body in ({"action": "single"}, {"action": ""}, {"action": None}, {"action": "fall"}):
        await families.say("zigbee2mqtt/doorbell", body)
    assert not await world.alarms(elder)
    rows = await world.rows("SELECT type, data FROM device_events ORDER BY type, data ->> 'word' DESC")
    assert [row.type for row in rows] == ["cleared", "press", "press", "press"]
    assert rows[1].data == {"word": "single", "_field": "action", "_kind": "event", "_sent": {"action": "single"}}


async def test_a_reset_after_a_press_raises_nothing_more(world: World, families: Families) -> None:
    elder = await families.device("zigbee2mqtt:sos", "zigbee2mqtt")
    await families.say("zigbee2mqtt/sos", {"action": "emergency", "battery": 90})
    await families.say("zigbee2mqtt/sos", {"action": "", "battery": 90})
    await families.say("zigbee2mqtt/sos", {"action": None, "battery": 90})
    assert (await world.alarm(elder)).repeats == 0


async def test_a_retained_state_is_told_once_and_in_doubt(world: World, families: Families) -> None:
    """ESPHome retains its inputs: what a new subscription brings is old, however often it comes. That it holds, and that
    nobody knows since when, is told once."""
    elder = await families.device("esphome:node", "esphome")
    for _ in range(3):
        await families.say("node/binary_sensor/sos/state", b"ON", retained=True)
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity, alarm.repeats) == ("sos", "major", 0)
    assert "第一次收到时就已如此" in alarm.because
    assert await world.value("SELECT count(*) FROM device_events") == 1


async def test_a_retained_state_that_changed_while_nobody_listened_is_news(world: World, families: Families) -> None:
    elder = await families.device("esphome:node", "esphome")
    await families.say("node/binary_sensor/sos/state", b"OFF")
    for seconds in (1, 2):
        world.clock.now += timedelta(seconds=seconds)
        await families.say("node/binary_sensor/sos/state", b"ON", retained=True)
    first = await world.alarm(elder)
    assert (first.severity, first.repeats) == ("critical", 0)
    await world.operator(elder, "resolve")
    await families.say("node/binary_sensor/sos/state", b"OFF")
    world.clock.now += timedelta(seconds=1)
    await families.say("node/binary_sensor/sos/state", b"ON", retained=True)  # word for word what was heard before
    assert [alarm.state for alarm in await world.alarms(elder)] == ["resolved", "open"]


async def test_the_same_uplink_again_is_one_event(world: World, families: Families) -> None:
    elder = await families.device("lorawan:24e1", "chirpstack")
    uplink = {
        "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "time": START.isoformat(),
        "object": {"press": "short", "tamper_status": "installed"},
    }
    for _ in range(3):
        await families.say("application/1/device/24e1/event/up", uplink)
    assert (await world.alarm(elder)).repeats == 0
    rows = await world.rows("SELECT type FROM device_events ORDER BY type")
    assert [row.type for row in rows] == ["sos", "tamper"]


async def test_a_counter_that_began_anew_loses_no_press(world: World, families: Families) -> None:
    elder = await families.device("aliyun:pk:b", "aliyun")
    press = {"id": "1", "params": {"value": {}}}
    await families.say("/sys/pk/b/thing/event/SOS/post", press)
    await families.say("/sys/pk/b/thing/event/SOS/post", press)  # after a reboot it counts from 1
    assert (await world.alarm(elder)).repeats == 1
    timed = {"id": "2", "params": {"value": {}, "time": int(START.timestamp() * 1000)}}
    for _ in range(2):
        await families.say("/sys/pk/b/thing/event/SOS/post", timed)
    assert (await world.alarm(elder)).repeats == 2


async def test_a_watch_that_may_hide_an_sos_gets_a_human_look(world: World, families: Families) -> None:
    elder = await families.device("traccar:8612", "traccar")
    body = {"event": {"type": "alarm", "attributes": {"alarm": "lowBattery"}}, "device": {"uniqueId": "8612"}}
    await families.say("traccar/events", body)
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity) == ("sos", "minor")
    assert "电量" in alarm.because
    body["event"]["attributes"]["alarm"] = "sos"  # type: ignore[index]
    await families.say("traccar/events", body)
    assert (await world.alarm(elder)).severity == "critical"


async def test_a_suspected_fall_is_no_alarm_until_nobody_moves(world: World, families: Families) -> None:
    elder = await families.device("zigbee2mqtt:hs2fd", "zigbee2mqtt", DeviceKind.FALL_DETECTOR)
    await families.say("zigbee2mqtt/hs2fd", {"fall_status": "fall_warning"})
    await world.live(minutes=1)
    assert not await world.alarms(elder)
    await world.live(minutes=1)
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity) == ("fall", "critical")
    assert "90秒" in alarm.because


# --- names ---------------------------------------------------------------------------------------------------------------


async def test_names_are_kept_for_another_process(world: World, families: Families) -> None:
    elder = await families.device(f"zigbee:{ADDRESS}", "zigbee2mqtt")
    await families.say("zigbee2mqtt/bridge/devices", bridge(button=ADDRESS, lamp="0x00158d0001a2b3c5"), retained=True)
    another = Families(world)
    await another.following.load()
    await another.say("zigbee2mqtt/button", {"action": "sos"})
    assert (await world.alarm(elder)).trigger_device_id == f"zigbee:{ADDRESS}"
    await families.say("zigbee2mqtt/bridge/devices", bridge(renamed=ADDRESS))
    names = {row.topic: row.address for row in await world.rows("SELECT topic, address FROM zigbee_names")}
    assert names == {"zigbee2mqtt/renamed": ADDRESS}  # and a lamp that is gone is forgotten


async def test_a_name_is_known_to_the_messages_behind_it(world: World, families: Families) -> None:
    """In one batch, before anything is committed."""
    elder = await families.device(f"zigbee:{ADDRESS}", "zigbee2mqtt")
    frames = [
        Frame("zigbee2mqtt/bridge/devices", bridge(button=ADDRESS), START, True),
        Frame("zigbee2mqtt/button", b'{"action":"panic"}', START),
    ]
    await families.ingest.swallow(frames)
    assert (await world.alarm(elder)).kind == "sos"


async def test_what_a_gateway_told_survives_an_older_copy(families: Families) -> None:
    [learned] = families.registry.decode(Frame("zigbee2mqtt/bridge/devices", bridge(button=ADDRESS), START, True))
    families.registry.learn(learned)  # type: ignore[arg-type]
    await families.following.load()  # the transaction that keeps it has not been committed yet
    [seen] = families.registry.decode(Frame("zigbee2mqtt/button", b'{"action":"sos"}', START))
    assert isinstance(seen, Observation)
    assert seen.device_id == f"zigbee:{ADDRESS}"


async def test_hostile_names_of_a_gateway_are_taken_or_left(world: World, families: Families) -> None:
    names = {
        "a\x00b": "0x0000000000000001",
        "x" * 600: "0x0000000000000002",
        "好/名": "0x0000000000000003",
        "": ADDRESS,
    }
    await families.say("zigbee2mqtt/bridge/devices", bridge(**names), retained=True)
    assert [row.topic for row in await world.rows("SELECT topic FROM zigbee_names")] == ["zigbee2mqtt/好/名"]
    many = {f"d{n}": f"0x{n:016x}" for n in range(5000)}
    await families.say("zigbee2mqtt/bridge/devices", bridge(**many))
    assert await world.value("SELECT count(*) FROM zigbee_names") == 5000
    await families.say("zigbee2mqtt/bridge/devices", b'{"not": "a list"}')
    assert await world.rejected() == ["bad_field"]


# --- profiles in files ---------------------------------------------------------------------------------------------------


def text(name: str, topic: str = "acme/{device_id}/up", **more: Any) -> str:
    return json.dumps({"name": name, "topic": topic, "fields": [{"path": "$.e", "role": "sos"}], **more})


async def test_a_directory_of_profiles_is_in_force_after_a_start(
    world: World, families: Families, tmp_path: Path
) -> None:
    (tmp_path / "acme.yaml").write_text(
        "name: acme\ntopic: acme/{device_id}/up\nfields:\n- {path: $.e, role: type, values: {1: sos}}\n",
        encoding="utf-8",
    )
    assert await families.directory(tmp_path) == []
    assert await families.in_force() == {"acme": ProfileSource.FILE}
    version = await world.value("SELECT version FROM device_profiles")
    assert await families.directory(tmp_path) == []  # the same again changes nothing
    assert await world.value("SELECT version FROM device_profiles") == version
    elder = await families.device("R1", "acme")
    await families.following.load()
    await families.say("acme/R1/up", {"e": 1})
    assert (await world.alarm(elder)).kind == "sos"


async def test_a_broken_file_takes_nothing_out_of_service(families: Families, tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(text("acme"))
    await families.directory(tmp_path)
    (tmp_path / "acme.yaml").write_text("name: [")
    [fault] = await families.directory(tmp_path)
    assert fault.startswith("acme.yaml:1")
    assert "acme" in await families.in_force()


async def test_a_file_that_is_gone_is_withdrawn_unless_devices_need_it(
    world: World, families: Families, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(text("one"))
    (tmp_path / "b.yaml").write_text(text("two", "two/{device_id}"))
    await families.directory(tmp_path)
    await families.device("R1", "two")
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").unlink()
    [fault] = await families.directory(tmp_path)
    assert "two is gone" in fault
    assert await families.in_force() == {"two": ProfileSource.FILE}
    async with transaction(world.sessions) as session:
        assert await catalogue.withdrawn_topics(session) == ["acme/+/up"]


async def test_a_file_does_not_replace_what_the_api_made(families: Families, tmp_path: Path) -> None:
    await families.profile(**json.loads(text("acme")))
    (tmp_path / "acme.yaml").write_text(text("acme", "other/{device_id}"))
    [fault] = await families.directory(tmp_path)
    assert "made through the API" in fault
    assert await families.in_force() == {"acme": ProfileSource.API}


# --- subscriptions -------------------------------------------------------------------------------------------------------


async def test_topics_to_subscribe_to_and_to_give_up(world: World) -> None:
    families = Families(world)
    await families.profile(**json.loads(text("acme")))
    await families.profile(**json.loads(text("gone", "gone/{device_id}")))
    async with transaction(world.sessions) as session:
        await catalogue.withdraw_profile(session, "gone", now=START)
    group = Following(
        Registry(codecs.families()), world.sessions, asyncio.Event(), TZ, group="g", unused=["stat/+/+", "old/#"]
    )
    topics, leave = await group.load()
    assert "$share/g/acme/+/up" in topics
    assert "$share/g/$thing/up/event/+/+" in topics
    assert "zigbee2mqtt/bridge/devices" in topics  # retained, so not shared
    assert {"gone/+", "$share/g/gone/+", "old/#"} <= set(leave)
    assert not set(topics) & set(leave)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path / "mosquitto").start()
    yield running
    running.stop()


class Listener:
    def __init__(self, broker: Mosquitto, topics: list[str]) -> None:
        self.port = broker.port
        self.client = MqttClient(broker.url, client_id="listener", subscriptions=topics, clock=lambda: START)

    async def healthy(self) -> None:
        async with asyncio.timeout(10):
            while not self.client.healthy:
                await asyncio.sleep(0.02)

    async def hears(self, topic: str, *, times: int = 1) -> list[Frame]:
        """What comes within a while of saying something there (and a fence behind it)."""
        for _ in range(times):
            await asyncio.to_thread(publish.single, topic, b"{}", qos=1, hostname="127.0.0.1", port=self.port)
        await asyncio.to_thread(publish.single, "fence", b"", qos=1, hostname="127.0.0.1", port=self.port)
        frames: list[Frame] = []
        async with asyncio.timeout(10):
            while not any(frame.topic == "fence" for frame in frames):
                taken = await self.client.take(100)
                self.client.acknowledge(taken)
                frames += [one.frame for one in taken]
        return [frame for frame in frames if frame.topic != "fence"]


@pytest.fixture
async def listener(broker: Mosquitto) -> AsyncIterator[Listener]:
    one = Listener(broker, ["fence", "a/+"])
    one.client.start()
    await one.healthy()
    yield one
    with suppress(Exception):
        await one.client.stop()


@pytest.mark.mosquitto
async def test_subscriptions_are_added_and_given_up_without_a_restart(broker: Mosquitto, listener: Listener) -> None:
    assert len(await listener.hears("a/1")) == 1
    listener.client.follow(["fence", "b/+"])
    await listener.healthy()
    assert len(await listener.hears("b/1")) == 1
    assert await listener.hears("a/1") == []
    # A session that the broker kept knows subscriptions this process never heard of.
    await listener.client.stop()
    again = Listener(broker, ["fence"])
    again.client.follow(["fence"], leave=["b/+", "never/#"])
    again.client.start()
    await again.healthy()
    assert await again.hears("b/1") == []
    await again.client.stop()


async def test_a_broker_that_hangs_up_on_a_dollar_costs_nobody_else_their_ears(tmp_path: Path) -> None:
    """rumqttd does. The families with such topics are left out, and said; the others are heard."""
    embedded = EmbeddedBroker(tmp_path, free_port(0)).start()
    client = MqttClient(
        embedded.url, client_id="listener", subscriptions=["$oc/devices/+/sys/events/up/#", "a/+"], clock=lambda: START
    )
    client.start()
    try:
        async with asyncio.timeout(30):
            while not (client.healthy and client.unheard):
                await asyncio.sleep(0.02)
        assert client.unheard == ["$oc/devices/+/sys/events/up/#"]
        await asyncio.to_thread(publish.single, "a/1", b"{}", qos=1, hostname="127.0.0.1", port=embedded.port)
        async with asyncio.timeout(10):
            [one] = await client.take(10)
        assert one.frame.topic == "a/1"
        assert client.healthy
    finally:
        await client.stop()
        embedded.stop()


@pytest.mark.mosquitto
@pytest.mark.parametrize(
    ("device_id", "topic", "body"),
    [
        ("onenet:p:b3", "$sys/p/b3/thing/event/post", {"id": "1", "params": {"sos": {"value": {}}}}),
        ("tencent:p:b4", "$thing/up/event/p/b4", {"clientToken": "1", "eventId": "sos", "params": {}}),
        ("huawei:b5", "$oc/devices/b5/sys/events/up", {"services": [{"event_type": "sos", "paras": {}}]}),
        ("huawei:b5", "$oc/devices/b5/sys/events/up/request_id=7", {"services": [{"event_type": "sos", "paras": {}}]}),
    ],
)
async def test_topics_that_begin_with_a_dollar_reach_the_daughter(
    world: World, broker: Mosquitto, device_id: str, topic: str, body: dict[str, Any]
) -> None:
    families = Families(world)
    topics, _ = await families.following.load()
    listener = Listener(broker, topics)
    listener.client.start()
    await listener.healthy()
    elder = await families.device(device_id, device_id.partition(":")[0])
    payload = json.dumps(body)
    await asyncio.to_thread(publish.single, topic, payload, qos=1, hostname="127.0.0.1", port=broker.port)
    async with asyncio.timeout(10):
        taken = await listener.client.take(10)
    await families.ingest.swallow([one.frame for one in taken])
    await world.settle()
    assert (await world.alarm(elder)).kind == "sos"
    world.expect_heard(FAMILY, "alarm.raised")
    await listener.client.stop()
