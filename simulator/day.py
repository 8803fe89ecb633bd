"""One day of one elder as their devices tell it. Pure: the same profile, day and random state give the same plan."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from simulator.devices import Value

MINUTE = 60
HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Profile:
    """How somebody lives: what the plan is made from."""

    key: str
    devices: Mapping[str, str]  # kind of device → device id
    wakes_at: float = 6.0  # hour of the day
    sleeps_at: float = 21.0
    outings: int = 2  # how often out of the house on a usual day
    nightly_rises: int = 1
    frailty: float = 0.3  # 0 … 1: how likely falls, presses and forgotten pots are


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """What a device says, `at` seconds after midnight. Two messages with one `event_id` are one event sent twice."""

    at: float
    device_id: str
    type: str
    event_id: str
    fields: Mapping[str, Value] = field(default_factory=dict)


def plan_day(elder_profile: Profile, day: date, rng: random.Random) -> list[PlannedMessage]:
    """The messages of a day in the order of their time."""
    plan = _Plan(elder_profile, day)
    up = _around(rng, elder_profile.wakes_at * HOUR, 25 * MINUTE)
    down = _around(rng, elder_profile.sleeps_at * HOUR, 30 * MINUTE)
    _night(plan, rng, up, down)
    away = _outings(plan, rng, up, down)
    _moving_about(plan, rng, up, down, away)
    _heartbeats(plan, rng)
    _mishaps(plan, rng, up, down)
    return plan.sorted()


class _Plan:
    def __init__(self, profile: Profile, day: date) -> None:
        self.profile = profile
        self._day = day
        self._messages: list[PlannedMessage] = []

    def has(self, kind: str) -> bool:
        return kind in self.profile.devices

    def add(self, at: float, device: str, kind: str, *, times: int = 1, **fields: Value) -> None:
        """One event at a time of the day; nothing when the elder has no such device."""
        if device not in self.profile.devices or not 0 <= at < DAY:
            return
        event_id = f"{self._day:%Y%m%d}-{self.profile.key}-{len(self._messages)}"
        for copy in range(times):
            when = min(at + copy * 0.4, DAY - 0.001)
            self._messages.append(PlannedMessage(when, self.profile.devices[device], kind, event_id, dict(fields)))

    def sorted(self) -> list[PlannedMessage]:
        return sorted(self._messages, key=lambda message: (message.at, message.device_id, message.event_id))


def _around(rng: random.Random, middle: float, spread: float) -> float:
    return min(max(rng.gauss(middle, spread), 60.0), DAY - 60.0)


def _night(plan: _Plan, rng: random.Random, up: float, down: float) -> None:
    plan.add(up, "bed_sensor", "bed", occupied=False)
    plan.add(down, "bed_sensor", "bed", occupied=True)
    for _ in range(plan.profile.nightly_rises):
        rise = rng.uniform(30 * MINUTE, max(up - 30 * MINUTE, 31 * MINUTE))
        plan.add(rise, "bed_sensor", "bed", occupied=False)
        plan.add(rise + 40, "motion_sensor", "motion")
        plan.add(rise + rng.uniform(4, 12) * MINUTE, "bed_sensor", "bed", occupied=True)


def _outings(plan: _Plan, rng: random.Random, up: float, down: float) -> list[tuple[float, float]]:
    """Leaving and coming home; the times of absence."""
    away: list[tuple[float, float]] = []
    for _ in range(rng.randint(max(plan.profile.outings - 1, 0), plan.profile.outings + 1)):
        leave = rng.uniform(up + 40 * MINUTE, max(down - 3 * HOUR, up + HOUR))
        back = min(leave + rng.uniform(20, 130) * MINUTE, down - 10 * MINUTE)
        if any(leave < end and back > start for start, end in away):
            continue
        for moment in (leave, back):
            plan.add(moment, "door_sensor", "door", state="open")
            plan.add(moment + rng.uniform(6, 25), "door_sensor", "door", state="closed")
        away.append((leave, back))
    return away


def _moving_about(plan: _Plan, rng: random.Random, up: float, down: float, away: list[tuple[float, float]]) -> None:
    now = up + 30
    while now < down:
        if not any(start < now < end for start, end in away):
            plan.add(now, "motion_sensor", "motion")
        now += rng.uniform(8, 45) * MINUTE


def _heartbeats(plan: _Plan, rng: random.Random) -> None:
    for kind in sorted(plan.profile.devices):
        battery = rng.randint(35, 100)
        if rng.random() < 0.04:
            battery = rng.randint(3, 14)
        start = rng.uniform(0, 4 * HOUR)
        for beat in range(6):
            plan.add(start + beat * 4 * HOUR, kind, "heartbeat", battery=battery, rssi=rng.randint(-92, -48))


def _mishaps(plan: _Plan, rng: random.Random, up: float, down: float) -> None:
    """What happens now and then. Oftener than in life: a simulated day should show something."""
    frailty = plan.profile.frailty

    def awake() -> float:
        return rng.uniform(up + 10 * MINUTE, down - 20 * MINUTE)

    if rng.random() < 0.15 + 0.25 * frailty:
        plan.add(awake(), "sos_button", "sos", times=rng.choice((1, 1, 2, 3)))
    if rng.random() < 0.05 + 0.2 * frailty:
        fall = awake()
        plan.add(fall, "fall_detector", "fall", confidence=round(rng.uniform(0.3, 0.98), 2))
        if rng.random() < 0.4:
            plan.add(fall + rng.uniform(1, 4) * MINUTE, "fall_detector", "cancel")
    if rng.random() < 0.03 + 0.1 * frailty:
        burnt = up + rng.uniform(20, 60) * MINUTE if rng.random() < 0.5 else 11.5 * HOUR + rng.uniform(0, 40) * MINUTE
        plan.add(burnt, "smoke_detector", "smoke", active=True)
        plan.add(burnt + rng.uniform(5, 15) * MINUTE, "smoke_detector", "smoke", active=False)
    if rng.random() < 0.03:
        plan.add(awake(), "gas_detector", "gas", active=True)
    if rng.random() < 0.04:
        leak = awake()
        plan.add(leak, "water_sensor", "water_leak", active=True)
        plan.add(leak + 50 * MINUTE, "water_sensor", "water_leak", active=False)
    if rng.random() < 0.3:
        plan.add(awake(), "sos_button", "vitals", heart_rate=rng.randint(56, 98), spo2=rng.randint(92, 99))
