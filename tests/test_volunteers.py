"""Volunteers' hours and credit, training sessions, the station's log, the township's review. All people are invented."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_api import refused
from tests.world import TZ

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
HTML = {"Accept": "text/html"}


def met(
    live: Live, elder: dict[str, Any], visitor: dict[str, Any], start: datetime, minutes: int | None, **more: Any
) -> dict[str, Any]:
    end = None if minutes is None else (start + timedelta(minutes=minutes)).isoformat()
    return live.admin.made(
        "/visits", elder_id=elder["id"], visitor_id=visitor["id"], method="phone", started_at=start.isoformat(),
        ended_at=end, **more,
    )  # fmt: skip


def test_hours_and_a_statement_that_ends_with_its_entry(live: Live) -> None:
    village = live.village("370302002000")
    elders = [live.elder(village, name=f"赵奶奶{n}") for n in range(3)]
    student = live.visitor(village, name="学生小周", kind="student", organisation="淄川中学")
    friend = live.visitor(village, name="同学小吴", kind="student")
    now = datetime.now(TZ).replace(second=0, microsecond=0)
    base = now - timedelta(hours=30)
    first = met(live, elders[0], student, base, 60, partner_ids=[friend["id"]], services=["emotional_support"])
    met(live, elders[1], student, base + timedelta(minutes=30), 60)  # half of it at the same time: 90 minutes in all
    met(live, elders[2], student, base + timedelta(hours=3), None)
    met(live, elders[2], student, base + timedelta(hours=4), 10, outcome="no_answer")
    wrong = met(live, elders[2], student, base + timedelta(hours=5), 20)
    live.admin.post(f"/visits/{wrong['id']}/override", json={"qualifying": False, "reason": "查无此访"})
    hours = live.admin.items(f"/visitors/{student['id']}/hours")
    assert sum(one["visits"] for one in hours) == 3
    assert (sum(one["minutes"] for one in hours), sum(one["without_end"] for one in hours)) == (90, 1)
    assert sum(one["minutes"] for one in live.admin.items(f"/visitors/{friend['id']}/hours")) == 60  # came along
    month = f"{base:%Y-%m}"
    api = live.user("supervisor", village)
    listed = {one["visitor_id"]: one for one in api.items("/stats/visitors", region_code=village, month=month)}
    assert listed[student["id"]]["done"]["visits"] >= 2
    # Other regions see neither; a visitor's account sees its own, wherever its elders are now.
    stranger = live.user("supervisor", "370302001")
    refused(stranger.get(f"/visitors/{student['id']}/hours"), 404)
    name = f"stu-{village}"
    live.admin.made(
        "/users",
        username=name,
        password="a-long-password-7",
        role="visitor",
        region_code=village,
        visitor_id=student["id"],
    )
    own = live.log_in(name, "a-long-password-7")
    assert sum(one["minutes"] for one in own.items(f"/visitors/{student['id']}/hours")) == 90
    refused(own.get(f"/visitors/{friend['id']}/hours"), 404)

    span = {"from": (base - timedelta(days=2)).date().isoformat(), "to": now.date().isoformat()}
    refused(own.post(f"/visitors/{student['id']}/credit-statements", json=span), 403)
    made = api.made(f"/visitors/{student['id']}/credit-statements", **span)
    assert (made["visits"], made["minutes"], made["hours"], made["valid"]) == (3, 90, 1.5, True)
    assert [line["minutes"] for line in made["lines"]] == [60, 60, 0]
    for elder in elders:  # no elder can be told from it
        assert elder["id"] not in str(made)
        assert elder["name"] not in str(made)
    url = f"{live.base}{made['check_path']}"
    seen = live.anonymous.get(url).json()
    assert (seen["number"], seen["valid"], seen["holder"], seen["hours"]) == (made["number"], True, "学生小周", 1.5)
    assert "lines" not in seen
    page = live.anonymous.get(url, headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for words in ("志愿服务学分证明", made["number"], "淄川中学", "精神慰藉", "有效"):
        assert words in page.text
    refused(live.anonymous.get(f"/credit-statements/{made['number']}", params={"code": "WRONG222"}), 404)
    # A corrected note changes nothing; a voided entry ends the statement, in the same transaction and with its reason.
    live.admin.patch(f"/visits/{first['id']}", json={"note": "补充", "reason": "补充备注"})
    assert live.anonymous.get(url).json()["valid"]
    friends = api.made(f"/visitors/{friend['id']}/credit-statements", **span)
    assert live.admin.post(f"/visits/{first['id']}/void", json={"reason": "重复录入"}).status_code == 200
    after = live.anonymous.get(url).json()
    assert (after["valid"], f"{base:%Y-%m-%d}" in after["revoked_reason"]) == (False, True)
    assert not live.anonymous.get(f"{live.base}{friends['check_path']}").json()["valid"]
    assert "已撤销" in live.anonymous.get(url, headers=HTML).text
    assert live.rows(
        "SELECT 1 FROM audit_log WHERE action = 'credit_statement.revoked' AND subject_id = $1", made["id"]
    )
    again = api.made(f"/visitors/{student['id']}/credit-statements", **span)
    assert (again["visits"], again["minutes"]) == (2, 60)
    states = {one["number"]: one["valid"] for one in own.items(f"/visitors/{student['id']}/credit-statements")}
    assert states == {made["number"]: False, again["number"]: True}
    refused(api.post(f"/visitors/{friend['id']}/credit-statements", json=span), 422)  # nothing is left to state
    refused(api.post(f"/visitors/{student['id']}/credit-statements", json={**span, "to": "2199-01-01"}), 422)


def test_training_and_the_station_s_log(live: Live) -> None:
    village = live.village("370302002000")
    town = f"{village[:9]}000"
    helper = live.visitor(village)
    api, auditor, stranger = (
        live.user("supervisor", village[:9]),
        live.user("auditor", village[:9]),
        live.user("supervisor", "370302004"),  # nobody else's stories are there
    )
    today = datetime.now(TZ).date()
    meeting = {
        "region_code": town, "held_on": today.isoformat(), "place": "街道会议室", "topic": "冬季取暖安全", "in_charge": "张主任",
        "visitor_ids": [helper["id"]], "guests": 24, "review": "上一阶段月探访率96%",
    }  # fmt: skip
    made = api.made("/training-sessions", **meeting)
    assert (made["people"], made["review"]) == (25, "上一阶段月探访率96%")
    refused(auditor.post("/training-sessions", json=meeting), 403)
    refused(
        api.post("/training-sessions", json={**meeting, "held_on": (today + timedelta(days=2)).isoformat()}),
        422,
        "still to come",
    )
    refused(
        api.post("/training-sessions", json={**meeting, "visitor_ids": ["00000000-0000-7000-8000-00000000dead"]}),
        422,
        "no such visitor",
    )
    refused(stranger.post("/training-sessions", json=meeting), 422)
    changed = api.patch(f"/training-sessions/{made['id']}", json={"guests": 26}, headers={"If-Match": '"1"'})
    assert (changed.json()["people"], changed.headers["etag"]) == (27, '"2"')
    refused(api.patch(f"/training-sessions/{made['id']}", json={"guests": 26}, headers={"If-Match": '"1"'}), 412)
    refused(api.patch(f"/training-sessions/{made['id']}", json={"topic": None}), 422, "cannot be null")
    refused(stranger.patch(f"/training-sessions/{made['id']}", json={"guests": 1}), 404)
    line = {
        "region_code": village, "held_on": today.isoformat(), "place": "村幸福院", "kind": "recreation", "title": "重阳包饺子",
        "visitor_ids": [helper["id"]], "elders": 18,
    }  # fmt: skip
    logged = api.made("/station-activities", **line)
    refused(api.post("/station-activities", json={**line, "region_code": town}), 422)
    assert api.patch(f"/station-activities/{logged['id']}", json={"elders": 19}).json()["elders"] == 19
    assert [one["id"] for one in auditor.items("/station-activities", region_code=village)] == [logged["id"]]
    assert made["id"] in [one["id"] for one in auditor.items("/training-sessions")]
    assert stranger.items("/station-activities") == stranger.items("/training-sessions") == []
    assert len(live.rows("SELECT 1 FROM audit_log WHERE subject_id = ANY($1)", [made["id"], logged["id"]])) == 4


def test_the_township_s_review_names_no_elder(live: Live) -> None:
    village = live.village("370302002000")
    elder, waiting = live.elder(village, name="钱奶奶"), live.elder(village, name="孙爷爷")
    helper, along = live.visitor(village, name="李志愿"), live.visitor(village, name="王同行")
    now = datetime.now(TZ)
    visit = met(live, elder, helper, now - timedelta(hours=1), 30, partner_ids=[along["id"]])
    live.admin.post(f"/visits/{visit['id']}/override", json={"qualifying": True, "reason": "老人隔离"})
    live.admin.made(
        "/training-sessions", region_code=village, held_on=now.date().isoformat(), place="村委", topic="防诈骗",
        in_charge="王书记", review="上月三户漏访",
    )  # fmt: skip
    api = live.user("auditor", village)
    month = f"{now - timedelta(hours=1):%Y-%m}"
    seen = api.seen("/reports/township-review", region_code=village, **{"from": month, "to": month})
    assert (seen["from"], [one["enrolled"] for one in seen["months"]]) == (month, [2])
    assert [(one["region_code"], one["visited"]) for one in seen["villages"]] == [(village, 1)]
    assert seen["visits"]["qualifying"] == 1
    assert sorted((one["name"], one["visits"], one["minutes"]) for one in seen["visitors"]) == [
        ("李志愿", 1, 30), ("王同行", 1, 30)
    ]  # fmt: skip
    assert [one["review"] for one in seen["trainings"]] == ["上月三户漏访"]
    page = api.get("/reports/township-review", params={"region_code": village, "from": month}, headers=HTML)
    assert page.status_code == 200, page.text
    for words in ("探访关爱服务评议表", "50.0%", "李志愿", "上月三户漏访"):
        assert words in page.text
    for name in (elder["name"], waiting["name"], elder["id"]):
        assert name not in page.text
    refused(api.get("/reports/township-review", params={"region_code": "370302001"}), 422)
    refused(api.get("/reports/township-review", params={"region_code": village, "from": "2020-01"}), 422)
