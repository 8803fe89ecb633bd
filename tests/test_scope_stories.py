"""A stranger's ways around the wall: streams that stay open, answers asked for again, links, cursors, what is unique."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.test_api import NOBODY, refused

if TYPE_CHECKING:
    import requests

    from tests.live import Api, Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")


def alike(one: requests.Response, other: requests.Response) -> bool:
    """Nothing in two answers tells them apart."""
    varying = ("date", "x-request-id")
    first, second = ({n.lower(): v for n, v in a.headers.items() if n.lower() not in varying} for a in (one, other))
    return (one.status_code, first, one.content) == (other.status_code, second, other.content)


def unpair(live: Live, elder: dict[str, Any], api: Api) -> None:
    visitor = api.seen("/me")["visitor_id"]
    assert live.admin.delete(f"/elders/{elder['id']}/visitors/{visitor}").status_code == 204


def test_a_stream_follows_who_is_assigned(live: Live) -> None:
    """What is told of others never arrives; when the pairing ends, the open stream and its replay fall silent too."""
    village = live.village()
    mine, other = live.elder(village), live.elder(village)
    visitor = live.user("visitor", village, assigned=[mine])
    with live.feed(visitor) as events:
        live.alarm(other)
        alarm = live.alarm(mine)
        seen = next(events)
        assert (seen.type, seen.data["alarm_id"]) == ("alarm.raised", alarm["id"])
        live.admin.made(f"/alarms/{alarm['id']}/comments", text="已联系")
        assert next(e for e in events if e.type == "alarm.commented").data["alarm_id"] == alarm["id"]
        unpair(live, mine, visitor)
        live.admin.made(f"/alarms/{alarm['id']}/comments", text="又联系了")
        later = live.elder(village)
        live.admin.made(f"/elders/{later['id']}/visitors", visitor_id=visitor.seen("/me")["visitor_id"], role="primary")
        raised = live.alarm(later)
        rest = []
        while not rest or rest[-1].data["alarm_id"] != raised["id"]:
            rest.append(next(events))
        assert {e.data["alarm_id"] for e in rest} == {raised["id"]}
    with live.feed(visitor, "0") as events:
        assert next(events).data["alarm_id"] == raised["id"]


def test_an_answer_is_given_again_only_to_whom_it_could_be_given_now(live: Live) -> None:
    village = live.village()
    elder, moved = live.elder(village), live.elder(village)
    visitor = live.user("visitor", village, assigned=[elder])
    key = {"Idempotency-Key": uuid4().hex}
    found = {"kind": "hazard", "topic": "gas", "description": "软管老化"}
    path = f"/elders/{elder['id']}/findings"
    first = visitor.post(path, json=found, headers=key)
    again = visitor.post(path, json=found, headers=key)
    assert (first.status_code, again.headers["Idempotent-Replay"], again.json()) == (201, "true", first.json())
    visit = {"elder_id": elder["id"], "method": "phone", "started_at": "2026-01-05T08:00:00+08:00"}
    assert visitor.post("/visits", json=visit, headers=key | {"Idempotency-Key": "visit"}).status_code == 201
    unpair(live, elder, visitor)
    assert alike(visitor.post(path, json=found, headers=key), visitor.post(f"/elders/{NOBODY}/findings", json=found))
    refused(visitor.post(path, json=found, headers=key), 404, "no such elder")
    refused(visitor.post("/visits", json=visit, headers=key | {"Idempotency-Key": "visit"}), 422, "no such elder")
    assert len(live.rows("SELECT id FROM findings WHERE elder_id = $1", elder["id"])) == 1
    # The elder moves away from the one who asks; and the one who asks moves away from the elder.
    desk = live.user("operator", village)
    answers = {one["id"]: desk.post("/alarms", json={"elder_id": one["id"], "note": "x"}, headers={"Idempotency-Key": one["id"]})
               for one in (elder, moved)}  # fmt: skip
    assert {a.status_code for a in answers.values()} == {201}
    elsewhere = live.village("370302002000")
    assert live.admin.patch(f"/elders/{moved['id']}", json={"region_code": elsewhere}).status_code == 200
    for one, status in ((moved, 422), (elder, 201)):
        answer = desk.post("/alarms", json={"elder_id": one["id"], "note": "x"}, headers={"Idempotency-Key": one["id"]})
        assert answer.status_code == status, answer.text
    search, body = {"Idempotency-Key": uuid4().hex}, {"region_code": village, "purpose": "核对名册"}
    chief = live.user("supervisor", "370302001")
    assert chief.post("/elders/search", json=body, headers=search).status_code == 200
    live.admin.patch(f"/users/{chief.seen('/me')['id']}", json={"region_code": elsewhere})
    refused(chief.post("/elders/search", json=body, headers=search), 409, "other people")


def test_an_id_number_taken_elsewhere_is_said_as_at_home_and_noted(live: Live) -> None:
    village, elsewhere = live.village(), live.village("370302002000")
    here, there = live.id_number(), live.id_number()
    live.elder(village, id_number=here)
    live.elder(elsewhere, id_number=there)
    clerk = live.user("supervisor", village)
    body = {"name": "王桂英", "region_code": village}
    at_home, abroad = (clerk.post("/elders", json={**body, "id_number": number}) for number in (here, there))
    assert alike(at_home, abroad)
    refused(abroad, 409, "enrolled already")
    noted = live.admin.items("/audit-log", action="elder.enrolment_refused", actor=clerk.seen("/me")["id"])
    assert [row["region_code"] for row in noted] == [village, village]
    assert there not in str(noted)


def test_names_and_device_ids_taken_elsewhere_are_said_as_at_home(live: Live) -> None:
    village, elsewhere = live.village(), live.village("370302002000")
    admin = live.user("admin", village)
    for number, code in enumerate((village, elsewhere)):
        live.admin.made("/devices", device_id=f"{village}-{number}", kind="sos_button", region_code=code)
        live.admin.made("/users", username=f"u{village}-{number}", password="three-words-nobody-joins", role="operator",
                        region_code=code)  # fmt: skip
    device = {"kind": "sos_button", "region_code": village}
    assert alike(*(admin.post("/devices", json={**device, "device_id": f"{village}-{n}"}) for n in (0, 1)))
    user = {"password": "three-words-nobody-joins", "role": "operator", "region_code": village}
    assert alike(*(admin.post("/users", json={**user, "username": f"u{village}-{n}"}) for n in (0, 1)))
    refused(admin.put(f"/devices/{village}-1/binding", json={"elder_id": NOBODY}), 404)


def test_a_cursor_of_somebody_else_shows_only_ones_own(live: Live) -> None:
    village, elsewhere = live.village(), live.village("370302002000")
    mine = live.elder(village)
    for _ in range(2):
        live.elder(elsewhere)
    cursor = live.admin.seen("/elders", limit=1, region_code=elsewhere)["next_cursor"]
    assert cursor
    shown = live.user("operator", village).get("/elders", params={"cursor": cursor})
    assert shown.status_code == 200
    assert [e["id"] for e in shown.json()["items"]] == [mine["id"]]


def test_the_link_of_a_visitor_who_was_taken_off_opens_no_door(live: Live) -> None:
    """It shows an address in the clear: not to somebody whom the elder was taken from."""
    village = live.village()
    elder = live.elder(village, address="样板村三组12号")
    channels = [{"kind": "webhook", "address": live.receiver.url(f"/v-{elder['id']}")}]
    visitor = live.visitor(village, channels=channels)
    live.admin.made(f"/elders/{elder['id']}/visitors", visitor_id=visitor["id"], role="primary")
    live.alarm(elder)
    link = live.receiver.first(f"/v-{elder['id']}")["data"]["ack_url"]
    shown = live.anonymous.get(link, headers={"Accept": "application/json"})
    assert (shown.status_code, shown.json()["elder"]["address"]) == (200, "样板村三组12号")
    assert live.admin.delete(f"/elders/{elder['id']}/visitors/{visitor['id']}").status_code == 204
    for answer in (
        live.anonymous.get(link, headers={"Accept": "application/json"}),
        live.anonymous.post(link, json={"action": "acknowledge"}, headers={"Accept": "application/json"}),
    ):
        refused(answer, 410, "no longer")
