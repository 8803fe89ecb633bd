"""What can be set about the rules: one table of fields with ranges, partial documents laid over each other. Pure.

A document is `{"no_activity": {"ceiling_minutes": 150}, …}`: the same shape in `/rules`, in the file of `shouwang replay
--rules` and in the database. A field that is absent is inherited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Final, NamedTuple

from app.rules.verdict import AlarmKind

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class RuleFault(ValueError):
    """A setting that cannot be: where it stands, and what would be right."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = path
        self.detail = detail


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """Local wall-clock time; minutes after midnight."""

    minutes: int

    def __str__(self) -> str:
        return f"{self.minutes // 60:02d}:{self.minutes % 60:02d}"


class Range(NamedTuple):
    low: int
    high: int
    unit: str
    about: str


def _whole(default: int, low: int, high: int, unit: str, about: str) -> Any:
    return field(default=default, metadata={"range": Range(low, high, unit, about)})


def _clock(default: str, about: str) -> Any:
    hours, minutes = default.split(":")
    value = TimeOfDay(int(hours) * 60 + int(minutes))
    return field(default=value, metadata={"range": Range(0, 1439, "HH:MM", about)})


def _switch(about: str) -> Any:
    return field(default=True, metadata={"range": Range(0, 1, "true or false", about)})


@dataclass(frozen=True, slots=True)
class NoActivity:
    """No sign of life while the person is at home."""

    enabled: bool = _switch("whether the rule is on")
    day_from: TimeOfDay = _clock("07:00", "when the day begins")
    day_to: TimeOfDay = _clock(
        "20:00", "when the night begins; the home's own habits may shift both, by 3 hours at most"
    )
    floor_minutes: int = _whole(120, 15, 1440, "minutes", "by day, a learned limit is never below")
    ceiling_minutes: int = _whole(
        170, 30, 2880, "minutes", "by day, a learned limit is never above; holds until learned"
    )
    morning_minutes: int = _whole(
        225,
        30,
        720,
        "minutes",
        "after the day began: by when a night must have ended; later where nights did, by 3 hours",
    )
    night_floor_minutes: int = _whole(360, 60, 1440, "minutes", "the same by night")
    night_ceiling_minutes: int = _whole(660, 120, 2880, "minutes", "the same by night")
    unseen_ceiling_minutes: int = _whole(360, 30, 2880, "minutes", "where no sensor sees the door: the most by day")
    door_only_minutes: int = _whole(2160, 240, 10080, "minutes", "where only the door is watched")
    out_minutes: int = _whole(5760, 240, 43200, "minutes", "who went out, without a sign of coming back")
    resting_minutes: int = _whole(720, 120, 2880, "minutes", "in bed or in a chair that goes on reporting")
    learn: bool = _switch("whether the limits are learned from the home's own past")
    learn_days: int = _whole(7, 3, 60, "days", "days of its past that a home needs")
    grows_after_minutes: int = _whole(60, 5, 1440, "minutes", "after which the alarm becomes critical")


@dataclass(frozen=True, slots=True)
class NightExit:
    """Out by night, and not back."""

    enabled: bool = _switch("whether the rule is on")
    night_from: TimeOfDay = _clock("23:00", "when the night begins")
    night_to: TimeOfDay = _clock("05:00", "when it ends")
    return_minutes: int = _whole(30, 1, 720, "minutes", "by when the person should be back")
    dementia_from: TimeOfDay = _clock("21:00", "for people with dementia: when the night begins")
    dementia_to: TimeOfDay = _clock("06:00", "for people with dementia: when it ends")
    dementia_return_minutes: int = _whole(10, 1, 720, "minutes", "for people with dementia: by when")
    grows_after_minutes: int = _whole(60, 5, 1440, "minutes", "after which the alarm becomes critical")


@dataclass(frozen=True, slots=True)
class DoorLeftOpen:
    enabled: bool = _switch("whether the rule is on")
    after_minutes: int = _whole(30, 1, 1440, "minutes", "by day")
    night_from: TimeOfDay = _clock("22:00", "when the night begins")
    night_to: TimeOfDay = _clock("06:00", "when it ends")
    night_after_minutes: int = _whole(10, 1, 720, "minutes", "by night")
    grows_after_minutes: int = _whole(120, 5, 2880, "minutes", "after which it is more than a reminder")


@dataclass(frozen=True, slots=True)
class BedExit:
    """The bed left by night, and not returned to."""

    enabled: bool = _switch("whether the rule is on")
    night_from: TimeOfDay = _clock("22:00", "when the night begins")
    night_to: TimeOfDay = _clock("05:00", "when it ends")
    return_minutes: int = _whole(30, 5, 720, "minutes", "without a sign of life elsewhere")
    dementia_return_minutes: int = _whole(15, 5, 720, "minutes", "for people with dementia")
    grows_after_minutes: int = _whole(60, 5, 1440, "minutes", "after which the alarm becomes critical")


@dataclass(frozen=True, slots=True)
class FallWatch:
    """A suspected fall: an alarm unless somebody moves."""

    wait_seconds: int = _whole(90, 10, 900, "seconds", "how long a sign of life is waited for")


@dataclass(frozen=True, slots=True)
class DeviceSilent:
    enabled: bool = _switch("whether the rule is on")
    after_hours: int = _whole(26, 1, 168, "hours", "without any message; sleepy devices report once in 25 hours")
    offline_minutes: int = _whole(30, 1, 1440, "minutes", "after the broker or the device said it is offline")
    grows_after_hours: int = _whole(24, 1, 336, "hours", "after which it is more than a reminder")


@dataclass(frozen=True, slots=True)
class BatteryLow:
    enabled: bool = _switch("whether the rule is on")
    low_percent: int = _whole(15, 1, 50, "percent", "at or below: low")
    flat_percent: int = _whole(5, 0, 30, "percent", "at or below: nearly flat")


@dataclass(frozen=True, slots=True)
class Tamper:
    enabled: bool = _switch("whether the rule is on")


@dataclass(frozen=True, slots=True)
class Flapping:
    enabled: bool = _switch("whether the rule is on")
    changes: int = _whole(20, 6, 1000, "changes", "opened and closed, in bed and out, this many times")
    within_minutes: int = _whole(10, 1, 60, "minutes", "within")


@dataclass(frozen=True, slots=True)
class ClockWrong:
    enabled: bool = _switch("whether the rule is on")
    times: int = _whole(3, 2, 100, "messages", "in a row with a time more than 5 minutes off")


@dataclass(frozen=True, slots=True)
class BridgeOffline:
    enabled: bool = _switch("whether the rule is on")
    after_minutes: int = _whole(5, 1, 1440, "minutes", "without its bridge or gateway")
    grows_after_hours: int = _whole(4, 1, 168, "hours", "after which it is more than a reminder")


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that can be set, as it holds for one person."""

    no_activity: NoActivity = NoActivity()
    night_exit: NightExit = NightExit()
    door_left_open: DoorLeftOpen = DoorLeftOpen()
    bed_exit: BedExit = BedExit()
    fall: FallWatch = FallWatch()
    device_silent: DeviceSilent = DeviceSilent()
    battery_low: BatteryLow = BatteryLow()
    tamper: Tamper = Tamper()
    flapping: Flapping = Flapping()
    clock_wrong: ClockWrong = ClockWrong()
    bridge_offline: BridgeOffline = BridgeOffline()


DEFAULTS: Final = Rules()
GROUPS: Final[Mapping[str, Any]] = {one.name: getattr(DEFAULTS, one.name) for one in fields(Rules)}
assert set(GROUPS) <= {kind.value for kind in AlarmKind}

Document = Mapping[str, Mapping[str, Any]]
# (of two fields, the first may not be above the second)
_ORDERED: Final = (
    ("no_activity", "floor_minutes", "ceiling_minutes"),
    ("no_activity", "night_floor_minutes", "night_ceiling_minutes"),
    ("battery_low", "flat_percent", "low_percent"),
)


def read_document(document: Any) -> dict[str, dict[str, Any]]:
    """A partial document, checked field by field, in its own form. Raises `RuleFault` at the first thing to mend."""
    if not isinstance(document, Mapping):
        raise RuleFault("settings", 'must be an object like {"no_activity": {"ceiling_minutes": 150}}')
    read: dict[str, dict[str, Any]] = {}
    for group, given in document.items():
        if group not in GROUPS:
            raise RuleFault(str(group), f"no such rule; there are {', '.join(GROUPS)}")
        if not isinstance(given, Mapping):
            raise RuleFault(group, "must be an object of fields")
        known = {one.name: one for one in fields(GROUPS[group])}
        for name, value in given.items():
            if name not in known:
                raise RuleFault(f"{group}.{name}", f"no such field; there are {', '.join(known)}")
            read.setdefault(group, {})[name] = _plain(_read(f"{group}.{name}", known[name], value))
    return read


def _read(path: str, one: Any, value: Any) -> Any:
    limits: Range = one.metadata["range"]
    match one.default:
        case bool():
            if not isinstance(value, bool):
                raise RuleFault(path, "must be true or false")
            return value
        case int():
            if isinstance(value, bool) or not isinstance(value, int) or not limits.low <= value <= limits.high:
                raise RuleFault(path, f"must be a whole number of {limits.unit} from {limits.low} to {limits.high}")
            return value
        case TimeOfDay():
            found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
            if found is None:
                raise RuleFault(path, 'must be a time of day like "22:30"')
            return TimeOfDay(int(found[1]) * 60 + int(found[2]))
        case _:
            raise AssertionError(path)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, TimeOfDay) else value


def lay_over(documents: Iterable[Document], *, strict: bool = False) -> Rules:
    """The documents laid over the defaults, the last on top. A floor that ended up above its ceiling is lowered to it;
    `strict`: raises `RuleFault` instead."""
    rules = DEFAULTS
    for document in documents:
        for group, given in document.items():
            held = getattr(rules, group)
            known = {one.name: one for one in fields(held)}
            values = {name: _read(f"{group}.{name}", known[name], value) for name, value in given.items()}
            rules = replace(rules, **{group: replace(held, **values)})
    if strict:
        _refuse_empty_nights(rules)
    for group, lower, upper in _ORDERED:
        held = getattr(rules, group)
        low, high = getattr(held, lower), getattr(held, upper)
        if low > high:
            if strict:
                raise RuleFault(f"{group}.{lower}", f"{low} is above {upper} ({high}); set both")
            rules = replace(rules, **{group: replace(held, **{lower: high})})
    return rules


def _refuse_empty_nights(rules: Rules) -> None:
    """A night that ends as it begins is no time at all: the rule would look as if it were on."""
    for group in GROUPS:
        held = getattr(rules, group)
        for night in ("night", "dementia"):
            begins, ends = getattr(held, f"{night}_from", None), getattr(held, f"{night}_to", None)
            if begins is not None and begins == ends:
                raise RuleFault(
                    f"{group}.{night}_from",
                    f"{begins} is {night}_to too, which is no time at all; `enabled`: false turns the rule off",
                )


def as_document(rules: Rules) -> dict[str, dict[str, Any]]:
    """All fields with their values, in the document's own form."""
    return {
        group: {one.name: _plain(getattr(getattr(rules, group), one.name)) for one in fields(standard)}
        for group, standard in GROUPS.items()
    }


def describe() -> dict[str, dict[str, dict[str, Any]]]:
    """Each field with its default, its range, its unit and what it says: for `/rules/fields` and docs/rules.md."""
    described: dict[str, dict[str, dict[str, Any]]] = {}
    for group, standard in GROUPS.items():
        described[group] = {}
        for one in fields(standard):
            assert one.default is not MISSING
            limits: Range = one.metadata["range"]
            entry: dict[str, Any] = {"default": _plain(one.default), "unit": limits.unit, "about": limits.about}
            if isinstance(one.default, int) and not isinstance(one.default, bool):
                entry |= {"min": limits.low, "max": limits.high}
            described[group][one.name] = entry
    return described
