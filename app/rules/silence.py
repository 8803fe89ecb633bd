"""No sign of life while somebody should be at home: how long a home may be quiet, and what is said when it is longer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.rules import past
from app.rules.home import Home, Where, rests_on, where_at
from app.rules.past import Limit, Morning, Past
from app.rules.settings import NoActivity, Rules, TimeOfDay
from app.rules.verdict import AlarmKind, Severity
from app.rules.watching import Condition, Stage, View, spell
from app.words import say

_NEW_BEAT_S = 60
_SPARE_S = 1200  # a report may be late
_ANY_ZONE = ZoneInfo("UTC")


class Deadline(NamedTuple):
    """When a quiet has lasted too long, and by which figures."""

    at: float
    since: float
    limit: str  # the limit in words


def no_activity(home: Home, view: View, now: float) -> Iterator[Condition]:
    """Somebody is at home, or nobody can tell, and no sensor sees anybody; or they went out and do not come back."""
    rules = view.rules.no_activity
    if not rules.enabled or not view.present or not home.moved or home.bridge_down:
        return
    if home.inside and where_at(home, now) in (Where.OUT, Where.DOOR):
        found = _out_too_long(home, view)
    else:
        found = deadline(home, view)
    if found is None:
        return

    def because(at: float) -> str:
        return say(
            "because.no_activity", spell=spell(at - found.since), time=view.clock(found.since),
            place=view.place_of(home.by), limit=found.limit,
        )  # fmt: skip

    grown = found.at + rules.grows_after_minutes * 60
    stages = (Stage(found.at, Severity.MAJOR), Stage(grown, Severity.CRITICAL))
    yield Condition(AlarmKind.NO_ACTIVITY, found.since, stages, because, home.by or None, waits_anew=True)


def _out_too_long(home: Home, view: View) -> Deadline | None:
    """Who went out and does not come back for days is asked for: it may have been a visitor who left."""
    if not home.left:
        return None
    limit = view.rules.no_activity.out_minutes
    return Deadline(home.left + limit * 60, home.left, say("limit.out", spell=spell(limit * 60)))


def deadline(home: Home, view: View) -> Deadline | None:
    """Until when a home may be quiet. None: nothing in it could tell."""
    rules = view.rules.no_activity
    if not home.inside:
        if not home.contact:
            return None
        limit = rules.door_only_minutes
        return Deadline(home.moved + limit * 60, home.moved, say("limit.door_only", spell=spell(limit * 60)))
    heard, often = _still_rests(home, view)
    found = _quiet_until(home, view, max(home.heard, heard, home.bridge_back), often=often)
    resting = home.moved + rules.resting_minutes * 60
    if max(home.heard, heard) > home.moved and resting < found.at and not view.bedridden:
        return Deadline(resting, home.moved, say("limit.resting", spell=spell(rules.resting_minutes * 60)))
    return found


def note_rests(home: Home, view: View) -> None:
    """How often a bed or chair is heard on which somebody rests: what is learned of a night while it lasts."""
    for device_id in rests_on(home):
        gadget, device = home.gadgets[device_id], view.devices.get(device_id)
        if device is None or device.heard - max(gadget.beat, gadget.since) < _NEW_BEAT_S:
            continue
        gadget.every = device.heard - max(gadget.beat, gadget.since)
        gadget.beat = device.heard


def _still_rests(home: Home, view: View) -> tuple[float, bool]:
    """When a bed or chair was last heard on which somebody rests, and whether it is heard often. Some report only changes, and
    now and then that they work: whoever had risen since would have been reported, too."""
    heard, often = 0.0, False
    for device_id in rests_on(home):
        gadget, device = home.gadgets[device_id], view.devices.get(device_id)
        if device is not None and device.online is not False and device.heard > heard:
            heard = device.heard
            often = 0 < gadget.every <= view.rules.no_activity.ceiling_minutes * 60 - _SPARE_S
    return heard, often


def _quiet_until(home: Home, view: View, since: float, *, often: bool) -> Deadline:
    """`often`: somebody rests where a device is heard more often than the limit, so that its silence is one: late nights and
    long rests of the past excuse nothing then, and short ones accuse nobody."""
    rules = view.rules.no_activity
    local = view.local(since)
    nights = Past() if often else home.past
    begins, ends = past.own_day(nights, rules)
    if begins <= local.hour * 60 + local.minute < ends:
        if often:
            spelt = spell(rules.ceiling_minutes * 60)
            return Deadline(since + rules.ceiling_minutes * 60, since, say("limit.rest_heard", spell=spelt))
        day = limit_at(home, view, local.hour, by_day=True)
        return Deadline(since + day.minutes * 60, since, in_words(day, local.hour))
    night = limit_at(home, view, local.hour, by_day=False)
    # Whoever slept owes a sign by the morning, even within the night's limit: what is learned of the day's quiet says
    # nothing about a long sleep, and what is learned of short nights would call a long one silence.
    by_night = since + night.minutes * 60
    morning = past.morning(nights, rules)
    by_morning = view.next_time(since, morning.due)
    if by_morning < by_night:
        return Deadline(by_morning, since, _morning_in_words(morning, rules))
    return Deadline(by_night, since, in_words(night, local.hour))


def _morning_in_words(morning: Morning, rules: NoActivity) -> str:
    due = str(TimeOfDay(morning.due))
    if morning.latest is None:
        return say("limit.morning", begins=rules.day_from, spell=spell(rules.morning_minutes * 60), due=due)
    return say("limit.morning_learned", latest=TimeOfDay(morning.latest), due=due)


def limit_at(home: Home, view: View, hour: int, *, by_day: bool) -> Limit:
    """The limit for a quiet that begins in this hour."""
    rules = view.rules.no_activity
    if not by_day:
        return past.limit(home.past, hour, rules.night_floor_minutes, rules.night_ceiling_minutes, rules)
    ceiling = rules.ceiling_minutes
    if not home.contact and home.past.days >= rules.learn_days and rules.learn:
        # Nobody sees the person leave: quiet may be a walk, and is learned as far as a higher ceiling lets it.
        ceiling = max(ceiling, rules.unseen_ceiling_minutes)
    return past.limit(home.past, hour, rules.floor_minutes, ceiling, rules)


def in_words(limit: Limit, hour: int) -> str:
    """How a limit came about, for the people who read the alarm."""
    allowed = spell(limit.minutes * 60)
    if limit.longest is None:
        return say("limit.unlearned", spell=allowed)
    return say(
        "limit.learned", spell=allowed, days=limit.days, hour=hour, longest=spell(limit.longest * 60),
        floor=spell(limit.floor * 60), ceiling=spell(limit.ceiling * 60),
    )  # fmt: skip


def hours_in_words(home: Home, rules: Rules) -> list[tuple[int, int, str]]:
    """The limit of each hour of the day, in minutes, with how it came about: for people who ask before an alarm does."""
    view = View(_ANY_ZONE, rules)  # the hours are given
    begins, ends = past.own_day(home.past, rules.no_activity)
    found = []
    for hour in range(24):
        limit = limit_at(home, view, hour, by_day=begins <= hour * 60 < ends)
        found.append((hour, limit.minutes, in_words(limit, hour)))
    return found
