"""The application in this process, asked without a network: for tests that ask it thousands of things."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI

BASE = "/api/v1"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: FastAPI,
    method: str,
    path: str,
    *,
    token: str | None = None,
    query: Mapping[str, Any] | None = None,
    body: Any = None,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    at_most_s: float | None = None,
) -> Answer:
    """One request. `at_most_s`: hang up after so long, with what has come until then (a stream)."""
    content = b""
    sent = {"host": "shouwang.test", **{name.lower(): value for name, value in (headers or {}).items()}}
    if form is not None:
        content, sent["content-type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
    elif body is not None:
        content, sent["content-type"] = json.dumps(body, default=str).encode(), "application/json"
    sent["content-length"] = str(len(content))
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method.upper(), "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": urlencode(query or {}, doseq=True).encode(),
        "root_path": "", "headers": [(n.encode(), v.encode()) for n, v in sent.items()],
        "client": ("127.0.0.1", 50000), "server": ("shouwang.test", 80), "state": {},
    }  # fmt: skip
    hung_up = asyncio.Event()
    asked = [{"type": "http.request", "body": content, "more_body": False}]
    got: dict[str, Any] = {"status": 0, "headers": {}, "body": b""}

    async def receive() -> dict[str, Any]:
        if asked:
            return asked.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got["status"] = message["status"]
            got["headers"] = {n.decode(): v.decode() for n, v in message["headers"]}
        elif message["type"] == "http.response.body":
            got["body"] += message.get("body", b"")

    if at_most_s is not None:
        asyncio.get_running_loop().call_later(at_most_s, hung_up.set)
    await app(scope, receive, send)  # type: ignore[arg-type]
    return Answer(got["status"], got["headers"], got["body"])
