"""What counts as a visit. Pure functions of the facts, the policy and the day (二（四）1-2, policy rows 9-13)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from app.elders.classification import Classification, Facts, Reason
from app.elders.consent import Consent, consent_on
from app.elders.policy import Frequency, VisitRules
from app.elders.status import StatusPeriod, status_on
from app.elders.vocabulary import CareLevel, ConsentScope, Observed, StatusReason
from app.visits.calendar import Span, span_before, span_of
from app.visits.special import Progress, Special, raised_on
from app.visits.vocabulary import Method, NotCounted, VisitOutcome
from app.words import say

_METHODS, _HOME_CONSENT, _FREQUENCY, _LEDGER = "二（四）2", "二（四）2", "二（四）1", "二（四）4"
_REMOTE = frozenset({Method.PHONE, Method.ONLINE, Method.ENCOUNTER})


# --- methods (policy row 12, choice 7) -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Allowed:
    """The methods that count for a person, and why the others do not."""

    methods: frozenset[Method]
    reasons: tuple[Reason, ...]


def methods_allowed(facts: Facts, rules: VisitRules) -> Allowed:
    """Phone, online and encounter are for people in good health who care for themselves; home is for everybody.

    By ability and circumstances, never by class: a healthy person of 85 may be phoned.
    """
    against: list[Reason] = []
    if facts.ability_level is not None:
        if facts.ability_level not in rules.remote_levels:
            against.append(Reason(_METHODS, f"home.assessed.{facts.ability_level.value}"))
    elif facts.observed is None:
        against.append(Reason(_METHODS, "home.unknown"))
    elif facts.observed is not Observed.INDEPENDENT:
        against.append(Reason(_METHODS, f"home.observed.{facts.observed.value}"))
    if facts.disability_grade in (1, 2):
        against.append(Reason(_METHODS, "home.disability", facts.disability_grade))
    if facts.dementia:
        against.append(Reason(_METHODS, "home.dementia"))
    against += [Reason(_METHODS, f"home.{one.value}") for one in sorted(facts.circumstances)]
    methods = frozenset({Method.HOME}) if against else frozenset(Method)
    return Allowed(methods, tuple(against))


# --- one visit -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """A visit as it was written down. `override`: what a supervisor decided, with a reason, or None."""

    id: UUID
    method: Method
    outcome: VisitOutcome
    started_at: datetime
    ended_at: datetime | None = None
    alarm_id: UUID | None = None
    override: bool | None = None
    voided: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a visit counts; otherwise why not, by which clause. `same_as`: the visit it is counted with."""

    qualifying: bool
    code: NotCounted | None = None
    clause: str | None = None
    same_as: UUID | None = None


_COUNTS = Judgement(True)
CLAUSES: Mapping[NotCounted, str] = {
    NotCounted.ATTEMPT: _FREQUENCY,
    NotCounted.METHOD: _METHODS,
    NotCounted.CONSENT: _HOME_CONSENT,
    NotCounted.COUNTED_ALREADY: _FREQUENCY,
    NotCounted.DISQUALIFIED: _LEDGER,
    NotCounted.VOIDED: _LEDGER,
}


def because(code: NotCounted | None) -> str | None:
    """Clause and sentence of why a visit does not count."""
    return None if code is None else f"{CLAUSES[code]} {say(f'visit.not.{code.value}')}"


def _not(code: NotCounted, same_as: UUID | None = None) -> Judgement:
    return Judgement(False, code, CLAUSES[code], same_as)


def judge(visit: Recorded, *, facts: Facts, rules: VisitRules, consents: Iterable[Consent], day: date) -> Judgement:
    """Whether one visit counts by itself; `facts` and `day` are those of the visit's day in local time."""
    if visit.voided:
        return _not(NotCounted.VOIDED)
    if visit.outcome is not VisitOutcome.MET:
        return _not(NotCounted.ATTEMPT)  # no decision of a supervisor makes nobody into somebody
    if visit.override is not None:
        return _COUNTS if visit.override else _not(NotCounted.DISQUALIFIED)
    if visit.method not in methods_allowed(facts, rules).methods:
        return _not(NotCounted.METHOD)
    emergency = visit.alarm_id is not None  # choice 10: an emergency entry is a ground of its own
    if visit.method is Method.HOME and not emergency and consent_on(consents, ConsentScope.HOME_VISIT, day) is None:
        return _not(NotCounted.CONSENT)
    return _COUNTS


def count_once(judged: Sequence[tuple[Recorded, Judgement]], rules: VisitRules) -> list[Judgement]:
    """One visit by two visitors counts once: of those that overlap, or that answer one alarm, the first written down.

    `judged` in the order they were written down.
    """
    counted: list[Recorded] = []
    result: list[Judgement] = []
    for visit, judgement in judged:
        if not judgement.qualifying:
            result.append(judgement)
            continue
        same = next((one for one in counted if _same(one, visit, rules)), None)
        if same is None:
            counted.append(visit)
            result.append(judgement)
        else:
            result.append(_not(NotCounted.COUNTED_ALREADY, same.id))
    return result


def _same(one: Recorded, other: Recorded, rules: VisitRules) -> bool:
    if one.alarm_id is not None and one.alarm_id == other.alarm_id:
        return True
    return one.started_at < _end(other, rules) and other.started_at < _end(one, rules)


def _end(visit: Recorded, rules: VisitRules) -> datetime:
    assumed = visit.started_at + timedelta(minutes=rules.assumed_minutes)
    return max(visit.ended_at, visit.started_at + timedelta(minutes=1)) if visit.ended_at else assumed


def is_late(visit_end: datetime, recorded_at: datetime, rules: VisitRules) -> bool:
    """Written down long after it happened: marked, never refused."""
    return recorded_at - visit_end > timedelta(hours=rules.late_after_hours)


# --- what is due -----------------------------------------------------------------------------------------------------


def frequency(found: Classification, facts: Facts, rules: VisitRules) -> Frequency:
    """How often somebody is visited: by class; healthy people who are key by age alone as their township decided."""
    if found.care_level is CareLevel.KEY and found.by_age_alone and rules.healthy_by_age is not None:
        healthy = methods_allowed(facts, rules).methods >= _REMOTE
        if healthy:
            return rules.healthy_by_age
    return rules.frequency[found.care_level]


@dataclass(frozen=True, slots=True)
class Due:
    """What is due in the period of a day. `overdue`: the period before went by unfulfilled and nobody came since."""

    care_level: CareLevel
    often: Frequency
    span: Span
    visits_required: int
    visits_done: int
    overdue: bool
    excused: StatusReason | None
    special: Special | None = None  # the special period that asks most, and how far it is
    special_progress: Progress | None = None
    look_again_on: date = date.max  # the day from which the answer may be another, whatever else happens

    @property
    def open(self) -> int:
        return max(self.visits_required - self.visits_done, 0)


def due_on(
    day: date,
    *,
    found: Classification,
    facts: Facts,
    rules: VisitRules,
    statuses: Sequence[StatusPeriod],
    enrolled_on: date,
    visited: Sequence[date],
    specials: Sequence[Special] = (),
    follow_up: bool = False,
) -> Due:
    """What is due for one person. `visited`: the local days of qualifying visits, one entry a visit; `specials`: those
    of the person's place; `follow_up`: an emergency asked for a visit that was not made yet.

    More is due while a special period or a follow-up asks for a visit that the regular ones do not bring, and never
    less than the class asks for.
    """
    often = frequency(found, facts, rules)
    span = span_of(often.period, day)
    required = required_in(span, often, statuses, enrolled_on)
    done = sum(1 for one in visited if one in span)
    before = span_before(often.period, span)
    missed = sum(1 for one in visited if one in before) < required_in(before, often, statuses, enrolled_on)
    overdue = missed and done < required
    held = status_on(statuses, day)
    excused = None if held.effects.visits_due else held.reason
    raised = raised_on(day, span, [s for s in specials if found.care_level in s.levels], visited, rules.most_a_day)
    if not excused:
        required = max(required, raised.required, done + 1 if follow_up else 0)
    return Due(
        found.care_level, often, span, required, done,
        overdue=overdue and not excused, excused=excused, special=raised.by,
        special_progress=raised.progress,
        look_again_on=(day if raised.by else span.end) + timedelta(days=1),
    )  # fmt: skip


def required_in(span: Span, often: Frequency, statuses: Sequence[StatusPeriod], enrolled_on: date) -> int:
    """Visits a period asks for: those of the policy when the person was enrolled and could be visited on any day of it."""
    visitable = any(day >= enrolled_on and status_on(statuses, day).effects.visits_due for day in span.days())
    return often.visits if visitable else 0
