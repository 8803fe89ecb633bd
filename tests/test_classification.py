"""Who is key, secondary, general, and why: pure, monotone, the same at any time (policy rows 5-8, choices 1-6)."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.elders.classification import Facts, classify, next_birthday
from app.elders.identity import age_on
from app.elders.pinyin import as_typed, search_keys
from app.elders.policies import Policies, Version
from app.elders.policy import POLICY_2023, ClassRules, Policy, VisitRules
from app.elders.status import EFFECTS, AlarmsGo, Counting, StatusPeriod, normal_reason, status_on
from app.elders.vocabulary import AbilityLevel, CareLevel, Circumstance, ElderStatus, Observed, StatusReason

pytestmark = pytest.mark.unit
TODAY = date(2026, 11, 23)
SIXTY, EIGHTY = date(1966, 11, 23), date(1946, 11, 23)
_RANK = {CareLevel.UNDETERMINED: 0, CareLevel.GENERAL: 1, CareLevel.SECONDARY: 2, CareLevel.KEY: 3}
_ABILITY = list(AbilityLevel)  # intact … complete
_SEEN = list(Observed)  # independent … bedridden


def facts(**given: object) -> Facts:
    known: dict[str, object] = {
        "birth_date": SIXTY, "ability_level": None, "observed": None, "disability_grade": None, "dementia": False,
    }  # fmt: skip
    return Facts(**{**known, **given})  # type: ignore[arg-type]


def level(**given: object) -> str:
    return classify(facts(**given), on=TODAY).care_level.value


def reasons(**given: object) -> list[tuple[str, str]]:
    return [(reason.clause, reason.because) for reason in classify(facts(**given), on=TODAY).reasons]


@pytest.mark.parametrize(
    ("given", "expected", "clause"),
    [
        ({"birth_date": EIGHTY, "ability_level": "intact"}, "key", "二（一）1"),
        ({"birth_date": EIGHTY + timedelta(days=1), "ability_level": "intact"}, "general", "二（一）3"),
        ({"disability_grade": 1, "ability_level": "intact"}, "key", "二（一）1"),
        ({"disability_grade": 2, "ability_level": "intact"}, "key", "二（一）1"),
        ({"disability_grade": 3, "ability_level": "intact"}, "general", "二（一）3"),  # choice 3
        ({"disability_grade": 4, "ability_level": "moderate"}, "secondary", "二（一）2"),
        ({"ability_level": "complete"}, "key", "二（一）1"),
        ({"ability_level": "severe"}, "key", "二（一）1"),
        ({"ability_level": "moderate"}, "secondary", "二（一）2"),
        ({"ability_level": "mild"}, "general", "二（一）3"),
        ({"ability_level": "intact"}, "general", "二（一）3"),
        ({"observed": "bedridden"}, "key", "二（一）1"),
        ({"observed": "mobility_limited"}, "secondary", "二（一）2"),
        ({"observed": "independent"}, "general", "二（一）3"),
        ({"ability_level": "intact", "observed": "bedridden"}, "general", "二（一）3"),  # choice 4: assessed supersedes
        ({"dementia": True, "ability_level": "intact"}, "key", "二（一）1"),  # choice 5
        ({}, "undetermined", "二（四）4"),  # choice 4: never silently general
        ({"birth_date": EIGHTY}, "key", "二（一）1"),
    ],
)
def test_each_row_of_the_policy(given: dict[str, object], expected: str, clause: str) -> None:
    for name, kind in (("ability_level", AbilityLevel), ("observed", Observed)):
        if name in given:
            given = {**given, name: kind(given[name])}
    assert level(**given) == expected
    assert clause in [c for c, _ in reasons(**given)]


def test_all_reasons_are_kept() -> None:
    everything = reasons(birth_date=EIGHTY, disability_grade=1, dementia=True, ability_level=AbilityLevel.MODERATE)
    assert [clause for clause, _ in everything] == ["二（一）1"] * 3 + ["二（一）2"]
    assert "80岁" in everything[0][1]


def test_key_by_age_alone_is_told_apart() -> None:
    healthy = facts(birth_date=EIGHTY, observed=Observed.INDEPENDENT)
    assert classify(healthy, on=TODAY).by_age_alone
    assert not classify(facts(birth_date=EIGHTY, dementia=True), on=TODAY).by_age_alone
    assert not classify(facts(ability_level=AbilityLevel.SEVERE), on=TODAY).by_age_alone


anybody = st.builds(
    Facts,
    birth_date=st.dates(date(1900, 1, 1), date(1970, 1, 1)),
    ability_level=st.none() | st.sampled_from(AbilityLevel),
    observed=st.none() | st.sampled_from(Observed),
    disability_grade=st.none() | st.integers(1, 4),
    dementia=st.booleans(),
    circumstances=st.frozensets(st.sampled_from(Circumstance)),
)
days = st.dates(date(2023, 10, 13), date(2060, 1, 1))


@given(anybody, days)
def test_the_same_facts_and_day_give_the_same_class(who: Facts, on: date) -> None:
    assert classify(who, on=on) == classify(who, on=on)
    assert classify(who, on=on).reasons


@given(anybody, days, st.data())
def test_more_conditions_never_lower_the_class(who: Facts, on: date, data: st.DataObject) -> None:
    def worse(value: object, order: list[object]) -> object:
        return data.draw(st.sampled_from(order[order.index(value) :])) if value is not None else None

    frailer = Facts(
        birth_date=data.draw(st.dates(date(1900, 1, 1), who.birth_date)),
        ability_level=worse(who.ability_level, list(_ABILITY)),  # type: ignore[arg-type]
        observed=worse(who.observed, list(_SEEN)),  # type: ignore[arg-type]
        disability_grade=data.draw(st.integers(1, who.disability_grade or 4)),
        dementia=who.dementia or data.draw(st.booleans()),
    )
    before, after = classify(who, on=on).care_level, classify(frailer, on=on).care_level
    assert _RANK[after] >= _RANK[before]
    later = classify(who, on=on + timedelta(days=data.draw(st.integers(0, 9000)))).care_level
    assert _RANK[later] >= _RANK[before]  # nobody grows younger


@given(st.dates(date(1900, 1, 1), date(1970, 1, 1)), days)
def test_the_next_birthday_is_the_first_day_the_age_grows(born: date, day: date) -> None:
    birthday = next_birthday(born, day)
    assert birthday > day
    assert age_on(born, birthday) == age_on(born, birthday - timedelta(days=1)) + 1
    assert age_on(born, birthday - timedelta(days=1)) == age_on(born, day)


# --- versions --------------------------------------------------------------------------------------------------------


def version(name: str, region: str, since: date, **parts: object) -> Version:
    return Version(name, region, since, parts.get("classes"), parts.get("visits"))  # type: ignore[arg-type]


def test_the_nearest_region_then_the_newest_that_has_begun() -> None:
    base = version("base", "", date(2023, 10, 13), classes=ClassRules(), visits=VisitRules())
    newer = version("newer", "370302", date(2027, 1, 1), classes=ClassRules(key_age=75))
    town = version("town", "370302001", date(2026, 1, 1), visits=VisitRules(late_after_hours=48))
    found = Policies((town, newer, base))

    def at(code: str, day: date) -> tuple[str, str]:
        policy = found.at(code, day)
        return policy.classification_version, policy.visits_version

    assert at("370302001001", TODAY) == ("base", "town")
    assert at("370302002001", TODAY) == ("base", "base")
    assert at("370302001001", date(2027, 1, 1)) == ("newer", "town")
    assert at("370302001001", date(2020, 1, 1)) == ("base", "base")  # before the first: the first
    assert Policies(()).at("370302001001", TODAY) == POLICY_2023


def test_a_changed_policy_changes_the_class_and_its_name() -> None:
    younger = Policy(ClassRules(key_age=75), "试行", VisitRules(), "试行")
    seventy_five = facts(birth_date=date(1951, 1, 1), ability_level=AbilityLevel.INTACT)
    assert classify(seventy_five, on=TODAY).care_level is CareLevel.GENERAL
    found = classify(seventy_five, on=TODAY, policy=younger)
    assert (found.care_level, found.policy_version) == (CareLevel.KEY, "试行")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"levels": {"intact": "key", "mild": "general", "moderate": "secondary", "severe": "key", "complete": "key"}}, "worse"),
        ({"levels": {"intact": "general"}}, "mild"),
        ({"observed_as": {"independent": "severe", "mobility_limited": "moderate", "bedridden": "severe"}}, "worse"),
        ({"key_disability_grades": [3]}, "grade 1"),
        ({"dementia": "undetermined"}, "undetermined"),
        ({"key_age": 20}, "60"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(rules: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ClassRules.model_validate(rules)


# --- statuses --------------------------------------------------------------------------------------------------------


def test_no_status_silences_an_alarm_and_every_combination_is_decided() -> None:
    for status in ElderStatus:
        for reason in (None, *StatusReason):
            try:
                chosen = normal_reason(status, reason)
            except ValueError:
                continue
            assert EFFECTS[status, chosen].alarms in (AlarmsGo.AS_USUAL, AlarmsGo.WITH_A_NOTE)
    assert normal_reason(ElderStatus.DECEASED, None) is StatusReason.DECEASED
    with pytest.raises(ValueError, match="active has no reason away"):
        normal_reason(ElderStatus.ACTIVE, StatusReason.AWAY)
    with pytest.raises(ValueError, match="paused has no reason deceased"):
        normal_reason(ElderStatus.PAUSED, StatusReason.DECEASED)
    left = EFFECTS[ElderStatus.DECEASED, StatusReason.DECEASED]
    assert (left.counting, left.visits_due, left.collect_devices) == (Counting.LEFT, False, True)


def test_a_status_holds_from_its_day_and_a_pause_ends_by_itself() -> None:
    hospital = StatusPeriod(ElderStatus.PAUSED, StatusReason.IN_HOSPITAL, date(2026, 11, 1), date(2026, 11, 10))
    died = StatusPeriod(ElderStatus.DECEASED, StatusReason.DECEASED, date(2026, 12, 1))
    history = [died, hospital]  # recorded in the other order

    def held(day: date) -> ElderStatus:
        return status_on(history, day).status

    assert held(date(2026, 10, 31)) is ElderStatus.ACTIVE
    assert held(date(2026, 11, 1)) is held(date(2026, 11, 10)) is ElderStatus.PAUSED
    assert held(date(2026, 11, 11)) is ElderStatus.ACTIVE
    assert status_on(history, date(2026, 11, 20)).since == date(2026, 11, 11)
    assert held(date(2027, 1, 1)) is ElderStatus.DECEASED
    same_day = StatusPeriod(ElderStatus.ACTIVE, None, date(2026, 12, 1))
    assert status_on([*history, same_day], date(2027, 1, 1)).status is ElderStatus.ACTIVE  # the later word counts


# --- names by sound --------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.text(max_size=20))
def test_any_name_has_keys(name: str) -> None:
    keys = search_keys(name)
    assert not keys or keys.startswith(" ")


def test_names_are_found_by_initials_and_by_each_reading() -> None:
    assert " wgy" in search_keys("王桂英")
    assert " wangguiying" in search_keys("王桂英")
    for initials in (" sx", " dx", " cx"):  # 单 is read shan as a surname, dan otherwise
        assert initials in search_keys("单雄")
    assert as_typed("WGY") == "wgy"
    assert as_typed("wang gui") == "wanggui"
    assert as_typed("王gy") is None
