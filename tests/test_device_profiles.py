"""Profiles through the API, dry runs, and messages of every family on a running server's broker. All people are invented."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from scripts import device_docs
from simulator.__main__ import SCENARIOS

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = [pytest.mark.xdist_group("live"), pytest.mark.timeout(120)]
PASSWORD = "correct-horse-1"  # of tests/live.py, which pytest loads itself
_numbers = itertools.count(1)


def radar(name: str, **change: Any) -> dict[str, Any]:
    return {
        "name": name,
        "topic": f"{name}/{{device_id}}/up",
        "fields": [
            {"path": "$.event", "role": "type", "values": {"1": "sos", "2": "fall", "0": "heartbeat"}},
            {"path": "$.bat", "role": "battery"},
        ],
        **change,
    }


def fresh() -> str:
    return f"radar-{next(_numbers)}"


# --- profiles -------------------------------------------------------------------------------------------------------


def test_built_in_families_are_listed_and_read_only(live: Live) -> None:
    found = {one["name"]: one for one in live.admin.items("/device-profiles", limit=200)}
    assert {"native", "zigbee2mqtt", "chirpstack", "ttn", "aliyun", "tuya", "onenet", "tencent", "huawei", "jetlinks",
            "esphome", "tasmota", "shelly", "traccar"} <= set(found)  # fmt: skip
    assert found["zigbee2mqtt"]["topics"] == ["zigbee2mqtt/#"]
    assert found["zigbee2mqtt"]["source"] == "built_in"
    assert live.admin.seen("/device-profiles/shelly")["device_id_prefixes"] == ["shelly:"]
    assert live.admin.delete("/device-profiles/shelly").status_code == 409
    assert live.admin.put("/device-profiles/shelly", json=radar("shelly-x")).status_code == 409
    assert live.admin.get("/device-profiles/none").status_code == 404


def test_the_list_is_a_list_of_pages(live: Live) -> None:
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = live.admin.seen("/device-profiles", limit=3, **cursor)
        names += [one["name"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert names == sorted(names) == [one["name"] for one in live.admin.items("/device-profiles", limit=200)]


def test_a_profile_is_made_read_changed_and_removed(live: Live) -> None:
    name = fresh()
    made = live.admin.made("/device-profiles", **radar(name))
    assert made["topics"] == [f"{name}/+/up"]
    assert (made["source"], made["version"]) == ("api", 1)
    shown = live.admin.get(f"/device-profiles/{name}")
    assert shown.json() == made
    assert live.admin.post("/device-profiles", json=radar(name)).status_code == 409
    stale = live.admin.put(f"/device-profiles/{name}", json=radar(name, title="x"), headers={"If-Match": '"7"'})
    assert stale.status_code == 412
    changed = live.admin.put(
        f"/device-profiles/{name}", json=radar(name, title="毫米波雷达"), headers={"If-Match": shown.headers["etag"]}
    )
    assert (changed.json()["title"], changed.json()["version"]) == ("毫米波雷达", 2)
    assert live.admin.put(f"/device-profiles/{name}", json=radar(name + "-b")).status_code == 422
    device = live.admin.made("/devices", device_id=f"{name}-1", kind="fall_detector", profile=name)
    assert device["profile"] == name
    assert live.admin.delete(f"/device-profiles/{name}").status_code == 409  # a device is registered under it
    other = fresh()
    live.admin.made("/device-profiles", **radar(other))
    assert live.admin.delete(f"/device-profiles/{other}").status_code == 204
    assert live.admin.get(f"/device-profiles/{other}").status_code == 404
    actions = {
        row["action"] for row in live.rows("SELECT action FROM audit_log WHERE subject_id = ANY($1)", [name, other])
    }
    assert actions >= {"device_profile.added", "device_profile.changed", "device_profile.removed"}
    live.admin.made("/device-profiles", **radar(other))  # the name is free again


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"topic": "x/#/{device_id}"}, "body", "only at the end"),
        ({"topic": "zigbee2mqtt/{device_id}"}, "body.topic", "built-in family zigbee2mqtt"),
        ({"name": "chirpstack"}, "body.name", "built-in family"),
        ({"topic": None, "extends": "nobody"}, "body.extends", "must be one of"),
        ({"fields": [{"path": "$.a", "role": "soss"}]}, "body.fields.0.role", "sos"),
        ({"fields": [{"path": "$..a", "role": "sos"}]}, "body.fields.0", "write the whole way"),
        (
            {"fields": [{"path": "$.a", "role": "type", "values": {"1": "boom"}}]},
            "body.fields.0",
            "unknown type 'boom'",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(live: Live, change: dict[str, Any], field: str, says: str) -> None:
    answer = live.admin.post("/device-profiles", json={**radar(fresh()), **change})
    assert answer.status_code == 422, answer.text
    [problem] = [one for one in answer.json()["errors"] if one["field"] == field]
    assert says in problem["detail"]


def test_only_those_who_manage_may_configure(live: Live) -> None:
    auditor = live.user("auditor", "370302")
    assert auditor.items("/device-profiles")
    assert auditor.post("/device-profiles", json=radar(fresh())).status_code == 403
    assert auditor.post("/device-profiles/try", json={"topic": "a", "payload": ""}).status_code == 403


def test_what_all_regions_share_is_for_the_whole_district(live: Live) -> None:
    """Also a profile that no device is registered under yet: somebody elsewhere may be about to use it."""
    name = fresh()
    live.admin.made("/device-profiles", **radar(name))
    township, district = live.user("supervisor", "370302001"), live.user("supervisor", "370302")
    for refused in (
        township.post("/device-profiles", json=radar(fresh())),
        township.put(f"/device-profiles/{name}", json=radar(name, title="x")),
        township.delete(f"/device-profiles/{name}"),
    ):
        assert refused.status_code == 403
        assert "whole district" in refused.json()["detail"]
    assert township.post("/device-profiles/try", json={"topic": "a", "payload": ""}).status_code == 200
    assert district.put(f"/device-profiles/{name}", json=radar(name, title="x")).status_code == 200


# --- dry runs -------------------------------------------------------------------------------------------------------


def tried(live: Live, **body: Any) -> dict[str, Any]:
    answer = live.admin.post("/device-profiles/try", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_golden_example_can_be_tried(live: Live) -> None:
    """As the pages show them: those that need no registered device."""
    for example in device_docs.examples():
        if example.given.get("known"):
            continue
        payload = base64.b64encode(example.payload).decode()
        shown = tried(live, topic=example.topic, payload=payload, encoding="base64", retained=example.retained)
        wanted = example.expect
        if "learned" not in wanted:
            assert shown["device_id"] == wanted.get("device_id"), example.name
        assert [one["type"] for one in shown["observations"]] == [o["type"] for o in wanted.get("observations", [])]
        assert [one["reason"] for one in shown["reasons"]] == wanted.get("reasons", []), example.name


def test_a_draft_is_tried_and_nothing_is_kept(live: Live) -> None:
    name = fresh()
    shown = tried(live, topic=f"{name}/R-1/up", payload={"event": 1, "bat": 80}, profile=radar(name))
    assert shown["device_id"] == "R-1"
    [seen] = shown["observations"]
    assert (seen["type"], seen["battery"], seen["field"], seen["field_kind"]) == ("sos", 80, "$.event", "event")
    wrong = tried(live, topic=f"{name}/R-1/down", payload={"event": 1}, profile=radar(name))
    assert wrong["observations"] == []
    assert wrong["reasons"][0]["reason"] == "unknown_topic"
    assert live.admin.get(f"/device-profiles/{name}").status_code == 404
    assert not live.rows("SELECT FROM device_events WHERE device_id = 'R-1'")
    assert not live.rows("SELECT FROM rejected_messages WHERE topic LIKE $1", f"{name}/%")


def test_a_draft_that_extends_a_family_is_tried(live: Live) -> None:
    draft = {
        "name": fresh(),
        "extends": "chirpstack",
        "fields": [{"path": "evt", "role": "type", "values": {"7": "sos"}}],
    }
    shown = tried(
        live, topic="application/1/device/0011223344556677/event/up", payload={"object": {"evt": 7.0}}, profile=draft
    )
    assert shown["device_id"] == "lorawan:0011223344556677"
    assert [one["type"] for one in shown["observations"]] == ["sos"]


def test_a_role_may_be_given(live: Live) -> None:
    press = {"topic": "stat/somewhere/BUTTON1", "payload": '{"ACTION":"SINGLE"}'}
    assert tried(live, **press)["observations"][0]["type"] == "press"
    assert tried(live, **press, kind="sos_button")["observations"][0]["type"] == "sos"


def test_a_named_family_alone_reads_it(live: Live) -> None:
    assert tried(live, topic="tele/x/LWT", payload="Online", profile="tasmota")["observations"]
    assert not tried(live, topic="tele/x/LWT", payload="Online", profile="shelly")["observations"]
    assert (
        live.admin.post("/device-profiles/try", json={"topic": "a", "payload": "", "profile": "none"}).status_code
        == 422
    )
    assert live.admin.post("/device-profiles/try", json={"topic": "a/+", "payload": ""}).status_code == 422
    bad = live.admin.post("/device-profiles/try", json={"topic": "a", "payload": "!", "encoding": "base64"})
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "body.payload")


# --- registering ----------------------------------------------------------------------------------------------------


def test_a_device_is_registered_under_the_family_its_id_belongs_to(live: Live) -> None:
    def registered(device_id: str, **more: Any) -> Any:
        return live.admin.post("/devices", json={"device_id": device_id, "kind": "sos_button", **more})

    assert registered("zigbee:0x00158d00000000aa").json()["profile"] == "zigbee2mqtt"
    assert registered("lorawan:24e1000000000001", profile="ttn").json()["profile"] == "ttn"
    assert registered("plain-button-1").json()["profile"] == "native"
    for answer, field in (
        (registered("zigbee:0x00158d00000000ab", profile="native"), "body.profile"),
        (registered("plain-button-2", profile="zigbee2mqtt"), "body.device_id"),
        (registered("plain-button-2", profile="no-such-profile"), "body.profile"),
    ):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field


# --- from the broker to the daughter --------------------------------------------------------------------------------


def home(live: Live) -> tuple[dict[str, Any], str]:
    elder = live.elder()
    path = f"/daughter-{next(_numbers)}"
    live.contact(elder, path)
    return elder, path


def claim(live: Live, elder: dict[str, Any], device_id: str, **more: Any) -> None:
    live.admin.made("/devices", **{"device_id": device_id, "kind": "sos_button", "elder_id": elder["id"], **more})


def alarms(live: Live, elder: dict[str, Any]) -> list[str]:
    return [one["kind"] for one in live.admin.items("/alarms", elder_id=elder["id"])]


IEEE = "0x00158d00000000{:02x}"

# OneNET, 腾讯 and 华为 use topics that begin with `$`, which the embedded broker does not carry: tests/test_subscriptions.py.
ON_THE_WIRE: list[tuple[str, str, str, Any]] = [
    ("zigbee2mqtt", "zigbee2mqtt:卧室~1按钮", "zigbee2mqtt/卧室/按钮", {"action": "emergency"}),
    ("zigbee2mqtt", "zigbee2mqtt:hs1eb", "zigbee2mqtt/hs1eb", {"action": "single"}),
    ("chirpstack", "lorawan:24e1000000000101", "application/1/device/24e1000000000101/event/up", {"object": {"press": "short"}}),
    ("ttn", "lorawan:24e1000000000102", "v3/a@ttn/devices/b/up",
     {"end_device_ids": {"device_id": "b", "dev_eui": "24E1000000000102"},
      "uplink_message": {"decoded_payload": {"press": "long"}}}),
    ("aliyun", "aliyun:pk:b1", "/sys/pk/b1/thing/event/SOS/post", {"id": "1", "params": {"value": {}}}),
    ("tuya", "tuya:b2", "tylink/b2/thing/event/trigger", {"msgId": "1", "data": {"eventCode": "sos"}}),
    ("jetlinks", "jetlinks:p:b6", "/p/b6/event/sos", {"messageId": "1", "data": {}}),
    ("esphome", "esphome:node-b", "node-b/binary_sensor/input_4/state", b"ON"),
    ("tasmota", "tasmota:b8", "stat/b8/BUTTON1", {"ACTION": "SINGLE"}),
    ("shelly", "shelly:shellyplusi4-b9", "shellyplusi4-b9/events/rpc",
     {"method": "NotifyEvent", "params": {"events": [{"component": "input:0", "event": "single_push"}]}}),
    ("traccar", "traccar:86123", "traccar/events",
     {"event": {"type": "alarm", "attributes": {"alarm": "sos"}}, "device": {"uniqueId": "86123"}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "device_id", "topic", "body"), ON_THE_WIRE, ids=lambda v: v if isinstance(v, str) else ""
)
def test_an_sos_button_of_each_family_reaches_the_daughter(
    live: Live, family: str, device_id: str, topic: str, body: Any
) -> None:
    """Unclaimed first, with a guess; claimed without naming the family, it raises and is told."""
    live.say(topic, body)
    unclaimed = live.soon(
        lambda: [one for one in live.admin.items("/devices/unclaimed", limit=200) if one["device_id"] == device_id]
    )
    assert unclaimed[0]["profile_guess"] == family
    elder, path = home(live)
    claim(live, elder, device_id)
    assert live.admin.seen(f"/devices/{device_id}")["profile"] == family
    live.say(topic, body)
    assert live.receiver.first(path)["type"] == "alarm.raised"
    assert alarms(live, elder) == ["sos"]


def test_a_gateway_explains_its_names_and_a_rename_changes_no_device(live: Live) -> None:
    def told(name: str) -> bytes:
        return json.dumps(
            [
                {
                    "ieee_address": IEEE.format(1),
                    "friendly_name": name,
                    "type": "EndDevice",
                    "definition": {"model": "HS1EB"},
                }
            ]
        ).encode()

    base = f"zigbee2mqtt/home-{next(_numbers)}"
    elder, path = home(live)
    claim(live, elder, f"zigbee:{IEEE.format(1)}")
    live.say(f"{base}/bridge/devices", told("旧名"))
    live.say(f"{base}/旧名", {"action": "hold"})
    assert live.receiver.first(path)["type"] == "alarm.raised"
    live.say(f"{base}/bridge/devices", told("新/名"))
    live.say(f"{base}/新/名", {"action": "hold", "battery": 61})
    live.soon(lambda: live.admin.seen(f"/devices/zigbee:{IEEE.format(1)}")["battery"] == 61)
    [row] = live.rows("SELECT topic, model FROM zigbee_names WHERE base = $1", base)  # another process could take over
    assert (row["topic"], row["model"]) == (f"{base}/新/名", "HS1EB")
    shown = tried(live, topic=f"{base}/新/名", payload={"action": "hold"})
    assert (shown["device_id"], shown["observations"][0]["type"]) == (f"zigbee:{IEEE.format(1)}", "sos")
    live.say(f"{base}/旧名", b"")  # what a rename leaves
    assert not live.rows("SELECT FROM rejected_messages WHERE topic LIKE $1", f"{base}%")


def test_a_profile_is_in_force_without_a_restart_and_out_of_it(live: Live) -> None:
    name = fresh()
    elder, path = home(live)
    live.admin.made("/device-profiles", **radar(name))
    claim(live, elder, f"{name}-7", profile=name)

    def heard() -> bool:  # until the subscription stands
        live.say(f"{name}/{name}-7/up", {"event": 0, "bat": 50})
        return live.admin.seen(f"/devices/{name}-7")["battery"] == 50

    live.soon(heard)
    live.say(f"{name}/{name}-7/up", {"event": 1})
    assert live.receiver.first(path)["data"]["alarm"]["kind"] == "sos"
    # A change is in force as well.
    changed = radar(name, fields=[{"path": "$.event", "role": "type", "values": {"5": "smoke", "*": "ignore"}}])
    assert live.admin.put(f"/device-profiles/{name}", json=changed).status_code == 200

    def smoke() -> bool:
        live.say(f"{name}/{name}-7/up", {"event": 5})
        return "smoke" in alarms(live, elder)

    live.soon(smoke)


def test_a_withdrawn_profile_is_unsubscribed(live: Live) -> None:
    name = fresh()
    live.admin.made("/device-profiles", **radar(name))

    def unclaimed() -> list[dict[str, Any]]:
        live.say(f"{name}/{name}-1/up", {"event": 1})
        return [one for one in live.admin.items("/devices/unclaimed", limit=200) if one["device_id"] == f"{name}-1"]

    assert live.soon(unclaimed)[0]["profile_guess"] == name
    assert live.admin.delete(f"/device-profiles/{name}").status_code == 204

    def count() -> int:
        return int(live.rows("SELECT count(*) FROM rejected_messages WHERE topic LIKE $1", f"{name}/%")[0][0])

    def quiet() -> bool:
        before = count()
        live.say(f"{name}/{name}-1/up", {"event": 1})
        live.say("devices/fence/event", {"type": "sos"})  # what comes after it was taken
        live.soon(lambda: live.rows("SELECT FROM unclaimed_devices WHERE device_id = 'fence'"))
        return count() == before

    live.soon(quiet)


def test_a_profile_cannot_speak_for_a_device_of_another(live: Live) -> None:
    """Its ids have no prefix: a message counts only for a device registered under the profile that read it."""
    name = fresh()
    elder, _ = home(live)
    native = live.device(elder)
    live.admin.made("/device-profiles", **radar(name))

    def refused() -> list[Any]:
        live.say(f"{name}/{native}/up", {"event": 1, "bat": 33})
        return live.rows("SELECT reason, detail FROM rejected_messages WHERE topic = $1", f"{name}/{native}/up")

    row = live.soon(refused)[0]
    assert row["reason"] == "unknown_device"
    assert name in row["detail"]
    assert alarms(live, elder) == []
    assert live.admin.seen(f"/devices/{native}")["battery"] is None
    assert native not in {one["device_id"] for one in live.admin.items("/devices/unclaimed", limit=200)}


def test_a_topic_of_unknown_shape_says_which_families_were_tried(live: Live) -> None:
    topic = "application/1/something/else/event/up"
    live.say("stat/x/y", b"1")  # in order, and of no concern
    live.say("application/1/device/24e1/event/dance", {"a": 1})
    row = live.soon(
        lambda: live.rows(
            "SELECT reason, detail FROM rejected_messages WHERE topic = 'application/1/device/24e1/event/dance'"
        )
    )[0]
    assert row["reason"] == "unknown_type"
    shown = tried(live, topic=topic, payload="{}")
    assert shown["reasons"][0]["reason"] == "unknown_topic"
    assert "chirpstack" in shown["reasons"][0]["detail"]


def test_an_uplink_nobody_decoded_is_visible(live: Live) -> None:
    topic = "application/1/device/24e1000000000999/event/up"
    live.say(topic, {"fCnt": 1, "data": "AQI="})
    rows = live.soon(lambda: live.rows("SELECT reason FROM rejected_messages WHERE topic = $1", topic))
    live.soon(lambda: len(live.rows("SELECT FROM rejected_messages WHERE topic = $1", topic)) == 2)
    assert {row["reason"] for row in live.rows("SELECT reason FROM rejected_messages WHERE topic = $1", topic)} == {
        "not_decoded",
        "unknown_device",
    }
    assert rows


@pytest.mark.parametrize("scenario", ["18-zigbee-button.yaml", "19-thing-model-button.yaml"])
def test_the_simulators_own_devices_reach_the_daughter(live: Live, scenario: str) -> None:
    """Encoders that know nothing of the decoders, through the wire and back to a phone."""
    command = [
        sys.executable, "-m", "simulator", "run", str(SCENARIOS / scenario), "--password", PASSWORD, "--url", live.base,
        "--mqtt", f"mqtt://127.0.0.1:{live.mqtt_port}", "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
