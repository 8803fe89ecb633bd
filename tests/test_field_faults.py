"""Faults that were seen in the field, each with the messages it comes in. In none of them is a true alarm lost, or a false one
told twice. All people are invented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest

from app.devices.events import Frame
from app.devices.mqtt import MqttClient
from app.devices.vocabulary import DeviceKind
from tests.test_catalogue import Families
from tests.world import Person, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
SOS, SMOKE, DOOR = DeviceKind.SOS_BUTTON, DeviceKind.SMOKE_DETECTOR, DeviceKind.DOOR_SENSOR
Z2M = "zigbee2mqtt/d"


class Home:
    """One elder with one device of a family; messages come minutes apart."""

    def __init__(self, world: World, families: Families, elder: Person) -> None:
        self.world, self.families, self.elder = world, families, elder

    async def says(self, *bodies: Any, topic: str = Z2M, minutes: float = 0, retained: bool = False) -> None:
        for body in bodies:
            self.world.clock.now += timedelta(minutes=minutes)
            await self.families.say(topic, body, retained=retained)

    async def rings(self) -> list[tuple[str, str, int]]:
        return [(a.kind, a.state, a.repeats) for a in await self.world.alarms(self.elder)]

    async def resolve(self) -> None:
        for alarm in await self.world.alarms(self.elder):
            if alarm.state != "resolved":
                await self.world.act(alarm.id, "resolve")

    async def state(self, field: str) -> Any:
        return await self.world.value("SELECT value FROM device_states WHERE field = :field", field=field)


@pytest.fixture
def families(world: World) -> Families:
    return Families(world)


async def home(
    families: Families, kind: DeviceKind, *, device: str = "zigbee2mqtt:d", profile: str = "zigbee2mqtt"
) -> Home:
    elder = await families.device(device, profile, kind)
    await families.following.load()
    return Home(families.world, families, elder)


async def test_duplicate_presses_in_one_second_are_one_alarm(world: World, families: Families) -> None:
    it = await home(families, SOS)
    await it.says(*[{"action": "emergency", "battery": 97}] * 3, minutes=0.005)
    assert await it.rings() == [("sos", "open", 2)]
    assert len(world.heard) == 0  # the first notices are planned, and only once
    assert (
        await world.value("SELECT count(*) FROM notices WHERE purpose = 'alarm.raised' AND recipient_type = 'contact'")
        == 1
    )


async def test_an_sos_that_the_gateway_remembers_rings_once_and_the_next_press_again(
    families: Families, world: World
) -> None:
    it = await home(families, SOS)
    await it.says({"sos": False, "battery": 100}, {"sos": True, "battery": 100}, minutes=1)
    await it.resolve()
    await it.says(*[{"sos": True, "battery": level} for level in (100, 99, 99, 98)], minutes=50)
    assert await it.rings() == [("sos", "resolved", 0)]
    await it.says({"sos": False, "battery": 98}, {"sos": True, "battery": 98}, minutes=1)
    assert [state for _, state, _ in await it.rings()] == ["resolved", "open"]


async def test_a_number_used_twice_loses_no_danger_and_leaves_a_trace(world: World) -> None:
    """A native device counts anew after its battery was changed; another counts each kind of event apart."""
    elder = await world.elder()
    button = await world.device(elder, "button-1")
    first = {"type": "sos", "id": "1", "ts": world.clock.now.timestamp() * 1000}
    for body in (first, first, {**first, "battery": 50}):
        await world.message(button, body)
    assert [(one.kind, one.repeats) for one in await world.alarms(elder)] == [("sos", 0)]
    await world.act((await world.alarm(elder)).id, "resolve")
    assert await world.rejected() == []

    await world.message(button, {"type": "motion", "id": "1"})
    await world.message(button, {"type": "smoke", "active": False, "id": "1"})
    assert await world.rejected() == ["id_used_again"] * 2
    smoke = {"type": "smoke", "active": True, "id": "1"}
    await world.ingest.swallow([world.frame(button, smoke), world.frame(button, smoke)])
    world.clock.now += timedelta(hours=1)
    again = {**first, "ts": world.clock.now.timestamp() * 1000}
    for body in (again, again, smoke, first):
        await world.message(button, body)
    assert sorted((one.kind, one.state, one.repeats) for one in await world.alarms(elder)) == [
        ("smoke", "open", 0), ("sos", "open", 0), ("sos", "resolved", 0),
    ]  # fmt: skip
    kept = await world.rows("SELECT type, event_id, data FROM device_events ORDER BY type, id")
    assert [(row.type, row.event_id.split("~")[0]) for row in kept] == [("smoke", "1"), ("sos", "1"), ("sos", "1")]
    assert "used before" in kept[0].data["_faults"][0]
    assert await world.rejected() == ["id_used_again"] * 2


@pytest.mark.parametrize(
    ("kind", "clear", "active", "alarm"),
    [
        (DeviceKind.FALL_DETECTOR, {"fall_down_status": "none"}, {"fall_down_status": "fall"}, "fall"),
        (DeviceKind.FALL_DETECTOR, {"fall_status": "normal"}, {"fall_status": "fall_alarm"}, "fall"),
        (SMOKE, {"smoke": False}, {"smoke": True}, "smoke"),
        (DeviceKind.GAS_DETECTOR, {"gas": False}, {"gas": True}, "gas"),
        (DeviceKind.WATER_SENSOR, {"water_leak": False}, {"water_leak": True}, "water_leak"),
    ],
)
async def test_cached_states_after_a_restart_of_the_gateway(
    families: Families, kind: DeviceKind, clear: Any, active: Any, alarm: str
) -> None:
    """First sight is told once; what comes again with each report and each reconnect is not; the next true one is."""
    it = await home(families, kind)
    await it.says({**active, "battery": 90})
    await it.resolve()
    await it.says({**active, "battery": 90}, {**active, "battery": 89}, minutes=5)
    await it.says({**active, "battery": 89}, {**active, "battery": 89}, retained=True)
    assert await it.rings() == [(alarm, "resolved", 0)]
    await it.says({**clear, "battery": 89}, {**active, "battery": 89}, minutes=1)
    assert [state for _, state, _ in await it.rings()] == ["resolved", "open"]


async def test_a_stuck_smoke_alarm_rings_again_and_does_not_hide_the_next_fire(families: Families) -> None:
    it = await home(families, SMOKE)
    await it.says({"smoke": True, "battery": 100})
    await it.resolve()
    await it.says(*[{"smoke": True, "battery": 100}] * 5, minutes=11)
    assert [state for _, state, _ in await it.rings()] == ["resolved"]
    await it.says({"smoke": True, "battery": 100}, minutes=11)
    rings = await it.rings()
    assert [state for _, state, _ in rings] == ["resolved", "open"]
    assert "可能仍在持续" in (await it.world.alarms(it.elder))[1].because


async def test_a_real_press_that_arrives_as_null(families: Families) -> None:
    it = await home(families, SOS)
    await it.says(*[{"action": None, "battery": 100, "linkquality": 87}] * 4, minutes=0.02)
    assert await it.rings() == [("sos", "open", 0)]
    await it.resolve()
    await it.says({"action": None, "battery": 100}, minutes=30)
    assert [state for _, state, _ in await it.rings()] == ["resolved", "open"]


async def test_resets_after_a_press_are_no_presses(families: Families) -> None:
    it = await home(families, SOS)
    await it.says(
        {"action": "emergency"}, {"action": ""}, {"action": None}, {"action": "", "battery": 97}, minutes=0.01
    )
    await it.resolve()
    await it.says({"action": ""}, {"battery": 97}, minutes=200)
    assert await it.rings() == [("sos", "resolved", 0)]


@pytest.mark.parametrize(
    "clock", [1000, 86_400_000, 4_102_444_800_000, "1970-01-01T00:00:03Z", "1970-01-01 08:00:03", "nan"]
)
async def test_clocks_that_are_wrong_delay_nothing(families: Families, clock: Any) -> None:
    it = await home(families, SMOKE)
    await it.says({"smoke": False, "last_seen": clock}, {"smoke": True, "last_seen": clock}, minutes=1)
    assert await it.rings() == [("smoke", "open", 0)]
    at = await it.world.value("SELECT occurred_at FROM alarms")
    assert at == it.world.clock.now


@pytest.mark.parametrize(("unit", "ahead"), [(1, 0), (1000, 0), (1, 86_400), (1000, 86_400), (1000, 200)])
async def test_seconds_or_milliseconds_and_a_clock_that_is_ahead(families: Families, unit: int, ahead: int) -> None:
    it = await home(families, SMOKE)
    for smoke in (False, True, True, False, True):
        it.world.clock.now += timedelta(minutes=1)
        seen = int((it.world.clock.now.timestamp() + ahead) * unit)
        await it.says({"smoke": smoke, "last_seen": seen, "battery": 100})
        if await it.rings() == [("smoke", "open", 0)]:
            await it.resolve()
    assert [state for _, state, _ in await it.rings()] == ["resolved", "open"]


async def test_a_time_without_a_zone_is_ours(families: Families) -> None:
    it = await home(families, SOS, device="tasmota:d", profile="tasmota")
    there = it.world.clock.now.astimezone(families.registry.known.tz)
    await it.says({"Time": f"{there:%Y-%m-%dT%H:%M:%S}", "Switch1": "ON"}, topic="tele/d/SENSOR")
    row = (await it.world.alarms(it.elder))[0]
    assert (row.late, row.occurred_at) == (False, it.world.clock.now.replace(microsecond=0))


async def test_late_reports_overwrite_nothing_and_a_late_fire_is_told_once(families: Families) -> None:
    it = await home(families, SMOKE)

    async def report(smoke: bool, age: float) -> None:
        seen = it.world.clock.now - timedelta(minutes=age)
        await it.says({"smoke": smoke, "battery": 100, "last_seen": seen.isoformat()})

    await report(False, 60)
    await report(False, 0)
    await report(True, 30)  # it burned half an hour ago, and the gateway tells it now
    assert await it.rings() == [("smoke", "open", 0)]
    assert await it.state("smoke") == "clear"
    await it.resolve()
    await report(True, 30)
    await report(True, 20)
    await report(False, 10)
    assert await it.rings() == [("smoke", "resolved", 0)]
    it.world.clock.now += timedelta(minutes=1)
    await report(True, 0)
    assert [state for _, state, _ in await it.rings()] == ["resolved", "open"]


async def test_a_counter_that_began_anew_loses_no_press(families: Families) -> None:
    it = await home(families, SOS, device="aliyun:pk:d", profile="aliyun")
    topic = "/sys/pk/d/thing/event/sos/post"
    for number in ("1", "2", "1"):  # it restarted before the third
        it.world.clock.now += timedelta(minutes=3)
        now = int(it.world.clock.now.timestamp() * 1000)
        await it.says({"id": number, "version": "1.0", "params": {"value": {}, "time": now}}, topic=topic)
        await it.resolve()
    assert [state for _, state, _ in await it.rings()] == ["resolved"] * 3


@pytest.mark.parametrize(
    "payload",
    [
        b'{"smoke":true,"temperature":NaN,"battery":nan,"voltage":null}',
        b'{"battery":90,"linkquality":12{"smoke":true,"battery":90}',
        b'{"smoke":true,"battery":90}{"smoke":true,"batt',
        b'{"smoke":true,"name":"\xff\xfe\xe5\xae"}',
        b'\xef\xbb\xbf{"smoke":true,"battery":255}',
        b'{"smoke":true,"battery":1e999,"depth":[[[[[[[[]]]]]]]]}',
    ],
)
async def test_what_is_broken_beside_a_fire_does_not_hide_it(families: Families, payload: bytes) -> None:
    it = await home(families, SMOKE)
    await it.says(payload)
    assert await it.rings() == [("smoke", "open", 0)]
    await it.resolve()
    await it.says(payload, minutes=1)
    assert len(await it.rings()) == 1


async def test_a_contact_that_flaps_and_closes_by_itself_alarms_nobody_and_keeps_what_it_said(
    families: Families,
) -> None:
    it = await home(families, DOOR)
    await it.says(*[{"contact": number % 2 == 0} for number in range(20)], minutes=0.003)
    await it.says(*[{"contact": False, "battery": 80}] * 3, minutes=30)
    assert await it.rings() == []
    assert await it.state("contact") == "open"
    assert await it.world.value("SELECT count(*) FROM device_events WHERE type = 'door'") == 23


BATTERIES: Sequence[tuple[Sequence[Any], int | None]] = (
    ((100, 0, 100, 0, 100), 100), ((100, 255, 200, -1), 100), ((80, 0, 0), 0), ((0, 100), 100), ((64, 3.05, 2.9), 64),
    ((3000, "77"), 77), ((90, "nan", None, True), 90), ((40, 12), 12),
)  # fmt: skip


@pytest.mark.parametrize(("said", "believed"), BATTERIES)
async def test_batteries_that_are_none(families: Families, said: Sequence[Any], believed: int | None) -> None:
    it = await home(families, SOS)
    await it.says(*[{"battery": level} for level in said], minutes=60)
    assert await it.world.value("SELECT battery FROM devices") == believed
    await it.says({"action": "emergency", "battery": 255})
    assert await it.rings() == [("sos", "open", 0)]


async def test_a_sleepy_device_that_speaks_every_25_hours(families: Families) -> None:
    it = await home(families, DeviceKind.WATER_SENSOR)
    await it.says(*[{"water_leak": False, "battery": 60}] * 3, minutes=25 * 60)
    await it.says({"water_leak": True, "battery": 60}, minutes=25 * 60)
    assert await it.rings() == [("water_leak", "open", 0)]


async def test_a_bridge_that_goes_and_comes_raises_nothing_and_hides_nothing(families: Families) -> None:
    it = await home(families, SMOKE)
    await it.says({"smoke": False, "battery": 100})
    for _ in range(3):
        await it.says({"state": "offline"}, topic="zigbee2mqtt/bridge/state", retained=True)
        await it.says({"state": "offline"}, topic=f"{Z2M}/availability", retained=True)
        await it.says(b"", retained=True)  # a rename
        await it.says({"state": "online"}, topic="zigbee2mqtt/bridge/state", retained=True)
        await it.says({"smoke": False, "battery": 100}, minutes=1)
    assert await it.rings() == []
    await it.says({"smoke": True, "battery": 100}, {"state": "offline"}, {"smoke": True, "battery": 100})
    assert await it.rings() == [("smoke", "open", 0)]


async def test_two_clients_with_one_id_throw_each_other_out(world: World) -> None:
    """Each take-over fires the other's last will: the device goes on and off, and its press is heard all the same."""
    elder = await world.elder()
    await world.contact(elder, "王小明")
    button = await world.device(elder)

    def frame(leaf: str, body: Any, *, retained: bool = False) -> Frame:
        return Frame(f"devices/{button}/{leaf}", json.dumps(body).encode(), world.time(), retained)

    flips = [frame("status", {"online": number % 2 == 0}, retained=number < 2) for number in range(20)]
    press = frame("event", {"type": "sos", "id": "7"})
    await world.ingest.swallow([*flips[:10], press, *flips[10:], press])
    assert [(a.kind, a.repeats) for a in await world.alarms(elder)] == [("sos", 0)]
    assert await world.value("SELECT online FROM devices") is True  # the press came last


@pytest.mark.parametrize(
    "topic",
    ["zigbee2mqtt/../../etc/passwd", "zigbee2mqtt/厨房/烟感", "zigbee2mqtt/a:b~c", "zigbee2mqtt/ d", "zigbee2mqtt/..."],
)
async def test_names_that_look_like_paths_or_wildcards_are_one_device_each(families: Families, topic: str) -> None:
    await families.say(topic, {"smoke": False})
    device_id = await families.world.value("SELECT device_id FROM unclaimed_devices")
    elder = await families.device(device_id, "zigbee2mqtt", SMOKE)
    await families.say(topic, {"smoke": True})
    assert (await families.world.alarm(elder)).trigger_device_id == device_id


@pytest.mark.parametrize("topic", ["zigbee2mqtt/+", "zigbee2mqtt/#", "devices/+/event", "devices/#"])
async def test_names_with_wildcards_are_nobodys(families: Families, topic: str) -> None:
    await families.say(topic, {"type": "sos", "smoke": True})
    assert await families.world.alarms() == []


async def test_two_processes_that_hear_one_device_tell_it_once(world: World, families: Families) -> None:
    """Shared subscriptions give a device's messages to several processes: the state is compared and set."""
    it = await home(families, SMOKE)
    other = Families(world)
    await other.following.load()
    await it.says({"smoke": False, "battery": 90})
    for _ in range(5):
        world.clock.now += timedelta(minutes=1)
        await asyncio.gather(
            families.say(Z2M, {"smoke": True, "battery": 90}), other.say(Z2M, {"smoke": True, "battery": 91})
        )
        await it.resolve()
        assert len(await it.rings()) == 1
    assert await it.state("smoke") == "smoke"


@pytest.mark.xdist_group("live")
async def test_a_session_is_kept_at_the_broker_and_begun_anew_where_it_was_lost(live: Live) -> None:
    """A library that begins with a clean session loses what came while nobody listened. Ours keeps it, on the real broker;
    and where the broker itself lost the session, the subscriptions are made again."""
    device = "lost-session-1"

    async def listener() -> MqttClient:
        one = MqttClient(f"mqtt://127.0.0.1:{live.mqtt_port}", client_id="keeps-its-session",
                         subscriptions=[f"devices/{device}/event"], clock=lambda: datetime.now(UTC))  # fmt: skip
        one.start()
        async with asyncio.timeout(10):
            while not one.healthy:
                await asyncio.sleep(0.02)
        return one

    async def hears(one: MqttClient) -> list[str]:
        async with asyncio.timeout(10):
            taken = await one.take(10)
        one.acknowledge(taken)
        return [json.loads(received.frame.payload)["id"] for received in taken]

    def press(number: str) -> None:
        live.say(f"devices/{device}/event", {"type": "sos", "id": number})

    one = await listener()
    await one.stop()
    await asyncio.to_thread(press, "while away")
    one = await listener()
    assert await hears(one) == ["while away"]
    await one.stop()

    thief = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="keeps-its-session", clean_session=True)
    await asyncio.to_thread(thief.connect, "127.0.0.1", live.mqtt_port)
    thief.loop_start()
    async with asyncio.timeout(10):
        while not thief.is_connected():
            await asyncio.sleep(0.02)
    thief.disconnect()
    thief.loop_stop()
    one = await listener()
    await asyncio.to_thread(press, "after the loss")
    assert await hears(one) == ["after the loss"]
    await one.stop()
