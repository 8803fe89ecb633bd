"""Accounts as those who live with them meet them: the desk that must get in, and whoever must not."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest
import requests
import sqlalchemy as sa
from fastapi import APIRouter
from sqlalchemy.exc import DBAPIError

from app.access import accounts, guard, passwords
from app.access.guard import Hasher
from app.access.principal import Principal
from app.access.tables import ApiKey, User
from app.access.tokens import Issued, Tokens
from app.access.vocabulary import RIGHTS_OF, KeyScope, Right, Role
from app.api import application, visits
from app.api.auth import LoginForm, PasswordChange, TokenAnswer
from app.api.context import Parts
from app.api.origin import client_address
from app.api.users import UserIn
from app.db import transaction
from app.errors import InvalidInput
from simulator.api import Api as Simulator
from tests.world import ADMIN, START, TOKEN_KEY, World

if TYPE_CHECKING:
    from tests.live import Api, Live
    from tests.pair import Pair

pytest_plugins = ["tests.live", "tests.pair"]
pytestmark = pytest.mark.xdist_group("live")
PASSWORD = "correct-horse-1"
GOOD = "three-words-nobody-joins"
OTHER = "four-words-that-nobody-joins"
WRONG = "not-the-password-at-all"
NOBODY = "00000000-0000-7000-8000-00000000dead"


def refused(answer: requests.Response, status: int, *words: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    problem = answer.json()
    for word in words:
        assert word in problem["detail"]
    return problem


def log_in(live: Live, name: str, password: str, **headers: str) -> requests.Response:
    url = f"{live.base}/api/v1/auth/token"
    return requests.post(url, data={"username": name, "password": password}, headers=headers, timeout=20)


def refresh(live: Live, token: str) -> requests.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return live.anonymous.post("/auth/token", data=form)


def bearer(live: Live, token: str) -> Api:
    return type(live.admin)(live.base, token)


def account(live: Live, role: str = "operator", region: str = "370302", **more: Any) -> dict[str, Any]:
    body = {"username": f"u-{uuid4().hex[:12]}", "password": GOOD, "role": role, "region_code": region, **more}
    return live.admin.made("/users", **body)


@contextmanager
def raw_stream(api: Api) -> Iterator[requests.Response]:
    with api.get("/alarms/stream", stream=True, timeout=20) as answer:
        assert answer.status_code == 200, answer.text
        yield answer


def ends_within(answer: requests.Response, seconds: float) -> bool:
    """Whether the stream ends by itself in time."""
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: list(answer.iter_lines(chunk_size=1)))
        try:
            lines = reading.result(timeout=seconds)
        except TimeoutError:
            answer.close()
            return False
    return any(line.startswith(b": ended") for line in lines)


# --- log-in and refresh ----------------------------------------------------------------------------------------------


def test_a_log_in_gives_a_short_token_and_a_refresh_token_that_is_good_once(live: Live) -> None:
    user = account(live)
    first = log_in(live, user["username"], GOOD)
    assert first.status_code == 200
    assert set(first.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert first.headers["cache-control"] == "no-store"
    second = refresh(live, first.json()["refresh_token"])
    assert second.status_code == 200, second.text
    assert second.json()["refresh_token"] != first.json()["refresh_token"]
    me = bearer(live, second.json()["access_token"]).seen("/me")
    assert (me["type"], me["username"], me["role"]) == ("user", user["username"], "operator")
    assert set(me["rights"]) == {right.value for right in RIGHTS_OF[Role.OPERATOR]}
    assert bearer(live, first.json()["access_token"]).get("/me").status_code == 200  # until it runs out
    stored = live.rows("SELECT hash FROM refresh_tokens")
    assert all(len(row["hash"]) == 32 for row in stored)
    whole = str(live.rows("SELECT t::text FROM refresh_tokens t"))
    assert second.json()["refresh_token"] not in whole


def test_a_stolen_refresh_token_ends_the_whole_log_in(live: Live) -> None:
    user = account(live)
    first = log_in(live, user["username"], GOOD).json()
    second = refresh(live, first["refresh_token"]).json()
    other = log_in(live, user["username"], GOOD).json()
    again = refresh(live, first["refresh_token"])  # the thief, or the victim: one of them comes second
    refused(again, 401, "used before")
    refused(refresh(live, second["refresh_token"]), 401)
    refused(bearer(live, second["access_token"]).get("/me"), 401, "over")
    assert bearer(live, other["access_token"]).get("/me").status_code == 200  # another log-in is another family
    row = live.rows("SELECT * FROM audit_log WHERE action = 'login.refresh_reused' AND subject_id = $1", user["id"])
    assert len(row) == 1


@pytest.mark.parametrize(
    ("form", "status", "word"),
    [
        ({"grant_type": "refresh_token"}, 422, "refresh_token"),
        ({"grant_type": "refresh_token", "refresh_token": "swr_unknown"}, 401, "not one of ours"),
        ({"grant_type": "refresh_token", "refresh_token": "\x00"}, 401, "not one of ours"),
        ({"grant_type": "client_credentials"}, 422, "grant_type"),
        ({"username": "admin"}, 422, "password"),
        ({"password": GOOD}, 422, "username"),
        ({}, 422, "username"),
        ({"username": "a\x00b", "password": GOOD}, 401, "wrong"),
        ({"username": "admin", "password": "x" * 257}, 422, "256"),
    ],
)
def test_a_form_that_does_not_fit_says_what_is_missing(
    live: Live, form: dict[str, str], status: int, word: str
) -> None:
    answer = live.anonymous.post("/auth/token", data=form, headers={"X-Forwarded-For": "198.51.100.7"})
    refused(answer, status, word)
    assert "Value error" not in answer.text


def test_logging_out_ends_one_log_in_and_revoking_ends_all(live: Live) -> None:
    user = account(live)
    one, two, three = (log_in(live, user["username"], GOOD).json() for _ in range(3))
    assert bearer(live, one["access_token"]).post("/me/log-out").status_code == 204
    refused(bearer(live, one["access_token"]).get("/me"), 401)
    refused(refresh(live, one["refresh_token"]), 401)
    assert bearer(live, two["access_token"]).post("/me/revoke-tokens").status_code == 204
    for tokens in (two, three):
        refused(bearer(live, tokens["access_token"]).get("/me"), 401)
        refused(refresh(live, tokens["refresh_token"]), 401)
    four = log_in(live, user["username"], GOOD).json()
    assert live.admin.post(f"/users/{user['id']}/revoke-tokens").status_code == 204
    refused(bearer(live, four["access_token"]).get("/me"), 401)
    refused(refresh(live, four["refresh_token"]), 401)
    assert log_in(live, user["username"], GOOD).status_code == 200


def test_an_account_put_to_rest_is_dead_at_once(live: Live) -> None:
    user = account(live)
    tokens = log_in(live, user["username"], GOOD).json()
    assert live.admin.patch(f"/users/{user['id']}", json={"active": False}).json()["active"] is False
    refused(bearer(live, tokens["access_token"]).get("/me"), 401)
    refused(refresh(live, tokens["refresh_token"]), 401)
    refused(log_in(live, user["username"], GOOD), 401, "wrong")
    live.admin.patch(f"/users/{user['id']}", json={"active": True})
    refused(bearer(live, tokens["access_token"]).get("/me"), 401)  # what was dead stays dead
    assert log_in(live, user["username"], GOOD).status_code == 200


async def test_a_password_that_was_reset_while_its_check_ran_gives_a_dead_token(world: World) -> None:
    tokens = Tokens(TOKEN_KEY, access_life=timedelta(minutes=15), refresh_life=timedelta(days=1))
    async with transaction(world.sessions) as session:
        user = await accounts.create(
            session,
            username="slow",
            password=GOOD,
            role=Role.OPERATOR,
            region_code="370302",
            visitor_id=None,
            now=START,
        )
        read_before = User.model_validate(user.model_dump())
    async with transaction(world.sessions) as session:
        again = await accounts.by_name(session, "slow")
        assert again is not None
        await accounts.set_password(session, again, OTHER)
    async with transaction(world.sessions) as session:
        issued = await tokens.log_in(session, read_before, now=START)
    async with world.sessions() as session:
        with pytest.raises(Exception, match="over"):
            await tokens.principal(session, issued.access_token, now=START)


# --- the stream ends with what opened it -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["rest", "revoke", "log-out", "demote", "move"])
def test_a_stream_is_cut_within_seconds(live: Live, how: str) -> None:
    user = account(live)
    api = bearer(live, log_in(live, user["username"], GOOD).json()["access_token"])
    with raw_stream(api) as answer:
        match how:
            case "rest":
                live.admin.patch(f"/users/{user['id']}", json={"active": False})
            case "revoke":
                live.admin.post(f"/users/{user['id']}/revoke-tokens")
            case "log-out":
                api.post("/me/log-out")
            case "demote":
                live.admin.patch(f"/users/{user['id']}", json={"role": "auditor"})
            case _:
                live.admin.patch(f"/users/{user['id']}", json={"region_code": "370302001"})
        assert ends_within(answer, 6)


def test_a_stream_ends_with_its_token_and_lives_until_then(pair: Pair) -> None:
    began = time.monotonic()
    with raw_stream(pair.admin()) as answer:
        assert ends_within(answer, 12)
    assert time.monotonic() - began > 4


def test_an_access_token_runs_out(pair: Pair) -> None:
    api = pair.admin()
    assert api.get("/me").status_code == 200
    time.sleep(6.5)
    refused(api.get("/me"), 401, "expired")


async def test_the_simulators_session_outlives_its_tokens(pair: Pair) -> None:
    """Ten calls at once after the end of the token: one renews for all, and the log-in is not taken for a stolen one."""
    async with Simulator(pair.second.base, "admin", PASSWORD) as api:
        await asyncio.sleep(6.5)
        found = await asyncio.gather(*(api.get("/me") for _ in range(10)))
        assert {me["username"] for me in found} == {"admin"}
        await asyncio.sleep(6.5)
        async with api.feed() as items:
            assert (await anext(aiter(items))).type == "begins"
    assert await pair.rows("SELECT 1 FROM audit_log WHERE action = 'login.refresh_reused'") == []


# --- who may give what -----------------------------------------------------------------------------------------------


def test_an_account_is_read_and_changed_with_its_etag(live: Live) -> None:
    user = account(live)
    read = live.admin.get(f"/users/{user['id']}")
    assert read.json() == user
    tag = {"If-Match": read.headers["etag"]}
    changed = live.admin.patch(
        f"/users/{user['id']}", json={"role": "supervisor", "region_code": "370302001000"}, headers=tag
    )
    assert (changed.json()["role"], changed.json()["region_code"]) == ("supervisor", "370302001")
    refused(live.admin.patch(f"/users/{user['id']}", json={"active": False}, headers=tag), 412)
    refused(live.admin.get(f"/users/{NOBODY}"), 404)
    refused(live.admin.patch(f"/users/{user['id']}", json={"role": None}), 422, "null")
    refused(live.admin.patch(f"/users/{user['id']}", json={"username": "x"}), 422)


@pytest.mark.parametrize("role", ["supervisor", "operator", "visitor", "auditor"])
def test_nobody_but_an_administrator_touches_accounts(live: Live, role: str) -> None:
    village = live.village()
    api = live.user(role, village)
    me = api.seen("/me")
    for method, path, body in (
        ("GET", "/users", None), ("GET", f"/users/{me['id']}", None),
        ("PATCH", f"/users/{me['id']}", {"role": "admin"}), ("POST", f"/users/{me['id']}/password", {"password": OTHER}),
        ("POST", f"/users/{me['id']}/revoke-tokens", None), ("GET", "/api-keys", None),
        ("POST", "/users", {"username": "x-y-z", "password": GOOD, "role": "admin", "region_code": village}),
        ("POST", "/api-keys", {"name": "x", "scopes": ["elders:read"], "region_code": village}),
    ):  # fmt: skip
        refused(api.request(method, path, json=body), 403)
    assert api.get("/audit-log").status_code == (200 if role == "auditor" else 403)


def test_an_administrator_of_a_township_gives_nothing_beyond_it(live: Live) -> None:
    chief = live.user("admin", "370302001")
    central, neighbour = account(live, "operator", ""), account(live, "operator", "370302002")
    for scope in ("", "370302", "370302002", "370302002001"):
        body = {"username": f"u-{uuid4().hex[:8]}", "password": GOOD, "role": "operator", "region_code": scope}
        refused(chief.post("/users", json=body), 422, "within your own")
    for foreign in (central, neighbour):
        absent = chief.get(f"/users/{NOBODY}")
        for method, path, body in (
            ("GET", "", None), ("PATCH", "", {"active": False}), ("POST", "/password", {"password": OTHER}),
            ("POST", "/revoke-tokens", None),
        ):  # fmt: skip
            answer = chief.request(method, f"/users/{foreign['id']}{path}", json=body)
            refused(answer, 404)
            assert answer.json() == absent.json()
        assert foreign["id"] not in {u["id"] for u in chief.items("/users", limit=200)}
    own = account(live, "operator", "370302001")
    refused(chief.patch(f"/users/{own['id']}", json={"region_code": "370302"}), 422, "within your own")
    assert chief.patch(f"/users/{own['id']}", json={"region_code": "370302001001"}).status_code == 200


def test_a_visitors_account_names_its_visitor(live: Live) -> None:
    village = live.village()
    body = {"username": f"v-{uuid4().hex[:8]}", "password": GOOD, "role": "visitor", "region_code": village}
    problem = refused(live.admin.post("/users", json=body), 422, "visitor")
    assert problem["errors"][0]["field"] == "body.visitor_id"
    refused(live.admin.post("/users", json={**body, "visitor_id": NOBODY}), 422, "no such visitor")
    visitor = live.visitor(village)
    made = live.admin.made("/users", **body, visitor_id=visitor["id"])
    assert made["visitor_id"] == visitor["id"]
    refused(live.admin.patch(f"/users/{made['id']}", json={"visitor_id": None}), 422, "visitor")
    operator = account(live, "operator", village)
    refused(live.admin.patch(f"/users/{operator['id']}", json={"role": "visitor"}), 422, "visitor")
    changed = live.admin.patch(f"/users/{operator['id']}", json={"role": "visitor", "visitor_id": visitor["id"]})
    assert changed.status_code == 200


async def _administrator(world: World, name: str, region: str = "") -> UUID:
    async with transaction(world.sessions) as session:
        made = await accounts.create(
            session,
            username=name,
            password=GOOD,
            role=Role.ADMIN,
            region_code=region,
            visitor_id=None,
            now=world.time(),
        )
    return made.id


async def _change(world: World, user_id: UUID, **fields: Any) -> None:
    async with transaction(world.sessions) as session:
        user = await accounts.user_within(session, ADMIN, user_id, lock=True)
        await accounts.change(session, ADMIN, user, fields, now=world.time())


async def test_the_last_active_administrator_stays_one(world: World) -> None:
    first = await _administrator(world, "first")
    town = await _administrator(world, "town", "370302001")
    for fields in ({"active": False}, {"role": "operator"}, {"region_code": "370302"}):
        with pytest.raises(Exception, match="last active administrator"):
            await _change(world, first, **fields)
    await _change(world, town, active=False)  # the first covers the town
    second = await _administrator(world, "second")
    await _change(world, first, role="operator")
    with pytest.raises(Exception, match="last active administrator"):
        await _change(world, second, active=False)
    with pytest.raises(DBAPIError, match="stays one"):  # nor by hand
        await world.do("UPDATE users SET active = false WHERE id = :id", id=second)


async def test_two_administrators_cannot_put_each_other_to_rest_at_once(world: World) -> None:
    one, two = await _administrator(world, "one"), await _administrator(world, "two")
    both_looked = asyncio.Barrier(2)

    async def rest(other: UUID) -> None:
        async with transaction(world.sessions) as session:
            user = await accounts.user_within(session, ADMIN, other, lock=True)
            await both_looked.wait()
            await accounts.change(session, ADMIN, user, {"active": False}, now=world.time())

    outcomes = await asyncio.gather(rest(one), rest(two), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert await world.value("SELECT count(*) FROM users WHERE role = 'admin' AND active") == 1


# --- passwords -------------------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    ("password", "because"),
    [
        ("short-one", "9 characters, and needs at least 10"),
        ("x" * 10, "different characters"),
        ("ababababababab", "different characters"),
        ("x1-" + "long" * 100, "more than 256"),
        ("Duty-Desk-7", "username"),
        ("duty-desk-7-2026!!", "username"),
        ("1234567890", "guessed first"),
        ("Password2026!", "guessed first"),
        ("qwertyuiop", "guessed first"),
        ("12345678901234", "counts up"),
        ("098765432109", "counts up or down"),
        ("abcdefghijklm", "counts up"),
        ("woaini1314520", "guessed first"),
        ("ZiChuan20262026", "guessed first"),
        ("ｐａｓｓｗｏｒｄ１２３４", "guessed first"),  # full-width letters are the same keys
    ],
)
def test_a_password_that_breaks_a_rule_says_which(password: str, because: str) -> None:
    with pytest.raises(InvalidInput) as told:
        passwords.check_rules(password, username="duty-desk-7")
    assert because in told.value.detail
    assert password not in told.value.detail


@pytest.mark.unit
def test_every_broken_rule_is_named_and_no_mixture_is_asked_for() -> None:
    with pytest.raises(InvalidInput) as told:
        passwords.check_rules("aaaa", username="x")
    assert "at least 10" in told.value.detail
    assert "different" in told.value.detail
    for good in (
        "three words nobody joins",
        "onlylowercaseletterswork",
        "探访关爱老年人的每一天啊",
        GOOD,
        passwords.invent(),
    ):
        passwords.check_rules(good, username="duty-desk")


async def test_the_same_keys_are_the_same_password_whatever_input_method_sent_them() -> None:
    hashed = await passwords.hash_password("value１２３-words")
    assert hashed.startswith("$argon2id$")
    assert await passwords.verify("value123-words", hashed)
    assert not await passwords.verify("value124-words", hashed)


async def test_a_wrong_name_takes_as_long_as_a_wrong_password() -> None:
    hashed = await passwords.hash_password(GOOD)
    took: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(5):
        for known in (True, False):
            began = time.perf_counter()
            assert not await passwords.verify(WRONG, hashed if known else None)
            took[known].append(time.perf_counter() - began)
    ratio = statistics.median(took[True]) / statistics.median(took[False])
    assert 0.4 < ratio < 2.5
    assert not await passwords.verify(WRONG, None)


def test_changing_the_own_password_asks_for_the_old_one(live: Live) -> None:
    user = account(live)
    tokens = log_in(live, user["username"], GOOD).json()
    api = bearer(live, tokens["access_token"])
    problem = refused(api.post("/me/password", json={"old_password": WRONG, "password": OTHER}), 422, "wrong")
    assert problem["errors"][0]["field"] == "body.old_password"
    refused(api.post("/me/password", json={"old_password": GOOD, "password": "password1234"}), 422, "guessed first")
    refused(api.post("/me/password", json={"old_password": GOOD, "password": GOOD}), 422, "choose another")
    assert api.post("/me/password", json={"old_password": GOOD, "password": OTHER}).status_code == 204
    refused(api.get("/me"), 401)
    refused(refresh(live, tokens["refresh_token"]), 401)
    refused(log_in(live, user["username"], GOOD), 401)
    assert log_in(live, user["username"], OTHER).status_code == 200


def test_a_stolen_token_cannot_guess_the_old_password_for_ever(live: Live) -> None:
    user = account(live)
    api = bearer(live, log_in(live, user["username"], GOOD).json()["access_token"])
    wrong = {"old_password": WRONG, "password": OTHER}
    answers = [api.post("/me/password", json=wrong) for _ in range(11)]
    assert [a.status_code for a in answers] == [422] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) > 0


def test_an_administrator_resets_a_password(live: Live) -> None:
    user = account(live)
    tokens = log_in(live, user["username"], GOOD).json()
    refused(live.admin.post(f"/users/{user['id']}/password", json={"password": user["username"]}), 422, "username")
    assert live.admin.post(f"/users/{user['id']}/password", json={"password": OTHER}).status_code == 204
    refused(bearer(live, tokens["access_token"]).get("/me"), 401)
    assert log_in(live, user["username"], OTHER).status_code == 200
    refused(live.admin.post(f"/users/{NOBODY}/password", json={"password": OTHER}), 404)


# --- limits of log-in, and the desk that must get in -----------------------------------------------------------------


def made_by(pair: Pair, name: str) -> None:
    body = {"username": name, "password": GOOD, "role": "operator", "region_code": "370302"}
    assert pair.admin().post("/users", json=body).status_code == 201


def test_two_processes_count_together(pair: Pair) -> None:
    made_by(pair, "shared")
    answers = []
    for turn in range(11):
        api = (pair.first, pair.second)[turn % 2]
        answers.append(pair.token(api, "shared", WRONG))
    assert [a.status_code for a in answers] == [401] * 10 + [429]
    for api in (pair.first, pair.second):
        closed = pair.token(api, "shared", GOOD)
        refused(closed, 429, "wait")
        assert 0 < int(closed.headers["retry-after"]) <= 301
    assert pair.token(pair.second, "admin", "Wrong-but-somebody-else").status_code == 401  # its own count


async def test_what_is_counted_is_committed_and_holds_no_name(pair: Pair) -> None:
    typed = "mein-passwort-statt-name"
    assert pair.token(pair.first, typed, WRONG, address="192.0.2.77").status_code == 401
    rows = await pair.rows("SELECT * FROM login_tries WHERE settled")
    assert rows
    everything = str(await pair.rows("SELECT t::text FROM login_tries t")) + str(
        await pair.rows("SELECT t::text FROM audit_log t")
    )
    for secret in (typed, WRONG, typed.encode().hex()):
        assert secret not in everything


def test_whoever_hammers_the_desks_name_does_not_lock_the_desk_out(pair: Pair) -> None:
    made_by(pair, "duty-desk")
    desk = "192.0.2.10"
    assert pair.token(pair.first, "duty-desk", GOOD, address=desk).status_code == 200
    statuses = []
    for host in range(1, 8):  # a crowd of addresses
        statuses += [
            pair.token(pair.first, "duty-desk", WRONG, address=f"203.0.113.{host}").status_code for _ in range(6)
        ]
    assert statuses[:30] == [401] * 30
    assert set(statuses[30:]) == {429}  # the account is closed to strangers, from any address
    refused(pair.token(pair.first, "duty-desk", GOOD, address="203.0.113.99"), 429)
    assert pair.token(pair.first, "duty-desk", GOOD, address=desk).status_code == 200


def test_a_device_that_logged_in_before_gets_in_beside_an_attacker_at_the_same_address(pair: Pair) -> None:
    """All behind one router, or behind a proxy nobody told us of: the address is the same for everybody."""
    made_by(pair, "front-desk")
    browser = requests.Session()
    form = {"username": "front-desk", "password": GOOD}
    url = f"{pair.second.base}/api/v1/auth/token"
    first = browser.post(url, data=form, timeout=20)
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    tokens = first.json()
    for _ in range(12):
        last = pair.token(pair.second, "front-desk", WRONG)
    assert last.status_code == 429
    refused(requests.post(url, data=form, timeout=20), 429)  # without the cookie: a stranger at this address
    assert browser.post(url, data=form, timeout=20).status_code == 200
    renewed = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert requests.post(url, data=renewed, timeout=20).status_code == 200  # who is logged in stays so
    for _ in range(10):
        browser.post(url, data={**form, "password": WRONG}, timeout=20)
    refused(browser.post(url, data=form, timeout=20), 429)  # the device itself may not guess for ever
    other = requests.Session()
    other.cookies.update(browser.cookies)
    made_by(pair, "another-desk")
    for _ in range(10):
        pair.token(pair.second, "another-desk", WRONG)
    refused(other.post(url, data={**form, "username": "another-desk"}, timeout=20), 429)  # a cookie is of one account


async def test_one_address_that_tries_many_names_is_slowed_down(pair: Pair) -> None:
    sprayer = "198.51.100.50"
    # Ninety tries that were made before: each would cost a hash.
    made = guard.TRIES_OF_AN_ADDRESS - 10
    await pair.rows(
        "INSERT INTO login_tries (id, bucket, at, settled) SELECT gen_random_uuid(), $1, now(), true "
        "FROM generate_series(1, $2)", guard.Hasher(TOKEN_KEY)("address", sprayer), made,
    )  # fmt: skip
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: pair.token(pair.first, f"name-{n}", WRONG, address=sprayer), range(16)))
    statuses = [a.status_code for a in answers]
    assert statuses.count(401) == 10
    assert statuses.count(429) == 6
    assert pair.token(pair.first, "name-1", WRONG, address="198.51.100.51").status_code == 401


def test_tries_side_by_side_cannot_slip_past_the_limit(pair: Pair) -> None:
    made_by(pair, "raced")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: pair.token(pair.first, "raced", WRONG, address="192.0.2.200"), range(24)))
    statuses = sorted(a.status_code for a in answers)
    assert statuses == [401] * 10 + [429] * 14


def test_right_log_ins_side_by_side_are_all_let_in(pair: Pair) -> None:
    made_by(pair, "busy")
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: pair.token(pair.first, "busy", GOOD, address="192.0.2.201"), range(24)))
    assert [a.status_code for a in answers] == [200] * 24


def test_a_forged_header_does_not_make_a_new_address(pair: Pair) -> None:
    made_by(pair, "forged")
    statuses = [pair.token(pair.second, "forged", WRONG, address=f"203.0.113.{n}").status_code for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2


@pytest.mark.unit
@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),  # no proxy of ours: what it says is its own story
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),  # the client wrote the first
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, <script>"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_the_clients_address_behind_a_proxy(peer: str, forwarded: list[str], address: str) -> None:
    assert client_address(peer, forwarded, [ip_network("10.0.0.0/24")]) == address
    if peer:
        assert client_address(peer, forwarded, []) == peer.removeprefix("::ffff:")


@pytest.mark.unit
def test_an_ipv6_customer_is_one_address() -> None:
    assert guard.network_of("2001:db8:1:2::5") == guard.network_of("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert guard.network_of("2001:db8:1:3::5") != guard.network_of("2001:db8:1:2::5")
    assert guard.network_of("::ffff:192.0.2.1") == "192.0.2.1"


async def test_old_tries_and_log_ins_are_swept_away(world: World) -> None:
    hasher = Hasher(TOKEN_KEY)
    buckets = guard.buckets_of(hasher, username="x", address="192.0.2.1", device=None, known=False)
    tokens = Tokens(TOKEN_KEY, access_life=timedelta(minutes=15), refresh_life=timedelta(days=1))
    async with transaction(world.sessions) as session:
        user = await accounts.create(
            session, username="swept", password=GOOD, role=Role.OPERATOR, region_code="", visitor_id=None, now=START
        )
        await guard.take(session, buckets, now=START)
        await guard.remember(session, user.id, hasher.place("192.0.2.1"), now=START)
        await tokens.log_in(session, user, now=START)
    for days, tries, logins, places in ((0, 3, 1, 1), (1, 0, 1, 1), (3, 0, 0, 1), (100, 0, 0, 0)):
        async with transaction(world.sessions) as session:
            await accounts.sweep(session, now=START + timedelta(days=days))
        assert await world.value("SELECT count(*) FROM login_tries") == tries
        assert await world.value("SELECT count(*) FROM logins") == logins
        assert await world.value("SELECT count(*) FROM refresh_tokens") == logins
        assert await world.value("SELECT count(*) FROM known_places") == places


# --- rights: declared by every route ---------------------------------------------------------------------------------

_DOCUMENT = application.build(cast(Parts, None), roles=["api"]).openapi()


@pytest.mark.unit
def test_every_operation_declares_its_right() -> None:
    listed = {}
    for path, item in _DOCUMENT["paths"].items():
        for method, operation in item.items():
            if operation["operationId"] in application.PUBLIC:
                assert "HTTPBearer" not in str(operation.get("security")), path  # a broker shows its own secret
                continue
            ((scheme, rights),) = operation["security"][0].items()
            assert scheme == "HTTPBearer"
            listed[f"{method.upper()} {path}"] = Right(rights[0])
    assert listed["GET /api/v1/elders"] is Right.ELDERS_READ
    assert listed["POST /api/v1/users"] is Right.ACCOUNTS
    assert listed["GET /api/v1/alarms/stream"] is Right.ALARMS_READ
    # What came of an import is for those who import.
    reads = {o: r for o, r in listed.items() if o.startswith("GET ") and "/elders/imports" not in o}
    reading = set(reads.values())
    writes = {Right.ELDERS_WRITE, Right.ALARMS_WRITE, Right.VISITS_WRITE, Right.POLICIES_WRITE, Right.REGIONS_WRITE}
    assert not reading & writes
    for operation, right in listed.items():
        if not operation.startswith("GET "):
            assert not right.value.endswith(":read"), operation


@pytest.mark.unit
def test_a_route_without_a_right_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    careless = APIRouter()

    @careless.get("/careless")
    async def careless_route() -> None: ...

    whole = APIRouter()
    whole.include_router(visits.router)
    whole.include_router(careless)
    monkeypatch.setattr(visits, "router", whole)
    with pytest.raises(RuntimeError, match="careless_route"):
        application.build(cast(Parts, None), roles=["api"])


@pytest.mark.unit
def test_roles_and_scopes() -> None:
    assert {scope.value for scope in KeyScope} == {
        "elders:read", "elders:write", "alarms:read", "alarms:write", "visits:read", "visits:write", "devices:read",
        "devices:write", "stats:read", "reveal",
    }  # fmt: skip
    assert all(Right(scope.value) for scope in KeyScope)
    assert RIGHTS_OF[Role.ADMIN] == frozenset(Right)
    for role in (Role.SUPERVISOR, Role.OPERATOR, Role.VISITOR, Role.AUDITOR):
        assert not RIGHTS_OF[role] & {Right.ACCOUNTS, Right.API_KEYS}
    assert {role for role in Role if Right.AUDIT_READ in RIGHTS_OF[role]} == {Role.ADMIN, Role.AUDITOR}
    assert {role for role in Role if Right.REVEAL in RIGHTS_OF[role]} == {Role.ADMIN, Role.SUPERVISOR}
    assert all(right.value.endswith("read") or right is Right.SELF_WRITE for right in RIGHTS_OF[Role.AUDITOR])
    auditor = Principal(UUID(int=9), "a", Role.AUDITOR, "", None)
    assert not replace(auditor, role=Role.OPERATOR).same_power(auditor)


@pytest.mark.unit
def test_no_secret_is_in_a_repr() -> None:
    secret = "a-very-secret-value"
    tokens = Tokens(secret.encode(), access_life=timedelta(1), refresh_life=timedelta(1))
    access = accounts.Access(tokens, Hasher(secret.encode()))
    shown = [
        LoginForm(username="x", password=secret), LoginForm(grant_type="refresh_token", refresh_token=secret),
        PasswordChange(old_password=secret, password=secret),
        UserIn(username="xyz", password=secret, role="admin", region_code=""),
        TokenAnswer(access_token=secret, expires_in=1, refresh_token=secret), access, tokens,
        Issued(UUID(int=1), UUID(int=2), secret, secret, 1),
        User(id=UUID(int=1), username="x", password_hash=secret, role=Role.ADMIN, region_code="", created_at=START),
        ApiKey(id=UUID(int=1), name="x", secret_hash=secret.encode(), scopes=[], region_code="",
               created_by=UUID(int=1), held_by=UUID(int=1), created_at=START),
    ]  # fmt: skip
    for thing in shown:
        for text in (repr(thing), str(thing)):
            assert secret not in text, type(thing)


async def test_a_hand_written_visitor_account_without_a_visitor_is_refused_by_the_database(world: World) -> None:
    with pytest.raises(DBAPIError, match="visitor_is_somebody"):
        await world.do(
            "INSERT INTO users (id, username, password_hash, role, region_code, active, created_at, version) "
            "VALUES (:id, 'v', 'x', 'visitor', '', true, now(), 1)",
            id=uuid4(),
        )
    async with world.sessions() as session:
        assert await session.scalar(sa.text("SELECT count(*) FROM users")) == 0
