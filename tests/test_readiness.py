"""What would fail before an alarm does (invariant 8): each finding appears and disappears. All people are invented."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from app.db import transaction
from app.elders.vocabulary import DutyRole
from app.readiness import Finding, beat, leave, look
from tests.world import OTHER_VILLAGE, START, VILLAGE, Person, World

FAMILY = "王小明"


@pytest.fixture
async def ready(world: World) -> tuple[World, Person]:
    """A village where nothing is missing."""
    elder = await world.elder()
    await world.contact(elder, FAMILY)
    await world.village_head()
    await world.message(await world.device(elder, "button"), {"type": "heartbeat"})
    assert await world.findings() == {}
    return world, elder


async def found(world: World, name: str) -> Finding:
    """The one finding there is."""
    findings = await world.findings()
    assert list(findings) == [name]
    assert "王" not in findings[name].detail
    assert "138" not in str(findings[name])
    return findings[name]


@pytest.mark.parametrize("how", ["none", "without a channel", "no emergency contact"])
async def test_an_elder_without_a_reachable_contact(ready: tuple[World, Person], how: str) -> None:
    world, _ = ready
    lonely = await world.elder("李秀兰")
    if how == "without a channel":
        await world.contact(lonely, "邻居", channels=())
    if how == "no emergency contact":
        await world.contact(lonely, "邻居", is_emergency=False)
    finding = await found(world, "elder_without_reachable_contact")
    assert (finding.blocking, finding.count, finding.ids) == (False, 1, (str(lonely.id),))
    await world.contact(lonely, "女儿")
    assert await world.findings() == {}


async def test_an_elder_who_is_not_active_is_no_finding(ready: tuple[World, Person]) -> None:
    world, _ = ready
    await world.elder("李秀兰", status="moved")
    assert await world.findings() == {}


async def test_a_device_that_was_never_seen(ready: tuple[World, Person]) -> None:
    world, elder = ready
    device = await world.device(elder, "silent")
    await world.device(None, "in a drawer")
    assert (await found(world, "device_never_seen")).ids == (device,)
    await world.message(device, {"online": True}, leaf="status")
    assert await world.findings() == {}


@pytest.mark.parametrize("role", [DutyRole.VILLAGE_HEAD, DutyRole.DEPUTY])
async def test_a_roster_hole(ready: tuple[World, Person], role: DutyRole) -> None:
    world, _ = ready
    elder = await world.elder("李秀兰", region=OTHER_VILLAGE)
    await world.contact(elder, "女儿")
    await world.office("已卸任", region=OTHER_VILLAGE, until=date(2026, 11, 22))
    await world.office("将上任", region=OTHER_VILLAGE, since=date(2026, 11, 24))
    await world.office("无手机", DutyRole.DEPUTY, region=OTHER_VILLAGE, channels=())
    assert (await found(world, "roster_hole")).ids == (OTHER_VILLAGE,)
    await world.office("在任", role, region=OTHER_VILLAGE, until=date(2026, 11, 23))
    assert await world.findings() == {}
    # The last day is the district's own: 16:00 UTC is midnight there, and the next one's office begins.
    world.clock.now = START.replace(hour=15, minute=59)
    assert await world.findings() == {}


async def test_the_day_of_an_office_is_the_districts_not_utcs(ready: tuple[World, Person]) -> None:
    world, _ = ready
    await world.do("UPDATE duties SET until = DATE '2026-11-23'")
    assert await world.findings() == {}
    world.clock.now = START.replace(hour=16)
    assert (await found(world, "roster_hole")).ids == (VILLAGE,)


async def test_an_overdue_step_and_stuck_notices(ready: tuple[World, Person]) -> None:
    world, elder = ready
    await world.message("button", {"type": "sos"})  # and no worker runs
    assert await world.findings() == {}
    world.clock.now += timedelta(seconds=31)
    finding = await found(world, "stuck_notice")
    assert (finding.blocking, finding.count) == (True, 2)  # contact and village head; the desk's is the feed
    world.clock.now = START + timedelta(seconds=120 + 31)
    findings = await world.findings()
    assert set(findings) == {"overdue_step", "stuck_notice"}
    assert findings["overdue_step"].ids == (str((await world.alarm(elder)).id),)
    assert findings["overdue_step"].blocking
    await world.settle()
    assert await world.findings() == {}


async def test_a_notice_that_a_dead_worker_holds_is_stuck(ready: tuple[World, Person]) -> None:
    world, _ = ready
    await world.message("button", {"type": "sos"})
    await world.do(
        "UPDATE notices SET state = 'sending', due_at = :lease WHERE state = 'pending'",
        lease=START + timedelta(seconds=30),
    )
    world.clock.now += timedelta(seconds=61)
    assert (await found(world, "stuck_notice")).count == 2
    await world.settle()
    assert await world.findings() == {}


async def test_an_alarm_of_which_nobody_could_be_told(ready: tuple[World, Person]) -> None:
    world, elder = ready
    world.dead(f"{FAMILY}:webhook")
    world.dead("村主任:webhook")
    await world.press_sos("button")
    finding = await found(world, "unreachable_alarm")
    assert finding.ids == (str((await world.alarm(elder)).id),)
    world.works(f"{FAMILY}:webhook")
    await world.pass_time(minutes=5)
    assert await world.findings() == {}


@pytest.mark.parametrize("how", ["silent", "reports a fault"])
async def test_a_dead_part(ready: tuple[World, Person], how: str) -> None:
    world, _ = ready

    async def says(*, ok: bool) -> None:
        async with transaction(world.sessions) as session:
            await beat(session, process="host:1", part="ingest", ok=ok, detail="", now=world.clock.now)

    await says(ok=True)
    assert await world.findings() == {}
    if how == "silent":
        world.clock.now += timedelta(seconds=31)
    else:
        await says(ok=False)
    finding = await found(world, "dead_part")
    assert (finding.blocking, finding.ids) == (True, ("host:1 ingest",))
    await says(ok=True)
    assert await world.findings() == {}
    if how == "silent":
        world.clock.now += timedelta(minutes=11)  # a machine that is no more is forgotten
    else:
        async with transaction(world.sessions) as session:
            await leave(session, process="host:1")
        world.clock.now += timedelta(minutes=1)
    assert await world.findings() == {}


async def test_work_that_no_running_process_does(ready: tuple[World, Person]) -> None:
    """A part that died long ago is forgotten; that nobody stands in for it is not."""
    world, _ = ready

    async def missing(*doing: str) -> set[str]:
        async with world.sessions() as session:
            found = await look(
                session, now=world.clock.now, today=START.date(), embedded_broker=None, doing=frozenset(doing)
            )
        assert all(finding.blocking for finding in found)
        return {part for finding in found for part in finding.ids}

    assert await missing("api") == {"ingest", "worker"}
    assert await missing("api", "ingest", "worker") == set()
    async with transaction(world.sessions) as session:
        await beat(session, process="host:1", part="api+ingest", ok=True, detail="", now=world.clock.now)
        await beat(session, process="host:2", part="worker", ok=True, detail="", now=world.clock.now)
    assert await missing("api") == set()
    world.clock.now += timedelta(minutes=11)
    assert await missing("api") == {"ingest", "worker"}


async def test_an_old_schema_is_found(ready: tuple[World, Person]) -> None:
    world, _ = ready
    revision = await world.value("SELECT version_num FROM alembic_version")
    await world.do("UPDATE alembic_version SET version_num = '0000'")
    assert (await found(world, "schema")).blocking
    await world.do("UPDATE alembic_version SET version_num = :r", r=revision)
    assert await world.findings() == {}


async def test_a_finding_names_a_sample_and_counts_all(world: World) -> None:
    await world.elders([f"老人{n}" for n in range(25)])
    finding = (await world.findings())["elder_without_reachable_contact"]
    assert (finding.count, len(finding.ids)) == (25, 20)
