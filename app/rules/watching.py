"""Rules over time. Pure: the state of a home, the settings and a time in; what is to be told and when to look again out.

Each watch (one file a subject) names conditions that hold: since when, why, and from when on they are how urgent. This
page turns them into alarms that rise, grow and ease. It runs in the tick and in `shouwang replay` alike; nothing is
armed anywhere but in the state, so a restart needs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from app.rules.cover import Cover, covered_until
from app.rules.home import Home, Raised, rests_on
from app.rules.settings import DEFAULTS, Rules, TimeOfDay
from app.rules.verdict import AlarmKind, Severity
from app.words import say

_REST_LOOK_S: Final = 1800  # a bed that was heard says that somebody rests, and brings no event to the home
_EASE_LOOK_S: Final = 600  # what stands is looked at again this often: devices come back without a word to the home


@dataclass(frozen=True, slots=True)
class Device:
    """What the register knows of a device. `heard`: its last message, or when it was given to this person. `online` is
    what it or its network said last, at `heard`."""

    kind: str
    place: str | None
    heard: float
    online: bool | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """A gateway that is gone, that devices of this home hang on and that is not the home's own. `told`: this home tells of it,
    with all its `devices` in `homes`; the others are only blind."""

    device_id: str
    place: str | None
    since: float
    told: bool
    devices: int
    homes: int


@dataclass(frozen=True, slots=True)
class View:
    """What the watches know beside the state. `present`: the register says that the person lives here."""

    tz: ZoneInfo
    rules: Rules = DEFAULTS
    dementia: bool = False
    bedridden: bool = False
    present: bool = True
    covers: Sequence[Cover] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    bridges: Sequence[Bridge] = ()

    def local(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self.tz)

    def clock(self, at: float) -> str:
        """A time as a person reads it."""
        return f"{self.local(at):%m-%d %H:%M}"

    def place_of(self, device_id: str) -> str:
        """Where a device is, in words; its id where nobody said."""
        device = self.devices.get(device_id)
        return (device.place if device else None) or device_id

    def next_time(self, at: float, clock: TimeOfDay | int) -> float:
        """When this time of day comes next, at or after `at`."""
        minutes = clock.minutes if isinstance(clock, TimeOfDay) else clock
        local = self.local(at)
        found = local.replace(hour=minutes // 60 % 24, minute=minutes % 60, second=0, microsecond=0)
        if found < local:
            found = (found + timedelta(days=1)).replace(hour=minutes // 60 % 24)
        return found.timestamp()

    def within(self, at: float, begins: TimeOfDay, ends: TimeOfDay) -> bool:
        """Whether a time of day lies in hours that may go past midnight."""
        local = self.local(at)
        minutes = local.hour * 60 + local.minute
        if begins.minutes <= ends.minutes:
            return begins.minutes <= minutes < ends.minutes
        return minutes >= begins.minutes or minutes < ends.minutes


@dataclass(frozen=True, slots=True)
class Stage:
    """From `due` on the condition is this urgent."""

    due: float
    severity: Severity


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that holds. `stages` in the order of time and urgency; `because(now)` says why, with its figures."""

    kind: AlarmKind
    since: float
    stages: tuple[Stage, ...]
    because: Callable[[float], str]
    device_id: str | None = None
    waits_anew: bool = False  # when a period that covered it ends: whoever was away is not silent yet


@dataclass(frozen=True, slots=True)
class Rise:
    """Raise an alarm, or make the one that stands more urgent."""

    kind: AlarmKind
    severity: Severity
    because: str
    since: float
    device_id: str | None


@dataclass(frozen=True, slots=True)
class Ease:
    """What an alarm was raised for is over."""

    kind: AlarmKind
    because: str


@dataclass(frozen=True, slots=True)
class Look:
    """What to tell now, and when to look again (None: only when something happens)."""

    told: tuple[Rise | Ease, ...]
    again: float | None


Watch = Callable[[Home, View, float], Iterable[Condition]]


def look(home: Home, view: View, now: float, watches: Sequence[Watch]) -> Look:
    """Judge a home as it is now. What was told is noted in its state."""
    told: list[Rise | Ease] = []
    later: list[float] = []
    standing: set[str] = set()
    held = [one for watch in watches for one in watch(home, view, now)]
    for condition in held:
        stages = _uncovered(condition, view)
        uncovered = covered_until(view.covers, condition.kind, now)
        reached = [stage for stage in stages if stage.due <= now] if uncovered == now else []
        later += [max(stage.due, uncovered) for stage in stages if max(stage.due, uncovered) > now]
        if reached:
            standing.add(condition.kind.value)
            rise = _rise(home, condition, reached[-1], now)
            told += [rise] if rise else []
        elif condition.kind.value in home.raised and condition.since <= home.raised[condition.kind.value].at:
            standing.add(condition.kind.value)  # covered meanwhile, or waiting longer by new settings: it still holds
    for kind in [kind for kind in home.raised if kind not in standing]:
        del home.raised[kind]
        told.append(Ease(AlarmKind(kind), say(f"because.over.{kind}", time=view.clock(now))))
    if home.raised or home.bridge_down:
        later.append(now + _EASE_LOOK_S)
    if rests_on(home):
        later.append(now + _REST_LOOK_S)
    return Look(tuple(_most_urgent(told)), min(later, default=None))


def _uncovered(condition: Condition, view: View) -> list[Stage]:
    """The stages, all moved by as much as a period holds back the first; a waiting that begins anew adds itself."""
    first = condition.stages[0].due
    wait = first - condition.since if condition.waits_anew else 0.0
    shift = 0.0
    while (end := covered_until(view.covers, condition.kind, first + shift)) > first + shift:
        shift = end - first + wait
    return [Stage(stage.due + shift, stage.severity) for stage in condition.stages]


def _rise(home: Home, condition: Condition, stage: Stage, now: float) -> Rise | None:
    before = home.raised.get(condition.kind.value)
    if before is not None and Severity(before.severity).rank <= stage.severity.rank:
        return None
    home.raised[condition.kind.value] = Raised(stage.severity.value, now)
    return Rise(condition.kind, stage.severity, condition.because(now), condition.since, condition.device_id)


def _most_urgent(told: list[Rise | Ease]) -> list[Rise | Ease]:
    """One word a kind: of several devices with the same trouble, the most urgent."""
    chosen: dict[AlarmKind, Rise | Ease] = {}
    for one in told:
        held = chosen.get(one.kind)
        if not isinstance(held, Rise) or (isinstance(one, Rise) and one.severity.rank < held.severity.rank):
            chosen[one.kind] = one
    return list(chosen.values())


def saying(words: str) -> Callable[[float], str]:
    """A reason whose figures do not change with time."""
    return lambda _: words


def spell(seconds: float) -> str:
    """A length of time in words: hours and minutes, or days and hours."""
    minutes = max(round(seconds / 60), 0)
    if seconds < 120:
        return say("spell.seconds", seconds=max(round(seconds), 0))
    if minutes < 60:
        return say("spell.minutes", minutes=minutes)
    if minutes < 48 * 60:
        return say("spell.hours", hours=minutes // 60, minutes=minutes % 60)
    return say("spell.days", days=minutes // 1440, hours=minutes % 1440 // 60)
