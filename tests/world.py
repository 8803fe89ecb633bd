"""A village in a database, with the product's parts around it and a clock that the story moves. All people are invented.

elder = await world.elder("王桂英")
await world.contact(elder, "王小明")
await world.press_sos(await world.device(elder))
world.expect_heard("王小明", "alarm.raised")
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from stdnum.iso7064 import mod_11_2

from app.access.principal import Principal
from app.access.sealing import Sealer
from app.access.vocabulary import Role
from app.alarms import answering, handling
from app.alarms.answering import Action
from app.alarms.desk import AlarmDesk
from app.alarms.links import Links
from app.alarms.tables import EscalationPolicy
from app.alarms.views import Shapes
from app.alarms.vocabulary import Outcome as End
from app.db import connect, sessions, transaction
from app.devices import credentials, wearing
from app.devices.codec import Registry
from app.devices.codecs.native import NativeCodec
from app.devices.events import Frame
from app.devices.mqtt import Received
from app.devices.tables import Device
from app.devices.vocabulary import DeviceKind
from app.elders import register
from app.elders.tables import Assignment, Contact, Elder, Visitor
from app.elders.vocabulary import AssignmentRole, DutyRole
from app.ids import new_uuid
from app.ingest import Ingest
from app.lanes import Lane
from app.notify import ways
from app.notify.channel import Channels, GiveUp, Letter, Outcome, Sent, TryAgain
from app.notify.dispatcher import Dispatcher
from app.notify.vocabulary import ChannelKind
from app.notify.ways import Way
from app.readiness import Finding
from app.readiness import look as readiness
from app.ticks import Ticks

TZ = ZoneInfo("Asia/Shanghai")
START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
DATA_KEY = bytes(range(32))
TOKEN_KEY = bytes(range(1, 33))
DISTRICT, TOWNSHIP = "370302000000", "370302001000"
VILLAGE, OTHER_VILLAGE = "370302001001", "370302001002"
ADMIN = Principal(UUID(int=1), "admin", Role.ADMIN, "", None)
OPERATOR = {"type": "user", "id": str(UUID(int=2)), "name": "值班员"}
_numbers = itertools.count(1)


def id_number(number: int) -> str:
    """A valid ID number of nobody."""
    born = date(1940, 1, 1) + timedelta(days=number // 1000)
    start = f"370302{born:%Y%m%d}{number % 1000:03d}"
    return start + str(mod_11_2.calc_check_digit(start))


@dataclass
class StoryClock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Heard:
    """One letter that reached somebody."""

    who: str
    type: str
    channel: str
    at: datetime
    letter: Letter

    @property
    def reason(self) -> str:
        return str(self.letter.payload["data"]["reason"])


@dataclass
class Recording:
    """A channel of one kind that remembers what it brought, and how each address behaves (default: it works)."""

    kind: ChannelKind
    clock: Callable[[], datetime]
    heard: list[Heard]
    behaviour: dict[str, Callable[[Letter], Awaitable[Outcome]]] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)

    def check_address(self, address: str) -> str:
        return address

    async def send(self, letter: Letter) -> Outcome:
        self.tried.append(letter.address)
        behave = self.behaviour.get(letter.address)
        outcome = await behave(letter) if behave else Sent()
        if isinstance(outcome, Sent):
            if self.kind is ChannelKind.DEVICE:
                who = letter.address
            else:
                who = letter.payload["data"]["recipient"]["name"]
            self.heard.append(Heard(who, letter.payload["type"], self.kind.value, self.clock(), letter))
        return outcome

    async def close(self) -> None: ...


class Hand:
    """Stands for the broker's connection: what is put in is taken by ingest; acknowledgements are remembered."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Received] = asyncio.Queue()
        self.acknowledged: list[Received] = []
        self.published: list[tuple[str, dict[str, Any]]] = []

    async def publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, json.loads(payload)))

    def put(self, *frames: Frame) -> None:
        for frame in frames:
            self.waiting.put_nowait(Received(frame, 1, 1, 1))

    async def take(self, at_most: int) -> list[Received]:
        taken = [await self.waiting.get()]
        while not self.waiting.empty() and len(taken) < at_most:
            taken.append(self.waiting.get_nowait())
        return taken

    def acknowledge(self, received: Sequence[Received]) -> None:
        self.acknowledged += received


@dataclass(frozen=True)
class Person:
    id: UUID
    name: str


class World:
    """See the module. `close()` at the end."""

    def __init__(self, url: str, clock: Callable[[], datetime] | None = None) -> None:
        self.url = url
        self.clock = StoryClock()
        self.time: Callable[[], datetime] = clock or self.clock
        self.url = url
        self.lanes: list[Lane] = []
        self.engine = connect(url, pool=4)
        self.sessions = sessions(self.engine)
        self.sealer = Sealer(DATA_KEY)
        self.shapes = Shapes(self.sealer, TZ)
        self.links = Links(TOKEN_KEY, "http://shouwang.test")
        self.desk = AlarmDesk(self.sealer, self.shapes, self.links)
        self.heard: list[Heard] = []
        self.recordings = {kind: Recording(kind, self.time, self.heard) for kind in ChannelKind}
        self.channels = Channels(*self.recordings.values())
        self.dispatcher = self.another_dispatcher()
        self.ticks = Ticks(self.sessions, self.time, TZ)
        self.hand = Hand()
        self.ingest = self.another_ingest()

    def lane(self) -> Lane:
        self.lanes.append(Lane(self.url))
        return self.lanes[-1]

    def another_ingest(self) -> Ingest:
        return Ingest(self.hand, Registry([NativeCodec()]), self.lane(), self.time, TZ, self.sealer)  # type: ignore[arg-type]

    def another_dispatcher(self) -> Dispatcher:
        return Dispatcher((self.lane(), self.lane()), self.channels, self.desk, self.time, asyncio.Event())

    async def close(self) -> None:
        for lane in self.lanes:
            await lane.close()
        await self.engine.dispose()

    # --- the village ---------------------------------------------------------------------------------------------------

    async def elder(self, name: str = "王桂英", *, region: str = VILLAGE, **fields: Any) -> Person:
        return (await self.elders([name], region=region, **fields))[0]

    async def elders(self, names: Sequence[str], *, region: str = VILLAGE, **fields: Any) -> list[Person]:
        people = []
        async with transaction(self.sessions) as session:
            for name in names:
                given = {
                    "name": name, "id_number": id_number(next(_numbers)), "phone": "13800000000",
                    "address": "测试一村1号", "region_code": region, "tags": ["living_alone"], "ability_level": None,
                    "ability_assessed_on": None, "observed": None, "disability_grade": None, "dementia": False,
                    "services": [], "status": "active",
                } | fields  # fmt: skip
                now = self.time()
                made = await register.enrol(
                    session, ADMIN, given, sealer=self.sealer, now=now, today=now.astimezone(TZ).date()
                )
                people.append(Person(made.id, name))
        return people

    async def contact(
        self,
        elder: Person,
        name: str,
        *,
        channels: Sequence[str] = ("webhook",),
        addresses: Sequence[str] = (),
        is_emergency: bool = True,
    ) -> Person:
        """A contact; the address of each channel is «name:kind» unless `addresses` says otherwise."""
        now = self.time()
        contact_id = new_uuid(now)
        async with transaction(self.sessions) as session:
            session.add(
                Contact(
                    id=contact_id,
                    elder_id=elder.id,
                    name=name,
                    relation="家人",
                    is_emergency=is_emergency,
                    created_at=now,
                )
            )
            await session.flush()
            await self._channels(session, "contact_id", contact_id, name, channels, addresses)
        return Person(contact_id, name)

    async def visitor(
        self,
        name: str,
        *,
        of: Person | None = None,
        channels: Sequence[str] = ("webhook",),
        addresses: Sequence[str] = (),
        region: str = VILLAGE,
    ) -> Person:
        """A visitor, paired with the elder `of`."""
        now = self.time()
        visitor_id = new_uuid(now)
        async with transaction(self.sessions) as session:
            session.add(Visitor(id=visitor_id, name=name, kind="volunteer", region_code=region, created_at=now))
            await session.flush()
            await self._channels(session, "visitor_id", visitor_id, name, channels, addresses)
        visitor = Person(visitor_id, name)
        if of is not None:
            await self.assign(of, visitor)
        return visitor

    async def assign(self, elder: Person, visitor: Person) -> None:
        """Pair them from now on."""
        now = self.time()
        async with transaction(self.sessions) as session:
            session.add(
                Assignment(
                    id=new_uuid(now), elder_id=elder.id, visitor_id=visitor.id, role=AssignmentRole.PRIMARY,
                    created_at=now,
                )
            )  # fmt: skip

    async def _channels(
        self, session: AsyncSession, owner: Any, id_: UUID, name: str, kinds: Sequence[str], addresses: Sequence[str]
    ) -> None:
        where = addresses or [f"{name}:{kind}" for kind in kinds]
        given = [Way(ChannelKind(kind), address) for kind, address in zip(kinds, where, strict=True)]
        await ways.replace(session, owner, id_, given, sealer=self.sealer, now=self.time())

    async def change_channels(self, contact: Person, *kinds: str) -> None:
        async with transaction(self.sessions) as session:
            await self._channels(session, "contact_id", contact.id, contact.name, kinds, ())

    async def office(
        self,
        name: str,
        role: DutyRole = DutyRole.VILLAGE_HEAD,
        *,
        region: str = VILLAGE,
        since: date = date(2026, 1, 1),
        until: date | None = None,
        **more: Any,
    ) -> Person:
        holder = await self.visitor(name, region=region, **more)
        async with transaction(self.sessions) as session:
            place = await register.region_within(session, ADMIN, region)
            await register.add_duty(
                session, place, role=role, visitor_id=holder.id, since=since, until=until, now=self.time()
            )
        return holder

    async def village_head(self, name: str = "村主任", **more: Any) -> Person:
        return await self.office(name, **more)

    async def township_duty(self, name: str = "镇值班", **more: Any) -> Person:
        return await self.office(name, DutyRole.TOWNSHIP_DUTY, region=TOWNSHIP, **more)

    async def device(
        self,
        elder: Person | None,
        device_id: str = "",
        *,
        kind: DeviceKind = DeviceKind.SOS_BUTTON,
        place: str | None = None,
        profile: str = "native",
    ) -> str:
        now = self.time()
        device_id = device_id or f"sos-{next(_numbers):05d}"
        async with transaction(self.sessions) as session:
            made = await wearing.register(
                session, device_id=device_id, kind=kind, profile=profile, place=place, region_code=VILLAGE, now=now
            )
            if elder is not None:
                lives_in = (await register.names_of(session, [elder.id]))[elder.id][1]
                await wearing.bind(session, made, elder_id=elder.id, region_code=lives_in, now=now)
        return device_id

    async def password(self, device_id: str) -> str:
        """A new password of the device for the broker."""
        async with transaction(self.sessions) as session:
            return (await credentials.issue(session, device_id, server=None, now=self.time())).password

    async def bind(self, device_id: str, elder: Person | None) -> None:
        async with transaction(self.sessions) as session:
            device = await session.get(Device, device_id)
            assert device is not None
            if elder is None:
                await wearing.unbind(session, device_id, now=self.time())
            else:
                known = await session.get(Elder, elder.id)
                assert known is not None
                await wearing.bind(session, device, elder_id=elder.id, region_code=known.region_code, now=self.time())

    async def policy(
        self,
        *steps: tuple[int, Sequence[str]],
        repeat: int = 100,
        severity: str = "critical",
        region: str = DISTRICT,
        name: str = "policy",
    ) -> None:
        """A policy as the API keeps it: its region as a prefix. The clock moves on, so that the newest is certain."""
        self.clock.now += timedelta(milliseconds=5)
        prefix = region.rstrip("0") if region == DISTRICT else region[:9] if region.endswith("000") else region
        async with transaction(self.sessions) as session:
            session.add(
                EscalationPolicy(
                    id=new_uuid(self.time()), name=name, severity=severity, region_code=prefix,
                    steps=[{"after_s": after, "targets": list(targets)} for after, targets in steps],
                    repeat_last_every_s=repeat, created_at=self.time(),
                )
            )  # fmt: skip

    # --- what happens --------------------------------------------------------------------------------------------------

    def frame(
        self, device: str, body: Mapping[str, Any] | bytes, *, retained: bool = False, leaf: str = "event"
    ) -> Frame:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Frame(f"devices/{device}/{leaf}", payload, self.time(), retained)

    async def message(self, device: str, body: Mapping[str, Any] | bytes, **more: Any) -> None:
        await self.ingest.swallow([self.frame(device, body, **more)])

    async def press_sos(self, device: str, *, id: str | None = None, **more: Any) -> None:
        """Somebody presses the button; what follows at once is sent."""
        await self.message(device, {"type": "sos"} | ({"id": id} if id else {}) | more)
        await self.settle()

    async def keep_register(self) -> None:
        """What the worker looks for each minute: birthdays, ends of pauses, policies that begin."""
        while await self.ticks.keep_register():
            pass

    async def settle(self) -> None:
        """Everything that is due now, done: steps and sending."""
        for _ in range(200):
            if not await self.ticks.look() and not await self.dispatcher.drain():
                return
        raise AssertionError("the world does not come to rest")

    async def pass_time(self, *, seconds: float = 0, minutes: float = 0) -> None:
        """Live through the time: every step, promise and retry at the moment it is due."""
        end = self.clock.now + timedelta(seconds=seconds, minutes=minutes)
        for _ in range(2000):
            due = await self.value(
                "SELECT least((SELECT min(next_at) FROM alarms), "
                "(SELECT min(due_at) FROM notices WHERE state IN ('pending', 'sending')))"
            )
            if due is None or due > end:
                break
            self.clock.now = max(self.clock.now, due)
            await self.settle()
        self.clock.now = end
        await self.settle()

    async def watch(self) -> None:
        """Every home that is due to be looked at, looked at."""
        while await self.ticks.watch():
            pass
        await self.settle()

    async def live(self, *, minutes: float) -> None:
        """Live through the time with the rules over time: every look at the moment it is due."""
        end = self.clock.now + timedelta(minutes=minutes)
        for _ in range(2000):
            await self.watch()
            due = await self.value("SELECT min(due_at) FROM home_states")
            if due is None or due > end:
                break
            self.clock.now = max(self.clock.now, due)
        self.clock.now = end
        await self.watch()

    # --- people answer -------------------------------------------------------------------------------------------------

    def link(self, name: str) -> str:
        """The token of the last answer link that somebody was given."""
        urls = [h.letter.payload["data"]["ack_url"] for h in self.heard if h.who == name and h.channel != "device"]
        return str(urls[-1]).rpartition("/")[2]

    async def answers(
        self, name: str, action: Action = Action.ACKNOWLEDGE, *, eta: int | None = None, outcome: End | None = None
    ) -> None:
        """Somebody uses the last link they were given."""
        async with transaction(self.sessions) as session:
            to = await answering.invitation(session, self.links.read(self.link(name)), now=self.time())
            await answering.answer(
                session, to, action=action, eta_minutes=eta, outcome=outcome, note=None, now=self.time(), tz=TZ
            )

    async def operator(self, elder: Person, action: str, *, end: End = End.ELDER_WELL, eta: int | None = None) -> None:
        """The duty desk acts on the elder's unresolved alarm, as the API does."""
        alarm = await self.alarm(elder)
        await self.act(alarm.id, action, end=end, eta=eta)

    async def act(self, alarm_id: UUID, action: str, *, end: End = End.ELDER_WELL, eta: int | None = None) -> None:
        async with transaction(self.sessions) as session:
            held = await handling.hold(session, alarm_id)
            match action:
                case "acknowledge":
                    await handling.acknowledge(session, held, by=OPERATOR, eta_minutes=eta, note=None, now=self.time())
                case "attend":
                    await handling.attend(session, held, by=OPERATOR, note=None, now=self.time())
                case "resolve":
                    await handling.resolve(session, held, by=OPERATOR, outcome=end, note=None, now=self.time(), tz=TZ)
                case "escalate":
                    await handling.escalate(session, held, by=OPERATOR, now=self.time())
                case _:
                    raise AssertionError(action)

    # --- how channels behave -------------------------------------------------------------------------------------------

    def dead(self, address: str) -> None:
        """It will never work."""
        self._behave(address, GiveUp("no such number"))

    def away(self, address: str) -> None:
        """It may work later."""
        self._behave(address, TryAgain("no answer"))

    def works(self, address: str) -> None:
        self._behave(address, Sent())

    def _behave(self, address: str, outcome: Outcome) -> None:
        async def behave(_: Letter) -> Outcome:
            return outcome

        self.on_send(address, behave)

    def on_send(self, address: str, behave: Callable[[Letter], Awaitable[Outcome]]) -> None:
        self.recordings[ChannelKind(address.rpartition(":")[2])].behaviour[address] = behave

    # --- what is to be seen --------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """What was heard until now is not asked for again."""
        self.heard.clear()

    async def desk_notices(self, type_: str) -> list[Any]:
        """What the duty desk was told. It watches the feed: its notices are sent as they are written."""
        found = list(await self.rows(
            "SELECT * FROM notices WHERE recipient_type = 'operators' AND purpose = :type ORDER BY id", type=type_
        ))  # fmt: skip
        assert all(row.state == "sent" and row.sent_at == row.created_at for row in found)
        return found

    def heard_by(self, name: str, type_: str | None = None) -> list[Heard]:
        return [h for h in self.heard if h.who == name and type_ in (None, h.type)]

    def expect_heard(self, name: str, type_: str, *, times: int = 1, channel: str | None = None) -> Heard:
        found = [h for h in self.heard_by(name, type_) if channel in (None, h.channel)]
        assert len(found) == times, f"{name} heard {type_} {len(found)}×, not {times}×; all: {self.story()}"
        return found[-1]

    def hears_nothing(self, name: str) -> None:
        assert not self.heard_by(name), self.story()

    def story(self) -> list[tuple[str, str, str, int]]:
        return [(h.who, h.type, h.channel, int((h.at - START).total_seconds())) for h in self.heard]

    async def rows(self, query: str, **values: Any) -> Sequence[Any]:
        async with self.sessions() as session:
            return (await session.execute(sa.text(query), values)).all()

    async def value(self, query: str, **values: Any) -> Any:
        async with self.sessions() as session:
            return await session.scalar(sa.text(query), values)

    async def do(self, query: str, **values: Any) -> None:
        async with transaction(self.sessions) as session:
            await session.execute(sa.text(query), values)

    async def alarms(self, elder: Person | None = None) -> Sequence[Any]:
        if elder is None:
            return await self.rows("SELECT * FROM alarms ORDER BY raised_at, id")
        return await self.rows("SELECT * FROM alarms WHERE elder_id = :id ORDER BY raised_at, id", id=elder.id)

    async def alarm(self, elder: Person) -> Any:
        """The one alarm of an elder."""
        found = await self.alarms(elder)
        assert len(found) == 1, found
        return found[0]

    async def feed(self, type_: str | None = None) -> list[Any]:
        rows = await self.rows("SELECT * FROM feed_events ORDER BY seq")
        return [row for row in rows if type_ in (None, row.type)]

    async def findings(self, *, embedded_broker: bool | None = None) -> dict[str, Finding]:
        async with self.sessions() as session:
            now = self.time()
            today = now.astimezone(TZ).date()
            found = await readiness(session, now=now, today=today, embedded_broker=embedded_broker)
            return {f.name: f for f in found}

    async def quarantined(self, reason: str) -> bytes:
        """What the one message of this reason said."""
        row = (await self.rows("SELECT id, payload_sealed FROM rejected_messages WHERE reason = :r", r=reason))[0]
        return self.sealer.open_bytes(row.payload_sealed, record=row.id)

    async def rejected(self) -> list[str]:
        return [row.reason for row in await self.rows("SELECT reason FROM rejected_messages ORDER BY received_at, id")]


def unique() -> str:
    return uuid4().hex
