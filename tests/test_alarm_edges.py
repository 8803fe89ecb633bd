"""Where an alarm could go wrong for somebody on the floor: people taken off, offices without a telephone, buttons pressed
twice, ways that die later. Stories on a real database; all people are invented."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.alarms import facts
from app.alarms.answering import Action, invitation
from app.db import Hands, before_commit, transaction
from app.devices.vocabulary import DeviceKind
from app.elders.vocabulary import DutyRole
from app.errors import LinkExpired
from app.notify.vocabulary import ChannelKind
from tests.world import START, VILLAGE, Person, World

FAMILY, NEIGHBOUR = "女儿", "邻居"


async def call(world: World, *names: str) -> tuple[Person, str]:
    """An elder with these contacts, and her button."""
    elder = await world.elder()
    for name in names or (FAMILY,):
        await world.contact(elder, name)
    return elder, await world.device(elder)


# --- who is told ----------------------------------------------------------------------------------------------------------


async def test_the_deputy_stands_in_for_a_village_head_without_any_channel(world: World) -> None:
    _, button = await call(world)
    await world.village_head(channels=())
    await world.office("副主任", DutyRole.DEPUTY)
    await world.press_sos(button)
    world.expect_heard("副主任", "alarm.raised")


async def test_whoever_was_told_hears_that_somebody_is_there(world: World) -> None:
    """A daughter in another city, when the neighbour opens the door without having promised anything."""
    _, button = await call(world, FAMILY, NEIGHBOUR)
    await world.press_sos(button)
    await world.answers(NEIGHBOUR, Action.ATTEND)
    await world.settle()
    assert "已到现场" in world.expect_heard(FAMILY, "alarm.acknowledged").reason
    assert not world.heard_by(NEIGHBOUR, "alarm.acknowledged")


async def test_a_promise_pressed_twice_is_one_promise(world: World) -> None:
    elder, button = await call(world, FAMILY, NEIGHBOUR)
    await world.press_sos(button)
    await world.answers(FAMILY, eta=10)
    world.clock.now += timedelta(seconds=3)
    await world.answers(FAMILY, eta=10)
    await world.settle()
    world.expect_heard(NEIGHBOUR, "alarm.acknowledged", times=1)
    assert (await world.alarm(elder)).promise_due_at == START + timedelta(minutes=10)
    await world.answers(FAMILY, eta=30)  # she says that it takes longer
    await world.settle()
    world.expect_heard(NEIGHBOUR, "alarm.acknowledged", times=2)
    assert (await world.alarm(elder)).promise_due_at == world.clock.now + timedelta(minutes=30)


async def test_the_link_of_somebody_taken_off_the_contacts_shows_and_does_nothing(world: World) -> None:
    elder, button = await call(world, FAMILY, "前夫")
    await world.press_sos(button)
    link = world.links.read(world.link("前夫"))
    await world.do("DELETE FROM contacts WHERE elder_id = :id AND name = '前夫'", id=elder.id)
    async with world.sessions() as session:
        with pytest.raises(LinkExpired, match="no longer somebody"):
            await invitation(session, link, now=world.clock.now)
    await world.answers(FAMILY)


async def test_what_waits_to_be_sent_goes_to_nobody_whose_pairing_ended(world: World) -> None:
    """The provider was away when the alarm rose; before it came back the pairing ended, and a contact was taken off. The head
    of the village whose office ends stays responsible for what began on their day."""
    elder, button = await call(world, FAMILY, "前夫")
    former = await world.visitor("前志愿者", of=elder, channels=("sms", "webhook"))
    await world.village_head("老村长")
    for way in ("前志愿者:sms", "前志愿者:webhook", "老村长:webhook", "前夫:webhook"):
        world.away(way)
    await world.press_sos(button)
    await world.do("DELETE FROM contacts WHERE name = '前夫'")
    await world.do("UPDATE assignments SET ended_at = now() WHERE visitor_id = :id", id=former.id)
    await world.do("UPDATE duties SET until = :day", day=START.date())
    for way in ("前志愿者:sms", "前志愿者:webhook", "老村长:webhook", "前夫:webhook"):
        world.works(way)
    await world.pass_time(seconds=30)
    world.hears_nothing("前志愿者")
    world.hears_nothing("前夫")
    world.expect_heard("老村长", "alarm.raised")
    kept = await world.rows("SELECT state, error FROM notices WHERE recipient_id = :id", id=str(former.id))
    assert {(row.state, row.error) for row in kept} == {
        ("failed", "the recipient is no longer of this person's circle")
    }


async def test_a_device_that_somebody_else_wears_now_hears_nothing_of_an_alarm(world: World) -> None:
    _, button = await call(world)
    world.away(f"{button}:device")
    await world.press_sos(button)
    await world.answers(FAMILY)
    await world.do("UPDATE bindings SET unbound_at = now()")
    world.works(f"{button}:device")
    await world.pass_time(seconds=30)
    assert not [heard for heard in world.heard if heard.channel == "device"]


# --- ways that die later ----------------------------------------------------------------------------------------------


async def test_nobody_left_to_reach_is_said_though_somebody_was_told_before(world: World) -> None:
    elder, button = await call(world)
    await world.press_sos(button)
    world.expect_heard(FAMILY, "alarm.raised")
    assert (await world.alarm(elder)).unreachable_since is None
    world.dead(f"{FAMILY}:webhook")
    await world.pass_time(minutes=2)
    assert (await world.alarm(elder)).unreachable_since == world.clock.now
    assert len(await world.feed("alarm.unreachable")) == 1
    world.works(f"{FAMILY}:webhook")
    await world.pass_time(minutes=5)
    assert (await world.alarm(elder)).unreachable_since is None


async def test_a_way_of_an_earlier_telling_that_is_still_tried_is_a_way(world: World) -> None:
    elder, button = await call(world)
    world.away(f"{FAMILY}:webhook")
    await world.policy((0, ["operators"]), (1, ["emergency_contacts"]))
    await world.press_sos(button)
    await world.contact(elder, NEIGHBOUR, channels=["sms"])
    world.dead(f"{NEIGHBOUR}:sms")
    await world.pass_time(seconds=2)
    assert f"{NEIGHBOUR}:sms" in world.recordings[ChannelKind.SMS].tried
    assert (await world.alarm(elder)).unreachable_since is None


async def test_an_alarm_that_cannot_be_worked_on_holds_back_no_other(world: World) -> None:
    """A plan that this version cannot read (written by a newer one): the alarms behind it go on."""
    broken, first = await call(world)
    _, second = await call(world, NEIGHBOUR)
    await world.press_sos(first)
    await world.press_sos(second)
    unreadable = '{"name": "x", "repeat_last_every_s": 60, "steps": [{"after_s": 0, "targets": ["mayor"]}]}'
    await world.do("UPDATE alarms SET plan = CAST(:plan AS jsonb) WHERE elder_id = :id", plan=unreadable, id=broken.id)
    world.forget()
    await world.pass_time(seconds=125)
    world.expect_heard(NEIGHBOUR, "alarm.escalated")
    alarm = await world.alarm(broken)
    assert (alarm.state, alarm.step) == ("open", 0)
    assert alarm.next_at > world.clock.now
    assert [fact.alarm_id for fact in await world.feed("alarm.escalated")].count(alarm.id) == 0


# --- the feed ---------------------------------------------------------------------------------------------------------


async def test_no_number_of_the_feed_appears_below_one_that_was_read(world: World) -> None:
    """A commit that is slow holds back the numbers after it: «I have seen n» means everything up to n."""
    numbered, may_commit = asyncio.Event(), asyncio.Event()

    async def commits_slowly() -> None:
        async def linger(_: Hands) -> None:
            numbered.set()
            await may_commit.wait()

        async with transaction(world.sessions) as session:
            facts.tell(session, "slow", region_code=VILLAGE, alarm_id=None, now=START)
            before_commit(session, linger)  # after the number was drawn

    async def commits_at_once() -> None:
        async with transaction(world.sessions) as session:
            facts.tell(session, "quick", region_code=VILLAGE, alarm_id=None, now=START)

    slow = asyncio.create_task(commits_slowly())
    await asyncio.wait_for(numbered.wait(), 5)
    quick = asyncio.create_task(commits_at_once())
    done, _ = await asyncio.wait({quick}, timeout=0.5)
    assert not done
    assert await world.feed() == []
    may_commit.set()
    await asyncio.gather(slow, quick)
    assert [fact.type for fact in await world.feed()] == ["slow", "quick"]


# --- what is said -----------------------------------------------------------------------------------------------------


async def test_a_letter_says_its_link_once(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, FAMILY, channels=["email"])
    await world.press_sos(await world.device(elder))
    letter = world.expect_heard(FAMILY, "alarm.raised").letter
    assert letter.text.count(letter.short["link"]) == 1
    assert letter.text.endswith(letter.short["link"])


async def test_a_device_that_was_away_hears_the_last_word_only(world: World) -> None:
    _, button = await call(world)
    world.away(f"{button}:device")
    world.recordings[ChannelKind.DEVICE].behaviour[button] = world.recordings[ChannelKind.DEVICE].behaviour[
        f"{button}:device"
    ]
    await world.press_sos(button)
    await world.answers(FAMILY, eta=10)
    await world.settle()
    await world.answers(FAMILY, Action.ATTEND)
    world.recordings[ChannelKind.DEVICE].behaviour.clear()
    await world.pass_time(seconds=30)
    assert [heard.letter.payload["message"] for heard in world.heard_by(button)] == [f"{FAMILY}已经到了"]


async def test_what_made_an_alarm_more_urgent_is_the_reason_that_is_read(world: World) -> None:
    """A detector doubts, then is sure: nobody reads «10% sure» beside «critical»."""
    elder, _ = await call(world)
    detector = await world.device(elder, kind=DeviceKind.FALL_DETECTOR)
    await world.message(detector, {"type": "fall", "confidence": 0.1})
    await world.message(detector, {"type": "fall", "confidence": 0.99})
    await world.message(detector, {"type": "fall", "confidence": 0.2})
    alarm = await world.alarm(elder)
    assert (alarm.severity, "99%" in alarm.because) == ("critical", True)
    other = await world.elder()
    detector = await world.device(other, kind=DeviceKind.FALL_DETECTOR)
    frames = [world.frame(detector, {"type": "fall", "confidence": sure}) for sure in (0.1, 0.99)]
    await world.ingest.swallow(frames)
    assert "99%" in (await world.alarm(other)).because
