"""`python -m simulator`: seed a village, let it live, run scenarios."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from simulator import terminal
from simulator.api import Api, until_ready
from simulator.listener import DEFAULT_PORT, Listener
from simulator.live import live as live_on
from simulator.live import short_steps, tidy
from simulator.mqtt import Mqtt
from simulator.runner import run_all, write_junit
from simulator.scenario import Scenario, ScenarioError, load
from simulator.terminal import SimulatorError, say
from simulator.village import Village, seed_village

SCENARIOS = Path(__file__).parent / "scenarios"
NOT_MET, BROKEN_FILE, CANNOT_RUN = 1, 2, 3

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A simulated village for a running Shouwang server: invented people, devices over MQTT, answers by link.",
)

Url = Annotated[str, typer.Option(help="The server.", envvar="SIMULATOR_URL")]
MqttUrl = Annotated[str, typer.Option("--mqtt", help="The broker, mqtt:// or mqtts://.", envvar="SIMULATOR_MQTT")]
MqttUser = Annotated[str, typer.Option(help="Account at the broker.", envvar="SIMULATOR_MQTT_USERNAME")]
MqttPassword = Annotated[str, typer.Option(help="Its password.", envvar="SIMULATOR_MQTT_PASSWORD")]
Username = Annotated[str, typer.Option(help="Account at the server.", envvar="SIMULATOR_USERNAME")]
Password = Annotated[str, typer.Option(help="Its password (or SIMULATOR_PASSWORD).", envvar="SIMULATOR_PASSWORD")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same people and days.")]
Elders = Annotated[int, typer.Option(min=1, max=200, help="Elders a village.")]
Villages = Annotated[int, typer.Option(min=1, max=50)]
Listen = Annotated[str, typer.Option(help="Where the simulated phones listen; port 0 takes a free one.")]
HookHost = Annotated[str, typer.Option(help="The host name under which the server reaches the phones.")]
Speed = Annotated[float, typer.Option(min=1, max=86400, help="Simulated seconds a second.")]

URL = "http://127.0.0.1:8000"
BROKER = "mqtt://127.0.0.1:1883"
PHONES = f"127.0.0.1:{DEFAULT_PORT}"


@app.command()
def seed(
    password: Password,
    url: Url = URL,
    username: Username = "admin",
    villages: Villages = 1,
    elders: Elders = 12,
    seed: Seed = 7,
    hook_url: Annotated[str, typer.Option(help="Where `live` will listen.")] = f"http://{PHONES}",
) -> None:
    """Make sample villages over REST: people, duty, contacts, devices, visits. Again: finds what is there."""

    async def work() -> int:
        async with Api(url, username, password) as api:
            for number in range(1, villages + 1):
                made = await seed_village(api, village=number, elders=elders, seed=seed, hook_url=hook_url)
                _describe(made)
        return 0

    _run(work())


@app.command()
def live(
    password: Password,
    url: Url = URL,
    mqtt: MqttUrl = BROKER,
    mqtt_username: MqttUser = "",
    mqtt_password: MqttPassword = "",
    username: Username = "admin",
    villages: Villages = 1,
    elders: Elders = 12,
    seed: Seed = 7,
    speed: Speed = 3600,
    days: Annotated[int, typer.Option(min=0, help="How many days; 0 = until interrupted.")] = 1,
    listen: Listen = PHONES,
    hook_host: HookHost = "",
    verbose: Annotated[bool, typer.Option("--verbose", help="Print movements and heartbeats too.")] = False,
) -> None:
    """Seed, then live days: devices speak, people answer."""

    async def work() -> int:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(Api(url, username, password))
            listener = await stack.enter_async_context(Listener(listen, hook_host or None))
            broker = await stack.enter_async_context(Mqtt(mqtt, mqtt_username or None, mqtt_password or None))
            village = await _villages(api, listener, villages, elders, seed)
            sent = await live_on(
                api, broker, listener, village, seed=seed, speed=speed, days=days or None, verbose=verbose
            )
            say(f"{sent} messages sent")
        return 0

    _run(work())


@app.command("demo-village")
def demo_village(
    password: Password,
    url: Url = URL,
    mqtt: MqttUrl = BROKER,
    mqtt_username: MqttUser = "",
    mqtt_password: MqttPassword = "",
    username: Username = "admin",
    elders: Elders = 12,
    seed: Seed = 7,
    speed: Speed = 60,
    listen: Listen = PHONES,
    hook_host: HookHost = "",
    verbose: Annotated[bool, typer.Option("--verbose", help="Print movements and heartbeats too.")] = False,
) -> None:
    """A village to watch: an SOS at once, then a fall that nobody answers for a while, then days without end."""

    async def work() -> int:
        await until_ready(url, 30)
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(Api(url, username, password))
            listener = await _phones(stack, listen, hook_host)
            broker = await stack.enter_async_context(Mqtt(mqtt, mqtt_username or None, mqtt_password or None))
            village = await _villages(api, listener, 1, elders, seed)
            await tidy(api, village)
            await short_steps(api, village)
            await live_on(
                api, broker, listener, village, seed=seed, speed=speed, days=None, verbose=verbose, opening=True
            )
        return 0

    _run(work())


@app.command("run")
def run_scenarios(
    password: Password,
    files: Annotated[list[Path] | None, typer.Argument(help="Scenario files; none = all that come with it.")] = None,
    url: Url = URL,
    mqtt: MqttUrl = BROKER,
    mqtt_username: MqttUser = "",
    mqtt_password: MqttPassword = "",
    username: Username = "admin",
    only: Annotated[str, typer.Option(help="Only scenarios whose name or file holds this.")] = "",
    slow: Annotated[bool, typer.Option("--slow", help="The slow ones too (a minute and more).")] = False,
    report: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    listen: Listen = "127.0.0.1:0",
    hook_host: HookHost = "",
) -> None:
    """Run scenarios. Exit code 0: all met; 1: one not met; 2: a broken scenario file; 3: could not begin."""
    chosen = [one for one in _load(files) if only.lower() in f"{one.name} {Path(one.file).stem}".lower()]
    if not chosen:
        print(f"no scenario's name or file holds {only!r}; `python -m simulator list` names them", file=sys.stderr)
        raise typer.Exit(BROKEN_FILE)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(Api(url, username, password))
            listener = await stack.enter_async_context(Listener(listen, hook_host or None))
            broker = await stack.enter_async_context(Mqtt(mqtt, mqtt_username or None, mqtt_password or None))
            verdicts = await run_all(api, broker, listener, chosen, slow=slow)
        if report is not None:
            write_junit(report, verdicts)
        print("\nsummary")
        for verdict in verdicts:
            sign = "-" if verdict.skipped else terminal.mark(not verdict.unmet)
            print(f"  {sign} {verdict.scenario.name} ({verdict.seconds:.1f} s)")
            if verdict.unmet:
                print(f"      {verdict.unmet}")
        return NOT_MET if any(verdict.unmet for verdict in verdicts) else 0

    _run(work())


@app.command("list")
def list_scenarios(
    files: Annotated[list[Path] | None, typer.Argument(help="Scenario files; none = all that come with it.")] = None,
) -> None:
    """The scenarios, checked for mistakes."""
    for scenario in _load(files):
        slow = " (slow)" if scenario.slow else ""
        print(f"{Path(scenario.file).stem:<28} {scenario.name}{slow}")
        if scenario.about:
            print(f"{'':<28} {scenario.about.strip()}")


def _load(files: list[Path] | None) -> list[Scenario]:
    found, broken = [], []
    for path in files or sorted(SCENARIOS.glob("*.yaml")):
        try:
            found.append(load(path))
        except ScenarioError as error:
            broken.append(str(error))
    if broken:
        for sentence in broken:
            print(sentence, file=sys.stderr)
        raise typer.Exit(BROKEN_FILE)
    return found


async def _phones(stack: AsyncExitStack, listen: str, hook_host: str) -> Listener:
    """The listener at the wished port, or at a free one when another program has it."""
    try:
        return await stack.enter_async_context(Listener(listen, hook_host or None))
    except SimulatorError:
        free = f"{listen.rpartition(':')[0]}:0"
        return await stack.enter_async_context(Listener(free, hook_host or None))


async def _villages(api: Api, listener: Listener, count: int, elders: int, seed: int) -> Village:
    """Seed villages and see them as one."""
    whole: Village | None = None
    for number in range(1, count + 1):
        made = await seed_village(api, village=number, elders=elders, seed=seed, hook_url=listener.base_url)
        _describe(made)
        if whole is None:
            whole = made
        else:
            whole.elders += made.elders
            whole.visitors += [made.head, made.deputy, made.duty, *made.visitors]
    assert whole is not None
    return whole


def _describe(village: Village) -> None:
    contacts = sum(len(resident.contacts) for resident in village.elders)
    devices = sum(len(resident.profile.devices) for resident in village.elders)
    say(
        f"village {village.name} ({village.code}): {len(village.elders)} elders, {contacts} contacts, "
        f"{devices} devices, village head {village.head.name}"
    )


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Run until done or until SIGINT/SIGTERM, which end it quietly."""
    try:
        code = asyncio.run(_until_told(work))
    except SimulatorError as error:
        print(f"{terminal.mark(False)} {error}", file=sys.stderr)
        code = CANNOT_RUN
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(code)


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        say("stopped")
        return 0


def main() -> None:
    """The command line."""
    terminal.prepare()
    app()


if __name__ == "__main__":
    main()
