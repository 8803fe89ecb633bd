"""Channels against real servers on this machine that answer as each provider documents. All people are invented."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from standardwebhooks import Webhook as Verifier
from yarl import URL

from app.errors import ChannelNotConfigured, InvalidInput
from app.ids import NoticeId
from app.notify.channel import Channels, GiveUp, Letter, Outcome, Sent, TryAgain
from app.notify.channels import aliyun, build
from app.notify.channels._addresses import is_private
from app.notify.channels._failures import said
from app.notify.channels._http import Http
from app.notify.channels.email import Email
from app.notify.channels.robots import DingTalk, Feishu, GroupRobot, WeCom
from app.notify.channels.webhook import Webhook
from app.notify.vocabulary import ChannelKind
from app.settings import Settings

NOTICE = NoticeId(UUID("0193a0f0-0000-7000-8000-0123456789ab"))
PHONE = "+8613800000000"
ROBOT_KEY = "0f1e2d3c-aaaa-bbbb-cccc-invented0001"
SIGNING = "whsec_" + base64.b64encode(b"an invented signing secret").decode()
PATHS = {WeCom: "/cgi-bin/webhook/send?key=", DingTalk: "/robot/send?access_token=", Feishu: "/open-apis/bot/v2/hook/"}
ROBOTS = list(PATHS)


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, allow_private_webhooks=True, **values)


def letter(address: str, secret: str | None = None, **changes: Any) -> Letter:
    made = Letter(
        notice_id=NOTICE,
        address=address,
        secret=secret,
        title="【守望】紧急报警:张秀英 紧急呼叫",
        text="按下了紧急呼叫按钮。请立即应答。\n应答:https://care.example.org/a/token",
        short={
            "name": "张秀英",
            "kind": "紧急呼叫",
            "because": "按下了紧急呼叫按钮",
            "link": "https://care.example.org/a/token",
        },
        payload={"type": "alarm.raised", "data": {"alarm": {"because": "按下了紧急呼叫按钮"}}},
        composed_at=datetime.now(UTC),
    )
    return replace(made, **changes)


def why(outcome: Outcome, sent: Letter, *more: str) -> str:
    """The reason of a failure, after looking for everything that must not be in it."""
    assert not isinstance(outcome, Sent)
    parts = [sent.address, sent.secret or ROBOT_KEY, PHONE, PHONE[3:], ROBOT_KEY, "127.0.0.1", "张秀英", "http", *more]
    for private in parts:
        assert private not in outcome.why
    assert 0 < len(outcome.why) < 200
    return outcome.why


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: bytes
    query: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Provider:
    """A server that answers what the test says and remembers what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    seen: list[Seen] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.path, headers, await request.read(), dict(request.query)))
        await asyncio.sleep(self.delay_s)
        return web.Response(status=self.status, body=self.body, headers=self.headers)

    def says(self, status: int = 200, body: Any = None, **headers: str) -> None:
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body or {}).encode()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    channel = Webhook(Http(allow_private=True, timeout_s=0.5), allow_private=True)
    yield channel
    await channel.close()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


# --- the registry


@pytest.mark.unit
def test_every_kind_has_a_channel_except_the_elders_device() -> None:
    channels = build(settings())
    missing = [kind for kind in ChannelKind if channels.get(kind) is None]
    assert missing == [ChannelKind.DEVICE]
    assert all(channels.get(kind).kind is kind for kind in ChannelKind if kind not in missing)


@pytest.mark.unit
def test_two_channels_of_one_kind_stop_the_start() -> None:
    http = Http(allow_private=False)
    with pytest.raises(ValueError, match="two channels"):
        Channels(Webhook(http, allow_private=False), Webhook(http, allow_private=False))


# --- webhook


async def test_a_webhook_carries_the_payload_and_a_signature_that_verifies(
    provider: Provider, webhook: Webhook
) -> None:
    china = datetime.now(timezone(timedelta(hours=8)))
    sent = letter(provider.url + "/hook?front=1", SIGNING, composed_at=china)
    assert await webhook.send(sent) == Sent()
    seen = provider.seen[0]
    assert Verifier(SIGNING).verify(seen.body, seen.headers) == sent.payload
    assert seen.headers["webhook-id"] == str(NOTICE)
    assert seen.headers["webhook-timestamp"] == str(int(china.timestamp()))
    assert seen.headers["content-type"] == "application/json"
    assert "按下了紧急呼叫按钮".encode() in seen.body, "UTF-8, not escaped"
    assert b": " not in seen.body, "compact"


async def test_a_webhook_without_a_secret_goes_unsigned(provider: Provider, webhook: Webhook) -> None:
    assert await webhook.send(letter(provider.url)) == Sent()
    assert "webhook-signature" not in provider.seen[0].headers


@pytest.mark.parametrize("secret", ["whsec_", "whsec_A", "whsec_!", "守望"])
async def test_a_broken_signing_secret_is_told_and_nothing_is_sent(
    provider: Provider, webhook: Webhook, secret: str
) -> None:
    sent = letter(provider.url, secret)
    outcome = await webhook.send(sent)
    assert isinstance(outcome, GiveUp)
    assert "signing secret" in outcome.why
    assert provider.seen == []


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_2xx_means_sent_whatever_the_body_says(provider: Provider, webhook: Webhook, status: int) -> None:
    provider.says(status, b"" if status == 204 else b"\xff\x00 not json")
    assert await webhook.send(letter(provider.url, SIGNING)) == Sent()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(s, TryAgain) for s in (408, 425, 429, 500, 502, 503, 504)] + [(s, GiveUp) for s in (400, 401, 403, 404, 410)],
)
async def test_other_statuses_are_worth_another_try_or_not(
    provider: Provider, webhook: Webhook, status: int, kind: type[Outcome]
) -> None:
    provider.says(status, b"somebody at " + PHONE.encode())
    sent = letter(provider.url, SIGNING)
    outcome = await webhook.send(sent)
    assert type(outcome) is kind
    assert str(status) in why(outcome, sent)
    assert len(provider.seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(provider: Provider, webhook: Webhook, status: int) -> None:
    provider.says(status, Location=provider.url + "/elsewhere")
    sent = letter(provider.url + "/hook")
    outcome = await webhook.send(sent)
    assert isinstance(outcome, GiveUp)
    assert "redirects are not followed" in why(outcome, sent)
    assert [seen.path for seen in provider.seen] == ["/hook"]


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("7", 7),
        ("0", 0),
        ("3600", 60),
        ("9" * 5000, 60),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("soon", None),
    ],
)
async def test_retry_after_is_honoured_up_to_a_minute(
    provider: Provider, webhook: Webhook, value: str, after_s: float | None
) -> None:
    provider.says(503, Retry_After=value)
    outcome = await webhook.send(letter(provider.url))
    assert isinstance(outcome, TryAgain)
    assert outcome.after_s == after_s


async def test_a_receiver_that_hangs_is_left_after_the_timeout(provider: Provider, webhook: Webhook) -> None:
    provider.delay_s = 5
    sent = letter(provider.url)
    began = time.monotonic()
    outcome = await webhook.send(sent)
    assert time.monotonic() - began < 2
    assert isinstance(outcome, TryAgain)
    assert "no answer within 0.5 s" in why(outcome, sent)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{closed}/h", "http://name.invalid/h", "https://127.0.0.1:{open}/h"]
)
async def test_a_network_that_fails_is_worth_another_try(
    provider: Provider, webhook: Webhook, closed_port: int, address: str
) -> None:
    sent = letter(address.format(closed=closed_port, open=URL(provider.url).port), SIGNING)
    outcome = await webhook.send(sent)
    assert isinstance(outcome, TryAgain)
    why(outcome, sent, "name.invalid", str(closed_port))


@asynccontextmanager
async def rude_server(answers_a_connection: int, answer: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """Answers so many requests on each connection and closes at the next one, without a word."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        mine = len(connections) - 1
        while await reader.read(65536) and connections[mine] < answers_a_connection:
            connections[mine] += 1
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections
    server.close()


async def test_a_kept_connection_that_the_receiver_closes_costs_the_alarm_no_wait(webhook: Webhook) -> None:
    async with rude_server(1, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (url, connections):
        assert await webhook.send(letter(url)) == Sent()
        assert await webhook.send(letter(url)) == Sent()
        assert connections == [1, 1]


async def test_a_receiver_that_always_hangs_up_is_tried_twice_and_then_later(webhook: Webhook) -> None:
    async with rude_server(0, b"") as (url, connections):
        sent = letter(url)
        outcome = await webhook.send(sent)
        assert isinstance(outcome, TryAgain)
        why(outcome, sent)
        assert len(connections) == 2


async def test_a_body_that_never_ends_does_not_undo_a_2xx(webhook: Webhook) -> None:
    async with rude_server(1, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok") as (url, _):
        assert await webhook.send(letter(url)) == Sent()


async def test_an_answer_that_is_not_http_is_worth_another_try(webhook: Webhook) -> None:
    async with rude_server(1, b"220 mail.example.org ESMTP\r\n") as (url, _):
        sent = letter(url)
        outcome = await webhook.send(sent)
        assert isinstance(outcome, TryAgain)
        why(outcome, sent)


async def test_a_mistake_inside_a_channel_becomes_an_outcome(webhook: Webhook) -> None:
    sent = letter("http://127.0.0.1/h", payload={"unknown to JSON": object()})
    outcome = await webhook.send(sent)
    assert isinstance(outcome, TryAgain)
    assert why(outcome, sent) == "unexpected TypeError"


INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
]
OUTSIDE = ["1.1.1.1", "47.95.0.1", "2400:3200::1", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.unit
@pytest.mark.parametrize("host", INSIDE)
def test_addresses_inside_are_private(host: str) -> None:
    assert is_private(host)


@pytest.mark.unit
@pytest.mark.parametrize("host", OUTSIDE)
def test_addresses_outside_are_not(host: str) -> None:
    assert not is_private(host)


@pytest.fixture
async def guarded() -> AsyncIterator[Webhook]:
    channel = Webhook(Http(allow_private=False, timeout_s=0.5), allow_private=False)
    yield channel
    await channel.close()


@pytest.mark.parametrize("host", INSIDE)
async def test_private_addresses_are_refused_early_and_at_sending(guarded: Webhook, host: str) -> None:
    address = f"http://[{host}]/h" if ":" in host else f"http://{host}/h"
    with pytest.raises(InvalidInput, match="private network"):
        guarded.check_address(address)
    sent = letter(address)
    outcome = await guarded.send(sent)
    assert isinstance(outcome, GiveUp)
    assert "private network" in why(outcome, sent)


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "0x7f.0.0.1", "localhost", "localhost."])
async def test_other_spellings_of_this_machine_reach_nothing(provider: Provider, guarded: Webhook, host: str) -> None:
    sent = letter(f"http://{host}:{URL(provider.url).port}/h")
    outcome = await guarded.send(sent)
    assert not isinstance(outcome, Sent)
    why(outcome, sent)
    assert provider.seen == []


class Changing(AbstractResolver):
    """A name server in bad hands: each look-up gives the next of the addresses."""

    def __init__(self, *turns: list[str]) -> None:
        self.turns = list(turns)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        family = socket.AF_INET
        found = self.turns.pop(0)
        return [{"hostname": host, "host": ip, "port": port, "family": family, "proto": 0, "flags": 0} for ip in found]

    async def close(self) -> None: ...


async def test_a_name_that_turns_to_a_private_address_later_is_refused(provider: Provider) -> None:
    channel = Webhook(
        Http(allow_private=False, timeout_s=0.5, resolver=lambda: Changing(["127.0.0.1"])), allow_private=False
    )
    address = channel.check_address(f"http://rebinding.example.org:{URL(provider.url).port}/h")
    sent = letter(address)
    outcome = await channel.send(sent)
    assert isinstance(outcome, GiveUp)
    assert "private network" in why(outcome, sent, "rebinding")
    assert provider.seen == []
    await channel.close()


async def test_where_private_networks_are_allowed_the_same_name_is_reached(provider: Provider) -> None:
    http = Http(allow_private=True, resolver=lambda: Changing(["127.0.0.1"]))
    channel = Webhook(http, allow_private=True)
    assert await channel.send(letter(f"http://closed.example.org:{URL(provider.url).port}/h")) == Sent()
    await channel.close()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("address", "normal"),
    [
        (" https://Front.Example.org/h?a=1#part ", "https://front.example.org/h?a=1"),
        ("http://front.example.org:8080", "http://front.example.org:8080"),
        ("https://1.1.1.1/h", "https://1.1.1.1/h"),
    ],
)
def test_good_webhook_addresses_come_back_in_one_form(address: str, normal: str) -> None:
    channel = Webhook(Http(allow_private=False), allow_private=False)
    assert channel.check_address(address) == normal
    assert channel.check_address(normal) == normal


@pytest.mark.unit
@pytest.mark.parametrize(
    "address",
    [
        "",
        "front.example.org",
        "ftp://front.example.org/",
        "file:///etc/passwd",
        "https://",
        "https:///h",
        "https://user@front.example.org/",
        "https://user:opensesame@front.example.org/",
        "https://front.example.org:99999/",
        "https://front.example.org/a b",
        "https://front.example.org/\r\nHost: x",
        "https://[::1/",
        "https://front.example.org/" + "a" * 2000,
    ],
)
def test_bad_webhook_addresses_are_refused_in_words(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Webhook(Http(allow_private=False), allow_private=False).check_address(address)
    assert refused.value.field == "address"
    assert "opensesame" not in refused.value.detail


# --- group robots


@pytest.fixture(params=ROBOTS)
async def robot(request: pytest.FixtureRequest) -> AsyncIterator[GroupRobot]:
    channel: GroupRobot = request.param(Http(allow_private=True, timeout_s=0.5), any_host=True)
    yield channel
    await channel.close()


def robot_url(robot: GroupRobot, provider: Provider) -> str:
    return provider.url + PATHS[type(robot)] + ROBOT_KEY


def accepted(robot: GroupRobot) -> dict[str, Any]:
    return {"code": 0, "msg": "success", "data": {}} if robot.kind == "feishu" else {"errcode": 0, "errmsg": "ok"}


def refusal(robot: GroupRobot, code: int, message: str = "refused") -> dict[str, Any]:
    return {"code": code, "msg": message} if robot.kind == "feishu" else {"errcode": code, "errmsg": message}


async def test_a_robot_says_title_and_text(robot: GroupRobot, provider: Provider) -> None:
    provider.says(200, accepted(robot))
    sent = letter(robot.check_address(robot_url(robot, provider)))
    assert await robot.send(sent) == Sent()
    text = f"{sent.title}\n{sent.text}"
    expected = (
        {"msg_type": "text", "content": {"text": text}}
        if robot.kind == "feishu"
        else {"msgtype": "text", "text": {"content": text}}
    )
    assert provider.seen[0].json == expected
    assert ROBOT_KEY in str(provider.seen[0])


async def test_dingtalk_signs_the_time_in_the_query(provider: Provider) -> None:
    robot = DingTalk(Http(allow_private=True), any_host=True)
    provider.says(200, accepted(robot))
    sent = letter(robot_url(robot, provider), "SECinvented+/=")
    assert await robot.send(sent) == Sent()
    query = provider.seen[0].query
    millis = str(int(sent.composed_at.timestamp() * 1000))
    mac = hmac.new(b"SECinvented+/=", f"{millis}\nSECinvented+/=".encode(), hashlib.sha256).digest()
    assert query == {"access_token": ROBOT_KEY, "timestamp": millis, "sign": base64.b64encode(mac).decode()}
    await robot.close()


async def test_feishu_signs_the_time_in_the_body(provider: Provider) -> None:
    robot = Feishu(Http(allow_private=True), any_host=True)
    provider.says(200, accepted(robot))
    sent = letter(robot_url(robot, provider), "invented")
    assert await robot.send(sent) == Sent()
    body = provider.seen[0].json
    seconds = str(int(sent.composed_at.timestamp()))
    mac = hmac.new(f"{seconds}\ninvented".encode(), b"", hashlib.sha256).digest()
    assert (body["timestamp"], body["sign"]) == (seconds, base64.b64encode(mac).decode())
    await robot.close()


async def test_an_older_feishu_robot_answers_status_code(provider: Provider) -> None:
    robot = Feishu(Http(allow_private=True), any_host=True)
    sent = letter(robot_url(robot, provider))
    provider.says(200, {"StatusCode": 0, "StatusMessage": "success"})
    assert await robot.send(sent) == Sent()
    provider.says(200, {"StatusCode": 19001, "StatusMessage": "param invalid"})
    assert await robot.send(sent) == GiveUp("code 19001: param invalid")
    await robot.close()


REFUSALS = [
    (WeCom, 93000, "invalid webhook url, hint: [1700000000000000000000], from ip: 1.1.1.1", GiveUp),
    (WeCom, 40058, "text.content exceed max length 2048", GiveUp),
    (WeCom, 45009, "api freq out of limit", TryAgain),
    (WeCom, -1, "system busy", TryAgain),
    (DingTalk, 310000, "keywords not in content, more: [https://ding-doc.dingtalk.com/doc]", GiveUp),
    (DingTalk, 300001, "token is not exist", GiveUp),
    (DingTalk, 130101, "send too fast, exceed 20 times per minute", TryAgain),
    (DingTalk, 410100, "发送速度太快而限流", TryAgain),
    (DingTalk, -1, "系统繁忙", TryAgain),
    (Feishu, 19021, "sign match fail or timestamp is not within one hour from current time", GiveUp),
    (Feishu, 19024, "Key Words Not Found", GiveUp),
    (Feishu, 9499, "Bad Request", GiveUp),
    (Feishu, 9499, "too many request", TryAgain),
    (Feishu, 11232, "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]", TryAgain),
]


@pytest.mark.parametrize(("made", "code", "message", "kind"), REFUSALS)
async def test_http_200_with_a_code_is_a_failure(
    provider: Provider, made: type[GroupRobot], code: int, message: str, kind: type[Outcome]
) -> None:
    robot = made(Http(allow_private=True), any_host=True)
    provider.says(200, refusal(robot, code, message))
    sent = letter(robot_url(robot, provider))
    outcome = await robot.send(sent)
    assert type(outcome) is kind
    assert f"code {code}" in why(outcome, sent, "1700000000")
    if isinstance(outcome, TryAgain):
        assert outcome.after_s
    await robot.close()


async def test_a_rate_limit_is_seen_through_any_http_status(robot: GroupRobot, provider: Provider) -> None:
    provider.says(400, refusal(robot, max(robot.busy)))
    assert isinstance(await robot.send(letter(robot_url(robot, provider))), TryAgain)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>log in to the network</html>", TryAgain),
        (200, b"\xff\xfe", TryAgain),
        (200, b"[]", TryAgain),
        (200, b"{}", TryAgain),
        (200, b'{"code": "0", "errcode": null}', TryAgain),
        (500, b'{"code": 0, "errcode": 0}', TryAgain),
        (502, b"bad gateway", TryAgain),
        (429, b"", TryAgain),
        (302, b"", GiveUp),
        (404, b"", GiveUp),
    ],
)
async def test_an_answer_a_robot_should_not_give(
    robot: GroupRobot, provider: Provider, status: int, body: bytes, kind: type[Outcome]
) -> None:
    provider.says(status, body, Location="/elsewhere")
    sent = letter(robot_url(robot, provider))
    outcome = await robot.send(sent)
    assert type(outcome) is kind
    why(outcome, sent)


async def test_a_provider_that_repeats_the_request_does_not_get_it_into_the_reason(
    robot: GroupRobot, provider: Provider
) -> None:
    sent = letter(robot_url(robot, provider), "short")
    provider.says(200, refusal(robot, 99999, f"{sent.address} {ROBOT_KEY} short {PHONE} a@example.org " + "x" * 500))
    outcome = await robot.send(sent)
    assert isinstance(outcome, GiveUp)
    why(outcome, sent, "example.org", "short")


async def test_a_robot_out_of_reach_is_tried_again(robot: GroupRobot, closed_port: int, provider: Provider) -> None:
    sent = letter(f"http://127.0.0.1:{closed_port}/hook/{ROBOT_KEY}")
    outcome = await robot.send(sent)
    assert isinstance(outcome, TryAgain)
    why(outcome, sent)
    provider.delay_s = 5
    assert isinstance(await robot.send(letter(robot_url(robot, provider))), TryAgain)


async def test_a_text_too_long_for_the_robot_keeps_its_link(provider: Provider) -> None:
    robot = WeCom(Http(allow_private=True), any_host=True)
    provider.says(200, accepted(robot))
    sent = letter(robot_url(robot, provider), text="很长的说明。" * 500 + "\n应答:https://care.example.org/a/token")
    assert await robot.send(sent) == Sent()
    content = provider.seen[0].json["text"]["content"]
    assert len(content.encode()) <= 2048
    assert content.startswith(sent.title)
    assert content.endswith("https://care.example.org/a/token")
    await robot.close()


@pytest.mark.unit
@pytest.mark.parametrize("made", ROBOTS)
def test_a_robot_lives_at_its_providers_host(made: type[GroupRobot]) -> None:
    robot = made(Http(allow_private=False), any_host=False)
    good = f"https://{robot.hosts[0]}{PATHS[made]}{ROBOT_KEY}"
    assert robot.check_address(f" {good} ") == good
    for bad in (
        good.replace("https", "http"),
        good.replace(robot.hosts[0], "robots.example.org"),
        good.replace(robot.hosts[0], robot.hosts[0] + ".example.org"),
        good.replace(robot.hosts[0], robot.hosts[0] + ":8443"),
        good.replace("https://", "https://user@"),
        f"https://{robot.hosts[0]}/elsewhere?key={ROBOT_KEY}",
        "hello",
    ):
        with pytest.raises(InvalidInput) as refused:
            robot.check_address(bad)
        assert ROBOT_KEY not in refused.value.detail


# --- e-mail


class Mailbox:
    """What the mail server does with a letter."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.envelopes: list[Any] = []
        self.rcpt = "250 OK"
        self.data = "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.envelopes.append(envelope)
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        return self.data


@pytest.fixture
def mail(closed_port: int) -> Iterator[tuple[Mailbox, str]]:
    def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = (data.login, data.password) == (b"alarm@example.org", b"p@ss")
        return AuthResult(success=right, handled=False)  # not handled: the server itself answers 535

    box = Mailbox()
    running = Controller(box, hostname="127.0.0.1", port=closed_port, authenticator=login, auth_require_tls=False)
    running.start()
    yield box, f"127.0.0.1:{closed_port}"
    running.stop()


def email(where: str, sender: str = "守望 <alarm@example.org>") -> Email:
    return Email(settings(smtp_url=where, smtp_from=sender), timeout_s=1)


async def test_an_email_has_the_title_as_subject_and_the_text_as_body(mail: tuple[Mailbox, str]) -> None:
    box, where = mail
    sent = letter("neighbour@example.org", title="【守望】紧急报警:张秀英\r\nBcc: x@example.org")
    assert await email(f"smtp://alarm%40example.org:p%40ss@{where}").send(sent) == Sent()
    (message,) = box.messages
    assert message["Subject"] == "【守望】紧急报警:张秀英 Bcc: x@example.org", "a title adds no header"
    assert message["Bcc"] is None
    assert message.get_content().replace("\r\n", "\n").strip() == sent.text
    assert message["From"] == "守望 <alarm@example.org>"
    assert message["Message-ID"] == f"<{NOTICE}@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert box.envelopes[0].mail_from == "alarm@example.org"
    assert box.envelopes[0].rcpt_tos == ["neighbour@example.org"]


@pytest.mark.parametrize(
    ("stage", "reply", "kind"),
    [
        ("rcpt", "550 no such user neighbour@example.org", GiveUp),
        ("rcpt", "450 mailbox busy neighbour@example.org", TryAgain),
        ("data", "554 refused neighbour@example.org", GiveUp),
        ("data", "451 later", TryAgain),
        ("data", "421 going down", TryAgain),
    ],
)
async def test_5xx_is_for_good_and_4xx_is_not(
    mail: tuple[Mailbox, str], stage: str, reply: str, kind: type[Outcome]
) -> None:
    box, where = mail
    setattr(box, stage, reply)
    sent = letter("neighbour@example.org")
    outcome = await email(f"smtp://{where}").send(sent)
    assert type(outcome) is kind
    assert reply[:3] in why(outcome, sent)


async def test_a_wrong_mail_password_is_for_good_and_stays_unsaid(mail: tuple[Mailbox, str]) -> None:
    sent = letter("neighbour@example.org")
    outcome = await email(f"smtp://alarm%40example.org:wrongword@{mail[1]}").send(sent)
    assert isinstance(outcome, GiveUp)
    assert "535" in why(outcome, sent, "wrongword", "alarm@")


async def test_starttls_that_is_not_offered_is_not_skipped(mail: tuple[Mailbox, str]) -> None:
    sent = letter("neighbour@example.org")
    outcome = await email(f"smtp+starttls://{mail[1]}").send(sent)
    assert isinstance(outcome, GiveUp)
    assert "STARTTLS" in why(outcome, sent)
    assert mail[0].messages == []


async def test_a_mail_server_out_of_reach_is_tried_again(mail: tuple[Mailbox, str]) -> None:
    sent = letter("neighbour@example.org")
    for where in ("smtp://127.0.0.1:1", "smtp://name.invalid", f"smtps://{mail[1]}"):
        outcome = await email(where).send(sent)
        assert isinstance(outcome, TryAgain), where
        why(outcome, sent, "name.invalid")


async def test_a_mail_server_that_never_greets_is_left() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sent = letter("neighbour@example.org")
    outcome = await Email(settings(smtp_url=url, smtp_from="alarm@example.org"), timeout_s=0.2).send(sent)
    assert isinstance(outcome, TryAgain)
    assert "in time" in why(outcome, sent)
    server.close()


@pytest.mark.unit
def test_email_addresses_are_checked() -> None:
    channel = email("smtp://127.0.0.1")
    assert channel.check_address(" First.Last+x@Example.ORG ") == "First.Last+x@example.org"
    for bad in ("", "nobody", "a@b", "a b@example.org", "a@example.org,b@example.org", "a@example.org\nBcc: b@c.org"):
        with pytest.raises(InvalidInput, match="looks like"):
            channel.check_address(bad)


@pytest.mark.unit
async def test_email_without_settings_names_them() -> None:
    channel = Email(settings())
    with pytest.raises(ChannelNotConfigured, match=r"SHOUWANG_SMTP_URL and SHOUWANG_SMTP_FROM"):
        channel.check_address("neighbour@example.org")
    assert isinstance(await channel.send(letter("neighbour@example.org")), GiveUp)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("url", "sender", "named"),
    [
        ("http://mail.example.org", "a@example.org", "SMTP_URL"),
        ("smtp://", "a@example.org", "SMTP_URL"),
        ("smtp://mail.example.org:99999", "a@example.org", "SMTP_URL"),
        ("smtps://mail.example.org", "nobody", "SMTP_FROM"),
    ],
)
def test_mail_settings_that_cannot_work_are_named(url: str, sender: str, named: str) -> None:
    with pytest.raises(ChannelNotConfigured, match=named):
        email(url, sender).check_address("neighbour@example.org")


# --- text messages and calls


def aliyun_settings(provider: Provider | None, **changes: Any) -> Settings:
    where = provider.url if provider else "http://127.0.0.1:1"
    values = {
        "aliyun_access_key_id": "LTAIinvented",
        "aliyun_access_key_secret": "inventedword",
        "aliyun_sms_sign_name": "守望",
        "aliyun_sms_template": "SMS_1",
        "aliyun_voice_template": "TTS_1",
        "aliyun_sms_endpoint": where,
        "aliyun_voice_endpoint": where,
    }
    return settings(**(values | changes))


@pytest.fixture(params=[aliyun.Sms, aliyun.Voice])
async def phone(request: pytest.FixtureRequest, provider: Provider) -> AsyncIterator[aliyun.Aliyun]:
    channel = request.param(aliyun_settings(provider), timeout_s=0.5)
    yield channel
    await channel.close()


OK = {"Code": "OK", "Message": "OK", "RequestId": "R-1", "BizId": "biz^0", "CallId": "call^0"}


async def test_a_text_message_fills_the_template(provider: Provider) -> None:
    provider.says(200, OK)
    channel = aliyun.Sms(aliyun_settings(provider))
    sent = letter(PHONE)
    long = replace(sent, short={**sent.short, "because": "很" * 60, "link": "https://care.example.org/" + "t" * 60})
    assert await channel.send(long) == Sent(provider_id="biz^0")
    query = provider.seen[0].query
    assert provider.seen[0].headers["x-acs-action"] == "SendSms"
    assert (query["PhoneNumbers"], query["SignName"], query["TemplateCode"]) == (PHONE[3:], "守望", "SMS_1")
    assert query["OutId"] == str(NOTICE)
    variables = json.loads(query["TemplateParam"])
    assert variables["name"] == "张秀英"
    assert len(variables["because"]) == 35, "the service refuses a longer one"
    assert variables["link"] == long.short["link"], "a link that is cut leads nowhere"
    await channel.close()


async def test_a_call_reads_the_template_without_the_link(provider: Provider) -> None:
    provider.says(200, OK)
    channel = aliyun.Voice(aliyun_settings(provider, aliyun_voice_show_number="05330000000"))
    assert await channel.send(letter("+865332345678")) == Sent(provider_id="call^0")
    query = provider.seen[0].query
    assert provider.seen[0].headers["x-acs-action"] == "SingleCallByTts"
    assert (query["CalledNumber"], query["CalledShowNumber"], query["TtsCode"]) == (
        "05332345678",
        "05330000000",
        "TTS_1",
    )
    assert sorted(json.loads(query["TtsParam"])) == ["because", "kind", "name"]
    assert len(query["OutId"]) == 15
    assert NOTICE.hex.endswith(query["OutId"])
    await channel.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("isv.BUSINESS_LIMIT_CONTROL", TryAgain),
        ("isv.FLOW_LIMIT", TryAgain),
        ("isp.SYSTEM_ERROR", TryAgain),
        ("Throttling.User", TryAgain),
        ("isv.MOBILE_NUMBER_ILLEGAL", GiveUp),
        ("isv.AMOUNT_NOT_ENOUGH", GiveUp),
        ("isv.SMS_TEMPLATE_ILLEGAL", GiveUp),
        ("isv.PARAM_LENGTH_LIMIT", GiveUp),
        ("isv.DAY_LIMIT_CONTROL", GiveUp),
        ("isp.RAM_PERMISSION_DENY", GiveUp),
    ],
)
async def test_http_200_with_another_code_than_ok_is_a_failure(
    provider: Provider, phone: aliyun.Aliyun, code: str, kind: type[Outcome]
) -> None:
    provider.says(200, {"Code": code, "Message": f"{PHONE} 张秀英", "RequestId": "R-1"})
    sent = letter(PHONE)
    outcome = await phone.send(sent)
    assert type(outcome) is kind
    assert why(outcome, sent, "inventedword", "LTAI") == f"code {code}"
    assert len(provider.seen) == 1, "the SDK does not repeat on its own"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, {"Code": "InvalidAccessKeyId.NotFound", "Message": "LTAIinvented"}, GiveUp),
        (403, {"Code": "SignatureDoesNotMatch", "Message": "inventedword"}, GiveUp),
        (400, {"Code": "Throttling.User", "Message": "slow down"}, TryAgain),
        (503, {"Code": "ServiceUnavailable", "Message": "later"}, TryAgain),
        (500, {"Code": f"call {PHONE}", "Message": ""}, TryAgain),
        (500, b"<html>", TryAgain),
        (200, b"<html>", TryAgain),
        (200, b"[]", TryAgain),
        (200, b"{}", TryAgain),
    ],
)
async def test_an_error_of_the_gateway_is_sorted_too(
    provider: Provider, phone: aliyun.Aliyun, status: int, body: Any, kind: type[Outcome]
) -> None:
    provider.says(status, body, Content_Type="application/json")
    sent = letter(PHONE)
    outcome = await phone.send(sent)
    assert type(outcome) is kind
    why(outcome, sent, "inventedword", "LTAI")
    assert len(provider.seen) == 1


async def test_a_service_out_of_reach_is_tried_again(
    provider: Provider, phone: aliyun.Aliyun, closed_port: int
) -> None:
    provider.delay_s = 2
    sent = letter(PHONE)
    began = time.monotonic()
    slow = await phone.send(sent)
    assert time.monotonic() - began < 1.5
    nobody = f"http://127.0.0.1:{closed_port}"
    gone = type(phone)(aliyun_settings(None, aliyun_sms_endpoint=nobody, aliyun_voice_endpoint=nobody))
    for outcome in (slow, await gone.send(sent)):
        assert isinstance(outcome, TryAgain)
        why(outcome, sent, "inventedword")
    await gone.close()


@pytest.mark.unit
@pytest.mark.parametrize("text", ["13800000000", "138 0000 0000", "+86 138-0000-0000", "0086 13800000000"])
def test_phone_numbers_come_back_in_one_form(text: str) -> None:
    assert aliyun.Sms(aliyun_settings(None)).check_address(text) == PHONE


@pytest.mark.unit
@pytest.mark.parametrize("text", ["", "12345", "1380000000", "hello", "+1 000"])
def test_what_is_no_phone_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="looks like"):
        aliyun.Voice(aliyun_settings(None)).check_address(text)


@pytest.mark.unit
def test_a_landline_can_be_called_but_not_texted() -> None:
    assert aliyun.Voice(aliyun_settings(None)).check_address("0533-2345678") == "+865332345678"
    with pytest.raises(InvalidInput, match="mobile"):
        aliyun.Sms(aliyun_settings(None)).check_address("0533-2345678")


@pytest.mark.unit
async def test_missing_aliyun_settings_are_named() -> None:
    channel = aliyun.Sms(settings(aliyun_access_key_id="LTAIinvented"))
    with pytest.raises(ChannelNotConfigured) as refused:
        channel.check_address(PHONE)
    assert "SHOUWANG_ALIYUN_ACCESS_KEY_SECRET, SHOUWANG_ALIYUN_SMS_SIGN_NAME" in refused.value.detail
    assert "ACCESS_KEY_ID" not in refused.value.detail
    assert isinstance(await channel.send(letter(PHONE)), GiveUp)


@pytest.mark.unit
async def test_without_the_extra_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliyun.Sms, "package", "alibabacloud_not_installed")
    channel = aliyun.Sms(aliyun_settings(None))
    with pytest.raises(ChannelNotConfigured, match=r"shouwang\[aliyun\]"):
        channel.check_address(PHONE)
    sent = letter(PHONE)
    outcome = await channel.send(sent)
    assert isinstance(outcome, GiveUp)
    assert "shouwang[aliyun]" in why(outcome, sent)


# --- console, and words


@pytest.mark.unit
async def test_the_console_shows_the_title_on_one_line() -> None:
    stream = io.StringIO()
    channel = build(settings(), console=stream).get(ChannelKind.CONSOLE)
    assert channel is not None
    assert await channel.send(letter("value of no interest", title="【守望】\n张秀英")) == Sent()
    assert stream.getvalue() == "【守望】 张秀英\n"
    assert channel.check_address("  anything at all ") == "anything at all"
    with pytest.raises(InvalidInput):
        channel.check_address("x" * 201)


@pytest.mark.unit
async def test_the_console_writes_to_standard_output_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    channel = build(settings()).get(ChannelKind.CONSOLE)
    assert channel is not None
    assert await channel.send(letter("x")) == Sent()
    assert capsys.readouterr().out == letter("x").title + "\n"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("invalid token", "invalid token"),
        ("see https://help.example.org/a?b=c now", "see … now"),
        ("number 13800000000未找到", "number …未找到"),
        ("number +86 138-0000-0000", "number …"),
        ("key 0f1e2d3c-aaaa-bbbb-cccc-invented0001", "key …"),
        ("code 93000", "code 93000"),
        (None, ""),
        (["list"], ""),
    ],
)
def test_a_providers_words_are_kept_without_what_is_private(message: Any, kept: str) -> None:
    assert said(message) == kept
