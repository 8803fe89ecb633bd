"""Rules over time, in virtual time: the same core that the tick runs, without a database."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.cli import cli
from app.errors import InvalidInput
from app.rules import past
from app.rules.cover import NEVER_COVERED, Cover, PeriodKind, covered_until, covers
from app.rules.home import Home, Where, where_at
from app.rules.past import Past
from app.rules.places import Spot, spot
from app.rules.replaying import Alarm, Replay, received_order
from app.rules.settings import DEFAULTS, RuleFault, Rules, as_document, describe, lay_over, read_document
from app.rules.silence import deadline
from app.rules.verdict import DEVICE_HEALTH, AlarmKind, Severity
from app.rules.watches import watch
from app.rules.watching import Device, Ease, Rise, View, spell
from app.watches.recorded import BadLine, read_lines
from app.watches.replaying import Span, read_rules

pytestmark = pytest.mark.unit
TZ = ZoneInfo("Asia/Shanghai")
DAY = datetime(2026, 10, 5, tzinfo=TZ)


def at(clock: str, day: int = 0) -> datetime:
    hours, minutes, *seconds = (int(part) for part in clock.split(":"))
    return DAY + timedelta(days=day, hours=hours, minutes=minutes, seconds=seconds[0] if seconds else 0)


class Story:
    """Events of one home as they are said, and the alarms they end in."""

    def __init__(self, rules: Rules = DEFAULTS, **person: bool) -> None:
        self.replay = Replay(rules, TZ, **person)
        self.lines: list[dict[str, Any]] = []

    def say(
        self, clock: str, type_: str, device_id: str, place: str | None = None, *, day: int = 0, **body: Any
    ) -> Story:
        line = {"ts": round(at(clock, day).timestamp() * 1000), "type": type_, "device_id": device_id, **body}
        self.lines.append(line if place is None else {**line, "place": place})
        return self

    def door(self, clock: str, state: str = "open", *, day: int = 0) -> Story:
        return self.say(clock, "door", "door", "入户大门", state=state, day=day)

    def passes(self, clock: str, *, day: int = 0) -> Story:
        later = at(clock, day) + timedelta(seconds=6)
        return self.door(clock, day=day).door(f"{later:%H:%M:%S}", "closed", day=day)

    def motion(self, clock: str, place: str = "客厅", *, day: int = 0) -> Story:
        return self.say(clock, "motion", f"motion-{place}", place, day=day)

    def bed(self, clock: str, occupied: bool, *, day: int = 0, place: str = "卧室床") -> Story:
        return self.say(clock, "bed", f"bed-{place}", place, occupied=occupied, day=day)

    def alarms(self, until: str, *, day: int = 0) -> list[Alarm]:
        events = []
        for one in read_lines([json.dumps(line).encode() for line in self.lines], TZ):
            assert not isinstance(one, BadLine), one
            events.append(one)
        self.lines = []
        return list(self.replay.run(received_order(events), until=at(until, day)))


def told(alarms: list[Alarm]) -> list[tuple[str, str, str]]:
    return [(f"{one.at:%H:%M}", one.kind.value, one.severity.value) for one in alarms]


# --- the door -----------------------------------------------------------------------------------------------


def test_a_door_left_open_by_day_is_a_reminder_that_grows() -> None:
    story = Story().motion("09:00").door("09:10")
    for clock in ("09:40", "10:30", "11:20", "11:50"):
        story.motion(clock)
    alarms = story.alarms("12:00")
    assert told(alarms) == [("09:40", "door_left_open", "warning"), ("11:40", "door_left_open", "minor")]
    assert "入户大门" in alarms[0].because
    assert "30分钟" in alarms[0].because
    assert "2小时30分钟" in alarms[1].because


def test_by_night_a_door_may_stand_open_for_ten_minutes() -> None:
    found = told(Story().motion("23:29").door("23:30").motion("23:31").alarms("23:59"))
    assert ("23:40", "door_left_open", "minor") in found


def test_the_evening_door_is_judged_by_the_night_as_it_begins() -> None:
    found = told(Story().motion("21:49").door("21:50").motion("21:51").alarms("22:30"))
    assert found == [("22:10", "door_left_open", "minor")]


def test_a_door_that_closes_in_time_is_no_alarm_and_the_next_one_is_another() -> None:
    story = Story().motion("09:00").door("09:10").door("09:30", "closed").motion("09:31")
    assert story.alarms("10:30") == []
    story.motion("10:40").door("10:50").motion("10:51")
    assert [one[1] for one in told(story.alarms("11:40"))] == ["door_left_open"]
    story.door("11:41", "closed").motion("11:42").door("11:50").motion("11:51")
    assert told(story.alarms("12:25")) == [("12:20", "door_left_open", "warning")]


def test_the_door_of_a_fridge_is_no_way_out() -> None:
    story = (
        Story().say("09:00", "door", "fridge", "厨房冰箱", state="open").motion("09:20").motion("10:30").motion("11:30")
    )
    assert story.alarms("12:30") == []
    assert story.replay.home.where is Where.HOME


def test_an_older_word_that_comes_late_does_not_open_a_closed_door() -> None:
    story = Story().motion("09:00").passes("09:10").motion("09:12")
    story.say("09:11", "door", "door", "入户大门", state="open")
    story.lines[-1]["ts"] -= 120_000
    story.lines[-1]["received_at"] = round(at("09:20").timestamp() * 1000)
    assert story.motion("10:00").alarms("10:30") == []


# --- out by night -------------------------------------------------------------------------------------------


def test_out_by_night_and_not_back() -> None:
    alarms = Story().motion("23:20").passes("23:30").alarms("23:59")
    assert told(alarms) == []
    story = Story().motion("01:00").passes("01:10")
    alarms = story.alarms("03:00")
    assert told(alarms) == [("01:40", "night_exit", "major"), ("02:40", "night_exit", "critical")]
    assert "23:00至05:00" in alarms[0].because


def test_somebody_who_is_back_or_never_left_is_not_out() -> None:
    assert Story().motion("01:00").passes("01:10").passes("01:30").motion("01:31").alarms("03:00") == []
    assert Story().motion("01:00").passes("01:10").motion("01:12").alarms("03:00") == []


def test_whoever_comes_home_late_does_not_leave() -> None:
    assert (
        Story().motion("20:00").passes("20:25").passes("00:56", day=1).motion("00:58", day=1).alarms("03:00", day=1)
        == []
    )


def of_kind(alarms: list[Alarm], kind: str) -> list[Alarm]:
    return [one for one in alarms if one.kind.value == kind]


def test_with_dementia_who_is_still_out_when_the_night_begins_is_asked_for() -> None:
    story = Story(dementia=True).motion("20:50").passes("20:59")
    alarms = of_kind(story.alarms("12:00", day=1), "night_exit")
    assert told(alarms)[0] == ("21:10", "night_exit", "critical")
    assert "10-05 20:59" in alarms[0].because
    assert "入夜" in alarms[0].because
    back = Story(dementia=True).motion("15:00").passes("16:00").passes("20:40").motion("20:42")
    assert of_kind(back.alarms("22:30"), "night_exit") == []
    evening = Story().motion("20:50").passes("20:59")  # at the children's, perhaps
    assert of_kind(evening.alarms("12:00", day=1), "night_exit") == []


def test_who_went_out_and_gives_no_sign_for_days_is_asked_for() -> None:
    story = Story().motion("13:50").passes("14:00")
    alarms = of_kind(story.alarms("20:00", day=4), "no_activity")
    assert told(alarms)[0] == ("14:00", "no_activity", "major")
    assert f"{alarms[0].at:%m-%d %H:%M}" == "10-09 14:00"
    assert "4天" in alarms[0].because
    back = Story().motion("13:50").passes("14:00").passes("16:00", day=3).motion("16:01", day=3)
    assert all(one.at >= at("16:01", day=3) for one in of_kind(back.alarms("20:00", day=4), "no_activity"))


def test_a_button_whose_network_drops_what_it_sends_is_told_until_it_is_heard_again() -> None:
    story = Story().motion("09:00").say("09:30", "fault", "lorawan:1", "床头", code="UPLINK_F_CNT_RESET")
    story.say("09:40", "fault", "lorawan:1", "床头", code="UPLINK_F_CNT_RESET")
    alarms = of_kind(story.alarms("10:00"), "device_silent")
    assert told(alarms) == [("09:30", "device_silent", "minor")]
    assert "计数器复位" in alarms[0].because
    assert "10-05 09:30" in alarms[0].because
    story.say("10:10", "heartbeat", "lorawan:1", "床头", battery=90).motion("10:20")
    story.say("10:30", "fault", "lorawan:1", "床头", code="UPLINK_F_CNT_RESET")
    assert told(of_kind(story.alarms("10:40"), "device_silent")) == [("10:30", "device_silent", "minor")]
    assert of_kind(Story().say("09:30", "fault", "lorawan:1", code="LOW_SIGNAL").alarms("10:00"), "device_silent") == []


def test_dementia_comes_first() -> None:
    story = Story(dementia=True).motion("21:20").passes("21:30")
    alarms = story.alarms("22:00")
    assert told(alarms) == [("21:40", "night_exit", "critical")]
    assert "失智" in alarms[0].because
    assert Story().motion("21:20").passes("21:30").alarms("22:30") == []


# --- no sign of life ----------------------------------------------------------------------------------------


def test_a_silence_by_day_is_noticed_within_three_hours_and_grows() -> None:
    alarms = Story().passes("08:00").motion("08:02").motion("09:00").alarms("14:00")
    assert told(alarms) == [("11:50", "no_activity", "major"), ("12:50", "no_activity", "critical")]
    assert "2小时50分钟" in alarms[0].because
    assert "客厅" in alarms[0].because


def test_whoever_went_out_is_not_silent_and_whoever_came_home_may_be() -> None:
    assert Story().motion("08:50").passes("09:00").alarms("19:00") == []
    found = told(Story().motion("08:50").passes("09:00").passes("12:00").alarms("16:00"))
    assert found[0] == ("14:50", "no_activity", "major")


def test_ghosts_in_an_empty_home_do_not_bring_anybody_back() -> None:
    story = Story().motion("08:50").passes("09:00")
    for clock in ("09:40", "11:00", "12:30", "13:10"):
        story.motion(clock, "厨房")
    assert story.alarms("19:00") == []
    assert where_at(story.replay.home, at("19:00").timestamp()) is Where.OUT


def test_two_sensors_together_are_somebody() -> None:
    story = Story().motion("08:50").passes("09:00").motion("11:00", "厨房").motion("11:02", "客厅")
    assert told(story.alarms("14:30"))[0] == ("13:52", "no_activity", "major")


def test_a_home_with_a_door_only_is_asked_after_a_day_and_a_half() -> None:
    assert told(Story().passes("08:00").alarms("21:00", day=1))[1:] == [("20:00", "no_activity", "major")]
    assert told(Story().say("08:00", "sos", "button").alarms("09:00", day=1))[0][1] == "sos"


def test_a_bed_that_says_occupied_again_is_somebody_who_rests_and_not_for_ever() -> None:
    story = Story().motion("21:00").bed("21:10", True)
    for quarter in range(1, 60):
        moment = at("21:10") + timedelta(minutes=15 * quarter)
        story.bed(f"{moment:%H:%M}", True, day=(moment.date() - DAY.date()).days)
    found = told(story.alarms("11:00", day=1))
    assert found[0] == ("09:10", "no_activity", "major")


def test_whoever_sleeps_owes_a_sign_in_the_morning() -> None:
    found = told(Story().motion("22:00").alarms("12:00", day=1))
    assert found[0][1] == "no_activity"
    assert "07:30" <= found[0][0] <= "09:50"


def test_late_reports_never_hide_a_silence() -> None:
    story = Story().passes("08:00").motion("08:02").motion("09:00")
    story.motion("09:30")
    story.lines[-1]["received_at"] = round(at("11:40").timestamp() * 1000)
    assert told(story.alarms("13:00"))[0] == ("12:20", "no_activity", "major")


def test_a_clock_that_is_always_off_is_told_and_no_longer_believed() -> None:
    story = Story().passes("08:00")
    for minute in range(2, 60, 6):
        story.motion(f"08:{minute:02d}")
        story.lines[-1] |= {"ts": story.lines[-1]["ts"] - 3 * 3_600_000, "received_at": story.lines[-1]["ts"]}
    alarms = story.alarms("10:30")
    assert [one.kind for one in alarms] == [AlarmKind.CLOCK_WRONG]
    assert "慢了3小时0分钟" in alarms[0].because


# --- beds and falls -----------------------------------------------------------------------------------------


def test_the_bed_left_by_night_and_not_returned_to() -> None:
    story = Story().bed("22:30", True).bed("02:00", False, day=1)
    alarms = story.alarms("04:00", day=1)
    assert told(alarms) == [("02:30", "bed_exit", "major"), ("03:30", "bed_exit", "critical")]
    assert "02:00" in alarms[0].because


def test_back_in_bed_up_for_the_day_or_in_the_chair_is_fine() -> None:
    assert Story().bed("22:30", True).bed("02:00", False, day=1).bed("02:12", True, day=1).alarms("04:00", day=1) == []
    story = Story().bed("22:30", True).bed("04:50", False, day=1)
    for clock in ("04:55", "05:10", "05:30", "06:00"):
        story.motion(clock, day=1)
    assert story.alarms("07:00", day=1) == []
    story = Story().bed("22:30", True).bed("02:00", False, day=1).bed("02:05", True, day=1, place="客厅沙发")
    assert story.alarms("04:00", day=1) == []


def test_life_elsewhere_makes_the_bed_wait_and_its_end_is_noticed() -> None:
    story = Story().bed("22:30", True).bed("02:00", False, day=1).motion("02:20", "厨房", day=1)
    alarms = story.alarms("03:00", day=1)
    assert told(alarms) == [("02:50", "bed_exit", "major")]
    assert "厨房" in alarms[0].because


def test_a_suspected_fall_grows_when_nobody_moves_and_calms_when_life_goes_on() -> None:
    alarms = Story().motion("10:00").say("10:01", "fall_warning", "radar", "浴室").alarms("10:30")
    assert told(alarms) == [("10:02", "fall", "critical")]
    assert "浴室" in alarms[0].because
    assert "90秒" in alarms[0].because
    assert Story().motion("10:00").say("10:01", "fall_warning", "radar").motion("10:01:40").alarms("10:30") == []
    assert (
        Story()
        .say("10:01", "fall_warning", "radar")
        .say("10:01:30", "cleared", "radar", of="fall_warning")
        .alarms("10:30")
        == []
    )


def test_an_alarm_of_the_moment_is_told_once_and_again_when_it_happens_again() -> None:
    story = (
        Story().say("10:00", "sos", "b").say("10:00:01", "sos", "b").say("10:10", "sos", "b").say("15:00", "sos", "b")
    )
    assert told(story.alarms("16:00")) == [("10:00", "sos", "critical"), ("15:00", "sos", "critical")]


# --- devices ------------------------------------------------------------------------------------------------


def test_a_device_that_is_silent_and_comes_back() -> None:
    story = Story().say("08:00", "heartbeat", "b", kind="sos_button")
    alarms = story.alarms("11:00", day=2)
    assert told(alarms) == [("10:00", "device_silent", "warning"), ("10:00", "device_silent", "minor")]
    assert "26小时" in alarms[0].because
    assert AlarmKind.DEVICE_SILENT.value in story.replay.home.raised
    assert story.say("12:00", "heartbeat", "b", day=2).alarms("13:00", day=2) == []
    assert story.replay.home.raised == {}


def test_an_offline_bridge_is_one_alarm_and_not_forty() -> None:
    story = Story().say("08:00", "heartbeat", "bridge", "楼道", kind="gateway")
    for number in range(40):
        story.say("08:00", "heartbeat", f"d{number}", kind="door_sensor")
    story.motion("08:30").say("09:00", "status", "bridge", "楼道", kind="gateway", online=False)
    alarms = story.alarms("20:00", day=1)
    assert told(alarms) == [("09:05", "bridge_offline", "warning"), ("13:05", "bridge_offline", "minor")]
    assert "41个设备" in alarms[0].because
    # Blindness is not silence, and silence counts from the end of blindness.
    story.say("21:00", "status", "bridge", "楼道", kind="gateway", online=True, day=1)
    found = {one[1] for one in told(story.alarms("12:00", day=2))}
    assert found == {"no_activity", "device_silent"}


def test_batteries() -> None:
    def battery(*levels: int) -> list[tuple[str, str, str]]:
        story = Story()
        for hour, level in enumerate(levels):
            story.say(f"{hour:02d}:00", "heartbeat", "b", battery=level)
        return told(story.alarms("23:00"))

    assert battery(60, 40, 15) == [("02:00", "battery_low", "warning")]
    assert battery(60, 30, 14, 4) == [("02:00", "battery_low", "warning"), ("03:00", "battery_low", "minor")]
    assert battery(100, 0, 100, 0, 100) == []
    assert battery(100, 3, 3) == [("02:00", "battery_low", "minor")]
    assert battery(15, 80, 15)[0][0] == "00:00"
    story = Story().say("10:00", "battery_low", "b", active=True).say("11:00", "battery_low", "b", active=True)
    assert told(story.alarms("12:00")) == [("10:00", "battery_low", "warning")]


def test_tampering_and_flapping() -> None:
    story = Story().say("10:00", "tamper", "d", active=True).say("11:00", "tamper", "d", active=True)
    assert told(story.alarms("12:00")) == [("10:00", "tamper", "warning")]
    story = Story().motion("09:59")
    for second in range(40):
        story.door(f"10:00:{second:02d}", "open" if second % 2 == 0 else "closed")
    story.motion("10:05")
    alarms = [one for one in story.alarms("11:30") if one.kind is not AlarmKind.NO_ACTIVITY]
    assert told(alarms) == [("10:00", "flapping", "warning")]
    assert "20次" in alarms[0].because


def test_every_reason_is_chinese_and_has_figures() -> None:
    story = Story(dementia=True).motion("21:00").passes("22:00").say("22:01", "tamper", "t").door("22:20")
    for alarm in story.alarms("08:00", day=2):
        assert any("\u4e00" <= sign <= "\u9fff" for sign in alarm.because)
        assert any(sign.isdigit() for sign in alarm.because)


# --- what is learned ----------------------------------------------------------------------------------------


def learned(quiet_minutes: int, days: int = 10) -> Past:
    found = Past()
    for day in range(days):
        past.see_day(found, DAY.toordinal() + day)
        began = DAY + timedelta(days=day, hours=14)
        past.learn(found, began, began + timedelta(minutes=quiet_minutes))
    return found


def test_limits_are_learned_by_the_hour_within_floor_and_ceiling() -> None:
    rules = DEFAULTS.no_activity
    assert (
        past.limit(learned(110), 14, 120, 170, rules).minutes == 150
    )  # 120, the end of its bucket, and a quarter more
    assert past.limit(learned(110), 13, 120, 170, rules).minutes == 150
    assert past.limit(learned(110), 9, 120, 170, rules).minutes == 120
    assert past.limit(learned(400), 14, 120, 170, rules).minutes == 170
    assert past.limit(learned(110, days=3), 14, 120, 170, rules).longest is None


def test_a_habit_that_is_over_is_forgotten() -> None:
    found = learned(110)
    for day in range(10, 200):
        past.see_day(found, DAY.toordinal() + day)
    assert found.quiet == {}


def test_a_learned_limit_is_explained_in_words() -> None:
    home = Home(
        moved=at("14:30").timestamp(), heard=at("14:30").timestamp(), where=Where.HOME, contact=True, inside=True
    )
    home.past = learned(110)
    found = deadline(home, View(TZ))
    assert found is not None
    assert found.at == at("17:00").timestamp()
    for figure in ("2小时30分钟", "10天", "14点", "2小时0分钟", "2小时50分钟"):
        assert figure in found.limit


@given(st.lists(st.tuples(st.integers(0, 23), st.integers(1, 2000)), max_size=60))
def test_no_past_leads_outside_what_a_person_allows(quiets: list[tuple[int, int]]) -> None:
    found = Past()
    for number, (hour, minutes) in enumerate(quiets):
        began = DAY + timedelta(days=number, hours=hour)
        past.see_day(found, began.toordinal())
        past.learn(found, began, began + timedelta(minutes=minutes))
    for hour in range(24):
        assert 120 <= past.limit(found, hour, 120, 170, DEFAULTS.no_activity).minutes <= 170
    begins, ends = past.own_day(found, DEFAULTS.no_activity)
    assert 420 <= begins <= 600
    assert 1020 <= ends <= 1200


# --- periods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(AlarmKind))
@pytest.mark.parametrize("period", list(PeriodKind))
def test_what_a_period_covers(kind: AlarmKind, period: PeriodKind) -> None:
    if kind in NEVER_COVERED:
        assert not covers(period, kind)
        assert covered_until([Cover(period, 0, 100)], kind, 50) == 50
    elif period is PeriodKind.MAINTENANCE:
        assert covers(period, kind)
    else:
        assert covers(period, kind) == (kind not in DEVICE_HEALTH | {AlarmKind.DOOR_LEFT_OPEN})


def test_what_is_never_covered_is_what_the_design_says() -> None:
    assert {kind.value for kind in NEVER_COVERED} == {"sos", "fall", "smoke", "gas", "water_leak", "reported"}


def test_a_silence_counts_anew_when_an_away_period_ends() -> None:
    moved = at("08:00").timestamp()
    home = Home(moved=moved, heard=moved, where=Where.HOME, contact=True, inside=True)
    away = Cover(PeriodKind.AWAY, at("07:00").timestamp(), at("18:00", 1).timestamp())
    view = View(TZ, covers=(away,))
    assert watch(home, view, at("17:00", 1).timestamp()).told == ()
    assert watch(home, view, at("18:01", 1).timestamp()).told == ()
    found = watch(home, view, at("20:50", 1).timestamp()).told
    assert [one.kind for one in found] == [AlarmKind.NO_ACTIVITY]


def test_a_suspected_fall_grows_also_during_maintenance() -> None:
    now = at("10:00").timestamp()
    home = Home(warned=now - 200, warner="radar")
    view = View(TZ, covers=(Cover(PeriodKind.MAINTENANCE, 0, now + 9999), Cover(PeriodKind.AWAY, 0, now + 9999)))
    assert [one.kind for one in watch(home, view, now).told] == [AlarmKind.FALL]


def test_an_alarm_that_stands_when_a_period_begins_does_not_ease_and_does_not_grow() -> None:
    moved = at("08:00").timestamp()
    home = Home(moved=moved, heard=moved, where=Where.HOME, contact=True, inside=True)
    assert isinstance(watch(home, View(TZ), at("10:50").timestamp()).told[0], Rise)
    covered = View(TZ, covers=(Cover(PeriodKind.AWAY, at("11:00").timestamp(), at("20:00").timestamp()),))
    assert watch(home, covered, at("12:30").timestamp()).told == ()
    home.moved = home.heard = at("12:40").timestamp()
    assert isinstance(watch(home, covered, at("12:40").timestamp()).told[0], Ease)


def test_nobody_watches_over_somebody_who_is_not_there() -> None:
    home = Home(moved=1, heard=1, where=Where.HOME, inside=True, contact=True)
    view = View(TZ, present=False, devices={"d": Device("door_sensor", None, 1)})
    assert {one.kind for one in watch(home, view, at("12:00").timestamp()).told} == {AlarmKind.DEVICE_SILENT}


# --- the state ----------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 8)), max_size=25), st.integers(0, 24))
def test_a_restart_at_any_event_changes_nothing(steps: list[tuple[int, int]], cut: int) -> None:
    """The state is what is kept as JSON: written and read at any point, the alarms are the same."""

    def run(*, restart: bool) -> list[Alarm]:
        story, found, now = Story(), [], at("00:00")
        for number, (wait, what) in enumerate(steps):
            now += timedelta(seconds=wait)
            day, clock = (now.date() - DAY.date()).days, f"{now:%H:%M:%S}"
            if what < 3:
                story.motion(clock, ("客厅", "厨房", "门厅")[what], day=day)
            elif what < 5:
                story.door(clock, ("open", "closed")[what - 3], day=day)
            elif what < 7:
                story.bed(clock, what == 5, day=day)
            else:
                story.say(clock, ("fall_warning", "tamper")[what - 7], "x", day=day)
            found += story.alarms(clock, day=day)
            if restart and number == cut:
                text = msgspec.json.encode(story.replay.home)
                story.replay.home = msgspec.json.decode(text, type=Home)
        return found + story.alarms("00:00", day=9)

    assert run(restart=False) == run(restart=True)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("入户大门", Spot.WAY_OUT), ("Main Entryway", Spot.WAY_OUT), ("Entrance Maindoor", Spot.WAY_OUT),
        ("厨房后门", Spot.WAY_OUT), ("front door", Spot.WAY_OUT), ("冰箱", Spot.INSIDE), ("Kitchen Fridge", Spot.INSIDE),
        ("客厅沙发", Spot.SEAT), ("Living Seat", Spot.SEAT), ("卧室门", Spot.INSIDE), (None, Spot.UNTOLD), ("一号", Spot.UNTOLD),
    ],
)  # fmt: skip
def test_places(place: str | None, found: Spot) -> None:
    assert spot(place) is found


def test_spelling() -> None:
    assert [spell(s) for s in (45, 600, 3600, 8 * 3600 + 60, 50 * 3600)] == [
        "45秒", "10分钟", "1小时0分钟", "8小时1分钟", "2天2小时"
    ]  # fmt: skip


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], "settings"), ({"nothing": {}}, "nothing"), ({"no_activity": 3}, "no_activity"),
        ({"no_activity": {"ceiling": 3}}, "no_activity.ceiling"),
        ({"no_activity": {"ceiling_minutes": 5}}, "no_activity.ceiling_minutes"),
        ({"no_activity": {"ceiling_minutes": True}}, "no_activity.ceiling_minutes"),
        ({"no_activity": {"day_from": "25:00"}}, "no_activity.day_from"), ({"tamper": {"enabled": 1}}, "tamper.enabled"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_says_what_to_mend(document: Any, path: str) -> None:
    with pytest.raises(RuleFault) as fault:
        read_document(document)
    assert fault.value.path == path


def test_settings_are_laid_over_each_other() -> None:
    rules = lay_over([{"no_activity": {"ceiling_minutes": 150}}, {"no_activity": {"day_to": "19:00"}}])
    assert (rules.no_activity.ceiling_minutes, str(rules.no_activity.day_to)) == (150, "19:00")
    assert lay_over([{"no_activity": {"ceiling_minutes": 60}}]).no_activity.floor_minutes == 60
    with pytest.raises(RuleFault, match="floor_minutes"):
        lay_over([{"no_activity": {"ceiling_minutes": 60}}], strict=True)
    assert lay_over([as_document(rules)]) == rules
    assert describe()["no_activity"]["ceiling_minutes"] | {"about": ""} == {
        "default": 170, "min": 30, "max": 2880, "unit": "minutes", "about": ""
    }  # fmt: skip


def test_a_setting_changes_what_is_told() -> None:
    rules = lay_over([{"door_left_open": {"after_minutes": 5}, "no_activity": {"enabled": False}}])
    assert told(Story(rules).motion("09:00").door("09:10").alarms("09:30"))[0] == ("09:15", "door_left_open", "warning")


def test_a_chair_that_is_heard_every_hour_holds_somebody_and_its_silence_is_one() -> None:
    """It says only that it is taken, and each hour that it works: whoever had risen would have been reported."""
    story = Story().motion("12:00").bed("13:00", True, place="沙发")
    for hour in range(14, 19):
        story.say(f"{hour}:00", "heartbeat", "bed-沙发", "沙发", kind="bed_sensor")
    assert story.alarms("20:40") == []
    (alarm,) = story.alarms("20:55")
    assert (alarm.kind, f"{alarm.at:%H:%M}") == (AlarmKind.NO_ACTIVITY, "20:50")
    assert "消息停了2小时50分钟" in alarm.because
    rare = Story().motion("12:00").bed("13:00", True, place="沙发")
    rare.say("15:30", "heartbeat", "bed-沙发", "沙发", kind="bed_sensor")
    assert [one.kind for one in rare.alarms("18:25")] == [AlarmKind.NO_ACTIVITY]
    risen = Story().motion("12:00").bed("13:00", True, place="沙发").motion("13:30")
    for hour in range(14, 17):
        risen.say(f"{hour}:00", "heartbeat", "bed-沙发", "沙发", kind="bed_sensor")
    assert [f"{one.at:%H:%M}" for one in risen.alarms("16:25")] == ["16:20"]  # it moved elsewhere since


# --- shouwang replay ----------------------------------------------------------------------------------------


def replayed(tmp_path: Path, lines: list[Any], *options: str) -> Any:
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return CliRunner().invoke(cli, ["replay", "--events", str(path), *options])


DOOR = {"device_id": "d1", "kind": "door_sensor", "place": "front door", "type": "door"}


def test_replay_prints_json_lines_and_is_deterministic(tmp_path: Path) -> None:
    lines = [{**DOOR, "state": "open", "ts": "2026-10-05T09:00:00+08:00"}]
    first = replayed(tmp_path, lines, "--to", "2026-10-05T10:00:00+08:00")
    assert first.exit_code == 0
    (alarm,) = [json.loads(line) for line in first.stdout.splitlines()]
    assert list(alarm) == ["at", "kind", "severity", "because"]
    assert alarm["at"] == "2026-10-05T09:30:00+08:00"
    assert replayed(tmp_path, lines, "--to", "2026-10-05T10:00:00+08:00").stdout == first.stdout
    assert (
        replayed(tmp_path, lines, "--from", "2026-10-05T09:31:00+08:00", "--to", "2026-10-05").stdout.count("\n") == 1
    )


def test_replay_tries_settings(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"settings": {"door_left_open": {"after_minutes": 3}}}))
    lines = [{**DOOR, "state": "open", "ts": 1791162000000}, {**DOOR, "state": "closed", "ts": 1791162000000 + 300_000}]
    assert replayed(tmp_path, lines).stdout == ""
    assert json.loads(replayed(tmp_path, lines, "--rules", str(rules)).stdout)["kind"] == "door_left_open"
    rules.write_text('{"door_left_open": {"after_minutes": 0}}')
    with pytest.raises(InvalidInput, match=r"door_left_open\.after_minutes: must be a whole number"):
        read_rules(rules)


def test_a_bad_line_is_named_and_costs_no_other(tmp_path: Path) -> None:
    good = {"device_id": "b", "type": "sos", "ts": 1791162000000}
    bad: list[Any] = [
        "nonsense", {"type": "sos", "ts": 1}, {"device_id": "b", "type": "sos"}, {**good, "kind": "toaster"},
        {**good, "type": "party"}, {**DOOR, "ts": 1791162000000, "state": "ajar"}, {**good, "ts": "yesterday"},
        {**good, "device_id": "a/b"}, {**good, "place": 3}, [1], {**good, "ts": 1791162000},
    ]  # fmt: skip
    found = replayed(tmp_path, [good, "", *bad, {**good, "device_id": "c", "type": "smoke", "active": True}])
    assert found.exit_code == 1
    assert [json.loads(line)["kind"] for line in found.stdout.splitlines()] == ["sos", "smoke"]
    complaints = found.stderr.splitlines()
    assert [line.split(":")[0] for line in complaints] == [f"line {number}" for number in range(3, 14)]


def test_a_recording_is_taken_as_the_server_takes_it(tmp_path: Path) -> None:
    """Unsorted lines, an id that comes twice, a smoke alarm that sticks and then rings again."""
    smoke = {"device_id": "s", "type": "smoke", "active": True}
    lines = [
        {**DOOR, "state": "open", "id": "7", "ts": 1791162000000 + 600_000, "received_at": 1791162000000 + 3_000_000},
        {**DOOR, "state": "closed", "id": "8", "ts": 1791162000000 + 300_000},
        {**DOOR, "state": "open", "id": "7", "ts": 1791162000000},
        *({**smoke, "ts": 1791162000000 + minutes * 60_000} for minutes in (0, 35, 55)),
    ]
    found = replayed(tmp_path, lines, "--to", "2026-10-05")
    assert json.loads(found.stdout)["because"] == "烟雾报警器探测到烟雾"  # sent for it: no doubt since when
    assert [json.loads(line)["kind"] for line in found.stdout.splitlines()] == ["smoke"]
    over = [*lines, {**smoke, "active": False, "ts": 1791169000000}, {**smoke, "ts": 1791170000000}]
    assert replayed(tmp_path, over).stdout.count('"smoke"') == 2


def test_a_span_is_read_as_people_write_it() -> None:
    span = Span.read("2026-10-05", "2026-10-05", TZ)
    assert (span.begins, span.ends) == (DAY, DAY + timedelta(days=1, seconds=-1))
    assert Span.read("2026-10-05T08:00", "", TZ).begins == at("08:00")
    for begins, ends in (("soon", ""), ("2026-10-06", "2026-10-05")):
        with pytest.raises(InvalidInput):
            Span.read(begins, ends, TZ)


def test_severity_order_is_what_growth_relies_on() -> None:
    assert [one.rank for one in Severity] == [0, 1, 2, 3]


def test_the_document_lists_every_setting() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "rules.md").read_text(encoding="utf-8")
    for group, fields in describe().items():
        for name, field in fields.items():
            limits = f"{field['min']} – {field['max']}" if "min" in field else ""
            assert f"| `{group}.{name}` | {field['default']} | {limits} | {field['unit']} | {field['about']} |" in text


def test_a_night_that_ends_as_it_begins_is_refused() -> None:
    with pytest.raises(RuleFault, match="no time at all"):
        lay_over([{"night_exit": {"night_from": "23:00", "night_to": "23:00"}}], strict=True)
