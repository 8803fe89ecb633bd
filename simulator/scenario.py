"""The words of a scenario file, read strictly: an unknown word is refused with the line and what to mend.

A file is one scenario: `name`, `people`, `devices`, `policy` (one or a list), `steps`; `slow: true` keeps it for
`--slow`; `about` says why it matters. `docs` of the steps are the classes below.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from simulator import families
from simulator.devices import ANY, FIELDS, KINDS, Value
from simulator.families import FAMILIES

ROLES: Final = ("elder", "emergency_contact", "assigned_visitor", "village_head", "deputy", "township_duty")
TARGETS: Final = ("emergency_contacts", "assigned_visitors", "village_head", "township_duty", "operators")
SEVERITIES: Final = ("critical", "major", "minor", "warning")
STATES: Final = ("open", "acknowledged", "attending", "resolved")
OUTCOMES: Final = (
    "real_emergency",
    "false_alarm",
    "test",
    "elder_well",
    "hospitalised",
    "device_fault",
    "other",
)
NEWS: Final = (
    "alarm.raised",
    "alarm.escalated",
    "alarm.reopened",
    "alarm.calmed",
    "alarm.repeated",
    "alarm.reminded",
    "alarm.acknowledged",
    "alarm.resolved",
)
DEFAULT_WITHIN_S: Final = 5.0


class ScenarioError(Exception):
    """A scenario file cannot be used. The sentence names file, line and what to mend."""


@dataclass(frozen=True, slots=True)
class PersonSpec:
    name: str
    role: str
    of: str | None = None  # contacts and assigned visitors: whose; None = the first elder
    age: int = 84
    sex: str | None = None
    living_alone: bool = True
    channels: int = 1  # how many phones


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    name: str
    kind: str
    worn_by: str | None = None  # None = the first elder
    registered: bool = True
    family: str = "native"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    severity: str
    steps: tuple[tuple[int, tuple[str, ...]], ...]
    repeat_last_every_s: int


@dataclass(frozen=True, slots=True)
class Send:
    """`press` or `send`: a device sends an event. `id: none` sends without id; without `id` each gets a new one."""

    device: str
    type: str
    id: str | None
    fields: Mapping[str, Value]
    times: int = 1
    clock_off_s: float = 0.0
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    """`raw`: bytes as they are on a device's event topic, for what no encoder would write."""

    device: str
    payload: str
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Bind:
    """`bind`: the device belongs to this elder from now on (registered when it was not)."""

    device: str
    elder: str


@dataclass(frozen=True, slots=True)
class Phone:
    """`phone`: a person's phone answers 410 (dead), 500 (broken), `hang` (silent) or 200 (well)."""

    person: str
    channel: int
    answers: int | str


@dataclass(frozen=True, slots=True)
class Answer:
    """`answer`: a person uses the link in the newest notice they heard."""

    person: str
    action: str
    eta_minutes: int | None = None
    outcome: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """`operator`: an account acts on the elder's unresolved alarm over REST."""

    action: str
    elder: str | None = None
    eta_minutes: int | None = None
    outcome: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class VisitNow:
    """`visit`: somebody writes a visit into the ledger (it ends now)."""

    visitor: str
    elder: str | None = None
    method: str = "home"
    minutes: int = 10
    for_alarm: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """`wait: 2` seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stream:
    """`stream: open` watches the feed (and a witness that is never cut), `drop` cuts it, `resume` comes back."""

    action: str


@dataclass(frozen=True, slots=True)
class Hears:
    """A webhook of this type, rightly signed, arrives at a person's phone. Each expectation uses one up."""

    person: str
    type: str
    within_s: float
    channel: int | None = None
    about: str | None = None


@dataclass(frozen=True, slots=True)
class HearsNot:
    """From now on, for so long, no webhook of this type arrives."""

    person: str
    type: str
    for_s: float


@dataclass(frozen=True, slots=True)
class AlarmIs:
    """The elder's alarm (the newest, of the kind when given) has these values."""

    values: Mapping[str, Value]
    within_s: float
    elder: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class AlarmCount:
    """How many alarms the elder has (unresolved and resolved); `for_s`: and it stays so."""

    count: int
    within_s: float
    for_s: float = 0.0
    elder: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A device is told a state over MQTT. Each expectation uses one up."""

    device: str
    state: str
    within_s: float


@dataclass(frozen=True, slots=True)
class TimelineHas:
    """The elder's timeline holds items of these kinds."""

    kinds: tuple[str, ...]
    within_s: float
    elder: str | None = None


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """The device is listed among those that speak but that nobody registered."""

    device: str
    within_s: float


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message of the device is in quarantine with this reason."""

    device: str
    reason: str
    within_s: float


@dataclass(frozen=True, slots=True)
class Journal:
    """The device's journal holds `count` events of this type, belonging to this elder."""

    device: str
    type: str
    within_s: float
    count: int = 1
    elder: str | None = None
    late: bool | None = None


@dataclass(frozen=True, slots=True)
class StreamHas:
    """The feed brings an event of this type about this scenario's elders. Each expectation uses one up."""

    type: str
    within_s: float


@dataclass(frozen=True, slots=True)
class StreamUnbroken:
    """The feed that was cut and resumed has brought the same ids, in the same order, as the witness."""

    within_s: float


Action = Send | Raw | Bind | Phone | Answer | Operator | VisitNow | Wait | Stream
Expectation = (
    Hears
    | HearsNot
    | AlarmIs
    | AlarmCount
    | Told
    | TimelineHas
    | Unclaimed
    | Quarantined
    | Journal
    | StreamHas
    | StreamUnbroken
)
Doing = Action | Expectation


@dataclass(frozen=True, slots=True)
class Step:
    line: int
    text: str
    do: Doing


@dataclass(frozen=True, slots=True)
class Scenario:
    file: str
    name: str
    about: str
    slow: bool
    people: tuple[PersonSpec, ...]
    devices: tuple[DeviceSpec, ...]
    policies: tuple[PolicySpec, ...]
    steps: tuple[Step, ...]

    def elders(self) -> list[PersonSpec]:
        return [person for person in self.people if person.role == "elder"]


def load(path: Path) -> Scenario:
    """Read one file. Raises `ScenarioError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None
    return parse(text, str(path))


def parse(text: str, file: str) -> Scenario:
    """Read a scenario from text. Raises `ScenarioError`."""
    try:
        # A subclass of SafeLoader: it builds plain values and lines, nothing else.
        tree = yaml.load(text, _Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ScenarioError(f"{file}:{where}: not YAML: {error.problem or error.context}") from None
    if not isinstance(tree, _Map):
        raise ScenarioError(f"{file}:1: a scenario is a mapping with `name`, `people`, `devices` and `steps`")
    return _Reader(file).scenario(tree)


class _Map(dict[str, Any]):
    """A mapping that knows on which line it and its keys stand."""

    line: int = 1
    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    pass


def _mapping(loader: _Loader, node: yaml.MappingNode) -> _Map:
    found = _Map()
    found.line = node.start_mark.line + 1
    found.lines = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a word", key_node.start_mark)
        if key in found:
            raise yaml.constructor.ConstructorError(None, None, f"`{key}` stands twice", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
        found.lines[key] = key_node.start_mark.line + 1
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

_T = TypeVar("_T")


class _Taker:
    """Takes fields from a mapping one by one; what is left at the end is unknown."""

    def __init__(self, file: str, where: str, given: _Map) -> None:
        self._file = file
        self._where = where
        self._given = given
        self._known: list[str] = []

    def fail(self, sentence: str, field: str | None = None) -> ScenarioError:
        line = self._given.lines.get(field or "", self._given.line)
        return ScenarioError(f"{self._file}:{line}: {self._where}{f'.{field}' if field else ''}: {sentence}")

    def has(self, name: str) -> bool:
        return name in self._given

    def line(self, name: str) -> int:
        return self._given.lines.get(name, self._given.line)

    def raw(self, name: str) -> Any:
        self._known.append(name)
        return self._given.get(name)

    def text(self, name: str, default: str | None = None, *, among: tuple[str, ...] | None = None) -> str:
        value = self._take(name, default, str, "a text")
        if among is not None and value not in among:
            raise self.fail(f"{value!r} is not known{_perhaps(value, among)}", name)
        return value

    def text_or_none(self, name: str, *, among: tuple[str, ...] | None = None) -> str | None:
        if not self.has(name):
            self._known.append(name)
            return None
        return self.text(name, among=among)

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int = 10**6) -> int:
        value = self._take(name, default, int, "a whole number")
        if isinstance(value, bool) or not low <= value <= high:
            raise self.fail(f"must be a whole number from {low} to {high}", name)
        return value

    def whole_or_none(self, name: str, *, low: int, high: int) -> int | None:
        if not self.has(name):
            self._known.append(name)
            return None
        return self.whole(name, low=low, high=high)

    def seconds(self, name: str, default: float | None = None) -> float:
        value = self._take(name, default, (int, float), "a number of seconds")
        if isinstance(value, bool):
            raise self.fail("must be a number of seconds", name)
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        return self._take(name, default, bool, "true or false")

    def mapping(self, name: str) -> _Map:
        return self._take(name, None, _Map, "a mapping")

    def listing(self, name: str) -> list[Any]:
        return self._take(name, None, list, "a list")

    def done(self) -> None:
        """Nothing unknown may be left."""
        for name in self._given:
            if name not in self._known:
                raise self.fail(f"unknown word{_perhaps(name, tuple(self._known))}", name)

    def _take(self, name: str, default: _T | None, kind: type[_T] | tuple[type, ...], what: str) -> _T:
        self._known.append(name)
        if name not in self._given:
            if default is None:
                raise self.fail(f"`{name}` is missing: give {what}")
            return default
        value = self._given[name]
        if not isinstance(value, kind):
            raise self.fail(f"must be {what}", name)
        return value  # type: ignore[return-value]


def _perhaps(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f": did you mean `{near[0]}`?" if near else f"; known are {', '.join(known)}"


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._people: dict[str, PersonSpec] = {}
        self._devices: dict[str, DeviceSpec] = {}

    def _taker(self, where: str, given: Any, line: int) -> _Taker:
        if not isinstance(given, _Map):
            raise ScenarioError(f"{self._file}:{line}: {where}: must be a mapping")
        return _Taker(self._file, where, given)

    def scenario(self, tree: _Map) -> Scenario:
        top = _Taker(self._file, "scenario", tree)
        name = top.text("name")
        about = top.text("about", "")
        slow = top.flag("slow", False)
        self._read_people(top.mapping("people"))
        if top.has("devices"):
            self._read_devices(top.mapping("devices"))
        else:
            top.raw("devices")
        policies = self._policies(top)
        steps = tuple(self._step(number, given, top) for number, given in enumerate(top.listing("steps"), 1))
        top.done()
        if not steps:
            raise top.fail("a scenario needs at least one step", "steps")
        people, devices = tuple(self._people.values()), tuple(self._devices.values())
        return Scenario(self._file, name, about, slow, people, devices, policies, steps)

    def _read_people(self, given: _Map) -> None:
        for name, spec in given.items():
            person = self._taker(f"people.{name}", spec, given.lines[name])
            role = person.text("role", "elder", among=ROLES)
            if role == "elder":
                self._people[name] = PersonSpec(
                    name,
                    role,
                    age=person.whole("age", 84, low=60, high=110),
                    sex=person.text_or_none("sex", among=("female", "male")),
                    living_alone=person.flag("living_alone", True),
                )
            else:
                of = person.text_or_none("of")
                self._people[name] = PersonSpec(name, role, of=of, channels=person.whole("channels", 1, low=0, high=5))
            person.done()
        elders = [name for name, person in self._people.items() if person.role == "elder"]
        if not elders:
            raise ScenarioError(f"{self._file}:{given.line}: people: at least one must have `role: elder`")
        for name, spec in self._people.items():
            if spec.of is not None and spec.of not in elders:
                line = given[name].lines["of"]
                raise ScenarioError(
                    f"{self._file}:{line}: people.{name}.of: {spec.of!r} is no elder of this scenario"
                    f"{_perhaps(spec.of, tuple(elders))}"
                )

    def _read_devices(self, given: _Map) -> None:
        for name, spec in given.items():
            device = self._taker(f"devices.{name}", spec, given.lines[name])
            kind = device.text("kind", among=KINDS)
            worn_by = device.text_or_none("worn_by")
            if worn_by is not None:
                self._elder(worn_by, device, "worn_by")
            family = device.text("family", "native", among=FAMILIES)
            self._devices[name] = DeviceSpec(name, kind, worn_by, device.flag("registered", True), family)
            device.done()

    def _policies(self, top: _Taker) -> tuple[PolicySpec, ...]:
        if not top.has("policy"):
            top.raw("policy")
            return ()
        given = top.raw("policy")
        rows = given if isinstance(given, list) else [given]
        found = []
        for row in rows:
            policy = self._taker("policy", row, top.line("policy"))
            steps = []
            for step_row in policy.listing("steps"):
                step = self._taker("policy.steps", step_row, policy.line("steps"))
                targets = step.listing("targets")
                for target in targets:
                    if target not in TARGETS:
                        raise step.fail(f"{target!r} is not known{_perhaps(str(target), TARGETS)}", "targets")
                steps.append((step.whole("after_s", low=1), tuple(targets)))
                step.done()
            severity = policy.text("severity", among=SEVERITIES)
            found.append(PolicySpec(severity, tuple(steps), policy.whole("repeat_last_every_s", low=1)))
            policy.done()
        return tuple(found)

    def _step(self, number: int, given: Any, top: _Taker) -> Step:
        if not isinstance(given, _Map) or len(given) != 1:
            line = given.line if isinstance(given, _Map) else top.line("steps")
            raise ScenarioError(
                f"{self._file}:{line}: steps[{number}]: a step is one of {', '.join(_STEPS)} with its fields"
            )
        word, value = next(iter(given.items()))
        line = given.lines[word]
        if word not in _STEPS:
            raise ScenarioError(f"{self._file}:{line}: steps[{number}]: unknown step `{word}`{_perhaps(word, _STEPS)}")
        text = f"{word} {_plain(value)}"
        if word == "wait":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 600:
                raise ScenarioError(f"{self._file}:{line}: steps[{number}].wait: must be a number of seconds")
            return Step(line, text, Wait(float(value)))
        if word == "stream":
            if value not in ("open", "drop", "resume"):
                raise ScenarioError(f"{self._file}:{line}: steps[{number}].stream: must be open, drop or resume")
            return Step(line, text, Stream(value))
        fields = self._taker(f"steps[{number}].{word}", value, line)
        readers: dict[str, Callable[[_Taker], Doing]] = {
            "press": lambda taker: self._send(taker, "sos"),
            "send": lambda taker: self._send(taker, None),
            "raw": self._raw,
            "bind": self._bind,
            "phone": self._phone,
            "answer": self._answer,
            "operator": self._operator,
            "visit": self._visit,
            "expect": self._expect,
        }
        do = readers[word](fields)
        fields.done()
        return Step(line, text, do)

    def _person(self, taker: _Taker, name: str = "person") -> str:
        value = taker.text(name)
        phones = tuple(person for person, spec in self._people.items() if spec.role != "elder")
        if value not in phones:
            raise taker.fail(f"{value!r} is nobody with a phone here{_perhaps(value, phones)}", name)
        return value

    def _device(self, taker: _Taker) -> str:
        value = taker.text("device")
        if value not in self._devices:
            raise taker.fail(f"no device {value!r} in this scenario{_perhaps(value, tuple(self._devices))}", "device")
        return value

    def _elder(self, value: str, taker: _Taker, field: str) -> str:
        elders = tuple(name for name, person in self._people.items() if person.role == "elder")
        if value not in elders:
            raise taker.fail(f"{value!r} is no elder of this scenario{_perhaps(value, elders)}", field)
        return value

    def _elder_or_none(self, taker: _Taker, field: str = "elder") -> str | None:
        value = taker.text_or_none(field)
        return None if value is None else self._elder(value, taker, field)

    def _send(self, taker: _Taker, default: str | None) -> Send:
        kind = taker.text("type", default, among=tuple(FIELDS))
        device = self._device(taker)
        event_id = "new"
        if taker.has("id"):
            event_id = taker.text("id")
        else:
            taker.raw("id")
        fields: dict[str, Value] = {}
        for name in (*FIELDS[kind], *ANY):
            value = taker.raw(name)
            if value is None:
                continue
            if not isinstance(value, str | int | float | bool):
                raise taker.fail("must be a plain value", name)
            fields[name] = value
        spec = self._devices[device]
        try:
            families.device(spec.family, run="", name=device, kind=spec.kind).says(
                kind, ts_ms=0, event_id=None, fields=fields
            )
        except ValueError as error:
            raise taker.fail(str(error), "type" if taker.has("type") else "device") from None
        times = taker.whole("times", 1, low=1, high=10_000)
        off = taker.seconds("clock_off_s", 0.0)
        return Send(
            device, kind, None if event_id == "none" else event_id, fields, times, off, taker.flag("retained", False)
        )

    def _raw(self, taker: _Taker) -> Raw:
        return Raw(self._device(taker), taker.text("payload"), taker.flag("retained", False))

    def _bind(self, taker: _Taker) -> Bind:
        return Bind(self._device(taker), self._elder(taker.text("elder"), taker, "elder"))

    def _phone(self, taker: _Taker) -> Phone:
        person = self._person(taker)
        answers = taker.raw("answers")
        if answers not in (200, 410, 500, 503, "hang"):
            raise taker.fail("must be 200, 410, 500, 503 or hang", "answers")
        return Phone(person, taker.whole("channel", 1, low=1, high=5), answers)

    def _answer(self, taker: _Taker) -> Answer:
        return Answer(
            self._person(taker),
            taker.text("action", among=("acknowledge", "attend", "resolve")),
            taker.whole_or_none("eta_minutes", low=1, high=240),
            taker.text_or_none("outcome", among=OUTCOMES),
            taker.text_or_none("note"),
        )

    def _operator(self, taker: _Taker) -> Operator:
        return Operator(
            taker.text("action", among=("acknowledge", "attend", "resolve", "comment", "escalate")),
            self._elder_or_none(taker),
            taker.whole_or_none("eta_minutes", low=1, high=240),
            taker.text_or_none("outcome", among=OUTCOMES),
            taker.text_or_none("note"),
        )

    def _visit(self, taker: _Taker) -> VisitNow:
        return VisitNow(
            self._person(taker, "visitor"),
            self._elder_or_none(taker),
            taker.text("method", "home", among=("home", "phone", "online", "encounter")),
            taker.whole("minutes", 10, low=1, high=600),
            taker.flag("for_alarm", False),
        )

    def _expect(self, taker: _Taker) -> Doing:
        words = ("person", "alarm", "alarms", "device", "timeline", "unclaimed", "quarantine", "journal", "stream")
        chosen = [word for word in words if taker.has(word)]
        if len(chosen) != 1:
            raise taker.fail(f"must name exactly one of {', '.join(words)}")
        within = taker.seconds("within_s", DEFAULT_WITHIN_S)
        match chosen[0]:
            case "person":
                return self._expect_person(taker, within)
            case "alarm":
                return self._expect_alarm(taker, within)
            case "alarms":
                row = self._taker("expect.alarms", taker.raw("alarms"), taker.line("alarms"))
                elder, kind = self._elder_or_none(row), row.text_or_none("kind")
                count = AlarmCount(row.whole("count"), within, taker.seconds("for_s", 0.0), elder, kind)
                row.done()
                return count
            case "device":
                return Told(self._device(taker), taker.text("told", among=STATES), within)
            case "timeline":
                row = self._taker("expect.timeline", taker.raw("timeline"), taker.line("timeline"))
                kinds = row.listing("has")
                has = TimelineHas(tuple(str(kind) for kind in kinds), within, self._elder_or_none(row))
                row.done()
                return has
            case "unclaimed":
                row = self._taker("expect.unclaimed", taker.raw("unclaimed"), taker.line("unclaimed"))
                device = self._device(row)
                row.done()
                return Unclaimed(device, within)
            case "quarantine":
                row = self._taker("expect.quarantine", taker.raw("quarantine"), taker.line("quarantine"))
                kept = Quarantined(self._device(row), row.text("reason"), within)
                row.done()
                return kept
            case "journal":
                row = self._taker("expect.journal", taker.raw("journal"), taker.line("journal"))
                kind = row.text("type", among=tuple(FIELDS))
                late = row.flag("late") if row.has("late") else row.raw("late")
                journal = Journal(
                    self._device(row), kind, within, row.whole("count", 1), self._elder_or_none(row), late
                )
                row.done()
                return journal
            case _:
                value = taker.text("stream", among=(*NEWS, "unbroken"))
                return StreamUnbroken(within) if value == "unbroken" else StreamHas(value, within)

    def _expect_person(self, taker: _Taker, within: float) -> Hears | HearsNot:
        person = self._person(taker)
        if taker.has("does_not_hear"):
            return HearsNot(person, taker.text("does_not_hear", among=NEWS), taker.seconds("for_s", 3.0))
        return Hears(
            person,
            taker.text("hears", among=NEWS),
            within,
            taker.whole_or_none("channel", low=1, high=5),
            self._elder_or_none(taker, "about"),
        )

    def _expect_alarm(self, taker: _Taker, within: float) -> AlarmIs:
        row = self._taker("expect.alarm", taker.raw("alarm"), taker.line("alarm"))
        elder, kind = self._elder_or_none(row), row.text_or_none("kind")
        values: dict[str, Value] = {}
        for name, among in (("state", STATES), ("severity", SEVERITIES), ("outcome", OUTCOMES)):
            value = row.text_or_none(name, among=among)
            if value is not None:
                values[name] = value
        for name in ("repeats", "step"):
            number = row.whole_or_none(name, low=0, high=10_000)
            if number is not None:
                values[name] = number
        if row.has("late"):
            values["late"] = row.flag("late")
        else:
            row.raw("late")
        row.done()
        if not values:
            raise row.fail("say what the alarm is: state, severity, outcome, repeats, step or late")
        return AlarmIs(values, within, elder, kind)


_STEPS: Final = ("press", "send", "raw", "bind", "phone", "answer", "operator", "visit", "wait", "stream", "expect")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return str(value)
