"""Devices' log-ins over REST, and what EMQX asks about them. All people are invented."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import requests
from fastapi import HTTPException
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.api import application, broker
from app.api.broker import LoginQuestion, TopicQuestion, broker_login, broker_topic
from app.api.context import Parts
from app.devices import passwords
from app.devices.credentials import BrokerTrust, Login, Lookups, ServerLogin, server_login, username_for
from app.devices.mosquitto_files import BadFile, access_file, password_file, read_passwords, server_password_file
from app.devices.topics import Action, device_may, server_may
from app.main import tls
from app.settings import SettingsError, load
from tests.world import World

if TYPE_CHECKING:
    from tests.live import Api, Live

pytest_plugins = ["tests.live"]
EMQX = Path(__file__).resolve().parent.parent / "deploy" / "emqx" / "emqx.conf"
live_story = pytest.mark.xdist_group("live")


# --- passwords ------------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_a_password_fits_only_its_own_hash() -> None:
    first, second = passwords.invent(), passwords.invent()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", first), "256 bits, nothing to quote"
    kept = passwords.hashed(first)
    assert re.fullmatch(r"\$7\$1\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}==", kept)
    assert first not in kept
    assert kept != passwords.hashed(first), "salted"
    assert passwords.fits(first, kept)
    assert passwords.fits("chosen", passwords.hashed("chosen", iterations=101))
    assert not passwords.fits(second, kept)


@pytest.mark.unit
@pytest.mark.parametrize(
    "kept",
    ["", "plain", "$6$c2FsdA==$aGFzaA==", "$7$0$c2FsdA==$aGFzaA==", "$7$x$c2FsdA==$aGFzaA==", "$7$1$c2FsdA==",
     "$7$99999999999$c2FsdA==$aGFzaA==", "$7$1$?$aGFzaA==", "$7$1$c2FsdA==$?", "$7$1$c2FsdA==$"],
)  # fmt: skip
def test_what_is_no_hash_fits_nothing(kept: str) -> None:
    assert not passwords.fits("", kept)
    assert not passwords.fits("\ud800", passwords.hashed("x"))


@pytest.mark.mosquitto
def test_mosquittos_own_tool_makes_hashes_that_fit(tmp_path: Path) -> None:
    made = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(made), "gateway", "chosen"], check=True, capture_output=True)
    assert passwords.fits("chosen", read_passwords(made.read_text())["gateway"])
    assert not passwords.fits("choseN", read_passwords(made.read_text())["gateway"])


# --- who may what ---------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_the_topics_of_a_device() -> None:
    mine = {(action, topic) for action in Action for topic in TOPICS if device_may("sos-1", action, topic)}
    assert mine == {
        (Action.PUBLISH, "devices/sos-1/event"),
        (Action.PUBLISH, "devices/sos-1/status"),
        (Action.SUBSCRIBE, "devices/sos-1/command"),
    }


TOPICS = (
    "devices/sos-1/event", "devices/sos-1/status", "devices/sos-1/command", "devices/sos-1/#", "devices/sos-1/+",
    "devices/sos-2/event", "devices/sos-2/command", "devices/+/command", "devices/#", "#", "+/sos-1/command", "",
    "$SYS/#", "$CONTROL/dynamic-security/v1", "$share/g/devices/sos-1/command", "devices/sos-1/event/", "/devices/sos-1/event",
)  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize(
    ("action", "topic", "allowed"),
    [
        (Action.SUBSCRIBE, "devices/+/event", True),
        (Action.SUBSCRIBE, "devices/#", True),
        (Action.SUBSCRIBE, "$share/shouwang/devices/+/status", True),
        (Action.SUBSCRIBE, "$oc/devices/+/sys/properties/report", True),
        (Action.SUBSCRIBE, "zigbee2mqtt/#", True),
        (Action.SUBSCRIBE, "$SYS/#", True),
        (Action.SUBSCRIBE, "$CONTROL/#", False),
        (Action.SUBSCRIBE, "$share/g/$CONTROL/dynamic-security/v1", False),
        (Action.SUBSCRIBE, "$share/g", False),
        (Action.PUBLISH, "devices/sos-1/command", True),
        (Action.PUBLISH, "devices/sos-1/event", False),
        (Action.PUBLISH, "devices//command", False),
        (Action.PUBLISH, "devices/sos-1/command/x", False),
    ],
)
def test_the_topics_of_the_server(action: Action, topic: str, allowed: bool) -> None:
    assert server_may(action, topic) is allowed


@pytest.mark.unit
def test_user_names_are_nobody_elses() -> None:
    server = ServerLogin("shouwang", "x")
    assert username_for("sos-1", server) == "sos-1"
    assert username_for("床头-1", server) == "床头-1"
    odd = ["AA:BB", "AA%3ABB", " AA", "shouwang"]
    names = [username_for(device, server) for device in odd]
    assert names == ["device/AA%3ABB", "AA%3ABB", "device/%20AA", "device/shouwang"]
    assert server_login("mqtts://shou%40wang:p%3Aw@broker") == ServerLogin("shou@wang", "p:w")
    assert server_login("mqtt://broker") is None
    assert "p:w" not in repr(server_login("mqtts://shou%40wang:p%3Aw@broker"))


@pytest.mark.unit
def test_mosquittos_files() -> None:
    devices = [Login("sos-1", "sos-1", "$7$1$a$b"), Login("device/A%3AB", "A:B", "$7$1$c$d")]
    text = password_file(devices, {"gateway": "$6$x$y"})
    assert read_passwords(text) == {"sos-1": "$7$1$a$b", "device/A%3AB": "$7$1$c$d", "gateway": "$6$x$y"}
    assert read_passwords("sos\u2028x:$7$1$a$b\r\n") == {
        "sos\u2028x": "$7$1$a$b"
    }  # a line ends where Mosquitto ends it
    assert text == password_file(devices[::-1], {"gateway": "$6$x$y"})
    own = server_password_file(ServerLogin("shouwang", "x"), "somebody's file")
    assert server_password_file(ServerLogin("shouwang", "x"), own) == own, "the same again"
    assert server_password_file(ServerLogin("shouwang", "y"), own) != own
    rules = access_file(devices, "user gateway\ntopic write zigbee2mqtt/#\n")
    assert "user sos-1" not in rules, "a pattern is enough"
    assert "user device/A%3AB\ntopic write devices/A:B/event\n" in rules
    assert rules.endswith("user gateway\ntopic write zigbee2mqtt/#\n")
    for bad in ("gateway", "gateway:", "gateway:clear text", ":$7$1$a$b"):
        with pytest.raises(BadFile, match="line 2"):
            read_passwords(f"# further\n{bad}\n")


@pytest.mark.unit
@pytest.mark.parametrize("secret", ["short", "a" * 64, "€" * 64])
def test_a_guessable_secret_of_the_broker_is_refused(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("SHOUWANG_MQTT_AUTH_SECRET", secret)
    with pytest.raises(SettingsError, match="SHOUWANG_MQTT_AUTH_SECRET") as refused:
        load()
    assert secret not in str(refused.value)


@pytest.mark.unit
def test_files_for_tls_are_looked_at_when_starting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOUWANG_MQTT_CA_FILE", str(tmp_path / "nowhere.crt"))
    with pytest.raises(SettingsError, match=r"MQTT_CA_FILE.*nowhere\.crt is not there"):
        load()
    (tmp_path / "ca.crt").write_text("no certificate")
    monkeypatch.setenv("SHOUWANG_MQTT_CA_FILE", str(tmp_path / "ca.crt"))
    with pytest.raises(SettingsError, match=r"ca\.crt is no file of certificates"):
        tls(load())
    monkeypatch.setenv("SHOUWANG_MQTT_CERT_FILE", str(tmp_path / "ca.crt"))
    with pytest.raises(SettingsError, match="go together"):
        load()


# --- over REST ------------------------------------------------------------------------------------------------------------


def ask(api: Api, method: str, device: str, **more: Any) -> requests.Response:
    return api.request(method, f"/devices/{device}/credentials", **more)


@live_story
def test_a_password_is_shown_once_and_then_only_that_it_is_there(live: Live) -> None:
    device = live.device(live.elder())
    assert ask(live.admin, "GET", device).json() == {
        "device_id": device, "state": "none", "username": None, "issued_at": None, "rotated_at": None, "revoked_at": None,
    }  # fmt: skip
    first = ask(live.admin, "POST", device)
    assert first.status_code == 201
    assert first.headers["Cache-Control"] == "no-store"
    given = first.json()
    assert given["topics"] == {
        "publish": [f"devices/{device}/event", f"devices/{device}/status"],
        "subscribe": [f"devices/{device}/command"],
    }
    seen = ask(live.admin, "GET", device).json()
    assert (seen["state"], seen["username"], seen["issued_at"]) == ("active", device, given["issued_at"])
    second = ask(live.admin, "POST", device).json()
    assert second["password"] != given["password"]
    assert second["issued_at"] == given["issued_at"]
    assert second["rotated_at"] is not None
    assert ask(live.admin, "DELETE", device).status_code == 204
    assert ask(live.admin, "DELETE", device).status_code == 404
    gone = ask(live.admin, "GET", device).json()
    assert (gone["state"], gone["revoked_at"] is not None) == ("revoked", True)
    assert live.rows("SELECT password_hash FROM device_credentials WHERE device_id = $1", device)[0][0] is None
    third = ask(live.admin, "POST", device).json()
    assert (third["rotated_at"], ask(live.admin, "GET", device).json()["state"]) == (None, "active")

    noted = live.rows("SELECT action, actor, detail FROM audit_log WHERE subject_id = $1 ORDER BY id", device)
    assert [row["action"] for row in noted if "credentials" in row["action"]] == [
        "device.credentials_issued", "device.credentials_rotated", "device.credentials_revoked",
        "device.credentials_issued",
    ]  # fmt: skip
    everything = json.dumps([dict(row) for row in noted], default=str) + live.log.read_text()
    for answer in (given, second, third):
        assert answer["password"] not in everything


@live_story
def test_a_repeated_post_shows_the_same_password_and_keeps_it_sealed(live: Live) -> None:
    device = live.device()
    key = {"Idempotency-Key": f"credentials-{device}"}
    first = ask(live.admin, "POST", device, headers=key)
    again = ask(live.admin, "POST", device, headers=key)
    assert again.json() == first.json(), "the first answer may have been lost on the way: no second password"
    assert again.headers["Idempotent-Replay"] == "true"
    assert again.headers["Cache-Control"] == "no-store"
    secret = first.json()["password"].encode()
    for table in ("idempotent_answers", "device_credentials", "audit_log"):
        rows = live.rows(f"SELECT * FROM {table}")
        assert rows
        for row in rows:
            for value in row.values():
                assert secret not in (value if isinstance(value, bytes) else str(value).encode()), table


@live_story
def test_credentials_are_for_those_who_manage_devices_of_their_region(live: Live) -> None:
    device = live.device(live.elder(live.village("370302001000")))
    ask(live.admin, "POST", device)
    near, far = live.user("supervisor", "370302001"), live.user("supervisor", "370302002")
    assert ask(near, "GET", device).status_code == 200
    for method in ("GET", "POST", "DELETE"):
        foreign, absent = ask(far, method, device), ask(far, method, "nowhere")
        assert (foreign.status_code, foreign.json()) == (404, absent.json())
        assert ask(live.anonymous, method, device).status_code == 401
        for role in ("operator", "auditor"):
            wanted = 200 if method == "GET" else 403  # that there is a password is no secret, giving one is a right
            assert ask(live.user(role, "370302001"), method, device).status_code == wanted
    assert ask(live.admin, "GET", device).json()["rotated_at"] is None, "nobody changed it"


@live_story
def test_the_server_says_that_its_embedded_broker_is_for_trying_out(live: Live) -> None:
    assert "MQTT: this is the embedded broker. It is for trying out" in live.log.read_text()
    root = live.base.removesuffix("/api/v1")
    found = {f["name"]: f for f in requests.get(f"{root}/readyz", timeout=10).json()["findings"]}
    assert not found["embedded_broker"]["blocking"]
    assert "device_without_credentials" not in found, "nobody is asked for a password there"


async def test_a_device_without_a_password_is_a_finding_where_the_broker_asks_for_one(world: World) -> None:
    elder = await world.elder()
    device = await world.device(elder, "button")
    await world.device(None, "in a drawer")

    async def found() -> tuple[str, ...]:
        findings = await world.findings(embedded_broker=False)
        assert "embedded_broker" not in findings
        return findings["device_without_credentials"].ids if "device_without_credentials" in findings else ()

    assert await found() == (device,)
    await world.password(device)
    assert await found() == ()
    await world.do("UPDATE device_credentials SET password_hash = NULL, revoked_at = now()")
    assert await found() == (device,)


# --- what EMQX asks -------------------------------------------------------------------------------------------------------


def emqx(live: Live, path: str, **body: Any) -> Any:
    """As EMQX 5 posts it with deploy/emqx/emqx.conf."""
    headers = {"x-broker-secret": live.broker_secret, "content-type": "application/json"}
    answer = live.anonymous.post(f"/mqtt/auth/{path}", data=json.dumps(body), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


ALLOW, DENY = {"result": "allow", "is_superuser": False}, {"result": "deny", "is_superuser": False}


@live_story
def test_emqx_lets_in_whom_we_know(live: Live) -> None:
    device, other = live.device(), live.device()
    password = ask(live.admin, "POST", device).json()["password"]
    theirs = ask(live.admin, "POST", other).json()["password"]

    def login(username: Any, given: Any, clientid: Any = device) -> Any:
        return emqx(live, "login", username=username, password=given, clientid=clientid)

    assert login(device, password) == ALLOW
    assert login(device, theirs) == DENY
    assert login(other, theirs, other) == ALLOW
    assert login(other, theirs, device) == DENY, "under another's client id it would take over its session"
    for username, given in (
        ("nobody", password), ("", password), (None, None), (device, None), (device, ""), ("undefined", "undefined"),
        (device + "\x00", password), ("shouwang", "shouwang"),
        (device.upper(), password), ("x" * 65_535, "x" * 65_535),
    ):  # fmt: skip
        assert login(username, given, username) == DENY
    assert emqx(live, "login") == DENY
    new = ask(live.admin, "POST", device).json()["password"]
    assert (login(device, password), login(device, new)) == (DENY, ALLOW)
    ask(live.admin, "DELETE", device)
    assert login(device, new) == DENY


@live_story
def test_emqx_allows_each_device_its_own_topics(live: Live) -> None:
    device, other, odd = live.device(), live.device(), "MAC:" + live.device()
    live.admin.made("/devices", device_id=odd, kind="sos_button")
    ask(live.admin, "POST", device), ask(live.admin, "POST", other)
    odd_name = ask(live.admin, "POST", odd).json()["username"]
    assert odd_name != odd

    def may(action: Any, topic: Any, username: Any = device) -> bool:
        answer = emqx(live, "topic", username=username, clientid=username, topic=topic, action=action)
        assert answer["result"] in ("allow", "deny")
        return bool(answer["result"] == "allow")

    assert may("publish", f"devices/{device}/event")
    assert may("publish", f"devices/{device}/status")
    assert may("subscribe", f"devices/{device}/command")
    assert may("publish", f"devices/{odd}/event", odd_name)
    for action, topic in (
        ("publish", f"devices/{other}/event"), ("publish", f"devices/{device}/command"), ("publish", f"devices/{odd}/event"),
        ("subscribe", f"devices/{other}/command"), ("subscribe", "devices/#"), ("subscribe", "devices/+/command"),
        ("subscribe", "#"), ("subscribe", "$SYS/#"), ("subscribe", f"devices/{device}/event"),
        ("all", f"devices/{device}/event"), ("", f"devices/{device}/event"), (None, f"devices/{device}/event"),
        ("publish", None), ("publish", ""),
    ):  # fmt: skip
        assert not may(action, topic), (action, topic)
    assert not may("publish", f"devices/{odd_name}/event", odd_name)
    assert not may("publish", "devices//event", "")
    assert not may("publish", "devices/undefined/event", "undefined")
    ask(live.admin, "DELETE", device)
    assert not may("publish", f"devices/{device}/event"), "revoked while it was connected"


@live_story
def test_only_our_broker_may_ask(live: Live) -> None:
    for path in ("login", "topic"):
        for headers in ({}, {"X-Broker-Secret": ""}, {"X-Broker-Secret": live.broker_secret[:-1]}):
            answer = live.anonymous.post(f"/mqtt/auth/{path}", json={}, headers=headers)
            assert answer.status_code == 401
            assert live.broker_secret not in answer.text
        # A person's token is no broker's secret.
        assert live.admin.post(f"/mqtt/auth/{path}", json={}).status_code == 401
    assert live.broker_secret not in live.log.read_text()


@pytest.mark.unit
async def test_without_a_secret_there_is_nothing() -> None:
    parts = SimpleNamespace(broker=BrokerTrust(embedded=False))
    request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(parts=parts)))
    for shown in (None, "", "x"):
        with pytest.raises(HTTPException) as refused:
            await broker._asked_by_our_broker(request, shown)
        assert refused.value.status_code == 404


async def test_the_servers_own_account_at_emqx(world: World) -> None:
    parts: Any = SimpleNamespace(
        broker=BrokerTrust(embedded=False, server=ServerLogin("shouwang", "correct horse"), secret="x"),
        lookups=Lookups(world.sessions),
    )

    async def login(password: str) -> str:
        question = LoginQuestion(username="shouwang", password=password, clientid="shouwang-1-ingest-0")
        answer = await broker_login(question, parts)
        assert not answer.is_superuser, "that would pass over the rules"
        return answer.result

    assert [await login("correct horse"), await login("wrong"), await login("")] == ["allow", "deny", "deny"]

    async def may(action: str, topic: str) -> str:
        return (await broker_topic(TopicQuestion(username="shouwang", topic=topic, action=action), parts)).result

    assert await may("subscribe", "$share/group/devices/+/event") == "allow"
    assert await may("publish", "devices/sos-1/command") == "allow"
    assert await may("publish", "devices/sos-1/event") == "deny"


async def test_many_who_ask_at_once_share_a_query_and_a_failure(world: World) -> None:
    devices = [await world.device(None, f"button-{number}") for number in range(20)]
    for device in devices:
        await world.password(device)
    asked = 0

    def sessions() -> Any:
        nonlocal asked
        asked += 1
        return world.sessions()

    lookups = Lookups(cast(Any, sessions))
    found = await asyncio.gather(*(lookups.login(name) for name in [*devices, *devices, "nobody"]))
    assert [login.device_id if login else None for login in found] == [*devices, *devices, None]
    assert asked <= 2
    await world.do("ALTER TABLE device_credentials RENAME TO elsewhere")
    failed = await asyncio.gather(*(lookups.login(name) for name in devices), return_exceptions=True)
    assert {type(error) for error in failed} == {ProgrammingError}
    await world.do("ALTER TABLE elsewhere RENAME TO device_credentials")
    assert await lookups.login(devices[0]) is not None


@pytest.mark.unit
def test_the_example_for_emqx_asks_what_we_answer() -> None:
    text = EMQX.read_text(encoding="utf-8")
    document = application.build(cast(Parts, None), roles=["api"]).openapi()
    asked = dict(re.findall(r'url = "http://[^/]+(/\S+)".*?body \{\n(.*?)\n +\}\n', text, re.DOTALL))
    assert set(asked) == {path for path in document["paths"] if "/mqtt/auth/" in path}
    for path, body in asked.items():
        fields = dict(re.findall(r'(\w+) = "\$\{(\w+)\}"', body))
        assert all(name == placeholder for name, placeholder in fields.items())
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert set(fields) == set(document["components"]["schemas"][schema.rpartition("/")[2]]["properties"])
    assert text.count('"x-broker-secret" = "REPLACE_ME"') == 2
    assert "no_match = deny" in text, "EMQX takes an error for «no opinion»"


# --- the register ---------------------------------------------------------------------------------------------------------


async def test_a_device_that_changes_hands_keeps_its_password_and_a_deleted_one_takes_it_along(world: World) -> None:
    """Who wears it is the register's matter; the device proves only that it is itself."""
    one, two = await world.elder("王桂英"), await world.elder("李秀兰")
    device = await world.device(one, "button")
    password = await world.password(device)
    for wearer in (None, two):
        await world.bind(device, wearer)
        kept = await world.value("SELECT password_hash FROM device_credentials")
        assert passwords.fits(password, kept)
    await world.do("DELETE FROM bindings")
    await world.do("DELETE FROM devices")
    assert await world.value("SELECT count(*) FROM device_credentials") == 0


async def test_a_row_that_is_revoked_can_hold_no_password(world: World) -> None:
    await world.password(await world.device(None, "button"))
    with pytest.raises(IntegrityError, match="revoked_has_no_password"):
        await world.do("UPDATE device_credentials SET revoked_at = now()")
