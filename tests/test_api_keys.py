"""Keys of front ends: what each may, how far it sees, and how it ends."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import requests
from sqlalchemy.exc import DBAPIError

from app.access import keys
from app.access.principal import Principal
from app.access.vocabulary import KeyScope, Right, Role
from app.db import transaction
from app.errors import InvalidInput, NotLoggedIn
from tests.test_accounts import NOBODY, ends_within, raw_stream, refused
from tests.world import START, World

if TYPE_CHECKING:
    from tests.live import Api, Live

pytest_plugins = ["tests.live"]
pytestmark = pytest.mark.xdist_group("live")
ALL = [scope.value for scope in KeyScope]


def made(live: Live, *scopes: str, region: str = "370302", **more: Any) -> dict[str, Any]:
    body = {"name": "大屏", "scopes": list(scopes), "region_code": region, **more}
    return live.admin.made("/api-keys", **body)


def caller(live: Live, key: dict[str, Any]) -> Api:
    return type(live.admin)(live.base, key["key"])


def test_a_key_is_shown_once_and_kept_as_a_hash(live: Live) -> None:
    key = made(live, "alarms:read", "elders:read")
    assert key["key"].startswith("sw_")
    assert len(key["key"]) > 70
    assert key["scopes"] == ["elders:read", "alarms:read"]
    listed = next(k for k in live.admin.items("/api-keys", limit=200) if k["id"] == key["id"])
    one = live.admin.seen(f"/api-keys/{key['id']}")
    assert listed == one == {name: value for name, value in key.items() if name != "key"}
    secret = key["key"].rpartition("_")[2]
    for table in ("api_keys", "audit_log"):
        for (row,) in live.rows(f"SELECT t::text FROM {table} t"):
            assert secret not in row
    assert key["key"] not in live.log.read_text()
    me = caller(live, key).seen("/me")
    assert (me["type"], me["username"], me["role"], me["id"]) == ("api_key", "大屏", None, key["id"])
    assert set(me["rights"]) == {"elders:read", "alarms:read", "self:read", "places:read"}


# Their description names the second right: a key of one scope never comes in.
TWO_RIGHTS = {"/api/v1/stats/coverage/elders"}


def test_a_key_may_what_its_scopes_say_and_nothing_else(live: Live) -> None:
    """Every operation of the document, with a key of each single scope: 403 exactly where another right is named."""
    document = live.anonymous.get(f"{live.base}/openapi.json").json()
    single = {scope: caller(live, made(live, scope)) for scope in ALL}
    asked = 0
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "HTTPBearer" not in str(operation.get("security")) or path.endswith("/stream"):
                continue
            right = operation["security"][0]["HTTPBearer"][0]
            url = live.base + re.sub(r"\{(region_)?code\}", "370302001000", path).replace(
                "{device_id}", "no-such-device"
            )
            url = re.sub(r"\{\w+_id\}", NOBODY, url.replace("{name}", "no-such-profile"))
            assert "{" not in url, f"{path}: tell this test how to fill it"
            for scope, api in single.items():
                answer = api.request(method.upper(), url, json={})
                allowed = right in (scope, "self:read", "places:read") and path not in TWO_RIGHTS
                assert (answer.status_code != 403) is allowed, f"{method} {path} with {scope}: {answer.status_code}"
                if not allowed:
                    refused(answer, 403, "API key"), f"{method} {path}"
                    assert right in answer.json()["detail"] or path in TWO_RIGHTS, f"{method} {path}: {answer.json()}"
                asked += 1
    assert asked > 400


@pytest.mark.parametrize("scope", ["accounts", "audit:read", "policies:write", "regions:write", "api_keys", "*", ""])
def test_other_scopes_do_not_exist(live: Live, scope: str) -> None:
    body = {"name": "x", "scopes": ["elders:read", scope], "region_code": "370302"}
    refused(live.admin.post("/api-keys", json=body), 422, "scopes")
    refused(live.admin.post("/api-keys", json={**body, "scopes": []}), 422, "scopes")


def test_a_key_with_every_scope_manages_nothing(live: Live) -> None:
    api = caller(live, made(live, *ALL, region=""))
    for method, path, body in (
        ("GET", "/users", None), ("GET", "/api-keys", None), ("GET", "/audit-log", None),
        ("POST", "/api-keys", {"name": "x", "scopes": ["elders:read"], "region_code": ""}),
        ("POST", "/regions", {"code": "370302001998", "name": "x"}), ("POST", "/me/revoke-tokens", None),
        ("POST", "/me/password", {"old_password": "x", "password": "three-words-nobody-joins"}),
        ("POST", "/escalation-policies", {"name": "p", "severity": "minor", "repeat_last_every_s": 60,
                                          "steps": [{"after_s": 0, "targets": ["operators"]}]}),
    ):  # fmt: skip
        refused(api.request(method, path, json=body), 403)


def test_a_key_sees_and_changes_only_its_region(live: Live) -> None:
    village, elsewhere = live.village(), live.village("370302002000")
    own, foreign = live.elder(village), live.elder(elsewhere)
    api = caller(live, made(live, *ALL, region=village))
    assert [e["id"] for e in api.items("/elders")] == [own["id"]]
    refused(api.get(f"/elders/{foreign['id']}"), 404)
    assert api.get(f"/elders/{foreign['id']}").json() == api.get(f"/elders/{NOBODY}").json()
    refused(api.post("/alarms", json={"elder_id": foreign["id"], "note": "x"}), 422, "no such elder")
    alarm = api.made("/alarms", elder_id=own["id"], note="邻居听到呼救")
    answered = api.post(f"/alarms/{alarm['id']}/acknowledge", json={"eta_minutes": 5}).json()
    assert (answered["acknowledged_by"]["type"], answered["acknowledged_by"]["name"]) == ("api_key", "大屏")


def test_reveal_is_a_scope_of_its_own(live: Live) -> None:
    elder = live.elder(phone="13812345678")
    refused(
        caller(live, made(live, "elders:read")).get(f"/elders/{elder['id']}?reveal=true&purpose=check"), 403, "reveal"
    )
    key = made(live, "elders:read", "reveal")
    shown = caller(live, key).seen(f"/elders/{elder['id']}", reveal="true", purpose="核对")
    assert shown["phone"] == "+8613812345678"
    (row,) = live.rows(
        "SELECT actor::text FROM audit_log WHERE action = 'elder.revealed' AND subject_id = $1", elder["id"]
    )
    assert key["id"] in row["actor"]


def test_a_timeline_shows_only_what_the_key_may_read(live: Live) -> None:
    elder = live.elder()
    live.device(elder)
    live.alarm(elder)
    started = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    live.admin.made("/visits", elder_id=elder["id"], method="home", started_at=started)

    def kinds(*scopes: str) -> set[str]:
        api = caller(live, made(live, "elders:read", *scopes))
        return {item["kind"] for item in api.items(f"/elders/{elder['id']}/timeline", limit=200)}

    register = {"classification", "move"}  # what elders:read shows in its own lists
    assert kinds() == register
    assert kinds("visits:read") == register | {"visit"}
    assert kinds("devices:read") == register | {"binding"}
    assert kinds("alarms:read") >= {"alarm", "notice"}
    assert not kinds("alarms:read") & {"visit", "binding"}


def test_nobody_gives_a_key_more_than_they_have(live: Live) -> None:
    chief = live.user("admin", "370302001")
    for scope in ("", "370302", "370302002001"):
        body = {"name": "x", "scopes": ["elders:read"], "region_code": scope}
        refused(chief.post("/api-keys", json=body), 422, "within your own")
    central = made(live, "elders:read")
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", "")):
        refused(chief.request(method, f"/api-keys/{central['id']}{path}", json={"name": "y"}), 404)
    assert central["id"] not in {k["id"] for k in chief.items("/api-keys", limit=200)}


async def test_rights_beyond_the_makers_are_refused(world: World) -> None:
    modest = Principal(UUID(int=5), "m", None, "", None, frozenset({Right.API_KEYS, Right.ELDERS_READ}))
    async with world.sessions() as session:
        with pytest.raises(InvalidInput, match="reveal"):
            await keys.make(
                session, modest, name="x", scopes=[KeyScope.ELDERS_READ, KeyScope.REVEAL], region_code="370302",
                expires_at=None, now=START,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"active": False}, "not active"),
        ({"role": "supervisor"}, "may not make keys"),
        ({"region_code": "370302002"}, "does not see its region"),
    ],
    ids=["put to rest", "demoted", "moved"],
)
def test_a_key_ends_with_the_account_that_holds_it(live: Live, change: dict[str, Any], because: str) -> None:
    """Each key that the account could not make any more; for good; not one that somebody took over before."""
    leaver = live.user("admin", "370302")
    mine = leaver.seen("/me")["id"]
    body = {"name": "走的人", "scopes": ["elders:read"], "region_code": "370302001"}
    ends, stays = leaver.made("/api-keys", **body), leaver.made("/api-keys", **body)
    assert ends["created_by"] == ends["held_by"] == mine
    taken = live.admin.post(f"/api-keys/{stays['id']}/take-over")
    assert (taken.status_code, taken.json()["created_by"], taken.json()["held_by"]) == (
        200, mine, live.admin.seen("/me")["id"],
    )  # fmt: skip
    assert live.admin.patch(f"/users/{mine}", json=change).status_code == 200
    refused(caller(live, ends).get("/elders"), 401)
    assert caller(live, stays).get("/elders").status_code == 200
    back = {"active": True, "role": "admin", "region_code": "370302"}
    assert live.admin.patch(f"/users/{mine}", json=back).status_code == 200
    refused(caller(live, ends).get("/elders"), 401)
    refused(live.admin.post(f"/api-keys/{ends['id']}/take-over"), 409, "has ended")
    (row,) = live.admin.seen("/audit-log", action="api_key.revoked", subject=ends["id"])["items"]
    assert because in row["detail"]["because"]
    (row,) = live.admin.seen("/audit-log", action="api_key.taken_over", subject=stays["id"])["items"]
    assert row["detail"]["changes"]["held_by"]["from"] == mine


async def test_a_key_whose_account_was_changed_by_hand_is_not_good_either(world: World) -> None:
    await world.do(
        "INSERT INTO users (id, username, password_hash, role, region_code, active, created_at, version) SELECT "
        "gen_random_uuid(), name, 'x', 'admin', '', true, now(), 1 FROM unnest(ARRAY['leaver', 'other']) AS given(name)"
    )
    leaver = Principal(
        await world.value("SELECT id FROM users WHERE username = 'leaver'"), "leaver", Role.ADMIN, "", None
    )
    async with transaction(world.sessions) as session:
        _, text = await keys.make(
            session, leaver, name="x", scopes=[KeyScope.ELDERS_READ], region_code="370302", expires_at=None, now=START
        )
    async with world.sessions() as session:
        assert (await keys.principal(session, text, now=START))[0].may(Right.ELDERS_READ)
    await world.do("UPDATE users SET active = false WHERE id = :id", id=leaver.id)
    async with world.sessions() as session:
        with pytest.raises(NotLoggedIn, match="not one of ours"):
            await keys.principal(session, text, now=START)


def test_a_revoked_key_is_dead_at_once_and_its_stream_within_seconds(live: Live) -> None:
    key = made(live, "alarms:read")
    api = caller(live, key)
    with raw_stream(api) as stream:
        assert live.admin.delete(f"/api-keys/{key['id']}").status_code == 204
        refused(api.get("/alarms"), 401)
        assert ends_within(stream, 6)
    assert live.admin.seen(f"/api-keys/{key['id']}")["revoked_at"] is not None
    assert live.admin.delete(f"/api-keys/{key['id']}").status_code == 204  # twice is once
    assert (
        len(live.rows("SELECT 1 FROM audit_log WHERE action = 'api_key.revoked' AND subject_id = $1", key["id"])) == 1
    )


def test_a_key_ends_when_it_was_said_to(live: Live) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    key = made(live, "alarms:read", expires_at=soon)
    api = caller(live, key)
    assert api.get("/alarms").status_code == 200
    with raw_stream(api) as stream:
        assert ends_within(stream, 8)
    refused(api.get("/alarms"), 401)
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    body = {"name": "x", "scopes": ["alarms:read"], "region_code": "370302", "expires_at": past}
    refused(live.admin.post("/api-keys", json=body), 422, "passed")


def test_a_key_is_renamed_and_its_end_moved(live: Live) -> None:
    key = made(live, "alarms:read", expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    tag = {"If-Match": live.admin.get(f"/api-keys/{key['id']}").headers["etag"]}
    changed = live.admin.patch(f"/api-keys/{key['id']}", json={"name": "二号屏", "expires_at": None}, headers=tag)
    assert (changed.json()["name"], changed.json()["expires_at"]) == ("二号屏", None)
    refused(live.admin.patch(f"/api-keys/{key['id']}", json={"name": "x"}, headers=tag), 412)
    refused(live.admin.patch(f"/api-keys/{key['id']}", json={"scopes": ["reveal"]}), 422)
    refused(live.admin.patch(f"/api-keys/{key['id']}", json={"name": None}), 422, "null")


def test_the_last_use_is_noted_also_of_a_refused_request(live: Live) -> None:
    key = made(live, "alarms:read")
    assert key["last_used_at"] is None
    refused(caller(live, key).get("/users"), 403)
    first = live.soon(lambda: live.admin.seen(f"/api-keys/{key['id']}")["last_used_at"])
    assert abs((datetime.now(UTC) - datetime.fromisoformat(first)).total_seconds()) < 60
    for _ in range(5):
        caller(live, key).get("/alarms")
    assert live.admin.seen(f"/api-keys/{key['id']}")["last_used_at"] == first  # once a minute is enough


async def test_the_use_of_a_key_is_written_once_a_minute(world: World) -> None:
    await world.do(
        "INSERT INTO users (id, username, password_hash, role, region_code, active, created_at, version) "
        "VALUES (:id, 'maker', 'x', 'admin', '', true, now(), 1)",
        id=UUID(int=1),
    )
    maker = Principal(UUID(int=1), "maker", Role.ADMIN, "", None)
    async with transaction(world.sessions) as session:
        key, text = await keys.make(
            session, maker, name="x", scopes=[KeyScope.ALARMS_READ], region_code="", expires_at=None, now=START
        )
    noted = []
    for seconds in (0, 30, 59, 61, 90, 125):
        now = START + timedelta(seconds=seconds)
        async with transaction(world.sessions) as session:
            _, note = await keys.principal(session, text, now=now)
            if note:
                await keys.note_use(session, key.id, now=now)
                noted.append(seconds)
    assert noted == [0, 61, 125]
    with pytest.raises(DBAPIError, match="scopes"):
        await world.do("UPDATE api_keys SET scopes = '{accounts}'")


@pytest.mark.parametrize("kind", ["short", "other id", "other secret", "no id", "empty", "unicode"])
async def test_a_key_that_is_not_ours_is_refused_alike(world: World, kind: str) -> None:
    text = {
        "short": "sw_", "other id": f"sw_{uuid4().hex}_{'x' * 43}", "other secret": f"sw_{UUID(int=1).hex}_{'y' * 43}",
        "no id": "sw_" + "z" * 32 + "_" + "x" * 43, "empty": f"sw_{uuid4().hex}_", "unicode": "sw_é" + "x" * 60,
    }[kind]  # fmt: skip
    async with world.sessions() as session:
        with pytest.raises(NotLoggedIn, match="the API key is not one of ours, or it was revoked or has expired"):
            await keys.principal(session, text, now=START)


def test_a_key_made_twice_with_one_idempotency_key_is_one_key(live: Live) -> None:
    body = {"name": "x", "scopes": ["stats:read"], "region_code": "370302"}
    headers = {"Idempotency-Key": uuid4().hex}
    one, two = (live.admin.post("/api-keys", json=body, headers=headers) for _ in range(2))
    assert one.json() == two.json()
    assert two.headers["idempotent-replay"] == "true"


def test_a_replay_is_only_for_whom_may_still_ask(live: Live) -> None:
    """A right that was taken away takes the answers of before with it."""
    name, password = f"u-{uuid4().hex[:8]}", "three-words-nobody-joins"
    user = live.admin.made("/users", username=name, password=password, role="admin", region_code="370302")
    api = live.log_in(name, password)
    headers = {"Idempotency-Key": uuid4().hex}
    body = {"name": "x", "scopes": ["stats:read"], "region_code": "370302"}
    first = api.post("/api-keys", json=body, headers=headers)
    assert first.status_code == 201
    live.admin.patch(f"/users/{user['id']}", json={"role": "operator"})
    again = api.post("/api-keys", json=body, headers=headers)
    refused(again, 403)
    assert first.json()["key"] not in again.text


def test_twenty_front_ends_with_one_key_do_not_wait_for_each_other(live: Live) -> None:
    from concurrent.futures import ThreadPoolExecutor

    key = made(live, "alarms:read")
    url, headers = f"{live.base}/api/v1/alarms?limit=1", {"Authorization": f"Bearer {key['key']}"}
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: requests.get(url, headers=headers, timeout=20), range(60)))
    assert {a.status_code for a in answers} == {200}
    assert time.monotonic() - began < 15
