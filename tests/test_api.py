"""The REST contract (docs: /openapi.json) as a stranger meets it, against a running server."""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import jsonschema
import pytest
from standardwebhooks import Webhook as Verifier
from stdnum.iso7064 import mod_11_2

from app.api import middleware
from app.errors import ChannelNotConfigured, InvalidInput
from app.notify import ways
from app.notify.channels import build as build_channels
from app.notify.vocabulary import ChannelKind
from app.notify.ways import Way
from app.settings import Settings

if TYPE_CHECKING:
    import requests

    from tests.live import Api, Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live-2")
NOBODY = "00000000-0000-7000-8000-00000000dead"
PUBLIC = {
    ("get", "/healthz"), ("get", "/readyz"), ("get", "/metrics"), ("get", "/asyncapi.json"),
    ("get", "/a/{token}"), ("post", "/a/{token}"), ("post", "/api/v1/auth/token"),
    ("get", "/api/v1/credit-statements/{number}"),  # a school checks one
}  # fmt: skip
# A broker asks them with a secret of its own; they change nothing.
QUESTIONS = {("post", "/api/v1/mqtt/auth/login"), ("post", "/api/v1/mqtt/auth/topic")}


def refused(answer: requests.Response, status: int, *words: str) -> dict[str, Any]:
    """The problem document of a refusal: its status, its media type, its shape, and what its detail says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "errors"}
    assert problem["status"] == status
    assert re.fullmatch(r"https://shouwang\.invalid/problems/[a-z-]+", problem["type"])
    for word in words:
        assert word in problem["detail"]
    return problem


def operations(live: Live) -> list[tuple[str, str, dict[str, Any]]]:
    """Every operation of the OpenAPI document."""
    document = live.anonymous.get(f"{live.base}/openapi.json").json()
    return [(method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()]


# --- log-in ----------------------------------------------------------------------------------------------------------


def test_a_log_in_gives_a_token(live: Live) -> None:
    me = live.admin.seen("/me")
    assert (me["username"], me["role"], me["region_code"]) == ("admin", "admin", "")
    wrong = live.anonymous.post("/auth/token", data={"username": "admin", "password": "no"})
    assert refused(wrong, 401)["type"].endswith("/not-logged-in")
    assert wrong.headers["www-authenticate"] == "Bearer"
    nobody = live.anonymous.post("/auth/token", data={"username": "nobody-here", "password": "no"})
    assert nobody.json() == wrong.json()  # which of the two was wrong is not said
    refused(live.anonymous.post("/auth/token", json={"username": "admin", "password": "x"}), 422)


def test_guessing_passwords_is_slowed_down(live: Live) -> None:
    tries = [live.anonymous.post("/auth/token", data={"username": "guessed", "password": str(n)}) for n in range(11)]
    assert [t.status_code for t in tries] == [401] * 10 + [429]
    assert 0 < int(tries[-1].headers["retry-after"]) <= 301


def test_every_route_but_the_public_ones_asks_for_a_token(live: Live) -> None:
    asked = 0
    for method, path, _ in operations(live):
        if (method, path) in PUBLIC:
            continue
        url = live.base + re.sub(r"{[^}]+}", NOBODY, path)
        for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic YTpi"}):
            refused(live.anonymous.request(method.upper(), url, headers=headers, json={}), 401)
        asked += 1
    assert asked > 35


@pytest.mark.parametrize("role", ["visitor", "operator", "auditor"])
def test_roles_without_the_right_are_refused(live: Live, role: str) -> None:
    elder = live.elder()
    api = live.user(role, elder["region_code"], assigned=[elder])
    assert api.seen(f"/elders/{elder['id']}")["id"] == elder["id"]
    refused(api.get(f"/elders/{elder['id']}?reveal=true&purpose=check"), 403)
    refused(api.patch(f"/elders/{elder['id']}", json={"dementia": True}), 403)
    refused(api.get("/users"), 403)
    refused(api.get("/rejected-messages"), 403)
    handled = api.post("/alarms", json={"elder_id": elder["id"], "note": "x"})
    assert handled.status_code == (403 if role == "auditor" else 201)


# --- the register ----------------------------------------------------------------------------------------------------


def test_regions_and_their_offices(live: Live) -> None:
    codes = {region["code"] for region in live.admin.items("/regions", limit=200)}
    assert {"370302000000", "370302001000"} <= codes
    assert len([c for c in codes if c.endswith("000") and not c.endswith("000000")]) == 13
    code = live.village()
    assert live.admin.seen(f"/regions/{code}") == {
        "code": code, "name": f"村{code[-3:]}", "level": "village", "parent_code": "370302001000",
        "latitude": None, "longitude": None,
    }  # fmt: skip
    refused(live.admin.post("/regions", json={"code": code, "name": "再来"}), 409)
    other = {"code": f"{code[:-3]}998", "name": "照样写", "level": "village", "parent_code": f"{code[:9]}000"}
    refused(live.admin.post("/regions", json={**other, "level": "township"}), 422, "village")
    assert live.admin.made("/regions", **other)["level"] == "village"
    refused(live.admin.post("/regions", json={"code": "370302999001", "name": "无乡"}), 422, "370302999000")
    first, second = live.visitor(code, name="老村长"), live.visitor(code, name="新村长")
    live.admin.made(f"/regions/{code}/duty", role="village_head", visitor_id=first["id"], **{"from": "2026-01-01"})
    live.admin.made(f"/regions/{code}/duty", role="village_head", visitor_id=second["id"], **{"from": "2026-07-01"})
    new, old = live.admin.items(f"/regions/{code}/duty")
    assert (old["to"], new["to"]) == ("2026-06-30", None)
    wrong = {"role": "township_duty", "visitor_id": first["id"], "from": "2026-01-01"}
    refused(live.admin.post(f"/regions/{code}/duty", json=wrong), 422, "township")


def test_an_elder_is_enrolled_checked_and_masked(live: Live) -> None:
    village, number = live.village(), live.id_number("19400101")
    elder = live.elder(
        village, id_number=number, phone="13812345678", address="般阳路1号院3单元201", tags=["living_alone"]
    )
    assert elder["birth_date"] == "1940-01-01"
    assert elder["id_number"] == number[:6] + "********" + number[-4:]
    assert elder["phone"].endswith("5678")
    assert "1381234" not in elder["phone"]
    assert "201" not in elder["address"]
    assert elder["care_level"] == "key"
    assert elder["care_level_reasons"]
    assert live.admin.seen(f"/elders/{elder['id']}") == elder
    assert [e["id"] for e in live.admin.items("/elders", region_code=village, name="王")] == [elder["id"]]
    assert live.admin.items("/elders", region_code=village, tag="empty_nest") == []

    def enrol(**fields: Any) -> requests.Response:
        body = {"name": "李四", "region_code": village, "id_number": live.id_number()}
        return live.admin.post("/elders", json={**body, **fields})

    mistyped = number[:-1] + ("0" if number[-1] != "0" else "1")
    assert refused(enrol(id_number=mistyped), 422, "mistyped")["errors"][0]["field"] == "body.id_number"
    refused(enrol(id_number=live.id_number("20990101")), 422, "future")
    refused(enrol(id_number=live.id_number("19400230")), 422, "not a date")
    refused(enrol(id_number=number.lower()), 409, "enrolled already")
    female = live.id_number()[:16] + "2"
    refused(enrol(id_number=female + mod_11_2.calc_check_digit(female), sex="male"), 422, "sex")
    refused(enrol(birth_date="1941-01-01"), 422, "birth_date")
    refused(enrol(phone="12"), 422, "phone")
    refused(enrol(region_code="370302001999"), 422, "region")
    refused(enrol(birthdate="1940-01-01"), 422, "birthdate")
    refused(enrol(ability={"assessed_on": "2199-01-01"}), 422, "future")


def test_the_same_person_enrolled_at_once_by_two_is_enrolled_once(live: Live) -> None:
    body = {"name": "赵六", "region_code": live.village(), "id_number": live.id_number()}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: live.admin.post("/elders", json=body), range(6)))
    assert sorted(a.status_code for a in answers) == [201, 409, 409, 409, 409, 409]
    refused(next(a for a in answers if a.status_code == 409), 409, "enrolled already")


def test_revealing_is_a_right_and_an_audit_row(live: Live) -> None:
    number = live.id_number()
    elder = live.elder(id_number=number, phone="13812345678", address="般阳路1号")
    contact = live.contact(elder, "/reveal", phone="13987654321")
    supervisor = live.user("supervisor", elder["region_code"])
    plain = supervisor.seen(f"/elders/{elder['id']}", reveal="true", purpose="核对")
    assert (plain["id_number"], plain["phone"], plain["address"]) == (number, "+8613812345678", "般阳路1号")
    shown = supervisor.seen(f"/elders/{elder['id']}/contacts/{contact['id']}", reveal="true", purpose="核对")
    assert shown["phone"] == "+8613987654321"
    assert shown["channels"][0]["address"] == live.receiver.url("/reveal")
    rows = live.rows(
        "SELECT * FROM audit_log WHERE subject_id = $1 AND action LIKE '%revealed' ORDER BY id", elder["id"]
    )
    assert [row["action"] for row in rows] == ["elder.revealed", "contacts.revealed"]
    assert all(json.loads(row["actor"])["name"].startswith("supervisor") for row in rows)


def test_contacts_and_the_secret_that_is_shown_once(live: Live) -> None:
    elder = live.elder()
    made = live.contact(elder, "/once/path", phone="0533-5180000")
    channel = made["channels"][0]
    assert channel["secret"].startswith("whsec_")
    assert "/once" not in channel["address"]
    path = f"/elders/{elder['id']}/contacts"
    again = live.admin.seen(f"{path}/{made['id']}")
    assert again["channels"] == [{**channel, "secret": None}]
    assert live.admin.items(path) == [again]
    own = "whsec_" + base64.b64encode(b"x" * 32).decode()
    given = [
        {"kind": "console", "address": "门口"},
        {"kind": "webhook", "address": "https://example.org/x", "secret": own},
    ]
    changed = live.admin.patch(f"{path}/{made['id']}", json={"channels": given, "priority": 2}).json()
    assert [c["kind"] for c in changed["channels"]] == ["console", "webhook"]
    assert changed["channels"][1]["secret"] == own
    assert changed["phone"] == again["phone"]  # what is not given stays
    refused(live.admin.patch(f"{path}/{made['id']}", json={"name": None}), 422, "null")
    assert live.admin.delete(f"{path}/{made['id']}").status_code == 204
    refused(live.admin.get(f"{path}/{made['id']}"), 404)


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ({"kind": "email", "address": "a@example.org"}, ["SHOUWANG_SMTP_URL", "SHOUWANG_SMTP_FROM"]),
        ({"kind": "sms", "address": "13800000000"}, ["SHOUWANG_ALIYUN_ACCESS_KEY_ID", "SHOUWANG_ALIYUN_SMS_TEMPLATE"]),
        ({"kind": "voice", "address": "13800000000"}, ["SHOUWANG_ALIYUN_VOICE_TEMPLATE"]),
        ({"kind": "pigeon", "address": "x"}, ["webhook", "console"]),
        ({"kind": "device", "address": "x"}, ["device"]),
        ({"kind": "webhook", "address": "ftp://example.org"}, ["http://"]),
        ({"kind": "webhook", "address": "https://u:p@example.org/"}, ["password"]),
        ({"kind": "webhook", "address": "https://example.org/", "secret": "short"}, ["whsec_"]),
        ({"kind": "webhook", "address": "https://example.org/" + "a" * 2000}, ["2000"]),
    ],
)
def test_a_channel_that_cannot_work_is_refused_when_it_is_given(
    live: Live, channel: dict[str, str], words: list[str]
) -> None:
    body = {"name": "王小梅", "relation": "女儿", "channels": [channel]}
    path = f"/elders/{live.elder()['id']}/contacts"
    refused(live.admin.post(path, json=body), 422, *words)
    assert live.admin.items(path) == []


def test_a_private_webhook_is_refused_unless_allowed(tmp_path: Any) -> None:
    channels = build_channels(Settings(data_dir=tmp_path, allow_private_webhooks=False))
    for address in ("http://127.0.0.1/x", "http://10.0.0.7:8000/x", "http://[::1]/", "http://169.254.169.254/latest"):
        with pytest.raises(InvalidInput, match="private network"):
            ways.check([Way(ChannelKind.WEBHOOK, address)], channels)
    assert ways.check([Way(ChannelKind.WEBHOOK, "https://example.org/x")], channels)
    with pytest.raises(ChannelNotConfigured, match="SHOUWANG_SMTP_URL"):
        ways.check([Way(ChannelKind.EMAIL, "a@example.org")], channels)


def test_visitors_are_masked_and_paired(live: Live) -> None:
    elder = live.elder()
    hook = live.receiver.url("/visitor/secret-path")
    made = live.visitor(elder["region_code"], phone="13811112222", channels=[{"kind": "webhook", "address": hook}])
    assert "secret-path" not in json.dumps(made)
    assert made["channels"][0]["secret"].startswith("whsec_")
    shown = live.admin.seen(f"/visitors/{made['id']}")
    assert shown["channels"][0] == {**made["channels"][0], "secret": None}
    plain = live.admin.seen(f"/visitors/{made['id']}", reveal="true", purpose="核对")
    assert (plain["phone"], plain["channels"][0]["address"]) == ("+8613811112222", hook)
    changed = live.admin.patch(f"/visitors/{made['id']}", json={"organisation": "志愿队", "phone": None})
    assert (changed.json()["organisation"], changed.json()["phone"], changed.json()["name"]) == (
        "志愿队",
        None,
        "李志愿",
    )
    etag = {"If-Match": live.admin.get(f"/visitors/{made['id']}").headers["etag"]}
    assert live.admin.patch(f"/visitors/{made['id']}", json={"name": "甲"}, headers=etag).status_code == 200
    refused(live.admin.patch(f"/visitors/{made['id']}", json={"name": "乙"}, headers=etag), 412)
    path = f"/elders/{elder['id']}/visitors"
    live.admin.made(path, visitor_id=made["id"], role="backup")
    live.admin.made(path, visitor_id=made["id"], role="primary")  # paired already: the role changes
    (paired,) = live.admin.items(path)
    assert (paired["visitor_id"], paired["role"], paired["ended_at"]) == (made["id"], "primary", None)
    assert live.admin.delete(f"{path}/{made['id']}").status_code == 204
    refused(live.admin.delete(f"{path}/{made['id']}"), 404)
    refused(live.admin.post(path, json={"visitor_id": NOBODY}), 422, "visitor")


# --- devices ---------------------------------------------------------------------------------------------------------


def test_a_device_is_claimed_bound_and_heard(live: Live) -> None:
    elder, other = live.elder(), live.elder()
    device_id = f"heard-{uuid4().hex[:8]}"
    live.say(f"devices/{device_id}/event", {"type": "motion"})
    live.soon(lambda: device_id in {u["device_id"] for u in live.admin.items("/devices/unclaimed", limit=200)})
    made = live.admin.made("/devices", device_id=device_id, kind="motion_sensor", place="卧室床头")
    assert set(made) == {
        "device_id",
        "kind",
        "profile",
        "elder_id",
        "place",
        "online",
        "battery",
        "last_seen_at",
        "model",
    }
    assert device_id not in {u["device_id"] for u in live.admin.items("/devices/unclaimed", limit=200)}
    refused(live.admin.post("/devices", json={"device_id": device_id, "kind": "other"}), 409)
    for unseen in ("a\u200bb", "\ufeffsos", "sos\u3000"):  # pasted with it, the id would never be heard
        refused(live.admin.post("/devices", json={"device_id": unseen + device_id, "kind": "other"}), 422)
    refused(live.admin.put(f"/devices/{device_id}/binding", json={"elder_id": NOBODY}), 422, "elder")
    for wearer in (elder, other):
        bound = live.admin.put(f"/devices/{device_id}/binding", json={"elder_id": wearer["id"]})
        assert bound.json()["elder_id"] == wearer["id"]
    new, old = live.admin.items(f"/devices/{device_id}/binding")
    assert (old["elder_id"], old["unbound_at"]) == (elder["id"], new["bound_at"])
    live.say(f"devices/{device_id}/event", {"type": "heartbeat", "battery": 77, "id": "1"})
    live.say(f"devices/{device_id}/status", {"online": True})
    live.soon(lambda: live.admin.seen(f"/devices/{device_id}")["online"])
    assert live.admin.seen(f"/devices/{device_id}")["battery"] == 77
    (event,) = live.soon(lambda: live.admin.items(f"/devices/{device_id}/events"))
    assert (event["type"], event["event_id"], event["elder_id"]) == ("heartbeat", "1", other["id"])
    assert live.admin.delete(f"/devices/{device_id}/binding").status_code == 204
    refused(live.admin.delete(f"/devices/{device_id}/binding"), 404)
    assert live.admin.seen(f"/devices/{device_id}")["elder_id"] is None


def test_a_device_bound_by_many_at_once_has_one_history(live: Live) -> None:
    village = live.village()
    elders, device_id = [live.elder(village)["id"] for _ in range(3)], live.device()
    with ThreadPoolExecutor(8) as pool:
        put = [pool.submit(live.admin.put, f"/devices/{device_id}/binding", json={"elder_id": e}) for e in elders * 8]
    assert {job.result().status_code for job in put} == {200}
    ends = [b["unbound_at"] for b in walk(live.admin, f"/devices/{device_id}/binding", 100)]
    assert ends.count(None) == 1


def test_a_device_can_be_bound_when_it_is_registered(live: Live) -> None:
    elder = live.elder()
    device_id = live.device(elder)
    assert [d["device_id"] for d in live.admin.items("/devices", elder_id=elder["id"])] == [device_id]
    refused(live.admin.post("/devices", json={"device_id": "never", "kind": "other", "elder_id": NOBODY}), 422, "elder")
    refused(live.admin.get("/devices/never"), 404)  # and nothing of it stays


def test_what_cannot_be_read_is_kept_with_its_reason(live: Live) -> None:
    device_id = live.device()
    live.say(f"devices/{device_id}/event", b"\xff\xfe not json")
    live.say(f"devices/{device_id}/event", {"type": "earthquake"})
    found = live.soon(lambda: (r := live.admin.items("/rejected-messages", device_id=device_id)) and len(r) == 2 and r)
    assert all(r["reason"] and r["detail"] for r in found)
    assert {(r["payload"], r["encoding"]) for r in found} == {(None, None)}
    refused(live.admin.get("/rejected-messages", params={"device_id": device_id, "reveal": "true"}), 422, "purpose")
    found = live.admin.items(
        "/rejected-messages", device_id=device_id, reveal="true", purpose="设备 13800138000 说了什么"
    )
    (row,) = live.admin.seen("/audit-log", action="quarantine.revealed", limit=1)["items"]
    assert (row["detail"]["messages"], row["detail"]["newest"]) == (2, found[0]["id"])
    assert "13800138000" not in row["detail"]["purpose"]
    assert {r["encoding"] for r in found} == {"base64", "utf-8"}
    broken = next(r for r in found if r["encoding"] == "base64")
    assert base64.b64decode(broken["payload"]) == b"\xff\xfe not json"
    only = live.admin.items("/rejected-messages", device_id=device_id, reason=found[0]["reason"])
    assert found[0]["id"] in {r["id"] for r in only}


# --- alarms ----------------------------------------------------------------------------------------------------------


def test_an_alarm_from_the_report_to_the_outcome(live: Live) -> None:
    elder = live.elder(phone="13812345678", address="般阳路1号院3单元201")
    contact = live.contact(elder, "/life")
    alarm = live.alarm(elder)
    assert (alarm["state"], alarm["kind"], alarm["severity"]) == ("open", "reported", "critical")
    assert "邻居听到呼救" in alarm["because"]
    assert alarm["elder"]["address"] != "般阳路1号院3单元201"
    assert datetime.fromisoformat(alarm["raised_at"]).utcoffset() == timedelta(hours=8)
    joined = live.alarm(elder)  # a second report joins
    assert (joined["id"], joined["repeats"]) == (alarm["id"], 1)
    path = f"/alarms/{alarm['id']}"

    letter = live.receiver.first("/life")
    assert letter["type"] == "alarm.raised"
    assert letter["data"]["recipient"] == {
        "type": "contact", "id": contact["id"], "name": "王小梅", "role": letter["data"]["recipient"]["role"],
    }  # fmt: skip
    assert letter["data"]["alarm"]["elder"]["address"] == "般阳路1号院3单元201"  # who must go there sees where
    _, headers, body = next(taken for taken in live.receiver.taken if taken[0] == "/life")
    assert UUID(headers["webhook-id"])
    compact = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    Verifier(contact["channels"][0]["secret"]).verify(compact, headers)

    acknowledged = live.admin.post(f"{path}/acknowledge", json={"eta_minutes": 7, "note": "马上到"}).json()
    assert acknowledged["state"] == "acknowledged"
    assert acknowledged["acknowledged_by"]["name"] == "admin"
    promised = datetime.fromisoformat(acknowledged["promise_due_at"]) - datetime.fromisoformat(
        acknowledged["acknowledged_at"]
    )
    assert promised == timedelta(minutes=7)
    refused(live.admin.post(f"{path}/escalate"), 409, "acknowledged")
    comment = live.admin.made(f"{path}/comments", text="已联系120\n家属在路上")
    assert comment["data"]["text"] == "已联系120\n家属在路上"
    assert live.admin.post(f"{path}/attend").json()["state"] == "attending"
    refused(live.admin.post(f"{path}/acknowledge"), 409, "resolve")
    refused(live.admin.post(f"{path}/resolve", json={}), 422, "outcome")
    resolved = live.admin.post(f"{path}/resolve", json={"outcome": "elder_well", "note": "误碰"}).json()
    assert (resolved["state"], resolved["outcome"], resolved["escalation"]["next_at"]) == (
        "resolved",
        "elder_well",
        None,
    )
    refused(live.admin.post(f"{path}/resolve", json={"outcome": "test"}), 409, "closed")
    assert live.alarm(elder)["id"] != alarm["id"]  # what comes later is another alarm

    notices = live.admin.items(f"{path}/notifications")
    assert {n["recipient"]["name"] for n in notices} >= {"王小梅"}
    assert {"sent"} <= {n["state"] for n in notices}
    kinds = [entry["kind"] for entry in live.admin.items(f"{path}/timeline")]
    assert [k for k in kinds if k != "notice"] == [
        "raised",
        "repeated",
        "acknowledged",
        "comment",
        "attending",
        "resolved",
    ]
    assert [a["id"] for a in live.admin.items("/alarms", elder_id=elder["id"], state="resolved")] == [alarm["id"]]
    assert live.admin.items("/alarms", elder_id=elder["id"], severity="minor") == []


def test_escalating_by_hand_takes_the_next_step(live: Live) -> None:
    elder = live.elder()
    live.admin.made(
        "/escalation-policies", name="慢", severity="critical", region_code=elder["region_code"],
        steps=[{"after_s": 0, "targets": ["operators"]}, {"after_s": 3600, "targets": ["assigned_visitors"]}],
        repeat_last_every_s=3600,
    )  # fmt: skip
    visitor = live.visitor(
        elder["region_code"], channels=[{"kind": "webhook", "address": live.receiver.url("/by-hand")}]
    )
    live.contact(elder, "/by-hand-contact")
    alarm = live.alarm(elder)
    live.receiver.first("/by-hand-contact")
    live.admin.made(f"/elders/{elder['id']}/visitors", visitor_id=visitor["id"])
    assert live.admin.post(f"/alarms/{alarm['id']}/escalate").status_code == 200
    assert live.receiver.first("/by-hand")["type"] == "alarm.escalated"
    assert live.admin.seen(f"/alarms/{alarm['id']}")["escalation"]["step"] == 1


def test_a_dead_channel_is_followed_by_the_next(live: Live) -> None:
    elder = live.elder()
    addresses = [live.receiver.url(path) for path in ("/broken/first", "/working")]
    live.contact(elder, "/unused", channels=[{"kind": "webhook", "address": a} for a in addresses])
    alarm = live.alarm(elder)
    assert live.receiver.first("/working")["data"]["alarm"]["id"] == alarm["id"]
    failed = [n for n in live.admin.items(f"/alarms/{alarm['id']}/notifications") if n["error"]]
    assert failed
    assert all("127.0.0.1" not in n["error"] and "/broken" not in n["error"] for n in failed)


def test_policies_are_checked(live: Live) -> None:
    village = live.village()
    body = {
        "name": "甲", "severity": "major", "region_code": village, "repeat_last_every_s": 60,
        "steps": [{"after_s": 0, "targets": ["operators"]}, {"after_s": 120, "targets": ["township_duty"]}],
    }  # fmt: skip
    made = live.admin.made("/escalation-policies", **body)
    assert live.admin.seen(f"/escalation-policies/{made['id']}") == made
    assert made["id"] in {p["id"] for p in live.admin.items("/escalation-policies")}
    for wrong in (
        {"steps": []}, {"steps": list(reversed(body["steps"]))}, {"repeat_last_every_s": 0}, {"severity": "huge"},  # type: ignore[call-overload]
        {"steps": [{"after_s": 10**30, "targets": ["operators"]}]}, {"steps": [{"after_s": 0, "targets": ["mayor"]}]},
        {"region_code": "999999"}, {"region_code": village[:9] + "999"},  # they would apply to nobody
    ):  # fmt: skip
        refused(live.admin.post("/escalation-policies", json={**body, **wrong}), 422)


# --- visits and timelines --------------------------------------------------------------------------------------------


def test_visits_stand_beside_alarms_in_the_timeline(live: Live) -> None:
    elder = live.elder()
    visitor = live.visitor(elder["region_code"])
    device = live.device(elder)
    started = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    body = {"elder_id": elder["id"], "visitor_id": visitor["id"], "method": "home", "started_at": started}
    visit = live.admin.made("/visits", **body, services=["daily_living"], note="精神很好")
    seen = live.admin.seen(f"/visits/{visit['id']}")
    assert seen.pop("door")["evidence"] == "no_sensor"
    assert seen == {name: value for name, value in visit.items() if name != "door"}
    assert [v["id"] for v in live.admin.items("/visits", visitor_id=visitor["id"])] == [visit["id"]]
    alarm = live.alarm(elder)
    timeline = live.admin.items(f"/elders/{elder['id']}/timeline")
    assert {"visit", "alarm", "binding"} <= {entry["kind"] for entry in timeline}
    assert timeline == sorted(timeline, key=lambda e: datetime.fromisoformat(e["at"]), reverse=True)
    assert {e["data"].get("device_id") for e in timeline if e["kind"] == "binding"} == {device}
    live.admin.made("/visits", **{**body, "alarm_id": alarm["id"]})
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for wrong in (
        {"started_at": future}, {"ended_at": "2020-01-01T00:00:00Z"}, {"alarm_id": NOBODY}, {"elder_id": NOBODY},
        {"visitor_id": NOBODY}, {"method": "telepathy"}, {"started_at": "0001-01-01T00:00:00+14:00"},
        {"started_at": "9999-12-31T23:59:59-14:00"}, {"started_at": 1e300}, {"started_at": "2026-01-01T00:00:00"},
    ):  # fmt: skip
        refused(live.admin.post("/visits", json={**body, **wrong}), 422)


# --- repeats, versions, pages ----------------------------------------------------------------------------------------


def test_an_idempotency_key_is_answered_once(live: Live) -> None:
    elder = live.elder()
    body = {"name": "王小梅", "relation": "女儿", "channels": [{"kind": "webhook", "address": live.receiver.url("/k")}]}
    path, key = f"/elders/{elder['id']}/contacts", {"Idempotency-Key": uuid4().hex}
    first = live.admin.post(path, json=body, headers=key)
    again = live.admin.post(path, json=body, headers=key)
    assert (again.status_code, again.json()) == (first.status_code, first.json())  # the secret too
    assert again.headers["idempotent-replay"] == "true"
    assert again.headers["etag"] == first.headers["etag"]
    assert len(live.admin.items(path)) == 1
    other = live.admin.post(path, json={**body, "name": "王大梅"}, headers=key)
    assert refused(other, 422)["type"].endswith("/idempotency-mismatch")
    someone = live.user("supervisor", elder["region_code"])
    assert someone.post(path, json={**body, "name": "王小妹"}, headers=key).status_code == 201  # keys are one's own


def test_a_refusal_does_not_use_up_the_key(live: Live) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    body = {"name": "李", "region_code": "370302001999"}
    refused(live.admin.post("/visitors", json=body, headers=key), 422)
    assert live.admin.post("/visitors", json={**body, "region_code": live.village()}, headers=key).status_code == 201


def test_ten_at_once_with_one_key_do_it_once(live: Live) -> None:
    village, key = live.village(), {"Idempotency-Key": uuid4().hex}
    body = {"name": "李志愿", "region_code": village}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: live.admin.post("/visitors", json=body, headers=key), range(10)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert len(live.admin.items("/visitors", region_code=village)) == 1


def test_a_lost_update_is_refused(live: Live) -> None:
    elder = live.elder()
    path = f"/elders/{elder['id']}"
    etag = live.admin.get(path).headers["etag"]
    changed = live.admin.patch(path, json={"dementia": True}, headers={"If-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    assert refused(live.admin.patch(path, json={"dementia": False}, headers={"If-Match": etag}), 412)
    assert live.admin.seen(path)["dementia"] is True
    assert live.admin.patch(path, json={"dementia": False}, headers={"If-Match": "*"}).status_code == 200
    refused(live.admin.patch(path, json={}, headers={"If-Match": "abc"}), 422, "If-Match")
    alarm = live.alarm(elder)
    stale = live.admin.get(f"/alarms/{alarm['id']}").headers["etag"]
    live.alarm(elder)
    refused(live.admin.post(f"/alarms/{alarm['id']}/acknowledge", headers={"If-Match": stale}), 412)


def walk(api: Api, path: str, limit: int, **params: Any) -> list[dict[str, Any]]:
    found, cursor = [], None
    while True:
        page = api.seen(path, limit=limit, **params, **({"cursor": cursor} if cursor else {}))
        assert len(page["items"]) <= limit
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_cursors_walk_every_item_once(live: Live) -> None:
    village = live.village()
    elders = [live.elder(village) for _ in range(5)]
    made = [e["id"] for e in elders]
    assert [e["id"] for e in walk(live.admin, "/elders", 2, region_code=village)] == made[::-1]
    assert [e["id"] for e in walk(live.admin, "/elders", 5, region_code=village)] == made[::-1]
    own = live.user("supervisor", village)
    devices = [live.device(elder) for elder in elders]
    assert [d["device_id"] for d in walk(own, "/devices", 2)] == devices[::-1]
    alarms = [live.alarm(elder)["id"] for elder in elders]
    assert [a["id"] for a in walk(own, "/alarms", 2)] == alarms[::-1]
    same = (datetime.now(UTC) - timedelta(hours=1)).isoformat()  # equal times, told apart by their ids
    visits = [own.made("/visits", elder_id=e["id"], method="phone", started_at=same)["id"] for e in elders]
    assert sorted(v["id"] for v in walk(own, "/visits", 2)) == sorted(visits)
    codes = [r["code"] for r in walk(live.admin, "/regions", 7)]
    assert codes == sorted(set(codes))
    whole = own.items(f"/elders/{made[0]}/timeline", limit=200)
    assert walk(own, f"/elders/{made[0]}/timeline", 1) == whole


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "",
        "[]",
        [5],
        [[1]],
        ["1"],
        [None],
        {"a": 1},
        ["0001-01-01T00:00:00+14:00", NOBODY],
        "A" * 501,
        [1, 2, 3],
    ],
)
def test_a_cursor_we_did_not_make_is_refused(live: Live, cursor: Any) -> None:
    text = cursor if isinstance(cursor, str) else base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode()
    for path in ("/elders", "/visits", "/devices", "/alarms", "/users", "/rejected-messages"):
        refused(
            live.admin.get(path, params={"cursor": text}), 422, "cursor" if text != cursor or len(text) < 500 else ""
        )


def test_limits_of_a_page(live: Live) -> None:
    for limit in ("0", "201", "-1", "x", "9" * 30):
        refused(live.admin.get("/elders", params={"limit": limit}), 422, "limit")


# --- the feed --------------------------------------------------------------------------------------------------------


def test_the_feed_loses_nothing_between_two_connections(live: Live) -> None:
    mine, foreign = live.elder(), live.elder()
    api = live.user("operator", mine["region_code"])
    with live.feed(api) as events:
        first = live.alarm(mine)
        seen = next(events)
    assert (seen.type, seen.data["alarm_id"], seen.data["alarm"]["id"]) == ("alarm.raised", first["id"], first["id"])
    live.alarm(foreign)
    live.admin.post(f"/alarms/{first['id']}/acknowledge")
    live.alarm(foreign, kind="fall")
    live.admin.post(f"/alarms/{first['id']}/resolve", json={"outcome": "test"})
    second = live.alarm(mine)
    with live.feed(api, seen.id) as events:
        later = []
        while not later or later[-1].data["alarm_id"] != second["id"]:
            later.append(next(events))
    numbers = [int(e.id) for e in [seen, *later] if e.id]
    assert numbers == sorted(set(numbers))
    by_people = ["alarm.acknowledged", "alarm.resolved", "alarm.raised"]  # nobody to tell: it escalates meanwhile
    assert [e.type for e in later if e.type in by_people] == by_people
    assert {e.data["region_code"] for e in later} == {mine["region_code"]}
    assert all(e.data["alarm"]["elder"]["id"] == mine["id"] for e in later)


def test_the_feed_is_whole_for_a_reader_that_keeps_falling_off(live: Live) -> None:
    village = live.village()
    elders = [live.elder(village) for _ in range(6)]
    api, seen = live.user("operator", village), list[tuple[int, str, str]]()
    with live.feed(api) as events:
        live.alarm(elders[0])
        position = next(events).id
    kinds = ("sos", "fall", "smoke", "gas")
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(live.alarm, elder, kind=kind) for elder in elders for kind in kinds]
        while len(seen) < len(work):
            with live.feed(api, position) as events:
                for event in (next(events) for _ in range(5)):
                    position = event.id
                    seen += [(int(event.id or 0), event.data["alarm_id"], event.type)] * (event.type == "alarm.raised")
                    if len(seen) == len(work):
                        break
    assert [number for number, _, _ in seen] == sorted({number for number, _, _ in seen})
    assert sorted(alarm for _, alarm, _ in seen) == sorted(job.result()["id"] for job in work)


def test_the_feed_begins_now_and_refuses_numbers_that_are_none(live: Live) -> None:
    elder = live.elder()
    live.alarm(elder)
    with live.feed(live.user("operator", elder["region_code"])) as events:
        live.alarm(elder)
        assert next(e for e in events if e.type == "alarm.repeated").data["alarm"]["repeats"] == 1
    assert '"mistake"' not in live.log.read_text()  # who leaves a stream makes no noise
    for wrong in ("-1", "abc", "1.5", "9" * 19, "9" * 40, "9" * 400):
        refused(live.admin.get("/alarms/stream", headers={"Last-Event-ID": wrong}, stream=True), 422)


# --- scope -----------------------------------------------------------------------------------------------------------


def test_nobody_sees_beyond_their_region(live: Live) -> None:
    elder, own = live.elder(live.village("370302002000")), live.elder(live.village("370302001000"))
    village = elder["region_code"]
    contact, visitor, device, alarm = (
        live.contact(elder, "/scope"), live.visitor(village), live.device(elder), live.alarm(elder),
    )  # fmt: skip
    started = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    visit = live.admin.made("/visits", elder_id=elder["id"], method="home", started_at=started)
    policy = live.admin.made(
        "/escalation-policies", name="p", severity="minor", region_code=village, repeat_last_every_s=60,
        steps=[{"after_s": 0, "targets": ["operators"]}],
    )  # fmt: skip
    api = live.user("admin", "370302001")
    e, a, d = f"/elders/{elder['id']}", f"/alarms/{alarm['id']}", f"/devices/{device}"
    absent = api.get(f"/elders/{NOBODY}").json()
    assert refused(api.get(e), 404) == absent  # foreign looks like absent
    for path in (
        f"{e}?reveal=true&purpose=check", f"{e}/contacts", f"{e}/contacts/{contact['id']}", f"{e}/visitors", f"{e}/timeline",
        a, f"{a}/notifications", f"{a}/timeline", d, f"{d}/binding", f"{d}/events", f"/visitors/{visitor['id']}",
        f"/visits/{visit['id']}", f"/regions/{village}", f"/regions/{village}/duty",
        f"/escalation-policies/{policy['id']}",
    ):  # fmt: skip
        refused(api.get(path), 404)
    for method, path, body in (
        ("PATCH", e, {"dementia": True}), ("POST", f"{e}/contacts", {"name": "x", "relation": "y"}),
        ("PATCH", f"{e}/contacts/{contact['id']}", {"name": "x"}), ("DELETE", f"{e}/contacts/{contact['id']}", None),
        ("PATCH", f"/visitors/{visitor['id']}", {"name": "x"}),
        ("POST", f"{e}/visitors", {"visitor_id": visitor["id"]}), ("DELETE", f"{e}/visitors/{visitor['id']}", None),
        ("POST", f"{a}/acknowledge", {}), ("POST", f"{a}/attend", {}), ("POST", f"{a}/resolve", {"outcome": "test"}),
        ("POST", f"{a}/escalate", None), ("POST", f"{a}/comments", {"text": "x"}),
        ("PUT", f"{d}/binding", {"elder_id": own["id"]}), ("DELETE", f"{d}/binding", None),
        ("POST", f"/regions/{village}/duty", {"role": "deputy", "visitor_id": visitor["id"], "from": "2026-01-01"}),
    ):  # fmt: skip
        refused(api.request(method, path, json=body), 404)
    own_device = live.device(own)
    for method, path, body in (
        ("POST", "/alarms", {"elder_id": elder["id"], "note": "x"}),
        ("POST", "/visits", {"elder_id": elder["id"], "method": "home", "started_at": started}),
        ("POST", "/visits", {"elder_id": own["id"], "visitor_id": visitor["id"], "method": "home", "started_at": started}),
        ("POST", "/visits", {"elder_id": own["id"], "alarm_id": alarm["id"], "method": "home", "started_at": started}),
        ("POST", "/elders", {"name": "x", "id_number": live.id_number(), "region_code": village}),
        ("PATCH", f"/elders/{own['id']}", {"region_code": village}),
        ("POST", "/visitors", {"name": "x", "region_code": village}),
        ("POST", "/devices", {"device_id": "x-1", "kind": "other", "region_code": village}),
        ("PUT", f"/devices/{own_device}/binding", {"elder_id": elder["id"]}),
        ("POST", "/regions", {"code": "370302002777", "name": "x"}),
        ("POST", "/users", {"username": "x-user", "password": "a-long-password-7", "role": "operator", "region_code": ""}),
        ("POST", f"/elders/{own['id']}/visitors", {"visitor_id": visitor["id"]}),
        ("POST", "/escalation-policies", {**policy_body(), "region_code": village}),
        ("POST", "/escalation-policies", {**policy_body(), "region_code": ""}),
    ):  # fmt: skip
        refused(api.request(method, path, json=body), 422)
    for path in (
        "/elders",
        "/visitors",
        "/devices",
        "/alarms",
        "/visits",
        "/users",
        "/escalation-policies",
        "/regions",
    ):
        text = json.dumps(walk(api, path, 200))
        for foreign in (elder["id"], visitor["id"], device, alarm["id"], visit["id"], policy["id"], village):
            assert foreign not in text
    assert own["id"] in {x["id"] for x in walk(api, "/elders", 200)}


def policy_body() -> dict[str, Any]:
    return {
        "name": "p", "severity": "minor", "repeat_last_every_s": 60,
        "steps": [{"after_s": 0, "targets": ["operators"]}],
    }  # fmt: skip


def test_who_moves_away_is_seen_by_the_new_region_only(live: Live) -> None:
    old, new = live.village("370302001000"), live.village("370302002000")
    elder = live.elder(old)
    device, alarm = live.device(elder), live.alarm(elder)
    started = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    visit = live.admin.made("/visits", elder_id=elder["id"], method="home", started_at=started)
    assert live.admin.patch(f"/elders/{elder['id']}", json={"region_code": new}).status_code == 200
    paths = (f"/elders/{elder['id']}", f"/alarms/{alarm['id']}", f"/devices/{device}", f"/visits/{visit['id']}")
    before, after = live.user("supervisor", old), live.user("supervisor", new)
    for path in paths:
        refused(before.get(path), 404)
        assert after.get(path).status_code == 200
    for path in ("/elders", "/alarms", "/devices", "/visits"):
        assert before.items(path) == []
        assert len(after.items(path)) == 1
    live.admin.post(f"/alarms/{alarm['id']}/acknowledge")
    with live.feed(after, "0") as events:
        assert next(events).type == "alarm.raised"
    assert live.rows("SELECT 1 FROM feed_events WHERE region_code = $1", old) == []


# --- answer links ----------------------------------------------------------------------------------------------------


def answer_link(live: Live, path: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    elder = live.elder(phone="13812345678", address="般阳路1号院3单元201")
    live.contact(elder, path)
    alarm = live.alarm(elder)
    return live.receiver.first(path)["data"]["ack_url"], elder, alarm


JSON = {"Accept": "application/json"}


def test_an_answer_link_shows_on_get_and_acts_on_post(live: Live) -> None:
    link, _, alarm = answer_link(live, "/link-json")
    assert link.startswith(f"{live.base}/a/")
    live.soon(lambda: live.admin.seen(f"/alarms/{alarm['id']}")["first_sent_at"])
    before = live.admin.get(f"/alarms/{alarm['id']}")
    for turn in range(20):
        page = live.anonymous.get(link, headers=JSON if turn % 2 else {})
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
    after = live.admin.get(f"/alarms/{alarm['id']}")
    assert (after.json(), after.headers["etag"]) == (before.json(), before.headers["etag"])
    shown = live.anonymous.get(link, headers=JSON).json()
    assert shown["elder"]["address"] == "般阳路1号院3单元201"  # who must go there needs it
    done = live.anonymous.post(link, json={"action": "acknowledge", "eta_minutes": 9}, headers=JSON).json()
    assert (done["state"], done["acknowledged_by"]["name"]) == ("acknowledged", "王小梅")
    again = live.anonymous.post(link, json={"action": "acknowledge", "eta_minutes": 9}, headers=JSON)
    assert (again.status_code, again.json()["state"]) == (200, "acknowledged")
    for wrong in ({}, {"action": "dance"}, {"action": "resolve"}, {"action": "acknowledge", "eta_minutes": 10**9}):
        refused(live.anonymous.post(link, json=wrong, headers=JSON), 422)
    refused(live.anonymous.post(link, data=b"{", headers={**JSON, "content-type": "application/json"}), 422)
    refused(live.anonymous.post(link, data=b"x", headers={**JSON, "content-type": "text/plain"}), 422)
    refused(live.anonymous.post(link, data=b"{" * 20_000, headers={**JSON, "content-type": "application/json"}), 422)
    ended = {"action": "resolve", "outcome": "elder_well"}
    assert live.anonymous.post(link, json=ended, headers=JSON).json()["state"] == "resolved"
    refused(live.anonymous.post(link, json=ended, headers=JSON), 410)
    closed = live.anonymous.get(link, headers=JSON).json()
    assert closed["elder"]["address"] != "般阳路1号院3单元201"  # nobody has to go there any more
    assert closed["elder"]["phone"] != "+8613812345678"


def test_an_answer_link_is_a_page_for_a_phone(live: Live) -> None:
    link, _, alarm = answer_link(live, "/link-form")
    page = live.anonymous.get(link)
    assert page.headers["content-type"].startswith("text/html")
    assert "王桂英" in page.text
    assert "般阳路1号院3单元201" in page.text
    assert 'name="viewport"' in page.text
    assert "script" not in page.text
    done = live.anonymous.post(link, data={"action": "acknowledge", "eta_minutes": "20"})
    assert done.status_code == 200
    assert live.admin.seen(f"/alarms/{alarm['id']}")["state"] == "acknowledged"
    wrong = live.anonymous.post(link, data={"action": "resolve", "outcome": ""})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "text/html; charset=utf-8")
    assert "选择处理结果" in wrong.text  # the daughter reads what to do, not the words of a parser
    unread = live.anonymous.post(link, data={"action": "acknowledge", "eta_minutes": "soon"})
    assert unread.status_code == 422
    assert "重新提交" in unread.text
    assert "integer" not in unread.text
    assert live.anonymous.post(link, data={"action": "attend", "note": ""}).status_code == 200
    assert live.anonymous.post(link, data={"action": "resolve", "outcome": "test"}).status_code == 200
    closed = live.anonymous.post(link, data={"action": "attend"})
    assert (closed.status_code, closed.headers["content-type"]) == (410, "text/html; charset=utf-8")
    assert "般阳路1号院3单元201" not in live.anonymous.get(link).text


def test_a_forged_link_is_not_found(live: Live) -> None:
    link, _, alarm = answer_link(live, "/link-forged")
    token = link.rpartition("/")[2]
    flipped = ("A" if token[0] != "A" else "B") + token[1:]
    cut = token[:-1]
    for forged in (flipped, token[:22] + "A" * 21, cut, "x", "%00", "x" * 400, "é", alarm["id"]):
        for method in ("GET", "POST"):
            answer = live.anonymous.request(method, f"{live.base}/a/{forged}", data={"action": "attend"})
            assert answer.status_code == 404, forged
            assert answer.headers["content-type"].startswith("text/html")
        refused(live.anonymous.get(f"{live.base}/a/{forged}", headers=JSON), 404)
    assert live.admin.seen(f"/alarms/{alarm['id']}")["state"] == "open"


# --- nonsense --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"code":"370302001777","name":"a\\u0000b"}', 422), ('{"code":"370302001777","name":"a\\u001b[2J"}', 422),
        ('{"code":"370302001777","name":"\\ud800"}', 422), ('{"\\ud800":1}', 422), ('{"code":NaN,"name":"x"}', 422),
        ('{"code":' + "9" * 5000 + "}", 400), ("[" * 500_000, 400), ('{"a":' * 100_000 + "1" + "}" * 100_000, 400),
        ("", 422), ("null", 422), ("[]", 422), ('"text"', 422), ("{", 422), (b"\xff\xfe", 422), (b'{"name":"\xff"}', 400),
        ('{"code":"370302001777","name":"' + "x" * 101 + '"}', 422), ('{"' + "k" * 10_000 + '":1}', 422),
        ("{" + ",".join(f'"k{n}":1' for n in range(20_000)) + "}", 422), (" " * (1024 * 1024 + 1), 413),
    ],
    ids=range(19),
)  # fmt: skip
def test_nonsense_in_a_body_is_refused_in_words(live: Live, body: str | bytes, status: int) -> None:
    data = body.encode() if isinstance(body, str) else body
    answer = live.admin.post("/regions", data=data, headers={"content-type": "application/json"})
    refused(answer, status)
    assert len(answer.content) < 20_000
    refused(live.admin.get("/regions/370302001777"), 404)


def test_a_body_without_a_length_is_counted(live: Live) -> None:
    chunks = (b"a" * 8192 for _ in range(200))
    refused(live.admin.post("/regions", data=chunks, headers={"content-type": "application/json"}), 413)


def test_other_media_types_are_refused(live: Live) -> None:
    body = json.dumps({"code": "370302001778", "name": "x"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data"):
        refused(live.admin.post("/regions", data=body, headers={"content-type": kind}), 422)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/elders?name=%00", 422), ("/devices/a%00b", 422), ("/devices/%ff%fe", 404), ("/devices/" + "x" * 129, 422),
        ("/elders/not-an-id", 422), ("/regions/37030200100", 422), ("/regions/%D9%A3" + "0" * 11, 422),
        ("/elders?region_code=%25", 422), ("/visits?elder_id=1", 422), ("/alarms?state=asleep", 422),
        ("/rejected-messages?device_id=%00", 422), ("/nothing-here", 404), ("/elders?reveal=maybe&limit=x", 422),
        ("/devices/a%0Ab/events", 404), (f"/elders/{NOBODY}/contacts/{NOBODY}", 404),
    ],
)  # fmt: skip
def test_nonsense_in_an_address_is_refused_in_words(live: Live, path: str, status: int) -> None:
    refused(live.admin.get(path), status)


def test_other_methods_are_told_what_is_allowed(live: Live) -> None:
    for method in ("PUT", "OPTIONS", "TRACE", "DELETE"):
        answer = live.admin.request(method, "/elders")
        refused(answer, 405)
        assert "GET" in answer.headers["allow"]
    assert live.admin.head("/elders").status_code == 405


async def test_our_own_mistake_is_a_problem_and_a_log_line_without_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(middleware, "log", SimpleNamespace(error=lambda event, **line: lines.append(line)))

    who = "王桂英 13800000000"

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(who)  # the line quotes the code, never the message

    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    await middleware.Mistakes(broken)({"type": "http"}, None, keep)  # type: ignore[arg-type]
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"content-type"]) == (500, b"application/problem+json")
    assert json.loads(sent[1]["body"])["type"].endswith("/internal")
    (line,) = lines
    assert line["error"] == "ValueError"
    assert "in broken" in line["where"]
    assert "13800000000" not in line["where"]


# --- the documents ---------------------------------------------------------------------------------------------------


def test_the_document_describes_every_operation_and_every_problem(live: Live) -> None:
    document = live.anonymous.get(f"{live.base}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    problem = {"$ref": "#/components/schemas/Problem"}
    for method, path, operation in operations(live):
        where = f"{method} {path}"
        answers = operation["responses"]
        assert operation["summary"], where
        if (method, path) not in PUBLIC:
            assert {"401", "422", "503"} <= set(answers), where
            assert operation["security"], where
        if "{" in path:
            assert "404" in answers, where
        if "requestBody" in operation:
            assert {"400", "413", "422"} <= set(answers), where
        for status, answer in answers.items():
            if status >= "400" and path != "/readyz":
                assert answer["content"]["application/problem+json"]["schema"] == problem, where
        if method == "post" and (method, path) not in PUBLIC | QUESTIONS:
            assert "Idempotency-Key" in {p["name"] for p in operation["parameters"]}, where
    webhook = document["webhooks"]["alarm"]["post"]
    assert {p["name"] for p in webhook["parameters"]} == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    types = webhook["requestBody"]["content"]["application/json"]["schema"]["properties"]["type"]["enum"]
    assert "alarm.raised" in types
    assert "alarm.escalated" in types


def test_every_body_has_an_example_that_fits(live: Live) -> None:
    document = live.anonymous.get(f"{live.base}/openapi.json").json()
    schemas = document["components"]["schemas"]
    bodies = 0
    for method, path, operation in operations(live):
        for media in operation.get("requestBody", {}).get("content", {}).values():
            names = re.findall(r"#/components/schemas/(\w+)", json.dumps(media["schema"]))
            if not names:  # a file: text shows how it looks, a workbook cannot
                assert "binary" in json.dumps(media["schema"]) or media["schema"].get("examples"), f"{method} {path}"
                continue
            examples = schemas[names[0]].get("examples", [])
            assert examples, f"{method} {path}: {names[0]} has no example"
            for example in examples:
                validator = jsonschema.Draft202012Validator(
                    {"$ref": f"#/components/schemas/{names[0]}", "components": document["components"]}
                )
                validator.validate(example)
            bodies += 1
    assert bodies >= 20


def test_a_newcomer_can_paste_the_examples(live: Live) -> None:
    schemas = live.anonymous.get(f"{live.base}/openapi.json").json()["components"]["schemas"]

    def example(name: str, **instead: Any) -> dict[str, Any]:
        return {**schemas[name]["examples"][0], **instead}

    elder = live.admin.post("/elders", json=example("ElderIn"))
    assert elder.status_code in (201, 409), elder.text  # somebody may have pasted it before
    elder_id = live.elder()["id"]
    visitor = live.admin.made("/visitors", **example("VisitorIn"))["id"]
    village = live.village()
    live.admin.made(f"/elders/{elder_id}/contacts", **example("ContactIn"))
    live.admin.made(f"/elders/{elder_id}/visitors", **example("AssignmentIn", visitor_id=visitor))
    live.admin.made(f"/regions/{village}/duty", **example("DutyIn", visitor_id=visitor))
    live.admin.made("/devices", **example("DeviceIn", device_id=f"pasted-{village}"))
    live.admin.made("/visits", **example("VisitIn", elder_id=elder_id))
    live.admin.made("/escalation-policies", **example("PolicyIn", region_code=village))
    live.admin.made("/users", **example("UserIn", username=f"pasted-{village}"))
    assert live.admin.patch(f"/elders/{elder_id}", json=example("ElderChange")).status_code == 200
    assert live.admin.patch(f"/visitors/{visitor}", json=example("VisitorChange")).status_code == 200
    bound = live.admin.put(f"/devices/pasted-{village}/binding", json=example("BindingIn", elder_id=elder_id))
    assert bound.status_code == 200
    alarm = live.admin.made("/alarms", **example("AlarmIn", elder_id=elder_id))["id"]
    live.admin.made(f"/alarms/{alarm}/comments", **example("CommentIn"))
    for act, name in (("acknowledge", "AcknowledgeIn"), ("attend", "AttendIn"), ("resolve", "ResolveIn")):
        assert live.admin.post(f"/alarms/{alarm}/{act}", json=example(name)).status_code == 200


def test_the_asyncapi_document_holds_together(live: Live) -> None:
    document = live.anonymous.get(f"{live.base}/asyncapi.json").json()
    assert document["asyncapi"].startswith("3.")
    assert {c["address"] for c in document["channels"].values()} == {
        "devices/{device_id}/event", "devices/{device_id}/status", "devices/{device_id}/command",
    }  # fmt: skip

    def at(reference: str) -> Any:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return found

    references = re.findall(r'"\$ref": "(#[^"]+)"', json.dumps(document))
    assert all(at(reference) for reference in references)
    for channel in document["channels"].values():
        assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"]))
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["bindings"]["mqtt"]["qos"] == 1
    for message in document["components"]["messages"].values():
        jsonschema.Draft202012Validator.check_schema(message["payload"])
        for example in message.get("examples", []):
            jsonschema.validate(example["payload"], message["payload"])
    types = {"sos", "fall", "door", "motion", "bed", "smoke", "gas", "water_leak", "cancel", "vitals", "heartbeat"}
    assert types <= set(document["components"]["messages"])


def test_health_and_metrics(live: Live) -> None:
    root = live.base
    assert live.anonymous.get(f"{root}/healthz").json() == {"status": "ok"}
    ready = live.anonymous.get(f"{root}/readyz")
    assert (ready.status_code, ready.json()["status"]) in ((200, "ready"), (503, "not_ready"))
    elder = live.elder()
    live.contact(elder, "/metered")
    live.alarm(elder)
    live.receiver.first("/metered")
    live.say(f"devices/{live.device()}/event", {"type": "motion"})
    names = ("shouwang_events_total{", "shouwang_event_to_commit_seconds_bucket", "shouwang_notices_total{",
             "shouwang_alarms_open{severity=", "shouwang_ingest_lag_seconds", "shouwang_oldest_untold_alarm_seconds",
             "shouwang_event_to_first_notice_seconds_bucket")  # fmt: skip
    live.soon(lambda: all(name in live.anonymous.get(f"{root}/metrics").text for name in names))


# --- personal data ---------------------------------------------------------------------------------------------------


def test_personal_data_is_in_no_log_line_no_metric_no_problem_and_not_in_the_clear_in_a_table(live: Live) -> None:
    number, phone, address, hook = live.id_number("19310203"), "13977788899", "金丝雀胡同77号", "canary-hook-path"
    canaries = (number, phone, phone[-8:], address, hook, "金丝雀密")
    village = live.village()
    body = {"name": "金", "id_number": number, "phone": phone, "address": address, "region_code": village}
    key = {"Idempotency-Key": uuid4().hex}
    elder = live.admin.post("/elders", json=body, headers=key).json()
    problems = [
        live.admin.post("/elders", json=body),
        live.admin.post("/elders", json={**body, "id_number": number[:-1] + "?"}),
        live.admin.post("/elders", json={**body, "phone": phone * 9, "disability_grade": phone, "dementia": address}),
        live.admin.post("/elders", json={**body, "birth_date": number, "tags": [address], "region_code": phone}),
        live.admin.post("/elders", data=json.dumps(body)[:-1], headers={"content-type": "application/json"}),
        live.admin.post("/elders", json={**body, "name": address + "\0"}),
        live.admin.get("/elders", params={"tag": address, "cursor": phone, "name": address + "\0"}),
        live.anonymous.post("/auth/token", data={"username": phone, "password": "金丝雀密码"}),
        live.admin.post(f"/elders/{elder['id']}/contacts", json={"name": "x", "relation": "y", "phone": phone + "x9",
                        "channels": [{"kind": "webhook", "address": f"ftp://{hook}/"}]}),
    ]  # fmt: skip
    for problem in problems:
        assert 400 <= problem.status_code < 500
        for canary in canaries:
            assert canary not in problem.text
    channels = [{"kind": "webhook", "address": live.receiver.url(f"/broken/{hook}")},
                {"kind": "webhook", "address": f"http://127.0.0.1:9/{hook}"},
                {"kind": "webhook", "address": live.receiver.url(f"/{hook}")}]  # fmt: skip
    made = live.admin.post(
        f"/elders/{elder['id']}/contacts", headers={"Idempotency-Key": uuid4().hex},
        json={"name": "女", "relation": "女儿", "phone": phone, "channels": channels},
    ).json()  # fmt: skip
    secret = made["channels"][0]["secret"]
    live.admin.post("/visitors", headers={"Idempotency-Key": uuid4().hex},
                    json={"name": "志", "region_code": village, "phone": phone, "channels": channels})  # fmt: skip
    live.admin.seen(f"/elders/{elder['id']}", reveal="true", purpose="核对")
    alarm = live.alarm(elder)
    link = live.receiver.first(f"/{hook}")["data"]["ack_url"]
    live.anonymous.get(link)
    live.anonymous.post(link, data={"action": "resolve", "outcome": "test"})
    shown = live.admin.items(f"/alarms/{alarm['id']}/notifications")
    texts = [live.log.read_text(), live.anonymous.get(f"{live.base}/metrics").text, json.dumps(shown)]
    for canary in (*canaries, secret, link.rpartition("/")[2]):
        for text in texts:
            assert canary not in text
    tables = live.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    assert len(tables) > 10
    for (table,) in tables:
        for (row,) in live.rows(f'SELECT t::text FROM "{table}" t'):
            for canary in (number, phone, address, hook, secret):
                assert canary not in row, table
                assert canary.encode().hex() not in row, table
