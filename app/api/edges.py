"""The outermost layers: headers for browsers, who may call from another origin, and how long a request may take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.api.problems import answer

log = logs.get("api")

BODY_S = 30.0  # a body has arrived whole
ANSWER_S = 30.0  # after that, an answer has begun
STALL_S = 60.0  # a reader takes the next piece of an answer
_EVENTS = b"text/event-stream"

# What a front end's own code may send and read. Answers carry no cookie that counts: callers bring a bearer token.
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SENT = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "Last-Event-ID", "X-Request-ID")
_READ = (
    "ETag",
    "X-Request-ID",
    "Location",
    "Retry-After",
    "Idempotent-Replay",
    "WWW-Authenticate",
    "Content-Disposition",
)

_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
}
# A page says itself what it needs (`/a/{token}`, `/docs`); everything else is no page.
_NO_PAGE = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PERSONAL = ("/api/", "/a/")


class SecurityHeaders:
    """Every answer says what a browser may do with it, and that nobody keeps a copy. `https`: the server is reached by
    TLS, and browsers shall not try without."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._always = dict(_ALWAYS)
        if https:
            self._always[b"strict-transport-security"] = b"max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        personal = scope["path"].startswith(_PERSONAL)

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower(): value for name, value in message.get("headers", [])}
                added = {**self._always, b"content-security-policy": _NO_PAGE, b"cache-control": b"no-store"}
                kept = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    if not (personal and name.lower() == b"cache-control")
                ]
                missing = [
                    (name, value)
                    for name, value in added.items()
                    if name not in given or (personal and name == b"cache-control")
                ]
                message = {**message, "headers": kept + missing}
            await send(message)

        await self._app(scope, receive, dressed)


def cross_origin(app: ASGIApp, *, origins: Sequence[str]) -> ASGIApp:
    """Pages of these origins may call from a browser, with a token they hold, never with cookies; no others may."""
    return CORSMiddleware(
        app, allow_origins=list(origins), allow_methods=_METHODS, allow_headers=_SENT, expose_headers=_READ,
        allow_credentials=False, max_age=600,
    )  # fmt: skip


class Deadlines:
    """A body that trickles in is cut off (408), a handler that does not come to an end is stopped and its transaction
    rolled back (503), a reader that does not read is left. Streams of events may last. `slow_bodies`: paths whose bodies
    may take longer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        body_s: float = BODY_S,
        answer_s: float = ANSWER_S,
        stall_s: float = STALL_S,
        slow_bodies: Mapping[str, float] | None = None,
    ) -> None:
        self._app = app
        self._body_s = body_s
        self._slow_bodies = slow_bodies or {}
        self._answer_s = answer_s
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        now = asyncio.get_running_loop().time
        waiting = _brings_a_body(scope)  # for its body
        started = lasting = False
        body_s = self._slow_bodies.get(scope["path"], self._body_s)

        def allow(seconds: float | None) -> None:
            if not limit.expired():  # what is said while everything is being stopped changes nothing
                limit.reschedule(None if seconds is None else now() + seconds)

        async def taken() -> Message:
            nonlocal waiting
            message = await receive()
            if waiting and not message.get("more_body", False):
                waiting = False
                if not started:
                    allow(self._answer_s)
            return message

        async def watched(message: Message) -> None:
            nonlocal started, lasting
            if message["type"] == "http.response.start":
                started = True
                lasting = any(
                    n.lower() == b"content-type" and v.startswith(_EVENTS) for n, v in message.get("headers", [])
                )
            allow(None if lasting else self._stall_s)
            await send(message)

        try:
            async with asyncio.timeout(body_s if waiting else self._answer_s) as limit:
                await self._app(scope, taken, watched)
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning("cut off", waiting_for="body" if waiting else "reader" if started else "answer")
            if not started:
                await _too_late(waiting, body_s)(scope, receive, send)


def _brings_a_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _too_late(waiting: bool, body_s: float) -> ASGIApp:
    if waiting:
        detail = f"the body did not arrive within {body_s:g} s"
        return answer(408, "too-slow", detail, headers={"Connection": "close"})
    detail = "the answer took too long; try again, with an Idempotency-Key where something is to be changed"
    return answer(503, "unavailable", detail, headers={"Retry-After": "5"})
