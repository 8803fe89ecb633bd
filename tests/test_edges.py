"""What stands before every route: headers, origins, limits, deadlines, ids, the page of the API. Real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest
import sqlalchemy as sa
import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from app.api import application, edges
from app.api.context import Parts
from app.api.protocol import MOST_HEAD, MOST_HEADERS, GuardedProtocol
from app.db import transaction
from app.settings import SettingsError, load
from scripts import audit
from tests.world import VILLAGE, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
live_group = pytest.mark.xdist_group("live-2")
ORIGIN = "https://front.example.org"


class Quick(GuardedProtocol):
    head_s = 0.4


@asynccontextmanager
async def served(app: Any, protocol: type = Quick) -> AsyncIterator[int]:
    """The application behind uvicorn on a free port, configured as `app/main.py` does."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=protocol, ws="none", log_config=None, access_log=False, server_header=False,
        timeout_keep_alive=30, lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


def product(**more: Any) -> FastAPI:
    """The product's application without its parts: enough for routes that need none."""
    return application.build(cast(Parts, None), roles=["api"], **more)


async def said(port: int, *pieces: bytes, gap_s: float = 0.0, wait_s: float = 3.0) -> tuple[bytes, float]:
    """Write these pieces, then read until the server closes: (what it said, seconds)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    heard = bytearray()

    async def read() -> None:
        while chunk := await reader.read(65536):
            heard.extend(chunk)

    reading = asyncio.create_task(read())
    with suppress(ConnectionError):
        for piece in pieces:
            if reading.done():
                break
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(gap_s)
    with suppress(ConnectionError):
        async with asyncio.timeout(wait_s):
            await reading
    writer.close()
    return bytes(heard), time.monotonic() - began


# --- headers for browsers --------------------------------------------------------------------------------------------


@live_group
def test_every_answer_carries_the_security_headers(live: Live) -> None:
    answers = [
        live.admin.get("/elders"), live.admin.get("/elders/nothing"), live.anonymous.get("/elders"),
        live.admin.get("/nowhere"), live.admin.delete("/elders"), live.admin.post("/elders", data=b"{" * 2_000_000),
        live.anonymous.post("/auth/token", data={"username": "x", "password": "y"}),
        *(live.anonymous.get(f"{live.base}/{p}") for p in
          ("healthz", "readyz", "metrics", "openapi.json", "asyncapi.json", "docs", "docs/start.js", "a/forged", "nowhere")),
    ]  # fmt: skip
    for answer in answers:
        headers, where = answer.headers, f"{answer.status_code} {answer.url}"
        assert headers["x-content-type-options"] == "nosniff", where
        assert headers["x-frame-options"] == "DENY", where
        assert headers["referrer-policy"] == "no-referrer", where
        assert "frame-ancestors 'none'" in headers["content-security-policy"], where
        assert "default-src 'none'" in headers["content-security-policy"], where
        assert "server" not in headers, where
        assert "x-powered-by" not in headers, where
        assert "strict-transport-security" not in headers, where  # PUBLIC_URL is http here
        assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"]), where
        if "/docs/" not in answer.url:
            assert headers["cache-control"] == "no-store", where


@live_group
def test_the_feed_is_not_kept_by_anybody(live: Live) -> None:
    with live.admin.get("/alarms/stream", stream=True) as answer:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"


async def test_a_server_behind_tls_says_so() -> None:
    async with served(product(https=True)) as port:
        heard, _ = await said(port, GET + b"Connection: close\r\n\r\n")
    assert b"strict-transport-security: max-age=31536000\r\n" in heard


# --- other origins ---------------------------------------------------------------------------------------------------


@live_group
def test_no_other_origin_may_call_unless_it_is_named(live: Live) -> None:
    for method in ("GET", "OPTIONS"):
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
        answer = live.admin.request(method, "/elders", headers=asked)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


async def test_a_named_origin_may_call_with_a_token_and_no_cookie() -> None:
    async with served(product(origins=[ORIGIN])) as port, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{port}"
        asked = {
            "Origin": ORIGIN, "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,if-match,idempotency-key,content-type",
        }  # fmt: skip
        async with http.options(f"{url}/api/v1/elders", headers=asked) as preflight:
            assert preflight.status == 200
            assert preflight.headers["access-control-allow-origin"] == ORIGIN
            assert "PATCH" in preflight.headers["access-control-allow-methods"]
        async with http.get(f"{url}/healthz", headers={"Origin": ORIGIN}) as answer:
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            exposed = answer.headers["access-control-expose-headers"]
            assert {"ETag", "X-Request-ID"} <= set(exposed.split(", "))
            assert "access-control-allow-credentials" not in answer.headers
            assert answer.headers["vary"] == "Origin"
        async with http.get(
            f"{url}/api/v1/elders/no", headers={"Origin": ORIGIN}
        ) as refused:  # an error is readable too
            assert refused.status >= 400
            assert refused.headers["access-control-allow-origin"] == ORIGIN
        for other in ("https://evil.example.org", "null", f"{ORIGIN}.evil.example.org", "http://front.example.org"):
            async with http.get(f"{url}/healthz", headers={"Origin": other}) as answer:
                assert "access-control-allow-origin" not in answer.headers
            async with http.options(f"{url}/healthz", headers={**asked, "Origin": other}) as preflight:
                assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.unit
@pytest.mark.parametrize("origins", ["*", "null", "front.example.org", f"{ORIGIN}/", f"{ORIGIN}/x", f"{ORIGIN},*"])
def test_origins_that_are_none_stop_the_start(origins: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        load(cors_origins=origins)


@pytest.mark.unit
def test_origins_are_listed_with_commas() -> None:
    assert load(cors_origins=f"{ORIGIN}, http://127.0.0.1:5173").allowed_origins == (ORIGIN, "http://127.0.0.1:5173")
    assert load().allowed_origins == ()


# --- large heads and bodies ------------------------------------------------------------------------------------------

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        GET + b"A: " + b"a" * MOST_HEAD + b"\r\n\r\n",
        GET + b"".join(b"H%d: x\r\n" % n for n in range(MOST_HEADERS + 1)) + b"\r\n",
        b"GET /" + b"a" * MOST_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        GET + b"A: " + b"a" * (MOST_HEAD + 10),  # that does not even end
    ],
)
async def test_a_head_that_is_too_large_is_refused(head: bytes) -> None:
    async with served(product()) as port:
        heard, _ = await said(port, head)
    assert heard.startswith(b"HTTP/1.1 431 ")
    assert json.loads(heard.partition(b"\r\n\r\n")[2])["status"] == 431


async def test_a_head_that_is_just_small_enough_passes() -> None:
    head = GET + b"A: " + b"a" * (MOST_HEAD - 200) + b"\r\nConnection: close\r\n\r\n"
    async with served(product()) as port:
        heard, _ = await said(port, head)
    assert heard.startswith(b"HTTP/1.1 200 ")


async def test_what_is_not_http_is_refused_like_anything_else() -> None:
    async with served(product()) as port:
        heard, _ = await said(port, b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in heard
    assert b"uvicorn" not in heard.lower()
    assert b"python" not in heard.lower()


@live_group
def test_a_body_that_is_too_large_is_refused_with_or_without_its_length(live: Live) -> None:
    kind = {"content-type": "application/json"}
    large = b'{"name":"' + b"a" * 1_100_000 + b'"}'
    for data in (large, iter([large[:600_000], large[600_000:]])):
        answer = live.admin.post("/regions", data=data, headers=kind)
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (413, "too-large")


# --- those who trickle -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece", [b"", b"A: b\r\n", b"\r\n"], ids=["says nothing", "trickles headers", "trickles empty lines"]
)
async def test_a_head_that_does_not_come_to_an_end_is_cut_off(piece: bytes) -> None:
    first = b"" if piece in (b"", b"\r\n") else GET
    async with served(product()) as port:
        _, took = await said(port, first or piece, *[piece] * 40, gap_s=0.05)
    assert took < 1.5


async def test_a_kept_connection_that_trickles_its_next_head_is_cut_off() -> None:
    async with served(product()) as port:
        heard, took = await said(port, GET + b"\r\n", GET, *[b"A: b\r\n"] * 40, gap_s=0.05)
    assert heard.count(b"HTTP/1.1 200") == 1
    assert took < 1.5


async def test_a_body_nobody_waits_for_does_not_keep_the_connection() -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    async with served(product()) as port:
        heard, took = await said(port, head, *[b"a"] * 60, gap_s=0.05)
    assert heard.startswith(b"HTTP/1.1 404 ")
    assert took < 1.5


def slow(**limits: float) -> FastAPI:
    """An application with slow routes behind the product's deadlines."""
    app = FastAPI()
    app.state.undone = []

    @app.post("/take")
    async def take(request: Request) -> int:
        return len(await request.body())

    @app.get("/think")
    async def think() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            app.state.undone.append("think")
            raise

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(4):
                await asyncio.sleep(0.3)
                yield b"data: %d\n\n" % number

        return StreamingResponse(pieces(), media_type="text/event-stream")

    @app.get("/flood")
    async def flood() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"a" * 1_000_000

        return StreamingResponse(pieces(), media_type="text/plain")

    app.add_middleware(edges.Deadlines, **limits)
    return app


async def test_a_body_that_trickles_is_cut_off() -> None:
    head = b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    chunked = b"POST /take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with served(slow(body_s=0.4)) as port:
        for first, piece in ((head, b"a"), (chunked, b"1\r\na\r\n")):
            heard, took = await said(port, first, *[piece] * 60, gap_s=0.05)
            assert heard.startswith(b"HTTP/1.1 408 ")
            assert json.loads(heard.partition(b"\r\n\r\n")[2])["type"].endswith("/too-slow")
            assert took < 2


async def test_a_handler_that_does_not_come_to_an_end_is_stopped() -> None:
    app = slow(answer_s=0.3)
    async with served(app) as port, aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{port}/think") as answer:
            assert (answer.status, answer.content_type) == (503, "application/problem+json")
            assert answer.headers["retry-after"] == "5"
        async with http.post(f"http://127.0.0.1:{port}/take", data=b"abc") as answer:
            assert await answer.text() == "3"
    assert app.state.undone == ["think"]


async def test_what_a_stopped_handler_had_begun_is_rolled_back(world: World) -> None:
    app = FastAPI()

    @app.post("/begin")
    async def begin() -> None:
        async with transaction(world.sessions) as session:
            await session.execute(sa.text("UPDATE regions SET name = 'changed' WHERE code = :code"), {"code": VILLAGE})
            await session.execute(sa.text("SELECT pg_sleep(20)"))

    app.add_middleware(edges.Deadlines, answer_s=0.3)
    async with served(app) as port, aiohttp.ClientSession() as http:
        for _ in range(12):  # more often than the pool has connections
            async with http.post(f"http://127.0.0.1:{port}/begin") as answer:
                assert answer.status == 503
    assert await world.value("SELECT name FROM regions WHERE code = :code", code=VILLAGE) != "changed"
    await world.do("UPDATE regions SET name = 'free' WHERE code = :code", code=VILLAGE)  # nobody holds the row


async def test_a_stream_of_events_may_last() -> None:
    async with served(slow(answer_s=0.4, stall_s=0.2)) as port:
        heard, _ = await said(port, b"GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert heard.count(b"data:") == 4


async def test_a_reader_that_does_not_read_is_left() -> None:
    async with served(slow(stall_s=0.4)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1.2)
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                while await reader.read(1_000_000):  # what was under way comes, and then the end
                    pass
        writer.close()


@live_group
def test_the_running_server_has_these_limits(live: Live) -> None:
    where = urlsplit(live.base)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=20) as slowloris:
        slowloris.sendall(GET)
        began = time.monotonic()
        assert slowloris.recv(1000) == b""
        assert 5 < time.monotonic() - began < 15
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=20) as large:
        large.sendall(GET + b"A: " + b"a" * 40_000 + b"\r\n\r\n")
        assert large.recv(1000).startswith(b"HTTP/1.1 431 ")


# --- request ids, and mistakes ---------------------------------------------------------------------------------------


@live_group
def test_a_request_keeps_its_id_or_gets_one(live: Live) -> None:
    def answered(brought: str) -> str:
        return str(
            live.anonymous.get(f"{live.base}/healthz", headers={"X-Request-ID": brought}).headers["x-request-id"]
        )

    assert answered("front-end.2026_11-23") == "front-end.2026_11-23"
    for strange in ("short", "a" * 65, "white space", "<script>alert(1)</script>", 'quote"quote'):
        assert re.fullmatch(r"[0-9a-f]{16}", answered(strange))
    assert answered("short") != answered("short")


async def test_our_own_mistake_says_its_id_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    app = product()
    who = "王桂英 13800000000"  # the log quotes the code, never the message

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError(who)

    structlog.reset_defaults()
    async with served(app) as port, aiohttp.ClientSession() as http:
        headers = {"X-Request-ID": "looked-for-1", "Origin": ORIGIN}
        async with http.get(f"http://127.0.0.1:{port}/broken", headers=headers) as answer:
            problem, text = await answer.json(content_type=None), await answer.text()
            assert (answer.status, answer.content_type) == (500, "application/problem+json")
            assert answer.headers["x-content-type-options"] == "nosniff"
        async with http.get(f"http://127.0.0.1:{port}/absent", headers=headers) as absent:
            assert "request_id" not in await absent.json(content_type=None)
    assert problem["request_id"] == "looked-for-1"
    for word in ("Traceback", "ValueError", "王桂英", "13800000000", "broken", ".py"):
        assert word not in text
    printed = capsys.readouterr()
    assert "looked-for-1" in printed.out + printed.err
    assert "13800000000" not in printed.out + printed.err


# --- the page of the API ---------------------------------------------------------------------------------------------


@live_group
def test_the_page_of_the_api_loads_nothing_from_elsewhere(live: Live) -> None:
    page = live.anonymous.get(f"{live.base}/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert "//" not in page.text
    assert "<script>" not in page.text  # the policy lets no inline script run
    kinds = {"js": "text/javascript", "css": "text/css"}
    for file in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        answer = live.anonymous.get(f"{live.base}/{file}")
        assert answer.status_code == 200, file
        assert answer.headers["content-type"].startswith(kinds[file.rpartition(".")[2]])
        assert len(answer.content) > 100
    start = live.anonymous.get(f"{live.base}/docs/start.js").text
    assert "openapi.json" in start
    assert live.anonymous.get(f"{live.base}/docs/..%2f..%2fpyproject.toml").status_code in (404, 422)
    assert live.anonymous.get(f"{live.base}/redoc").status_code == 404


# --- the audit of the dependencies -----------------------------------------------------------------------------------


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


WELL = {"name": "yarl", "version": "1.25.1", "vulns": []}
ILL = {
    "name": "aiohttp", "version": "3.0", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3.1"]}],
}  # fmt: skip
MISSED = {"name": "uv", "skip_reason": "not found"}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("packages", "allowed", "well", "word"),
    [
        ([WELL], "", True, "1 packages audited"),
        ([WELL, ILL], "", False, "VULNERABLE: aiohttp 3.0: PYSEC-1; mended in: 3.1"),
        ([WELL, ILL], "CVE-1  we never parse that", True, "allowed: aiohttp 3.0: CVE-1 (we never parse that)"),
        ([WELL], "CVE-1  long ago", True, "take it off the list: CVE-1"),
        ([WELL, MISSED], "", True, "NOT AUDITED, no data: uv"),
        ([MISSED], "", True, "NOT AUDITED: no advisory data can be reached"),
    ],
)
def test_the_audit_says_what_it_found_and_what_it_could_not(
    packages: list[dict[str, Any]], allowed: str, well: bool, word: str
) -> None:
    lines, good = audit.judge(audit.read_report(report(*packages)), audit.read_allowed(allowed))
    assert good is well
    assert any(word in line for line in lines), lines


@pytest.mark.unit
def test_a_vulnerability_is_allowed_only_with_a_reason() -> None:
    with pytest.raises(SystemExit, match="no reason"):
        audit.read_allowed("CVE-1")
    audit.read_allowed(Path(".ci/allowed-vulnerabilities").read_text(encoding="utf-8"))
    assert "scripts.audit --lock requirements.lock" in Path(".ci/run").read_text(encoding="utf-8")
