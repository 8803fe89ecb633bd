"""What a visitor finds and what must follow: kinds, topics and stages as data. Pure (policy rows 28-32).

A hazard stays open until it is removed; support duty goes 提醒 → 规劝 → 调解 → 司法, one step at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from app.visits.vocabulary import FindingKind, Stage, Topic


@dataclass(frozen=True, slots=True)
class Course:
    """How findings of a kind go: their topics, their stages in order, the ends, and how often they are called back."""

    clause: str
    topics: tuple[Topic, ...]
    stages: tuple[Stage, ...]
    ends: tuple[Stage, ...]
    remind_days: int
    one_at_a_time: bool = False


COURSES: Mapping[FindingKind, Course] = {
    FindingKind.HAZARD: Course(
        "二（三）2",
        (Topic.WATER, Topic.ELECTRICITY, Topic.GAS, Topic.HEATING, Topic.STRUCTURE, Topic.FIRE, Topic.OTHER),
        (Stage.FOUND, Stage.REMINDED, Stage.ASSISTED),
        (Stage.REMOVED, Stage.MISTAKEN),
        remind_days=7,
    ),
    FindingKind.HARDSHIP: Course(
        "二（三）3",
        (Topic.CLOTHING, Topic.FOOD, Topic.HOUSING, Topic.TRANSPORT, Topic.MEDICAL, Topic.MONEY, Topic.POLICY,
         Topic.ERRAND, Topic.OTHER),
        (Stage.FOUND, Stage.TOLD, Stage.ASSISTED, Stage.APPLIED),
        (Stage.GRANTED, Stage.DECLINED, Stage.DONE, Stage.MISTAKEN),
        remind_days=14,
    ),
    FindingKind.SUPPORT_DUTY: Course(
        "二（三）5",
        (Topic.NO_VISITS, Topic.NO_CONTACT, Topic.NO_MEANS, Topic.NEGLECT, Topic.OTHER),
        (Stage.FOUND, Stage.REMINDED, Stage.PERSUADED, Stage.MEDIATED, Stage.JUDICIAL),
        (Stage.FULFILLED, Stage.MISTAKEN),
        remind_days=14,
        one_at_a_time=True,
    ),
    FindingKind.REFERRAL: Course(
        "二（三）4",
        (Topic.HEALTH_SERVICE, Topic.CARE_SERVICE, Topic.REHABILITATION, Topic.HOME_ADAPTATION, Topic.COUNSELLING,
         Topic.LEGAL_AID, Topic.COMMUNITY, Topic.OTHER),
        (Stage.FOUND, Stage.REFERRED, Stage.ACCEPTED),
        (Stage.DONE, Stage.DECLINED, Stage.MISTAKEN),
        remind_days=14,
    ),
}  # fmt: skip


def check_topic(kind: FindingKind, topic: Topic) -> None:
    """Raises `ValueError` for a topic of another kind, naming those that fit."""
    if topic not in COURSES[kind].topics:
        raise ValueError(f"topics of {kind.value}: {', '.join(one.value for one in COURSES[kind].topics)}")


def check_step(kind: FindingKind, now: Stage, wanted: Stage) -> None:
    """Whether a stage may follow. The same again is allowed (reminded twice); back is not; an end is the end."""
    course = COURSES[kind]
    if now in course.ends:
        raise ValueError(f"it ended as {now.value}; a new finding begins anew")
    if wanted in course.ends:
        return
    if wanted not in course.stages:
        names = ", ".join(one.value for one in (*course.stages[1:], *course.ends))
        raise ValueError(f"stages of {kind.value}: {names}")
    before, after = course.stages.index(now), course.stages.index(wanted)
    if after < before or wanted is Stage.FOUND:
        raise ValueError(f"it is {now.value} already")
    if course.one_at_a_time and after > before + 1:
        raise ValueError(f"{course.stages[before + 1].value} comes first ({course.clause})")


def is_end(kind: FindingKind, stage: Stage) -> bool:
    return stage in COURSES[kind].ends


def remind_on(kind: FindingKind, stage: Stage, today: date) -> date | None:
    """When somebody is reminded of it; never once it has ended."""
    return None if is_end(kind, stage) else today + timedelta(days=COURSES[kind].remind_days)
