"""分类 (二（一）): pure; the highest class wins, every reason is kept (policy rows 5-7, choices 1-6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from app.elders.identity import age_on
from app.elders.policy import POLICY_2023, POLICY_VERSION, ClassRules, Policy
from app.elders.vocabulary import AbilityLevel, CareLevel, Circumstance, Observed
from app.words import say

__all__ = ["POLICY_VERSION", "Classification", "Facts", "Reason", "classify", "next_birthday"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: the clause of the policy, and a sentence by its key and figures."""

    clause: str
    key: str
    figure: int | None = None

    @property
    def because(self) -> str:
        return say(f"class.{self.key}", figure=self.figure)

    def shape(self) -> dict[str, str]:
        return {"clause": self.clause, "because": self.because}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the class and the methods of visiting depend on."""

    birth_date: date
    ability_level: AbilityLevel | None
    observed: Observed | None
    disability_grade: int | None
    dementia: bool
    circumstances: frozenset[Circumstance] = frozenset()

    def shape(self, on: date) -> dict[str, Any]:
        """The inputs, as they are kept with a result (choice 1)."""
        return {
            "age": age_on(self.birth_date, on),
            "ability_level": self.ability_level,
            "observed": self.observed,
            "disability_grade": self.disability_grade,
            "dementia": self.dementia,
        }


@dataclass(frozen=True, slots=True)
class Classification:
    care_level: CareLevel
    reasons: tuple[Reason, ...]
    policy_version: str = POLICY_VERSION
    by_age_alone: bool = False  # key, and nothing but the age says so (choice 6)


def classify(facts: Facts, *, on: date, policy: Policy = POLICY_2023) -> Classification:
    """The class of a person on a day, with every reason. The same facts, policy and day give the same class."""
    rules = policy.classification
    age = age_on(facts.birth_date, on)
    found: list[tuple[CareLevel, Reason]] = []
    if age >= rules.key_age:
        found.append((CareLevel.KEY, Reason("二（一）1", "age", age)))
    if facts.disability_grade in rules.key_disability_grades:
        found.append((CareLevel.KEY, Reason("二（一）1", "disability", facts.disability_grade)))
    if facts.dementia:
        found.append((rules.dementia, Reason(_CLAUSE[rules.dementia], "dementia")))
    found.append(_by_ability(facts, rules))
    order = list(CareLevel)
    level = min((level for level, _ in found), key=order.index)
    key_reasons = [reason.key for given, reason in found if given is CareLevel.KEY]
    return Classification(
        level, tuple(reason for _, reason in found), policy.classification_version, key_reasons == ["age"]
    )


_CLAUSE: Mapping[CareLevel, str] = {
    CareLevel.KEY: "二（一）1",
    CareLevel.SECONDARY: "二（一）2",
    CareLevel.GENERAL: "二（一）3",
    CareLevel.UNDETERMINED: "二（四）4",
}


def _by_ability(facts: Facts, rules: ClassRules) -> tuple[CareLevel, Reason]:
    """An assessment supersedes what was observed (choice 4); without either the person is work to do."""
    if facts.ability_level is not None:
        level = rules.levels[facts.ability_level]
        return level, Reason(_CLAUSE[level], f"assessed.{facts.ability_level.value}")
    if facts.observed is not None:
        level = rules.levels[rules.observed_as[facts.observed]]
        return level, Reason(_CLAUSE[level], f"observed.{facts.observed.value}")
    return CareLevel.UNDETERMINED, Reason(_CLAUSE[CareLevel.UNDETERMINED], "unknown")


def next_birthday(born: date, after: date) -> date:
    """The first day after `after` on which the age grows; born on 29 February: 1 March in other years."""
    for year in (after.year, after.year + 1):
        try:
            day = born.replace(year=year)
        except ValueError:
            day = date(year, 3, 1)
        if day > after:
            return day
    return after + timedelta(days=365)
