"""What is news beside what a device said before. Times are minutes of a story; no database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.devices.edges import BOUNCE, Because, Edge, State, field_of, gravity, rearm, value_of, weigh
from app.devices.events import (
    Cleared,
    Door,
    Event,
    Fall,
    FallWarning,
    Gas,
    Motion,
    Observation,
    Smoke,
    Sos,
    Source,
    Tamper,
    WaterLeak,
)
from app.devices.vocabulary import FieldKind
from app.ids import DeviceId
from app.rules import judge
from app.rules.verdict import Nothing, Raise

pytestmark = pytest.mark.unit
START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
B = Because


def seen(
    event: Event,
    minute: float,
    *,
    heard: float | None = None,
    kind: FieldKind = FieldKind.ALARM_STATE,
    alone: bool = False,
    retained: bool = False,
    profile: str = "zigbee2mqtt",
) -> Observation:
    at = START + timedelta(minutes=minute)
    received = START + timedelta(minutes=minute if heard is None else heard)
    return Observation(
        DeviceId("d"), event, received, at, source=Source(profile, "field", kind), alone=alone, retained=retained
    )


def story(*said: Observation) -> list[Because]:
    """Why each of them is news, or not."""
    state: State | None = None
    reasons = []
    for one in said:
        state, because = weigh(state, one)
        reasons.append(because)
    return reasons


HAZARDS: Sequence[tuple[Event, Event]] = (
    (Sos(), Cleared("sos")), (Fall(), Cleared("fall")), (Smoke(True), Smoke(False)), (Gas(True), Gas(False)),
    (WaterLeak(True), WaterLeak(False)), (Tamper(True), Tamper(False)), (FallWarning(), Cleared("fall_warning")),
)  # fmt: skip


@pytest.mark.parametrize(("on", "off"), HAZARDS)
def test_a_condition_rings_when_it_begins_and_not_while_it_is_said_again(on: Event, off: Event) -> None:
    said = [seen(off, 0), seen(on, 1), seen(on, 2), seen(on, 30), seen(off, 40), seen(off, 41), seen(on, 42)]
    assert story(*said) == [
        B.FIRST_SIGHT, B.CHANGED, B.SAID_AGAIN, B.SAID_AGAIN, B.CHANGED, B.SAID_AGAIN, B.CHANGED,
    ]  # fmt: skip


@pytest.mark.parametrize(("on", "off"), HAZARDS)
def test_first_sight_of_a_condition_is_told_once(on: Event, off: Event) -> None:
    assert story(seen(on, 0), seen(on, 1), seen(on, 2)) == [B.FIRST_SIGHT, B.SAID_AGAIN, B.SAID_AGAIN]


@pytest.mark.parametrize(("on", "off"), HAZARDS)
def test_a_condition_that_never_ends_rings_again_ever_more_seldom_and_never_stops(on: Event, off: Event) -> None:
    again = rearm(on)
    assert again is not None
    first, most = again.first / timedelta(minutes=1), again.most / timedelta(minutes=1)
    minutes = range(0, int(first + 30 * most), 10)
    rings = [
        minute
        for minute, because in zip(minutes, story(*(seen(on, minute) for minute in minutes)), strict=True)
        if because.edge is Edge.NEWS
    ]
    gaps = [later - earlier for earlier, later in pairwise(rings)]
    assert gaps[0] == first
    assert gaps == sorted(gaps)
    assert gaps[-1] == most


def test_a_stuck_smoke_alarm_does_not_hide_the_next_fire_for_long() -> None:
    assert rearm(Smoke(True)) is not None
    assert story(seen(Smoke(True), 0), seen(Smoke(True), 59), seen(Smoke(True), 61)) == [
        B.FIRST_SIGHT, B.SAID_AGAIN, B.STILL,
    ]  # fmt: skip


def test_an_sos_that_comes_with_each_battery_report_rings_once_a_real_second_press_again() -> None:
    cached = [seen(Sos(), minute) for minute in (0, 5, 60, 240)]
    assert [because.edge for because in story(*cached)] == [Edge.NEWS, Edge.REPEAT, Edge.REPEAT, Edge.REPEAT]
    pressed = [seen(Sos(), minute, alone=True) for minute in (0, 0.5, 5)]
    assert story(*pressed) == [B.FIRST_SIGHT, B.SAID_AGAIN, B.PRESSED_AGAIN]
    assert timedelta(minutes=0.5) < BOUNCE


def test_a_suspicion_that_becomes_sure_is_news_and_one_that_remains_is_not() -> None:
    said = [seen(FallWarning(), 0), seen(Fall(), 1), seen(FallWarning(), 2), seen(Fall(), 3), seen(Cleared("fall"), 4)]
    assert story(*said) == [B.FIRST_SIGHT, B.CHANGED, B.SAID_AGAIN, B.CHANGED, B.CHANGED]


def test_one_field_that_says_another_danger_is_news() -> None:
    assert story(seen(Smoke(True), 0), seen(Gas(True), 1), seen(Sos(), 2)) == [B.FIRST_SIGHT, B.CHANGED, B.CHANGED]


# --- late and overtaken -----------------------------------------------------------------------------------------------------


def test_a_late_report_does_not_overwrite_a_newer_state() -> None:
    state, _ = weigh(None, seen(Door(True), 10, kind=FieldKind.STATE))
    state, because = weigh(state, seen(Door(False), 5, heard=11, kind=FieldKind.STATE))
    assert (because, state.value) == (B.OLDER, "open")
    state, because = weigh(state, seen(Door(False), 12, kind=FieldKind.STATE))
    assert (because, state.value) == (B.CHANGED, "closed")


@pytest.mark.parametrize(("on", "off"), HAZARDS)
def test_a_late_danger_that_nobody_heard_of_is_told_once_and_changes_nothing(on: Event, off: Event) -> None:
    late = [seen(off, 0), seen(off, 30), seen(on, 10, heard=31), seen(on, 10, heard=31), seen(on, 20, heard=31)]
    assert story(*late) == [B.FIRST_SIGHT, B.SAID_AGAIN, B.UNHEARD, B.OLDER, B.OLDER]
    state: State | None = None
    for one in late:
        state, _ = weigh(state, one)
    assert state is not None
    assert gravity(off) == 0
    assert state.value == value_of(off)


@pytest.mark.parametrize(("on", "off"), HAZARDS)
def test_a_late_repeat_of_what_was_told_is_no_news(on: Event, off: Event) -> None:
    said = [seen(off, 0), seen(on, 10), seen(off, 20), seen(on, 15, heard=21), seen(on, 10, heard=22)]
    assert story(*said)[3:] == [B.OLDER, B.OLDER]


def test_a_late_fall_within_a_suspicion_is_told() -> None:
    said = [seen(FallWarning(), 0), seen(Cleared("fall"), 10), seen(Fall(), 5, heard=11), seen(Fall(), 6, heard=11.1)]
    assert story(*said)[2:] == [B.UNHEARD, B.OLDER]


def test_a_clock_that_was_set_back_is_followed_and_a_burst_of_late_messages_is_not() -> None:
    door = [(Door(True), 0.0, 0.0)]
    back = [(Door(False), -600 + minute, minute) for minute in (5.0, 10.0, 15.0)]
    told = story(*(seen(e, at, heard=h, kind=FieldKind.STATE) for e, at, h in door + back))
    assert told == [B.FIRST_SIGHT, B.OLDER, B.CHANGED, B.SAID_AGAIN]
    burst = [(Door(minute % 2 == 0), minute - 60, 5.0 + minute / 100) for minute in (1.0, 2.0, 3.0, 4.0)]
    told = story(*(seen(e, at, heard=h, kind=FieldKind.STATE) for e, at, h in door + burst))
    assert told == [B.FIRST_SIGHT, *[B.OLDER] * 4]


# --- buttons and their words ------------------------------------------------------------------------------------------------


def press(event: Event, minute: float) -> Observation:
    return seen(event, minute, kind=FieldKind.EVENT)


def test_each_word_of_a_button_is_news_and_its_resets_are_not() -> None:
    said = [
        press(Sos(), 0), press(Cleared("press"), 0.01), press(Sos(unsaid=True), 0.02),
        press(Sos(), 0.05), press(Sos(unsaid=True), 0.06), press(Sos(), 90), press(Sos(unsaid=True), 90.1),
    ]  # fmt: skip
    assert [because.edge for because in story(*said)] == [
        Edge.NEWS, Edge.REPEAT, Edge.REPEAT, Edge.NEWS, Edge.REPEAT, Edge.NEWS, Edge.REPEAT,
    ]  # fmt: skip


def test_a_button_that_loses_every_word_rings_at_each_press_and_once_for_a_burst() -> None:
    said = [press(Sos(unsaid=True), minute) for minute in (0, 0.02, 0.05, 0.9, 30, 30.1, 45)]
    assert story(*said) == [
        B.LOST_WORD, B.TAKEN_BACK, B.TAKEN_BACK, B.TAKEN_BACK, B.LOST_WORD, B.TAKEN_BACK, B.LOST_WORD,
    ]  # fmt: skip


def test_a_button_that_says_words_and_loses_one_rings_and_a_gateway_that_repeats_nothing_does_so_once() -> None:
    said = [
        press(Sos(), 0),
        press(Sos(unsaid=True), 0.01),
        *(press(Sos(unsaid=True), 60 * hour) for hour in range(1, 6)),
    ]
    assert story(*said) == [B.HAPPENED, B.TAKEN_BACK, B.LOST_WORD, *[B.SAID_AGAIN] * 4]
    assert story(*said, press(Sos(), 400), press(Sos(unsaid=True), 460))[-2:] == [B.HAPPENED, B.LOST_WORD]


def test_a_reset_without_a_press_is_nothing() -> None:
    assert story(press(Cleared("press"), 0), press(Cleared("press"), 100)) == [B.TAKEN_BACK, B.TAKEN_BACK]


# --- which observations are states ------------------------------------------------------------------------------------------


def test_fields_that_have_a_state() -> None:
    assert field_of(seen(Smoke(True), 0)) == "field"
    assert field_of(seen(Motion(True), 0, kind=FieldKind.EVENT)) is None
    assert field_of(press(Sos(), 0)) == "field"
    assert field_of(seen(Sos(), 0, kind=FieldKind.EVENT, retained=True)) is None
    assert field_of(seen(Sos(), 0, kind=FieldKind.EVENT, profile="native")) is None
    assert field_of(seen(Door(True), 0, kind=FieldKind.STATE, profile="native")) == "door"


# --- and what it does to an alarm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("because", Because)
def test_only_news_raises_and_doubts_are_said(because: Because) -> None:
    verdict = judge(seen(Smoke(True), 0), because)
    if because.edge is Edge.NEWS:
        assert isinstance(verdict, Raise)
        assert not verdict.only_joins
        assert verdict.severity == "critical"
        assert ("(" in verdict.because) == (because not in (B.HAPPENED, B.CHANGED, B.PRESSED_AGAIN))
    else:
        assert isinstance(verdict, Nothing)


def test_said_again_for_its_own_sake_joins_and_a_gateways_memory_does_not() -> None:
    alone = judge(seen(Sos(), 0, alone=True), B.SAID_AGAIN)
    assert isinstance(alone, Raise)
    assert alone.only_joins
    assert isinstance(judge(seen(Sos(), 0), B.SAID_AGAIN), Nothing)
    assert isinstance(judge(seen(Sos(), 0, alone=True, retained=True), B.SAID_AGAIN), Nothing)


def test_a_remembered_sos_is_less_urgent_than_a_press_and_smoke_never_is() -> None:
    def severity(event: Event, because: Because, *, retained: bool = False) -> str:
        verdict = judge(seen(event, 0, retained=retained), because)
        assert isinstance(verdict, Raise)
        return verdict.severity.value

    assert severity(Sos(), B.FIRST_SIGHT) == severity(Sos(), B.LOST_WORD) == severity(Sos(), B.UNHEARD) == "critical"
    assert severity(Sos(), B.STILL) == severity(Sos(), B.FIRST_SIGHT, retained=True) == "major"
    assert severity(Smoke(True), B.STILL) == severity(Smoke(True), B.FIRST_SIGHT, retained=True) == "critical"


# --- whatever comes ---------------------------------------------------------------------------------------------------------

_EVENTS = st.sampled_from([Smoke(True), Smoke(False), Fall(), FallWarning(), Cleared("fall"), Sos(), Door(True)])
_SAID = st.builds(
    lambda event, minute, lag, alone, retained: seen(
        event, minute - lag, heard=minute, alone=alone, retained=retained
    ),
    _EVENTS, st.integers(0, 5000), st.sampled_from([0, 0, 0, 1, 30, 600]), st.booleans(), st.booleans(),
)  # fmt: skip


@given(st.lists(_SAID, max_size=30))
def test_any_story(said: list[Observation]) -> None:
    """What rises in order is always news; what was said at the same time before never is; the state is what was last said."""
    said.sort(key=lambda one: one.received_at)
    state: State | None = None
    for one in said:
        before = state
        state, because = weigh(before, one)
        again, twice = weigh(state, one)
        if gravity(one.event) and one.occurred_at == one.received_at and because is not B.OLDER:
            assert twice.edge is not Edge.NEWS
        if before is None or (one.occurred_at >= before.said_at and before.value != value_of(one.event)):
            assert state.value == value_of(one.event)
            if gravity(one.event) >= 2:
                assert because.edge is Edge.NEWS
        if because is B.OLDER:
            assert before is not None
            assert (state.value, state.since, state.said_at) == (before.value, before.since, before.said_at)
        assert again.version == (before.version if before else 0)
