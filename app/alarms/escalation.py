"""Who is told when. Pure: plans and times in, the next step with its reason out.

The first instant always tells everybody the district's plan names (二（三）7, row 35: 第一时间 … 同步): all emergency
contacts, the assigned visitors, the village head and the operators. A policy adds the steps after it; its last step
repeats until somebody answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.notify.vocabulary import Target
from app.rules.verdict import Severity
from app.words import say

AT_ONCE = (Target.EMERGENCY_CONTACTS, Target.ASSIGNED_VISITORS, Target.VILLAGE_HEAD, Target.OPERATORS)
EVERYBODY = (*AT_ONCE, Target.TOWNSHIP_DUTY)


@dataclass(frozen=True, slots=True)
class Step:
    """`after_s` counts from the raising of the alarm."""

    after_s: int
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Plan:
    """Frozen into an alarm when it is raised; the people behind the targets are looked up live."""

    name: str
    steps: tuple[Step, ...]  # never empty; the first is at second 0
    repeat_last_every_s: int

    @cached_property
    def text(self) -> str:
        """The plan as JSON, as it is kept with the alarm."""
        return json.dumps(self.as_json())

    def as_json(self) -> dict[str, Any]:
        steps = [{"after_s": step.after_s, "targets": [t.value for t in step.targets]} for step in self.steps]
        return {"name": self.name, "steps": steps, "repeat_last_every_s": self.repeat_last_every_s}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        steps = tuple(Step(s["after_s"], tuple(Target(t) for t in s["targets"])) for s in value["steps"])
        return cls(value["name"], steps, value["repeat_last_every_s"])


def make_plan(
    name: str, steps: list[dict[str, Any]], repeat_last_every_s: int, *, severity: Severity, of_a_device: bool = False
) -> Plan:
    """A plan from a policy's steps: what the district's policy demands at second 0, then the steps in order. A device's
    trouble is no emergency of a person: only the policy's own steps hold for it."""
    given = sorted((Step(s["after_s"], tuple(Target(t) for t in s["targets"])) for s in steps), key=lambda s: s.after_s)
    first = [target for step in given if step.after_s == 0 for target in step.targets]
    if severity is not Severity.WARNING and not of_a_device:
        first = [*AT_ONCE, *first]
    if of_a_device and not first:
        first = [Target.OPERATORS]
    later = tuple(step for step in given if step.after_s > 0)
    return Plan(name, (Step(0, tuple(dict.fromkeys(first))), *later), repeat_last_every_s)


_DEFAULTS: dict[Severity, tuple[list[dict[str, Any]], int]] = {
    Severity.CRITICAL: ([{"after_s": 120, "targets": EVERYBODY}, {"after_s": 300, "targets": EVERYBODY}], 180),
    Severity.MAJOR: ([{"after_s": 300, "targets": EVERYBODY}], 300),
    Severity.MINOR: ([{"after_s": 900, "targets": EVERYBODY}], 900),
    Severity.WARNING: ([{"after_s": 0, "targets": (Target.ASSIGNED_VISITORS, Target.OPERATORS)}], 3600),
}


@lru_cache
def default_plan(severity: Severity) -> Plan:
    """What holds where nobody made a policy."""
    steps, repeat = _DEFAULTS[severity]
    return make_plan("default", steps, repeat, severity=severity)


_MORNING: Final = 9
_DAILY_S: Final = 86_400


def desk_plan(severity: Severity, now: datetime, tz: ZoneInfo) -> Plan:
    """What holds for troubles of devices where nobody made a policy: the duty desk at once and again each day; from minor
    on the assigned visitors too, in the morning. No family is woken because of a battery (docs/adr/0031)."""
    desk = Step(0, (Target.OPERATORS,))
    if severity is Severity.WARNING:
        return Plan("devices", (desk,), _DAILY_S)
    local = now.astimezone(tz)
    morning = local.replace(hour=_MORNING, minute=0, second=0, microsecond=0)
    if morning <= local:
        morning += timedelta(days=1)
    visitors = Step(round((morning - local).total_seconds()), (Target.ASSIGNED_VISITORS, Target.OPERATORS))
    return Plan("devices", (desk, visitors), _DAILY_S)


@dataclass(frozen=True, slots=True)
class Due:
    """The step to take now: whom to tell, why, and when the next one is."""

    step: int
    targets: tuple[Target, ...]
    reason: str
    next_at: datetime


def next_time(plan: Plan, *, step: int, plan_from: datetime, now: datetime) -> datetime:
    """When the step after `step` is due; after the last, the repetition."""
    if step + 1 < len(plan.steps):
        return max(now, plan_from + timedelta(seconds=plan.steps[step + 1].after_s))
    return now + timedelta(seconds=plan.repeat_last_every_s)


def advance(plan: Plan, *, step: int, plan_from: datetime, now: datetime) -> Due:
    """The step after `step`: the next of the plan, or the last one again."""
    last = len(plan.steps) - 1
    following = min(step + 1, last)
    if following > step:
        seconds = max(plan.steps[following].after_s, round((now - plan_from).total_seconds()))
        reason = say("reason.step", seconds=seconds, step=following)
    else:
        reason = say("reason.repeat_step")
    return Due(
        following, plan.steps[following].targets, reason, next_time(plan, step=following, plan_from=plan_from, now=now)
    )
