"""Coverage: what a month's figures say, that they never drift, and that past months stay. All people are invented."""

from __future__ import annotations

import asyncio
import random
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.db import transaction
from app.elders import history, register
from app.elders.tables import ConsentEntry
from app.elders.vocabulary import ConsentGiver, ConsentScope, ElderStatus, StatusReason
from app.reports import calendar, coverage, coverage_check
from app.reports.area import GroupBy
from app.reports.coverage import EXCUSING, Coverage, Standing
from app.reports.coverage_check import Entry, Person, rows_of
from app.reports.months import Month
from app.reports.outlook import Weeks, outlook
from app.reports.rates import Ahead, Prospect, forecast
from app.visits import kept, ledger
from app.visits.ledger import Deed
from app.visits.tables import Visit
from app.visits.vocabulary import Method, VisitOutcome
from tests.world import ADMIN, OTHER_VILLAGE, TOWNSHIP, TZ, VILLAGE, World
from tests.world import Person as Someone

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
NOVEMBER, OCTOBER = Month(date(2026, 11, 1)), Month(date(2026, 10, 1))


# --- pure ------------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_months_go_over_the_year() -> None:
    january = Month(date(2026, 1, 1))
    assert (january.before().first, january.before(13).first, january.after().first) == (
        date(2025, 12, 1), date(2024, 12, 1), date(2026, 2, 1),
    )  # fmt: skip
    assert (january.last, str(january), january.until(date(2026, 1, 9))) == (
        date(2026, 1, 31), "2026-01", date(2026, 1, 9),
    )  # fmt: skip
    assert january.ends(TZ) == datetime(2026, 2, 1, tzinfo=TZ)


@pytest.mark.unit
def test_the_pace_so_far_says_how_the_month_will_end() -> None:
    def look(made: int, remaining: int, day: int, weekly: int = 0, due: int = 60, visited: int = 40) -> Any:
        ahead = Ahead(due, visited, made, remaining, weekly)
        return forecast(ahead, today=date(2026, 11, day), last_day=date(2026, 11, 30))

    on_course = look(40, 20, 20)
    assert (on_course.prospect, on_course.pace, on_course.needed, on_course.expected_visited) == (
        Prospect.WILL_MAKE_IT, 2.0, 2.0, 60,
    )  # fmt: skip
    # Everybody was seen once; the weekly visits that are left are more than the pace makes.
    short = look(40, 21, 20, weekly=21, due=40)
    assert (short.prospect, short.remaining, short.expected_missing) == (Prospect.WILL_NOT_MAKE_IT, 0, 1)
    assert "21次" in short.because
    assert "差1次" in short.because
    assert look(60, 0, 20, visited=60).prospect is Prospect.DONE
    assert look(0, 0, 20, due=0, visited=0).prospect is Prospect.DONE
    assert look(0, 60, 2, visited=0).prospect is Prospect.TOO_EARLY
    last = look(59, 1, 30, visited=59)
    assert (last.prospect, last.needed, last.days_left) == (Prospect.WILL_NOT_MAKE_IT, None, 0)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("today", "begun", "this_ends", "later"),
    [
        (date(2026, 11, 1), 1, True, 4),  # a Sunday: its week, and those that end on the 8th, 15th, 22nd and 29th
        (date(2026, 11, 2), 2, True, 3),
        (date(2026, 11, 29), 5, True, 0),
        (date(2026, 11, 30), 6, False, 0),  # its week ends in December: asked for there
        (date(2026, 2, 28), 5, False, 0),
        (date(2026, 3, 1), 1, True, 4),
    ],
)
def test_weeks_belong_to_the_month_they_end_in(today: date, begun: int, this_ends: bool, later: int) -> None:
    assert Weeks.of(today) == Weeks(begun, this_ends, later)


@pytest.mark.unit
def test_a_person_has_a_row_for_each_month_from_the_first_visit_or_the_enrolment() -> None:
    def entry(day: date, **more: Any) -> Entry:
        return Entry(day, more.get("met", True), more.get("qualifying", True), more.get("voided", False))

    person = Person(
        UUID(int=7), date(2026, 11, 20), VILLAGE, "general", (), [(date(2026, 11, 20), VILLAGE)], (),
        [entry(date(2026, 10, 10)), entry(date(2026, 10, 10)), entry(date(2026, 10, 25)),
         entry(date(2026, 9, 1), voided=True, qualifying=False), entry(date(2026, 10, 5), met=False, qualifying=False)],
    )  # fmt: skip
    october, november = rows_of(person, NOVEMBER)
    assert (october.visits, october.attempts, october.counted_from, october.gap_days) == (3, 1, date(2026, 10, 10), 14)
    assert (november.visits, november.counted_from, november.gap_days) == (0, date(2026, 11, 1), 0)


@pytest.mark.unit
def test_what_excuses_is_the_register_s_table() -> None:
    assert set(EXCUSING) == set(StatusReason) - {StatusReason.OTHER}


# --- the kept rows ---------------------------------------------------------------------------------------------------


def on(day: date, hour: int = 9) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=TZ)


async def home_consent(world: World, elder: Someone) -> None:
    async with transaction(world.sessions) as session:
        session.add(
            ConsentEntry(
                id=UUID(int=elder.id.int ^ 1), elder_id=elder.id, scope=ConsentScope.HOME_VISIT,
                given_by=ConsentGiver.ELDER, given_on=date(2020, 1, 1), recorded_at=world.time(), recorded_by="test",
            )
        )  # fmt: skip


async def visit(
    world: World, elder: Someone, at: datetime, outcome: VisitOutcome = VisitOutcome.MET, reason: str | None = None
) -> UUID:
    async with transaction(world.sessions) as session:
        locked = await register.elder_within(session, ADMIN, elder.id, lock=True)
        fields = {
            "method": Method.HOME, "outcome": outcome, "started_at": at, "ended_at": None, "services": [],
            "visitor_id": None, "note": None, "alarm_id": None, "health": {},
        }  # fmt: skip
        made = await ledger.record(session, locked, fields, [], Deed(ADMIN, world.time(), TZ, reason))
        return made.id


async def change(world: World, visit_id: UUID, act: str, **more: Any) -> None:
    async with transaction(world.sessions) as session:
        found = await session.get(Visit, visit_id)
        assert found is not None
        await register.elder_within(session, ADMIN, found.elder_id, lock=True)
        deed = Deed(ADMIN, world.time(), TZ, "核对后更正")
        match act:
            case "void":
                await ledger.void(session, found, deed)
            case "override":
                await ledger.override(session, found, qualifying=more["qualifying"], deed=deed)
            case "move":
                await ledger.correct(session, found, {"started_at": more["to"]}, None, deed)
            case _:
                raise AssertionError(act)


async def status(
    world: World, elder: Someone, reason: StatusReason | None, since: date, until: date | None = None,
    evidence: str | None = "证明一份", kind: ElderStatus = ElderStatus.PAUSED,
) -> None:  # fmt: skip
    async with transaction(world.sessions) as session:
        locked = await register.elder_within(session, ADMIN, elder.id, lock=True)
        now = world.time()
        await history.set_status(
            session, locked, status=kind, reason=reason, since=since, until=until, evidence=evidence, by="test",
            now=now, today=now.astimezone(TZ).date(),
        )  # fmt: skip


async def seen(world: World, month: Month, prefix: str = "370302", by: GroupBy | None = None) -> list[Coverage]:
    async with world.sessions() as session:
        today = world.time().astimezone(TZ).date()
        return await coverage.coverage(session, prefix, month, by=by, today=today)


async def total(world: World, month: Month = NOVEMBER) -> Coverage:
    (line,) = await seen(world, month)
    return line


async def nothing_drifted(world: World) -> None:
    async with transaction(world.sessions) as session:
        _, drifts = await coverage_check.compare(session)
    assert not drifts, "\n".join(map(str, drifts))
    assert await world.value("SELECT count(*) FROM coverage_stale") == 0


async def test_raw_and_adjusted_with_every_exclusion_in_view(world: World) -> None:
    names = ["甲", "乙", "丙", "丁", "戊", "己", "庚"]
    visited, ill, away, unshown, waiting, gone, back = await world.elders(names)
    for one in (visited, ill, back):
        await home_consent(world, one)
    today = world.time().astimezone(TZ).date()
    await visit(world, visited, on(today - timedelta(days=10)))
    await status(world, ill, StatusReason.IN_HOSPITAL, today, evidence="住院证明")
    await status(world, away, StatusReason.AWAY, today, evidence="子女来电")
    await status(world, unshown, StatusReason.REFUSED, today, evidence=None)
    await status(world, gone, None, today, kind=ElderStatus.DECEASED)
    await status(world, back, StatusReason.IN_HOSPITAL, today, until=today + timedelta(days=2))
    line = await total(world)
    assert (line.enrolled, line.visited, line.unevidenced) == (7, 1, 1)
    assert {reason: n for reason, n in line.exclusions.items() if n} == {"in_hospital": 1, "away": 1, "deceased": 1}
    assert (line.rate_raw, line.rate_adjusted) == (round(1 / 7, 4), 0.25)
    # Nobody who is excluded makes the gap; the one visited ten days ago does.
    assert line.longest_gap_days == 10
    async with world.sessions() as session:
        rows = await coverage.people(
            session, "370302", NOVEMBER, standing=Standing.EXCLUDED, reason=None, level=None,
            after=("", UUID(int=0)), limit=50, today=today,
        )  # fmt: skip
    assert {(row.name, row.excused, row.since, row.evidence) for row in rows} == {
        ("乙", "in_hospital", today, "住院证明"), ("丙", "away", today, "子女来电"), ("己", "deceased", today, "证明一份"),
    }  # fmt: skip
    # Whoever was visited in hospital counts as visited: no exclusion takes that away.
    await visit(world, ill, on(today, 10))
    after = await total(world)
    assert (after.visited, after.exclusions["in_hospital"]) == (2, 0)
    assert waiting.id
    await nothing_drifted(world)


async def test_what_a_month_still_asks_for_has_the_weekly_visits_of_key_people(world: World) -> None:
    names = ["甲", "乙", "丙", "丁"]
    today = date(2026, 11, 16)  # a Monday; two more Sundays are in the month
    world.clock.now = on(today, 12)
    general, key, ill, back = await world.elders(names)
    for one in (general, key):
        await home_consent(world, one)
    await world.do("UPDATE elders SET birth_date = '1950-01-01'")
    for one, dementia in ((general, False), (key, True), (back, True)):
        async with transaction(world.sessions) as session:
            locked = await register.elder_within(session, ADMIN, one.id, lock=True)
            fields = {"dementia": dementia, "observed": "independent"}
            await register.change_elder(
                session, ADMIN, locked, fields, sealer=world.sealer, now=world.time(), today=today
            )
    await visit(world, general, on(date(2026, 11, 3)))
    await visit(world, general, on(date(2026, 11, 4)))  # more than asked: no pace for others
    await visit(world, key, on(date(2026, 11, 10)))
    await status(world, ill, StatusReason.IN_HOSPITAL, today)
    await status(world, back, StatusReason.AWAY, today, until=today + timedelta(days=2))

    async def ahead() -> Ahead:
        async with world.sessions() as session:
            (line,) = await outlook(session, "370302", by=None, today=today)
            return line.ahead

    # Weekly: this week and the next of one, and of one who is back this week. Nobody has looked at the duties yet.
    assert await ahead() == Ahead(3, 2, 2, 4, 4)
    while True:
        async with transaction(world.sessions) as session:
            if not await kept.look_again(session, now=world.time(), today=today, tz=TZ):
                break
    judged = await ahead()
    assert (judged.visits_made, judged.visits_remaining) == (2, 3)  # who is away today: the week after is asked for
    await visit(world, key, on(today))
    assert (await ahead()).visits_remaining == 2


async def test_past_months_stay_as_they_were_and_move_only_by_what_is_corrected_in_them(world: World) -> None:
    first, second = await world.elders(["甲", "乙"])
    for one in (first, second):
        await home_consent(world, one)
    one = await visit(world, first, on(date(2026, 10, 8)))
    await visit(world, second, on(date(2026, 10, 20)))
    before = await seen(world, OCTOBER, by=GroupBy.VILLAGE)
    assert (before[0].enrolled, before[0].visited, before[0].rate_raw) == (2, 2, 1.0)
    # What happens in November changes nothing there: a status, a move, a class.
    world.clock.now += timedelta(days=1)
    today = world.time().astimezone(TZ).date()
    await status(world, first, StatusReason.IN_HOSPITAL, today)
    async with transaction(world.sessions) as session:
        locked = await register.elder_within(session, ADMIN, second.id, lock=True)
        fields = {"region_code": OTHER_VILLAGE, "dementia": True}
        await register.change_elder(session, ADMIN, locked, fields, sealer=world.sealer, now=world.time(), today=today)
    assert await seen(world, OCTOBER, by=GroupBy.VILLAGE) == before
    november = await seen(world, NOVEMBER, by=GroupBy.VILLAGE)
    assert [(line.region_code, line.enrolled) for line in november] == [(VILLAGE, 1), (OTHER_VILLAGE, 1)]
    levels = await seen(world, NOVEMBER, by=GroupBy.CARE_LEVEL)
    assert {(str(line.care_level), line.enrolled) for line in levels} == {("key", 2)}
    # The month is closed; what is corrected in it moves exactly what it concerns.
    async with transaction(world.sessions) as session:
        closed = await ledger.close_month(
            session, month=date(2026, 10, 1), region_code="370302", deed=Deed(ADMIN, world.time(), TZ)
        )
    assert closed.figures["elders_visited"] == 2
    await change(world, one, "override", qualifying=False)
    assert (await total(world, OCTOBER)).visited == 1
    await change(world, one, "override", qualifying=True)
    assert (await total(world, OCTOBER)).visited == 2
    await change(world, one, "move", to=on(date(2026, 11, 3)))
    # Their first visit is in November now: until then they were not in the programme.
    assert ((await total(world, OCTOBER)).enrolled, (await total(world)).visited) == (1, 1)
    await nothing_drifted(world)


async def test_the_next_month_is_opened_ahead_once_and_in_any_number_of_steps(world: World) -> None:
    people = await world.elders([f"老人{n}" for n in range(7)])
    await world.do("UPDATE coverage_calendar SET opened_through = '2026-11-01'")
    today = date(2026, 11, 23)
    async with transaction(world.sessions) as session:
        assert await calendar.keep(session, today=today, tz=TZ) == 0  # more than a week ahead
    # Two batches by hand: who changes between them, ahead of the calendar, is right too.
    async with transaction(world.sessions) as session:
        assert await session.scalar(sa.text("SELECT coverage_open('2026-12-01', 4)")) == 4
    await status(world, people[0], StatusReason.AWAY, today)
    await status(world, people[6], StatusReason.AWAY, today)
    await nothing_drifted(world)
    for _ in range(9):
        async with transaction(world.sessions) as session:
            if not await calendar.keep(session, today=date(2026, 12, 30), tz=TZ):
                break
    else:
        raise AssertionError("it does not end")
    assert await world.value("SELECT opened_through FROM coverage_calendar") == date(2027, 1, 1)
    assert await world.value("SELECT count(*) FROM elder_months WHERE excused = 'away'") == 6
    await nothing_drifted(world)


async def test_two_changes_of_one_person_at_once_are_both_in_the_figures(world: World) -> None:
    """Written past the register, without its locks: the second transaction still sees what the first left."""
    elder = await world.elder()
    insert = sa.text(
        "INSERT INTO visits (id, elder_id, region_code, place_code, method, outcome, started_at, services, qualifying, "
        "created_at, created_by) VALUES (gen_random_uuid(), :elder, :place, :place, 'home', 'met', :at, '{}', true, :at, 'x')"
    )
    async with world.sessions() as one, world.sessions() as two:
        await one.execute(insert, {"elder": elder.id, "place": VILLAGE, "at": on(date(2026, 11, 3))})
        waiting = asyncio.ensure_future(
            two.execute(insert, {"elder": elder.id, "place": VILLAGE, "at": on(date(2026, 11, 5))})
        )
        await world.value("SELECT pg_sleep(0.2)")
        assert not waiting.done()
        await one.commit()
        await waiting
        await two.commit()
    assert (await total(world)).visits == 2
    await nothing_drifted(world)


async def test_whatever_happens_in_any_order_the_kept_rows_are_the_computed_ones(world: World) -> None:
    dice = random.Random(20261123)
    people = await world.elders([f"老人{n}" for n in range(6)])
    for one in people[:4]:
        await home_consent(world, one)
    today, visits = world.time().astimezone(TZ).date(), []
    for _ in range(60):
        who, day = dice.choice(people), today - timedelta(days=dice.randrange(100))
        match dice.randrange(8):
            case 0 | 1 | 2:
                outcome = dice.choice([VisitOutcome.MET, VisitOutcome.MET, VisitOutcome.NOBODY_HOME])
                visits.append(await visit(world, who, on(day, dice.randrange(24)), outcome))
            case 3 if visits:
                await change(world, visits.pop(dice.randrange(len(visits))), "void")
            case 4 if visits:
                await change(world, dice.choice(visits), "move", to=on(day, dice.randrange(24)))
            case 5:
                until = today + timedelta(days=dice.randrange(9)) if dice.random() < 0.5 else None
                reason = dice.choice([StatusReason.AWAY, StatusReason.OTHER, StatusReason.REFUSED])
                await status(world, who, reason, day, until, evidence=dice.choice(["有", None]))
            case 6:
                kind = dice.choice([ElderStatus.ACTIVE, ElderStatus.MOVED, ElderStatus.DECEASED])
                await status(world, who, None, day, kind=kind)
            case _:
                async with transaction(world.sessions) as session:
                    locked = await register.elder_within(session, ADMIN, who.id, lock=True)
                    code = dice.choice([VILLAGE, OTHER_VILLAGE])
                    fields = {"region_code": code, "observed": dice.choice([None, "bedridden", "independent"])}
                    await register.change_elder(
                        session, ADMIN, locked, fields, sealer=world.sealer, now=world.time(), today=today
                    )
        if dice.random() < 0.2:
            async with transaction(world.sessions) as session:
                await calendar.add_up(session, world.time())
    await nothing_drifted(world)
    async with world.sessions() as session:
        lines = await coverage.trend(session, "370302", NOVEMBER, months=4, level=None)
    for line in lines:  # the sums say what the rows say
        (same,) = await seen(world, line.month)
        assert (line.enrolled, line.visited, line.exclusions, line.unevidenced, line.visits, line.attempts) == (
            same.enrolled, same.visited, same.exclusions, same.unevidenced, same.visits, same.attempts,
        )  # fmt: skip
    # A row that was changed past the database's own keeping is found.
    await world.do("UPDATE elder_months SET attempts = attempts + 1 WHERE elder_id = :id", id=people[0].id)
    async with transaction(world.sessions) as session:
        _, drifts = await coverage_check.compare(session)
    assert drifts
    assert all(str(people[0].id) in drift.what for drift in drifts)


async def test_people_written_past_the_register_have_rows_too(world: World) -> None:
    elder = await world.elder()
    async with transaction(world.sessions) as session:
        await session.execute(sa.text("DELETE FROM residences"))
        await session.execute(sa.text("DELETE FROM classification_changes"))
        await session.execute(
            sa.text("UPDATE elders SET status = 'paused', status_reason = 'away', status_since = '2026-11-02', "
                    "care_level = 'key', region_code = :code"), {"code": OTHER_VILLAGE})  # fmt: skip
    (line,) = await seen(world, NOVEMBER, by=GroupBy.VILLAGE)
    assert (line.region_code, line.exclusions["away"], elder.name) == (OTHER_VILLAGE, 1, "王桂英")
    await nothing_drifted(world)


# --- as a front end meets it -----------------------------------------------------------------------------------------


@pytest.mark.xdist_group("live")
def test_coverage_over_the_api(live: Live) -> None:
    village, other = live.village(), live.village("370302005000")
    elders = [live.elder(village, ability={"level": "intact", "assessed_on": "2020-01-01"}) for _ in range(4)]
    live.elder(other)
    api = live.user("auditor", village[:9])
    for elder in elders[:2]:
        live.admin.made(
            "/visits", elder_id=elder["id"], method="phone", started_at=datetime.now(TZ).isoformat(), services=[]
        )
    today = datetime.now(TZ).date().isoformat()
    answer = live.admin.post(
        f"/elders/{elders[2]['id']}/statuses",
        json={"status": "paused", "reason": "in_hospital", "since": today, "evidence": "区医院住院证"},
    )
    assert answer.status_code == 201, answer.text
    (line,) = api.items("/stats/coverage", region_code=village)
    assert (line["region_code"], line["enrolled"], line["visited"]) == (village, 4, 2)
    assert (line["rate_raw"], line["exclusions"]["in_hospital"]) == (0.5, 1)
    assert (line["rate_adjusted"], line["name"]) == (0.6667, f"村{village[-3:]}")
    excluded = api.items("/stats/coverage/elders", region_code=village, excluded="in_hospital")
    assert [(one["elder"]["id"], one["since"], one["evidence"]) for one in excluded] == [
        (elders[2]["id"], today, "区医院住院证")
    ]
    waiting = api.items("/stats/coverage/elders", region_code=village, standing="unvisited")
    assert [one["elder"]["id"] for one in waiting] == [elders[3]["id"]]
    first = api.seen("/stats/coverage/elders", region_code=village, limit=3)
    rest = api.seen("/stats/coverage/elders", region_code=village, limit=3, cursor=first["next_cursor"])
    assert len({one["elder"]["id"] for one in first["items"] + rest["items"]}) == 4
    assert rest["next_cursor"] is None
    months = api.items("/stats/coverage/trend", region_code=village, months=12)
    assert (len(months), months[-1]["visited"], months[0]["enrolled"]) == (12, 2, 0)
    forecasts = api.seen("/stats/coverage/forecast", region_code=village)["items"]
    assert (forecasts[0]["due"], forecasts[0]["remaining"]) == (3, 1)
    # Scope: another township's village looks like none, and one's whole scope has none of its people.
    for path in ("/stats/coverage", "/stats/coverage/elders", "/stats/coverage/trend", "/stats/coverage/forecast"):
        for code in (other, "370302999"):
            answer = api.get(path, params={"region_code": code})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.region_code")
    assert {one["region_code"][:9] for one in api.items("/stats/coverage", group_by="village")} == {village[:9]}
    assert api.items("/stats/coverage", region_code="370302", group_by="township")[0]["region_code"] == TOWNSHIP
    assert live.user("visitor", village).get("/stats/coverage/elders").status_code == 403
    assert api.get("/stats/coverage", params={"month": "2199-01"}).status_code == 422
    assert api.get("/stats/coverage", params={"month": "2026-13"}).status_code == 422
