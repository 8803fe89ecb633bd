"""/webhooks as a front end meets it, against a running server. All people are invented."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import jsonschema
import pytest
from standardwebhooks import Webhook as Verifier

from app.notify.vocabulary import DigestKind
from app.webhooks.vocabulary import EventType

if TYPE_CHECKING:
    from tests.live import Api, Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
NOBODY = "00000000-0000-7000-8000-00000000dead"


def path() -> str:
    """A receiver's path of one's own."""
    return f"/hook-{uuid4().hex[:10]}"


def subscribe(live: Live, to: str, api: Api | None = None, **fields: Any) -> dict[str, Any]:
    return (api or live.admin).made("/webhooks", url=live.receiver.url(to), **fields)


def taken(live: Live, to: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
    return [(headers, body) for where, headers, body in live.receiver.taken if where == to]


def test_from_the_alarm_to_the_front_end_in_well_under_a_second(live: Live) -> None:
    elder = live.elder()
    to = path()
    made = subscribe(live, to, region_code=elder["region_code"], event_types=["alarm.raised"])
    began = time.monotonic()
    alarm = live.alarm(elder)
    live.soon(lambda: taken(live, to))
    assert time.monotonic() - began < 1
    ((headers, body),) = taken(live, to)
    assert body["data"]["alarm"]["id"] == alarm["id"]
    assert body["data"]["alarm"]["elder"] == alarm["elder"]  # masked alike
    raw = next(raw for where, raw in live.receiver.raw if where == to)
    Verifier(made["secret"]).verify(raw, headers)
    (line,) = live.soon(lambda: live.admin.items(f"/webhooks/{made['id']}/deliveries", state="delivered"))
    assert (line["id"], line["event_type"], line["http_status"]) == (headers["webhook-id"], "alarm.raised", 200)
    assert (line["attempts"], line["error"], line["alarm_id"]) == (1, None, alarm["id"])


def test_a_subscription_is_made_seen_changed_and_ended(live: Live) -> None:
    village = live.village()
    made = subscribe(live, path(), region_code=village, description="大屏")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{32}", made.pop("secret"))
    one = f"/webhooks/{made['id']}"
    answer = live.admin.get(one)
    assert answer.json() == made
    assert "secret" not in answer.text.replace("previous_secret_until", "")
    assert made["event_types"] is None
    assert made["active"] is True
    assert made["owner"]["name"] == "admin"
    assert made["id"] in {row["id"] for row in live.admin.items("/webhooks", limit=200)}
    etag = {"If-Match": answer.headers["etag"]}
    changed = live.admin.patch(
        one, json={"event_types": ["alarm.raised", "alarm.raised"], "active": False}, headers=etag
    )
    assert (changed.status_code, changed.json()["event_types"]) == (200, ["alarm.raised"])
    assert changed.json()["paused_reason"] == "by_hand"
    assert changed.json()["paused_because"]
    assert live.admin.patch(one, json={"description": "x"}, headers=etag).status_code == 412
    assert made["id"] in {row["id"] for row in live.admin.items("/webhooks", limit=200, active="false")}
    assert made["id"] not in {row["id"] for row in live.admin.items("/webhooks", limit=200, active="true")}
    assert live.admin.post(f"{one}/test").status_code == 409
    assert live.admin.post(f"{one}/resend-failed").status_code == 409
    assert live.admin.patch(one, json={"active": True}).json()["paused_at"] is None
    for wrong in ({"url": None}, {"active": None}, {"event_types": []}, {"url": "ftp://x"}, {"region_code": "370302"}):
        assert live.admin.patch(one, json=wrong).status_code == 422, wrong
    assert live.admin.delete(one).status_code == 204
    assert live.admin.get(one).status_code == live.admin.delete(one).status_code == 404
    noted = live.rows("SELECT action FROM audit_log WHERE subject_id = $1 ORDER BY id", made["id"])
    assert [row["action"] for row in noted] == [
        "webhook.created", "webhook.changed", "webhook.changed", "webhook.deleted",
    ]  # fmt: skip


def test_an_unknown_event_type_is_refused_with_the_known_ones(live: Live) -> None:
    answer = live.admin.post("/webhooks", json={"url": live.receiver.url("/x"), "event_types": ["alarm.exploded"]})
    assert answer.status_code == 422
    for event in EventType:
        assert event.value in answer.json()["detail"]


def test_a_foreign_subscription_is_as_absent(live: Live) -> None:
    theirs = subscribe(live, path(), region_code=live.village("370302002000"))
    elsewhere = live.user("supervisor", "370302001")
    line = live.admin.post(f"/webhooks/{theirs['id']}/test").json()
    for method, tail in (
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test"),
        ("POST", "/resend-failed"), ("GET", "/deliveries"), ("GET", f"/deliveries/{line['id']}"),
        ("POST", f"/deliveries/{line['id']}/resend"),
    ):  # fmt: skip
        options = {"json": {"description": "x"}} if method == "PATCH" else {}
        foreign = elsewhere.request(method, f"/webhooks/{theirs['id']}{tail}", **options)
        absent = elsewhere.request(method, f"/webhooks/{NOBODY}{tail}", **options)
        assert foreign.status_code == absent.status_code == 404, (method, tail)
        assert foreign.json() == absent.json()
    assert theirs["id"] not in {one["id"] for one in elsewhere.items("/webhooks")}
    own = subscribe(live, path(), elsewhere)
    assert own["region_code"] == "370302001"
    mixed = elsewhere.get(f"/webhooks/{own['id']}/deliveries/{line['id']}")  # another's line through one's own
    assert mixed.status_code == 404
    for region in ("370302", "370302002", "370302999", ""):
        refused = elsewhere.post("/webhooks", json={"url": live.receiver.url("/x"), "region_code": region})
        assert (refused.status_code, refused.json()["detail"]) == (422, "no such region within your own")


@pytest.mark.parametrize("role", ["operator", "visitor", "auditor"])
def test_managing_webhooks_is_a_right(live: Live, role: str) -> None:
    village = live.village()
    made = subscribe(live, path(), region_code=village)
    api = live.user(role, village)
    assert api.get("/webhooks").status_code == 403
    assert api.get(f"/webhooks/{made['id']}").status_code == 403
    assert api.post("/webhooks", json={"url": live.receiver.url("/x")}).status_code == 403


def test_a_test_message_and_its_line_in_the_log(live: Live) -> None:
    to = path()
    made = subscribe(live, to, region_code=live.village())
    asked = live.admin.post(f"/webhooks/{made['id']}/test")
    assert asked.status_code == 202
    line = asked.json()
    assert (line["event_type"], line["state"]) == ("webhook.test", "pending")
    live.soon(lambda: taken(live, to))
    one = f"/webhooks/{made['id']}/deliveries/{line['id']}"
    live.soon(lambda: live.admin.seen(one)["state"] == "delivered")
    ((headers, body),) = taken(live, to)
    assert headers["webhook-id"] == line["id"]
    assert body == live.admin.seen(one)["payload"]
    again = live.admin.post(f"{one}/resend")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    live.soon(lambda: len(taken(live, to)) == 2)
    assert [headers["webhook-id"] for headers, _ in taken(live, to)] == [line["id"]] * 2


def test_what_fails_is_in_the_log_and_is_sent_again_when_asked(live: Live) -> None:
    elder = live.elder()
    to = "/broken" + path()
    made = subscribe(live, to, region_code=elder["region_code"], event_types=["alarm.raised", "alarm.resolved"])
    alarm = live.alarm(elder)
    log = f"/webhooks/{made['id']}/deliveries"
    (line,) = live.soon(
        lambda: [row for row in live.admin.items(log) if row["attempts"] == 1 and row["next_attempt_at"]]
    )
    assert (line["state"], line["http_status"], line["error"]) == ("pending", 500, "status 500")
    assert live.admin.seen(f"/webhooks/{made['id']}")["failing_since"]
    detail = live.admin.seen(f"{log}/{line['id']}")
    assert detail["payload"]["data"]["alarm"]["id"] == alarm["id"]
    assert live.receiver.url("") not in str(live.admin.seen(log))
    live.admin.patch(f"/webhooks/{made['id']}", json={"active": False})
    assert live.admin.items(log, state="held")[0]["id"] == line["id"]
    mended = path()
    live.admin.patch(f"/webhooks/{made['id']}", json={"active": True, "url": live.receiver.url(mended)})
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    none = live.admin.post(f"/webhooks/{made['id']}/resend-failed", params={"since": tomorrow})
    assert none.json() == {"queued": 0}
    assert live.admin.post(f"/webhooks/{made['id']}/resend-failed").json() == {"queued": 1}
    live.soon(lambda: taken(live, mended))
    assert taken(live, mended)[0][0]["webhook-id"] == line["id"]
    assert live.admin.get(f"/webhooks/{made['id']}/resend-failed", params={"since": "soon"}).status_code in (405, 422)
    assert live.admin.post(f"/webhooks/{made['id']}/resend-failed", params={"since": "soon"}).status_code == 422


def test_the_log_has_pages_and_filters(live: Live) -> None:
    made = subscribe(live, path(), region_code=live.village())
    asked = [live.admin.post(f"/webhooks/{made['id']}/test").json()["id"] for _ in range(5)]
    log = f"/webhooks/{made['id']}/deliveries"
    walked, cursor = [], None
    while True:
        page = live.admin.seen(log, limit=2, **({"cursor": cursor} if cursor else {}))
        walked += [row["id"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert walked == asked[::-1]
    assert len(live.admin.items(log, event_type="webhook.test")) == 5
    assert live.admin.items(log, event_type="alarm.raised") == live.admin.items(log, state="withdrawn") == []
    assert live.admin.get(log, params={"state": "lost"}).status_code == 422


def test_a_secret_is_rotated_and_shown_once(live: Live) -> None:
    to = path()
    made = subscribe(live, to, region_code=live.village())
    answer = live.admin.post(f"/webhooks/{made['id']}/rotate-secret")
    assert answer.status_code == 200
    new = answer.json()["secret"]
    until = datetime.fromisoformat(answer.json()["previous_secret_until"])
    assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(days=1)
    assert new not in live.admin.get(f"/webhooks/{made['id']}").text
    live.admin.post(f"/webhooks/{made['id']}/test")
    live.soon(lambda: taken(live, to))
    ((headers, _),) = taken(live, to)
    raw = next(raw for where, raw in live.receiver.raw if where == to)
    for secret in (made["secret"], new):
        Verifier(secret).verify(raw, headers)
    ended = live.admin.post(f"/webhooks/{made['id']}/rotate-secret", json={"overlap_s": 0})
    assert ended.json()["previous_secret_until"] is None
    assert live.admin.post(f"/webhooks/{made['id']}/rotate-secret", json={"overlap_s": -1}).status_code == 422


def test_a_replayed_answer_keeps_the_secret_sealed(live: Live) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    body = {"url": live.receiver.url(path()), "region_code": live.village()}
    first = live.admin.post("/webhooks", json=body, headers=key)
    again = live.admin.post("/webhooks", json=body, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replay"] == "true"
    secret = first.json()["secret"]
    key = {"Idempotency-Key": uuid4().hex}
    rotated = live.admin.post(f"/webhooks/{first.json()['id']}/rotate-secret", headers=key).json()["secret"]
    assert live.admin.post(f"/webhooks/{first.json()['id']}/rotate-secret", headers=key).json()["secret"] == rotated
    for table in ("idempotent_answers", "webhook_subscriptions", "audit_log"):
        for (row,) in live.rows(f"SELECT t::text FROM {table} t"):
            for canary in (secret, rotated, body["url"]):
                assert canary not in row
                assert canary.encode().hex() not in row
    assert secret not in live.log.read_text()


def test_the_document_describes_what_is_sent(live: Live) -> None:
    document = live.anonymous.get(f"{live.base}/openapi.json").json()
    described = document["webhooks"]
    to_channels = {"alarm", *(kind.value for kind in DigestKind)}
    assert {event.value for event in EventType} | {"webhook.test"} | to_channels == set(described)
    elder = live.elder()
    to = path()
    made = subscribe(live, to, region_code=elder["region_code"])
    alarm = live.alarm(elder)
    live.admin.post(f"/alarms/{alarm['id']}/comments", json={"text": "已联系"})
    live.admin.post(f"/alarms/{alarm['id']}/resolve", json={"outcome": "test"})
    live.admin.post(f"/webhooks/{made['id']}/test")
    wanted = {"alarm.raised", "alarm.commented", "alarm.resolved", "webhook.test"}
    live.soon(lambda: wanted <= {body["type"] for _, body in taken(live, to)})
    for headers, body in taken(live, to):
        operation = described[body["type"]]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(body)
        assert {p["name"] for p in operation["parameters"]} <= set(headers)


def test_deliveries_are_measured(live: Live) -> None:
    to = path()
    made = subscribe(live, to, region_code=live.village())
    live.admin.post(f"/webhooks/{made['id']}/test")
    live.soon(lambda: 'shouwang_webhook_deliveries_total{state="delivered"}' in live.anonymous.get(
        f"{live.base}/metrics").text)  # fmt: skip
