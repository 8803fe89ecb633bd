"""A village that lives: devices tell their day in compressed time, and people answer what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from simulator import devices
from simulator.api import Api, ApiError
from simulator.day import DAY, PlannedMessage, Profile, plan_day
from simulator.listener import Heard, Listener
from simulator.mqtt import Command, Mqtt
from simulator.terminal import SimulatorError, say
from simulator.village import Person, Resident, Village, unresolved

QUIET = frozenset({"heartbeat", "motion", "bed", "door", "vitals"})  # printed only on request
_FINISH_WITHIN_S = 60.0
_ASKING = frozenset({"alarm.raised", "alarm.escalated", "alarm.reopened", "alarm.calmed"})
_OUTCOMES = {
    "sos": ("elder_well", "elder_well", "false_alarm", "real_emergency"),
    "fall": ("real_emergency", "hospitalised", "elder_well"),
    "smoke": ("elder_well", "false_alarm", "real_emergency"),
    "gas": ("real_emergency", "device_fault"),
    "water_leak": ("other", "device_fault"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """How one alarm will be answered: by whom (a role), on which of the notices they hear, after how long."""

    role: str
    on_notice: int = 1
    after_s: float = 5.0
    arrives_after_s: float = 8.0
    stays_s: float = 8.0


class Responders:
    """The people of a village with their phones: they hear, think, answer, come, and say how it ended."""

    def __init__(self, api: Api, village: Village, rng: random.Random) -> None:
        self._api = api
        self._rng = rng
        self._people = {person.key: person for person in village.everybody()}
        self._names = {resident.id: resident.name for resident in village.elders}
        self._parts: dict[str, Part] = {}
        self._scripted: dict[tuple[str, str], Part] = {}
        self._heard: dict[tuple[str, str], int] = {}
        self._taken: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def script(self, elder_id: str, kind: str, part: Part) -> None:
        """Decide beforehand how the next alarm of this elder and kind is answered."""
        self._scripted[(elder_id, kind)] = part

    def hear(self, heard: Heard) -> None:
        """A phone rings."""
        person = self._people.get(heard.path)
        if person is None:
            return
        alarm = heard.alarm
        name = self._names.get(heard.elder_id, "?")
        signed = {True: "", None: " (signature not checked)", False: " (WRONG SIGNATURE)"}[heard.signed]
        say(
            f"⇐ {person.role.replace('_', ' ')} {person.name} hears {heard.type}: {alarm.get('kind')} of {name}{signed}"
        )
        if heard.type not in _ASKING or heard.signed is False or not heard.ack_url:
            return
        alarm_id = str(alarm.get("id"))
        part = self._part(alarm_id, heard)
        count = self._heard[(alarm_id, person.key)] = self._heard.get((alarm_id, person.key), 0) + 1
        if heard.type == "alarm.reopened":
            self._taken.discard(alarm_id)
        if person.role == part.role and count >= part.on_notice and alarm_id not in self._taken:
            self._taken.add(alarm_id)
            self._start(self._handle(person, name, heard, part))

    async def finish(self, seconds: float) -> None:
        """Let those who are on the way arrive and say how it ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def close(self) -> None:
        """Everybody puts the phone away."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _part(self, alarm_id: str, heard: Heard) -> Part:
        part = self._parts.get(alarm_id)
        if part is None:
            part = self._scripted.pop((heard.elder_id, str(heard.alarm.get("kind"))), None) or self._usual()
            self._parts[alarm_id] = part
        return part

    def _usual(self) -> Part:
        after, arrives, stays = self._rng.uniform(3, 9), self._rng.uniform(5, 15), self._rng.uniform(5, 15)
        roles = ("emergency_contact",) * 6 + ("assigned_visitor",) * 2 + ("village_head",) * 2
        role = self._rng.choice(roles)
        # Some let the first call pass: then escalation must find somebody.
        patience = 2 if role == "village_head" else 1
        return Part(role, patience, after, arrives, stays)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, person: Person, elder: str, heard: Heard, part: Part) -> None:
        await asyncio.sleep(part.after_s)
        eta = self._rng.choice((5, 10, 15))
        if not await self._act(person, elder, heard, {"action": "acknowledge", "eta_minutes": eta}):
            return
        await asyncio.sleep(part.arrives_after_s)
        if not await self._act(person, elder, heard, {"action": "attend"}):
            return
        await asyncio.sleep(part.stays_s)
        outcome = self._rng.choice(_OUTCOMES.get(str(heard.alarm.get("kind")), ("other",)))
        await self._act(person, elder, heard, {"action": "resolve", "outcome": outcome, "note": "模拟处理"})

    async def _act(self, person: Person, elder: str, heard: Heard, body: dict[str, Any]) -> bool:
        words = {"acknowledge": f"is on the way ({body.get('eta_minutes')} min)", "attend": "is there"}
        said = words.get(body["action"]) or f"closes it: {body.get('outcome')}"
        try:
            await self._api.answer_link(heard.ack_url, body)
        except ApiError as error:
            say(f"⇒ {person.name} wanted to answer for {elder}, and was told: {error}")
            return False
        say(f"⇒ {person.name} {said} – {heard.alarm.get('kind')} of {elder}")
        return True


@dataclass(slots=True)
class _Speaker:
    """Sends planned messages as events of now."""

    mqtt: Mqtt
    names: dict[str, str]  # device id → elder's name
    verbose: bool
    run: str = field(default_factory=lambda: f"{int(time.time()):x}")
    sent: int = 0

    async def send(self, message: PlannedMessage) -> None:
        payload = devices.event(
            message.type,
            ts_ms=int(time.time() * 1000),
            event_id=f"{self.run}-{message.event_id}",
            fields=message.fields,
        )
        try:
            await self.mqtt.publish(devices.event_topic(message.device_id), payload)
        except SimulatorError as error:
            say(f"! {error}")
            return
        self.sent += 1
        if self.verbose or message.type not in QUIET:
            fields = " ".join(f"{name}={value}" for name, value in message.fields.items())
            who = self.names.get(message.device_id, "?")
            say(f"→ {who}: {message.type} {fields}".rstrip() + f"   [{message.device_id}]")

    async def online(self) -> None:
        """Every device says that it is there."""
        for device_id in self.names:
            await self.mqtt.publish(devices.status_topic(device_id), devices.status(True), retain=True)


async def live(
    api: Api,
    mqtt: Mqtt,
    listener: Listener,
    village: Village,
    *,
    seed: int = 7,
    speed: float = 3600.0,
    days: int | None = 1,
    verbose: bool = False,
    opening: bool = False,
) -> int:
    """Live `days` days (None: until cancelled), `speed` simulated seconds a second. Returns the messages sent.

    `opening`: before the days, one SOS that the daughter answers and one fall that nobody answers for a while.
    """
    responders = Responders(api, village, random.Random(f"people-{seed}"))
    names = {device: one.name for one in village.elders for device in one.profile.devices.values()}
    speaker = _Speaker(mqtt, names, verbose)
    for person in village.everybody():
        listener.trust(person.key, person.secret)
    listener.on_heard = responders.hear
    mqtt.on_command = lambda command: _told(names, command)
    work: set[asyncio.Task[None]] = set()
    try:
        await mqtt.listen_to("devices/+/command")
        if opening:
            work.add(asyncio.create_task(_opening(speaker, responders, village)))
        await speaker.online()
        today = datetime.now().astimezone().date()
        day = 0
        while days is None or day < days:
            date = today + timedelta(days=day)
            messages = _day_of_all(village, date, seed, day)
            start = time.monotonic()
            # The first day of an endless life begins in the morning: nights are long to watch.
            skip = 6 * 3600.0 if days is None and day == 0 else 0.0
            say(f"day {day + 1}: {len(messages)} messages in {(DAY - skip) / speed:.0f} s")
            for at, message in messages:
                if at < skip:
                    continue
                await asyncio.sleep(max(0.0, start + (at - skip) / speed - time.monotonic()))
                await speaker.send(message)
            await asyncio.sleep(max(0.0, start + (DAY - skip) / speed - time.monotonic()))
            day += 1
        await responders.finish(_FINISH_WITHIN_S)
        return speaker.sent
    finally:
        listener.on_heard = None
        mqtt.on_command = None
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await responders.close()


def _day_of_all(village: Village, date: Any, seed: int, day: int) -> list[tuple[float, PlannedMessage]]:
    messages: list[tuple[float, PlannedMessage]] = []
    for resident in village.elders:
        rng = random.Random(f"{seed}-{resident.profile.key}-{day}")
        messages.extend((message.at, message) for message in plan_day(resident.profile, date, rng))
    return sorted(messages, key=lambda pair: (pair[0], pair[1].device_id, pair[1].event_id))


def _told(names: dict[str, str], command: Command) -> None:
    if command.device_id in names:
        text = command.body.get("message") or ""
        say(
            f"⇠ the device of {names[command.device_id]} says: {command.body.get('state')} {text}".rstrip()
            + f"   [{command.device_id}]"
        )


async def _opening(speaker: _Speaker, responders: Responders, village: Village) -> None:
    """What a watcher sees first."""
    if not village.elders:
        return
    first = village.elders[0]
    responders.script(first.id, "sos", Part("emergency_contact", 1, after_s=8, arrives_after_s=12, stays_s=10))
    await asyncio.sleep(1.0)
    await speaker.send(_now(first, "sos_button", "sos", "opening-sos"))
    second = village.elders[1 % len(village.elders)]
    responders.script(second.id, "fall", Part("village_head", 2, after_s=14, arrives_after_s=12, stays_s=12))
    await asyncio.sleep(18)
    await speaker.send(_now(second, "fall_detector", "fall", "opening-fall", confidence=0.93))


def _now(resident: Resident, device: str, kind: str, event_id: str, **fields: devices.Value) -> PlannedMessage:
    profile: Profile = resident.profile
    return PlannedMessage(0, profile.devices[device], kind, f"{event_id}-{profile.key}", fields)


async def short_steps(api: Api, village: Village) -> None:
    """A policy for this village whose steps a watcher can wait for."""
    name = f"Demonstration {village.code}: steps after 10 s and 20 s"
    if any(policy["name"] == name for policy in await api.items("/escalation-policies")):
        return
    for severity in ("critical", "major"):
        await api.post(
            "/escalation-policies",
            {
                "name": name,
                "severity": severity,
                "region_code": village.code,
                "steps": [
                    {"after_s": 10, "targets": ["village_head", "assigned_visitors"]},
                    {"after_s": 20, "targets": ["township_duty", "village_head", "operators"]},
                ],
                "repeat_last_every_s": 30,
            },
        )


async def tidy(api: Api, village: Village) -> None:
    """Alarms that an earlier run left: nobody of that run will come any more."""
    async for alarm in unresolved(api, village):
        with contextlib.suppress(ApiError):
            body = {"outcome": "test", "note": "left by an earlier run of the simulator"}
            await api.post(f"/alarms/{alarm['id']}/resolve", body)
