"""What a front end, a load balancer or a mail filter does that no manual foresees, against a running server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.live import USER_PASSWORD
from tests.test_api import refused

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live-2")


def test_what_was_read_masked_and_is_written_back_destroys_nothing(live: Live) -> None:
    """A front end that changes one field and sends the whole record back."""
    elder = live.elder(phone="13812345678", address="般阳路1号院3单元201")
    contact = live.contact(elder, "/kept", phone="13812345678")
    masked = live.admin.seen(f"/elders/{elder['id']}")
    for field in ("phone", "address"):
        assert "***" in masked[field]
        refused(live.admin.patch(f"/elders/{elder['id']}", json={field: masked[field]}), 422, "masked")
    [shown] = live.admin.items(f"/elders/{elder['id']}/contacts")
    where = f"/elders/{elder['id']}/contacts/{contact['id']}"
    channel = {"kind": "webhook", "address": shown["channels"][0]["address"]}
    for change in ({"phone": shown["phone"]}, {"channels": [channel]}):
        refused(live.admin.patch(where, json=change), 422, "masked")
    plain = live.admin.seen(f"/elders/{elder['id']}", reveal=True, purpose="核对地址")
    assert (plain["phone"], plain["address"]) == ("+8613812345678", "般阳路1号院3单元201")
    live.alarm(elder)
    assert live.receiver.first("/kept")


def test_a_short_address_is_masked_too(live: Live) -> None:
    elder = live.elder(address="北街7号")
    assert live.admin.seen(f"/elders/{elder['id']}")["address"] == "北街***"


def test_a_cursor_is_good_for_the_list_that_gave_it(live: Live) -> None:
    for _ in range(2):
        live.alarm(live.elder())
    cursor = live.admin.seen("/alarms", limit=1)["next_cursor"]
    assert live.admin.seen("/alarms", limit=1, cursor=cursor)["items"]
    for other in ("/elders", "/visitors", "/regions", "/visits", "/escalation-policies", "/rejected-messages"):
        refused(live.admin.get(other, params={"cursor": cursor}), 422, "cursor")


def test_a_body_of_another_kind_is_told_what_to_send(live: Live) -> None:
    for kind in ("text/plain", "application/xml"):
        refused(live.admin.post("/elders", data=b"{}", headers={"content-type": kind}), 422, "application/json", kind)
    refused(live.admin.post("/elders", data=b"{}"), 422, "application/json")
    broken = live.admin.post("/elders", data=b'{"name":', headers={"content-type": "application/json"})
    refused(broken, 422, "not JSON", "character")
    latin = live.admin.post("/elders", data=b'{"name":"\xe9"}', headers={"content-type": "application/json"})
    refused(latin, 400, "UTF-8")


def test_a_watcher_from_the_future_is_not_left_in_silence(live: Live) -> None:
    """A Last-Event-ID the database has not given, for it was restored from a copy: the feed goes on from now."""
    elder = live.elder()
    with live.feed(live.admin, str(2**62)) as events:
        alarm = live.alarm(elder)
        heard = next(
            event for event in events if event.type == "alarm.raised" and event.data["alarm_id"] == alarm["id"]
        )
        assert int(heard.id) < 2**62


def test_head_answers_and_acts_on_nothing(live: Live) -> None:
    for path in ("/healthz", "/readyz"):
        head = live.anonymous.head(f"{live.base}{path}")
        assert (head.status_code, head.content) == (live.anonymous.get(f"{live.base}{path}").status_code, b"")
    elder = live.elder()
    live.contact(elder, "/headed")
    alarm = live.alarm(elder)
    link = live.receiver.first("/headed")["data"]["ack_url"]
    head = live.anonymous.head(link)
    assert (head.status_code, head.content) == (200, b"")
    assert live.admin.seen(f"/alarms/{alarm['id']}")["state"] == "open"
    assert json.loads(live.anonymous.get(f"{live.base}/openapi.json").text)["paths"]["/a/{token}"].keys() == {
        "get",
        "post",
    }


def test_a_visitor_who_promised_by_log_in_is_told_when_the_button_is_pressed_again(live: Live) -> None:
    village = live.village()
    elder = live.elder(village)
    visitor = live.visitor(village, name="张三", channels=[{"kind": "webhook", "address": live.receiver.url("/zhang")}])
    live.admin.made(f"/elders/{elder['id']}/visitors", visitor_id=visitor["id"], role="primary")
    live.contact(elder, "/zhang-family")
    name = f"zhang-{visitor['id'][-12:]}"
    account = {"username": name, "password": USER_PASSWORD, "role": "visitor", "region_code": village}
    live.admin.made("/users", **account, visitor_id=visitor["id"])
    alarm = live.alarm(elder)
    live.receiver.first("/zhang")
    answered = live.log_in(name, USER_PASSWORD).post(f"/alarms/{alarm['id']}/acknowledge", json={"eta_minutes": 10})
    assert answered.json()["acknowledged_by"] == {"type": "visitor", "id": visitor["id"], "name": "张三"}
    live.alarm(elder)
    told = live.soon(lambda: [b for p, _, b in live.receiver.taken if p == "/zhang" and b["type"] == "alarm.repeated"])
    assert told[0]["data"]["recipient"]["name"] == "张三"
    assert not [b for p, _, b in live.receiver.taken if p == "/zhang" and b["type"] == "alarm.acknowledged"]
    family = live.soon(
        lambda: [b for p, _, b in live.receiver.taken if p == "/zhang-family" and "acknowl" in b["type"]]
    )
    assert "张三正在赶来" in family[0]["data"]["reason"]
