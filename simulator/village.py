"""A sample village over REST: people, duty, elders, contacts, devices, visits. Asked again it finds what is there."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from simulator import people
from simulator.api import Api, ApiError, key_for
from simulator.day import Profile
from simulator.terminal import say

TOWNSHIP = "370302001000"
DUTY_FROM = "2026-01-01"
_FIRST_VILLAGE = 201


@dataclass(slots=True)
class Person:
    """Somebody with a phone (a webhook channel at the simulator's listener)."""

    key: str  # the path at the listener
    id: str
    name: str
    role: str
    secret: str


@dataclass(slots=True)
class Resident:
    """An elder with the people and devices around them."""

    id: str
    name: str
    profile: Profile
    contacts: list[Person] = field(default_factory=list)
    visitor: Person | None = None


@dataclass(slots=True)
class Village:
    """What `seed_village` made or found."""

    code: str
    name: str
    head: Person
    deputy: Person
    duty: Person
    visitors: list[Person]
    elders: list[Resident] = field(default_factory=list)

    def everybody(self) -> list[Person]:
        """All who have a phone."""
        contacts = [person for resident in self.elders for person in resident.contacts]
        return [self.head, self.deputy, self.duty, *self.visitors, *contacts]


async def seed_village(api: Api, *, village: int, elders: int, seed: int, hook_url: str) -> Village:
    """The `village`-th sample village (from 1) with invented people; made, or found when it is there.

    `hook_url` is the base address of the simulator's listener; people get `{hook_url}/hook/{key}`.
    """
    return await _Seeding(api, village, elders, seed, hook_url.rstrip("/")).run()


class _Seeding:
    def __init__(self, api: Api, number: int, elders: int, seed: int, hook_url: str) -> None:
        self._api = api
        self._number = number
        self._count = elders
        self._seed = seed
        self._hook_url = hook_url
        self._few = asyncio.Semaphore(4)
        self._rng = random.Random(f"village-{number}-{seed}")
        self._code = f"{TOWNSHIP[:9]}{_FIRST_VILLAGE + number - 1:03d}"
        self._name = people.village_name(number)
        self._today = datetime.now().astimezone().date()
        self._visitors: dict[tuple[str, str], dict[str, Any]] = {}
        self._elders: dict[tuple[str, str], dict[str, Any]] = {}

    async def run(self) -> Village:
        await ensure_region(self._api, self._code, self._name)
        self._visitors = {
            (v["name"], v["region_code"]): v for v in await self._api.items("/visitors", region_code=TOWNSHIP[:9])
        }
        self._elders = {
            (e["name"], e["birth_date"]): e
            for e in await self._api.items("/elders", region_code=self._code)
            if e["region_code"] == self._code
        }
        head = await self._visitor("head", "village_head", "village_committee")
        deputy = await self._visitor("deputy", "deputy", "village_committee")
        duty = await self._visitor("duty", "township_duty", "social_worker", region=TOWNSHIP)
        kinds = ("volunteer", "family_doctor", "neighbour_relative", "grid_worker")
        visitors = [await self._visitor(f"visitor{n}", "assigned_visitor", kind) for n, kind in enumerate(kinds, 1)]
        await ensure_duty(self._api, self._code, "village_head", head.id)
        await ensure_duty(self._api, self._code, "deputy", deputy.id)
        await ensure_duty(self._api, TOWNSHIP, "township_duty", duty.id)
        made = Village(self._code, self._name, head, deputy, duty, visitors)
        made.elders = await asyncio.gather(*(self._resident(number, visitors) for number in range(1, self._count + 1)))
        return made

    def _key(self, name: str) -> str:
        return f"v{self._number}-s{self._seed}-{name}"

    def _channels(self, key: str) -> list[dict[str, str]]:
        return [{"kind": "webhook", "address": f"{self._hook_url}/hook/{key}", "secret": phone_secret(key)}]

    async def _visitor(self, short: str, role: str, kind: str, *, region: str | None = None) -> Person:
        key = self._key(short)
        name = people.grown_up(random.Random(f"{key}-name"))
        body = {
            "name": name,
            "kind": kind,
            "organisation": f"{self._name}村委会" if kind == "village_committee" else None,
            "phone": people.phone(self._rng),
            "region_code": region or self._code,
            "channels": self._channels(key),
        }
        found = self._visitors.get((name, region or self._code))
        if found is None:
            made = await self._api.post("/visitors", body, key=key_for("visitor", self._api.url, body))
            return Person(key, made["id"], name, role, phone_secret(key))
        await renew_channels(self._api, f"/visitors/{found['id']}", body["channels"])
        return Person(key, found["id"], name, role, phone_secret(key))

    async def _resident(self, number: int, visitors: list[Person]) -> Resident:
        async with self._few:
            return await self._enrol(number, visitors)

    async def _enrol(self, number: int, visitors: list[Person]) -> Resident:
        rng = random.Random(f"{self._number}-{self._seed}-elder-{number}")
        # The number must not change with the day of seeding: ages are counted from a fixed day.
        who = people.elder(rng, today=date(2026, 11, 1), village_name=self._name)
        elder = self._elders.get((who.name, who.birth_date.isoformat()))
        new = elder is None
        if elder is None:
            elder = await self._make_elder(who)
        resident = Resident(elder["id"], who.name, self._profile(rng, number))
        resident.visitor = visitors[(number - 1) % len(visitors)]
        for order, (relation, short) in enumerate((("女儿", "daughter"), ("儿子", "son"))[: rng.choice((1, 2, 2))], 1):
            resident.contacts.append(await self._contact(resident, f"e{number}-{short}", who.name[0], relation, order))
        await tolerate_conflict(
            self._api,
            f"/elders/{resident.id}/visitors",
            {"visitor_id": resident.visitor.id, "role": "primary"},
        )
        for kind, device_id in resident.profile.devices.items():
            await ensure_device(self._api, device_id, kind, self._code, resident.id)
        if new:
            await self._history(resident, rng)
            say(f"enrolled {who.name}, {elder['age']}, with {len(resident.profile.devices)} devices")
        return resident

    async def _make_elder(self, who: people.InventedElder) -> dict[str, Any]:
        body = who.body(self._code)
        made: dict[str, Any] = await self._api.post("/elders", body, key=key_for("elder", self._api.url, body))
        return made

    def _profile(self, rng: random.Random, number: int) -> Profile:
        kinds = ["sos_button", "fall_detector", "door_sensor", "motion_sensor", "bed_sensor", "smoke_detector"]
        kinds += [kind for kind in ("gas_detector", "water_sensor") if rng.random() < 0.5]
        return Profile(
            key=f"v{self._number}-e{number}",
            devices={kind: f"{self._key(f'e{number}')}-{kind.replace('_', '-')}" for kind in kinds},
            wakes_at=rng.uniform(5, 7.5),
            sleeps_at=rng.uniform(19.5, 22.5),
            outings=rng.randint(0, 3),
            nightly_rises=rng.randint(0, 3),
            frailty=round(rng.random(), 2),
        )

    async def _contact(self, resident: Resident, short: str, surname: str, relation: str, order: int) -> Person:
        key = self._key(short)
        name = people.grown_up(random.Random(f"{key}-name"), surname)
        path = f"/elders/{resident.id}/contacts"
        channels = self._channels(key)
        there = await _listed(self._api, path)
        found = next((contact for contact in there if contact["name"] == name), None)
        if found is not None:
            await renew_channels(self._api, f"{path}/{found['id']}", channels)
            return Person(key, found["id"], name, "emergency_contact", phone_secret(key))
        body = {
            "name": name,
            "relation": relation,
            "phone": people.phone(random.Random(f"{key}-phone")),
            "is_emergency": True,
            "priority": order,
            "channels": channels,
        }
        made = await self._api.post(path, body, key=key_for("contact", self._api.url, path, body))
        return Person(key, made["id"], name, "emergency_contact", phone_secret(key))

    async def _history(self, resident: Resident, rng: random.Random) -> None:
        """Consents and some visits of the past weeks."""
        assert resident.visitor is not None
        for scope in ("visit", "home_visit", "device"):
            consent = {"scope": scope, "given_by": "elder", "given_on": DUTY_FROM, "evidence": "模拟数据"}
            path = f"/elders/{resident.id}/consents"
            try:
                await self._api.post(path, consent, key=key_for("consent", self._api.url, path, consent))
            except ApiError as error:
                if error.status not in (404, 405):  # a server without a register of consents
                    raise
        now = datetime.now().astimezone().replace(minute=0, second=0, microsecond=0)
        for weeks in range(rng.randint(0, 3)):
            start = now - timedelta(days=7 * weeks + rng.randint(1, 6), hours=rng.randint(0, 4))
            visit = {
                "elder_id": resident.id,
                "visitor_id": resident.visitor.id,
                "method": rng.choice(("home", "home", "phone")),
                "started_at": start.isoformat(),
                "ended_at": (start + timedelta(minutes=rng.randint(10, 50))).isoformat(),
                "services": rng.sample(("health_management", "home_safety", "emotional_support", "sanitation"), 2),
                "note": "一切都好",
            }
            await self._api.post("/visits", visit, key=key_for("visit", self._api.url, visit))


async def ensure_region(api: Api, code: str, name: str) -> bool:
    """Make a region; False when it was there."""
    try:
        await api.post("/regions", {"code": code, "name": name})
    except ApiError as error:
        if error.status != 409:
            raise
        return False
    return True


async def ensure_duty(api: Api, code: str, role: str, visitor_id: str) -> None:
    """Give an office to a person, unless they hold it."""
    path = f"/regions/{code}/duty"
    if any(row["role"] == role and row["visitor_id"] == visitor_id for row in await _listed(api, path)):
        return
    await tolerate_conflict(api, path, {"role": role, "visitor_id": visitor_id, "from": DUTY_FROM})


async def ensure_device(
    api: Api, device_id: str, kind: str, region_code: str, elder_id: str | None, *, profile: str = "native"
) -> None:
    """Register a device and put it on an elder."""
    body = {"device_id": device_id, "kind": kind, "profile": profile, "place": _PLACES.get(kind)}
    await tolerate_conflict(api, "/devices", {**body, "region_code": region_code})
    if elder_id is not None:
        await api.put(f"/devices/{device_id}/binding", {"elder_id": elder_id})


async def tolerate_conflict(api: Api, path: str, body: dict[str, Any]) -> None:
    """POST something that may be there."""
    try:
        await api.post(path, body)
    except ApiError as error:
        if error.status != 409:
            raise


async def renew_channels(api: Api, path: str, channels: object) -> None:
    """Point somebody who is there at this run's listener, where the server can change it."""
    try:
        await api.patch(path, {"channels": channels})
    except ApiError as error:
        if error.status not in (404, 405):
            raise


def phone_secret(key: str) -> str:
    """The signing secret of a simulated phone: the same after each start, so that later runs can check too."""
    return "whsec_" + base64.b64encode(hashlib.sha256(f"simulated phone {key}".encode()).digest()[:24]).decode()


_PLACES = {
    "sos_button": "床头",
    "fall_detector": "卧室",
    "door_sensor": "大门",
    "motion_sensor": "客厅",
    "bed_sensor": "床",
    "smoke_detector": "厨房",
    "gas_detector": "厨房",
    "water_sensor": "卫生间",
}


async def _listed(api: Api, path: str) -> list[dict[str, Any]]:
    found = await api.get(path)
    rows: list[dict[str, Any]] = found["items"] if isinstance(found, dict) else found
    return rows


async def unresolved(api: Api, village: Village) -> AsyncIterator[dict[str, Any]]:
    """The unresolved alarms of a village's elders."""
    for resident in village.elders:
        for alarm in await api.items("/alarms", elder_id=resident.id):
            if alarm["state"] != "resolved":
                yield alarm
