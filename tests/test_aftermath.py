"""What an alarm leaves behind: a follow-up visit, a new assessment, and the visit that the response was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from app.alarms.aftermath import falls_too_often
from app.alarms.answering import Action
from app.alarms.vocabulary import Outcome
from app.db import transaction
from app.devices.vocabulary import DeviceKind
from app.elders import history
from app.elders.policy import VisitRules
from app.elders.tables import Elder
from app.elders.vocabulary import AbilityLevel
from app.visits import ledger, tasks
from app.visits.ledger import Deed
from app.visits.tasks import Filters
from app.visits.vocabulary import Method, TaskKind, TaskState, VisitOutcome
from tests.test_api import refused, walk
from tests.world import ADMIN, TZ, Person, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
NOON = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("days", "falls", "asked"),
    [([], 2, False), ([0], 2, False), ([0, 30], 2, True), ([0, 31], 2, False), ([0, 31, 32], 2, True),
     ([0, 10, 31], 3, False), ([0, 31, 40, 50], 3, True), ([0], 1, True)],
)  # fmt: skip
def test_so_many_falls_within_so_many_days(days: list[int], falls: int, asked: bool) -> None:
    rules = VisitRules(falls_for_assessment=falls)
    assert falls_too_often([NOON + timedelta(days=day) for day in days], rules) is asked


async def tasks_of(world: World, elder: Person, kind: TaskKind) -> list[Any]:
    async with world.sessions() as session:
        filters = Filters(kind=kind, elder_id=elder.id)
        return list(await tasks.page_of(session, ADMIN, filters, now=world.time(), before=None, limit=10))


async def visited(world: World, elder: Person, *, ago: timedelta = timedelta(0), **fields: Any) -> Any:
    now = world.time()
    given = {"visitor_id": None, "method": Method.HOME, "outcome": VisitOutcome.MET, "started_at": now - ago,
             "ended_at": None, "services": [], "health": {}, "note": None, "alarm_id": None, **fields}  # fmt: skip
    async with transaction(world.sessions) as session:
        known = await session.get(Elder, elder.id, with_for_update=True)
        assert known is not None
        made = await ledger.record(session, known, given, (), Deed(ADMIN, now, TZ))
        if not made.qualifying:
            await ledger.override(session, made, qualifying=True, deed=Deed(ADMIN, now, TZ, "口头同意"))
        return made


async def test_an_answer_link_that_ends_a_real_emergency_asks_for_a_visit(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, "王小梅")
    device = await world.device(elder)
    await world.press_sos(device)
    await world.answers("王小梅", Action.RESOLVE, outcome=Outcome.ELDER_WELL)
    assert await tasks_of(world, elder, TaskKind.FOLLOW_UP) == []
    await world.press_sos(device)
    await world.answers("王小梅", Action.RESOLVE, outcome=Outcome.REAL_EMERGENCY)
    [task] = await tasks_of(world, elder, TaskKind.FOLLOW_UP)
    assert (task.state, task.due_at - task.asked_at) == (TaskState.OPEN, timedelta(hours=72))
    assert "确有紧急情况" in task.because
    assert await tasks_of(world, elder, TaskKind.ASSESSMENT) == []

    await visited(world, elder, ago=timedelta(minutes=1))  # before it was asked for
    await world.pass_time(minutes=10)
    await visited(world, elder, ago=timedelta(minutes=1), alarm_id=task.alarm_id)  # the response itself
    assert (await tasks_of(world, elder, TaskKind.FOLLOW_UP))[0].state == TaskState.OPEN
    world.clock.now += timedelta(hours=73)
    assert (await tasks_of(world, elder, TaskKind.FOLLOW_UP))[0].state == TaskState.OVERDUE
    made = await visited(world, elder)
    [done] = await tasks_of(world, elder, TaskKind.FOLLOW_UP)
    assert (done.state, done.visit_id) == (TaskState.DONE, made.id)
    async with transaction(world.sessions) as session:
        await ledger.void(session, await session.merge(made), Deed(ADMIN, world.time(), TZ, "录错了人"))
    assert (await tasks_of(world, elder, TaskKind.FOLLOW_UP))[0].state == TaskState.OVERDUE


async def test_two_real_falls_within_thirty_days_ask_for_one_assessment(world: World) -> None:
    elder = await world.elder()
    device = await world.device(elder, kind=DeviceKind.FALL_DETECTOR)

    async def falls(outcome: Outcome) -> None:
        world.clock.now += timedelta(days=1)
        await world.message(device, {"type": "fall"})
        unresolved = [alarm for alarm in await world.alarms(elder) if alarm.state != "resolved"]
        assert [alarm.kind for alarm in unresolved] == ["fall"]
        await world.act(unresolved[0].id, "resolve", end=outcome)

    for outcome in (Outcome.REAL_EMERGENCY, Outcome.FALSE_ALARM, Outcome.ELDER_WELL):
        await falls(outcome)
        assert await tasks_of(world, elder, TaskKind.ASSESSMENT) == []
    await falls(Outcome.HOSPITALISED)
    [task] = await tasks_of(world, elder, TaskKind.ASSESSMENT)
    assert (task.state, "2次跌倒" in task.because) == (TaskState.OPEN, True)
    assert len(await tasks_of(world, elder, TaskKind.FOLLOW_UP)) == 2
    await falls(Outcome.REAL_EMERGENCY)
    assert len(await tasks_of(world, elder, TaskKind.ASSESSMENT)) == 1  # these falls were asked about already

    async def assess(days_ago: int) -> None:
        today = world.time().astimezone(TZ).date()
        async with transaction(world.sessions) as session:
            known = await session.get(Elder, elder.id, with_for_update=True)
            assert known is not None
            await history.add_assessment(
                session, known, assessed_on=today - timedelta(days=days_ago), level=AbilityLevel.MODERATE, by="t",
                now=world.time(), today=today,
            )  # fmt: skip

    await assess(days_ago=40)  # written down now, made before the falls
    assert (await tasks_of(world, elder, TaskKind.ASSESSMENT))[0].state == TaskState.OPEN
    await assess(days_ago=0)
    [done] = await tasks_of(world, elder, TaskKind.ASSESSMENT)
    assert (done.state, done.assessment_id is not None) == (TaskState.DONE, True)


def test_an_attended_alarm_is_one_visit_and_asks_for_another(live: Live) -> None:
    elder = live.elder()
    neighbour = live.visitor(elder["region_code"], name="邻居")
    alarm = live.alarm(elder)
    path = f"/alarms/{alarm['id']}"
    refused(live.admin.post(f"{path}/visit"), 409, "nobody attended")
    account = live.user("visitor", elder["region_code"])
    refused(account.post(f"{path}/attend"), 404)  # not theirs today
    live.admin.made(f"/elders/{elder['id']}/visitors", visitor_id=account.seen("/me")["visitor_id"], role="primary")
    attended = account.post(f"{path}/attend").json()
    refused(live.admin.post(f"{path}/visit", json={"started_at": "2020-01-01T00:00:00Z"}), 422, "attended")
    refused(live.admin.post(f"{path}/visit", json={"visitor_id": alarm["id"]}), 422)

    def makes(body: dict[str, Any]) -> Any:
        return live.admin.post(f"{path}/visit", json=body)

    with ThreadPoolExecutor(2) as two:  # two visitors at once
        answers = list(two.map(makes, [{"services": ["health_management"]}, {"visitor_id": neighbour["id"]}]))
    assert sorted(answer.status_code for answer in answers) == [200, 201]
    first, second = (answer.json() for answer in answers)
    assert first["id"] == second["id"]
    assert first["qualifying"]  # without a consent: an emergency entry
    assert "emergency_aid" in first["services"]
    assert first["alarm_id"] == alarm["id"]
    started, came = (datetime.fromisoformat(text) for text in (first["started_at"], attended["attended_at"]))
    assert abs(started - came) < timedelta(milliseconds=1)
    if answers[0].status_code == 201:
        assert first["visitor_id"] == account.seen("/me")["visitor_id"]
    refused(live.admin.post("/alarms/00000000-0000-7000-8000-00000000dead/visit"), 404)
    other = live.user("operator", live.village())
    refused(other.post(f"{path}/visit"), 404)
    ticked = live.admin.made("/visits", elder_id=elder["id"], method="home", started_at=attended["attended_at"],
                             alarm_id=alarm["id"])  # fmt: skip
    assert (ticked["services"], ticked["non_qualifying_code"]) == (["emergency_aid"], "counted_already")

    assert live.admin.post(f"{path}/resolve", json={"outcome": "real_emergency"}).status_code == 200
    [task] = live.admin.items("/tasks", elder_id=elder["id"])
    assert (task["kind"], task["state"], task["alarm_id"]) == ("follow_up", "open", alarm["id"])
    assert task == live.admin.seen(f"/tasks/{task['id']}")
    assert live.admin.items("/tasks", region_code=elder["region_code"], state=["open", "overdue"]) == [task]
    assert live.admin.items("/tasks", elder_id=elder["id"], state="done") == []
    assert live.admin.items("/tasks", visitor_id=neighbour["id"]) == []
    [due] = live.admin.items("/visits/due", region_code=elder["region_code"])
    assert due["visits_required"] == due["visits_done"] + 1
    assert [(one["id"], one["kind"], one["state"]) for one in due["tasks"]] == [(task["id"], "follow_up", "open")]
    live.admin.made(f"/elders/{elder['id']}/visitors", visitor_id=neighbour["id"], role="primary")
    assert live.admin.items("/tasks", visitor_id=neighbour["id"], kind="follow_up") == [task]
    assert "task" in {entry["kind"] for entry in live.admin.items(f"/elders/{elder['id']}/timeline")}
    refused(other.get(f"/tasks/{task['id']}"), 404)
    refused(other.post(f"/tasks/{task['id']}/dismiss", json={"reason": "x"}), 403)
    refused(live.admin.post(f"/tasks/{task['id']}/dismiss", json={}), 422, "reason")
    gone = live.admin.post(f"/tasks/{task['id']}/dismiss", json={"reason": "女儿已接走同住"}).json()
    assert (gone["state"], gone["dismissed_reason"]) == ("dismissed", "女儿已接走同住")
    refused(live.admin.post(f"/tasks/{task['id']}/dismiss", json={"reason": "x"}), 409, "dismissed")
    assert live.rows("SELECT 1 FROM audit_log WHERE subject_id = $1 AND action = 'task.dismissed'", task["id"])
    assert walk(live.admin, "/tasks", 1, elder_id=elder["id"]) == [gone]
