"""Composition: the parts of one process, started in order and stopped in the opposite one."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs, readiness, words
from app.access import accounts
from app.access.accounts import Access
from app.access.guard import Hasher
from app.access.sealing import Sealer
from app.access.tokens import Tokens
from app.alarms.desk import AlarmDesk
from app.alarms.links import Links
from app.alarms.views import Shapes
from app.api import application
from app.api.context import Parts
from app.api.protocol import GuardedProtocol
from app.clock import Clock, system_clock
from app.db import connect, migrate, sessions, transaction
from app.devices import catalogue, codecs, journal
from app.devices.codec import Codec, Registry
from app.devices.credentials import Lookups, trust
from app.devices.following import Following
from app.devices.mqtt import MqttClient, Tls
from app.elders import register
from app.embedded.ownership import free_slot
from app.embedded.parts import Embedded
from app.errors import InvalidInput
from app.feed import Feed
from app.imports import office
from app.imports import queue as import_queue
from app.imports.office import Office
from app.ingest import Ingest
from app.lanes import Lane
from app.notify import channels as channel_files
from app.notify.channel import Channels
from app.notify.channels._http import Http
from app.notify.channels.device import DeviceChannel
from app.notify.digests import DigestDesk
from app.notify.dispatcher import Dispatcher
from app.notify.outbox import Claim, Settled
from app.privacy.retention import Retention
from app.readiness import Finding
from app.settings import Settings, SettingsError, kept_secret, load_keys
from app.signals import Signal, Signals
from app.ticks import Ticks
from app.webhooks import queue as webhook_queue
from app.webhooks import sender as webhook_sender
from app.webhooks.messages import Composer
from app.webhooks.sender import Sender
from app.webhooks.terms import Terms

log = logs.get("main")
_BEAT_S = 5.0
_DIGESTS_AT_ONCE = 4  # daily notices take little of what alarms need
_DIGESTS_EVERY_S = 5.0
_FIRST_BEAT_S = 2.0  # time to connect to the broker
_STALLED = timedelta(seconds=15)
EMBEDDED_BROKER = (
    "MQTT: this is the embedded broker. It is for trying out: it asks no device who it is, and keeps nothing on disk. "
    "For real devices set SHOUWANG_MQTT_URL to a Mosquitto or EMQX (docs/devices-trust.md)."
)


def access(settings: Settings, token_key: bytes) -> Access:
    """What accounts and credentials need: keys made from TOKEN_KEY, and how long tokens live."""
    tokens = Tokens(
        token_key,
        access_life=timedelta(seconds=settings.access_token_seconds),
        refresh_life=timedelta(days=settings.refresh_token_days),
    )
    return Access(tokens, Hasher(token_key))


@dataclass
class Server:
    """One process of the product. `lifespan()` starts its loops; each loop is watched."""

    settings: Settings
    embedded: Embedded
    roles: Collection[str]
    clock: Clock = system_clock
    loops: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    mqtt: MqttClient | None = None
    ingest: Ingest | None = None
    dispatcher: Dispatcher[Claim, Settled] | None = None
    ticks: Ticks | None = None
    profile_faults: list[str] = field(default_factory=list)

    def build(self) -> FastAPI:
        """The application with all its parts; nothing runs yet."""
        words.speak(self.settings.language)
        keys = load_keys(self.settings)
        self.engine = connect(self.embedded.database_url, pool=self.settings.database_pool)
        self.sessions = sessions(self.engine)
        self.families = _families(self.settings)
        self.signals = Signals(self.embedded.database_url)
        self.tls = tls(self.settings)
        self.sealer = sealer = Sealer(*keys.data, reread=keys.data_file.changed if keys.data_file else None)
        self.data_keys = keys
        shapes = Shapes(sealer, self.settings.tz)
        links = Links(keys.token, self.settings.base_url)
        self.desk = AlarmDesk(sealer, shapes, links)
        self.digest_desk = DigestDesk(sealer)
        self.channels: Channels = channel_files.build(self.settings)
        self.feed = Feed(self.sessions, shapes, self.clock, self.signals.events[Signal.FEED])
        self.terms = Terms.of(self.settings)
        self.composer = Composer(sealer, shapes)
        parts = Parts(
            sessions=self.sessions,
            clock=self.clock,
            tz=self.settings.tz,
            sealer=sealer,
            shapes=shapes,
            links=links,
            channels=self.channels,
            feed=self.feed,
            access=access(self.settings, keys.token),
            proxies=self.settings.proxies,
            secure_cookies=self.settings.base_url.startswith("https://"),
            composer=self.composer,
            terms=self.terms,
            broker=trust(self.settings),
            lookups=Lookups(self.sessions),
            codecs=self.families,
        )
        self.process = f"{socket.gethostname()[:60]}:{os.getpid()}"
        return application.build(
            parts,
            roles=self.roles,
            lifespan=self.lifespan,
            inner_findings=self.findings,
            ingest_lag_s=self.ingest_lag_s,
            origins=self.settings.allowed_origins,
            https=self.settings.base_url.startswith("https://"),
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start what the roles ask for; at the end stop taking in, let the sending finish its record, and leave."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.dispose)
            stack.push_async_callback(self.channels.close)
            await self._forget_the_dead()
            await self._load_profiles()
            self._loop("signals", self.signals.run)
            if "api" in self.roles:
                self._loop("feed", self.feed.run)
            if "ingest" in self.roles or "worker" in self.roles:
                await self._start_mqtt(stack)
            if "worker" in self.roles:
                self._start_worker(stack)
            self._loop("heartbeat", self._beat_forever)
            _spare_the_collector()
            stack.push_async_callback(self._end_loops)
            yield

    async def _load_profiles(self) -> None:
        if not self.settings.device_profiles_dir:
            return
        directory = Path(self.settings.device_profiles_dir)
        async with transaction(self.sessions) as session:
            self.profile_faults = await catalogue.load_directory(session, directory, self.families, now=self.clock())
        for fault in self.profile_faults:
            log.error("a device profile is not used", fault=fault)

    async def _start_mqtt(self, stack: AsyncExitStack) -> None:
        # rumqttd hangs up on whoever subscribes to a topic that begins with `$`.
        registry = Registry(self.families, without="$" if self.embedded.broker else None)
        taking = "ingest" in self.roles
        following = Following(
            registry, self.sessions, self.signals.events[Signal.CATALOGUE], self.settings.tz,
            group=self.settings.mqtt_shared_group, unused=_unused(self.settings, self.families),
        )  # fmt: skip
        topics, leave = await following.load() if taking else ([], [])
        self.mqtt = MqttClient(
            self.embedded.mqtt_url, client_id=self._client_id(stack, "ingest" if taking else "worker"),
            subscriptions=topics, clock=self.clock,
            tls=self.tls,
        )  # fmt: skip
        self.mqtt.follow(topics, leave=leave)
        self.mqtt.start()
        stack.push_async_callback(self.mqtt.stop)
        if taking:
            self.ingest = Ingest(self.mqtt, registry, self._lane(stack), self.clock, self.settings.tz, self.sealer)
            self._loop("ingest", self.ingest.run)
            following.mqtt = self.mqtt
            self._loop("catalogue", following.run)

    def _start_worker(self, stack: AsyncExitStack) -> None:
        assert self.mqtt is not None
        self.channels.add(DeviceChannel(self.mqtt))
        self.dispatcher = Dispatcher(
            (self._lane(stack, durable=False), self._lane(stack)),
            self.channels,
            self.desk,
            self.clock,
            self.signals.events[Signal.OUTBOX],
        )
        self._loop("dispatcher", self.dispatcher.run)
        digests = Dispatcher(
            (self._lane(stack), self._lane(stack)), self.channels, self.digest_desk, self.clock, asyncio.Event(),
            at_once=_DIGESTS_AT_ONCE, look_again_s=_DIGESTS_EVERY_S,
        )  # fmt: skip
        self._loop("digests", digests.run)
        self._start_webhooks(stack)
        self._loop("imports", self._office().run)
        self.ticks = Ticks(
            self.sessions,
            self.clock,
            self.settings.tz,
            sweeps=[self._sweep_webhooks, import_queue.sweep],
            chores=[Retention(self.sessions, self.settings, self.sealer, self.settings.tz).run],
            zigbee_bases=self.settings.words("zigbee_bases"),
        )
        self.ticks.start()
        stack.callback(self.ticks.stop)
        catching_up = asyncio.create_task(self._catch_up(), name="catch up")
        stack.callback(catching_up.cancel)

    def _lane(self, stack: AsyncExitStack, *, durable: bool = True) -> Lane:
        lane = Lane(self.embedded.database_url, durable=durable)
        stack.push_async_callback(lane.close)
        return lane

    def _start_webhooks(self, stack: AsyncExitStack) -> None:
        http = Http(allow_private=self.terms.allow_private, timeout_s=webhook_sender.TIMEOUT_S)
        wake = self.signals.listen(Signal.FEED, Signal.WEBHOOKS)
        sender = Sender(self.sessions, self.composer, http, self.clock, wake, self.terms)
        stack.push_async_callback(sender.close)
        self._loop("webhooks", sender.run)

    def _office(self) -> Office:
        told = office.told(
            timezone=self.settings.timezone, language=self.settings.language, log_level=self.settings.log_level
        )
        wake = self.signals.events[Signal.IMPORTS]
        url = self.embedded.database_url
        return Office(self.sessions, self.clock, wake, url=url, keys=self.data_keys, told=told)

    async def _sweep_webhooks(self, session: AsyncSession, now: datetime) -> None:
        await webhook_queue.sweep(session, terms=self.terms, now=now)

    def _client_id(self, stack: AsyncExitStack, kind: str) -> str:
        """The same after a restart, so that the broker's session goes on; another for each process of this folder."""
        if self.settings.mqtt_client_id:
            return self.settings.mqtt_client_id
        own = kept_secret(self.settings.data_dir / "instance-id", lambda: os.urandom(4).hex())
        slot, ownership = free_slot(self.settings.data_dir, kind)
        stack.callback(ownership.release)
        return f"shouwang-{own}-{kind}-{slot}"

    async def _catch_up(self) -> None:
        """What a migration or a bulk load could not do without the key: phones found by their last digits, quarantined
        messages sealed."""
        after: UUID | None = UUID(int=0)
        unsealed = 1
        try:
            while after is not None:
                async with transaction(self.sessions) as session:
                    after = await register.index_phones(session, self.sealer, after=after)
            while unsealed:
                async with transaction(self.sessions) as session:
                    unsealed = await journal.seal_older(session, seal=self._seal)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("not caught up; left for the next start", error=type(error).__name__)

    def _seal(self, content: bytes, record: UUID) -> bytes:
        return self.sealer.seal_bytes(content, record=record)

    async def _forget_the_dead(self) -> None:
        """Processes of this machine that were killed left their heartbeat behind: this one stands for them."""
        host, _, _ = self.process.rpartition(":")
        async with transaction(self.sessions) as session:
            for name in await readiness.processes_of(session, host=host):
                pid = name.rpartition(":")[2]
                if pid.isdigit() and not _runs(int(pid)):
                    await readiness.leave(session, process=name)

    # --- watching the loops ------------------------------------------------------------------------------------------

    def _loop(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.loops[name] = asyncio.create_task(run(), name=name)

    async def _end_loops(self) -> None:
        for task in self.loops.values():
            task.cancel()
        await asyncio.gather(*self.loops.values(), return_exceptions=True)
        try:
            async with transaction(self.sessions) as session:
                await readiness.leave(session, process=self.process)
        except (SQLAlchemyError, OSError, TimeoutError):
            log.warning("could not say good-bye to the database")

    def findings(self) -> list[Finding]:
        """What is wrong inside this process: what blocks the way of an alarm, and what somebody has to mend."""
        now = self.clock()
        wrong = [
            Finding(f"{name}_dead", True, 1, f"the {name} loop of this process has ended")
            for name, task in self.loops.items()
            if task.done()
        ]
        if self.mqtt is not None and not self.mqtt.healthy:
            detail = self.mqtt.refused or "not connected and subscribed at the broker"
            wrong.append(Finding("broker", True, 1, detail))
        if self.ingest_lag_s(now) > _STALLED.total_seconds():
            wrong.append(Finding("ingest_stalled", True, 1, "messages wait for their commit for more than 15 s"))
        if self.mqtt is not None and self.mqtt.unheard:
            topics = ", ".join(self.mqtt.unheard)
            detail = f"the broker does not carry topics that begin with $; devices there are not heard: {topics}"
            wrong.append(Finding("topics_unheard", False, len(self.mqtt.unheard), detail[:500]))
        if self.profile_faults:
            faults = "; ".join(self.profile_faults)
            wrong.append(Finding("device_profile_file", False, len(self.profile_faults), faults[:500]))
        looks = {
            "dispatcher": self.dispatcher.last_look if self.dispatcher else now,
            "ticks": self.ticks.last_look if self.ticks else now,
        }
        wrong += [
            Finding(f"{name}_stalled", True, 1, f"the {name} of this process did not look for 15 s")
            for name, seen in looks.items()
            if seen is not None and now - seen > _STALLED
        ]
        return wrong

    def ingest_lag_s(self, now: datetime) -> float:
        since = self.ingest.working_since if self.ingest else None
        return (now - since).total_seconds() if since else 0.0

    async def _beat_forever(self) -> None:
        await asyncio.sleep(_FIRST_BEAT_S)
        while True:
            if self.sealer.refresh():
                log.info("data keys read again", keys=self.sealer.key_ids)
            wrong = [finding for finding in self.findings() if finding.blocking]
            detail = "; ".join(finding.detail for finding in wrong)[:500]
            try:
                async with transaction(self.sessions) as session:
                    await readiness.beat(
                        session,
                        process=self.process,
                        part="+".join(sorted(self.roles)),
                        ok=not wrong,
                        detail=detail,
                        data_keys=self.sealer.key_ids,
                        now=self.clock(),
                    )
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("no heartbeat", error=type(error).__name__)
            await asyncio.sleep(_BEAT_S)


def _spare_the_collector() -> None:
    """What was made so far lives as long as the process: the garbage collector need not walk it again and again. With
    its usual thresholds a storm stood still for 0.1 s at a time while it did."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 50)


def _families(settings: Settings) -> list[Codec]:
    """The families in use. Raises `SettingsError` for a name that is none."""
    try:
        return codecs.in_use(_all_families(settings), settings.words("device_families"))
    except ValueError as error:
        raise SettingsError(f"SHOUWANG_DEVICE_FAMILIES: {error}") from None


def _all_families(settings: Settings) -> list[Codec]:
    return codecs.families(
        zigbee2mqtt_bases=settings.words("zigbee_bases"), traccar_topics=settings.words("traccar_topics")
    )


def _unused(settings: Settings, used: Collection[Codec]) -> list[str]:
    """Topics of families that are not in use: a broker may keep a subscription from when they were."""
    names = {codec.name for codec in used}
    return [topic for codec in _all_families(settings) if codec.name not in names for topic in codec.subscriptions]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True


async def _first_administrator(settings: Settings, url: str, *, now: datetime) -> None:
    """Where there is no account yet, make the administrator. Raises `SettingsError` when the password set is no good."""
    wanted = settings.admin_password.get_secret_value()
    engine = connect(url, pool=2)
    try:
        async with transaction(sessions(engine)) as session:
            password = await accounts.first_administrator(
                session, username=settings.admin_username, password=wanted, now=now
            )
    except InvalidInput as error:
        raise SettingsError(f"SHOUWANG_ADMIN_PASSWORD: {error.detail}") from None
    finally:
        await engine.dispose()
    if password and not wanted:
        print(f"First administrator: {settings.admin_username}  password: {password}  (shown once)", flush=True)  # noqa: T201


def tls(settings: Settings) -> Tls:
    """Whom we trust as the broker. Raises `SettingsError` for files that are no certificates."""
    files = Tls(settings.mqtt_ca_file, settings.mqtt_cert_file, settings.mqtt_key_file)
    try:
        files.context()
    except ValueError as error:
        raise SettingsError(f"SHOUWANG_MQTT_CA_FILE, _CERT_FILE, _KEY_FILE: {error}") from None
    return files


class _Uvicorn(uvicorn.Server):
    """uvicorn waits for open responses at a shutdown: the streams are told to end first."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._feed.close()
        await super().shutdown(sockets)


def serve(settings: Settings, roles: Collection[str], *, embedded: Embedded | None = None) -> None:
    """Run one process until SIGINT or SIGTERM."""
    logs.set_up(settings.log_level)
    running = embedded or Embedded(settings)
    running.start()
    try:
        migrate(running.database_url)
        asyncio.run(_first_administrator(settings, running.database_url, now=system_clock()))
        if running.broker is not None:
            print(EMBEDDED_BROKER, flush=True)  # noqa: T201
        server = Server(settings, running, roles)
        config = uvicorn.Config(
            server.build(), host=settings.http_host, port=settings.http_port, loop="uvloop", http=GuardedProtocol, ws="none",
            log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=5,
            timeout_keep_alive=30, proxy_headers=False,  # app/api/origin.py reads them, from whom the settings trust
        )  # fmt: skip
        _Uvicorn(config, server.feed).run()
    finally:
        running.stop()
