"""分类 (二（一）): pure; the highest class wins, every reason is kept (policy rows 5-7, choices 1-6)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from app.elders.identity import age_on
from app.elders.vocabulary import AbilityLevel, CareLevel, Observed

POLICY_VERSION = "川民〔2023〕100号"
_KEY_AGE = 80


@dataclass(frozen=True, slots=True)
class Reason:
    clause: str
    because: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the class depends on."""

    birth_date: date
    ability_level: AbilityLevel | None
    observed: Observed | None
    disability_grade: int | None
    dementia: bool


@dataclass(frozen=True, slots=True)
class Classification:
    care_level: CareLevel
    reasons: tuple[Reason, ...]
    policy_version: str = POLICY_VERSION


def classify(facts: Facts, *, on: date) -> Classification:
    """The class of a person on a day, with every reason. The same facts and day give the same class at any time."""
    age = age_on(facts.birth_date, on)
    found: list[tuple[CareLevel, Reason]] = []
    if age >= _KEY_AGE:
        found.append((CareLevel.KEY, Reason("二（一）1", f"{age}岁,年满80岁")))
    if facts.disability_grade in (1, 2):
        found.append((CareLevel.KEY, Reason("二（一）1", f"残疾等级{facts.disability_grade}级")))
    if facts.dementia:
        found.append((CareLevel.KEY, Reason("二（一）1", "失智")))
    found.append(_by_ability(facts))
    order = list(CareLevel)
    level = min((level for level, _ in found), key=order.index)
    return Classification(level, tuple(reason for _, reason in found))


def _by_ability(facts: Facts) -> tuple[CareLevel, Reason]:
    match facts.ability_level:
        case AbilityLevel.COMPLETE:
            return CareLevel.KEY, Reason("二（一）1", "能力评估:完全失能")
        case AbilityLevel.SEVERE:
            return CareLevel.KEY, Reason("二（一）1", "能力评估:重度失能")
        case AbilityLevel.MODERATE:
            return CareLevel.SECONDARY, Reason("二（一）2", "能力评估:中度失能")
        case AbilityLevel.MILD:
            return CareLevel.GENERAL, Reason("二（一）3", "能力评估:轻度失能")
        case AbilityLevel.INTACT:
            return CareLevel.GENERAL, Reason("二（一）3", "能力评估:能力完好")
        case None:
            return _by_observation(facts.observed)


def _by_observation(observed: Observed | None) -> tuple[CareLevel, Reason]:
    match observed:
        case Observed.BEDRIDDEN:
            return CareLevel.KEY, Reason("二（一）1", "未评估,因身体原因长期卧床")
        case Observed.MOBILITY_LIMITED:
            return CareLevel.SECONDARY, Reason("二（一）2", "未评估,因身体原因行动不便")
        case Observed.INDEPENDENT:
            return CareLevel.GENERAL, Reason("二（一）3", "未评估,观察到能够自理")
        case None:
            return CareLevel.UNDETERMINED, Reason("二（四）1", "既未评估也未观察,需要摸底")
