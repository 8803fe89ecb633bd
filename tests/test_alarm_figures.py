"""Figures of alarms: kinds, outcomes, how soon told and answered, models of devices. All people are invented."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from app.alarms import handling
from app.alarms.vocabulary import Outcome
from app.db import transaction
from app.reports.alarms import AlarmGroup, Figures, figures
from tests.world import START, TZ, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
KEY = {"type": "api_key", "id": "00000000-0000-7000-8000-00000000abcd", "name": "machine"}


async def lines(world: World, by: AlarmGroup | None = None, prefix: str = "370302") -> list[Figures]:
    async with world.sessions() as session:
        return await figures(
            session, prefix, since=START - timedelta(hours=1), until=START + timedelta(days=2), by=by, kind=None,
            severity=None, now=world.time(), tz=TZ,
        )  # fmt: skip


async def test_only_a_person_s_first_answer_counts_and_a_promise_that_passes_does_not_take_it_back(
    world: World,
) -> None:
    quick, slow, machine, never = await world.elders(["甲", "乙", "丙", "丁"])
    for elder in (quick, slow, machine, never):
        await world.contact(elder, f"{elder.name}女")
        await world.press_sos(await world.device(elder))
    await world.do("UPDATE devices SET model = 'WS101' WHERE device_id = (SELECT min(device_id) FROM devices)")
    async with transaction(world.sessions) as session:
        held = await handling.hold(session, (await world.alarm(machine)).id)
        await handling.acknowledge(session, held, by=KEY, eta_minutes=5, note=None, now=world.time())
    await world.pass_time(seconds=30)
    await world.operator(quick, "acknowledge", eta=1)
    await world.pass_time(seconds=70)  # the promise passes: the alarm is open again
    assert (await world.alarm(quick)).state == "open"
    await world.operator(slow, "attend")
    await world.pass_time(minutes=10)
    await world.operator(quick, "acknowledge")
    await world.operator(quick, "resolve", end=Outcome.FALSE_ALARM)
    await world.operator(slow, "resolve", end=Outcome.REAL_EMERGENCY)
    (line,) = await lines(world)
    assert (line.alarms, line.resolved, line.answerable) == (4, 2, 4)
    assert line.within == {60: 1, 180: 2}  # 30 s, 100 s; a machine's and nobody's are none
    assert (line.first_answer.p50, line.first_answer.longest) == (65.0, 100.0)
    assert (line.first_notice.p50, line.false_alarm_rate) == (0.0, 0.5)
    models = {one.key: (one.alarms, one.false_alarm_rate) for one in await lines(world, AlarmGroup.DEVICE_MODEL)}
    assert models == {"sos_button/WS101": (1, 1.0), "sos_button/native": (3, 0.0)}
    outcomes = {one.key: one.alarms for one in await lines(world, AlarmGroup.OUTCOME)}
    assert outcomes == {"unresolved": 2, "false_alarm": 1, "real_emergency": 1}
    for by, key in ((AlarmGroup.KIND, "sos"), (AlarmGroup.SEVERITY, "critical"), (AlarmGroup.MONTH, "2026-11"),
                    (AlarmGroup.TOWNSHIP, "370302001000"), (AlarmGroup.VILLAGE, "370302001001")):  # fmt: skip
        assert [(one.key, one.alarms) for one in await lines(world, by)] == [(key, 4)]
    assert await lines(world, prefix="370302002") == []


async def test_what_just_arrived_is_nobody_s_failure_yet(world: World) -> None:
    elder = await world.elder()
    await world.press_sos(await world.device(elder))
    await world.pass_time(seconds=20)
    (line,) = await lines(world)
    assert (line.alarms, line.answerable) == (1, 0)


@pytest.mark.xdist_group("live")
def test_alarm_figures_over_the_api(live: Live) -> None:
    village = live.village()
    elder = live.elder(village)
    live.admin.made(
        "/devices", device_id=f"ws-{village}", kind="sos_button", model="Milesight WS101", elder_id=elder["id"]
    )
    alarm = live.alarm(elder)
    live.admin.post(f"/alarms/{alarm['id']}/resolve", json={"outcome": "false_alarm"})
    api = live.user("operator", village)
    answer: dict[str, Any] = api.seen("/stats/alarms", group_by="kind")
    (line,) = answer["items"]
    assert (line["alarms"], line["outcomes"]["false_alarm"], line["false_alarm_rate"]) == (1, 1, 1.0)
    assert [(one["within_s"], one["target"]) for one in line["answers"]] == [(60, 0.975), (180, 0.99)]
    assert line["answers"][0]["rate"] is None  # not three minutes old
    assert line["first_answer"]["p50"] >= 0
    assert api.items("/stats/alarms", group_by="device_model")[0]["key"] == "reported_by_a_person"
    assert api.items("/stats/alarms", **{"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"}) == []
    assert api.get("/stats/alarms", params={"from": "2020-01-01T00:00:00Z"}).status_code == 422
    assert live.user("visitor", village).get("/stats/alarms").status_code == 403
    assert live.admin.seen(f"/devices/ws-{village}")["model"] == "Milesight WS101"
