"""A ledger that can be believed: what was changed past it is found, and entries to look at are shown. All people are invented."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from app.db import transaction
from app.devices.vocabulary import DeviceKind
from app.visits import chain, examining
from app.visits.examining import Group
from tests.test_coverage import change, home_consent, on, visit
from tests.test_visits import ago
from tests.world import TZ, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]


async def look(world: World, *noted: chain.Head) -> chain.Whole | list[chain.Broken]:
    async with transaction(world.sessions) as session:
        return await chain.verify(session, noted=noted)


async def broken(world: World, *noted: chain.Head) -> list[str]:
    found = await look(world, *noted)
    assert not isinstance(found, chain.Whole), found
    return [str(one) for one in found]


async def sealed(world: World) -> chain.Head | None:
    async with transaction(world.sessions) as session:
        return await chain.seal(session, world.time())


async def test_the_chain_follows_the_ledger_and_finds_what_went_past_it(world: World) -> None:
    first, second = await world.elders(["甲", "乙"])
    await home_consent(world, first)
    one = await visit(world, first, on(date(2026, 11, 3)))
    same = await visit(world, first, on(date(2026, 11, 3)))  # counted with the first
    two = await visit(world, second, on(date(2026, 11, 4)))
    await change(world, one, "void")  # and so the other counts: a line in the chain too
    await change(world, two, "move", to=on(date(2026, 11, 5)))
    whole = await look(world)
    assert isinstance(whole, chain.Whole)
    # three entries; voided with its version, counted instead; corrected with its version
    assert (whole.visits, whole.links) == (3, 3 + 2 + 1 + 2)
    head = await sealed(world)
    assert head is not None
    assert (head.seals, await sealed(world), chain.Head.read(str(head))) == (1, None, head)
    assert isinstance(await look(world, head), chain.Whole)

    async def tampered(*statements: str) -> list[str]:
        """What is found after these statements; then all is as before."""
        async with world.sessions() as session:
            for statement in statements:
                await session.execute(sa.text(statement), {"one": one, "two": two} if ":" in statement else {})
            await session.commit()
        return await broken(world, head)

    await world.do("CREATE TABLE kept AS SELECT * FROM visits")
    back = (
        "UPDATE visits v SET note = k.note, qualifying = k.qualifying, started_at = k.started_at, "
        "non_qualifying_code = k.non_qualifying_code FROM kept k WHERE k.id = v.id"
    )
    for statement in (
        f"UPDATE visits SET note = '好' WHERE id = '{two}'",
        f"UPDATE visits SET started_at = started_at - interval '1 day' WHERE id = '{two}'",
        f"UPDATE visits SET qualifying = false, non_qualifying_code = 'consent' WHERE id = '{same}'",
    ):
        (found,) = await tampered(statement)
        assert (
            found
            == f"visit {same if 'qualifying' in statement else two}: it was altered past the ledger: it is not as its chain says"
        )
        await world.do(back)
    (found,) = await tampered("UPDATE visit_versions SET reason = 'x' WHERE visit_id = :two")
    assert found.startswith(f"kept version 1 of visit {two}: it was altered")
    await world.do("UPDATE visit_versions SET reason = '核对后更正' WHERE visit_id = :id", id=two)
    (found,) = await tampered(f"INSERT INTO visits SELECT (v).* FROM (SELECT jsonb_populate_record(v, "
                              f"'{{\"id\": \"{UUID(int=5)}\"}}') AS v FROM visits v WHERE v.id = '{two}') x")  # fmt: skip
    assert found == f"visit {UUID(int=5)}: it was inserted past the ledger: no chain has it"
    await world.do("DELETE FROM visits WHERE id = :id", id=UUID(int=5))
    assert isinstance(await look(world, head), chain.Whole)

    # The entry is taken away together with its own lines: the lines after, the head and the seal do not fit.
    await world.do("DELETE FROM ledger_examinations")
    found = await tampered(
        f"DELETE FROM visit_versions WHERE visit_id = '{two}'", f"DELETE FROM visits WHERE id = '{two}'",
        f"DELETE FROM ledger_chain WHERE visit_id = '{two}'",
    )  # fmt: skip
    assert [one for one in found if str(second.id) in one and "were removed" in one]
    # Even with the whole chain and its head gone, the seal remembers.
    found = await tampered(f"DELETE FROM ledger_heads WHERE elder_id = '{second.id}'")
    assert any(str(second.id) in one and "were removed" in one for one in found)
    # And with the seal rewritten too, whoever noted its hash does.
    async with transaction(world.sessions) as session:
        for table in ("ledger_seal_heads", "ledger_seals"):
            await session.execute(sa.text(f"DELETE FROM {table}"))
        await session.execute(sa.text("UPDATE ledger_heads SET sealed = 0"))
    await sealed(world)
    assert isinstance(await look(world), chain.Whole)
    (found_,) = await broken(world, head)
    assert "not the one that was noted" in found_


async def test_a_bulk_of_visits_in_one_transaction_and_two_elders_at_once(world: World) -> None:
    people = await world.elders([f"老人{n}" for n in range(3)])
    for n in range(4):
        for who in people:
            await visit(world, who, on(date(2026, 11, 1 + n)))
    found = await look(world)
    assert isinstance(found, chain.Whole)
    assert found.visits == 12
    await world.do("UPDATE ledger_chain SET version = 9 WHERE elder_id = :id AND seq = 2", id=people[0].id)
    assert any("line 2: it was altered" in one for one in await broken(world))


async def test_doors_ask_and_corroborate_and_a_review_is_the_end_of_it(world: World) -> None:
    elder = await world.elder()
    await home_consent(world, elder)
    door = await world.device(elder, "door-7", kind=DeviceKind.DOOR_SENSOR)
    start = world.time()
    world.clock.now = start + timedelta(hours=1)
    await world.message(door, {"type": "door", "state": "open", "id": "1"})
    world.clock.now = start + timedelta(hours=12)
    quiet = await visit(world, elder, start + timedelta(hours=8))
    seen = await visit(world, elder, start + timedelta(minutes=50))
    month = date(2026, 11, 1)

    async def examine() -> list[Any]:
        async with transaction(world.sessions) as session:
            groups = await examining.groups_of(session, "370302", month, tz=TZ, most=100)
            await examining.look(session, groups, now=world.time(), tz=TZ)
        return list(await world.rows("SELECT * FROM ledger_checks ORDER BY id"))

    (check,) = await examine()
    assert (check.kind, check.visit_id, check.state) == ("no_door_event", quiet, "open")
    assert seen != quiet
    async with world.sessions() as session:
        rows = (await session.execute(sa.text("SELECT * FROM visits"))).all()
        doors = await examining.door_evidence(session, rows)
    assert {one.evidence.value for one in doors.values()} == {"seen", "not_seen"}
    assert doors[seen].first_at == start + timedelta(hours=1)
    # A door event that comes late takes the question back.
    when = (start + timedelta(hours=8, minutes=5)).isoformat()
    await world.message(door, {"type": "door", "state": "open", "id": "2", "ts": when})
    (check,) = await examine()
    assert check.state == "withdrawn"
    # Reviewed once, it does not come again.
    await world.do("DELETE FROM device_events WHERE event_id = '2'")
    await examine()
    await world.do(
        "UPDATE ledger_checks SET state = 'reviewed', outcome = 'explained', reviewed_at = now(), reviewed_by = '{}'"
    )
    (check,) = await examine()
    assert check.state == "reviewed"
    # The queue looks by itself, each entry twice; nothing is looked at for ever.
    await world.do("UPDATE ledger_examinations SET due_at = :now", now=world.time())
    assert await world.value("SELECT count(*) FROM ledger_examinations") == 4
    async with transaction(world.sessions) as session:
        assert await examining.take_due(session, now=world.time(), tz=TZ) == 2
        assert await examining.take_due(session, now=world.time(), tz=TZ) == 0
        assert Group(None, month, quiet).key == f"visit:{quiet}"


# --- as a front end meets it -----------------------------------------------------------------------------------------


@pytest.mark.xdist_group("live")
def test_checks_and_samples_over_the_api(live: Live) -> None:
    village = live.village("370302002000")
    elders = [live.elder(village) for _ in range(3)]
    visitor = live.visitor(village)
    note = "老人身体状况良好,情绪稳定,家中安全"
    today = datetime.now(TZ)
    month = f"{today:%Y-%m}"
    made = [
        live.admin.made(
            "/visits", elder_id=elder["id"], visitor_id=visitor["id"], method="home", note=note, started_at=ago(2),
            ended_at=ago(1),
        )
        for elder in elders
    ]  # fmt: skip
    supervisor, auditor = live.user("supervisor", village[:9]), live.user("auditor", village[:9])
    month = f"{datetime.fromisoformat(made[0]['started_at']).astimezone(TZ):%Y-%m}"
    ran = supervisor.post("/ledger-checks/run", json={"month": month, "region_code": village})
    assert (ran.status_code, ran.json()["groups"]) == (200, 1)
    found = auditor.items("/ledger-checks", region_code=village, month=month)
    assert sorted({one["kind"] for one in found}) == ["cloned_text", "overlapping"]
    assert {one["visitor_id"] for one in found} == {visitor["id"]}
    (cloned,) = [one for one in found if one["kind"] == "cloned_text"]
    assert "3条" in cloned["because"]
    assert (
        auditor.post(f"/ledger-checks/{cloned['id']}/review", json={"outcome": "explained", "note": "x"}).status_code
        == 403
    )
    assert live.user("operator", village[:9]).get("/ledger-checks").status_code == 403
    assert live.user("visitor", village).get("/ledger-checks").status_code == 403
    body = {"outcome": "not_genuine", "note": "三条记录文字相同,已约谈"}
    reviewed = supervisor.post(f"/ledger-checks/{cloned['id']}/review", json=body)
    assert (reviewed.status_code, reviewed.json()["state"]) == (200, "reviewed")
    assert supervisor.post(f"/ledger-checks/{cloned['id']}/review", json=body).status_code == 409
    assert live.rows("SELECT 1 FROM audit_log WHERE action = 'ledger_check.reviewed' AND subject_id = $1", cloned["id"])
    supervisor.post("/ledger-checks/run", json={"month": month, "region_code": village})
    states = {one["id"]: one["state"] for one in auditor.items("/ledger-checks", region_code=village)}
    assert states[cloned["id"]] == "reviewed"
    assert list(states.values()).count("open") == len(found) - 1
    # Nothing was punished: the entries are as they were.
    assert all(live.admin.seen(f"/visits/{one['id']}")["qualifying"] == one["qualifying"] for one in made)
    assert live.admin.seen(f"/visits/{made[0]['id']}")["door"] == {
        "evidence": "no_sensor",
        "events": 0,
        "first_at": None,
    }
    stranger = live.user("supervisor", "370302004")  # nobody else's stories are there
    assert stranger.items("/ledger-checks") == []
    assert stranger.get(f"/ledger-checks/{cloned['id']}").status_code == 404
    # A sample that anybody can draw again.
    wanted = {
        "month": month,
        "region_code": village,
        "size": 2,
        "public_seed": "福彩3D 5 0 7",
        "seed_source": "中国福利彩票官网",
    }
    sample = supervisor.made("/ledger-samples", **wanted)
    assert (sample["population"], len(sample["visits"]), sample["reproducible"]) == (3, 2, True)
    assert supervisor.post("/ledger-samples", json=wanted).status_code == 409
    assert stranger.post("/ledger-samples", json=wanted).status_code == 422
    assert auditor.post("/ledger-samples", json=wanted).status_code == 403
    again = auditor.seen(f"/ledger-samples/{sample['id']}")
    assert [one["visit_id"] for one in again["visits"]] == [one["visit_id"] for one in sample["visits"]]
    assert auditor.items("/ledger-samples")[0]["id"] == sample["id"]
    assert (
        live.admin.put(f"/regions/{village}/position", json={"latitude": 36.6, "longitude": 117.9}).json()["latitude"]
        == 36.6
    )
    assert (
        live.admin.put(f"/regions/{village}/position", json={"latitude": 96.6, "longitude": 117.9}).status_code == 422
    )
