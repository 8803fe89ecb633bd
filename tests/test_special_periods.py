"""Special periods: the festivals' days, what overlapping periods ask for, who may enter them, and the proof afterwards."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.db import transaction
from app.elders.vocabulary import CareLevel
from app.visits import specials
from app.visits.calendar import Span
from app.visits.festivals import FestivalRules, day_of, days_of
from app.visits.special import Progress, Special, progress, raised_on
from app.visits.vocabulary import Festival, SpecialKind
from tests.live import Api
from tests.test_api import refused, walk
from tests.world import World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
MONDAY = date(2026, 11, 23)
WEEK = Span(MONDAY, MONDAY + timedelta(days=6))
EVERYBODY = frozenset(CareLevel)


# --- festivals -------------------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    ("year", "days"),
    [  # as the State Council's holiday notices and almanacs have them
        (2023, ["01-01", "01-22", "04-05", "05-01", "06-22", "09-29", "10-01", "10-23"]),
        (2024, ["01-01", "02-10", "04-04", "05-01", "06-10", "09-17", "10-01", "10-11"]),
        (2025, ["01-01", "01-29", "04-04", "05-01", "05-31", "10-06", "10-01", "10-29"]),  # a leap sixth month
        (2026, ["01-01", "02-17", "04-05", "05-01", "06-19", "09-25", "10-01", "10-18"]),
        (2033, ["01-01", "01-31", "04-04", "05-01", "06-01", "09-08", "10-01", "10-01"]),  # 重阳 on 国庆
    ],
)
def test_festivals_are_computed(year: int, days: list[str]) -> None:
    assert [f"{day:%m-%d}" for day in days_of(year).values()] == days


@pytest.mark.unit
def test_a_festival_of_january_is_due_in_december() -> None:
    span = FestivalRules(lead_days=7).window(Festival.NEW_YEAR, 2027)
    assert span == Span(date(2026, 12, 25), date(2027, 1, 1))
    assert day_of(Festival.SPRING_FESTIVAL, 2027) == date(2027, 2, 6)


# --- what they add ---------------------------------------------------------------------------------------------------


def special(first: int, last: int, *, n: int = 1, per_day: int | None = None, total: int | None = None) -> Special:
    """From the `first` to the `last` day of the week (0 is Monday)."""
    span = Span(MONDAY + timedelta(days=first), MONDAY + timedelta(days=last))
    return Special(UUID(int=n), f"p{n}", SpecialKind.OTHER, "370302", EVERYBODY, span, per_day, total)


def still(day: int, *specials_: Special, visited: list[int] | None = None, most: int = 2) -> int:
    days = [MONDAY + timedelta(days=n) for n in visited or []]
    return raised_on(MONDAY + timedelta(days=day), WEEK, specials_, days, most).still


@pytest.mark.unit
@pytest.mark.parametrize(
    ("day", "specials_", "visited", "expected"),
    [
        (0, [special(2, 4, per_day=1)], [], 3),
        (3, [special(2, 4, per_day=1)], [], 2),  # a day that went by is not asked for any more
        (3, [special(2, 4, per_day=1)], [3, 3], 1),  # twice on one day is once
        (5, [special(2, 4, per_day=1)], [], 0),
        (0, [special(2, 4, total=2)], [], 2),
        (4, [special(2, 4, total=2)], [0, 2], 1),  # Monday's visit was before it
        (0, [special(0, 6, per_day=9)], [], 14),  # capped: two a day
        (0, [special(2, 3, total=9)], [], 4),
        (0, [special(1, 3, total=1), special(3, 5, n=2, total=1)], [], 1),  # one visit serves both
        (0, [special(1, 2, total=1), special(4, 5, n=2, total=1)], [], 2),
        (0, [special(1, 3, per_day=1), special(2, 4, n=2, per_day=1)], [], 4),
        (0, [special(1, 3, per_day=1), special(0, 6, n=2, total=3)], [], 3),
        (0, [special(1, 3, per_day=1), special(1, 3, n=2, per_day=1)], [], 3),  # the same twice is once
        (5, [special(5, 9, per_day=1)], [], 2),  # next week's days wait for their week
        (5, [special(5, 9, total=2)], [], 2),
        (0, [special(7, 9, total=2)], [], 0),
    ],
)
def test_overlapping_periods_ask_for_the_fewest_visits_that_serve_all(
    day: int, specials_: list[Special], visited: list[int], expected: int
) -> None:
    assert still(day, *specials_, visited=visited) == expected


@st.composite
def some(draw: st.DrawFn) -> list[Special]:
    found = []
    for n in range(draw(st.integers(1, 4))):
        first = draw(st.integers(-3, 6))
        last = draw(st.integers(max(first, 0), 6))
        number = draw(st.integers(1, 3))
        kind = draw(st.sampled_from(["per_day", "total"]))
        found.append(special(first, last, n=n, **{kind: number}))
    return found


@pytest.mark.unit
@given(some(), st.lists(st.integers(0, 6), max_size=6), st.integers(0, 6), st.integers(1, 3))
def test_more_periods_never_ask_for_less_and_a_visit_never_for_more(
    specials_: list[Special], visited: list[int], day: int, most: int
) -> None:
    asked = still(day, *specials_, visited=visited, most=most)
    alone = [still(day, one, visited=visited, most=most) for one in specials_]
    assert max(alone) <= asked <= sum(alone)
    assert asked <= most * (7 - day)
    after = still(day, *specials_, visited=[*visited, day], most=most)
    assert asked - 1 <= after <= asked
    if asked == 0:
        assert after == 0


@pytest.mark.unit
@pytest.mark.parametrize(
    ("day", "specials_", "visited", "expected"),
    [
        (0, [special(0, 6, total=2)], [], 2),
        (2, [special(0, 6, total=2)], [0, 1], 2),
        (4, [special(0, 6, total=2)], [0, 1, 2], 2),  # one more than asked for raises nothing
        (3, [special(3, 5, total=1)], [0, 1], 3),  # two before it, one within it
        (4, [special(3, 5, total=1)], [0, 1, 3], 3),
        (2, [special(0, 2, per_day=1)], [1], 2),  # Monday cannot be made up for
        (2, [special(0, 2, per_day=1)], [0, 0, 1], 3),
        (2, [special(0, 2, per_day=1), special(0, 6, n=2, total=3)], [0, 1], 3),
    ],
)
def test_what_the_week_asks_for_stays_while_it_is_done(
    day: int, specials_: list[Special], visited: list[int], expected: int
) -> None:
    days = [MONDAY + timedelta(days=n) for n in visited]
    assert raised_on(MONDAY + timedelta(days=day), WEEK, specials_, days, 2).required == expected


@pytest.mark.unit
def test_the_progress_of_one_period() -> None:
    days = [MONDAY, MONDAY, MONDAY + timedelta(days=1), MONDAY + timedelta(days=9)]
    assert progress(special(0, 2, per_day=1), days, 2) == Progress(3, 2)
    assert progress(special(0, 2, per_day=5), days, 2) == Progress(6, 3)
    assert progress(special(0, 2, total=3), days, 2) == Progress(3, 3)
    assert progress(special(0, 0, total=9), days, 2).required == 2


# --- in the database -------------------------------------------------------------------------------------------------


async def test_festivals_are_planned_once_and_follow_their_setting_until_they_begin(world: World) -> None:
    world.clock.now = datetime(2026, 12, 26, 2, 0, tzinfo=UTC)  # 元旦's lead days have begun
    today = date(2026, 12, 26)

    async def plan() -> int:
        async with transaction(world.sessions) as session:
            return await specials.plan_festivals(session, now=world.time(), today=today)

    async def planned() -> dict[str, Any]:
        rows = await world.rows("SELECT * FROM special_periods WHERE kind = 'festival' ORDER BY until")
        return {f"{row.festival} {row.until.year}": row for row in rows}

    assert await plan() > 0
    first = await planned()
    assert first["new_year 2027"].since == date(2026, 12, 25)
    assert first["spring_festival 2027"].name == "春节 2027"
    assert len(first) == 8  # those of 2026 are over
    assert await plan() == 0
    await world.do(
        "INSERT INTO festival_settings VALUES ('370302', '{new_year,spring_festival,qingming}', 3, 2, '{key}', 1)"
    )
    await world.do("UPDATE special_periods SET cancelled_at = now(), version = 2 WHERE festival = 'qingming'")
    await plan()
    second = await planned()
    assert {name.split()[0] for name in second} == {"new_year", "spring_festival", "qingming"}
    assert second["new_year 2027"] == first["new_year 2027"]  # it has begun
    changed = second["spring_festival 2027"]
    assert (changed.since, changed.visits_total, changed.levels) == (date(2027, 2, 3), 2, ["key"])
    assert second["qingming 2027"].since == first["qingming 2027"].since  # somebody cancelled it: it stays so
    assert await plan() == 0


LOCAL = ZoneInfo("Asia/Shanghai")


def local_day(ahead: int = 0) -> str:
    return (datetime.now(UTC).astimezone(LOCAL).date() + timedelta(days=ahead)).isoformat()


def entered(live: Live, village: str, **fields: Any) -> dict[str, Any]:
    given = {"name": "寒潮", "kind": "weather", "from": local_day(), "to": local_day(), "region_code": village}
    return live.admin.made("/special-periods", **given | {"visits_total": 1} | fields)


def due_of(live: Live, elder: dict[str, Any]) -> dict[str, Any]:
    [found] = [d for d in live.admin.items("/visits/due", region_code=elder["region_code"], limit=200)
               if d["elder"]["id"] == elder["id"]]  # fmt: skip
    return found


def visit(live: Live, elder: dict[str, Any], minutes: int) -> dict[str, Any]:
    started = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    return live.admin.made("/visits", elder_id=elder["id"], method="phone", started_at=started,
                           ended_at=(datetime.fromisoformat(started) + timedelta(minutes=2)).isoformat())  # fmt: skip


def healthy(live: Live, village: str) -> dict[str, Any]:
    return live.elder(
        village, id_number=live.id_number("19600101"), ability={"level": "intact", "assessed_on": "2020-01-01"}
    )


def test_a_period_raises_what_is_due_for_its_levels_and_its_place_and_is_proved(live: Live) -> None:
    village = live.village()
    well, frail = healthy(live, village), live.elder(village)
    elsewhere = healthy(live, live.village())
    served = visit(live, well, 10)
    period = entered(live, village, levels=["general"], visits_total=2)
    raised = due_of(live, well)
    midnight = served["started_at"][:10] != raised["special_period"]["from"] and datetime.now(LOCAL).hour == 0
    assert raised["special_period"]["id"] == period["id"]
    assert raised["special_period"]["visits_total"] == 2
    assert midnight or (raised["visits_done"], raised["visits_required"]) == (1, 2)
    for other in (frail, elsewhere):
        assert due_of(live, other)["special_period"] is None
    report = live.admin.seen(f"/special-periods/{period['id']}/completion")
    assert report["totals"] == {"people": 1, "fulfilled": 0, "unfulfilled": 1, "excused": 0}
    again = visit(live, well, 3)
    report = live.admin.seen(f"/special-periods/{period['id']}/completion")
    if not midnight:
        assert report["totals"] == {"people": 1, "fulfilled": 1, "unfulfilled": 0, "excused": 0}
        [item] = report["items"]
        assert (item["elder"]["id"], item["required"], item["done"]) == (well["id"], 2, 2)
        assert item["visit_ids"] == [served["id"], again["id"]]
        assert due_of(live, well)["visits_required"] == 2
    assert report["final"] is False
    live.admin.post(f"/visits/{again['id']}/void", json={"reason": "重复"})
    missing = live.admin.items(f"/special-periods/{period['id']}/completion", fulfilled="false")
    assert [one["elder"]["id"] for one in missing] == [well["id"]]
    live.admin.made(f"/elders/{well['id']}/statuses", status="paused", reason="away", evidence="女儿来电")
    assert due_of(live, well)["visits_required"] == due_of(live, well)["visits_done"] or due_of(live, well)["excused"]
    report = live.admin.seen(f"/special-periods/{period['id']}/completion")
    assert report["totals"]["excused"] == 1
    outside = live.user("operator", elsewhere["region_code"])
    refused(outside.get(f"/special-periods/{period['id']}/completion"), 404)


def test_a_supervisor_enters_periods_and_the_key_of_a_weather_service_enters_weather(live: Live) -> None:
    village = live.village()
    supervisor, operator = live.user("supervisor", village), live.user("operator", village)
    body = {"name": "庙会", "kind": "other", "from": local_day(1), "to": local_day(3), "region_code": village,
            "visits_per_day": 1}  # fmt: skip
    refused(operator.post("/special-periods", json=body), 403, "supervisor")
    period = supervisor.made("/special-periods", **body)
    assert (period["levels"], period["entered_by"][:10]) == (sorted(CareLevel), "supervisor")
    refused(supervisor.post("/special-periods", json=body), 409, period["id"])
    for wrong in ({"kind": "festival"}, {"to": local_day()}, {"from": local_day(-2), "to": local_day(-1)},
                  {"visits_total": 1}, {"visits_per_day": None}, {"visits_per_day": 11}, {"levels": []},
                  {"to": local_day(99)}, {"region_code": "370302999999"}, {"from": 20261210},
                  {"region_code": "370302"}):  # fmt: skip
        refused(supervisor.post("/special-periods", json={**body, "name": "另一个", **wrong}), 422)
    key = live.admin.made("/api-keys", name="气象服务", scopes=["visits:write"], region_code=village)["key"]
    service = Api(live.base, key)
    refused(service.post("/special-periods", json={**body, "name": "集市"}), 403, "weather")
    storm = service.made("/special-periods", **{**body, "name": "暴雪红色预警", "kind": "weather"})
    assert storm["entered_by"] == "气象服务"
    refused(service.post("/special-periods", json={**body, "name": "暴雪红色预警", "kind": "weather"}), 409)
    refused(service.delete(f"/special-periods/{period['id']}"), 403)
    longer = service.patch(f"/special-periods/{storm['id']}", json={"to": local_day(5), "visits_total": 2}).json()
    assert (longer["to"], longer["visits_total"], longer["visits_per_day"]) == (local_day(5), 2, None)
    refused(supervisor.patch(f"/special-periods/{storm['id']}", json={"to": local_day(-1)}), 422)
    refused(supervisor.patch(f"/special-periods/{storm['id']}", json={"name": "x"}, headers={"If-Match": '"1"'}), 412)
    assert supervisor.delete(f"/special-periods/{storm['id']}").status_code == 204
    refused(supervisor.delete(f"/special-periods/{storm['id']}"), 409)
    shown = [one["id"] for one in supervisor.items("/special-periods", region_code=village, kind="other")]
    assert shown == [period["id"]]
    assert storm["id"] in {one["id"] for one in walk(supervisor, "/special-periods", 1, cancelled="true")}
    assert storm["id"] not in {one["id"] for one in walk(supervisor, "/special-periods", 7)}
    assert period["id"] in {one["id"] for one in supervisor.items("/special-periods", on=local_day(2))}
    refused(live.user("supervisor", live.village()).get(f"/special-periods/{period['id']}"), 404)
    assert live.rows(
        "SELECT 1 FROM audit_log WHERE subject_id = $1 AND action = 'special_period.entered'", period["id"]
    )


def test_the_festivals_of_a_place(live: Live) -> None:
    village = live.village()
    plain = live.admin.seen("/festivals", year=2027)["items"]
    assert [(one["name"], one["day"]) for one in plain][:2] == [("元旦", "2027-01-01"), ("春节", "2027-02-06")]
    assert plain[0]["from"] == "2026-12-25"
    assert live.admin.seen(f"/festival-settings/{village}")["lead_days"] == 7
    supervisor = live.user("supervisor", village)
    refused(supervisor.put("/festival-settings/370302", json={}), 404, "region")
    refused(live.user("operator", village).put(f"/festival-settings/{village}", json={}), 403)
    answer = supervisor.put(f"/festival-settings/{village}", json={"lead_days": 3, "festivals": ["spring_festival"]})
    assert (answer.status_code, answer.json()["lead_days"]) == (200, 3)
    refused(supervisor.put(f"/festival-settings/{village}", json={}, headers={"If-Match": '"9"'}), 412)
    year = datetime.now(LOCAL).year + 1
    own = live.admin.seen("/festivals", year=year, region_code=village)["items"]
    assert [one["festival"] for one in own if one["from"]] == ["spring_festival"]
    periods = [one for one in live.admin.items("/special-periods", region_code=village, kind="festival", limit=200)
               if one["region_code"] == village]  # fmt: skip
    assert {one["festival"] for one in periods} == {"spring_festival"}
