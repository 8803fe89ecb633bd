"""The console script `shouwang`.

Each command imports what it needs when it runs: the whole server takes seconds to load, and a command that makes an
account, prints a key or explains itself should not.
"""

from __future__ import annotations

import asyncio
import gc
import getpass
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.access.vocabulary import Role
from app.errors import InvalidInput, NotFound, ShouwangError
from app.ids import VisitorId
from app.key_files import new_key
from app.settings import ROLES, Settings, SettingsError, load, load_keys

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db import Sessions
    from app.devices.mosquitto_auth import Keeper

cli = typer.Typer(no_args_is_help=True, add_completion=False, help="Shouwang 守望: alarms and visiting care.")


@cli.command()
def serve(
    roles: Annotated[str, typer.Option(help="Which parts this process runs: api,ingest,worker.")] = "api,ingest,worker",
) -> None:
    """Run the server; all three roles by default, several processes of each at once if you like."""
    wanted = [role.strip() for role in roles.split(",") if role.strip()]
    unknown = sorted(set(wanted) - set(ROLES))
    if unknown or not wanted:
        raise typer.BadParameter(f"roles are {', '.join(ROLES)}", param_hint="--roles")
    settings = _settings()
    load_keys(settings)
    gc.disable()  # nothing of what is loaded now is garbage; the server turns it on
    from app import main as server

    server.serve(settings, wanted)


@cli.command()
def migrate() -> None:
    """Bring the database schema to the newest version."""
    _with_database(_settings(), None)
    print("The schema is up to date.")


@cli.command("create-user")
def create_user(
    username: str,
    role: Annotated[Role, typer.Option()] = Role.OPERATOR,
    region: Annotated[
        str, typer.Option(help="A scope: 370302 district, 370302001 town, 370302001001 village.")
    ] = "370302",
    visitor: Annotated[UUID | None, typer.Option(help="Whose account it is: needed for the role visitor.")] = None,
) -> None:
    """Make an account. The password is asked for twice; without a terminal it is one line of standard input. It is never
    an argument: those are shown to everybody on the machine."""
    from app.access import accounts, audit
    from app.clock import system_clock
    from app.elders.tables import Visitor

    password = _password()

    async def make(session: AsyncSession) -> None:
        now = system_clock()
        if visitor is not None and await session.get(Visitor, visitor) is None:
            raise InvalidInput("no such visitor; GET /api/v1/visitors lists their ids", field="visitor")
        user = await accounts.create(
            session,
            username=username,
            password=password,
            role=role,
            region_code=region,
            visitor_id=VisitorId(visitor) if visitor else None,
            now=now,
        )
        audit.write(
            session, audit.console("shouwang create-user"), action="user.created", subject_type="user",
            subject_id=user.id, now=now, region_code=user.region_code, username=user.username, role=user.role.value,
            scope=user.region_code, visitor_id=user.visitor_id,
        )  # fmt: skip

    _with_database(_settings(), make)
    print(f"Account {username} ({role.value}, {region}) made.")


@cli.command("set-password")
def set_password(username: str) -> None:
    """Give an account a new password and end its log-ins: the way back in for the last administrator."""
    from app.access import accounts, audit
    from app.clock import system_clock

    password = _password()

    async def change(session: AsyncSession) -> None:
        now = system_clock()
        user = await accounts.by_name(session, username)
        if user is None:
            raise NotFound("no account of this username")
        await accounts.set_password(session, user, password)
        audit.write(
            session, audit.console("shouwang set-password"), action="user.password_reset", subject_type="user",
            subject_id=user.id, now=now, region_code=user.region_code, changes={"password": "changed"},
        )  # fmt: skip

    _with_database(_settings(), change)
    print(f"Account {username} has a new password; its log-ins have ended.")


@cli.command("verify-audit")
def verify_audit(
    head: Annotated[
        list[str] | None,
        typer.Option(help="A head that was noted before (`1234:…`): is everything up to it still as it was?"),
    ] = None,
) -> None:
    """Walk the audit log's chain. Exit code 1 and the row's number when one was removed, altered, inserted or cut off."""
    from app.access import audit

    try:
        noted = [audit.Head.read(text) for text in head or []]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from None
    found: list[audit.Head | audit.Broken] = []

    async def walk(session: AsyncSession) -> None:
        found.append(await audit.verify(session, noted=noted))

    _with_database(_settings(), walk, migrate_first=False)
    result = found[0]
    if isinstance(result, audit.Broken):
        print(f"BROKEN at row {result.row}: {result.because}")
        raise typer.Exit(1)
    print(f"The audit log is whole: {result.rows} rows.")
    print(f"head {result}")
    print("Note the head somewhere outside this machine, and give it to --head the next time.")


@cli.command("verify-ledger")
def verify_ledger(
    head: Annotated[
        list[str] | None,
        typer.Option(help="A head that was noted before (`12:…`): is everything sealed by then still as it was?"),
    ] = None,
) -> None:
    """Walk the chains of all visits. Exit code 1 and the ids of what was removed, altered or inserted past the ledger."""
    from app.visits import chain

    try:
        noted = [chain.Head.read(text) for text in head or []]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from None
    found: list[chain.Whole | list[chain.Broken]] = []

    async def walk(session: AsyncSession) -> None:
        found.append(await chain.verify(session, noted=noted))

    _with_database(_settings(), walk, migrate_first=False)
    result = found[0]
    if not isinstance(result, chain.Whole):
        for broken in result[:50]:
            print(f"BROKEN {broken}")
        print(f"{len(result)} things do not fit.")
        raise typer.Exit(1)
    print(f"The ledger is whole: {result.visits} visits, {result.links} lines of history.")
    print(f"head {result.head}")
    print("Note the head somewhere outside this machine, and give it to --head the next time. It moves once an hour.")


@cli.command("verify-coverage")
def verify_coverage() -> None:
    """Compute everybody's months a second time and compare them with what the statistics are read from. Exit code 1 and
    what differs when something does."""
    from app.reports import coverage_check

    found: list[tuple[int, list[coverage_check.Drift]]] = []

    async def walk(session: AsyncSession) -> None:
        found.append(await coverage_check.compare(session))

    _with_database(_settings(), walk, migrate_first=False)
    people, drifts = found[0]
    for drift in drifts[:50]:
        print(drift)
    if drifts:
        print(f"{len(drifts)} rows of statistics do not say what the register and the ledger say.")
        raise typer.Exit(1)
    print(f"The statistics of {people} people say what the register and the ledger say.")


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise InvalidInput("the two passwords differ", field="password")
    return password.strip()


@cli.command()
def check() -> None:
    """Say what would fail before an alarm does. Exit code 1 when there is anything."""
    from app import readiness
    from app.clock import system_clock
    from app.devices.credentials import trust

    settings = _settings()
    found: list[readiness.Finding] = []

    async def look(session: AsyncSession) -> None:
        now = system_clock()
        today = now.astimezone(settings.tz).date()
        embedded = trust(settings).embedded
        found.extend(await readiness.look(session, now=now, today=today, embedded_broker=embedded, doing=()))

    _with_database(settings, look, migrate_first=False)
    for finding in sorted(found, key=lambda f: not f.blocking):
        mark = "BLOCKS ALARMS" if finding.blocking else "work to do   "
        print(f"{mark}  {finding.name}: {finding.count} {finding.detail}")
        for one in finding.ids:
            print(f"               {one}")
    if found:
        raise typer.Exit(1)
    print("Ready: nothing found.")


@cli.command("mosquitto-auth")
def mosquitto_auth(
    folder: Annotated[Path, typer.Option(help="Where `passwords` and `acl` are written; Mosquitto reads them there.")],
    once: Annotated[bool, typer.Option("--once", help="Bring them in step once, and end.")] = False,
    pid_file: Annotated[Path | None, typer.Option(help="The broker's pid_file: it is told by SIGHUP.")] = None,
    reload: Annotated[str, typer.Option(help="Or a command that tells it, like `systemctl reload mosquitto`.")] = "",
    more_passwords: Annotated[
        Path | None, typer.Option(help="Further accounts, as mosquitto_passwd writes them: gateways of other families.")
    ] = None,
    more_acl: Annotated[Path | None, typer.Option(help="Their access rules, in Mosquitto's own form.")] = None,
    every: Annotated[float, typer.Option(min=1, max=3600, help="Seconds between two looks without a sign.")] = 15,
) -> None:
    """Keep a Mosquitto's users and access rules in step with the devices' credentials, until ended."""
    from app.devices.credentials import trust
    from app.devices.mosquitto_auth import FAILURES, ByCommand, ByPidFile, Keeper, More, Nobody, in_words
    from app.embedded.parts import Embedded

    if pid_file and reload:
        raise typer.BadParameter("choose one of --pid-file and --reload", param_hint="--reload")
    settings = _settings()
    login = trust(settings).server
    if login is None or not login.password:
        raise SettingsError(
            "SHOUWANG_MQTT_URL must name your Mosquitto with the server's own account, mqtt://user:password@host"
            + ("" if settings.mqtt_url.get_secret_value() else " (the embedded broker knows no accounts)")
        )
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder", param_hint="--folder")
    teller = ByPidFile(pid_file) if pid_file else ByCommand(reload) if reload else Nobody()
    more = More(more_passwords, more_acl)
    keeper = Keeper(folder, login, teller, more=more, say=lambda text: print(text, flush=True))
    embedded = Embedded(settings.model_copy(update={"mqtt_url": type(settings.mqtt_url)("unused")})).start()
    try:
        asyncio.run(_keep(embedded.database_url, keeper, once=once, every_s=every))
    except FAILURES as error:
        raise RuntimeError(in_words(error)) from None
    finally:
        embedded.stop()


async def _keep(url: str, keeper: Keeper, *, once: bool, every_s: float) -> None:
    """Until SIGINT or SIGTERM, or once."""
    from app.db import connect, sessions
    from app.signals import Signal, Signals

    engine = connect(url, pool=2)
    signals = Signals(url)
    try:
        if once:
            if not await keeper.look(sessions(engine)):
                print("Nothing to change.")
            return
        work = asyncio.gather(
            signals.run(), keeper.run(sessions(engine), signals.events[Signal.CREDENTIALS], every_s=every_s)
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        with suppress(asyncio.CancelledError):
            await work
    finally:
        await engine.dispose()


@cli.command("rotate-keys")
def rotate_keys(
    status: Annotated[
        bool, typer.Option("--status", help="Only say how much needs another key than the first.")
    ] = False,
) -> None:
    """Seal all personal data anew with the first data key, beside running servers. Killed, it goes on where it was.

    Embedded, or with SHOUWANG_DATA_KEY_FILE, it makes the new key itself. With SHOUWANG_DATA_KEY it says the steps."""
    from app.clock import system_clock
    from app.rotate_keys import NotNow, Rotation

    settings = _settings()
    keys = load_keys(settings)

    async def work(maker: Sessions) -> None:
        run = Rotation(maker, keys, system_clock, lambda text: print(text, flush=True))
        if status:
            for table, count in (await run.status()).items():
                print(f"{count:10}  {table}")
        else:
            await run.run()

    try:
        _with_sessions(settings, work)
    except NotNow as error:
        print(error)
        raise typer.Exit(1) from None


@cli.command()
def replay(
    events: Annotated[
        Path | None, typer.Option(help="A recording: one event a line (docs/rules.md). `-`: standard input.")
    ] = None,
    elder: Annotated[UUID | None, typer.Option(help="Or an elder's own journal, which is only read.")] = None,
    rules: Annotated[Path | None, typer.Option(help="Settings to try, in the form of PUT /api/v1/rules.")] = None,
    begins: Annotated[
        str, typer.Option("--from", help="Print alarms from this moment on; what came before is only learned from.")
    ] = "",
    ends: Annotated[
        str, typer.Option("--to", help="Let time pass up to this moment; as a rule, to the last event.")
    ] = "",
    dementia: Annotated[bool, typer.Option(help="For a recording: the person has dementia.")] = False,
) -> None:
    """Run recorded events through the rules in virtual time; prints the alarms as JSON lines. Changes nothing."""
    if (events is None) == (elder is None):
        raise typer.BadParameter("give one of --events FILE and --elder ID", param_hint="--events")
    from app.clock import system_clock
    from app.watches import replaying

    tz = replaying.timezone()
    span = replaying.Span.read(begins, ends, tz)
    tried = replaying.read_rules(rules)
    if events is not None:
        bad = replaying.from_file(events, tried, span, tz, dementia=dementia, write=print)
        for one in bad:
            print(one, file=sys.stderr)
        if bad:
            raise typer.Exit(1)
        return
    assert elder is not None
    wanted = elder

    async def read(session: AsyncSession) -> None:
        await replaying.from_journal(session, wanted, tried, span, tz, now=system_clock(), write=print)

    _with_database(_settings(), read, migrate_first=False)


@cli.command("new-key")
def print_key() -> None:
    """Print 32 random bytes in base64, for SHOUWANG_DATA_KEY or SHOUWANG_TOKEN_KEY."""
    print(new_key())


@cli.command()
def demo() -> None:
    """A sample village living a day: alarms rise, are told, escalate, are answered. Ctrl-C ends it."""
    from app import demo as sample

    sample.run(load)


def _settings() -> Settings:
    return load()


def _with_database(
    settings: Settings, act: Callable[[AsyncSession], Coroutine[Any, Any, None]] | None, *, migrate_first: bool = True
) -> None:
    async def once(maker: Sessions) -> None:
        from app.db import transaction

        if act is not None:
            async with transaction(maker) as session:
                await act(session)

    _with_sessions(settings, once, migrate_first=migrate_first)


def _with_sessions(
    settings: Settings, act: Callable[[Sessions], Coroutine[Any, Any, None]], *, migrate_first: bool = True
) -> None:
    from app.db import migrate
    from app.embedded.parts import Embedded

    embedded = Embedded(settings.model_copy(update={"mqtt_url": type(settings.mqtt_url)("unused")})).start()
    try:
        if migrate_first:
            migrate(embedded.database_url)
        asyncio.run(_once(embedded.database_url, act))
    finally:
        embedded.stop()


async def _once(url: str, act: Callable[[Sessions], Coroutine[Any, Any, None]]) -> None:
    from app.db import connect, sessions

    engine = connect(url, pool=2)
    try:
        await act(sessions(engine))
    finally:
        await engine.dispose()


def main() -> None:
    """The console script: what a person can mend is one sentence, not a traceback."""
    try:
        cli()
    except (SettingsError, RuntimeError) as error:
        sys.exit(f"shouwang: {error}")
    except ShouwangError as error:
        sys.exit(f"shouwang: {error.detail}")
    except (ConnectionError, OSError) as error:
        sys.exit(f"shouwang: the database or another service cannot be reached ({type(error).__name__})")
