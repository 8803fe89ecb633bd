"""Where an alarm could go wrong for somebody on the floor: people taken off, offices without a telephone, buttons pressed
twice, ways that die later. Stories on a real database; all people are invented."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.alarms.answering import Action, invitation
from app.elders.vocabulary import DutyRole
from app.errors import LinkExpired
from app.notify.vocabulary import ChannelKind
from tests.world import START, Person, World

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
