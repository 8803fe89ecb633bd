"""The simulator's pure parts: bytes, people, days, scenario files."""

from __future__ import annotations

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from simulator import devices, families, people
from simulator.__main__ import SCENARIOS
from simulator.day import DAY, Profile, plan_day
from simulator.scenario import Hears, ScenarioError, Send, Wait, load, parse

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 23)
HOME = Profile(
    key="e1",
    devices={
        "sos_button": "d-sos",
        "fall_detector": "d-fall",
        "door_sensor": "d-door",
        "motion_sensor": "d-motion",
        "bed_sensor": "d-bed",
        "smoke_detector": "d-smoke",
        "gas_detector": "d-gas",
        "water_sensor": "d-water",
    },
    frailty=0.9,
)

GOOD = """
name: a press
people:
  elder: {}
  daughter: {role: emergency_contact}
devices:
  button: {kind: sos_button}
steps:
  - press: {device: button}
  - expect: {person: daughter, hears: alarm.raised, within_s: 2}
"""


@pytest.mark.parametrize(
    ("kind", "event_id", "fields", "golden"),
    [
        ("sos", "a1", {}, b'{"type":"sos","id":"a1","ts":1764000000000}'),
        ("sos", None, {"battery": 80}, b'{"type":"sos","ts":1764000000000,"battery":80}'),
        ("fall", "a2", {"confidence": 0.4}, b'{"type":"fall","id":"a2","ts":1764000000000,"confidence":0.4}'),
        ("door", "a3", {"state": "open"}, b'{"type":"door","id":"a3","ts":1764000000000,"state":"open"}'),
        ("bed", "a4", {"occupied": False}, b'{"type":"bed","id":"a4","ts":1764000000000,"occupied":false}'),
        ("smoke", "a5", {"active": True}, b'{"type":"smoke","id":"a5","ts":1764000000000,"active":true}'),
        ("water_leak", "a6", {"active": True}, b'{"type":"water_leak","id":"a6","ts":1764000000000,"active":true}'),
        ("cancel", "我没事", {}, '{"type":"cancel","id":"我没事","ts":1764000000000}'.encode()),
        (
            "heartbeat",
            "a7",
            {"battery": 55, "rssi": -70},
            b'{"type":"heartbeat","id":"a7","ts":1764000000000,"battery":55,"rssi":-70}',
        ),
    ],
)
def test_an_event_is_these_bytes(
    kind: str, event_id: str | None, fields: dict[str, devices.Value], golden: bytes
) -> None:
    assert devices.event(kind, ts_ms=1764000000000, event_id=event_id, fields=fields) == golden


def test_topics_and_status() -> None:
    assert devices.event_topic("b-1") == "devices/b-1/event"
    assert devices.status_topic("b-1") == "devices/b-1/status"
    assert devices.command_topic("b-1") == "devices/b-1/command"
    assert devices.status(True) == b'{"online":true}'
    assert devices.status(False) == b'{"online":false}'


@pytest.mark.parametrize(("kind", "fields"), [("earthquake", {}), ("sos", {"confidence": 1.0}), ("door", {"open": 1})])
def test_the_encoder_refuses_what_the_contract_does_not_know(kind: str, fields: dict[str, devices.Value]) -> None:
    with pytest.raises(ValueError):
        devices.event(kind, ts_ms=None, event_id=None, fields=fields)


def test_a_known_check_character() -> None:
    # The example number of GB 11643.
    assert people.id_number(date(1949, 12, 31), 2, area="110105") == "11010519491231002X"


def test_invented_elders_are_consistent() -> None:
    rng = random.Random(1)
    for _ in range(500):
        who = people.elder(rng, today=TODAY)
        number = who.id_number
        weights = [2 ** (17 - place) % 11 for place in range(17)]
        total = sum(int(digit) * weight for digit, weight in zip(number[:17], weights, strict=True)) % 11
        assert number[17] == "10X98765432"[total]
        assert number[6:14] == f"{who.birth_date:%Y%m%d}"
        assert (int(number[16]) % 2 == 1) == (who.sex == "male")
        assert 66 <= _age(who.birth_date) <= 95


def test_an_age_asked_for_is_the_age_today() -> None:
    rng = random.Random(2)
    for today in (TODAY, date(2028, 2, 29), date(2027, 3, 1), date(2026, 1, 1)):
        for age in (60, 79, 80, 110):
            assert _age(people.elder(rng, today=today, age=age).birth_date, today) == age


def _age(birth: date, today: date = TODAY) -> int:
    return today.year - birth.year - ((today.month, today.day) < (birth.month, birth.day))


def test_a_day_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first, again, other = (plan_day(HOME, TODAY, random.Random(seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_days_are_sorted_within_the_day_and_encodable() -> None:
    kinds = set()
    for seed in range(200):
        plan = plan_day(HOME, TODAY, random.Random(seed))
        assert [message.at for message in plan] == sorted(message.at for message in plan)
        assert all(0 <= message.at < DAY for message in plan)
        for message in plan:
            assert message.device_id in HOME.devices.values()
            json.loads(devices.event(message.type, ts_ms=1, event_id=message.event_id, fields=message.fields))
            kinds.add(message.type)
    assert kinds >= {"sos", "fall", "cancel", "smoke", "gas", "water_leak", "bed", "door", "motion", "heartbeat"}


def test_a_day_now_and_then_has_a_duplicate_press_and_a_low_battery() -> None:
    plans = [plan_day(HOME, TODAY, random.Random(seed)) for seed in range(200)]
    presses = [[m.event_id for m in plan if m.type == "sos"] for plan in plans]
    assert any(len(ids) > len(set(ids)) for ids in presses)
    assert any(m.fields.get("battery", 100) in range(15) for plan in plans for m in plan if m.type == "heartbeat")


def test_nobody_speaks_through_a_device_they_do_not_have() -> None:
    bare = Profile(key="e2", devices={"sos_button": "only"})
    for seed in range(50):
        assert {message.device_id for message in plan_day(bare, TODAY, random.Random(seed))} == {"only"}


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_scenarios_that_come_with_it_parse(path: Path) -> None:
    scenario = load(path)
    assert scenario.steps
    assert scenario.elders()


def test_there_are_enough_scenarios_with_names_of_their_own() -> None:
    names = [load(path).name for path in SCENARIOS.glob("*.yaml")]
    assert len(names) >= 10
    assert len(names) == len(set(names))


def test_a_scenario_is_read_as_it_is_meant() -> None:
    scenario = parse(GOOD + "  - press: {device: button, id: none, times: 3}\n  - wait: 1.5\n", "good.yaml")
    press, hears, again, wait = (step.do for step in scenario.steps)
    assert press == Send("button", "sos", "new", {})
    assert hears == Hears("daughter", "alarm.raised", 2.0)
    assert again == Send("button", "sos", None, {}, times=3)
    assert wait == Wait(1.5)
    assert [step.line for step in scenario.steps] == [9, 10, 11, 12]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("kind: sos_button", "kind: sos_buton", ["bad.yaml:7", "devices.button.kind", "`sos_button`"]),
        ("within_s: 2", "within: 2", ["bad.yaml:10", "within", "`within_s`"]),
        ("{device: button}", "{device: buton}", ["bad.yaml:9", "device", "`button`"]),
        ("person: daughter", "person: son", ["bad.yaml:10", "daughter"]),
        ("hears: alarm.raised", "hears: alarm.rised", ["bad.yaml:10", "hears", "`alarm.raised`"]),
        ("role: emergency_contact", "role: emergency", ["bad.yaml:5", "people.daughter.role"]),
        ("role: emergency_contact", "role: emergency_contact, of: granny", ["bad.yaml:5", "people.daughter.of"]),
        ("- press:", "- pres:", ["bad.yaml:9", "steps[1]", "`press`"]),
        ("elder: {}", "elder: {age: old}", ["bad.yaml:4", "age", "whole number"]),
        ("elder: {}", "elder: {role: village_head}", ["people", "role: elder"]),
        ("steps:", "stepz:", ["`steps`"]),
        ("name: a press", "nome: a press", ["`name` is missing"]),
        ("name: a press", "name: a press\nname: another", ["bad.yaml:3", "twice"]),
        ("name: a press", "name: [a", ["not YAML"]),
        ("hears: alarm.raised, ", "", ["bad.yaml:10", "`hears` is missing"]),
    ],
)
def test_a_broken_scenario_says_what_to_mend(before: str, after: str, says: list[str]) -> None:
    assert before in GOOD
    with pytest.raises(ScenarioError) as caught:
        parse(GOOD.replace(before, after, 1), "bad.yaml")
    for words in says:
        assert words in str(caught.value)


def test_a_file_that_is_not_there_is_a_broken_scenario() -> None:
    with pytest.raises(ScenarioError, match="nowhere"):
        load(Path("/nowhere.yaml"))


# --- other families ------------------------------------------------------------------------------------------------------

T = 1_764_000_000_000


@pytest.mark.parametrize(
    ("family", "kind", "fields", "golden"),
    [
        ("zigbee2mqtt", "door", {"state": "open"}, {"battery": 97, "linkquality": 120, "contact": False}),
        ("zigbee2mqtt", "smoke", {"active": True}, {"battery": 97, "linkquality": 120, "smoke": True}),
        ("aliyun", "door", {"state": "open"}, {"id": "1", "version": "1.0", "method": "thing.event.property.post",
                                              "params": {"doorcontact_state": {"value": True, "time": T}}}),
        ("tuya", "heartbeat", {"battery": 50}, {"msgId": "1", "time": T // 1000,
                                               "data": {"battery_percentage": {"value": 50, "time": T // 1000}}}),
        ("onenet", "fall", {}, {"id": "1", "version": "1.0", "params": {"fallAlarm": {"value": {}, "time": T}}}),
        ("tencent", "gas", {"active": True}, {"method": "report", "clientToken": "1", "timestamp": T,
                                             "params": {"gas_sensor_state": 1}}),
        ("huawei", "bed", {"occupied": False}, {"services": [{"service_id": "main", "properties": {"inBed": 0},
                                                             "event_time": "20251124T160000Z"}]}),
        ("jetlinks", "sos", {}, {"timestamp": T, "messageId": "1", "data": {}}),
    ],
)  # fmt: skip
def test_bytes_of_other_families(family: str, kind: str, fields: dict[str, Any], golden: dict[str, Any]) -> None:
    one = families.device(family, run="r", name="d", kind="other")
    [message] = one.says(kind, ts_ms=T, event_id=None, fields=fields)
    assert json.loads(message.payload) == golden


def test_a_zigbee_press_is_taken_back_and_states_are_repeated() -> None:
    button = families.device("zigbee2mqtt", run="r", name="d", kind="sos_button")
    button.says("heartbeat", ts_ms=T, event_id=None, fields={"battery": 40})
    said = [json.loads(one.payload) for one in button.says("sos", ts_ms=T, event_id=None, fields={})]
    assert [(one["action"], one["battery"]) for one in said] == [("emergency", 40), ("", 40)]


def test_a_gateway_lists_the_addresses_that_ids_are_made_of() -> None:
    button = families.device("zigbee2mqtt", run="r", name="d", kind="sos_button")
    assert isinstance(button, families.Zigbee)
    message = families.gateway_list(button.gateway, [button])
    assert (message.topic, message.retain) == ("zigbee2mqtt/sim-r/bridge/devices", True)
    assert button.id == "zigbee:" + json.loads(message.payload)[1]["ieee_address"]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_what_a_family_cannot_say_is_refused_with_the_line(family: str) -> None:
    text = GOOD.replace("{kind: sos_button}", f"{{kind: sos_button, family: {family}}}")
    assert parse(text, "x").devices[0].family == family
    if family != "native":
        with pytest.raises(ScenarioError, match=r"x:9: .*cancel"):
            parse(text.replace("press: {device: button}", "send: {device: button, type: cancel}"), "x")
