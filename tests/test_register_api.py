"""The register and the classes as a front end meets them. All people are invented."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from tests.test_api import refused, walk

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
GONE = "00000000-0000-7000-8000-00000000dead"


def today() -> date:
    return datetime.now(UTC).astimezone(ZoneInfo("Asia/Shanghai")).date()


def test_all_fields_of_annex_1(live: Live) -> None:
    given: dict[str, Any] = {
        "phone": "13812345678", "address": "般阳路1号", "tags": ["living_alone", "empty_nest"], "other_tags": ["失独"],
        "ability": {"level": "mild", "assessed_on": "2026-03-01", "observed": "mobility_limited"},
        "disability_grade": 3, "dementia": False, "circumstances": ["hardship"],
        "services": ["daily_living", "recreation"], "service_notes": {"daily_living": "送餐"},
        "willing": True, "willing_asked_on": "2026-05-01", "surveyed_on": "2026-05-01", "remarks": "子女在外",
    }  # fmt: skip
    elder = live.elder(id_number=live.id_number("19600101"), **given)
    for name, value in given.items():
        if name not in ("phone", "address"):
            assert elder[name] == value, name
    assert (elder["status"], elder["status_reason"]) == ("active", None)
    # What was observed stays beside what was assessed, and the assessment decides.
    assert (elder["care_level"], [r["clause"] for r in elder["care_level_reasons"]]) == ("general", ["二（一）3"])
    assert elder["policy_version"] == "川民〔2023〕100号"
    path = f"/elders/{elder['id']}"
    changed = live.admin.patch(path, json={"willing": None, "remarks": None, "circumstances": []}).json()
    assert (changed["willing"], changed["remarks"], changed["circumstances"]) == (None, None, [])
    refused(live.admin.patch(path, json={"circumstances": None}), 422, "null")
    refused(live.admin.patch(path, json={"service_notes": {"cooking": "x"}}), 422)
    refused(live.admin.patch(path, json={"surveyed_on": "2199-01-01"}), 422, "future")


def test_assessments_have_a_history_and_bands_are_data(live: Live) -> None:
    elder = live.elder(id_number=live.id_number("19600101"))
    path = f"/elders/{elder['id']}"
    assert elder["care_level"] == "undetermined"
    made = live.admin.made(f"{path}/assessments", assessed_on="2026-03-01", score=41, assessor="张评估")
    assert (made["level"], made["scale"], made["score"], made["assessor"]) == (
        "severe",
        "GB/T 42195-2022",
        41,
        "张评估",
    )
    assert live.admin.seen(path)["care_level"] == "key"
    older = live.admin.made(f"{path}/assessments", assessed_on="2025-01-10", level="moderate")
    assert live.admin.seen(path)["ability"]["level"] == "severe"
    assert [a["id"] for a in live.admin.items(f"{path}/assessments")] == [older["id"], made["id"]]
    assert walk(live.admin, f"{path}/assessments", 1) == live.admin.items(f"{path}/assessments")

    def assess(**body: Any) -> Any:
        return live.admin.post(f"{path}/assessments", json={"assessed_on": "2026-04-01", **body})

    refused(assess(score=41, level="mild"), 422, "severe")
    refused(assess(score=91), 422, "0 to 90")
    refused(assess(score=41, scale="无此量表"), 422, "ability-scales")
    refused(assess(), 422, "level")
    refused(assess(level="mild", assessed_on="2199-01-01"), 422, "future")
    gone = f"{path}/assessments/{made['id']}/withdraw"
    assert live.admin.post(gone, json={"reason": "填错了人"}).json()["withdrawn_reason"] == "填错了人"
    refused(live.admin.post(gone, json={"reason": "再来"}), 409)
    refused(live.admin.post(f"{path}/assessments/{GONE}/withdraw", json={"reason": "x"}), 404)
    assert live.admin.seen(path)["care_level"] == "secondary"
    scale = f"量表{elder['id'][-6:]}"
    bands = [{"level": level, "from": n * 10, "to": n * 10 + 9} for n, level in
             enumerate(("complete", "severe", "moderate", "mild", "intact"))]  # fmt: skip
    live.admin.made("/ability-scales", name=scale, bands=bands)
    assert scale in {s["name"] for s in live.admin.items("/ability-scales", limit=200)}
    assert assess(score=41, scale=scale).json()["level"] == "intact"
    refused(live.admin.post("/ability-scales", json={"name": scale, "bands": bands}), 409)
    for wrong in ([*bands[:4], bands[0]], [*bands[:4], {"level": "intact", "from": 45, "to": 49}]):
        refused(live.admin.post("/ability-scales", json={"name": scale + "b", "bands": wrong}), 422)
    refused(live.user("supervisor", "370302").post("/ability-scales", json={"name": "x", "bands": bands}), 403)


def test_setting_the_level_in_the_elder_is_an_assessment_too(live: Live) -> None:
    elder = live.elder(id_number=live.id_number("19600101"), ability={"level": "moderate", "assessed_on": "2026-03-01"})
    path = f"/elders/{elder['id']}"
    live.admin.patch(path, json={"ability": {"level": "severe"}})
    assert [(a["level"], a["assessed_on"]) for a in live.admin.items(f"{path}/assessments")] == [
        ("severe", today().isoformat()), ("moderate", "2026-03-01"),
    ]  # fmt: skip
    unassessed = live.admin.patch(path, json={"ability": {"level": None, "observed": "independent"}}).json()
    assert unassessed["ability"] == {"level": None, "assessed_on": None, "observed": "independent"}
    assert unassessed["care_level"] == "general"
    assert all(a["withdrawn_at"] for a in live.admin.items(f"{path}/assessments"))


def test_statuses_with_dates_and_evidence(live: Live) -> None:
    elder = live.elder()
    path = f"/elders/{elder['id']}"
    made = live.admin.made(
        f"{path}/statuses", status="paused", reason="in_hospital", since="2026-01-05", evidence="入院通知单"
    )
    assert made["effects"] == {
        "alarms": "with_a_note", "visits_due": False, "counting": "excluded_with_evidence", "collect_devices": False,
    }  # fmt: skip
    shown = live.admin.seen(path)
    assert [shown[n] for n in ("status", "status_reason", "status_since", "status_evidenced")] == [
        "paused", "in_hospital", "2026-01-05", True,
    ]  # fmt: skip
    live.admin.made(f"{path}/statuses", status="active")
    assert live.admin.seen(path)["status_reason"] is None
    changed = live.admin.patch(path, json={"status": "deceased"}).json()
    assert (changed["status_reason"], changed["status_evidenced"]) == ("deceased", False)
    assert [s["status"] for s in live.admin.items(f"{path}/statuses")] == ["deceased", "active", "paused"]
    tomorrow = (today() + timedelta(days=1)).isoformat()
    for wrong, words in (
        ({"status": "active", "reason": "away"}, "no reason"), ({"status": "paused", "since": tomorrow}, "future"),
        ({"status": "deceased", "until": "2199-01-01"}, "pause"),
        ({"status": "paused", "since": "2026-01-02", "until": "2026-01-01"}, "before"),
        ({"status": "asleep"}, "active"),
    ):  # fmt: skip
        refused(live.admin.post(f"{path}/statuses", json=wrong), 422, words)
    meanings = live.admin.items("/elder-statuses")
    assert all(m["alarms"] in ("as_usual", "with_a_note") for m in meanings)
    assert {m["reason"] for m in meanings} >= {"in_hospital", "in_institution", "away", "refused", "moved", "deceased"}


def test_family_is_not_the_emergency_contacts(live: Live) -> None:
    elder = live.elder()
    path = f"/elders/{elder['id']}/family"
    made = live.admin.made(path, name="王小明", relation="儿子", phone="13987654321", supporter=True, lives_away=True)
    assert (made["supporter"], made["lives_away"], made["lives_with"]) == (True, True, False)
    assert "1398765" not in json.dumps(made)
    assert live.admin.items(path) == [made]
    assert live.admin.items(f"/elders/{elder['id']}/contacts") == []
    assert live.admin.items(path, reveal="true", purpose="核对")[0]["phone"] == "+8613987654321"
    assert live.rows("SELECT 1 FROM audit_log WHERE subject_id = $1 AND action = 'family.revealed'", elder["id"])
    changed = live.admin.patch(
        f"{path}/{made['id']}", json={"lives_with": True, "phone": None}, headers={"If-Match": '"1"'}
    )
    assert (changed.json()["lives_with"], changed.json()["phone"]) == (True, None)
    refused(live.admin.patch(f"{path}/{made['id']}", json={"lives_with": False}, headers={"If-Match": '"1"'}), 412)
    refused(live.admin.patch(f"{path}/{made['id']}", json={"name": None}), 422, "null")
    other = live.elder()
    refused(live.admin.patch(f"/elders/{other['id']}/family/{made['id']}", json={"name": "x"}), 404)
    assert live.admin.delete(f"{path}/{made['id']}").status_code == 204
    assert live.admin.items(path) == []


def test_finding_people_by_name_sound_phone_and_id_number(live: Live) -> None:
    village, number = live.village(), live.id_number("19410101")
    elder = live.elder(village, name="单桂英", id_number=number, phone="13812340917")
    live.elder(village, name="王桂英", phone="13812340918")

    def found(**query: Any) -> list[str]:
        return [e["name"] for e in live.admin.items("/elders", region_code=village, **query)]

    assert found(name="桂英") == ["王桂英", "单桂英"]
    for text in ("sgy", "SGY", "dgy", "shanguiying", "shan gui"):
        assert found(name=text) == ["单桂英"]
    assert found(name="gy") == []  # initials from the beginning
    assert found(phone_tail="0917", purpose="来电核对") == ["单桂英"]
    assert found(care_level="key", status="active") == ["王桂英", "单桂英"]
    search = live.admin.post("/elders/search", json={"id_number": number.lower(), "purpose": "单桂英来电核对"}).json()
    assert [e["id"] for e in search["items"]] == [elder["id"]]
    by_tail = {"phone_tail": "0917", "region_code": village, "purpose": "来电核对"}
    tails = live.admin.post("/elders/search", json=by_tail).json()["items"]
    assert [e["id"] for e in tails] == [elder["id"]]
    assert number not in json.dumps(search)
    for row in live.rows("SELECT detail::text AS detail FROM audit_log WHERE action = 'elder.searched'"):
        assert number not in row["detail"]
        assert "0917" not in row["detail"]
        assert "单桂英" not in row["detail"]
    for role in ("operator", "visitor", "auditor"):
        api = live.user(role, village, assigned=[elder])
        refused(api.post("/elders/search", json={"id_number": number}), 403)
        refused(api.post("/elders/search", json={"phone_tail": "0917"}), 403)
        refused(api.get("/elders", params={"phone_tail": "0917"}), 403)
        assert [e["name"] for e in api.items("/elders", name="sgy")] == ["单桂英"]
    elsewhere = live.user("supervisor", live.village("370302002000"))
    assert elsewhere.post("/elders/search", json={"id_number": number, "purpose": "来电核对"}).json()["items"] == []
    assert elsewhere.items("/elders", phone_tail="0917", purpose="来电核对") == []
    refused(live.admin.post("/elders/search", json={"purpose": "来电核对"}), 422, "search by")
    refused(live.admin.post("/elders/search", json={"id_number": number[:-1] + "?", "purpose": "来电核对"}), 422)
    refused(live.admin.get("/elders", params={"phone_tail": "12"}), 422)


def test_a_move_between_villages_keeps_its_history(live: Live) -> None:
    old, new = live.village(), live.village()
    elder = live.elder(old)
    path = f"/elders/{elder['id']}"
    refused(live.admin.patch(path, json={"moved_on": "2026-01-01"}), 422, "region_code")
    refused(live.admin.patch(path, json={"region_code": new, "moved_on": "2026-01-01"}), 422, "since")
    assert live.admin.patch(path, json={"region_code": new}).status_code == 200
    assert next((r["region_code"], r["until"]) for r in live.admin.items(f"{path}/residences")) == (new, None)
    assert [r["region_code"] for r in live.admin.items(f"{path}/residences")] == [new, old]  # also within one day
    kinds = {entry["kind"] for entry in live.admin.items(f"{path}/timeline")}
    assert {"move", "classification"} <= kinds


# --- classes ---------------------------------------------------------------------------------------------------------


def test_the_class_as_of_any_day(live: Live) -> None:
    birthday = today() + timedelta(days=40)
    born = f"{birthday.year - 80}{birthday:%m%d}"
    elder = live.elder(id_number=live.id_number(born), ability={"observed": "independent"})
    path = f"/elders/{elder['id']}/classification"
    now = live.admin.seen(path)
    assert (now["as_of"], now["care_level"], now["inputs"]["age"]) == (today().isoformat(), "general", 79)
    later = live.admin.seen(path, as_of=birthday.isoformat())
    assert (later["care_level"], later["reasons"][0]["clause"], later["inputs"]["age"]) == ("key", "二（一）1", 80)
    assert live.admin.seen(path, as_of=(birthday - timedelta(days=1)).isoformat())["care_level"] == "general"
    live.admin.patch(f"/elders/{elder['id']}", json={"dementia": True})
    assert live.admin.seen(path)["care_level"] == "key"
    changed = live.admin.items(path + "/changes")
    assert [(c["care_level"], c["cause"]) for c in changed] == [("key", "changed"), ("general", "enrolled")]
    assert walk(live.admin, path + "/changes", 1) == changed
    refused(live.admin.get(path, params={"as_of": "1900-01-01"}), 422, "birth")
    refused(live.admin.get(f"/elders/{GONE}/classification"), 404)
    refused(live.user("supervisor", "370302002").get(path), 404)


def test_undetermined_people_are_work_to_do(live: Live) -> None:
    village = live.village()
    unknown = live.elder(village, id_number=live.id_number("19600101"))
    aged = live.elder(village)  # key by age, and nobody looked yet
    seen = live.elder(village, ability={"observed": "independent"})
    gone = live.elder(village, status="deceased")
    work = live.admin.items("/classification/undetermined", region_code=village)
    assert [w["elder_id"] for w in work] == [aged["id"], unknown["id"]]
    assert work[0]["missing"] == ["assessment", "observation"]
    assert [e["id"] for e in live.admin.items("/elders", region_code=village, care_level="undetermined")] == [
        unknown["id"]
    ]
    assert {seen["id"], gone["id"]}.isdisjoint(w["elder_id"] for w in work)
    live.admin.made(f"/elders/{aged['id']}/assessments", assessed_on="2026-01-01", level="mild")
    assert len(live.admin.items("/classification/undetermined", region_code=village)) == 1


def test_a_changed_policy_is_tried_before_it_is_put_in_force(live: Live) -> None:
    village = live.village("370302114000")
    movers = [
        live.elder(village, id_number=live.id_number("19500101"), ability={"observed": "independent"}) for _ in "123"
    ]
    live.elder(village, id_number=live.id_number("19650101"), ability={"observed": "independent"})
    draft = live.admin.made(
        "/care-policies", version=f"试行{village}", region_code="370302114000", classification={"key_age": 75}
    )
    assert (draft["in_force_from"], draft["region_code"], draft["classification"]["dementia"]) == (
        None,
        "370302114",
        "key",
    )
    run = live.admin.post(
        "/classification/dry-run?limit=2", json={"policy_id": draft["id"], "region_code": village}
    ).json()
    assert (run["looked_at"], run["would_move"]) == (4, 3)
    assert run["moves"] == [{"from": "general", "to": "key", "elders": 3}]
    rest = live.admin.post(
        f"/classification/dry-run?limit=2&cursor={run['next_cursor']}",
        json={"policy_id": draft["id"], "region_code": village},
    ).json()
    assert {i["elder_id"] for i in (*run["items"], *rest["items"])} == {e["id"] for e in movers}
    assert rest["next_cursor"] is None
    assert (run["items"][0]["from"], run["items"][0]["to"]) == ("general", "key")
    assert run["items"][0]["reasons"][0]["clause"] == "二（一）1"
    assert live.admin.seen(f"/elders/{movers[0]['id']}")["care_level"] == "general"  # nothing was written
    path = f"/care-policies/{draft['id']}"
    refused(live.admin.post(f"{path}/in-force", json={"from": "2026-01-01"}), 422, "today or later")
    local = live.user("supervisor", village)
    assert local.seen(path)["id"] == draft["id"]  # it holds for them
    refused(local.post(f"{path}/in-force", json={"from": today().isoformat()}), 403)
    refused(live.user("supervisor", "370302002").get(path), 404)
    in_force = live.admin.post(f"{path}/in-force", json={"from": today().isoformat()})
    assert in_force.json()["in_force_from"] == today().isoformat()
    refused(live.admin.post(f"{path}/in-force", json={"from": today().isoformat()}), 409)
    shown = live.admin.seen(f"/elders/{movers[0]['id']}")
    assert (shown["care_level"], shown["policy_version"]) == ("key", f"试行{village}")
    refused(live.admin.post("/care-policies", json={"version": f"试行{village}", "region_code": "370302114"}), 422)
    refused(live.admin.post("/care-policies", json={"version": f"试行{village}", "region_code": "370302114",
                                                    "visits": {}}), 409)  # fmt: skip
    wrong = {"levels": {"intact": "key"}}
    refused(live.admin.post("/classification/dry-run", json={"region_code": village, "classification": wrong}), 422)
    refused(live.admin.post("/classification/dry-run", json={"region_code": village}), 422, "nothing to try")
    town = live.user("supervisor", "370302114")
    refused(town.post("/classification/dry-run", json={"region_code": "370302", "classification": {}}), 422, "outside")


def test_nobody_beyond_the_region_reads_or_writes_a_record(live: Live) -> None:
    elder = live.elder(live.village("370302002000"))
    path = f"/elders/{elder['id']}"
    made = live.admin.made(f"{path}/assessments", assessed_on="2026-01-01", level="mild")
    consent = live.admin.made(f"{path}/consents", scope="data", given_by="elder", given_on="2026-01-01")
    member = live.admin.made(f"{path}/family", name="王小明", relation="儿子")
    api = live.user("admin", "370302001")
    absent = api.get(f"/elders/{GONE}").json()
    for leaf in ("assessments", "statuses", "residences", "family", "consents", "classification", "visit-rules",
                 "classification/changes", "timeline"):  # fmt: skip
        assert refused(api.get(f"{path}/{leaf}"), 404) == absent
    for method, leaf, body in (
        ("POST", "assessments", {"assessed_on": "2026-01-01", "level": "mild"}),
        ("POST", f"assessments/{made['id']}/withdraw", {"reason": "x"}),
        ("POST", "statuses", {"status": "deceased"}), ("POST", "family", {"name": "x", "relation": "y"}),
        ("PATCH", f"family/{member['id']}", {"name": "x"}), ("DELETE", f"family/{member['id']}", None),
        ("POST", "consents", {"scope": "data", "given_by": "elder", "given_on": "2026-01-01"}),
        ("PATCH", f"consents/{consent['id']}", {"withdrawn_on": "2026-01-02"}),
        ("POST", "findings", {"kind": "hazard", "topic": "gas", "description": "x"}),
    ):  # fmt: skip
        assert refused(api.request(method, f"{path}/{leaf}", json=body), 404) == absent
    for listed in ("/classification/undetermined", "/visits/due", "/findings"):
        assert elder["id"] not in json.dumps(walk(api, listed, 200))


@pytest.mark.parametrize("role", ["visitor", "operator", "auditor"])
def test_records_are_changed_by_right(live: Live, role: str) -> None:
    elder = live.elder()
    path = f"/elders/{elder['id']}"
    api = live.user(role, elder["region_code"], assigned=[elder])
    for leaf, body in (
        ("assessments", {"assessed_on": "2026-01-01", "level": "mild"}), ("statuses", {"status": "deceased"}),
        ("family", {"name": "x", "relation": "y"}),
    ):  # fmt: skip
        refused(api.post(f"{path}/{leaf}", json=body), 403)
        assert api.get(f"{path}/{leaf}").status_code == 200
    refused(api.get(f"{path}/family", params={"reveal": "true"}), 403)
    refused(api.post("/care-policies", json={"version": "x", "region_code": elder["region_code"], "visits": {}}), 403)
    refused(api.post("/classification/dry-run", json={"region_code": elder["region_code"], "classification": {}}), 403)
    consent = {"scope": "visit", "given_by": "elder", "given_on": "2026-01-01"}
    assert api.post(f"{path}/consents", json=consent).status_code == (403 if role == "auditor" else 201)
    finding = {"kind": "hazard", "topic": "gas", "description": "软管老化"}
    assert api.post(f"{path}/findings", json=finding).status_code == (403 if role == "auditor" else 201)
