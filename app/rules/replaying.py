"""Recorded events run through the same rules in virtual time. Pure: observations in the order they came, alarms out.

Nobody answers here, so an alarm of the moment (SOS, smoke) counts as over when nothing repeats it for half an hour; one
that was noticed over time is over when what it was raised for is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from app.devices.events import FallWarning, Observation, Status
from app.rules import judge
from app.rules.home import Change, Heard, Home, fold
from app.rules.settings import Rules
from app.rules.verdict import AlarmKind, Raise, Severity
from app.rules.watches import watch
from app.rules.watching import Device, Rise, View

_OVER_S: Final = 1800


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event of a recording, with what the register said of its device."""

    seen: Observation
    kind: str
    place: str | None


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

    def __init__(self, rules: Rules, tz: ZoneInfo, *, dementia: bool = False, bedridden: bool = False) -> None:
        self.home = Home()
        self._devices: dict[str, Device] = {}
        self._view = View(tz, rules, dementia=dementia, bedridden=bedridden, devices=self._devices)
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
        verdict = judge(seen)
        if not isinstance(verdict, Raise) or isinstance(seen.event, FallWarning):
            return  # a suspected fall is watched (falls.py)
        last = self._standing.get(verdict.kind)
        severity = verdict.severity
        joins = last is not None and now - last[0] < _OVER_S
        if joins and last is not None and last[1].rank <= severity.rank:
            severity = last[1]
        else:
            yield Alarm(self._view.local(now), verdict.kind, severity, verdict.because)
        self._standing[verdict.kind] = now, severity


def received_order(events: Iterable[Recorded]) -> list[Recorded]:
    """As the server received them; equal times keep their order."""
    return sorted(events, key=lambda one: one.seen.received_at)
