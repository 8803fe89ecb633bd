"""Two `shouwang serve --roles api` on one database, for the stories in which processes must agree. Access tokens live for
six seconds there; the first process trusts the proxy 127.0.0.1, the second trusts nobody."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import requests
from sqlalchemy.engine import make_url

from app.embedded.broker import free_port
from app.embedded.postgres import EmbeddedPostgres
from tests.live import PASSWORD, Api, soon
from tests.world import DATA_KEY, TOKEN_KEY

TOKEN_SECONDS = 6


@dataclass
class Pair:
    url: str
    first: Api  # anonymous callers
    second: Api
    environment: dict[str, str]

    def token(self, api: Api, username: str, password: str, *, address: str = "", **more: Any) -> requests.Response:
        """A try to log in, as if from `address`."""
        headers = {"X-Forwarded-For": address} if address else {}
        return requests.post(
            f"{api.base}/api/v1/auth/token", data={"username": username, "password": password}, headers=headers,
            timeout=20, **more,
        )  # fmt: skip

    def admin(self, api: Api | None = None) -> Api:
        api = api or self.first
        answer = self.token(api, "admin", PASSWORD)
        assert answer.status_code == 200, answer.text
        return Api(api.base, answer.json()["access_token"])

    async def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        url = make_url(self.url)
        connection = await asyncpg.connect(host=url.query["host"], user="postgres", database=url.database)
        try:
            return await connection.fetch(query, *values)
        finally:
            await connection.close()


@pytest.fixture(scope="module")
async def pair(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[Pair]:
    name = f"pair_{os.getpid()}"
    maker = await asyncpg.connect(host=make_url(postgres.url()).query["host"], user="postgres", database="postgres")
    await maker.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    url, folder = postgres.url(name), Path(tempfile.mkdtemp(prefix="sw-pair-"))
    servers, apis = [], []
    environment = {n: v for n, v in os.environ.items() if not n.startswith("SHOUWANG_")}
    environment |= {
        "SHOUWANG_DATABASE_URL": url, "SHOUWANG_MQTT_URL": "mqtt://127.0.0.1:1", "SHOUWANG_DATA_DIR": str(folder),
        "SHOUWANG_DATA_KEY": base64.b64encode(DATA_KEY).decode(), "SHOUWANG_ADMIN_PASSWORD": PASSWORD,
        "SHOUWANG_TOKEN_KEY": base64.b64encode(TOKEN_KEY).decode(),
        "SHOUWANG_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS),
    }  # fmt: skip
    try:
        for trusted in ("127.0.0.1", ""):
            port = free_port(0)
            own = {"SHOUWANG_HTTP_PORT": str(port), "SHOUWANG_TRUSTED_PROXIES": trusted}
            with (folder / f"{port}.log").open("wb") as log:
                servers.append(
                    subprocess.Popen(
                        [str(Path(sys.executable).with_name("shouwang")), "serve", "--roles", "api"],
                        env=environment | own, stdout=log, stderr=log, cwd=folder,
                    )
                )  # fmt: skip
            apis.append(Api(f"http://127.0.0.1:{port}"))
            soon(lambda port=port: _healthy(port), within_s=60)
        yield Pair(url, apis[0], apis[1], environment)
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
        for server in servers:
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
        await maker.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await maker.close()


def _healthy(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    except requests.ConnectionError:
        return False
