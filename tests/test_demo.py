"""`make demo` as a newcomer meets it: alarms within half a minute, Ctrl-C leaves nothing, the second start goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from app.embedded.broker import free_port
from tests.live import Api, soon
from tests.rooms import roomy_memory

pytestmark = pytest.mark.slow


@dataclass
class Demo:
    process: subprocess.Popen[bytes]
    screen: Path
    started: float

    def text(self) -> str:
        return self.screen.read_text(encoding="utf-8")

    def sees(self, words: str, *, within_s: float) -> str:
        """The line with these words, as soon as it is on the screen."""

        def look() -> str | None:
            assert self.process.poll() is None, self.text()
            return next((line for line in self.text().splitlines() if words in line), None)

        return soon(look, within_s=within_s)

    def shown(self, pattern: str) -> str:
        found = re.search(pattern, self.text())
        assert found, self.text()
        return found.group(1)


@contextmanager
def demo(folder: Path, name: str) -> Iterator[Demo]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SHOUWANG_")}
    environment |= {
        "SHOUWANG_DATA_DIR": str(folder), "SHOUWANG_HTTP_PORT": str(free_port(0)), "SHOUWANG_MQTT_PORT": str(free_port(0)),
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    screen = folder / f"{name}.screen"
    with screen.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("shouwang")), "demo"], env=environment, cwd=folder, stdout=out,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        yield Demo(process, screen, time.monotonic())
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches everything of the terminal
        assert process.wait(30) in (0, 130), screen.read_text(encoding="utf-8")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(folder) in command and process.pid != os.getpid():
            found.append(command[:200])
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sw-demo-", dir=roomy_memory()) as name:
        Path(name).chmod(0o755)  # as root PostgreSQL runs as another user
        yield Path(name)


def test_a_newcomer_sees_alarms_asks_with_what_is_printed_and_finds_the_data_again(folder: Path) -> None:
    with demo(folder, "first") as first:
        first.sees("ALARM 报警", within_s=60)
        first.sees("told 已通知", within_s=10)
        base, password = first.shown(r"(http://\S+)/docs"), first.shown(r"password\s+(\S+)")
        form = {"username": "admin", "password": password}
        token = requests.post(f"{base}/api/v1/auth/token", data=form, timeout=10).json()["access_token"]
        alarms = Api(base, token).items("/alarms", limit=3)
        elders = {elder["id"] for elder in Api(base, token).items("/elders", limit=200)}
        assert alarms
        assert elders
    assert processes_in(folder) == []
    assert "Stopped." in first.text()
    assert "Traceback" not in first.text()

    with demo(folder, "second") as second:
        second.sees("ALARM 报警", within_s=60)
        base = second.shown(r"(http://\S+)/docs")
        assert second.shown(r"password\s+(\S+)") == password
        token = requests.post(f"{base}/api/v1/auth/token", data=form, timeout=10).json()["access_token"]
        again = Api(base, token)
        assert {elder["id"] for elder in again.items("/elders", limit=200)} == elders
        assert again.get(f"/alarms/{alarms[0]['id']}").status_code == 200
    assert processes_in(folder) == []
