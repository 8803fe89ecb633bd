"""The ledger of visits as a front end meets it. All people are invented."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from app.db import transaction
from app.elders import register
from app.elders.tables import ConsentEntry
from app.elders.vocabulary import ConsentGiver, ConsentScope
from app.visits import ledger
from app.visits.ledger import Deed
from app.visits.tables import Finding, FindingStep
from app.visits.vocabulary import FindingKind, Method, Stage, Topic, VisitOutcome
from tests.test_api import refused, walk
from tests.world import ADMIN, OTHER_VILLAGE, TZ, VILLAGE, Person, World

if TYPE_CHECKING:
    import requests

    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
LOCAL = ZoneInfo("Asia/Shanghai")
GONE = "00000000-0000-7000-8000-00000000dead"


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def local_day(hours: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).astimezone(LOCAL).date().isoformat()


def healthy(live: Live, village: str | None = None) -> dict[str, Any]:
    return live.elder(
        village, id_number=live.id_number("19600101"), ability={"level": "intact", "assessed_on": "2020-01-01"}
    )


def consented(live: Live, village: str | None = None) -> dict[str, Any]:
    elder = healthy(live, village)
    live.admin.made(f"/elders/{elder['id']}/consents", scope="home_visit", given_by="elder", given_on="2020-01-01")
    return elder


def visit(live: Live, elder: dict[str, Any], hours: float = 1, **fields: Any) -> dict[str, Any]:
    return live.admin.made("/visits", elder_id=elder["id"], **{"method": "home", "started_at": ago(hours), **fields})


# --- what counts -----------------------------------------------------------------------------------------------------


def test_the_method_follows_ability_and_a_supervisor_may_decide_otherwise(live: Live) -> None:
    elder = live.elder(ability={"level": "severe", "assessed_on": "2020-01-01"})
    rules = live.admin.seen(f"/elders/{elder['id']}/visit-rules")
    assert (rules["methods"], rules["home_consent"], rules["frequency"]) == (
        ["home"],
        False,
        {"period": "week", "visits": 1},
    )
    assert rules["reasons"][0]["clause"] == "二（四）2"
    phone = visit(live, elder, method="phone")
    assert (phone["qualifying"], phone["non_qualifying_code"]) == (False, "method")
    assert phone["non_qualifying_reason"].startswith("二（四）2 ")
    path = f"/visits/{phone['id']}"
    operator = live.user("operator", elder["region_code"])
    refused(operator.post(f"{path}/override", json={"qualifying": True, "reason": "x"}), 403)
    refused(live.admin.post(f"{path}/override", json={"qualifying": True}), 422, "reason")
    decided = live.admin.post(f"{path}/override", json={"qualifying": True, "reason": "老人隔离,改为电话"}).json()
    assert (decided["qualifying"], decided["non_qualifying_reason"]) == (True, None)
    assert decided["override"] == {"qualifying": True, "reason": "老人隔离,改为电话", "by": "admin"}
    against = live.admin.post(f"{path}/override", json={"qualifying": False, "reason": "查无此访"}).json()
    assert (against["qualifying"], against["non_qualifying_code"]) == (False, "disqualified")
    assert live.rows("SELECT 1 FROM audit_log WHERE subject_id = $1 AND action = 'visit.overridden'", phone["id"])
    well = healthy(live)
    assert live.admin.seen(f"/elders/{well['id']}/visit-rules")["methods"] == ["home", "phone", "online", "encounter"]
    for method in ("phone", "online", "encounter"):
        assert live.admin.made("/visits", elder_id=healthy(live)["id"], method=method, started_at=ago(1))["qualifying"]


def test_a_visit_at_home_needs_consent_and_a_late_paper_or_a_withdrawal_judges_anew(live: Live) -> None:
    elder = healthy(live)
    path = f"/elders/{elder['id']}/consents"
    early, now = visit(live, elder, 72), visit(live, elder, 1)
    assert [v["non_qualifying_code"] for v in (early, now)] == ["consent", "consent"]
    given = live.admin.made(
        path, scope="home_visit", given_by="supporter", giver_name="王小明", relation="儿子", given_on=local_day(100),
        evidence_form="signed_paper", evidence="同意书 17",
    )  # fmt: skip
    assert (given["given_by"], given["evidence_form"], given["withdrawn_on"]) == ("supporter", "signed_paper", None)
    assert all(live.admin.seen(f"/visits/{v['id']}")["qualifying"] for v in (early, now))
    withdrawn = live.admin.patch(f"{path}/{given['id']}", json={"withdrawn_on": local_day(), "withdrawn_by": "elder"})
    assert withdrawn.json()["withdrawn_on"] == local_day()
    assert live.admin.seen(f"/visits/{early['id']}")["qualifying"]  # allowed when it was made
    if local_day(1) == local_day():
        assert live.admin.seen(f"/visits/{now['id']}")["non_qualifying_code"] == "consent"
    refused(live.admin.patch(f"{path}/{given['id']}", json={"withdrawn_on": local_day()}), 409)
    refused(live.admin.patch(f"{path}/{GONE}", json={"withdrawn_on": local_day()}), 404)
    assert not live.admin.seen(f"/elders/{elder['id']}/visit-rules")["home_consent"]
    assert live.admin.items(path) == [withdrawn.json()]
    common = {"scope": "home_visit", "given_by": "elder", "given_on": "2026-01-05"}
    for wrong in ({"given_on": "2199-01-01"}, {"expires_on": "2026-01-04"}, {"withdrawn_on": "2026-01-04"},
                  {"scope": "house"}, {"given_by": "neighbour"}, {"given_on": "1901-01-01"}):  # fmt: skip
        refused(live.admin.post(path, json={**common, **wrong}), 422)
    assert "consent" in {entry["kind"] for entry in live.admin.items(f"/elders/{elder['id']}/timeline")}


def test_an_emergency_entry_is_a_ground_of_its_own_and_logged(live: Live) -> None:
    elder = healthy(live)
    alarm = live.alarm(elder)
    entered = visit(live, elder, 0.01, alarm_id=alarm["id"], services=["emergency_aid"])
    assert entered["qualifying"]
    again = visit(live, elder, 0.005, alarm_id=alarm["id"])
    assert (again["non_qualifying_code"], again["same_as"]) == ("counted_already", entered["id"])
    assert live.rows(
        "SELECT 1 FROM audit_log WHERE subject_id = $1 AND action = 'visit.emergency_entry'", entered["id"]
    )


def test_nobody_at_home_is_an_attempt(live: Live) -> None:
    elder = consented(live)
    tried = visit(live, elder, outcome="nobody_home")
    assert (tried["qualifying"], tried["non_qualifying_code"], tried["outcome"]) == (False, "attempt", "nobody_home")
    refused(
        live.admin.post(f"/visits/{tried['id']}/override", json={"qualifying": True, "reason": "x"}), 409, "attempt"
    )
    assert "attempt" in {entry["kind"] for entry in live.admin.items(f"/elders/{elder['id']}/timeline")}
    assert live.admin.items("/visits", elder_id=elder["id"], qualifying="true") == []


def test_late_is_marked_and_the_future_is_refused(live: Live) -> None:
    elder = consented(live)
    assert visit(live, elder, 2)["late"] is False
    assert visit(live, elder, 30)["late"] is True
    assert [v["late"] for v in live.admin.items("/visits", elder_id=elder["id"], late="true")] == [True]
    for wrong in ({"started_at": ago(-1)}, {"ended_at": ago(-1)}, {"ended_at": ago(3)},
                  {"started_at": ago(60), "ended_at": ago(30)}):  # fmt: skip
        refused(
            live.admin.post("/visits", json={"elder_id": elder["id"], "method": "home", "started_at": ago(2), **wrong}),
            422,
        )


def test_one_visit_by_two_visitors_counts_once(live: Live) -> None:
    elder = consented(live)
    one, two = live.visitor(elder["region_code"]), live.visitor(elder["region_code"], name="赵同行")
    together = visit(live, elder, 30, visitor_id=one["id"], partner_ids=[two["id"], one["id"]])
    assert together["partner_ids"] == [two["id"]]
    assert [v["id"] for v in live.admin.items("/visits", visitor_id=two["id"])] == [together["id"]]
    first = visit(live, elder, 2, visitor_id=one["id"])
    second = visit(live, elder, 1.9, visitor_id=two["id"])
    assert (second["qualifying"], second["same_as"]) == (False, first["id"])
    live.admin.post(f"/visits/{first['id']}/void", json={"reason": "重复录入"})
    assert live.admin.seen(f"/visits/{second['id']}")["qualifying"]  # it counts instead
    refused(live.admin.post("/visits", json={"elder_id": elder["id"], "method": "home", "started_at": ago(1),
                                             "partner_ids": [GONE]}), 422, "visitor")  # fmt: skip


def test_corrections_keep_the_original(live: Live) -> None:
    elder = consented(live)
    made = visit(live, elder, 3, note="精神很好")
    path = f"/visits/{made['id']}"
    refused(live.admin.patch(path, json={"note": "x"}), 422, "reason")
    changed = live.admin.patch(
        path, json={"note": "精神一般", "outcome": "nobody_home", "reason": "填错"}, headers={"If-Match": '"1"'}
    ).json()
    assert (changed["note"], changed["qualifying"], changed["version"]) == ("精神一般", False, 2)
    refused(live.admin.patch(path, json={"note": "y", "reason": "x"}, headers={"If-Match": '"1"'}), 412)
    live.admin.post(f"{path}/void", json={"reason": "录错了人"})
    assert live.admin.seen(path)["void_reason"] == "录错了人"
    kept = live.admin.items(f"{path}/versions")
    assert [(k["version"], k["reason"], k["data"]["note"], k["replaced_by"]) for k in kept] == [
        (2, "录错了人", "精神一般", "admin"), (1, "填错", "精神很好", "admin"),
    ]  # fmt: skip
    assert kept[1]["data"]["qualifying"] is True
    assert walk(live.admin, f"{path}/versions", 1) == kept
    for answer in (live.admin.patch(path, json={"note": "z", "reason": "x"}),
                   live.admin.post(f"{path}/void", json={"reason": "x"}),
                   live.admin.post(f"{path}/override", json={"qualifying": True, "reason": "x"})):  # fmt: skip
        refused(answer, 409, "voided")
    theirs = visit(live, elder, 1)
    visitor = live.user("visitor", elder["region_code"], assigned=[elder])
    refused(visitor.patch(f"/visits/{theirs['id']}", json={"note": "x", "reason": "y"}), 403)
    own = visitor.made("/visits", elder_id=elder["id"], method="phone", started_at=ago(0.5))
    assert visitor.patch(f"/visits/{own['id']}", json={"note": "x", "reason": "y"}).status_code == 200
    refused(live.user("supervisor", "370302002").patch(f"/visits/{own['id']}", json={"note": "x", "reason": "y"}), 404)


def test_a_closed_month_changes_only_by_deltas_with_a_name(live: Live) -> None:
    village = live.village("370302116000")  # no other story closes a month here
    elder = consented(live, village)
    last = datetime.now(LOCAL).replace(day=1) - timedelta(days=3)
    month, path = f"{last:%Y-%m}", "/closed-months"
    at = {"started_at": last.isoformat()}
    made = visit(live, elder, **at)
    refused(live.admin.post(path, json={"month": f"{datetime.now(LOCAL):%Y-%m}", "region_code": village}), 422, "ended")
    refused(live.user("operator", village).post(path, json={"month": month, "region_code": village}), 403)
    closed = live.admin.made(path, month=month, region_code=village)
    assert closed["figures"] == {"visits": 1, "qualifying": 1, "attempts": 0, "elders_visited": 1}
    refused(live.admin.post(path, json={"month": month, "region_code": village}), 409)
    body = {"elder_id": elder["id"], "method": "phone", "started_at": (last - timedelta(hours=5)).isoformat()}
    refused(live.admin.post("/visits", json=body), 422, "closed")
    added = live.admin.made("/visits", **body, reason="补录漏登")
    live.admin.post(f"/visits/{made['id']}/void", json={"reason": "查无此访"})
    moved = {"started_at": ago(1), "reason": "日期填错"}
    assert live.admin.patch(f"/visits/{added['id']}", json=moved).status_code == 200
    deltas = live.admin.items(f"{path}/{closed['id']}/deltas")
    assert [(d["visit_id"], d["kind"], d["qualifying_before"], d["qualifying_after"], d["reason"], d["by"]) for d in deltas] == [
        (added["id"], "corrected", True, False, "日期填错", "admin"),
        (made["id"], "voided", True, False, "查无此访", "admin"),
        (added["id"], "added", None, True, "补录漏登", "admin"),
    ]  # fmt: skip
    assert live.admin.items(path)[0]["figures"] == closed["figures"]
    refused(live.user("supervisor", "370302002").get(f"{path}/{closed['id']}/deltas"), 404)
    assert live.admin.made("/visits", **{**body, "started_at": ago(1), "elder_id": consented(live)["id"]})["qualifying"]


# --- findings --------------------------------------------------------------------------------------------------------


def test_what_a_visitor_finds(live: Live) -> None:
    elder = consented(live)
    son = live.admin.made(f"/elders/{elder['id']}/family", name="王小明", relation="儿子", supporter=True)
    made = visit(
        live, elder, health={"expression": "good", "mobility": "poor", "reaction": "fair", "illness": "fair", "mood": "good"},
        findings=[
            {"kind": "hazard", "topic": "gas", "description": "软管老化"},
            {"kind": "hardship", "topic": "money", "description": "可能符合低保"},
            {"kind": "support_duty", "topic": "no_visits", "description": "半年未探望", "family_member_id": son["id"]},
            {"kind": "referral", "topic": "health_service", "description": "转介家庭医生"},
        ],
    )  # fmt: skip
    assert made["health"]["mobility"] == "poor"
    found = {f["kind"]: f for f in live.admin.items("/findings", elder_id=elder["id"], open="true")}
    assert set(found) == {"hazard", "hardship", "support_duty", "referral"}
    assert all(f["visit_id"] == made["id"] and f["open"] for f in found.values())
    hazard = f"/findings/{found['hazard']['id']}"

    def step(path: str, stage: str, **more: Any) -> requests.Response:
        return live.admin.post(f"{path}/steps", json={"stage": stage, **more})

    assert step(hazard, "reminded", note="已提醒").json()["open"]
    refused(step(hazard, "granted"), 409, "removed")
    ended = step(hazard, "removed", note="已更换").json()
    assert (ended["open"], ended["remind_on"], [s["stage"] for s in ended["steps"]]) == (
        False, None, ["found", "reminded", "removed"],
    )  # fmt: skip
    refused(step(hazard, "reminded"), 409, "ended")
    duty = f"/findings/{found['support_duty']['id']}"
    assert live.admin.seen(duty)["family_member_id"] == son["id"]
    refused(step(duty, "mediated"), 409, "reminded comes first")
    for stage in ("reminded", "persuaded", "mediated", "judicial", "fulfilled"):
        assert step(duty, stage).status_code == 200
    for stage in ("told", "assisted", "applied", "granted"):
        assert step(f"/findings/{found['hardship']['id']}", stage).status_code == 200
    assert [f["kind"] for f in live.admin.items("/findings", elder_id=elder["id"], open="true")] == ["referral"]
    path = f"/elders/{elder['id']}/findings"
    own = live.admin.made(path, kind="hazard", topic="heating", description="烟囱堵塞", visit_id=made["id"])
    assert live.admin.items("/findings", elder_id=elder["id"], kind="hazard", open="true") == [own]
    for wrong in ({"topic": "money"}, {"visit_id": GONE}, {"family_member_id": GONE}, {"description": ""}):
        refused(live.admin.post(path, json={"kind": "hazard", "topic": "gas", "description": "x", **wrong}), 422)
    assert "finding" in {entry["kind"] for entry in live.admin.items(f"/elders/{elder['id']}/timeline")}
    foreign = live.user("supervisor", "370302002")
    refused(foreign.get(duty), 404)
    refused(foreign.post(f"{duty}/steps", json={"stage": "reminded"}), 404)
    assert foreign.items("/findings", elder_id=elder["id"]) == []


# --- what is due -----------------------------------------------------------------------------------------------------


def test_the_due_list_by_class_place_and_visitor(live: Live) -> None:
    village = live.village()
    weekly, monthly = live.elder(village), consented(live, village)
    visitor = live.visitor(village)
    live.admin.made(f"/elders/{weekly['id']}/visitors", visitor_id=visitor["id"])
    live.elder(village, status="deceased")
    due = {d["elder"]["id"]: d for d in live.admin.items("/visits/due", region_code=village)}
    assert set(due) == {weekly["id"], monthly["id"]}
    assert (due[weekly["id"]]["period"], due[weekly["id"]]["visits_required"]) == ("week", 1)
    assert (due[monthly["id"]]["period"], due[monthly["id"]]["visits_done"]) == ("month", 0)
    assert [d["elder"]["id"] for d in live.admin.items("/visits/due", visitor_id=visitor["id"])] == [weekly["id"]]
    visit(live, monthly, 0.01)
    assert live.admin.items("/visits/due", region_code=village)[0]["visits_done"] == 1
    live.admin.patch(f"/elders/{weekly['id']}", json={"status": "paused", "status_reason": "in_hospital"})
    assert live.admin.items("/visits/due", visitor_id=visitor["id"])[0]["excused"] == "in_hospital"
    assert live.user("supervisor", "370302002").items("/visits/due", region_code=village) == []
    assert [d["elder"]["id"] for d in walk(live.admin, "/visits/due", 1, region_code=village)] == [
        monthly["id"],
        weekly["id"],
    ]


def test_a_township_has_its_own_frequencies(live: Live) -> None:
    village = live.village("370302115000")
    elder = live.elder(village, ability={"observed": "independent"})  # 86 and well
    draft = live.admin.made(
        "/care-policies", version=f"洪山镇{village}", region_code="370302115000",
        visits={"healthy_by_age": {"period": "month", "visits": 2}, "late_after_hours": 72},
    )  # fmt: skip
    live.admin.post(f"/care-policies/{draft['id']}/in-force", json={"from": local_day()})
    (due,) = live.admin.items("/visits/due", region_code=village)
    assert (due["elder"]["id"], due["period"], due["visits_required"], due["care_level"]) == (
        elder["id"],
        "month",
        2,
        "key",
    )
    rules = live.admin.seen(f"/elders/{elder['id']}/visit-rules")
    assert rules["policy_version"] == f"洪山镇{village}"
    assert (
        live.admin.seen(f"/elders/{elder['id']}")["policy_version"] != f"洪山镇{village}"
    )  # classes stay the district's
    # A visit of before is judged by the rules of its day: 24 hours then, 72 from today on.
    assert visit(live, elder, 40, method="phone")["late"] is True


# --- with a clock ----------------------------------------------------------------------------------------------------


async def write(world: World, elder: Person, at: datetime, method: Method = Method.HOME) -> Any:
    async with transaction(world.sessions) as session:
        found = await register.elder_within(session, ADMIN, elder.id, lock=True)
        fields = {"visitor_id": None, "method": method, "outcome": VisitOutcome.MET, "started_at": at, "ended_at": None,
                  "services": [], "health": {}, "note": None, "alarm_id": None}  # fmt: skip
        return await ledger.record(session, found, fields, [], Deed(ADMIN, world.time(), TZ))


async def test_visits_count_for_the_place_where_the_elder_lived_on_their_day(world: World) -> None:
    elder = await world.elder(observed="independent")
    world.clock.now += timedelta(days=20)
    async with transaction(world.sessions) as session:
        found = await register.elder_within(session, ADMIN, elder.id, lock=True)
        moved = {"region_code": OTHER_VILLAGE, "moved_on": date(2026, 12, 5)}
        await register.change_elder(
            session,
            ADMIN,
            found,
            moved,
            sealer=world.sealer,
            now=world.time(),
            today=world.time().astimezone(TZ).date(),
        )
    before = await write(world, elder, datetime(2026, 12, 4, 15, 59, tzinfo=UTC), Method.PHONE)
    after = await write(world, elder, datetime(2026, 12, 4, 16, 0, tzinfo=UTC), Method.PHONE)
    assert (before.place_code, after.place_code) == (VILLAGE, OTHER_VILLAGE)
    assert before.region_code == after.region_code == OTHER_VILLAGE  # seen where the elder is now


async def test_a_visit_is_judged_by_what_was_known_on_its_day(world: World) -> None:
    elder = await world.elder(observed="independent")
    async with transaction(world.sessions) as session:
        session.add(
            ConsentEntry(
                id=elder.id, elder_id=elder.id, scope=ConsentScope.HOME_VISIT, given_by=ConsentGiver.ELDER,
                given_on=date(2026, 11, 1), recorded_at=world.time(), recorded_by="x",
            )
        )  # fmt: skip
    world.clock.now += timedelta(days=10)
    async with transaction(world.sessions) as session:
        found = await register.elder_within(session, ADMIN, elder.id, lock=True)
        await register.change_elder(
            session, ADMIN, found, {"observed": "bedridden"}, sealer=world.sealer, now=world.time(),
            today=world.time().astimezone(TZ).date(),
        )  # fmt: skip
    assert (await write(world, elder, world.time() - timedelta(days=2), Method.PHONE)).qualifying
    assert (await write(world, elder, world.time() - timedelta(hours=2), Method.PHONE)).non_qualifying_code == "method"
    assert (await write(world, elder, world.time() - timedelta(hours=1))).qualifying


async def test_an_open_hazard_is_called_back_until_it_ends_and_once_a_time(world: World) -> None:
    elder = await world.elder()
    async with transaction(world.sessions) as session:
        session.add(
            Finding(
                id=elder.id, elder_id=elder.id, kind=FindingKind.HAZARD, topic=Topic.GAS, description="软管老化",
                stage=Stage.FOUND, found_at=world.time(), remind_on=date(2026, 11, 30),
            )
        )  # fmt: skip
        await session.flush()
        session.add(FindingStep(id=elder.id, finding_id=elder.id, stage=Stage.FOUND, at=world.time(), by={"name": "x"}))
    await world.keep_register()
    assert await world.feed("finding.reminder") == []
    world.clock.now += timedelta(days=30)  # also after downtime: one call, not four
    await world.keep_register()
    await world.keep_register()
    (told,) = await world.feed("finding.reminder")
    assert (told.region_code, told.data["topic"], told.data["times"]) == (VILLAGE, "gas", 1)
    world.clock.now += timedelta(days=7)
    await world.keep_register()
    assert [one.data["times"] for one in await world.feed("finding.reminder")] == [1, 2]
    await world.do("UPDATE findings SET stage = 'removed', ended_at = now(), remind_on = NULL")
    world.clock.now += timedelta(days=7)
    await world.keep_register()
    assert len(await world.feed("finding.reminder")) == 2
