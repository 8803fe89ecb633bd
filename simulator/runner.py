"""Runs scenarios against a server: makes their people, does their steps, judges their expectations."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from simulator import families, people
from simulator.api import Api, ApiError, FeedItem
from simulator.listener import Heard, Listener
from simulator.mqtt import Mqtt
from simulator.scenario import (
    AlarmCount,
    AlarmIs,
    Answer,
    Bind,
    DeviceSpec,
    Doing,
    Hears,
    HearsNot,
    Journal,
    Operator,
    PersonSpec,
    Phone,
    Quarantined,
    Raw,
    Scenario,
    Send,
    Stream,
    StreamHas,
    StreamUnbroken,
    TimelineHas,
    Told,
    Unclaimed,
    VisitNow,
    Wait,
)
from simulator.terminal import SimulatorError, mark
from simulator.village import ensure_device, ensure_duty, tolerate_conflict

_POLL_S = 0.1


@dataclass(slots=True)
class Verdict:
    """How one scenario went. `unmet` is empty when all was met."""

    scenario: Scenario
    seconds: float = 0.0
    met: int = 0
    unmet: str = ""
    skipped: bool = False
    lines: list[str] = field(default_factory=list)


class NotMet(Exception):
    """An expectation failed. The sentence says what was seen instead."""


async def run_all(
    api: Api, mqtt: Mqtt, listener: Listener, scenarios: Sequence[Scenario], *, slow: bool = False
) -> list[Verdict]:
    """Run one after the other, printing each step with its verdict."""
    await mqtt.listen_to("devices/+/command")
    township = await _fresh_township(api)
    verdicts = []
    for scenario in scenarios:
        verdict = Verdict(scenario)
        verdicts.append(verdict)
        print(f"\n{scenario.name}", flush=True)
        if scenario.slow and not slow:
            verdict.skipped = True
            print("  - skipped: slow (give --slow)", flush=True)
            continue
        begun = time.monotonic()
        await _run_one(_World(api, mqtt, listener, scenario, township), verdict)
        verdict.seconds = time.monotonic() - begun
    return verdicts


async def _run_one(world: _World, verdict: Verdict) -> None:
    def note(good: bool, text: str) -> None:
        verdict.lines.append(text)
        print(f"  {mark(good)} {text}", flush=True)

    try:
        try:
            await world.make()
        except SimulatorError as error:
            verdict.unmet = f"the scenario's people could not be made: {error}"
            note(False, verdict.unmet)
            return
        for step in world.scenario.steps:
            begun = time.monotonic()
            try:
                await world.do(step.do)
            except (NotMet, SimulatorError) as error:
                verdict.unmet = f"line {step.line}: {step.text}: {error}"
                note(False, f"{step.text}\n      {error} ({world.scenario.file}:{step.line})")
                return
            verdict.met += 1
            note(True, f"{step.text}  ({time.monotonic() - begun:.2f} s)")
    finally:
        with contextlib.suppress(SimulatorError):
            await world.leave()


async def _fresh_township(api: Api) -> str:
    """A township nobody used before, so that earlier runs' duty people hear nothing of ours."""
    for _ in range(20):
        code = f"370302{random.randint(500, 999)}000"
        try:
            await api.post("/regions", {"code": code, "name": f"模拟镇{code[6:9]}"})
        except ApiError as error:
            if error.status == 409:
                continue
            break
        return code
    return "370302001000"


class _World:
    """The people, devices and places of one scenario, fresh for each run."""

    def __init__(self, api: Api, mqtt: Mqtt, listener: Listener, scenario: Scenario, township: str) -> None:
        self.scenario = scenario
        self._api = api
        self._mqtt = mqtt
        self._listener = listener
        self._township = township
        self._run = secrets.token_hex(4)
        self._rng = random.Random(self._run)
        self._village = ""
        self._elder_ids: dict[str, str] = {}
        self._visitor_ids: dict[str, str] = {}
        self._told: dict[str, int] = {}
        self._feed: _Feed | None = None
        self._witness: _Feed | None = None
        self._first_elder = scenario.elders()[0].name
        self._devices = {
            spec.name: families.device(spec.family, run=self._run, name=spec.name, kind=spec.kind)
            for spec in scenario.devices
        }

    # Making.

    async def make(self) -> None:
        """The region, the people, the devices, the policy."""
        self._village = await self._fresh_village()
        for person in self.scenario.people:
            if person.role == "elder":
                await self._make_elder(person)
        for person in self.scenario.people:
            if person.role == "emergency_contact":
                await self._make_contact(person)
            elif person.role != "elder":
                await self._make_visitor(person)
        for device in self.scenario.devices:
            if device.registered:
                await self._make_device(device)
        for message in self._introductions():
            await self._mqtt.publish(message.topic, message.payload, retain=message.retain)
        for policy in self.scenario.policies:
            await self._api.post(
                "/escalation-policies",
                {
                    "name": f"{self.scenario.name[:60]} {self._run}",
                    "severity": policy.severity,
                    "region_code": self._village,
                    "steps": [{"after_s": after, "targets": list(targets)} for after, targets in policy.steps],
                    "repeat_last_every_s": policy.repeat_last_every_s,
                },
            )

    async def leave(self) -> None:
        """Close streams, make phones well, resolve what is left so that nobody is called for hours."""
        for feed in (self._feed, self._witness):
            if feed is not None:
                await feed.close()
        for message in self._introductions():  # do not leave them in the broker for others
            await self._mqtt.publish(message.topic, b"", retain=message.retain)
        for person in self.scenario.people:
            for channel in range(1, person.channels + 1):
                self._listener.answer_with(self._path(person.name, channel), 200)
        for elder_id in self._elder_ids.values():
            for alarm in await self._api.items("/alarms", elder_id=elder_id):
                if alarm["state"] != "resolved":
                    with contextlib.suppress(ApiError):
                        await self._api.post(
                            f"/alarms/{alarm['id']}/resolve", {"outcome": "test", "note": "end of a simulated scenario"}
                        )

    async def _fresh_village(self) -> str:
        for _ in range(50):
            code = f"{self._township[:9]}{self._rng.randint(300, 999):03d}"
            try:
                await self._api.post("/regions", {"code": code, "name": f"模拟村{code[9:]}"})
            except ApiError as error:
                if error.status == 409:
                    continue
                raise
            return code
        raise SimulatorError(f"no free village code under {self._township}")

    async def _make_elder(self, spec: PersonSpec) -> None:
        for attempt in range(5):
            who = people.elder(
                self._rng,
                today=datetime.now().astimezone().date(),
                age=spec.age,
                sex=spec.sex,
                living_alone=spec.living_alone,
            )
            try:
                made = await self._api.post("/elders", who.body(self._village))
            except ApiError as error:
                if error.status == 409 and attempt < 4:  # the invented number exists: invent another
                    continue
                raise
            self._elder_ids[spec.name] = made["id"]
            return

    def _path(self, person: str, channel: int = 1) -> str:
        return f"{self._run}-{person}" + (f".{channel}" if channel > 1 else "")

    def _channels(self, spec: PersonSpec) -> list[dict[str, str]]:
        numbers = range(1, spec.channels + 1)
        return [{"kind": "webhook", "address": self._listener.url(self._path(spec.name, n))} for n in numbers]

    def _trust(self, spec: PersonSpec, made: dict[str, Any]) -> None:
        for number, channel in enumerate(made.get("channels") or [], 1):
            self._listener.trust(self._path(spec.name, number), channel.get("secret"))

    async def _make_contact(self, spec: PersonSpec) -> None:
        elder = spec.of or self._first_elder
        body = {
            "name": people.grown_up(self._rng),
            "relation": "女儿",
            "phone": people.phone(self._rng),
            "is_emergency": True,
            "priority": 1,
            "channels": self._channels(spec),
        }
        made = await self._api.post(f"/elders/{self._elder_ids[elder]}/contacts", body, key=f"{self._run}-{spec.name}")
        self._trust(spec, made)

    async def _make_visitor(self, spec: PersonSpec) -> None:
        place = self._township if spec.role == "township_duty" else self._village
        body = {
            "name": people.grown_up(self._rng),
            "kind": "volunteer" if spec.role == "assigned_visitor" else "village_committee",
            "phone": people.phone(self._rng),
            "region_code": place,
            "channels": self._channels(spec),
        }
        made = await self._api.post("/visitors", body, key=f"{self._run}-{spec.name}")
        self._visitor_ids[spec.name] = made["id"]
        self._trust(spec, made)
        if spec.role == "assigned_visitor":
            elder = self._elder_ids[spec.of or self._first_elder]
            await tolerate_conflict(
                self._api, f"/elders/{elder}/visitors", {"visitor_id": made["id"], "role": "primary"}
            )
        else:
            await ensure_duty(self._api, place, spec.role, made["id"])

    def _device_id(self, name: str) -> str:
        return self._devices[name].id

    def _introductions(self) -> list[families.Message]:
        """What gateways say of their devices before any of them speaks."""
        gateways: dict[str, list[families.Zigbee]] = {}
        for device in self._devices.values():
            if isinstance(device, families.Zigbee):
                gateways.setdefault(device.gateway, []).append(device)
        return [families.gateway_list(base, members) for base, members in gateways.items()]

    def _kind(self, name: str) -> str:
        return next(device.kind for device in self.scenario.devices if device.name == name)

    async def _make_device(self, spec: DeviceSpec) -> None:
        elder = self._elder_ids[spec.worn_by or self._first_elder]
        await ensure_device(self._api, self._device_id(spec.name), spec.kind, self._village, elder, profile=spec.family)

    # Doing.

    async def do(self, doing: Doing) -> None:
        """One step. Raises `NotMet` or `SimulatorError`."""
        match doing:
            case Send():
                await self._send(doing)
            case Raw():
                topic = self._devices[doing.device].topic
                await self._mqtt.publish(topic, doing.payload.encode(), retain=doing.retained)
            case Bind():
                elder = self._elder_ids[doing.elder]
                await ensure_device(
                    self._api,
                    self._device_id(doing.device),
                    self._kind(doing.device),
                    self._village,
                    elder,
                    profile=self._devices[doing.device].profile,
                )
            case Phone():
                self._listener.answer_with(self._path(doing.person, doing.channel), doing.answers)
            case Answer():
                await self._answer(doing)
            case Operator():
                await self._operate(doing)
            case VisitNow():
                await self._visit(doing)
            case Wait():
                await asyncio.sleep(doing.seconds)
            case Stream():
                await self._stream(doing)
            case Hears():
                await self._hears(doing)
            case HearsNot():
                await self._hears_not(doing)
            case Told():
                await self._is_told(doing)
            case AlarmCount():
                await self._count(doing)
            case AlarmIs():
                await self._alarm_is(doing)
            case TimelineHas():
                await self._until(doing.within_s, lambda: self._timeline(doing))
            case Unclaimed():
                await self._until(doing.within_s, lambda: self._unclaimed(doing))
            case Quarantined():
                await self._until(doing.within_s, lambda: self._quarantined(doing))
            case Journal():
                await self._until(doing.within_s, lambda: self._journal(doing))
            case StreamHas():
                await self._stream_has(doing)
            case StreamUnbroken():
                await self._unbroken(doing)

    async def _send(self, doing: Send) -> None:
        device = self._devices[doing.device]
        event_id = secrets.token_hex(6) if doing.id == "new" else doing.id
        moment = int((time.time() + doing.clock_off_s) * 1000)
        messages = device.says(doing.type, ts_ms=moment, event_id=event_id, fields=doing.fields)
        for message in messages:
            await asyncio.gather(
                *(self._mqtt.publish(message.topic, message.payload, retain=doing.retained) for _ in range(doing.times))
            )
        if doing.retained:  # do not leave it in the broker for others
            await asyncio.sleep(0.5)
            for topic in {message.topic for message in messages}:
                await self._mqtt.publish(topic, b"", retain=True)

    def _newest(self, person: str) -> Heard | None:
        heard = [
            one
            for channel in range(1, 6)
            for one in self._listener.heard.get(self._path(person, channel), ())
            if one.ack_url
        ]
        return max(heard, key=lambda one: one.at, default=None)

    async def _answer(self, doing: Answer) -> None:
        newest = self._newest(doing.person)
        if newest is None:
            raise NotMet(f"{doing.person} has heard nothing with an answer link")
        body = {
            "action": doing.action,
            "eta_minutes": doing.eta_minutes,
            "outcome": doing.outcome,
            "note": doing.note,
        }
        await self._api.answer_link(newest.ack_url, {name: value for name, value in body.items() if value is not None})

    async def _operate(self, doing: Operator) -> None:
        alarms = [alarm for alarm in await self._alarms(doing.elder, None) if alarm["state"] != "resolved"]
        if not alarms:
            raise NotMet("the elder has no unresolved alarm")
        body: dict[str, Any] = {}
        if doing.action == "comment":
            body["note"] = doing.note or "a comment"
        else:
            fields = {"eta_minutes": doing.eta_minutes, "outcome": doing.outcome, "note": doing.note}
            body = {name: value for name, value in fields.items() if value is not None}
        path = "comments" if doing.action == "comment" else doing.action
        await self._api.post(f"/alarms/{alarms[0]['id']}/{path}", body)

    async def _visit(self, doing: VisitNow) -> None:
        now = datetime.now().astimezone()
        body: dict[str, Any] = {
            "elder_id": self._elder_id(doing.elder),
            "visitor_id": self._visitor_ids[doing.visitor],
            "method": doing.method,
            "started_at": (now - timedelta(minutes=doing.minutes)).isoformat(),
            "ended_at": now.isoformat(),
            "services": ["emergency_aid"],
            "note": "模拟探访",
        }
        if doing.for_alarm:
            alarms = await self._alarms(doing.elder, None)
            if not alarms:
                raise NotMet("the elder has no alarm the visit could answer")
            body["alarm_id"] = alarms[0]["id"]
        await self._api.post("/visits", body)

    async def _stream(self, doing: Stream) -> None:
        if doing.action == "open":
            self._feed = await _Feed(self._api).open()
            self._witness = await _Feed(self._api).open()
            return
        if self._feed is None:
            raise SimulatorError("`stream: open` must come first")
        if doing.action == "drop":
            await self._feed.cut()
        else:
            await self._feed.open()

    # Expecting.

    async def _hears(self, doing: Hears) -> None:
        channels = range(1, 6) if doing.channel is None else (doing.channel,)
        paths = [self._path(doing.person, channel) for channel in channels]
        elder_id = self._elder_ids[doing.about] if doing.about else None

        def found() -> Heard | None:
            for path in paths:
                for heard in self._listener.heard.get(path, ()):
                    if heard.matched or heard.again or heard.signed is False or heard.type != doing.type:
                        continue
                    if elder_id is None or heard.elder_id == elder_id:
                        return heard
            return None

        heard = await self._listener.wait_for(found, doing.within_s)
        if heard is None:
            raise NotMet(f"{doing.person} did not hear {doing.type} within {doing.within_s:g} s; {self._so_far(paths)}")
        heard.matched = True
        if heard.signed is None:
            raise NotMet("the webhook's signature could not be checked: the server told no secret for this channel")

    def _so_far(self, paths: list[str]) -> str:
        heard = [
            one.type + (" (wrong signature)" if one.signed is False else "")
            for path in paths
            for one in self._listener.heard.get(path, ())
        ]
        refused = sum(self._listener.refused.get(path, 0) for path in paths)
        more = f", refused {refused}" if refused else ""
        return f"heard so far: {', '.join(heard) or 'nothing'}{more}"

    async def _hears_not(self, doing: HearsNot) -> None:
        paths = [self._path(doing.person, channel) for channel in range(1, 6)]
        before = {path: len(self._listener.heard.get(path, ())) for path in paths}

        def found() -> Heard | None:
            for path in paths:
                for heard in self._listener.heard.get(path, [])[before[path] :]:
                    if heard.type == doing.type:
                        return heard
            return None

        if await self._listener.wait_for(found, doing.for_s) is not None:
            raise NotMet(f"{doing.person} heard {doing.type}")

    async def _is_told(self, doing: Told) -> None:
        device = self._device_id(doing.device)

        async def check() -> str | None:
            commands = self._mqtt.commands.get(device, [])
            for number in range(self._told.get(device, 0), len(commands)):
                body = commands[number].body
                if body.get("type") == "alarm_state" and body.get("state") == doing.state:
                    self._told[device] = number + 1
                    return None
            said = [str(command.body.get("state")) for command in commands]
            return f"the device was told {', '.join(said) or 'nothing'}"

        await self._until(doing.within_s, check)

    def _elder_id(self, name: str | None) -> str:
        return self._elder_ids[name or self._first_elder]

    async def _alarms(self, elder: str | None, kind: str | None) -> list[dict[str, Any]]:
        alarms = await self._api.items("/alarms", elder_id=self._elder_id(elder))
        return [alarm for alarm in alarms if kind is None or alarm["kind"] == kind]

    async def _count(self, doing: AlarmCount) -> None:
        async def check() -> str | None:
            count = len(await self._alarms(doing.elder, doing.kind))
            return None if count == doing.count else f"there are {count} alarms"

        await self._until(doing.within_s, check)
        if doing.for_s:
            await asyncio.sleep(doing.for_s)
            wrong = await check()
            if wrong:
                raise NotMet(wrong)

    async def _alarm_is(self, doing: AlarmIs) -> None:
        async def check() -> str | None:
            alarms = await self._alarms(doing.elder, doing.kind)
            if not alarms:
                return "there is no alarm"
            seen = _facts(alarms[0])
            wrong = [f"{name} is {seen.get(name)}" for name, value in doing.values.items() if seen.get(name) != value]
            return ", ".join(wrong) or None

        await self._until(doing.within_s, check)

    async def _timeline(self, doing: TimelineHas) -> str | None:
        found = await self._api.get(f"/elders/{self._elder_id(doing.elder)}/timeline", limit=200)
        kinds = [item["kind"] for item in found["items"]]
        missing = [kind for kind in doing.kinds if kind not in kinds]
        moments = [datetime.fromisoformat(item["at"]) for item in found["items"]]
        if moments not in (sorted(moments), sorted(moments, reverse=True)):
            return "the items are not in the order of time"
        return f"no {', '.join(missing)} among {', '.join(kinds) or 'nothing'}" if missing else None

    async def _unclaimed(self, doing: Unclaimed) -> str | None:
        device = self._device_id(doing.device)
        rows = (await self._api.get("/devices/unclaimed", limit=200))["items"]
        return None if any(row["device_id"] == device for row in rows) else "the device is not listed"

    async def _quarantined(self, doing: Quarantined) -> str | None:
        topic = self._devices[doing.device].topic
        rows = (await self._api.get("/rejected-messages", limit=200))["items"]
        reasons = [row["reason"] for row in rows if row["topic"] == topic]
        return None if doing.reason in reasons else f"in quarantine for this device: {', '.join(reasons) or 'nothing'}"

    async def _journal(self, doing: Journal) -> str | None:
        rows = (await self._api.get(f"/devices/{self._device_id(doing.device)}/events", limit=200))["items"]
        rows = [row for row in rows if row["type"] == doing.type]
        if doing.elder is not None:
            rows = [row for row in rows if row["elder_id"] == self._elder_ids[doing.elder]]
        if doing.late is not None:
            rows = [row for row in rows if row["late"] == doing.late]
        return None if len(rows) == doing.count else f"there are {len(rows)} such events"

    async def _stream_has(self, doing: StreamHas) -> None:
        if self._feed is None:
            raise SimulatorError("`stream: open` must come first")
        feed, elders = self._feed, set(self._elder_ids.values())

        async def check() -> str | None:
            for item in feed.items:
                about = (item.data.get("alarm") or {}).get("elder") or {}
                if item.type == doing.type and about.get("id") in elders and item.id not in feed.used:
                    feed.used.add(item.id)
                    return None
            return f"the feed brought {', '.join(item.type for item in feed.items) or 'nothing'}"

        await self._until(doing.within_s, check)

    async def _unbroken(self, doing: StreamUnbroken) -> None:
        feed, witness = self._feed, self._witness
        if feed is None or witness is None:
            raise SimulatorError("`stream: open` must come first")

        async def check() -> str | None:
            # The two were opened one after the other: compare from the later one's first id on.
            begin = max((int(reader.items[0].id) for reader in (feed, witness) if reader.items), default=0)
            got = [int(item.id) for item in feed.items if int(item.id) >= begin]
            all_of_them = [int(item.id) for item in witness.items if int(item.id) >= begin]
            if got == all_of_them:
                return None
            missing = [one for one in all_of_them if one not in got]
            return f"missing {missing}" if missing else f"the order or number differs: {got} and {all_of_them}"

        await self._until(doing.within_s, check)

    async def _until(self, seconds: float, check: Callable[[], Awaitable[str | None]]) -> None:
        """Ask again until nothing is wrong or the time is over."""
        end = time.monotonic() + seconds
        while (wrong := await check()) is not None:
            if time.monotonic() >= end:
                raise NotMet(f"after {seconds:g} s: {wrong}")
            await asyncio.sleep(_POLL_S)


def _facts(alarm: dict[str, Any]) -> dict[str, Any]:
    """The values an expectation may name."""
    return {
        **{name: alarm.get(name) for name in ("state", "severity", "outcome", "repeats")},
        "late": (alarm.get("trigger") or {}).get("late"),
        "step": (alarm.get("escalation") or {}).get("step"),
    }


class _Feed:
    """One reader of the alarm feed that can be cut and resumed."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.items: list[FeedItem] = []
        self.used: set[str] = set()
        self._last: str | None = None
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> _Feed:
        """Open the stream, after the last id when there is one; returns once the server has accepted it."""
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun.clear()
        self._task = asyncio.create_task(self._read(accepted))
        await asyncio.wait_for(accepted, 10)
        with contextlib.suppress(TimeoutError):  # a server that does not say where it begins has begun by then
            await asyncio.wait_for(self._begun.wait(), 0.5)
        return self

    async def cut(self) -> None:
        """The network goes away."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, SimulatorError):
                await self._task
            self._task = None

    async def close(self) -> None:
        await self.cut()

    async def _read(self, accepted: asyncio.Future[None]) -> None:
        try:
            while True:  # a stream ends with its token; the next begins where it ended
                async with self._api.feed(self._last) as items:
                    if not accepted.done():
                        accepted.set_result(None)
                    async for item in items:
                        self._last = item.id
                        self._begun.set()
                        if item.type.startswith("alarm."):
                            self.items.append(item)
                await asyncio.sleep(0.1)
        except (aiohttp.ClientError, SimulatorError) as error:
            if not accepted.done():
                accepted.set_exception(SimulatorError(f"the feed cannot be opened: {error}"))


def write_junit(path: Path, verdicts: Sequence[Verdict]) -> None:
    """The verdicts as JUnit XML, for CI."""
    suite = ET.Element(
        "testsuite",
        name="simulator",
        tests=str(len(verdicts)),
        failures=str(sum(1 for verdict in verdicts if verdict.unmet)),
        skipped=str(sum(1 for verdict in verdicts if verdict.skipped)),
        time=f"{sum(verdict.seconds for verdict in verdicts):.3f}",
    )
    for verdict in verdicts:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=Path(verdict.scenario.file).stem,
            name=verdict.scenario.name,
            time=f"{verdict.seconds:.3f}",
        )
        if verdict.skipped:
            ET.SubElement(case, "skipped", message="slow")
        elif verdict.unmet:
            ET.SubElement(case, "failure", message=verdict.unmet).text = "\n".join(verdict.lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
