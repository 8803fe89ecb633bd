"""Recorded events run through the same rules in virtual time. Pure: observations in the order they came, alarms out.

Nobody answers here, so an alarm of the moment (SOS, smoke) counts as over when nothing repeats it for half an hour; one
that was noticed over time is over when what it was raised for is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from app.devices.edges import Because, State, weigh
from app.devices.events import FallWarning, Gas, Observation, Smoke, Status, WaterLeak
from app.rules import judge
from app.rules.cover import Cover
from app.rules.home import Change, Heard, Home, fold, forget_device
from app.rules.settings import Rules
from app.rules.verdict import AlarmKind, Raise, Severity
from app.rules.watches import watch
from app.rules.watching import Device, Rise, View

_OVER_S: Final = 1800
_STATES: Final = (Smoke, Gas, WaterLeak)  # doors and beds are told apart by the fold


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event of a recording, with what the register said of its device."""

    seen: Observation
    kind: str
    place: str | None


@dataclass(frozen=True, slots=True)
class Taken:
    """From then on a device is no more this person's."""

    device_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm as it would have been raised, or have grown more urgent."""

    at: datetime
    kind: AlarmKind
    severity: Severity
    because: str


def heard_from(seen: Observation, kind: str | None, place: str | None) -> Heard:
    """An observation as the fold takes it."""
    return Heard(
        device_id=seen.device_id, event=seen.event, at=seen.occurred_at.timestamp(),
        received=seen.received_at.timestamp(), kind=kind or "", place=place, battery=seen.battery,
        device_time=seen.device_time.timestamp() if seen.device_time else None, retained=seen.retained,
    )  # fmt: skip


class Replay:
    """One home in virtual time."""

    def __init__(
        self,
        rules: Rules,
        tz: ZoneInfo,
        *,
        dementia: bool = False,
        bedridden: bool = False,
        covers: Sequence[Cover] = (),
        taken: Iterable[Taken] = (),
    ) -> None:
        self.home = Home()
        self._devices: dict[str, Device] = {}
        self._view = View(tz, rules, dementia=dementia, bedridden=bedridden, covers=covers, devices=self._devices)
        self._taken = sorted(taken, key=lambda one: one.at, reverse=True)
        self._states: dict[tuple[str, str], State] = {}
        self._again: float | None = None
        self._standing: dict[AlarmKind, tuple[float, Severity]] = {}

    def run(self, events: Iterable[Recorded], *, until: datetime | None = None) -> Iterator[Alarm]:
        """Alarms in the order of time, up to `until` or the last event."""
        end = until.timestamp() if until else float("inf")
        for one in events:
            received = one.seen.received_at.timestamp()
            if received > end:
                break
            yield from self._pass_time(received)
            yield from self._take(one, received)
        if until is not None:
            yield from self._pass_time(end)

    def _pass_time(self, now: float) -> Iterator[Alarm]:
        while self._taken and self._taken[-1].at <= now:
            one = self._taken.pop()
            yield from self._pass_looks(one.at)
            self._devices.pop(one.device_id, None)
            forget_device(self.home, one.device_id)
        yield from self._pass_looks(now)

    def _pass_looks(self, now: float) -> Iterator[Alarm]:
        while self._again is not None and self._again <= now:
            yield from self._look(self._again)

    def _look(self, now: float) -> Iterator[Alarm]:
        found = watch(self.home, self._view, now)
        self._again = found.again
        for one in found.told:
            if isinstance(one, Rise):
                yield Alarm(self._view.local(now), one.kind, one.severity, one.because)

    def _take(self, one: Recorded, now: float) -> Iterator[Alarm]:
        heard = heard_from(one.seen, one.kind, one.place)
        event = one.seen.event
        known = self._devices.get(heard.device_id)
        if not heard.retained or isinstance(event, Status):
            online = event.online if isinstance(event, Status) else True
            self._devices[heard.device_id] = Device(heard.kind, one.place, now, online)
        yield from self._at_once(one.seen, now)
        back = known is None or known.online is False
        change = fold(self.home, heard, self._view.tz)
        if change is Change.STIRRED or self._again is None or back:
            yield from self._look(now)

    def _at_once(self, seen: Observation, now: float) -> Iterator[Alarm]:
        verdict = judge(seen, self._edge(seen))
        if not isinstance(verdict, Raise) or isinstance(seen.event, FallWarning):
            return  # a suspected fall is watched (falls.py)
        last = self._standing.get(verdict.kind)
        severity = verdict.severity
        joins = last is not None and now - last[0] < _OVER_S
        if verdict.only_joins and not joins:
            return
        if joins and last is not None and last[1].rank <= severity.rank:
            severity = last[1]
        else:
            yield Alarm(self._view.local(now), verdict.kind, severity, verdict.because)
        self._standing[verdict.kind] = now, severity

    def _edge(self, seen: Observation) -> Because:
        """Whether a condition is news beside what its device said before: a stuck smoke alarm is one alarm."""
        if not isinstance(seen.event, _STATES):
            return Because.HAPPENED
        key = seen.device_id, seen.event.type
        self._states[key], because = weigh(self._states.get(key), seen)
        return because


def received_order(events: Iterable[Recorded]) -> list[Recorded]:
    """As the server took them: in the order they came, equal times as they stood, and what has an id of its own once."""
    taken: dict[tuple[str, str] | int, Recorded] = {}
    for number, one in enumerate(sorted(events, key=lambda one: one.seen.received_at)):
        own = one.seen.event_id
        taken.setdefault(number if own is None else (one.seen.device_id, own), one)
    return list(taken.values())
