"""What a policy version says, as data: how people are classed and how often they are visited (policy rows 5-9, 12).

A district adopts a version from a day on; a township may have its own frequencies. The built-in one is the plan of 2023.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.elders.vocabulary import AbilityLevel, CareLevel, Observed

POLICY_VERSION = "川民〔2023〕100号"
_WORSE = (AbilityLevel.INTACT, AbilityLevel.MILD, AbilityLevel.MODERATE, AbilityLevel.SEVERE, AbilityLevel.COMPLETE)
_HIGHER = (CareLevel.GENERAL, CareLevel.SECONDARY, CareLevel.KEY)


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassRules(_Rules):
    """二（一）: who is key, secondary, general. Refused when a worse condition would give a lower class."""

    key_age: int = Field(default=80, ge=60, le=120, description="二（一）1: key from this age on.")
    key_disability_grades: list[Annotated[int, Field(ge=1, le=4)]] = Field(default=[1, 2], max_length=4)
    levels: dict[AbilityLevel, CareLevel] = {
        AbilityLevel.INTACT: CareLevel.GENERAL,
        AbilityLevel.MILD: CareLevel.GENERAL,
        AbilityLevel.MODERATE: CareLevel.SECONDARY,
        AbilityLevel.SEVERE: CareLevel.KEY,
        AbilityLevel.COMPLETE: CareLevel.KEY,
    }
    observed_as: dict[Observed, AbilityLevel] = Field(
        default={
            Observed.INDEPENDENT: AbilityLevel.INTACT,
            Observed.MOBILITY_LIMITED: AbilityLevel.MODERATE,
            Observed.BEDRIDDEN: AbilityLevel.SEVERE,
        },
        description="The ability an unassessed person is counted as.",
    )
    dementia: CareLevel = Field(default=CareLevel.KEY, description="Choice 5: 失智 under 80 is key.")

    @model_validator(mode="after")
    def _whole_and_monotone(self) -> Self:
        _all_of(AbilityLevel, self.levels, "levels")
        _all_of(Observed, self.observed_as, "observed_as")
        if CareLevel.UNDETERMINED in (*self.levels.values(), self.dementia):
            raise ValueError("a rule cannot make somebody undetermined: that is what nobody looked at yet")
        ranks = [_HIGHER.index(self.levels[level]) for level in _WORSE]
        if ranks != sorted(ranks):
            raise ValueError("levels: a worse ability must not give a lower class")
        order = (Observed.INDEPENDENT, Observed.MOBILITY_LIMITED, Observed.BEDRIDDEN)
        seen = [_WORSE.index(self.observed_as[observed]) for observed in order]
        if seen != sorted(seen):
            raise ValueError("observed_as: a worse observation must not count as a better ability")
        if any(grade - 1 not in self.key_disability_grades for grade in self.key_disability_grades if grade > 1):
            raise ValueError("key_disability_grades: grade 1 is the worst; a grade needs all worse ones with it")
        return self


class Period(StrEnum):
    """Choice 8: the ISO week and the calendar month, in local time."""

    WEEK = "week"
    MONTH = "month"


class Frequency(_Rules):
    period: Period
    visits: int = Field(ge=1, le=31, description="Qualifying visits in each period.")


_WEEKLY, _MONTHLY = Frequency(period=Period.WEEK, visits=1), Frequency(period=Period.MONTH, visits=1)


class VisitRules(_Rules):
    """二（四）1-2: how often, by which methods, and what is late."""

    frequency: dict[CareLevel, Frequency] = Field(
        default={
            CareLevel.KEY: _WEEKLY,
            CareLevel.SECONDARY: _MONTHLY,
            CareLevel.GENERAL: _MONTHLY,
            CareLevel.UNDETERMINED: _WEEKLY,
        },
        description="Choice 4: undetermined people are visited as key until known. Choice 6: every key person weekly.",
    )
    healthy_by_age: Frequency | None = Field(
        default=None,
        description="Choice 6: a township may relax the frequency of people who are key by their age alone and healthy.",
    )
    remote_levels: list[AbilityLevel] = Field(
        default=[AbilityLevel.INTACT],
        max_length=5,
        description="Abilities for which phone, online and encounter visits count (二（四）2).",
    )
    late_after_hours: int = Field(default=24, ge=1, le=24 * 31, description="A visit recorded later is marked late.")
    assumed_minutes: int = Field(
        default=30, ge=1, le=240, description="How long a visit without an end is taken to last when two are compared."
    )
    most_a_day: int = Field(
        default=2, ge=1, le=10, description="However many special periods overlap, nobody is due more often in a day."
    )
    follow_up_hours: int = Field(
        default=72, ge=1, le=24 * 31, description="After an alarm that was a real emergency, a visit within this time."
    )
    falls_for_assessment: int = Field(
        default=2, ge=1, le=10, description="So many real falls within `falls_within_days` ask for a new assessment."
    )
    falls_within_days: int = Field(default=30, ge=1, le=366)
    assessment_within_days: int = Field(default=14, ge=1, le=366, description="The time for that new assessment.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _all_of(CareLevel, self.frequency, "frequency")
        return self


def _all_of(kind: type[StrEnum], given: Collection[object], name: str) -> None:
    missing = [member.value for member in kind if member not in given]
    if missing:
        raise ValueError(f"{name}: nothing is said about {', '.join(missing)}")


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force for one place on one day. The two parts may come from two versions: district and township."""

    classification: ClassRules
    classification_version: str
    visits: VisitRules
    visits_version: str


POLICY_2023 = Policy(ClassRules(), POLICY_VERSION, VisitRules(), POLICY_VERSION)
