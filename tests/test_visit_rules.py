"""What counts as a visit and what is due: pure (policy rows 9-13, choices 6-8, 10, 14)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.elders.classification import Facts, classify
from app.elders.consent import Consent, consent_on
from app.elders.policy import ClassRules, Frequency, Period, Policy, VisitRules
from app.elders.status import StatusPeriod
from app.elders.vocabulary import (
    AbilityLevel,
    CareLevel,
    Circumstance,
    ConsentScope,
    ElderStatus,
    Observed,
    StatusReason,
)
from app.visits.calendar import Span, longest_gap, span_before, span_of
from app.visits.findings import COURSES, check_step, check_topic, is_end, remind_on
from app.visits.rules import Due, Recorded, count_once, due_on, frequency, is_late, judge, methods_allowed
from app.visits.special import Special
from app.visits.vocabulary import FindingKind, Method, NotCounted, SpecialKind, Stage, Topic, VisitOutcome
from tests.test_classification import anybody, days

pytestmark = pytest.mark.unit
RULES = VisitRules()
MONDAY = date(2026, 11, 23)
NINE = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
HEALTHY = Facts(date(1960, 1, 1), AbilityLevel.INTACT, None, None, dementia=False)
CONSENT = Consent(UUID(int=1), ConsentScope.HOME_VISIT, date(2026, 1, 1))


def written(n: int = 1, method: Method = Method.HOME, **fields: Any) -> Recorded:
    fields = {"outcome": VisitOutcome.MET, "started_at": NINE, **fields}
    return Recorded(UUID(int=n), method, **fields)


def code(visit: Recorded, facts: Facts = HEALTHY, *consents: Consent, day: date = MONDAY) -> NotCounted | None:
    found = judge(visit, facts=facts, rules=RULES, consents=consents, day=day)
    assert found.qualifying == (found.code is None)
    assert (found.clause is None) == found.qualifying
    return found.code


# --- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"ability_level": AbilityLevel.MILD}, {"ability_level": AbilityLevel.COMPLETE},
        {"ability_level": None}, {"ability_level": None, "observed": Observed.MOBILITY_LIMITED},
        {"disability_grade": 1}, {"disability_grade": 2}, {"dementia": True},
        *({"circumstances": frozenset({one})} for one in Circumstance),
    ],
)  # fmt: skip
def test_only_home_counts_for_those_who_are_not_well(change: dict[str, Any]) -> None:
    facts = replace(HEALTHY, **change)
    for method in (Method.PHONE, Method.ONLINE, Method.ENCOUNTER):
        assert code(written(method=method), facts, CONSENT) is NotCounted.METHOD
    assert code(written(), facts, CONSENT) is None
    reasons = methods_allowed(facts, RULES).reasons
    assert reasons
    assert all(reason.clause == "二（四）2" and reason.because for reason in reasons)


def test_the_method_follows_ability_not_class() -> None:
    for facts in (HEALTHY, replace(HEALTHY, ability_level=None, observed=Observed.INDEPENDENT)):
        eighty_five = replace(facts, birth_date=date(1941, 1, 1))
        assert classify(eighty_five, on=MONDAY).care_level == "key"
        assert all(code(written(method=method), eighty_five, CONSENT) is None for method in Method)
    assert methods_allowed(replace(HEALTHY, disability_grade=3), RULES).methods == set(Method)


@given(anybody, st.frozensets(st.sampled_from(Circumstance)))
def test_more_conditions_never_allow_more_methods(facts: Facts, more: frozenset[Circumstance]) -> None:
    before = methods_allowed(facts, RULES)
    worse = replace(facts, circumstances=facts.circumstances | more, dementia=True)
    assert methods_allowed(worse, RULES).methods <= before.methods
    assert methods_allowed(facts, RULES) == before
    assert Method.HOME in before.methods


# --- consent ---------------------------------------------------------------------------------------------------------


def test_a_visit_at_home_needs_a_consent_of_its_day() -> None:
    assert code(written()) is NotCounted.CONSENT
    assert code(written(), HEALTHY, CONSENT) is None
    assert code(written(), HEALTHY, replace(CONSENT, scope=ConsentScope.DEVICE)) is NotCounted.CONSENT
    assert code(written(), HEALTHY, replace(CONSENT, given_on=date(2026, 11, 24))) is NotCounted.CONSENT
    assert code(written(), HEALTHY, replace(CONSENT, expires_on=date(2026, 11, 22))) is NotCounted.CONSENT
    assert code(written(), HEALTHY, replace(CONSENT, expires_on=MONDAY)) is None
    withdrawn = replace(CONSENT, withdrawn_on=MONDAY)
    assert code(written(), HEALTHY, withdrawn) is NotCounted.CONSENT
    assert code(written(), HEALTHY, withdrawn, day=date(2026, 11, 22)) is None
    again = replace(CONSENT, id=UUID(int=2), given_on=MONDAY)
    assert consent_on([withdrawn, again], ConsentScope.HOME_VISIT, MONDAY) == again
    assert code(written(method=Method.PHONE)) is None  # nobody enters a home
    assert code(written(alarm_id=UUID(int=9))) is None  # choice 10: an emergency entry


# --- attempts, decisions, once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [o for o in VisitOutcome if o is not VisitOutcome.MET])
def test_an_attempt_is_never_a_visit(outcome: VisitOutcome) -> None:
    assert code(written(outcome=outcome), HEALTHY, CONSENT) is NotCounted.ATTEMPT
    assert code(written(outcome=outcome, override=True), HEALTHY, CONSENT) is NotCounted.ATTEMPT


def test_a_supervisor_decides_both_ways() -> None:
    ill = replace(HEALTHY, dementia=True)
    assert code(written(method=Method.PHONE, override=True), ill) is None
    assert code(written(override=True)) is None
    assert code(written(override=False), HEALTHY, CONSENT) is NotCounted.DISQUALIFIED
    assert code(written(override=True, voided=True), HEALTHY, CONSENT) is NotCounted.VOIDED


def counted(*visits: Recorded) -> list[UUID | str | None]:
    judged = [(v, judge(v, facts=HEALTHY, rules=RULES, consents=[CONSENT], day=MONDAY)) for v in visits]
    return [j.same_as or ("yes" if j.qualifying else "no") for j in count_once(judged, RULES)]


def test_one_visit_by_two_visitors_counts_once() -> None:
    first = written(1, ended_at=NINE + timedelta(minutes=40))
    assert counted(first, written(2, started_at=NINE + timedelta(minutes=10))) == ["yes", first.id]
    assert counted(first, written(2, started_at=NINE + timedelta(minutes=40))) == ["yes", "yes"]
    no_end = written(1)
    assert counted(no_end, written(2, started_at=NINE + timedelta(minutes=29))) == ["yes", no_end.id]
    assert counted(no_end, written(2, started_at=NINE + timedelta(minutes=30))) == ["yes", "yes"]
    void = written(1, voided=True)
    assert counted(void, written(2)) == ["no", "yes"]  # what does not count hides nothing
    alarm = UUID(int=7)
    later = written(2, started_at=NINE + timedelta(hours=3), alarm_id=alarm)
    assert counted(written(1, alarm_id=alarm), later) == ["yes", UUID(int=1)]


@given(st.lists(st.integers(0, 600), max_size=8))
def test_counting_once_never_counts_more_and_is_stable(minutes: list[int]) -> None:
    visits = [written(n + 1, started_at=NINE + timedelta(minutes=m)) for n, m in enumerate(minutes)]
    result = counted(*visits)
    assert result == counted(*visits)
    assert result.count("yes") <= len(visits)
    if visits:
        assert result[0] == "yes"
    kept = [v for v, r in zip(visits, result, strict=True) if r == "yes"]
    for one, other in zip(
        sorted(kept, key=lambda v: v.started_at), sorted(kept, key=lambda v: v.started_at)[1:], strict=False
    ):
        assert other.started_at - one.started_at >= timedelta(minutes=30)


def test_late_is_marked_after_the_hours_of_the_policy() -> None:
    assert not is_late(NINE, NINE + timedelta(hours=24), RULES)
    assert is_late(NINE, NINE + timedelta(hours=24, seconds=1), RULES)
    assert not is_late(NINE, NINE + timedelta(hours=40), VisitRules(late_after_hours=48))


# --- periods and what is due -----------------------------------------------------------------------------------------


def test_the_iso_week_and_the_calendar_month() -> None:
    assert span_of(Period.WEEK, date(2027, 1, 1)) == Span(date(2026, 12, 28), date(2027, 1, 3))
    assert span_of(Period.WEEK, MONDAY) == Span(MONDAY, date(2026, 11, 29))
    assert span_of(Period.MONTH, date(2028, 2, 29)) == Span(date(2028, 2, 1), date(2028, 2, 29))
    assert span_before(Period.MONTH, span_of(Period.MONTH, date(2027, 1, 5))) == Span(
        date(2026, 12, 1), date(2026, 12, 31)
    )


@given(days, st.sampled_from(Period))
def test_periods_leave_no_day_out(day: date, period: Period) -> None:
    span = span_of(period, day)
    assert day in span
    assert span_of(period, span.end + timedelta(days=1)).start == span.end + timedelta(days=1)
    assert span_before(period, span).end == span.start - timedelta(days=1)


def test_the_longest_gap() -> None:
    month = span_of(Period.MONTH, date(2026, 11, 1))
    assert longest_gap([], month) == 30
    assert longest_gap([date(2026, 11, 1), date(2026, 11, 30)], month) == 28
    assert longest_gap([date(2026, 10, 31), date(2026, 11, 16)], month) == 15


def due(facts: Facts = HEALTHY, *visited: date, day: date = MONDAY, rules: VisitRules = RULES, **more: Any) -> Due:
    policy = Policy(ClassRules(), "v", rules, "v")
    given: dict[str, Any] = {"statuses": (), "enrolled_on": date(2026, 1, 1), **more}
    found = classify(facts, on=day, policy=policy)
    return due_on(day, found=found, facts=facts, rules=rules, visited=visited, **given)


KEY = replace(HEALTHY, dementia=True)
UNKNOWN = replace(HEALTHY, ability_level=None)


def test_key_and_undetermined_people_are_due_weekly_others_monthly() -> None:
    for facts, period in ((KEY, Period.WEEK), (UNKNOWN, Period.WEEK), (HEALTHY, Period.MONTH),
                          (replace(HEALTHY, ability_level=AbilityLevel.MODERATE), Period.MONTH)):  # fmt: skip
        one = due(facts)
        assert (one.often, one.visits_required, one.visits_done) == (Frequency(period=period, visits=1), 1, 0)
        assert one.span == span_of(period, MONDAY)


def test_special_periods_and_follow_ups_raise_what_is_due_but_never_for_those_who_are_excused() -> None:
    cold = Special(UUID(int=1), "寒潮", SpecialKind.WEATHER, "", frozenset({CareLevel.KEY}),
                   Span(MONDAY, MONDAY + timedelta(days=2)), per_day=1)  # fmt: skip
    raised = due(KEY, MONDAY, specials=[cold])
    assert (raised.visits_required, raised.visits_done, raised.special) == (3, 1, cold)
    assert due(HEALTHY, specials=[cold]).special is None
    assert due(KEY, MONDAY, follow_up=True).visits_required == 2
    assert due(KEY, follow_up=True).visits_required == 1
    assert due(KEY, MONDAY, follow_up=True, specials=[cold]).visits_required == 3
    in_hospital = (StatusPeriod(ElderStatus.PAUSED, StatusReason.IN_HOSPITAL, date(2026, 1, 1)),)
    excused = due(KEY, specials=[cold], follow_up=True, statuses=in_hospital)
    assert (excused.visits_required, excused.excused) == (0, StatusReason.IN_HOSPITAL)


def test_done_overdue_and_not_yet_enrolled() -> None:
    week_before = MONDAY - timedelta(days=3)
    assert not due(KEY, week_before).overdue
    assert due(KEY, MONDAY - timedelta(days=10)).overdue
    came = due(KEY, MONDAY)
    assert (came.visits_done, came.open, came.overdue) == (1, 0, False)
    assert not due(KEY, enrolled_on=MONDAY).overdue  # nothing was due before
    assert due(KEY, enrolled_on=MONDAY + timedelta(days=7)).visits_required == 0


def test_statuses_excuse_and_a_return_makes_due_again() -> None:
    hospital = StatusPeriod(
        ElderStatus.PAUSED,
        StatusReason.IN_HOSPITAL,
        MONDAY - timedelta(days=14),
        MONDAY + timedelta(days=9),
        evidenced=True,
    )
    whole = due(KEY, statuses=[hospital])
    assert (whole.visits_required, whole.overdue, whole.excused) == (0, False, StatusReason.IN_HOSPITAL)
    back = due(KEY, statuses=[hospital], day=MONDAY + timedelta(days=10))
    assert (back.visits_required, back.excused) == (1, None)
    dead = StatusPeriod(ElderStatus.DECEASED, StatusReason.DECEASED, MONDAY - timedelta(days=30))
    assert due(KEY, statuses=[dead]).visits_required == 0


def test_a_township_may_relax_the_frequency_of_healthy_people_over_80() -> None:
    old = replace(HEALTHY, birth_date=date(1940, 1, 1))
    relaxed = VisitRules(healthy_by_age=Frequency(period=Period.MONTH, visits=2))
    assert due(old).often.period is Period.WEEK  # choice 6: the safe reading
    assert due(old, rules=relaxed).often == Frequency(period=Period.MONTH, visits=2)
    for frail in (replace(old, dementia=True), replace(old, ability_level=AbilityLevel.MILD), replace(old, ability_level=None),
                  replace(old, circumstances=frozenset({Circumstance.POOR_HEALTH}))):  # fmt: skip
        assert due(frail, rules=relaxed).often.period is Period.WEEK


@given(anybody, days, st.lists(days, max_size=5))
def test_the_same_inputs_give_the_same_due(facts: Facts, day: date, visited: list[date]) -> None:
    once = due(facts, *visited, day=day)
    assert once == due(facts, *visited, day=day)
    assert due(facts, *visited, day, day=day).visits_done == once.visits_done + 1
    assert frequency(classify(facts, on=day), facts, RULES).visits >= 1


# --- findings --------------------------------------------------------------------------------------------------------


def test_a_hazard_stays_open_until_it_is_removed() -> None:
    for topic in (Topic.WATER, Topic.ELECTRICITY, Topic.GAS, Topic.HEATING, Topic.STRUCTURE):
        check_topic(FindingKind.HAZARD, topic)
    with pytest.raises(ValueError, match="gas"):
        check_topic(FindingKind.HAZARD, Topic.CLOTHING)
    for now, then in ((Stage.FOUND, Stage.REMINDED), (Stage.REMINDED, Stage.REMINDED), (Stage.ASSISTED, Stage.REMOVED)):
        check_step(FindingKind.HAZARD, now, then)
    assert not is_end(FindingKind.HAZARD, Stage.ASSISTED)
    assert remind_on(FindingKind.HAZARD, Stage.ASSISTED, MONDAY) == MONDAY + timedelta(days=7)
    assert remind_on(FindingKind.HAZARD, Stage.REMOVED, MONDAY) is None
    for now, then, words in (
        (Stage.REMOVED, Stage.REMINDED, "ended"), (Stage.ASSISTED, Stage.REMINDED, "already"),
        (Stage.FOUND, Stage.GRANTED, "removed"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            check_step(FindingKind.HAZARD, now, then)


def test_support_duty_goes_one_step_at_a_time() -> None:
    steps = (Stage.FOUND, Stage.REMINDED, Stage.PERSUADED, Stage.MEDIATED, Stage.JUDICIAL)
    for now, then in itertools.pairwise(steps):
        check_step(FindingKind.SUPPORT_DUTY, now, then)
        check_step(FindingKind.SUPPORT_DUTY, now, Stage.FULFILLED)
    with pytest.raises(ValueError, match="reminded comes first"):
        check_step(FindingKind.SUPPORT_DUTY, Stage.FOUND, Stage.JUDICIAL)


def test_every_kind_has_topics_stages_ends_and_a_clause() -> None:
    for kind in FindingKind:
        course = COURSES[kind]
        assert course.topics
        assert course.stages[0] is Stage.FOUND
        assert course.ends
        assert course.clause.startswith("二（三）")
