"""What stands before every route: an id, a limit for bodies, and a net for our own mistakes."""

from __future__ import annotations

import re
import secrets
import traceback
from collections.abc import Mapping

import anyio
import structlog
from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.api.problems import answer

log = logs.get("api")
_STREAM_ENDED = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class Mistakes:
    """Our own mistakes become a problem and a log line. The line has where, not what: a message may quote a person."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - the outermost place: nothing above could do better
            if started and _reader_left(error):
                return
            log.error("mistake", error=type(error).__name__, where="".join(traceback.format_tb(error.__traceback__)))
            if not started:
                await answer(500, "internal", "the server made a mistake; it is in its log")(scope, receive, send)


def _reader_left(error: Exception) -> bool:
    """A watcher of the feed closed the connection while a fact was on its way to it: no mistake."""
    return isinstance(error, ExceptionGroup) and error.split(_STREAM_ENDED)[1] is None


class RequestIds:
    """Each request has an id: the one it brought, when that is harmless, or a new one. The answer, the audit log, the log
    lines of this request and the problem of our own mistake say it."""

    _HARMLESS = re.compile(rb"[A-Za-z0-9._-]{8,64}")

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        brought = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = brought if self._HARMLESS.fullmatch(brought) else secrets.token_hex(8).encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            await self._app(scope, receive, told)


class BodyLimit:
    """A body that says it is too large is refused unread; one that turns out to be is refused when it does. `larger`:
    paths that take more."""

    def __init__(self, app: ASGIApp, *, most: int, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._most = most
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._larger.get(scope["path"], self._most)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told[:20]) > most:
            await answer(413, "too-large", _too_large(most))(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, _too_large(most))
            return message

        await self._app(scope, counted, send)


def _too_large(most: int) -> str:
    return f"a body has at most {most} bytes here"
