"""Putting devices into service: the guided test and what it never hides, self-tests that are due, lists of devices. All people
are invented."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import xlsxwriter

from app.db import transaction
from app.devices import commissioning
from app.devices.commissioning import Drill, Outcome, Part, kind_by_what_it_says, part_in
from app.devices.edges import Because
from app.devices.events import Door, Event, Fall, Gas, Observation, Smoke, Sos
from app.devices.journal import Journalled
from app.devices.vocabulary import DeviceKind
from app.errors import Conflict, InvalidInput
from app.ids import DeviceId
from tests.world import OPERATOR, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
FAMILY = "王小明"
START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


# --- what belongs to a test -------------------------------------------------------------------------------------------------


def said(
    event: Event, second: float, because: Because = Because.HAPPENED, *, age: float = 0, retained: bool = False
) -> Journalled:
    at = START + timedelta(seconds=second)
    seen = Observation(DeviceId("d"), event, at, at - timedelta(seconds=age), retained=retained)
    return Journalled(seen, uuid4(), edge=because.edge, edge_reason=because)


def window(*expects: str, seen: float | None = None) -> Drill:
    seen_at = START + timedelta(seconds=seen) if seen is not None else None
    return Drill(uuid4(), "d", expects, START, START + timedelta(minutes=2), seen_at)


@pytest.mark.unit
def test_what_is_waited_for_is_seen_and_nothing_else() -> None:
    assert part_in(window("sos"), said(Sos(), 5)) is Part.SEEN
    assert part_in(window("smoke"), said(Smoke(True), 5, Because.CHANGED)) is Part.SEEN
    for test, one in (
        (window("sos"), said(Smoke(True), 5)),  # smoke during a test of a button
        (window("sos"), said(Fall(), 5)),
        (window("smoke"), said(Gas(True), 5)),
        (window("smoke"), said(Smoke(False), 5, Because.CHANGED)),
        (window("sos"), said(Sos(), 121)),
        (window("sos"), said(Sos(), 5, age=600)),  # a press of before, which waited in the gateway
        (window("smoke"), said(Smoke(True), 5, Because.UNHEARD)),
        (window("smoke"), said(Smoke(True), 5, Because.STILL)),  # it burned before the test
        (window("sos"), said(Sos(), 5, retained=True)),
        (window("sos"), said(Sos(), 5, Because.SAID_AGAIN)),
    ):
        assert part_in(test, one) is Part.NONE


@pytest.mark.unit
def test_a_bounce_is_the_same_press_and_a_later_one_is_a_call_for_help() -> None:
    assert part_in(window("sos", seen=5), said(Sos(), 7)) is Part.AGAIN
    assert part_in(window("sos", seen=5), said(Sos(), 20)) is Part.NONE
    assert part_in(window("smoke", seen=5), said(Smoke(True), 60, Because.NEVER_TOLD)) is Part.AGAIN
    assert part_in(window("smoke", seen=5), said(Smoke(True), 60, Because.CHANGED)) is Part.NONE


@pytest.mark.unit
def test_what_is_expected_of_a_kind() -> None:
    assert commissioning.expected_of(DeviceKind.SOS_BUTTON, None) == ("sos",)
    assert commissioning.expected_of(DeviceKind.DOOR_SENSOR, None) == ("door",)
    assert commissioning.expected_of(DeviceKind.OTHER, ["vitals"]) == ("vitals",)
    for kind, wanted in ((DeviceKind.GATEWAY, None), (DeviceKind.SOS_BUTTON, ["doorbell"])):
        with pytest.raises(InvalidInput):
            commissioning.expected_of(kind, wanted)
    assert kind_by_what_it_says(["heartbeat", "smoke"]) is DeviceKind.SMOKE_DETECTOR
    assert kind_by_what_it_says(["heartbeat"]) is None
    assert part_in(window("door"), said(Door(False), 5, Because.CHANGED)) is Part.SEEN


# --- the way of a test ------------------------------------------------------------------------------------------------------


async def begin(world: World, device_id: str, *expects: str, elder: Any = None) -> Any:
    async with transaction(world.sessions) as session:
        return await commissioning.start(
            session, device_id=device_id, elder_id=elder and elder.id, expects=expects, window=timedelta(minutes=2),
            by=OPERATOR, note=None, now=world.time(),
        )  # fmt: skip


async def outcome(world: World, device_id: str, test_id: Any) -> Outcome:
    async with transaction(world.sessions) as session:
        row = await commissioning.find(session, device_id, test_id)
        return commissioning.outcome_of(row, now=world.time())


async def test_press_now(world: World) -> None:
    """The press is seen as a test, told to the desk and the device, not to the family; the next one is a call for help."""
    elder = await world.elder()
    await world.contact(elder, FAMILY)
    button = await world.device(elder)
    test_id = await begin(world, button, "sos", elder=elder)
    assert await outcome(world, button, test_id) is Outcome.WAITING
    world.clock.now += timedelta(seconds=4)
    await world.message(button, {"type": "sos", "id": "1"})
    await world.message(button, {"type": "sos", "id": "2"})
    assert await outcome(world, button, test_id) is Outcome.SEEN
    assert await world.alarms(elder) == []
    assert await world.rows("SELECT id FROM notices") == []
    told = (await world.feed("device.test_seen"))[0]
    assert (told.data["type"], told.data["seconds"], told.region_code) == ("sos", 4.0, "370302001001")
    assert world.hand.published == [
        (
            f"devices/{button}/command",
            {"type": "test", "test_id": str(test_id), "state": "seen", "message": "测试成功,已收到"},
        )
    ]
    rows = await world.rows("SELECT data FROM device_events ORDER BY id")
    assert [row.data["_test"] for row in rows] == [str(test_id)] * 2
    row = (await world.rows("SELECT * FROM device_tests"))[0]
    assert (row.event_type, row.started_by["name"], row.elder_id) == ("sos", OPERATOR["name"], elder.id)
    world.clock.now += timedelta(seconds=15)  # the window would still be open
    await world.message(button, {"type": "sos", "id": "3"})
    assert (await world.alarm(elder)).kind == "sos"


async def test_a_test_hides_no_other_emergency(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, FAMILY)
    button, other = await world.device(elder), await world.device(elder)
    smoke = await world.device(elder, kind=DeviceKind.SMOKE_DETECTOR)
    await begin(world, button, "sos", elder=elder)
    await world.message(smoke, {"type": "smoke", "active": True})
    assert (await world.alarm(elder)).kind == "smoke"
    await world.message(other, {"type": "sos"})
    await world.message(button, {"type": "fall"})
    assert {alarm.kind for alarm in await world.alarms(elder)} == {"smoke", "sos", "fall"}


async def test_a_window_ends_by_itself(world: World) -> None:
    elder = await world.elder()
    button = await world.device(elder)
    test_id = await begin(world, button, "sos", elder=elder)
    with pytest.raises(Conflict):
        await begin(world, button, "sos", elder=elder)
    world.clock.now += timedelta(seconds=121)
    assert await outcome(world, button, test_id) is Outcome.NOT_SEEN
    await world.message(button, {"type": "sos"})
    assert (await world.alarm(elder)).state == "open"
    assert await world.ticks.end_tests() == 1
    assert await world.ticks.end_tests() == 0
    assert (await world.feed("device.test_not_seen"))[0].data["device_id"] == button
    with pytest.raises(Conflict):  # an alarm of that kind is unresolved: a press must join it
        await begin(world, button, "sos", elder=elder)


@pytest.mark.parametrize("again", [True, False])
async def test_smoke_that_does_not_end_with_its_test_is_an_alarm(world: World, again: bool) -> None:
    """Whether the detector says it again or falls silent: when the window is over, it burns."""
    elder = await world.elder()
    await world.contact(elder, FAMILY)
    smoke = await world.device(elder, kind=DeviceKind.SMOKE_DETECTOR)
    await begin(world, smoke, "smoke", elder=elder)
    for _ in range(3):
        world.clock.now += timedelta(seconds=20)
        await world.message(smoke, {"type": "smoke", "active": True})
    assert await world.alarms(elder) == []
    world.clock.now += timedelta(seconds=61)
    if again:
        await world.message(smoke, {"type": "smoke", "active": True})
    await world.ticks.end_tests()
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity, alarm.repeats) == ("smoke", "critical", 0)
    assert "测试之后一直没有解除" in alarm.because


async def test_smoke_that_ends_with_its_test_is_none(world: World) -> None:
    elder = await world.elder()
    smoke = await world.device(elder, kind=DeviceKind.SMOKE_DETECTOR)
    test_id = await begin(world, smoke, "smoke", elder=elder)
    await world.message(smoke, {"type": "smoke", "active": True})
    await world.message(smoke, {"type": "smoke", "active": False})
    world.clock.now += timedelta(minutes=3)
    await world.ticks.end_tests()
    assert await world.alarms(elder) == []
    assert await outcome(world, smoke, test_id) is Outcome.SEEN
    await world.message(smoke, {"type": "smoke", "active": True})
    assert (await world.alarm(elder)).state == "open"


async def test_self_tests_come_due_monthly_and_are_reminded_of_by_place(world: World) -> None:
    elder = await world.elder()
    buttons = [await world.device(elder) for _ in range(3)]
    await world.device(elder, kind=DeviceKind.DOOR_SENSOR)

    async def due() -> list[str]:
        async with transaction(world.sessions) as session:
            rows = await commissioning.due(session, scope="", now=world.time(), after=None, limit=50)
            return sorted(row.device_id for row in rows)

    assert await due() == sorted(buttons)  # new: not tested yet
    await begin(world, buttons[0], "sos", elder=elder)
    await world.message(buttons[0], {"type": "sos"})
    assert await due() == sorted(buttons[1:])
    world.clock.now += timedelta(days=8)
    assert (await world.findings())["device_test_overdue"].ids == tuple(buttons[1:])
    while await world.ticks.keep_register():
        pass
    told = await world.feed("device.tests_due")
    assert [(fact.region_code, fact.data["count"]) for fact in told] == [("370302001001", 2)]
    while await world.ticks.keep_register():
        pass
    assert len(await world.feed("device.tests_due")) == 1  # again after a week
    world.clock.now += timedelta(days=25)
    assert await due() == sorted(buttons)


# --- through the API --------------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("live")
def test_from_unclaimed_to_tested(live: Live) -> None:
    """What a person with a phone does at the bedside."""
    elder = live.elder()
    live.say("zigbee2mqtt/bedside-9", {"action": "emergency", "battery": 90})

    def heard() -> Any:
        found = [
            one
            for one in live.admin.items("/devices/unclaimed", reveal="true", purpose="安装")
            if one["device_id"] == "zigbee2mqtt:bedside-9"
        ]
        return found[0] if found else None

    live.soon(heard)
    one = heard()
    assert (one["profile_guess"], one["kind_guess"], one["said"]) == ("zigbee2mqtt", "sos_button", ["sos"])
    assert "emergency" in one["last_payload"]
    device_id = one["device_id"]
    live.admin.made(
        "/devices", device_id=device_id, kind="other", region_code=elder["region_code"], elder_id=elder["id"]
    )
    live.soon(lambda: not heard())
    changed = live.admin.patch(
        f"/devices/{device_id}", json={"kind": "sos_button", "place": "卧室床头", "model": "WS101"}
    )
    shown = changed.json()
    assert (changed.status_code, shown["place"], shown["kind"], shown["model"]) == (
        200,
        "卧室床头",
        "sos_button",
        "WS101",
    )
    assert (
        live.admin.patch(f"/devices/{device_id}", json={"place": "x"}, headers={"If-Match": '"1"'}).status_code == 412
    )
    assert live.admin.patch(f"/devices/{device_id}", json={"kind": None}).status_code == 422
    assert live.admin.patch(f"/devices/{device_id}", json={"profile": "none"}).status_code == 422
    due = [row for row in live.admin.items("/devices/tests/due", limit=200) if row["device_id"] == device_id]
    assert due[0]["last_tested_at"] is None

    test = live.admin.made(f"/devices/{device_id}/tests", note="安装后第一次测试")
    assert (test["outcome"], test["expects"]) == ("waiting", ["sos"])
    assert live.admin.post(f"/devices/{device_id}/tests", json={}).status_code == 409
    live.say("zigbee2mqtt/bedside-9", {"action": "emergency", "battery": 90})
    seen = live.admin.seen(f"/devices/{device_id}/tests/{test['id']}?wait_s=10")
    assert (seen["outcome"], seen["event_type"], seen["started_by"]) == ("seen", "sos", "admin")
    assert 0 <= seen["seen_after_s"] < 10
    assert live.admin.items(f"/devices/{device_id}/tests")[0]["id"] == test["id"]
    assert live.admin.items(f"/alarms?elder_id={elder['id']}") == []
    event = live.admin.items(f"/devices/{device_id}/events")[0]
    assert (event["id"], event["data"]["_test"]) == (seen["event_id"], test["id"])
    assert live.admin.delete(f"/devices/{device_id}/tests/{test['id']}").status_code == 409
    assert not [row for row in live.admin.items("/devices/tests/due", limit=200) if row["device_id"] == device_id]
    assert live.admin.items(f"/devices/{device_id}/states")[0]["field"] == "action"

    second = live.admin.made(f"/devices/{device_id}/tests")
    assert live.admin.delete(f"/devices/{device_id}/tests/{second['id']}").status_code == 204
    assert live.admin.seen(f"/devices/{device_id}/tests/{second['id']}")["outcome"] == "cancelled"
    stranger = live.user("supervisor", "370303")
    for path in ("tests", f"tests/{test['id']}", "states"):
        assert stranger.get(f"/devices/{device_id}/{path}").status_code == 404
    assert live.user("operator", "370302").post(f"/devices/{device_id}/tests", json={}).status_code == 403


def workbook(rows: list[list[Any]]) -> bytes:
    out = io.BytesIO()
    made = xlsxwriter.Workbook(out, {"in_memory": True})
    sheet = made.add_worksheet()
    for number, cells in enumerate(rows):
        sheet.write_row(number, 0, cells)
    made.close()
    return out.getvalue()


@pytest.mark.xdist_group("live")
def test_a_list_of_devices(live: Live) -> None:
    elder = live.elder()
    number = live.id_number()
    other = live.elder(id_number=number)
    head = "设备编号,类型,位置,身份证号,elder_id\n"
    good = head + f"lst-1,求救按钮,卧室床头,{number},\nlst-2,smoke_detector,厨房,,{elder['id']}\nlst-3,门磁,,,\n"

    def send(text: str, *, dry: bool = False, encoding: str = "utf-8") -> Any:
        return live.admin.post(
            f"/devices/imports?dry_run={str(dry).lower()}",
            data=text.encode(encoding),
            headers={"Content-Type": "text/csv"},
        )

    looked = send(good, dry=True).json()
    assert (looked["written"], looked["rows"], looked["new"], looked["errors"]) == (False, 3, 3, [])
    assert live.admin.get("/devices/lst-1").status_code == 404
    bad = send(
        good + "lst-1,门磁,,,\n,门磁,,,\nlst-5,飞碟,,,\nlst-6,门磁,,370302194001010000,\nlst-7,门磁,,,7\n"
    ).json()
    assert (bad["written"], [(e["row"], e["column"]) for e in bad["errors"]]) == (
        False, [(5, "设备编号"), (6, "设备编号"), (7, "类型"), (8, "身份证号"), (9, "elder_id")],
    )  # fmt: skip
    assert live.admin.get("/devices/lst-1").status_code == 404
    done = send(good, encoding="gb18030").json()
    assert (done["written"], done["new"]) == (True, 3)
    one = live.admin.seen("/devices/lst-1")
    assert (one["elder_id"], one["place"], one["kind"]) == (other["id"], "卧室床头", "sos_button")
    again = send(good).json()
    assert (again["written"], again["new"], again["changed"], again["unchanged"]) == (True, 0, 0, 3)
    moved = send("device_id\tkind\tplace\nlst-3\tdoor_sensor\t大门\n").json()
    assert (moved["changed"], live.admin.seen("/devices/lst-3")["place"]) == (1, "大门")
    for text, says in (("", "空"), ("名字,电话\n", "设备编号"), ("PK\x03\x04", "工作簿"), ("设备编号,位置\n", "类型")):
        refused = send(text)
        assert refused.status_code == 422
        assert says in refused.json()["detail"]
    wrong_number = number[:17] + ("1" if number[17] != "1" else "2")
    book = workbook(
        [["设备登记表"], [], ["设备 编号", "设备类型", "安装位置", "身份证号码", "型号"],
         ["lst-8", "门磁", "大门", f"'{number}", "MCCGQ11LM"],
         [], ["lst-9", "sos_button", "", wrong_number], [860000000000001, "烟感"]]
    )  # fmt: skip
    form = {"file": ("设备.xlsx", book)}
    answer = live.admin.post("/devices/imports?dry_run=true", files=form).json()
    assert [(e["row"], e["column"], e["message"]) for e in answer["errors"]] == [
        (6, "身份证号码", "身份证号校验位不对,有一位填错了,请对照证件")
    ]
    assert (answer["rows"], answer["new"]) == (3, 2)
    assert send("设备编号;类型;型号\nlst-3;门磁;MCCGQ11LM\nlst-7;门磁;LDS02\n").json()["written"] is True
    assert [live.admin.seen(f"/devices/{one}")["model"] for one in ("lst-3", "lst-7")] == ["MCCGQ11LM", "LDS02"]
    assert live.user("supervisor", "370303").post(
        "/devices/imports", data=good.encode(), headers={"Content-Type": "text/csv"}
    ).json()["errors"]  # fmt: skip
