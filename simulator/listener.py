"""The phones of the simulated people: an HTTP server that takes webhooks at `/hook/{person}` and checks who signed.

A person's key may name a second phone: `/hook/{person}.2`. Each path can be told to be dead, broken or silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from simulator.terminal import SimulatorError

DEFAULT_PORT = 18400


@dataclass(slots=True)
class Heard:
    """One webhook that arrived. `signed`: True good, False bad, None: the secret is not known here."""

    path: str
    notice_id: str
    type: str
    data: dict[str, Any]
    signed: bool | None
    at: float  # the loop's time
    matched: bool = False  # an expectation of a scenario has used it
    again: bool = False  # the same notice came before

    @property
    def alarm(self) -> dict[str, Any]:
        alarm = self.data.get("alarm")
        return alarm if isinstance(alarm, dict) else {}

    @property
    def elder_id(self) -> str:
        elder = self.alarm.get("elder")
        return str(elder.get("id", "")) if isinstance(elder, dict) else ""

    @property
    def ack_url(self) -> str:
        return str(self.data.get("ack_url") or "")


class Listener:
    """Takes webhooks. Use it as an async context; `url(path)` is what to give to the server."""

    def __init__(self, listen: str = "127.0.0.1:0", hook_host: str | None = None) -> None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit():
            raise SimulatorError(f"--listen {listen!r} is not host:port, for example 127.0.0.1:0")
        self._host, self._port = host, int(port)
        self._hook_host = hook_host or ("127.0.0.1" if host in ("0.0.0.0", "::") else host)  # noqa: S104
        self._runner: web.AppRunner | None = None
        self._secrets: dict[str, str] = {}
        self._answers: dict[str, int | str] = {}
        self._seen: set[tuple[str, str]] = set()
        self.heard: dict[str, list[Heard]] = defaultdict(list)
        self.refused: dict[str, int] = defaultdict(int)
        self.on_heard: Callable[[Heard], None] | None = None
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**20)
        app.router.add_post("/hook/{person}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.3)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise SimulatorError(
                f"cannot listen on {self._host}:{self._port} ({error.strerror or error}); give --listen host:0"
            ) from None
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._runner.cleanup(), 1)

    @property
    def base_url(self) -> str:
        return f"http://{self._hook_host}:{self._port}"

    def url(self, path: str) -> str:
        """The address of a person's phone."""
        return f"{self.base_url}/hook/{path}"

    def trust(self, path: str, secret: str | None) -> None:
        """Check what comes to this path with this secret (`whsec_…`)."""
        if secret:
            self._secrets[path] = secret

    def answer_with(self, path: str, answer: int | str) -> None:
        """From now on this path answers with a status, or `hang`s. 200 = well again."""
        self._answers[path] = answer

    async def wait_for(self, found: Callable[[], Heard | None], seconds: float) -> Heard | None:
        """The first thing `found` names within the time, or None."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with self._news:
            while (got := found()) is None:
                left = end - loop.time()
                if left <= 0:
                    return None
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), left)
        return got

    async def _take(self, request: web.Request) -> web.Response:
        path = request.match_info["person"]
        answer = self._answers.get(path, 200)
        if answer == "hang":
            self.refused[path] += 1
            await asyncio.sleep(120)
            return web.Response(status=504)
        if answer != 200:
            self.refused[path] += 1
            return web.Response(status=int(answer))
        heard = self._read(path, request, await request.text())
        if heard is None:
            return web.Response(status=400, text="not a webhook of Shouwang")
        if heard.signed is False:
            self.heard[path].append(heard)
            return web.Response(status=401, text="the signature is not right")
        async with self._news:
            self.heard[path].append(heard)
            self._news.notify_all()
        if self.on_heard is not None and not heard.again:
            self.on_heard(heard)
        return web.Response(status=204)

    def _read(self, path: str, request: web.Request, text: str) -> Heard | None:
        try:
            body = json.loads(text)
            kind, data = str(body["type"]), dict(body["data"])
        except (ValueError, KeyError, TypeError):
            return None
        notice = request.headers.get("webhook-id", "")
        again = (path, notice) in self._seen
        self._seen.add((path, notice))
        signed = _signed(self._secrets.get(path), text, dict(request.headers))
        return Heard(path, notice, kind, data, signed, asyncio.get_running_loop().time(), again=again)


def _signed(secret: str | None, text: str, headers: dict[str, str]) -> bool | None:
    if secret is None:
        return None
    try:
        Webhook(secret).verify(text, {name.lower(): value for name, value in headers.items()})
    except WebhookVerificationError:
        return False
    return True
