"""The audit log: what is written, that nobody can unwrite it, and that whoever does is found."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.access import audit
from app.access.audit import Broken, Head
from app.access.principal import Origin, Principal
from app.access.vocabulary import Role
from app.db import _alembic, transaction
from app.embedded.postgres import EmbeddedPostgres
from tests.test_accounts import GOOD, OTHER, WRONG, account, log_in, refresh, refused
from tests.world import ADMIN, DATA_KEY, START, TOKEN_KEY, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live-2")


def entries(live: Live, subject: str) -> list[dict[str, Any]]:
    """Oldest first."""
    return live.admin.items("/audit-log", subject=subject, limit=200)[::-1]


# --- what is written -------------------------------------------------------------------------------------------------


def test_who_when_from_where_and_what_changed(live: Live) -> None:
    elder = live.elder(name="独特之名", phone="13812345678", address="金丝雀胡同77号")
    headers = {
        "User-Agent": "DutyDesk/2.0 (a window)" + "x" * 500, "X-Forwarded-For": "203.0.113.44",
        "X-Request-ID": "request-from-the-desk-1",
    }  # fmt: skip
    change = {
        "phone": "13987654321",
        "address": "别处1号",
        "name": "另一个名",
        "status": "paused",
        "tags": ["empty_nest"],
    }
    answer = live.admin.patch(f"/elders/{elder['id']}", json=change, headers=headers)
    assert answer.headers["x-request-id"] == "request-from-the-desk-1"
    enrolled, changed = entries(live, elder["id"])
    assert (enrolled["action"], changed["action"]) == ("elder.enrolled", "elder.changed")
    assert (changed["actor"]["type"], changed["actor"]["name"]) == ("user", "admin")
    assert changed["origin"]["address"] == "203.0.113.44"
    assert changed["origin"]["request_id"] == "request-from-the-desk-1"
    assert changed["origin"]["user_agent"].startswith("DutyDesk/2.0 (a window)")
    assert len(changed["origin"]["user_agent"]) == 200
    assert abs((datetime.now(UTC) - datetime.fromisoformat(changed["at"])).total_seconds()) < 30
    assert changed["region_code"] == elder["region_code"]
    assert changed["detail"]["changes"] == {
        "address": "changed", "name": "changed", "phone": "changed",
        "status": {"from": "active", "to": "paused"}, "tags": {"from": [], "to": ["empty_nest"]},
    }  # fmt: skip
    whole = json.dumps([enrolled, changed], ensure_ascii=False)
    for secret in (
        "独特之名",
        "另一个名",
        "13812345678",
        "13987654321",
        "金丝雀",
        "别处",
        elder["id_number"][-4:] + '"',
    ):
        assert secret not in whole


def test_every_request_has_an_id(live: Live) -> None:
    made = [live.anonymous.get(f"{live.base}/healthz").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    for bad in ("short", "x" * 65, "with space in it", "<script>alert(1)</script>"):
        answer = live.anonymous.get(f"{live.base}/healthz", headers={"X-Request-ID": bad})
        assert answer.headers["x-request-id"] != bad


def test_people_devices_policies_and_places_leave_their_rows(live: Live) -> None:
    village = live.village()
    elder, visitor = live.elder(village), live.visitor(village, name="李志愿")
    e = f"/elders/{elder['id']}"
    contact = live.contact(elder, "/audited")
    live.admin.patch(f"{e}/contacts/{contact['id']}", json={"phone": "13987654321", "priority": 3})
    live.admin.delete(f"{e}/contacts/{contact['id']}")
    live.admin.made(f"{e}/visitors", visitor_id=visitor["id"])
    live.admin.delete(f"{e}/visitors/{visitor['id']}")
    live.admin.patch(f"/visitors/{visitor['id']}", json={"name": "李某", "kind": "social_worker"})
    live.admin.seen(e, reveal="true", purpose="核对")
    device, other = live.device(elder), live.elder(village)
    live.admin.put(f"/devices/{device}/binding", json={"elder_id": other["id"]})
    live.admin.delete(f"/devices/{device}/binding")
    live.admin.made(f"/regions/{village}/duty", role="village_head", visitor_id=visitor["id"], **{"from": "2026-01-01"})
    policy = live.admin.made(
        "/escalation-policies", name="p", severity="minor", repeat_last_every_s=60, region_code=village,
        steps=[{"after_s": 0, "targets": ["operators"]}],
    )  # fmt: skip
    actions = [row["action"] for row in entries(live, elder["id"])]
    assert actions == [
        "elder.enrolled", "contact.added", "contact.changed", "contact.removed", "visitor.assigned", "visitor.unassigned",
        "elder.revealed",
    ]  # fmt: skip
    changed = entries(live, elder["id"])[2]["detail"]
    assert changed["changes"] == {"phone": "changed", "priority": {"from": 1, "to": 3}}
    bound = entries(live, device)
    assert [row["action"] for row in bound] == ["device.registered", "device.bound", "device.bound", "device.unbound"]
    assert bound[2]["detail"]["changes"]["elder_id"] == {"from": elder["id"], "to": other["id"]}
    assert bound[3]["detail"]["changes"]["elder_id"] == {"from": other["id"], "to": None}
    assert [row["action"] for row in entries(live, village)] == ["region.added", "duty.given"]
    assert [row["action"] for row in entries(live, visitor["id"])] == ["visitor.added", "visitor.changed"]
    assert entries(live, visitor["id"])[1]["detail"]["changes"]["name"] == "changed"
    assert [row["action"] for row in entries(live, policy["id"])] == ["policy.added"]
    auditor = live.user("auditor", village)
    seen = auditor.items("/audit-log", limit=200)
    assert {row["number"] for row in seen} >= {row["number"] for row in entries(live, elder["id"])}


def test_log_ins_and_accounts_leave_their_rows_and_no_password_does(live: Live) -> None:
    user = account(live)
    tokens = log_in(live, user["username"], GOOD, **{"X-Forwarded-For": "203.0.113.9"}).json()
    assert log_in(live, user["username"], WRONG).status_code == 401
    refresh(live, tokens["refresh_token"])
    live.admin.patch(f"/users/{user['id']}", json={"role": "supervisor"})
    live.admin.post(f"/users/{user['id']}/password", json={"password": OTHER})
    live.admin.post(f"/users/{user['id']}/revoke-tokens")
    live.admin.patch(f"/users/{user['id']}", json={"active": False})
    assert log_in(live, user["username"], OTHER).status_code == 401
    rows = entries(live, user["id"])
    assert [row["action"] for row in rows] == [
        "user.created", "login.succeeded", "login.failed", "user.changed", "user.password_reset", "user.tokens_revoked",
        "user.changed", "login.failed",
    ]  # fmt: skip
    assert rows[1]["origin"]["address"] == "203.0.113.9"
    assert rows[2]["actor"] == {"type": "anonymous", "id": None, "name": None}
    assert rows[3]["detail"]["changes"] == {"role": {"from": "operator", "to": "supervisor"}}
    assert rows[4]["detail"]["changes"] == {"password": "changed"}
    assert rows[6]["detail"]["changes"] == {"active": {"from": True, "to": False}}
    mistyped = f"my-password-in-the-wrong-field-{uuid4().hex}"
    log_in(live, mistyped[:64], "x", **{"X-Forwarded-For": "203.0.113.10"})
    log_in(live, mistyped[:64], "x", **{"X-Forwarded-For": "203.0.113.10"})
    one, two = live.admin.items("/audit-log", action="login.failed", subject="unknown", limit=2)
    assert one["detail"]["tried"] == two["detail"]["tried"]  # the same again, whatever it was
    whole = str(live.rows("SELECT t::text FROM audit_log t"))
    for secret in (GOOD, OTHER, WRONG, mistyped[:64], tokens["refresh_token"], tokens["access_token"]):
        assert secret not in whole


def test_keys_leave_their_rows(live: Live) -> None:
    key = live.admin.made("/api-keys", name="屏", scopes=["stats:read"], region_code="370302")
    live.admin.patch(f"/api-keys/{key['id']}", json={"name": "屏二"})
    live.admin.delete(f"/api-keys/{key['id']}")
    rows = entries(live, key["id"])
    assert [row["action"] for row in rows] == ["api_key.made", "api_key.changed", "api_key.revoked"]
    assert rows[1]["detail"]["changes"] == {"name": {"from": "屏", "to": "屏二"}}


def test_what_did_not_happen_is_not_written(live: Live) -> None:
    elder = live.elder()
    before = len(entries(live, elder["id"]))
    refused(live.admin.patch(f"/elders/{elder['id']}", json={"status": None}), 422)
    refused(live.admin.patch(f"/elders/{elder['id']}", json={"status": "paused"}, headers={"If-Match": '"99"'}), 412)
    refused(live.user("operator", elder["region_code"]).get(f"/elders/{elder['id']}?reveal=true&purpose=check"), 403)
    assert len(entries(live, elder["id"])) == before


# --- who reads it ----------------------------------------------------------------------------------------------------


def test_an_auditor_reads_their_region_only(live: Live) -> None:
    mine, foreign = live.elder(), live.elder(live.village("370302002000"))
    auditor = live.user("auditor", mine["region_code"])
    live.admin.seen(f"/elders/{mine['id']}", reveal="true", purpose="核对")
    live.admin.seen(f"/elders/{foreign['id']}", reveal="true", purpose="核对")
    log_in(live, f"nobody-{uuid4().hex[:8]}", WRONG, **{"X-Forwarded-For": "203.0.113.11"})
    rows = auditor.items("/audit-log", limit=200)
    assert {mine["region_code"]} == {row["region_code"] for row in rows}
    assert mine["id"] in {row["subject_id"] for row in rows}
    assert auditor.items("/audit-log", subject=foreign["id"]) == []
    assert live.user("auditor", "").items("/audit-log", subject=foreign["id"])
    for role in ("supervisor", "operator", "visitor"):
        refused(live.user(role, mine["region_code"]).get("/audit-log"), 403)
    for method in ("POST", "PATCH", "DELETE", "PUT"):
        refused(live.admin.request(method, "/audit-log"), 405)


def test_filters_and_pages(live: Live) -> None:
    elder = live.elder()
    began = datetime.now(UTC)
    for dementia in (True, False, True, False):
        live.admin.patch(f"/elders/{elder['id']}", json={"dementia": dementia})
    wanted = {"subject": elder["id"], "action": "elder.changed"}
    rows = live.admin.items("/audit-log", **wanted)
    numbers = [row["number"] for row in rows]
    assert len(numbers) == 4
    assert numbers == sorted(numbers, reverse=True)
    walked, cursor = [], None
    while True:
        page = live.admin.seen("/audit-log", **wanted, limit=3, **({"cursor": cursor} if cursor else {}))
        walked += [row["number"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert walked == numbers
    assert len(live.admin.items("/audit-log", subject=elder["id"], action="elder")) == 5  # all of the elder's kind
    assert live.admin.items("/audit-log", subject=elder["id"], action="eld") == []
    me = live.admin.seen("/me")["id"]
    assert len(live.admin.items("/audit-log", **wanted, actor=me)) == 4
    assert len(live.admin.items("/audit-log", **wanted, actor="admin")) == 4
    assert live.admin.items("/audit-log", **wanted, actor="somebody") == []
    assert len(live.admin.items("/audit-log", **{**wanted, "from": began.isoformat()})) == 4
    assert live.admin.items("/audit-log", **{**wanted, "to": began.isoformat()}) == []
    assert live.admin.items("/audit-log", **wanted, subject_type="visitor") == []
    refused(live.admin.get("/audit-log", params={"from": "yesterday"}), 422, "from")
    refused(live.admin.get("/audit-log", params={"cursor": "WyIxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMyJd"}), 422, "cursor")


# --- nobody unwrites it ----------------------------------------------------------------------------------------------


async def write(world: World, count: int = 1, **more: Any) -> None:
    for _ in range(count):
        async with transaction(world.sessions) as session:
            audit.note(
                session, ADMIN, action="elder.changed", subject_type="elder", subject_id=uuid4(), now=world.time(),
                **{"region_code": "370302001001", "changes": {"phone": "changed"}, **more},
            )  # fmt: skip


async def verdict(world: World, *noted: Head) -> Head | Broken:
    async with transaction(world.sessions) as session:
        return await audit.verify(session, noted=noted)


async def tamper(world: World, *statements: str) -> None:
    """As somebody who owns the database: without the triggers."""
    async with transaction(world.sessions) as session:
        await session.execute(sa.text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            await session.execute(sa.text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET action = 'x' WHERE id = 1", "UPDATE audit_log SET action = action", "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE false", "TRUNCATE audit_log", "TRUNCATE audit_log, audit_head", "DELETE FROM audit_head",
    ],
)  # fmt: skip
async def test_the_database_refuses_to_change_a_row(world: World, statement: str) -> None:
    await write(world, 2)
    with pytest.raises(DBAPIError, match="append-only: its rows are never changed or removed"):
        await world.do(statement)
    assert isinstance(await verdict(world), Head)


async def test_a_whole_log_is_whole(world: World) -> None:
    assert await verdict(world) == Head(0, audit._BEGINNING)
    await write(world, 5, note='引号" 换行\n 和 \\ 反斜杠 é 😀', number=1.5, nothing=None)
    head = await verdict(world)
    assert isinstance(head, Head)
    assert head.rows == 5
    assert Head.read(str(head)) == head
    async with transaction(world.sessions) as session:
        await session.execute(sa.text("SET timezone = 'Asia/Shanghai'"))  # whatever the session thinks of time
        audit.note(session, ADMIN, action="a.b", subject_type="x", subject_id=1, now=START + timedelta(microseconds=7))
    assert isinstance(await verdict(world, head), Head)


_FORGED = (
    "INSERT INTO audit_log (id, at, actor, action, subject_type, subject_id, detail, previous_hash, hash) "
    "SELECT {id}, at, actor, 'forged', subject_type, subject_id, detail, {before}, {hash} FROM audit_log WHERE id = 1"
)
_AT_THE_END = _FORGED.format(id=7, before="(SELECT hash FROM audit_log WHERE id = 6)", hash="sha256('x')")
_IN_THE_MIDDLE = _FORGED.format(id=4, before="(SELECT hash FROM audit_log WHERE id = 3)", hash="sha256('x')")
_REHASH = """
    DO $$ DECLARE r record; last bytea; BEGIN
        SELECT hash INTO last FROM audit_log WHERE id = 2;
        FOR r IN SELECT * FROM audit_log WHERE id > 2 ORDER BY id LOOP
            UPDATE audit_log a SET previous_hash = last, hash = sha256(last || convert_to(jsonb_build_array(a.id, a.at,
                a.actor, a.action, a.subject_type, a.subject_id, a.region_code, a.detail, a.origin)::text, 'UTF8'))
            WHERE id = r.id RETURNING hash INTO last;
        END LOOP;
        UPDATE audit_head SET hash = last;
    END $$
"""


@pytest.mark.parametrize(
    ("what", "row", "statements"),
    [
        ("altered action", 3, ["UPDATE audit_log SET action = 'x' WHERE id = 3"]),
        ("altered time", 3, ["UPDATE audit_log SET at = at + interval '1 microsecond' WHERE id = 3"]),
        ("altered actor", 4, ["UPDATE audit_log SET actor = '{\"type\": \"user\", \"name\": \"x\"}' WHERE id = 4"]),
        ("altered detail", 1, ["UPDATE audit_log SET detail = '{}' WHERE id = 1"]),
        ("altered origin", 2, ["UPDATE audit_log SET origin = '{\"address\": \"1.2.3.4\"}' WHERE id = 2"]),
        ("altered region", 2, ["UPDATE audit_log SET region_code = NULL WHERE id = 2"]),
        ("altered hash", 5, ["UPDATE audit_log SET hash = sha256('x') WHERE id = 5"]),
        ("altered last", 6, ["UPDATE audit_log SET subject_id = 'x' WHERE id = 6"]),
        ("removed first", 1, ["DELETE FROM audit_log WHERE id = 1"]),
        ("removed middle", 4, ["DELETE FROM audit_log WHERE id = 4"]),
        ("removed and closed up", 4, ["DELETE FROM audit_log WHERE id = 4", "UPDATE audit_log SET id = id - 1 WHERE id = 5",
                                      "UPDATE audit_log SET id = id - 1 WHERE id = 6"]),
        ("cut off", 6, ["DELETE FROM audit_log WHERE id = 6"]),
        ("cut off long", 3, ["DELETE FROM audit_log WHERE id > 2"]),
        ("emptied", 1, ["DELETE FROM audit_log"]),
        ("head removed", 7, ["DELETE FROM audit_head"]),
        ("inserted at the end", 7, [_AT_THE_END]),
        ("inserted in the middle", 4, ["UPDATE audit_log SET id = 7 WHERE id = 6", "UPDATE audit_log SET id = 6 WHERE id = 5",
                                       "UPDATE audit_log SET id = 5 WHERE id = 4",
                                       _IN_THE_MIDDLE]),
        ("exchanged", 3, ["UPDATE audit_log SET id = 100 WHERE id = 3", "UPDATE audit_log SET id = 3 WHERE id = 4",
                          "UPDATE audit_log SET id = 4 WHERE id = 100"]),
    ],
)  # fmt: skip
async def test_what_was_done_behind_its_back_is_found(world: World, what: str, row: int, statements: list[str]) -> None:
    await write(world, 6)
    await tamper(world, *statements)
    found = await verdict(world)
    assert isinstance(found, Broken), what
    assert found.row == row, (what, found)


async def test_a_log_rewritten_as_a_whole_does_not_fit_the_head_that_was_noted_outside(world: World) -> None:
    await write(world, 4)
    noted = await verdict(world)
    assert isinstance(noted, Head)
    await write(world, 2)
    assert isinstance(await verdict(world, noted), Head)
    await tamper(world, "UPDATE audit_log SET action = 'x' WHERE id = 3", _REHASH)
    assert isinstance(await verdict(world), Head)  # the chain alone cannot know
    found = await verdict(world, noted)
    assert isinstance(found, Broken)
    assert found.row == 4
    await tamper(
        world, "DELETE FROM audit_log WHERE id > 3",
        "UPDATE audit_head SET rows = 3, hash = (SELECT hash FROM audit_log WHERE id = 3)",
    )  # fmt: skip
    assert isinstance(await verdict(world), Head)
    found = await verdict(world, noted)
    assert isinstance(found, Broken)
    assert found.row == 4


async def test_writers_side_by_side_make_one_chain_without_a_gap(world: World) -> None:
    async def writer(number: int) -> None:
        for turn in range(5):
            try:
                async with transaction(world.sessions) as session:
                    for _ in range(number % 3 + 1):
                        audit.note(
                            session,
                            ADMIN,
                            action="x.y",
                            subject_type="x",
                            subject_id=number,
                            now=world.time(),
                            turn=turn,
                        )
                    await session.execute(sa.text("SELECT pg_sleep(:s)"), {"s": random.random() / 50})
                    if turn == 3:
                        raise ValueError("changed its mind")
            except ValueError:
                pass

    await asyncio.gather(*(writer(n) for n in range(12)))
    expected = sum((n % 3 + 1) * 4 for n in range(12))
    head = await verdict(world)
    assert isinstance(head, Head), head
    assert head.rows == expected
    assert await world.value("SELECT max(id) FROM audit_log") == expected


async def test_a_slow_request_does_not_make_the_others_wait(world: World) -> None:
    """The chain is taken at the end of a transaction, not when the deed is noted."""
    noted, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with transaction(world.sessions) as session:
            audit.note(session, ADMIN, action="slow.deed", subject_type="x", subject_id=1, now=world.time())
            await session.execute(sa.text("SELECT 1"))
            noted.set()
            await may_end.wait()

    task = asyncio.create_task(slow())
    await noted.wait()
    async with asyncio.timeout(5):
        await write(world, 3)
    may_end.set()
    await task
    rows = await world.rows("SELECT action FROM audit_log ORDER BY id")
    assert [row.action for row in rows][-1] == "slow.deed"
    assert isinstance(await verdict(world), Head)


async def test_rows_without_a_region_belong_to_those_who_see_everything(world: World) -> None:
    async with transaction(world.sessions) as session:
        audit.write(
            session, audit.NOBODY, action="login.failed", subject_type="user", subject_id="unknown", now=world.time(),
            origin=Origin("192.0.2.1", "curl", "r-1"),
        )  # fmt: skip
    async with world.sessions() as session:
        for region, seen in (("", 1), ("370302", 0)):
            auditor = Principal(uuid4(), "a", Role.AUDITOR, region, None)
            assert len(await audit.entries(session, auditor, limit=10)) == seen


@pytest.mark.unit
def test_changes_show_plain_fields_and_hide_the_others() -> None:
    before = {"status": "active", "tags": ["a"], "phone": "1"}
    after = {"status": "paused", "tags": ["a"], "phone": "2", "address": None}
    assert audit.changes(before, after, plain=("status", "tags")) == {
        "status": {"from": "active", "to": "paused"}, "phone": "changed", "address": "changed",
    }  # fmt: skip


async def test_a_log_from_before_the_chain_is_chained_by_the_migration(postgres: EmbeddedPostgres) -> None:
    """With the gaps that rolled back requests left in its numbers; and back again."""
    name = f"before_{os.getpid()}"
    maker = await asyncpg.connect(host=make_url(postgres.url()).query["host"], user="postgres", database="postgres")
    await maker.execute(f"CREATE DATABASE {name}")
    world = World(postgres.url(name))
    config = _alembic(world.url)
    try:
        await asyncio.to_thread(command.upgrade, config, "0001")
        for number in (2, 3, 7):
            await world.do(
                "INSERT INTO audit_log (id, at, actor, action, subject_type, subject_id, detail) OVERRIDING SYSTEM VALUE "
                "VALUES (:id, now(), '{\"type\": \"user\"}', 'old.deed', 'elder', 'x', '{\"a\": 1}')",
                id=number,
            )
        await world.do(
            "INSERT INTO users (id, username, password_hash, role, region_code, active, created_at, version) "
            "VALUES (gen_random_uuid(), 'v', 'x', 'visitor', '', true, now(), 1)"
        )
        await asyncio.to_thread(command.upgrade, config, "0002")
        head = await verdict(world)
        assert isinstance(head, Head)
        assert head.rows == 3
        assert await world.value("SELECT active FROM users WHERE username = 'v'") is False
        await write(world, 1)
        assert isinstance(await verdict(world, head), Head)
        await asyncio.to_thread(command.downgrade, config, "0001")
        assert await world.value("SELECT count(*) FROM audit_log") == 4
    finally:
        await world.close()
        await maker.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await maker.close()


# --- the command line ------------------------------------------------------------------------------------------------


KEYS = {
    "SHOUWANG_DATA_KEY": base64.b64encode(DATA_KEY).decode(), "SHOUWANG_TOKEN_KEY": base64.b64encode(TOKEN_KEY).decode(),
}  # fmt: skip


def shouwang(world: World, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("SHOUWANG_")}
    environment |= {"SHOUWANG_DATABASE_URL": world.url, "SHOUWANG_MQTT_URL": "mqtt://127.0.0.1:1"} | settings
    script = str(Path(sys.executable).with_name("shouwang"))
    return subprocess.run(
        [script, *arguments], env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


async def run(world: World, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(
            pool, lambda: shouwang(world, *arguments, stdin=stdin, **settings)
        )


async def test_verify_audit_prints_the_head_or_the_row_and_exits_with_1(world: World) -> None:
    await write(world, 4)
    good = await run(world, "verify-audit")
    assert good.returncode == 0, good.stderr
    head = next(line.split()[1] for line in good.stdout.splitlines() if line.startswith("head "))
    await write(world, 1)
    assert (await run(world, "verify-audit", "--head", head)).returncode == 0
    assert (await run(world, "verify-audit", "--head", "rubbish")).returncode == 2
    other = head[:-1] + ("0" if head[-1] != "0" else "1")
    wrong = await run(world, "verify-audit", "--head", other)
    assert (wrong.returncode, "row 4" in wrong.stdout) == (1, True)
    await tamper(world, "UPDATE audit_log SET action = 'x' WHERE id = 2")
    bad = await run(world, "verify-audit")
    assert bad.returncode == 1
    assert "row 2" in bad.stdout
    assert "altered" in bad.stdout


async def test_create_user_takes_the_password_from_standard_input_and_is_audited(world: World) -> None:
    visitor = await world.visitor("李志愿")
    made = await run(
        world, "create-user", "auditor-1", "--role", "auditor", "--region", "370302001000", stdin=GOOD + "\n"
    )
    assert made.returncode == 0, made.stderr
    weak = await run(world, "create-user", "weak", stdin="password123\n")
    assert (weak.returncode, "guessed first" in weak.stderr) == (1, True)
    taken = await run(world, "create-user", "AUDITOR-1", stdin=GOOD + "\n")
    assert "exists" in taken.stderr
    alone = await run(world, "create-user", "v-1", "--role", "visitor", stdin=GOOD + "\n")
    assert "visitor" in alone.stderr
    assert alone.returncode == 1
    nobody = await run(world, "create-user", "v-1", "--role", "visitor", "--visitor", str(uuid4()), stdin=GOOD + "\n")
    assert "no such visitor" in nobody.stderr
    good = await run(world, "create-user", "v-1", "--role", "visitor", "--visitor", str(visitor.id), stdin=GOOD + "\n")
    assert good.returncode == 0, good.stderr
    assert GOOD not in made.stdout + made.stderr + good.stdout
    rows = await world.rows("SELECT actor, action, detail FROM audit_log ORDER BY id")
    assert [row.action for row in rows] == ["user.created"] * 2
    assert rows[0].actor == {"type": "console", "name": "shouwang create-user"}
    assert rows[0].detail["scope"] == "370302001"
    assert await world.value("SELECT region_code FROM users WHERE username = 'auditor-1'") == "370302001"
    changed = await run(world, "set-password", "auditor-1", stdin=OTHER + "\n")
    assert changed.returncode == 0, changed.stderr
    assert await world.value("SELECT token_generation FROM users WHERE username = 'auditor-1'") == 1


async def test_a_guessable_password_of_the_first_administrator_is_a_refusal_that_names_the_setting(
    world: World,
) -> None:
    told = await run(world, "serve", "--roles", "api", SHOUWANG_ADMIN_PASSWORD="password123", **KEYS)
    assert told.returncode == 1
    assert told.stderr.startswith("shouwang: SHOUWANG_ADMIN_PASSWORD: ")
    assert "guessed first" in told.stderr
    assert "password123" not in told.stderr
    assert await world.value("SELECT count(*) FROM users") == 0
