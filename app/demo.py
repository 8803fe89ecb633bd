"""`shouwang demo`: the server on embedded parts, the simulator beside it, and the alarms on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp
from rich.cells import set_cell_size
from rich.console import Console
from rich.markup import escape

from app.embedded.broker import free_port
from app.embedded.parts import Embedded
from app.main import serve
from app.settings import ROLES, Settings, kept_secret
from app.words import say

_COLOURS = {"critical": "bold red", "major": "red", "minor": "yellow", "warning": "cyan"}
_WORDS = {
    "alarm.raised": "ALARM 报警", "alarm.repeated": "again 再次", "alarm.escalated": "escalated 升级",
    "alarm.calmed": "«I am fine» 平安", "alarm.acknowledged": "answered 已应答",
    "alarm.reopened": "promise passed 逾期", "alarm.attending": "on the spot 到场", "alarm.resolved": "CLOSED 结束",
    "alarm.unreachable": "NOBODY REACHABLE 无人可达", "alarm.commented": "comment 备注",
    "notice.sent": "told 已通知", "notice.failed": "not told 未通知",
}  # fmt: skip
_COLUMN = 20  # cells: a Chinese sign takes two


def run(load: Callable[..., Settings]) -> None:
    """Run until Ctrl-C. Everything it started ends with it; its data stays in DATA_DIR/demo for the next time."""
    given = load()
    data_dir = given.data_dir / "demo"
    settings = load(
        data_dir=data_dir,
        http_port=free_port(given.http_port),
        mqtt_port=free_port(given.mqtt_port),
        admin_password=kept_secret(data_dir / "admin-password", lambda: secrets.token_urlsafe(9)),
        allow_private_webhooks=True,
        log_level="ERROR",
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]Shouwang 守望[/] — starting PostgreSQL, the MQTT broker and the server …")
    watcher = threading.Thread(target=_beside, args=(settings, console), daemon=True)
    watcher.start()
    try:
        serve(settings, ROLES, embedded=Embedded(settings))
    except KeyboardInterrupt:
        pass
    finally:
        _end_children()
        console.print("Stopped. `make demo` goes on from here.")


_children: list[subprocess.Popen[bytes]] = []


def _end_children() -> None:
    for child in _children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _beside(settings: Settings, console: Console) -> None:
    """In a thread of its own: wait for the server, start the simulator, print the feed."""
    base = f"http://{settings.http_host}:{settings.http_port}"
    password = settings.admin_password.get_secret_value()
    with contextlib.suppress(aiohttp.ClientError):  # the server stops, or never came up and says so itself
        asyncio.run(_watch(base, settings, password, console))


async def _watch(base: str, settings: Settings, password: str, console: Console) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=2)) as http:
        last = ""
        while True:  # the stream ends with its token: log in again and go on after the last event
            token = await _log_in(http, base, settings.admin_username, password)
            if not last:
                _introduce(console, base, settings, password)
            headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": last}
            async with http.get(f"{base}/api/v1/alarms/stream", headers=headers) as stream:
                if not _children:
                    _children.append(_simulator(base, settings, password))
                async for line in stream.content:
                    if line.startswith(b"id:"):
                        last = line[3:].strip().decode()
                    elif line.startswith(b"data:"):
                        _show(console, json.loads(line[5:]))


async def _log_in(http: aiohttp.ClientSession, base: str, username: str, password: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            form = {"username": username, "password": password}
            async with http.post(f"{base}/api/v1/auth/token", data=form) as answer:
                return str((await answer.json())["access_token"])
        except (aiohttp.ClientError, KeyError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def _simulator(base: str, settings: Settings, password: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "simulator",
        "demo-village",
        "--url",
        base,
        "--mqtt",
        f"mqtt://127.0.0.1:{settings.mqtt_port}",
        "--username",
        settings.admin_username,
    ]
    log = open(settings.data_dir / "simulator.log", "ab")  # noqa: SIM115 - handed to the child
    return subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, "SIMULATOR_PASSWORD": password}
    )


def _introduce(console: Console, base: str, settings: Settings, password: str) -> None:
    console.print(f"""
  API and its documentation   {base}/docs   ({base}/openapi.json, {base}/asyncapi.json)
  ready? measured?            {base}/readyz   {base}/metrics
  MQTT                        mqtt://127.0.0.1:{settings.mqtt_port}   (asks no device who it is: for trying out only)
  administrator               {settings.admin_username}   password   {password}

  TOKEN=$(curl -s {base}/api/v1/auth/token -d username={settings.admin_username} -d password={password} \\
          | python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])')
  curl -s -H "Authorization: Bearer $TOKEN" '{base}/api/v1/alarms?limit=3'
  curl -N -H "Authorization: Bearer $TOKEN" {base}/api/v1/alarms/stream

A sample village of invented people lives its day. Ctrl-C ends it.
""")  # fmt: skip


def _show(console: Console, fact: dict[str, Any]) -> None:
    alarm = fact.get("alarm")
    word = _WORDS.get(fact["type"])
    if alarm is None or word is None:
        return
    at = datetime.fromisoformat(fact["at"]).strftime("%H:%M:%S")
    colour = _COLOURS[alarm["severity"]] if fact["type"] != "alarm.resolved" else "green"
    who = f"{alarm['elder']['name']} · {say('kind.' + alarm['kind'])}"
    # Names and reasons are somebody's words: a bracket in them is no markup.
    console.print(f"{at}  [{colour}]{set_cell_size(word, _COLUMN)}[/] {escape(set_cell_size(who, _COLUMN))} "
                  f"{escape(_detail(fact, alarm))}")  # fmt: skip


def _detail(fact: dict[str, Any], alarm: dict[str, Any]) -> str:
    detail = fact["detail"]
    match fact["type"]:
        case "alarm.raised":
            return str(alarm["because"])
        case "notice.sent" | "notice.failed":
            who = detail["recipient"]
            error = f" — {detail['error']}" if detail.get("error") else ""
            if who["role"] == "device":
                return f"{who['name']} (the elder's device): {detail['reason']}{error}"
            return f"{who['name']} ({who['role']}) by {detail['channel']}: {detail['purpose']}{error}"
        case "alarm.acknowledged" | "alarm.attending":
            eta = f", within {detail['eta_minutes']} min" if "eta_minutes" in detail else ""
            return f"{detail['by']['name']}{eta}"
        case "alarm.resolved":
            return f"{detail['by']['name']}: {detail['outcome']} {say('outcome.' + detail['outcome'])}"
        case _:
            return str(detail.get("because", ""))
