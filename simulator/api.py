"""A small client of the REST API: what the simulator needs, with sentences when something is refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from simulator.terminal import SimulatorError

BASE = "/api/v1"
Json = dict[str, Any]


class ApiError(SimulatorError):
    """The server refused. `type` is the last part of the problem's type."""

    def __init__(self, status: int, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.type = kind


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One event of the alarm feed."""

    id: str
    type: str
    data: Json


class Api:
    """One logged-in session. Use it as an async context."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._username = username
        self._password = password
        self._token = ""
        self._refresh = ""
        self._renewing = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        try:
            await self.log_in()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use `async with Api(…)`")
        return self._session

    async def log_in(self) -> None:
        """Fetch a token. Raises `SimulatorError` that says whether the address or the password is wrong."""
        await self._fetch_tokens({"username": self._username, "password": self._password})

    async def _renew(self, stale: str) -> None:
        """After a 401: one of those who share this session renews for all. A refresh token is good once, so two at the
        same time would end the log-in; when it is over, the password opens a new one."""
        async with self._renewing:
            if self._token != stale:
                return
            try:
                await self._fetch_tokens({"grant_type": "refresh_token", "refresh_token": self._refresh})
            except ApiError as error:
                if error.status != 401:
                    raise
                await self.log_in()

    async def _fetch_tokens(self, form: dict[str, str]) -> None:
        try:
            async with self.session.post(f"{self.url}{BASE}/auth/token", data=form) as answer:
                if answer.status >= 400:
                    raise await _refusal("POST", f"{BASE}/auth/token", answer)
                given = await answer.json()
                self._token, self._refresh = given["access_token"], given["refresh_token"]
        except aiohttp.ClientError as error:
            raise SimulatorError(f"no server answers at {self.url} ({error}); is it started, is --url right?") from None

    async def get(self, path: str, **params: str | int) -> Any:
        return await self.call("GET", path, params=params)

    async def post(self, path: str, body: Json, *, key: str | None = None) -> Any:
        return await self.call("POST", path, body=body, key=key)

    async def put(self, path: str, body: Json) -> Any:
        return await self.call("PUT", path, body=body)

    async def patch(self, path: str, body: Json) -> Any:
        return await self.call("PATCH", path, body=body)

    async def items(self, path: str, **params: str | int) -> list[Json]:
        """All pages of a list."""
        found: list[Json] = []
        query: dict[str, str | int] = {"limit": 200, **params}
        while True:
            page = await self.get(path, **query)
            found.extend(page["items"])
            if not page.get("next_cursor"):
                return found
            query["cursor"] = page["next_cursor"]

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Mapping[str, str | int] | None = None,
        key: str | None = None,
    ) -> Any:
        """One call; a token that ran out is renewed once. Raises `ApiError`."""
        for attempt in (1, 2):
            token = self._token
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            if key is not None:
                headers["Idempotency-Key"] = key
            try:
                async with self.session.request(
                    method, f"{self.url}{BASE}{path}", json=body, params=params, headers=headers
                ) as answer:
                    if answer.status == 401 and attempt == 1:
                        await self._renew(token)
                        continue
                    if answer.status >= 400:
                        raise await _refusal(method, path, answer)
                    text = await answer.text()
                    return json.loads(text) if text else None
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ApiError(0, "unreachable", f"{method} {path}: no answer from {self.url} ({error!r})") from None
        raise AssertionError("unreachable")

    async def answer_link(self, link: str, body: Json) -> Json:
        """Answer an alarm as a contact does: without an account, by the link in the notice."""
        try:
            async with self.session.post(link, json=body, headers={"Accept": "application/json"}) as answer:
                if answer.status >= 400:
                    raise await _refusal("POST", "the answer link", answer)
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, "unreachable", f"the answer link does not answer ({error!r})") from None
        try:
            found = json.loads(text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @asynccontextmanager
    async def feed(self, after: str | None = None) -> AsyncIterator[AsyncIterator[FeedItem]]:
        """The alarm feed (SSE), from `after` on when given. Entered once the server has accepted the stream. It ends when
        the token does: enter it again after the last id."""
        endless = aiohttp.ClientTimeout(total=None, sock_connect=10)
        for attempt in (1, 2):
            token = self._token
            headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
            if after is not None:
                headers["Last-Event-ID"] = after
            async with self.session.get(
                f"{self.url}{BASE}/alarms/stream", headers=headers, timeout=endless, read_bufsize=2**20
            ) as answer:
                if answer.status == 401 and attempt == 1:
                    await self._renew(token)
                    continue
                if answer.status >= 400:
                    raise await _refusal("GET", "/alarms/stream", answer)
                yield _feed_items(answer)
                return


async def _feed_items(answer: aiohttp.ClientResponse) -> AsyncIterator[FeedItem]:
    fields: dict[str, str] = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\r\n")
        if line:
            if not line.startswith(":"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                fields[name] = f"{fields['data']}\n{value}" if name == "data" and "data" in fields else value
            continue
        if "id" in fields:  # an id without data tells where the stream begins
            data = json.loads(fields["data"]) if "data" in fields else {}
            yield FeedItem(fields["id"], fields.get("event", "message") if data else "begins", data)
        fields = {}


def key_for(*parts: object) -> str:
    """An Idempotency-Key that is the same for the same parts."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return "sim-" + hashlib.sha256(text.encode()).hexdigest()[:40]


async def _refusal(method: str, path: str, answer: aiohttp.ClientResponse) -> ApiError:
    text = await answer.text()
    try:
        problem = json.loads(text)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return ApiError(answer.status, "", f"{method} {path}: {answer.status} {text[:200]}")
    kind = str(problem.get("type", "")).rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    said = problem.get("detail") or problem.get("title") or ""
    more = problem.get("errors")
    detail = f"{said} {json.dumps(more, ensure_ascii=False)[:400]}" if more else str(said)
    return ApiError(answer.status, kind, f"{method} {path}: {answer.status} {kind}: {detail}")


async def until_ready(url: str, seconds: float) -> None:
    """Wait until the server answers `/healthz`. Raises `SimulatorError` when it does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            try:
                async with session.get(f"{url.rstrip('/')}/healthz") as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            if loop.time() > end:
                raise SimulatorError(f"no server answers at {url}; is it started, is --url right?")
            await asyncio.sleep(0.2)
