"""The alarm's life as stories (design section 6; invariants 2, 3 and 4). All people are invented."""

from __future__ import annotations

import asyncio
import itertools
from datetime import date, timedelta
from uuid import uuid4

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.alarms import facts, handling, state
from app.alarms.answering import Action, answer, invitation
from app.alarms.escalation import default_plan, make_plan
from app.alarms.links import LINK_LIFE, Links
from app.alarms.raising import Report, raise_alarms
from app.alarms.state import MOVES, Move
from app.alarms.vocabulary import AlarmState, Outcome
from app.db import last_acts, transaction
from app.elders.vocabulary import DutyRole
from app.errors import IllegalTransition, LinkExpired, NotFound
from app.ids import NoticeId
from app.notify.channel import GiveUp, Letter, Sent
from app.notify.vocabulary import ChannelKind
from app.rules.verdict import AlarmKind, Severity
from tests.world import OTHER_VILLAGE, START, TOWNSHIP, TZ, VILLAGE, Person, World

FAMILY = "王小明"


async def call(world: World, *contacts: str) -> tuple[Person, str]:
    """An elder with contacts and a button, not yet pressed."""
    elder = await world.elder()
    for name in contacts or (FAMILY,):
        await world.contact(elder, name)
    return elder, await world.device(elder)


# --- the first instant ----------------------------------------------------------------------------------------------------


async def test_everybody_of_the_first_step_is_told_at_once(world: World) -> None:
    elder, button = await call(world, "女儿", "儿子")
    await world.contact(elder, "朋友", is_emergency=False)
    await world.visitor("探访员", of=elder)
    await world.village_head()
    await world.township_duty()
    await world.press_sos(button)
    for name in ("女儿", "儿子", "探访员", "村主任"):
        assert world.expect_heard(name, "alarm.raised").at == START
    assert [notice.sent_at for notice in await world.desk_notices("alarm.raised")] == [START]
    world.hears_nothing("朋友")  # not an emergency contact
    world.hears_nothing("镇值班")  # the township comes with the next step


async def test_one_slow_channel_holds_back_nobody(world: World) -> None:
    """In parallel: the slow one's letter is still under way when all others have theirs."""
    _, button = await call(world, "慢", "快1", "快2")
    others_have_it = asyncio.Event()

    async def slow(_: Letter) -> Sent:
        await asyncio.wait_for(others_have_it.wait(), 5)
        return Sent()

    world.on_send("慢:webhook", slow)
    pressing = asyncio.create_task(world.press_sos(button))
    while {h.who for h in world.heard} < {"快1", "快2"}:
        await asyncio.sleep(0.005)
        assert not pressing.done(), world.story()
    world.hears_nothing("慢")
    others_have_it.set()
    await pressing
    world.expect_heard("慢", "alarm.raised")


async def test_one_person_in_two_roles_hears_once(world: World) -> None:
    elder, button = await call(world)
    head = await world.village_head()
    await world.do(
        "INSERT INTO assignments (id, elder_id, visitor_id, role, created_at) "
        "VALUES (gen_random_uuid(), :elder, :visitor, 'primary', now())",
        elder=elder.id, visitor=head.id,
    )  # fmt: skip
    await world.press_sos(button)
    world.expect_heard("村主任", "alarm.raised", times=1)


async def test_the_deputy_stands_in_only_where_nobody_is_village_head_today(world: World) -> None:
    _, button = await call(world)
    await world.office("副主任", DutyRole.DEPUTY)
    await world.office("前主任", until=date(2026, 11, 22))
    await world.press_sos(button)
    world.expect_heard("副主任", "alarm.raised")
    world.hears_nothing("前主任")
    await world.village_head()
    world.forget()
    await world.pass_time(seconds=120)
    world.expect_heard("村主任", "alarm.escalated")
    world.hears_nothing("副主任")


async def test_an_alarm_and_its_first_notices_are_one_transaction(world: World) -> None:
    """Invariant 2: a rollback leaves neither, a commit leaves both with the time of what comes next."""
    elder, _ = await call(world)
    report = Report(elder.id, VILLAGE, AlarmKind.SOS, Severity.CRITICAL, "按", START, START)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with transaction(world.sessions) as session:
            await raise_alarms(session, [report], now=START, tz=TZ)
            raise ZeroDivisionError
    assert not await world.alarms()
    assert await world.value("SELECT count(*) FROM notices") == 0
    assert not await world.feed()
    async with transaction(world.sessions) as session:
        await raise_alarms(session, [report], now=START, tz=TZ)
    assert await world.value("SELECT count(*) FROM notices WHERE state = 'pending'") == 1
    assert (await world.alarm(elder)).next_at == START + timedelta(seconds=120)


async def test_no_unresolved_alarm_without_a_next_time(world: World) -> None:
    """Invariant 2 by the database."""
    elder, button = await call(world)
    await world.press_sos(button)
    with pytest.raises(IntegrityError, match="unresolved_has_a_next_time"):
        await world.do("UPDATE alarms SET next_at = NULL WHERE elder_id = :id", id=elder.id)


# --- steps ----------------------------------------------------------------------------------------------------------------


async def test_steps_come_at_their_time_and_the_last_repeats_without_end(world: World) -> None:
    _, button = await call(world)
    await world.township_duty()
    await world.policy((60, ["emergency_contacts"]), (200, ["township_duty", "operators"]), repeat=100)
    start = world.clock.now
    await world.press_sos(button)
    await world.pass_time(seconds=59)
    assert [h.type for h in world.heard_by(FAMILY)] == ["alarm.raised"]
    await world.pass_time(seconds=1)
    first = world.expect_heard(FAMILY, "alarm.escalated")
    assert "60秒" in first.reason
    await world.pass_time(seconds=139)
    world.hears_nothing("镇值班")
    await world.pass_time(seconds=60 * 60 - 199)
    told = [(h.at - start).total_seconds() for h in world.heard_by("镇值班")]
    assert told == [200.0 + 100 * n for n in range(35)]  # 200 … 3600: nobody answered, and it never ends
    assert world.heard_by("镇值班")[-1].reason == "仍无人应答,再次通知"
    world.expect_heard(FAMILY, "alarm.escalated", times=1)


async def test_the_plan_is_frozen_and_the_people_are_not(world: World) -> None:
    elder, button = await call(world)
    await world.policy((60, ["emergency_contacts"]), repeat=1000)
    await world.press_sos(button)
    await world.policy((10, ["emergency_contacts"]), (20, ["township_duty"]), repeat=5)
    await world.township_duty()
    late = await world.contact(elder, "孙女")
    await world.pass_time(seconds=59)
    world.hears_nothing("孙女")
    world.hears_nothing("镇值班")
    world.expect_heard(FAMILY, "alarm.raised")
    await world.pass_time(seconds=2)
    world.expect_heard("孙女", "alarm.escalated")
    world.expect_heard(FAMILY, "alarm.escalated")
    await world.do("DELETE FROM contacts WHERE id = :id", id=late.id)
    world.forget()
    await world.pass_time(seconds=1000)
    world.expect_heard(FAMILY, "alarm.escalated")
    world.hears_nothing("孙女")


async def test_a_step_with_nobody_in_it_costs_no_time(world: World) -> None:
    elder = await world.elder()
    button = await world.device(elder)
    await world.policy((60, ["village_head"]), (600, ["township_duty"]), (900, ["operators"]), repeat=1000)
    await world.township_duty()
    await world.press_sos(button)
    start = world.clock.now
    # Neither contacts nor a visitor nor a village head: the township duty hears in the same instant.
    assert world.expect_heard("镇值班", "alarm.escalated").at == start
    assert (await world.alarm(elder)).step == 2
    assert not await world.feed("alarm.unreachable")


async def test_a_last_step_with_nobody_in_it_calls_again_whom_the_plan_names(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, "孙女")
    await world.policy((60, ["emergency_contacts"]), (300, ["township_duty"]), repeat=60)
    await world.press_sos(await world.device(elder))
    await world.pass_time(seconds=61)
    world.forget()
    await world.pass_time(seconds=240)  # the township has nobody on duty
    world.expect_heard("孙女", "alarm.escalated")
    world.forget()
    await world.pass_time(seconds=61)
    world.expect_heard("孙女", "alarm.escalated")
    assert not await world.feed("alarm.unreachable")
    assert (await world.alarm(elder)).unreachable_since is None


async def test_a_last_step_of_the_desk_alone_does_not_say_that_nobody_was_reached(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, "孙女")
    await world.policy((60, ["operators"]), repeat=60)
    await world.press_sos(await world.device(elder))
    world.expect_heard("孙女", "alarm.raised")
    await world.pass_time(seconds=200)
    assert len(await world.desk_notices("alarm.escalated")) >= 2
    assert not await world.feed("alarm.unreachable")


async def test_a_step_of_the_desk_alone_takes_its_time(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, "孙女")
    await world.policy((60, ["operators"]), (600, ["township_duty"]), repeat=60)
    await world.township_duty()
    await world.press_sos(await world.device(elder))
    await world.pass_time(seconds=61)
    assert len(await world.desk_notices("alarm.escalated")) == 1
    world.hears_nothing("镇值班")
    await world.pass_time(seconds=540)
    world.expect_heard("镇值班", "alarm.escalated")


async def test_nobody_at_all_is_said_loudly_and_it_goes_on_trying(world: World) -> None:
    elder = await world.elder()
    await world.press_sos(await world.device(elder))
    said = await world.feed("alarm.unreachable")
    assert [fact.data["because"] for fact in said] == ["nobody of any step has a channel"]
    alarm = await world.alarm(elder)
    assert alarm.unreachable_since == START
    assert alarm.next_at is not None
    assert len(await world.desk_notices("alarm.raised")) == 1
    await world.pass_time(minutes=30)
    assert len(await world.desk_notices("alarm.escalated")) >= 10
    assert len(await world.feed("alarm.unreachable")) >= 10
    await world.contact(elder, "侄子")
    await world.pass_time(minutes=3)
    world.expect_heard("侄子", "alarm.escalated")
    assert (await world.alarm(elder)).unreachable_since is None


async def test_after_s_counts_from_the_raising_not_from_the_step_before(world: World) -> None:
    _, button = await call(world)
    await world.policy((30, ["emergency_contacts"]), (50, ["emergency_contacts"]), (55, ["emergency_contacts"]))
    await world.press_sos(button)
    start = world.clock.now
    await world.pass_time(seconds=60)
    assert [(h.at - start).total_seconds() for h in world.heard_by(FAMILY)] == [0, 30, 50, 55]


@pytest.mark.unit
def test_the_first_instant_is_the_district_policys_whatever_a_policy_says() -> None:
    for severity in (Severity.CRITICAL, Severity.MAJOR, Severity.MINOR):
        plan = make_plan("x", [{"after_s": 60, "targets": ["township_duty"]}], 60, severity=severity)
        assert plan.steps[0].after_s == 0
        assert {"emergency_contacts", "assigned_visitors", "village_head", "operators"} == set(plan.steps[0].targets)
        assert default_plan(severity).steps[0].targets == plan.steps[0].targets


async def test_the_nearest_regions_policy_wins_then_the_newest(world: World) -> None:
    await world.policy((10, ["emergency_contacts"]), region=VILLAGE, name="village, old")
    await world.policy((10, ["emergency_contacts"]), region=VILLAGE, name="village")
    await world.policy((10, ["emergency_contacts"]), region=TOWNSHIP, name="township")
    await world.policy((10, ["emergency_contacts"]), name="district")
    await world.policy((10, ["emergency_contacts"]), severity="major", region=VILLAGE, name="another severity")
    here, there = await world.elder("甲"), await world.elder("乙", region=OTHER_VILLAGE)
    await world.press_sos(await world.device(here))
    await world.press_sos(await world.device(there))
    assert (await world.alarm(here)).plan["name"] == "village"
    assert (await world.alarm(there)).plan["name"] == "township"


async def test_an_operator_escalates_now(world: World) -> None:
    elder, button = await call(world)
    await world.township_duty()
    await world.press_sos(button)
    await world.operator(elder, "escalate")
    await world.settle()
    assert world.expect_heard("镇值班", "alarm.escalated").at == START
    await world.operator(elder, "acknowledge")
    with pytest.raises(IllegalTransition, match="does not escalate"):
        await world.operator(elder, "escalate")


async def test_two_workers_take_a_due_step_once(world: World) -> None:
    """Invariant 4: many looks and many dispatchers at once; each contact is told once."""
    elders = await world.elders([f"老人{n}" for n in range(12)])
    for elder in elders:
        await world.contact(elder, f"{elder.name}家人")
    await world.ingest.swallow([world.frame(await world.device(elder), {"type": "sos"}) for elder in elders])
    await asyncio.gather(*(world.another_dispatcher().drain() for _ in range(3)))
    world.clock.now += timedelta(seconds=120)
    taken = await asyncio.gather(*(world.ticks.look() for _ in range(4)))
    assert sum(taken) == 12
    await asyncio.gather(*(world.another_dispatcher().drain() for _ in range(3)))
    for elder in elders:
        world.expect_heard(f"{elder.name}家人", "alarm.raised", times=1)
        world.expect_heard(f"{elder.name}家人", "alarm.escalated", times=1)


# --- promises -------------------------------------------------------------------------------------------------------------


async def test_a_promise_that_passes_opens_the_alarm_again_and_names_who_promised(world: World) -> None:
    elder, button = await call(world, "女儿", "儿子")
    await world.press_sos(button)
    await world.answers("女儿", eta=20)
    await world.settle()
    assert "女儿" in world.expect_heard("儿子", "alarm.acknowledged").reason
    world.forget()
    await world.pass_time(minutes=19, seconds=59)
    assert (await world.alarm(elder)).state == "acknowledged"
    assert not world.heard_by("儿子")  # nobody is asked while somebody is on the way
    await world.pass_time(seconds=1)
    alarm = await world.alarm(elder)
    assert (alarm.state, alarm.promise_due_at, alarm.acknowledged_by) == ("open", None, None)
    assert len(await world.desk_notices("alarm.reopened")) == 1
    for name in ("女儿", "儿子"):
        reason = world.expect_heard(name, "alarm.reopened").reason
        assert "女儿" in reason
        assert "20分钟" in reason
    assert (await world.feed("alarm.reopened"))[-1].data["because"] == world.expect_heard(
        "儿子", "alarm.reopened"
    ).reason
    world.forget()
    await world.pass_time(minutes=10)
    assert world.heard_by("儿子", "alarm.escalated")  # escalation goes on


async def test_the_promise_is_15_minutes_when_none_is_given(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.answers(FAMILY)
    assert (await world.alarm(elder)).promise_due_at == START + timedelta(minutes=15)


async def test_somebody_who_arrived_keeps_the_promise(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.answers(FAMILY, eta=10)
    await world.answers(FAMILY, Action.ATTEND)
    world.forget()
    await world.pass_time(minutes=59)
    assert (await world.alarm(elder)).state == "attending"
    world.hears_nothing(FAMILY)
    await world.pass_time(minutes=1)  # and then somebody asks how it ended
    world.expect_heard(FAMILY, "alarm.reminded")


# --- repeats --------------------------------------------------------------------------------------------------------------


async def test_a_repeat_joins(world: World) -> None:
    elder, button = await call(world)
    for _ in range(3):
        await world.press_sos(button)
    assert (await world.alarm(elder)).repeats == 2
    world.expect_heard(FAMILY, "alarm.raised", times=1)
    await world.operator(elder, "resolve")
    world.clock.now += timedelta(seconds=1)
    await world.press_sos(button)
    assert [alarm.state for alarm in await world.alarms(elder)] == ["resolved", "open"]


async def test_presses_of_one_batch_are_counted(world: World) -> None:
    elder, button = await call(world)
    await world.ingest.swallow([world.frame(button, {"type": "sos", "id": str(n)}) for n in range(5)])
    assert (await world.alarm(elder)).repeats == 4


async def test_a_repeat_tells_the_one_who_promised_again(world: World) -> None:
    _, button = await call(world, "女儿", "儿子")
    await world.press_sos(button)
    await world.answers("女儿")
    await world.settle()
    world.forget()
    world.clock.now += timedelta(seconds=60)
    await world.press_sos(button)
    world.expect_heard("女儿", "alarm.repeated")
    world.hears_nothing("儿子")
    await world.press_sos(button)  # a bouncing button does not ring ten times
    world.expect_heard("女儿", "alarm.repeated", times=1)
    world.clock.now += timedelta(seconds=11)
    await world.press_sos(button)
    world.expect_heard("女儿", "alarm.repeated", times=2)


async def test_kinds_do_not_mix(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.message(button, {"type": "smoke", "active": True})
    assert {alarm.kind for alarm in await world.alarms(elder)} == {"sos", "smoke"}


async def test_one_unresolved_alarm_per_elder_and_kind_by_the_database(world: World) -> None:
    """Invariant 4: many transactions at once, and the constraint itself."""
    elder, _ = await call(world)
    report = Report(elder.id, VILLAGE, AlarmKind.SOS, Severity.CRITICAL, "按", START, START)

    async def raise_it() -> None:
        async with transaction(world.sessions) as session:
            await raise_alarms(session, [report], now=START, tz=TZ)

    await asyncio.gather(*(raise_it() for _ in range(8)))
    alarm = await world.alarm(elder)
    assert alarm.repeats == 7
    await world.settle()
    world.expect_heard(FAMILY, "alarm.raised", times=1)
    columns = (
        "elder_id, region_code, kind, severity, state, because, occurred_at, received_at, late, raised_at, "
        "repeats, plan, plan_from, step, round, next_at, version"
    )
    with pytest.raises(IntegrityError, match="uq_alarms_unresolved"):
        await world.do(
            f"INSERT INTO alarms (id, {columns}) SELECT gen_random_uuid(), {columns} FROM alarms WHERE id = :id",
            id=alarm.id,
        )


# --- «I am fine» ----------------------------------------------------------------------------------------------------------


async def test_cancel_lowers_the_urgency_and_is_asked_again_until_somebody_looks(world: World) -> None:
    elder, button = await call(world)
    await world.township_duty()
    await world.press_sos(button)
    await world.message(button, {"type": "cancel"})
    await world.settle()
    alarm = await world.alarm(elder)
    assert (alarm.severity, alarm.state) == ("minor", "open")
    world.expect_heard(FAMILY, "alarm.calmed")
    world.forget()
    await world.pass_time(minutes=14)
    world.hears_nothing(FAMILY)  # less urgent: not after 2 minutes
    await world.pass_time(minutes=1)
    world.expect_heard(FAMILY, "alarm.escalated")
    world.expect_heard("镇值班", "alarm.escalated")
    await world.pass_time(minutes=45)
    world.expect_heard(FAMILY, "alarm.escalated", times=4)  # every 15 minutes, without end
    await world.answers(FAMILY, Action.RESOLVE, outcome=Outcome.ELDER_WELL)
    await world.settle()
    world.forget()
    await world.pass_time(minutes=60)
    world.hears_nothing(FAMILY)


async def test_sos_after_cancel_is_urgent_again(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.message(button, {"type": "cancel"})
    await world.settle()
    world.forget()
    world.clock.now += timedelta(seconds=30)
    await world.press_sos(button)
    alarm = await world.alarm(elder)
    assert (alarm.severity, alarm.repeats, alarm.step) == ("critical", 1, 0)
    world.expect_heard(FAMILY, "alarm.raised")
    assert alarm.next_at == world.clock.now + timedelta(seconds=120)


@pytest.mark.parametrize(("events", "severity"), [
    (["sos", "cancel"], "minor"), (["cancel", "sos"], "critical"), (["sos", "cancel", "sos"], "critical"),
])  # fmt: skip
async def test_within_one_batch_the_order_counts(world: World, events: list[str], severity: str) -> None:
    elder, button = await call(world)
    await world.ingest.swallow([world.frame(button, {"type": event}) for event in events])
    assert (await world.alarm(elder)).severity == severity


async def test_a_fire_is_not_cancelled_by_a_button(world: World) -> None:
    elder, button = await call(world)
    await world.message(button, {"type": "smoke", "active": True})
    await world.message(button, {"type": "cancel"})
    assert (await world.alarm(elder)).severity == "critical"


async def test_cancel_while_somebody_is_on_the_way_keeps_the_promise(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.answers(FAMILY, eta=10)
    await world.message(button, {"type": "cancel"})
    alarm = await world.alarm(elder)
    assert (alarm.state, alarm.severity) == ("acknowledged", "minor")
    assert alarm.next_at == START + timedelta(minutes=10)


async def test_an_older_cancel_does_not_calm_a_newer_alarm(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    hour_ago = (START - timedelta(hours=1)).isoformat()
    await world.message(button, {"type": "cancel", "ts": hour_ago})
    assert (await world.alarm(elder)).severity == "critical"


# --- channels that fail ---------------------------------------------------------------------------------------------------


async def test_a_dead_channel_starts_the_next_one_now(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, FAMILY, channels=["webhook", "sms", "voice"])
    world.dead(f"{FAMILY}:webhook")
    world.dead(f"{FAMILY}:sms")
    await world.press_sos(await world.device(elder))
    heard = world.expect_heard(FAMILY, "alarm.raised", channel="voice")
    assert heard.at == START
    states = await world.rows("SELECT channel, state, error FROM notices WHERE recipient_type = 'contact' ORDER BY id")
    assert {(row.channel, row.state) for row in states} == {("webhook", "failed"), ("sms", "failed"), ("voice", "sent")}
    assert not await world.feed("alarm.unreachable")


async def test_a_channel_that_may_work_later_is_tried_again_beside_the_next_one(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, FAMILY, channels=["webhook", "sms"])
    world.away(f"{FAMILY}:webhook")
    await world.press_sos(await world.device(elder))
    assert world.expect_heard(FAMILY, "alarm.raised", channel="sms").at == START
    world.works(f"{FAMILY}:webhook")
    await world.pass_time(seconds=2)
    first = world.expect_heard(FAMILY, "alarm.raised", channel="webhook")
    again = [i for i, address in enumerate(world.recordings[ChannelKind.WEBHOOK].tried) if address.startswith(FAMILY)]
    assert len(again) == 2
    assert first.letter.notice_id == (
        await world.value("SELECT id FROM notices WHERE channel = 'webhook' AND recipient_type = 'contact'")
    )


async def test_when_every_channel_of_everybody_failed_it_is_said_and_goes_on(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, FAMILY, channels=["webhook", "sms"])
    await world.township_duty(channels=["voice"])
    for address in (f"{FAMILY}:webhook", f"{FAMILY}:sms", "镇值班:voice"):
        world.dead(address)
    await world.press_sos(await world.device(elder))
    assert "every channel" in (await world.feed("alarm.unreachable"))[0].data["because"]
    assert "镇值班:voice" in world.recordings[ChannelKind.VOICE].tried  # the next step costs no time then
    world.works(f"{FAMILY}:sms")
    await world.pass_time(minutes=10)
    assert world.heard_by(FAMILY, "alarm.escalated")
    assert (await world.alarm(elder)).unreachable_since is None


async def test_a_channel_that_raises_does_not_stop_the_others_or_the_dispatcher(world: World) -> None:
    _, button = await call(world, "坏", "好")

    async def broken(_: Letter) -> Sent:
        raise ValueError("a mistake in a channel")

    world.on_send("坏:webhook", broken)
    await world.press_sos(button)
    world.expect_heard("好", "alarm.raised")
    world.on_send("坏:webhook", lambda _: asyncio.sleep(0, Sent()))
    await world.pass_time(seconds=5)
    world.expect_heard("坏", "alarm.raised")


async def test_a_seal_that_does_not_open_stops_only_its_own_letter(world: World) -> None:
    """A channel sealed with another key (a restored backup): everybody else is told."""
    _, button = await call(world, "坏", "好")
    await world.do(
        "UPDATE channels SET address_sealed = '\\x010203040506070809101112131415161718192021222324252627282930' "
        "WHERE contact_id = (SELECT id FROM contacts WHERE name = '坏')"
    )
    await world.press_sos(button)
    world.expect_heard("好", "alarm.raised")
    assert await world.value("SELECT count(*) FROM notices WHERE state = 'failed'") >= 1


async def test_channels_changed_while_a_notice_waits_reach_the_person_still(world: World) -> None:
    elder, button = await call(world, "儿子")
    contact = await world.contact(elder, FAMILY, channels=["webhook"])
    world.away(f"{FAMILY}:webhook")
    await world.press_sos(button)
    await world.change_channels(contact, "sms")  # somebody mends the register while it rings
    await world.pass_time(seconds=119)
    world.expect_heard(FAMILY, "alarm.raised", channel="sms")


async def test_a_worker_that_died_while_sending_is_followed_by_another_with_the_same_notice(world: World) -> None:
    """Invariant 3: the claim outlives its worker only for the lease."""
    _, button = await call(world)
    await world.message(button, {"type": "sos"})
    hanging = asyncio.Event()

    async def hang(_: Letter) -> Sent:
        hanging.set()
        await asyncio.sleep(60)
        return Sent()

    world.on_send(f"{FAMILY}:webhook", hang)
    dies = asyncio.create_task(world.another_dispatcher().drain())
    await asyncio.wait_for(hanging.wait(), 5)
    dies.cancel()
    world.works(f"{FAMILY}:webhook")
    await world.settle()
    world.hears_nothing(FAMILY)  # it is somebody's, as far as anybody knows
    await world.pass_time(seconds=31)
    heard = world.expect_heard(FAMILY, "alarm.raised")
    assert await world.value("SELECT attempts FROM notices WHERE id = :id", id=heard.letter.notice_id) == 2


async def test_a_worker_that_wakes_after_its_lease_does_not_write_over_its_successor(world: World) -> None:
    _, button = await call(world)
    await world.message(button, {"type": "sos"})
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def sleep(_: Letter) -> Sent:
        asleep.set()
        await wake.wait()
        return Sent()

    world.on_send(f"{FAMILY}:webhook", sleep)
    slow = asyncio.create_task(world.another_dispatcher().drain())
    await asyncio.wait_for(asleep.wait(), 5)
    world.dead(f"{FAMILY}:webhook")
    world.clock.now += timedelta(seconds=31)
    await world.settle()
    wake.set()
    await slow
    row = (await world.rows("SELECT state, attempts FROM notices WHERE recipient_type = 'contact'"))[0]
    assert (row.state, row.attempts) == ("failed", 2)


async def test_a_worker_that_wakes_while_its_successor_sends_decides_nothing(world: World) -> None:
    """The fence: the attempt, not only the state, says whose notice it is."""
    _, button = await call(world)
    await world.message(button, {"type": "sos"})
    sending = [asyncio.Event(), asyncio.Event()]
    goes_on = [asyncio.Event(), asyncio.Event()]
    ends: list[GiveUp | Sent] = [GiveUp("the first could not"), Sent()]
    tries = itertools.count()

    async def take_turns(_: Letter) -> GiveUp | Sent:
        turn = next(tries)
        sending[turn].set()
        await goes_on[turn].wait()
        return ends[turn]

    world.on_send(f"{FAMILY}:webhook", take_turns)
    first = asyncio.create_task(world.another_dispatcher().drain())
    await asyncio.wait_for(sending[0].wait(), 5)
    world.clock.now += timedelta(seconds=31)
    second = asyncio.create_task(world.another_dispatcher().drain())
    await asyncio.wait_for(sending[1].wait(), 5)
    state = "SELECT state FROM notices WHERE recipient_type = 'contact'"
    goes_on[0].set()
    await first
    assert await world.value(state) == "sending"
    assert not await world.feed("notice.failed")
    goes_on[1].set()
    await second
    assert await world.value(state) == "sent"


# --- answering ------------------------------------------------------------------------------------------------------------


async def test_acknowledging_cancels_what_is_pending_in_the_same_transaction(world: World) -> None:
    """Invariant 3: no moment between «somebody comes» and «others are still called»."""
    elder, button = await call(world, "女儿", "儿子")
    await world.message(button, {"type": "sos"})
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with transaction(world.sessions) as session:
            held = await handling.hold(session, (await world.alarm(elder)).id)
            await handling.acknowledge(
                session, held, by={"type": "user", "name": "x"}, eta_minutes=5, note=None, now=START
            )
            raise ZeroDivisionError
    assert await world.value("SELECT count(*) FROM notices WHERE state = 'pending'") == 2
    await world.operator(elder, "acknowledge")
    states = await world.rows("SELECT state FROM notices WHERE purpose = 'alarm.raised' AND recipient_type = 'contact'")
    assert {row.state for row in states} == {"cancelled"}
    await world.settle()
    assert not [h for h in world.heard if h.type == "alarm.raised"]


async def test_a_notice_under_way_is_not_tried_again_after_an_answer(world: World) -> None:
    elder, button = await call(world)

    async def answered_meanwhile(_: Letter) -> object:
        await world.operator(elder, "acknowledge")
        world.away(f"{FAMILY}:webhook")
        return await world.recordings[ChannelKind.WEBHOOK].behaviour[f"{FAMILY}:webhook"](_)

    world.on_send(f"{FAMILY}:webhook", answered_meanwhile)  # type: ignore[arg-type]
    await world.press_sos(button)
    state_ = await world.value(
        "SELECT state FROM notices WHERE purpose = 'alarm.raised' AND recipient_type = 'contact'"
    )
    assert state_ == "cancelled"


async def test_an_answered_alarm_does_not_escalate(world: World) -> None:
    elder, button = await call(world)
    await world.township_duty()
    await world.press_sos(button)
    await world.operator(elder, "attend")
    await world.pass_time(minutes=50)
    world.hears_nothing("镇值班")


async def test_the_elders_device_is_told_on_its_command_topic(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.answers(FAMILY, eta=7)
    await world.settle()
    heard = world.expect_heard(button, "alarm_state", channel="device")
    assert heard.letter.payload["state"] == "acknowledged"
    assert heard.letter.payload["alarm_id"] == str((await world.alarm(elder)).id)
    assert FAMILY in heard.letter.payload["message"]
    assert "7分钟" in heard.letter.payload["message"]
    await world.answers(FAMILY, Action.ATTEND)
    await world.answers(FAMILY, Action.RESOLVE, outcome=Outcome.FALSE_ALARM)
    await world.settle()
    states = [h.letter.payload["state"] for h in world.heard_by(button)]
    assert states[0] == "acknowledged"
    assert states[-1] == "resolved"


async def test_a_device_that_is_away_does_not_make_the_alarm_unreachable(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    world.recordings[ChannelKind.DEVICE].behaviour[button] = lambda _: asyncio.sleep(0, Sent())
    await world.answers(FAMILY)
    await world.settle()
    assert (await world.alarm(elder)).unreachable_since is None


# --- states ---------------------------------------------------------------------------------------------------------------

BY_PERSON = ("acknowledge", "attend", "resolve")
ILLEGAL = [(s, m) for s, m in itertools.product(AlarmState, Move) if (s, m) not in MOVES]


@pytest.mark.unit
def test_the_table_of_moves_is_the_designs() -> None:
    wanted = {
        "open": {"acknowledge": "acknowledged", "attend": "attending", "resolve": "resolved"},
        "acknowledged": {
            "acknowledge": "acknowledged", "attend": "attending", "resolve": "resolved", "reopen": "open",
        },
        "attending": {"resolve": "resolved"},
        "resolved": {},
    }  # fmt: skip
    for now, move in itertools.product(AlarmState, Move):
        to = wanted[now.value].get(move.value)
        if to is None:
            with pytest.raises(IllegalTransition):
                state.after(now, move)
        else:
            assert state.after(now, move).value == to


@pytest.mark.parametrize(("now", "move"), [(s, m) for s, m in ILLEGAL if m.value in BY_PERSON])
async def test_every_illegal_transition_is_refused_and_changes_nothing(
    world: World, now: AlarmState, move: Move
) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    way = {"acknowledged": ["acknowledge"], "attending": ["attend"], "resolved": ["resolve"]}[now.value]
    for step in way:
        await world.operator(elder, step)
    before = (await world.alarm(elder), len(await world.feed()), await world.value("SELECT count(*) FROM notices"))
    with pytest.raises(IllegalTransition, match=now.value):
        await world.operator(elder, move.value)
    assert before == (
        await world.alarm(elder), len(await world.feed()), await world.value("SELECT count(*) FROM notices")
    )  # fmt: skip


@pytest.mark.parametrize("then", BY_PERSON)
async def test_of_two_who_answer_at_once_each_finds_the_others_state(world: World, then: str) -> None:
    """The lock: the second sees what the first did, never the state of before."""
    elder, button = await call(world)
    await world.press_sos(button)
    alarm = await world.alarm(elder)
    done = await asyncio.gather(world.act(alarm.id, "resolve"), world.act(alarm.id, then), return_exceptions=True)
    assert (await world.alarm(elder)).state == "resolved"
    # Whoever came second after «resolved» was refused; an acknowledge or attend that came first is fine.
    assert sum(isinstance(one, IllegalTransition) for one in done) == (1 if then == "resolve" else 0) or (
        isinstance(done[1], IllegalTransition)
    )
    assert not [one for one in done if isinstance(one, Exception) and not isinstance(one, IllegalTransition)]


@pytest.mark.parametrize(("column", "constraint"), [
    ("state = 'resolved', next_at = NULL, resolved_at = now()", "resolved_has_an_outcome"),
    ("state = 'acknowledged'", "acknowledged_has_a_promise"),
    ("state = 'attending'", "attending_has_somebody"),
])  # fmt: skip
async def test_a_state_without_what_it_means_is_refused_by_the_database(
    world: World, column: str, constraint: str
) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    with pytest.raises(IntegrityError, match=constraint):
        await world.do(f"UPDATE alarms SET {column} WHERE elder_id = :id", id=elder.id)


# --- answer links ---------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_only_this_servers_links_are_read() -> None:
    mine, other = Links(b"a" * 32, "http://x"), Links(b"b" * 32, "http://x")
    notice = NoticeId(uuid4())
    token = mine.token(notice)
    assert mine.read(token) == notice
    forged = [
        other.token(notice),
        token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
        token[:-4],
        token + "AAAA",
        "",
        "a",
        "%%",
        "é",
    ]
    for one in forged:
        with pytest.raises(NotFound):
            mine.read(one)


async def test_a_link_is_for_one_alarm_and_a_day(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    token = world.link(FAMILY)
    notice = world.links.read(token)
    world.clock.now = START + LINK_LIFE + timedelta(seconds=1)
    async with world.sessions() as session:
        with pytest.raises(LinkExpired):
            await invitation(session, notice, now=world.clock.now)
        with pytest.raises(NotFound):
            await invitation(session, NoticeId(elder.id), now=world.clock.now)
    world.clock.now = START + timedelta(minutes=1)
    await world.operator(elder, "resolve")
    with pytest.raises(LinkExpired, match="closed"):
        await world.answers(FAMILY)
    assert (await world.alarm(elder)).outcome == "elder_well"


async def test_the_desk_and_the_device_have_no_link(world: World) -> None:
    _, button = await call(world)
    await world.press_sos(button)
    notice = (await world.desk_notices("alarm.raised"))[0]
    async with world.sessions() as session:
        with pytest.raises(NotFound):
            await invitation(session, NoticeId(notice.id), now=world.clock.now)


async def test_the_same_answer_again_changes_nothing_after_arrival(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.answers(FAMILY, Action.ATTEND)
    for again in (Action.ATTEND, Action.ACKNOWLEDGE):
        await world.answers(FAMILY, again)
    alarm = await world.alarm(elder)
    assert alarm.state == "attending"
    assert alarm.attended_by["name"] == FAMILY


async def test_whoever_answers_by_link_is_named(world: World) -> None:
    elder, button = await call(world, "女儿", "儿子")
    await world.press_sos(button)
    await world.answers("女儿", eta=5)
    assert (await world.alarm(elder)).acknowledged_by["name"] == "女儿"
    await world.answers("儿子", eta=3)  # a nearer person
    assert (await world.alarm(elder)).acknowledged_by["name"] == "儿子"


async def test_an_end_by_link_is_told_to_the_others(world: World) -> None:
    _, button = await call(world, "女儿", "儿子")
    await world.press_sos(button)
    async with transaction(world.sessions) as session:
        to = await invitation(session, world.links.read(world.link("女儿")), now=world.time())
        await answer(
            session, to, action=Action.RESOLVE, eta_minutes=None, outcome=Outcome.HOSPITALISED, note=None, now=START,
            tz=TZ,
        )  # fmt: skip
    await world.settle()
    assert "已送医院" in world.expect_heard("儿子", "alarm.resolved").reason
    assert not world.heard_by("女儿", "alarm.resolved")


# --- the feed -------------------------------------------------------------------------------------------------------------


async def test_the_feed_carries_committed_facts_in_the_order_they_happened(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    await world.answers(FAMILY)
    await world.operator(elder, "attend")
    await world.operator(elder, "resolve")
    types = [fact.type for fact in await world.feed() if fact.type.startswith("alarm.")]
    assert types == ["alarm.raised", "alarm.acknowledged", "alarm.attending", "alarm.resolved"]


async def test_whoever_has_seen_a_number_of_the_feed_has_seen_every_one_before_it(world: World) -> None:
    """A transaction that has drawn its number and has not committed yet holds up the next; a reader would pass it by."""

    def one(session: AsyncSession, name: str) -> None:
        facts.tell(session, name, region_code="370302001001", alarm_id=None, now=START)

    async def second() -> None:
        async with transaction(world.sessions) as session:
            one(session, "test.second")

    async with world.sessions() as session, session.begin():
        one(session, "test.first")
        await last_acts(session)  # the number is drawn
        behind = asyncio.create_task(second())
        _, waiting = await asyncio.wait([behind], timeout=0.3)
        seen = [fact.type for fact in await world.feed()]
        assert waiting, "the second committed past the first"
        assert seen == []
    await behind
    assert [fact.type for fact in await world.feed()] == ["test.first", "test.second"]


async def test_a_sealed_field_that_does_not_open_silences_nobody(world: World) -> None:
    """A phone sealed with a key that is gone: the letter goes out without it."""
    elder, button = await call(world)
    await world.do(
        "UPDATE elders SET phone_sealed = :junk, address_sealed = :junk WHERE id = :id",
        junk=b"\x01" + b"x" * 40, id=elder.id,
    )  # fmt: skip
    await world.press_sos(button)
    told = world.expect_heard(FAMILY, "alarm.raised").letter.payload["data"]["alarm"]["elder"]
    assert (told["phone"], told["address"]) == (None, None)
    assert told["name"] == elder.name
