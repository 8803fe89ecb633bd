"""The register keeps what was known when: statuses, places, assessments, classes. All people are invented."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.db import transaction
from app.elders import classifying, history, policies, register
from app.elders.policy import ClassRules, VisitRules
from app.elders.tables import CarePolicy, Elder
from app.elders.vocabulary import AbilityLevel, ChangeCause, ElderStatus, StatusReason
from tests.world import ADMIN, DISTRICT, OTHER_VILLAGE, START, TZ, VILLAGE, Person, World


def today(world: World) -> date:
    return world.time().astimezone(TZ).date()


async def change(world: World, who: Person, **fields: Any) -> None:
    async with transaction(world.sessions) as session:
        elder = await register.elder_within(session, ADMIN, who.id, lock=True)
        await register.change_elder(
            session, ADMIN, elder, fields, sealer=world.sealer, now=world.time(), today=today(world)
        )


async def class_on(world: World, who: Person, day: date) -> str:
    async with world.sessions() as session:
        elder = await session.get(Elder, who.id)
        assert elder is not None
        return (await classifying.on_day(session, elder, day))[0].care_level.value


async def stored(world: World, who: Person) -> str:
    return str(await world.value("SELECT care_level FROM elders WHERE id = :id", id=who.id))


async def changes(world: World, who: Person) -> list[tuple[str, str, str]]:
    rows = await world.rows(
        "SELECT effective_on, care_level, cause FROM classification_changes WHERE elder_id = :id ORDER BY seq",
        id=who.id,
    )
    return [(row.effective_on.isoformat(), row.care_level, row.cause) for row in rows]


async def turning_eighty(world: World, birthday: date, **fields: Any) -> Person:
    """An elder whose 80th birthday is this day, able and seen."""
    born = birthday.replace(year=birthday.year - 80)
    start = f"370302{born:%Y%m%d}021"
    from stdnum.iso7064 import mod_11_2

    number = start + str(mod_11_2.calc_check_digit(start))
    return await world.elder("周寿", id_number=number, observed="independent", **fields)


# --- classes ---------------------------------------------------------------------------------------------------------


async def test_a_birthday_moves_somebody_up_after_days_of_downtime_and_only_once(world: World) -> None:
    elder = await turning_eighty(world, date(2026, 11, 26))
    await world.keep_register()
    assert await stored(world, elder) == "general"
    world.clock.now = START + timedelta(days=9)  # nobody looked for nine days
    assert (await world.findings())["classification_late"].ids == (str(elder.id),)
    await world.keep_register()
    assert "classification_late" not in await world.findings()
    await world.keep_register()
    assert await stored(world, elder) == "key"
    assert await changes(world, elder) == [("2026-11-23", "general", "enrolled"), ("2026-11-26", "key", "birthday")]
    assert await class_on(world, elder, date(2026, 11, 25)) == "general"
    assert await class_on(world, elder, date(2026, 11, 26)) == "key"


async def test_the_day_begins_at_midnight_of_the_district(world: World) -> None:
    elder = await turning_eighty(world, date(2026, 11, 24))
    world.clock.now = datetime(2026, 11, 23, 15, 59, tzinfo=UTC)
    await world.keep_register()
    assert await stored(world, elder) == "general"
    world.clock.now = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)
    await world.keep_register()
    assert await stored(world, elder) == "key"


async def test_two_workers_look_at_each_person_once(world: World) -> None:
    elder = await turning_eighty(world, date(2026, 11, 24))
    world.clock.now += timedelta(days=2)
    async with transaction(world.sessions) as one, transaction(world.sessions) as other:
        looks = [await classifying.take_due(s, now=world.time(), today=today(world)) for s in (one, other)]
    assert looks == [1, 0]
    assert len(await changes(world, elder)) == 2


async def test_every_change_is_classed_and_the_answer_for_any_day_stays(world: World) -> None:
    elder = await world.elder("钱多", id_number="370302196001010228", observed="mobility_limited")
    assert await stored(world, elder) == "secondary"
    world.clock.now += timedelta(days=10)
    await change(world, elder, dementia=True)
    assert await stored(world, elder) == "key"
    world.clock.now += timedelta(days=10)
    await change(world, elder, dementia=False, observed="independent")
    assert await changes(world, elder) == [
        ("2026-11-23", "secondary", "enrolled"), ("2026-12-03", "key", "changed"), ("2026-12-13", "general", "changed"),
    ]  # fmt: skip
    for day, expected in (
        ("2026-12-02", "secondary"),
        ("2026-12-03", "key"),
        ("2026-12-12", "key"),
        ("2026-12-13", "general"),
    ):
        assert await class_on(world, elder, date.fromisoformat(day)) == expected
    assert await class_on(world, elder, date(2039, 12, 31)) == "general"
    assert await class_on(world, elder, date(2040, 1, 1)) == "key"  # the 80th birthday to come


async def test_assessments_count_from_their_day_also_when_entered_late(world: World) -> None:
    elder = await world.elder("孙评", id_number="370302196001010308")
    async with transaction(world.sessions) as session:
        found = await register.elder_within(session, ADMIN, elder.id, lock=True)
        for level, day in ((AbilityLevel.SEVERE, date(2026, 3, 1)), (AbilityLevel.MODERATE, date(2025, 1, 10))):
            await history.add_assessment(
                session, found, assessed_on=day, level=level, by="x", now=world.time(), today=today(world)
            )
        await classifying.refresh(session, found, cause=ChangeCause.CHANGED, now=world.time(), today=today(world))
    assert await stored(world, elder) == "key"  # the latest by its day, though entered first
    assert await class_on(world, elder, date(2026, 2, 28)) == "secondary"
    assert await class_on(world, elder, date(2025, 1, 9)) == "undetermined"


async def test_the_class_by_the_columns_is_the_class_by_the_history(world: World) -> None:
    elder = await world.elder("李同", id_number="370302196001010404", disability_grade=2, ability_level="mild")
    assert await stored(world, elder) == await class_on(world, elder, today(world)) == "key"
    # Rows that a bulk load wrote past the register have no history: they are classed at the next look.
    for table in ("assessments", "elder_facts", "residences", "classification_changes"):
        await world.do(f"DELETE FROM {table} WHERE elder_id = :id", id=elder.id)
    await world.do(
        "UPDATE elders SET care_level = 'undetermined', reclassify_on = '2026-11-23' WHERE id = :id", id=elder.id
    )
    await world.keep_register()
    assert await stored(world, elder) == "key"


async def write_policy(world: World, name: str, since: date, region: str = "370302", **rules: Any) -> None:
    async with transaction(world.sessions) as session:
        row = await policies.draft(
            session, version=name, region_code=region, classification=ClassRules(**rules), visits=None, note=None,
            now=world.time(),
        )  # fmt: skip
        await policies.put_in_force(
            session, row, since=since, by={"type": "user"}, now=world.time(), today=today(world)
        )


async def test_a_policy_put_in_force_classes_everybody_it_touches_on_its_day(world: World) -> None:
    elder = await world.elder("赵中", id_number="370302195001010223", observed="independent")  # 76
    await write_policy(world, "区2027", date(2027, 1, 1), key_age=75)
    await world.keep_register()
    assert await stored(world, elder) == "general"
    newcomer = await world.elder("钱新", id_number="370302195001010303", observed="independent")
    world.clock.now = datetime(2027, 1, 5, tzinfo=UTC)
    await world.keep_register()
    await world.keep_register()
    for one in (elder, newcomer):
        assert (await changes(world, one))[1:] == [("2027-01-01", "key", "policy")]
    assert await class_on(world, elder, date(2026, 12, 31)) == "general"
    assert await class_on(world, elder, date(2027, 1, 1)) == "key"


async def test_the_seeded_policy_is_the_plan_of_2023(world: World) -> None:
    row = (await world.rows("SELECT * FROM care_policies"))[0]
    assert ClassRules.model_validate(row.classification) == ClassRules()
    assert VisitRules.model_validate(row.visits) == VisitRules()
    assert (row.version, row.in_force_from) == ("川民〔2023〕100号", date(2023, 10, 13))


async def test_a_dry_run_over_a_region_says_who_would_move_and_why_and_writes_nothing(world: World) -> None:
    mover = await world.elder("孙动", id_number="37030219500101040X", observed="independent")
    await world.elder("李静", id_number="370302196001010500", observed="independent")
    await world.elder("周外", region=OTHER_VILLAGE, id_number="370302195001010506", observed="independent")
    before = await world.rows("SELECT id, care_level, reclassify_on FROM elders ORDER BY id")
    async with world.sessions() as session:
        proposed = policies.Version("试", "370302", date(2027, 6, 1), ClassRules(key_age=75), None)
        run = await classifying.dry_run(session, proposed, prefix=VILLAGE, day=date(2027, 6, 1))
    assert (run.looked_at, [m.elder_id for m in run.moves]) == (2, [mover.id])
    assert run.counts() == [{"from": "general", "to": "key", "elders": 1}]
    assert "77岁" in run.moves[0].after.reasons[0].because
    assert await world.rows("SELECT id, care_level, reclassify_on FROM elders ORDER BY id") == before
    assert await world.value("SELECT count(*) FROM care_policies") == 1


# --- statuses --------------------------------------------------------------------------------------------------------


async def test_a_pause_ends_by_itself_also_after_downtime(world: World) -> None:
    elder = await world.elder(observed="independent")
    await change(
        world,
        elder,
        status="paused",
        status_reason="in_hospital",
        status_until=date(2026, 11, 30),
        status_evidence="单",
    )
    row = (await world.rows("SELECT * FROM elders WHERE id = :id", id=elder.id))[0]
    assert (row.status, row.status_reason, row.status_since) == ("paused", "in_hospital", date(2026, 11, 23))
    assert row.status_evidenced
    world.clock.now += timedelta(days=20)
    await world.keep_register()
    row = (await world.rows("SELECT * FROM elders WHERE id = :id", id=elder.id))[0]
    assert (row.status, row.status_reason, row.status_since) == ("active", None, date(2026, 12, 1))
    assert row.reclassify_on is not None


@pytest.mark.parametrize(("status", "word"), [("deceased", "登记为已去世"), ("moved", "登记为已迁出")])
async def test_an_alarm_of_somebody_who_is_gone_is_told_with_what_the_register_says(
    world: World, status: str, word: str
) -> None:
    elder = await world.elder()
    await world.contact(elder, "王小明")
    device = await world.device(elder)
    await world.press_sos(device)
    await world.act((await world.alarm(elder)).id, "resolve")
    world.forget()
    await change(world, elder, status=status)
    finding = (await world.findings())["device_of_departed"]
    assert (finding.blocking, finding.ids) == (False, (device,))
    await world.press_sos(device)
    heard = world.expect_heard("王小明", "alarm.raised")
    assert word in heard.letter.payload["data"]["alarm"]["because"]
    await world.bind(device, None)
    assert "device_of_departed" not in await world.findings()


async def test_whoever_refuses_visits_is_rescued_as_before(world: World) -> None:
    elder = await world.elder()
    await world.contact(elder, "王小明")
    await change(world, elder, status="paused", status_reason="refused")
    await world.press_sos(await world.device(elder))
    heard = world.expect_heard("王小明", "alarm.raised")
    assert heard.letter.payload["data"]["alarm"]["because"] == "按下了紧急呼叫按钮"


async def test_statuses_are_dated_and_of_one_day_the_later_word_counts(world: World) -> None:
    elder = await world.elder()
    async with transaction(world.sessions) as session:
        found = await register.elder_within(session, ADMIN, elder.id, lock=True)
        common = {"evidence": None, "until": None, "by": "x", "today": today(world)}
        for n, (status, day) in enumerate(((ElderStatus.DECEASED, 20), (ElderStatus.ACTIVE, 20))):
            await history.set_status(
                session, found, status=status, reason=None, since=date(2026, 11, day),
                now=world.time() + timedelta(seconds=n), **common,
            )  # fmt: skip
        assert found.status is ElderStatus.ACTIVE
        await history.set_status(
            session, found, status=ElderStatus.PAUSED, reason=StatusReason.AWAY, since=date(2026, 11, 10),
            now=world.time() + timedelta(seconds=9), **common,
        )  # fmt: skip
        assert found.status is ElderStatus.ACTIVE  # what was entered late was over before


# --- places ----------------------------------------------------------------------------------------------------------


async def test_a_move_keeps_where_the_elder_lived_before(world: World) -> None:
    elder = await world.elder()
    world.clock.now += timedelta(days=30)
    await change(world, elder, region_code=OTHER_VILLAGE, moved_on=date(2026, 12, 10))
    async with world.sessions() as session:
        found = await session.get(Elder, elder.id)
        assert found is not None
        places = [
            await history.place_on(session, found, date(2026, *day)) for day in ((1, 1), (12, 9), (12, 10), (12, 31))
        ]
    assert places == [VILLAGE, VILLAGE, OTHER_VILLAGE, OTHER_VILLAGE]


# --- finding people --------------------------------------------------------------------------------------------------


async def test_phones_and_names_of_before_become_searchable(world: World) -> None:
    elder, broken = await world.elder("单雄"), await world.elder("坏封")
    await world.do("UPDATE elders SET phone_tail_index = NULL, name_keys = ''")
    await world.do("UPDATE elders SET phone_sealed = 'x' WHERE id = :id", id=broken.id)
    after: UUID | None = UUID(int=0)
    while after is not None:  # a seal that does not open stops nobody else's
        async with transaction(world.sessions) as session:
            after = await register.index_phones(session, world.sealer, after=after, batch=1)
    async with world.sessions() as session:
        tail = world.sealer.indexes(register.phone_tail("0000"))
        by_tail = await register.list_elders(session, ADMIN, limit=9, before=None, phone_tails=tail)
        by_sound = await register.list_elders(session, ADMIN, limit=9, before=None, name="SX")
    assert [e.id for e in by_tail] == [e.id for e in by_sound] == [elder.id]


async def test_versions_in_force_are_never_changed(world: World) -> None:
    async with world.sessions() as session:
        row = await session.get(CarePolicy, (await world.value("SELECT id FROM care_policies")))
        assert row is not None
        with pytest.raises(Exception, match="in force already"):
            await policies.put_in_force(session, row, since=today(world), by={}, now=world.time(), today=today(world))
    with pytest.raises(Exception, match="today or later"):
        await write_policy(world, "迟到", today(world) - timedelta(days=1), DISTRICT)
