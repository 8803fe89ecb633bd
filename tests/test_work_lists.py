"""Work lists: what is due by place and visitor, kept fresh; the daily notice; what rises. All people are invented."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from sqlmodel import col, select

from app.alarms.vocabulary import Outcome
from app.db import transaction
from app.devices.vocabulary import DeviceKind
from app.elders import history, policies
from app.elders.policy import Frequency, Period, VisitRules
from app.elders.tables import Elder
from app.elders.vocabulary import CareLevel, ElderStatus, StatusReason
from app.notify.digests import DigestDesk
from app.notify.dispatcher import Dispatcher
from app.visits import daily, kept, ledger
from app.visits.hours import Hours, Turn, next_time, silent_from, speak_from, turn
from app.visits.ledger import Deed
from app.visits.vocabulary import Method, VisitOutcome
from tests.test_api import refused, walk
from tests.world import ADMIN, OTHER_VILLAGE, TZ, VILLAGE, Person, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
PLAIN = Hours()
MONDAY = date(2026, 11, 23)


def local(hour: int, minute: int = 0, day: date = MONDAY) -> datetime:
    return datetime.combine(day, time(hour, minute), TZ)


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    ("now", "hours", "expected"),
    [
        (local(8), PLAIN, Turn(True, local(8, day=MONDAY + timedelta(1)))),
        (local(14), PLAIN, Turn(True, local(8, day=MONDAY + timedelta(1)))),  # the same day is caught up
        (local(7, 59), PLAIN, Turn(False, local(8))),  # yesterday is not: today's has it
        (local(23), PLAIN, Turn(False, local(8, day=MONDAY + timedelta(1)))),
        (local(0), PLAIN, Turn(False, local(8))),
        (local(9), replace(PLAIN, enabled=False), Turn(False, local(8, day=MONDAY + timedelta(1)))),
        (local(13), replace(PLAIN, quiet_from=time(12), quiet_until=time(14)), Turn(False, local(14))),
        (local(23), replace(PLAIN, quiet_until=PLAIN.quiet_from), Turn(True, local(8, day=MONDAY + timedelta(1)))),
    ],
)
def test_the_day_is_caught_up_and_never_at_night(now: datetime, hours: Hours, expected: Turn) -> None:
    assert turn(now, hours, TZ) == expected


@pytest.mark.unit
def test_quiet_hours_over_midnight() -> None:
    assert [PLAIN.quiet(time(hour)) for hour in (6, 7, 20, 21, 23, 0)] == [True, False, False, True, True, True]
    assert speak_from(local(22), PLAIN, TZ) == local(7, day=MONDAY + timedelta(1))
    assert speak_from(local(5), PLAIN, TZ) == local(7)
    assert speak_from(local(9), PLAIN, TZ) == local(9)
    assert silent_from(local(9), PLAIN, TZ) == local(21)
    assert next_time(local(8), PLAIN, TZ) == local(8, day=MONDAY + timedelta(1))


# --- stories ---------------------------------------------------------------------------------------------------------


async def judged(world: World, **filters: Any) -> list[str]:
    """The names of a filtered list, page by page."""
    found: list[str] = []
    before = None
    while True:
        async with world.sessions() as session:
            page = await kept.due_page(
                session, ADMIN, kept.Filters(**filters), on=world.time().astimezone(TZ).date(), now=world.time(), tz=TZ,
                before=before, limit=2,
            )  # fmt: skip
        found += [elder.name for elder, _ in page.found]
        before = page.more
        if before is None:
            return sorted(found)


async def by_everybody(world: World, **filters: Any) -> list[str]:
    """The same by judging everybody."""
    wanted = kept.Filters(**filters)
    async with world.sessions() as session:
        query = select(Elder).where(col(Elder.status).in_([ElderStatus.ACTIVE, ElderStatus.PAUSED]))
        people = (await session.execute(query)).scalars().all()
        today = world.time().astimezone(TZ).date()
        known = await kept.due_now(session, people, on=today, now=world.time(), tz=TZ)
        return sorted(elder.name for elder in people if wanted.match(known[elder.id]))


async def visits(world: World, elder: Person, *, ago: timedelta = timedelta(minutes=1)) -> Any:
    now = world.time()
    given = {"visitor_id": None, "method": Method.HOME, "outcome": VisitOutcome.MET, "started_at": now - ago,
             "ended_at": None, "services": [], "health": {}, "note": None, "alarm_id": None}  # fmt: skip
    async with transaction(world.sessions) as session:
        known = await session.get(Elder, elder.id, with_for_update=True)
        assert known is not None
        made = await ledger.record(session, known, given, (), Deed(ADMIN, now, TZ))
        await ledger.override(session, made, qualifying=True, deed=Deed(ADMIN, now, TZ, "口头同意"))
        return made


async def test_the_kept_list_says_what_judging_everybody_says(world: World) -> None:
    """Whatever happens, before and after the worker came by."""
    world.clock.now = local(9)
    people = await world.elders(["甲", "乙", "丙", "丁", "戊"])
    far = await world.elder("己", region=OTHER_VILLAGE)

    async def agree() -> tuple[list[str], list[str]]:
        for fresh in (False, True):
            if fresh:
                await keep_lists(world)
                assert await world.value("SELECT count(*) FROM visit_duties WHERE look_on < '2026-11-01'") == 0
            for filters in ({"open": True}, {"overdue": True}, {"open": True, "care_level": CareLevel.KEY}):
                assert await judged(world, **filters) == await by_everybody(world, **filters), (fresh, filters)
        return await judged(world, open=True), await judged(world, overdue=True)

    assert await agree() == (["丁", "丙", "乙", "己", "戊", "甲"], [])
    made = await visits(world, people[0])
    assert (await agree())[0] == ["丁", "丙", "乙", "己", "戊"]
    async with transaction(world.sessions) as session:
        await ledger.void(session, await session.merge(made), Deed(ADMIN, world.time(), TZ, "录错了人"))
    assert "甲" in (await agree())[0]
    await visits(world, people[1])
    async with transaction(world.sessions) as session:
        elder = await session.get(Elder, people[2].id)
        assert elder is not None
        await history.set_status(
            session, elder, status=ElderStatus.PAUSED, reason=StatusReason.AWAY, since=MONDAY, until=MONDAY + timedelta(8),
            evidence="x", by="t", now=world.time(), today=MONDAY,
        )  # fmt: skip
    assert (await agree())[0] == ["丁", "己", "戊", "甲"]
    world.clock.now = local(0, 1, day=MONDAY + timedelta(7))  # the next week, before any worker looked
    assert await agree() == (["丁", "乙", "己", "戊", "甲"], ["丁", "己", "戊", "甲"])
    await world.do(
        "INSERT INTO special_periods (id, name, kind, region_code, levels, since, until, visits_total, entered_by, "
        "created_at, version) VALUES (gen_random_uuid(), '寒潮', 'weather', :village, '{key}', '2026-12-01', "
        "'2026-12-02', 2, '{}', now(), 1)",
        village=OTHER_VILLAGE,
    )
    await visits(world, far)
    assert "己" in (await agree())[0]  # the period asks for two more
    async with transaction(world.sessions) as session:
        rules = VisitRules(frequency={level: Frequency(period=Period.WEEK, visits=2) for level in CareLevel})
        row = await policies.draft(session, version="密", region_code=VILLAGE, classification=None, visits=rules,
                                   note=None, now=world.time())  # fmt: skip
        await policies.put_in_force(
            session, row, since=date(2026, 12, 1), by={}, now=world.time(), today=date(2026, 11, 30)
        )
    await visits(world, people[1])
    assert "乙" not in (await agree())[0]
    world.clock.now = local(8, day=date(2026, 12, 2))  # 丙 is back, and 乙 is due twice a week now
    assert {"乙", "丙"} <= set((await agree())[0])
    for gone in people[2:]:  # more of them than a page: who left ends no list
        await world.do("UPDATE elders SET status = 'moved', status_reason = 'moved' WHERE id = :id", id=gone.id)
    assert {"乙", "己"} <= set((await agree())[0])


async def keep_lists(world: World) -> None:
    """What the worker looks for every few seconds."""
    await world.keep_register()
    while await world.ticks.keep_lists():
        pass


class Postman:
    """Sends digests as a worker of its own does."""

    def __init__(self, world: World) -> None:
        desk = DigestDesk(world.sealer)
        self.world = world
        self.sending = Dispatcher(
            (world.lane(), world.lane()), world.channels, desk, world.time, asyncio.Event(), at_once=4
        )

    async def comes(self, at: datetime) -> list[tuple[str, str]]:
        """It is this time, the worker looks and sends; who heard what since it came last."""
        self.world.clock.now = at
        self.world.forget()
        await keep_lists(self.world)
        await self.sending.drain()
        return [(heard.who, heard.type) for heard in self.world.heard]


async def backup(world: World, elder: Person, visitor: Person) -> None:
    await world.do(
        "INSERT INTO assignments (id, elder_id, visitor_id, role, created_at) "
        "VALUES (gen_random_uuid(), :elder, :visitor, 'backup', :now)",
        elder=elder.id, visitor=visitor.id, now=world.time(),
    )  # fmt: skip


async def test_a_visitor_is_told_once_a_day_at_the_chosen_hour(world: World) -> None:
    world.clock.now = local(7)
    people = await world.elders([f"老人{n}" for n in range(30)])
    visitor = await world.visitor("李志愿", of=people[0], channels=("voice", "sms", "webhook"))
    for elder in people[1:]:
        await world.assign(elder, visitor)
    second = await world.visitor("张志愿", channels=("webhook",))
    await backup(world, people[0], second)
    postman = Postman(world)
    assert await postman.comes(local(7, 30)) == []
    world.dead("李志愿:sms")  # the next channel has it; voice calls are for alarms
    two = await asyncio.gather(*(world.ticks.keep_lists() for _ in range(2)))
    assert two == [0, 0]
    assert await postman.comes(local(8)) == [("李志愿", "visits.due")]
    letter = world.expect_heard("李志愿", "visits.due", channel="webhook").letter
    assert "30位" in letter.title
    assert letter.text.count("老人") == 20
    assert "等30人" in letter.text
    assert "370302" not in letter.text
    assert len(letter.payload["data"]["visits"]) == 30
    assert "13800000000" not in str(letter.payload)
    assert await postman.comes(local(8, 1)) == []
    assert await postman.comes(local(20)) == []
    # The server was away the next morning and came back in the afternoon; the day after, only at night.
    assert await postman.comes(local(15, day=MONDAY + timedelta(1))) == [("李志愿", "visits.due")]
    assert await postman.comes(local(23, 30, day=MONDAY + timedelta(2))) == []
    assert await postman.comes(local(0, 5, day=MONDAY + timedelta(3))) == []
    # The second goes only where it is overdue: in the next week.
    heard = await postman.comes(local(8, day=MONDAY + timedelta(7)))
    assert sorted(heard) == [("张志愿", "visits.due"), ("李志愿", "visits.due")]
    assert "逾期" in world.expect_heard("张志愿", "visits.due").letter.text
    for elder in people:
        await visits(world, elder)
    assert await postman.comes(local(8, day=MONDAY + timedelta(8))) == []  # nothing is due: nothing is said
    states = await world.rows("SELECT state, channel FROM digests ORDER BY id")
    assert {(row.state, row.channel) for row in states} == {("sent", "webhook")}


async def test_a_message_that_waited_names_nobody_whose_pairing_ended(world: World) -> None:
    """It is written anew for those who are still the visitor's; nobody reads what it said before."""
    world.clock.now = local(7)
    one, two = await world.elders(["甲一", "乙二"])
    visitor = await world.visitor("李志愿", of=one)
    await world.assign(two, visitor)
    postman = Postman(world)
    await postman.comes(local(7, 30))
    world.away("李志愿:webhook")
    assert await postman.comes(local(8)) == []
    await world.do("UPDATE assignments SET ended_at = now() WHERE elder_id = :id", id=one.id)
    world.works("李志愿:webhook")
    await postman.comes(local(8, 1))  # what waited is given up, and its day is looked at again
    assert await postman.comes(local(8, 2)) == [("李志愿", "visits.due")]
    letter = world.expect_heard("李志愿", "visits.due").letter
    assert ("甲一" in letter.text, "乙二" in letter.text) == (False, True)
    [row] = await world.rows("SELECT about, text FROM digests")
    assert (row.about, "甲一" in row.text) == ([two.id], False)


async def test_a_hazard_nobody_followed_is_in_the_message(world: World) -> None:
    world.clock.now = local(7)
    elder = await world.elder()
    await world.visitor("李志愿", of=elder)
    await visits(world, elder)
    await world.do(
        "INSERT INTO findings (id, elder_id, kind, topic, description, stage, found_at, remind_on, reminders, version) "
        "VALUES (gen_random_uuid(), :id, 'hazard', 'gas', '燃气软管老化', 'found', :now, '2026-11-24', 0, 1)",
        id=elder.id, now=world.time(),
    )  # fmt: skip
    postman = Postman(world)
    await postman.comes(local(7, 30))
    assert await postman.comes(local(8)) == []
    assert await postman.comes(local(8, day=MONDAY + timedelta(1))) == [("李志愿", "visits.due")]
    letter = world.heard[0].letter
    assert ("王桂英(居家安全隐患)" in letter.text, "燃气软管" in letter.text) == (True, False)
    assert letter.payload["data"]["findings"][0]["topic"] == "gas"


async def test_a_device_to_test_is_in_the_message(world: World) -> None:
    """Beside what else is due each day; alone on the day it is due, and each week after, until it was tested."""
    world.clock.now = local(7)
    elder = await world.elder()
    await world.visitor("李志愿", of=elder)
    await visits(world, elder)
    button = await world.device(elder, place="卧室床头")
    await world.device(elder, kind=DeviceKind.DOOR_SENSOR)
    postman = Postman(world)
    await postman.comes(local(7, 30))
    assert await postman.comes(local(8)) == [("李志愿", "visits.due")]
    letter = world.heard[0].letter
    assert "王桂英(卧室床头)" in letter.text
    assert [one["device_id"] for one in letter.payload["data"]["self_tests"]] == [button]
    assert await postman.comes(local(8, day=MONDAY + timedelta(1))) == []
    await world.do("UPDATE devices SET test_due_at = :later WHERE device_id = :id", id=button,
                   later=local(9, day=MONDAY + timedelta(30)))  # fmt: skip
    await visits(world, elder)
    assert await postman.comes(local(8, day=MONDAY + timedelta(2))) == []


async def test_two_workers_write_a_message_once_and_alarms_do_not_wait_for_it(world: World) -> None:
    world.clock.now = local(7)
    elder = await world.elder()
    await world.visitor("李志愿", of=elder)
    await keep_lists(world)
    world.clock.now = local(8)
    stuck = asyncio.Event()

    async def hangs(_: Any) -> Any:
        await stuck.wait()

    async def look() -> None:
        async with transaction(world.sessions) as session:
            await daily.take_due(session, now=world.time(), tz=TZ)

    await asyncio.gather(*(look() for _ in range(4)))
    assert await world.value("SELECT count(*) FROM digests") == 1
    world.on_send("李志愿:webhook", hangs)
    postman = Postman(world)
    sending = asyncio.create_task(postman.sending.drain())
    await asyncio.sleep(0)
    await world.contact(elder, "王小梅")
    await world.message(await world.device(elder), {"type": "sos"})
    await world.dispatcher._take()
    while not world.heard_by("王小梅"):  # though the visitor's channel hangs for both
        await asyncio.sleep(0.01)
    stuck.set()
    sending.cancel()


async def test_what_is_about_to_close_rises_to_the_village_and_then_to_the_township(world: World) -> None:
    world.clock.now = local(7)
    elder, other = await world.elders(["王桂英", "赵大山"])
    await world.elder("远方", region=OTHER_VILLAGE)
    await world.village_head()
    await world.township_duty()
    postman = Postman(world)
    await postman.comes(local(7, 30))
    await visits(world, other)
    assert await postman.comes(local(8, day=MONDAY + timedelta(3))) == []
    friday = await postman.comes(local(8, day=MONDAY + timedelta(4)))
    assert friday == [("村主任", "visits.unvisited")]
    told = world.expect_heard("村主任", "visits.unvisited").letter
    assert [one["name"] for one in told.payload["data"]["unvisited"]] == ["王桂英"]
    assert "1位" in told.title
    assert await postman.comes(local(8, day=MONDAY + timedelta(5))) == [("镇值班", "visits.unvisited")]
    assert {one["name"] for one in world.heard[0].letter.payload["data"]["unvisited"]} == {"王桂英", "远方"}
    assert await postman.comes(local(8, day=MONDAY + timedelta(6))) == []  # once a period and step
    await visits(world, elder)
    assert await postman.comes(local(8, day=MONDAY + timedelta(11))) == [("村主任", "visits.unvisited")]


async def test_a_follow_up_nobody_made_rises_after_the_quiet_hours(world: World) -> None:
    world.clock.now = local(7)
    elder = await world.elder()
    await world.village_head()
    await world.township_duty()
    visitor = await world.visitor("李志愿", of=elder)
    postman = Postman(world)
    await postman.comes(local(7, 30))
    world.clock.now = local(22)
    await world.press_sos(await world.device(elder))
    await world.operator(elder, "resolve", end=Outcome.REAL_EMERGENCY)
    await world.settle()
    tomorrow = MONDAY + timedelta(1)
    assert await postman.comes(local(8, day=tomorrow)) == [("李志愿", "visits.due")]
    assert "报警后回访" in world.expect_heard("李志愿", "visits.due").letter.text
    late = MONDAY + timedelta(3)
    assert ("村主任", "task.overdue") not in await postman.comes(local(22, 30, day=late))  # it is night
    heard = await postman.comes(local(7, 5, day=late + timedelta(1)))
    assert heard == [("村主任", "task.overdue")]
    assert "王桂英" in world.heard[0].letter.title
    heard = await postman.comes(local(22, 45, day=late + timedelta(1)))
    assert ("镇值班", "task.overdue") in await postman.comes(local(7, 5, day=late + timedelta(2)))
    assert visitor.name not in {who for who, _ in await postman.comes(local(7, 30, day=late + timedelta(3)))}


# --- over the API ----------------------------------------------------------------------------------------------------


def names(items: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(one["elder"]["name"] for one in items)


def test_due_by_visitor_village_township_class_and_what_is_still_to_do(live: Live) -> None:
    village, other = live.village(), live.village()
    frail = live.elder(village, name="甲")
    well = live.elder(village, name="乙", id_number=live.id_number("19600101"),
                      ability={"level": "intact", "assessed_on": "2020-01-01"})  # fmt: skip
    live.elder(other, name="丙")
    visitor = live.visitor(village)
    live.admin.made(f"/elders/{frail['id']}/visitors", visitor_id=visitor["id"], role="primary")
    assert names(live.admin.items("/visits/due", region_code=village, open="true")) == ["乙", "甲"]
    assert names(live.admin.items("/visits/due", region_code=village, care_level="general")) == ["乙"]
    assert names(live.admin.items("/visits/due", visitor_id=visitor["id"], open="true")) == ["甲"]
    assert names(live.admin.items("/visits/due", visitor_id=visitor["id"], overdue="true")) == []
    town = walk(live.admin, "/visits/due", 2, region_code=village[:9] + "000", open="true")
    assert {"甲", "乙", "丙"} <= set(names(town))
    live.admin.made("/visits", elder_id=well["id"], method="phone",
                    started_at=(datetime.now(UTC) - timedelta(minutes=3)).isoformat())  # fmt: skip
    if datetime.now(ZoneInfo("Asia/Shanghai")).time() > time(0, 5):
        assert names(live.admin.items("/visits/due", region_code=village, open="true")) == ["甲"]
        assert names(live.admin.items("/visits/due", region_code=village, open="false")) == ["乙"]
    refused(live.admin.get("/visits/due", params={"overdue": "perhaps"}), 422)


def test_a_round_is_proposed_accepted_and_not_planned_twice(live: Live) -> None:
    village = live.village()
    first, second, alone = (live.elder(village, name=name) for name in ("甲", "乙", "丙"))
    lead, helper = live.visitor(village, name="李志愿"), live.visitor(village, name="张志愿")
    for elder, visitor, role in ((first, lead, "primary"), (second, lead, "primary"), (second, helper, "backup")):
        live.admin.made(f"/elders/{elder['id']}/visitors", visitor_id=visitor["id"], role=role)
    asked = {"region_code": village, "days": 1, "capacity_per_day": 1}
    found = live.admin.seen("/rounds/proposal", **asked)
    assert found == live.admin.seen("/rounds/proposal", **asked)
    assert {(s["elder"]["name"], s["visitor"]["name"]) for s in found["stops"]} == {
        ("甲", "李志愿"),
        ("乙", "张志愿"),
    } or {(s["elder"]["name"], s["visitor"]["name"]) for s in found["stops"]} == {("乙", "李志愿")}
    assert all(stop["reasons"] and all(r["because"] for r in stop["reasons"]) for stop in found["stops"])
    assert ("丙", "nobody_paired") in {(u["elder"]["name"], u["code"]) for u in found["unassigned"]}
    mine = live.admin.seen("/rounds/proposal", visitor_id=helper["id"], days=7)
    assert [s["elder"]["name"] for s in mine["stops"]] == ["乙"]
    for wrong in ({}, {"region_code": village[:9] + "000"}, {"region_code": village, "from": "2020-01-01"},
                  {"region_code": village, "days": 0}, {"visitor_id": first["id"]}):  # fmt: skip
        refused(live.admin.get("/rounds/proposal", params=wrong), 422)
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date().isoformat()
    made = live.admin.made("/rounds", **{"region_code": village, "from": today, "days": 1})
    assert {s["elder"]["name"] for s in made["stops"]} == {"甲", "乙"}
    assert made["stops"][0]["visit_id"] is None
    again = live.admin.seen("/rounds/proposal", region_code=village, days=1)
    assert again["stops"] == []
    assert live.admin.seen(f"/rounds/{made['id']}") == made
    assert [one["id"] for one in live.admin.items("/rounds", visitor_id=lead["id"])] == [made["id"]]
    told = live.admin.seen(f"/visitors/{lead['id']}/digest")
    assert told["text"].startswith("今天安排")
    refused(live.user("operator", live.village()).get(f"/rounds/{made['id']}"), 404)
    assert live.admin.delete(f"/rounds/{made['id']}").status_code == 204
    refused(live.admin.delete(f"/rounds/{made['id']}"), 409)
    assert len(live.admin.seen("/rounds/proposal", region_code=village, days=1)["stops"]) == 2
    assert alone["name"] == "丙"


def test_a_visitor_has_their_own_list_and_their_own_round(live: Live) -> None:
    village = live.village()
    mine, other = live.elder(village, name="甲"), live.elder(village, name="乙")
    account = live.user("visitor", village)
    me, somebody = account.seen("/me")["visitor_id"], live.visitor(village)["id"]
    live.admin.made(f"/elders/{mine['id']}/visitors", visitor_id=me, role="primary")
    live.admin.made(f"/elders/{other['id']}/visitors", visitor_id=somebody, role="primary")
    assert names(account.items("/visits/due")) == ["甲"]
    assert names(account.items("/visits/due", open="true")) == ["甲"]
    assert names(account.items("/visits/due", visitor_id=somebody)) == []
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date().isoformat()
    refused(account.post("/rounds", json={"region_code": village, "from": today}), 403, "own")
    made = account.made("/rounds", **{"visitor_id": me, "from": today, "days": 2})
    assert [stop["elder"]["name"] for stop in made["stops"]] == ["甲"]
    assert [one["id"] for one in account.items("/rounds")] == [made["id"]]
    whole = live.admin.made("/rounds", **{"region_code": village, "from": today})
    assert [stop["elder"]["name"] for stop in whole["stops"]] == ["乙"]
    refused(account.get(f"/rounds/{whole['id']}"), 404)
    assert account.seen(f"/visitors/{me}/digest")["data"]["visits"][0]["elder"]["name"] == "甲"
    assert account.items("/tasks") == []
    refused(account.post("/special-periods", json={"name": "x", "kind": "weather", "from": today, "to": today,
                                                   "region_code": village, "visits_total": 1}), 403)  # fmt: skip


def test_the_hours_of_a_region_and_of_a_visitor(live: Live) -> None:
    village = live.village()
    visitor = live.visitor(village)
    mine, place = f"/digest-settings/visitors/{visitor['id']}", f"/digest-settings/regions/{village}"
    assert live.admin.seen(mine)["at"] == "08:00:00"
    assert live.admin.seen(place)["own"] is False
    supervisor = live.user("supervisor", village)
    kept_ = supervisor.put(place, json={"at": "09:30", "week_village": 3})
    assert (kept_.status_code, kept_.json()["week_village"], kept_.json()["own"]) == (200, 3, True)
    assert live.admin.seen(mine) == {"at": "09:30:00", "quiet_from": "21:00:00", "quiet_until": "07:00:00",
                                     "enabled": True, "own": False}  # fmt: skip
    assert supervisor.put(mine, json={"at": "06:00", "quiet_until": "05:00"}).json()["at"] == "06:00:00"
    assert live.admin.seen(mine)["own"] is True
    for wrong in ({"at": "23:00"}, {"at": "8"}, {"at": "08:00+08:00"}, {"week_village": 99}, {"hour": 8}):
        refused(supervisor.put(place, json=wrong), 422)
    refused(supervisor.put(place, json={}, headers={"If-Match": '"7"'}), 412)
    refused(live.user("operator", village).put(place, json={}), 403)
    refused(live.user("supervisor", live.village()).put(mine, json={}), 404)
    assert live.admin.seen(f"/visitors/{visitor['id']}/digest") == {"title": None, "text": None, "data": None}
    assert live.admin.items("/digests", visitor_id=visitor["id"]) == []
    document = live.anonymous.get(live.base + "/openapi.json").json()
    assert {"visits.due", "visits.unvisited", "task.overdue"} <= set(document["webhooks"])
