"""Front ends subscribe to events: who hears what, when it is tried again, when it rests. All people are invented.

The receivers are real HTTP servers; the clock is the story's, so that a day of retries takes no day.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from app import metrics
from app.access.principal import Principal
from app.access.tables import User
from app.access.vocabulary import Role
from app.clock import system_clock
from app.db import transaction
from app.errors import InvalidInput
from app.ids import new_uuid
from app.notify.channels._http import Http
from app.webhooks import addresses, queue, subscriptions
from app.webhooks.fan_out import Fact, Wish, fan_out
from app.webhooks.messages import Composer
from app.webhooks.sender import Sender
from app.webhooks.tables import Subscription
from app.webhooks.terms import Terms
from app.webhooks.vocabulary import KINDS, PAUSE_WORDS, EventType, PauseReason
from tests.world import OTHER_VILLAGE, VILLAGE, Person, World

TERMS = Terms(allow_private=True)
DAY = timedelta(days=1)


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class FrontEnd:
    """Receivers, one a path, that answer what the story says."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    wait: dict[str, asyncio.Event] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.path, headers, await request.read()))
        if request.path in self.wait:
            await self.wait[request.path].wait()
        return web.Response(status=self.statuses.get(request.path, 200), headers=self.headers)

    def at(self, path: str) -> list[Seen]:
        return [one for one in self.seen if one.path == path]

    def heard(self, path: str) -> list[str]:
        return [one.json["type"] for one in self.at(path)]


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    made = FrontEnd()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@dataclass
class Stage:
    """A village, front ends, and a worker that brings one to the other."""

    world: World
    front: FrontEnd
    admin: Principal
    terms: Terms = TERMS

    def __post_init__(self) -> None:
        self.workers: list[Sender] = []
        self.sender = self.worker()

    def worker(self, **more: Any) -> Sender:
        world = self.world
        http = more.pop("http", None) or Http(allow_private=True, timeout_s=1)
        made = Sender(
            world.sessions, Composer(world.sealer, world.shapes), http, world.time, asyncio.Event(), self.terms, **more
        )
        self.workers.append(made)
        return made

    async def subscribe(
        self, path: str, *types: EventType, region: str | None = None, who: Principal | None = None, url: str = ""
    ) -> tuple[UUID, str]:
        async with transaction(self.world.sessions) as session:
            made, secret = await subscriptions.create(
                session, who or self.admin, url=url or self.front.url + path, event_types=types or None,
                region_code=region, description=None, sealer=self.world.sealer, now=self.world.time(),
            )  # fmt: skip
        return made.id, secret

    async def with_held(self, id_: UUID, act: Callable[[Any, Subscription], Awaitable[Any]]) -> Any:
        async with transaction(self.world.sessions) as session:
            return await act(session, await subscriptions.find(session, self.admin, id_, lock=True))

    async def rotate(self, id_: UUID, overlap: timedelta = DAY) -> str:
        now, sealer = self.world.time(), self.world.sealer
        return str(
            await self.with_held(id_, lambda s, f: subscriptions.rotate(s, f, overlap=overlap, sealer=sealer, now=now))
        )

    async def wake_up(self, id_: UUID, who: Principal | None = None) -> None:
        async def act(_: Any, found: Subscription) -> None:
            subscriptions.activate(found, who or self.admin)

        await self.with_held(id_, act)

    async def rest(self, id_: UUID) -> None:
        await self.with_held(id_, lambda s, f: subscriptions.rest(s, f, now=self.world.time()))

    async def resend_failed(self, id_: UUID, since: Any = None) -> int:
        async with transaction(self.world.sessions) as session:
            return await queue.send_failed_again(session, id_, since=since, now=self.world.time())

    async def alarm(self, region: str = VILLAGE) -> Person:
        """Somebody presses their button."""
        elder = await self.world.elder(region=region)
        await self.world.contact(elder, "王小明")
        await self.world.press_sos(await self.world.device(elder))
        return elder

    async def pass_time(self, span: timedelta) -> None:
        """Live through the time: every try at the moment it is due."""
        end = self.world.clock.now + span
        await self.sender.drain()
        for _ in range(500):
            due = await self.world.value(
                "SELECT min(d.due_at) FROM webhook_deliveries d JOIN webhook_subscriptions s ON s.id = d.subscription_id "
                "WHERE d.state IN ('pending', 'sending') AND s.paused_at IS NULL"
            )
            if due is None or due > end:
                break
            self.world.clock.now = max(self.world.clock.now, due)
            await self.sender.drain()
        self.world.clock.now = end

    async def log(self, id_: UUID) -> list[Any]:
        return list(
            await self.world.rows("SELECT * FROM webhook_deliveries WHERE subscription_id = :id ORDER BY id", id=id_)
        )

    async def states(self, id_: UUID) -> list[str]:
        return [row.state for row in await self.log(id_)]

    async def row(self, id_: UUID) -> Any:
        return (await self.world.rows("SELECT * FROM webhook_subscriptions WHERE id = :id", id=id_))[0]


async def account(world: World, region: str, role: Role = Role.ADMIN) -> Principal:
    now = world.time()
    async with transaction(world.sessions) as session:
        user = User(
            id=new_uuid(now), username=f"u-{uuid4().hex[:8]}", password_hash="x", role=role, region_code=region,
            created_at=now,
        )  # fmt: skip
        session.add(user)
    return Principal(user.id, user.username, role, region, None)


@pytest.fixture
async def stage(world: World, front: FrontEnd) -> AsyncIterator[Stage]:
    world.clock.now = system_clock()  # the receivers' library judges the age of a message by the real clock
    made = Stage(world, front, await account(world, ""))
    yield made
    for worker in made.workers:
        await worker.close()


# --- what is heard ---------------------------------------------------------------------------------------------------


async def test_a_front_end_hears_the_life_of_an_alarm_in_order(stage: Stage) -> None:
    await stage.alarm()  # before anybody subscribed
    _, secret = await stage.subscribe("/desk")
    elder = await stage.alarm()
    await stage.sender.drain()
    for act in ("acknowledge", "attend", "resolve"):
        await stage.world.operator(elder, act)
    await stage.sender.drain()
    assert stage.front.heard("/desk") == [
        "alarm.raised", "alarm.acknowledged", "alarm.attending", "alarm.resolved",
    ]  # fmt: skip
    first, last = stage.front.at("/desk")[0], stage.front.at("/desk")[-1]
    payload = Verifier(secret).verify(first.body, first.headers)
    assert payload["timestamp"] == stage.world.shapes.time(stage.world.time())
    assert set(payload) == {"type", "timestamp", "data"}
    alarm = payload["data"]["alarm"]
    assert (alarm["elder"]["id"], alarm["kind"], alarm["severity"]) == (str(elder.id), "sos", "critical")
    assert last.json["data"]["alarm"]["outcome"] == "elder_well"
    assert last.json["data"]["detail"]["outcome"] == "elder_well"
    assert first.headers["webhook-timestamp"] == str(int(stage.world.time().timestamp()))


async def test_the_elder_is_masked_as_for_a_reader_without_reveal(stage: Stage) -> None:
    await stage.subscribe("/desk")
    elder = await stage.world.elder("王桂英", phone="13912345678", address="金丝雀胡同77号院3单元")
    await stage.world.contact(elder, "王小明")
    await stage.world.press_sos(await stage.world.device(elder))
    await stage.sender.drain()
    text = stage.front.at("/desk")[0].body.decode()
    assert stage.front.at("/desk")[0].json["data"]["alarm"]["elder"]["phone"] == "**********5678"
    assert "13912345678" not in text
    assert "77号院" not in text


async def test_only_the_event_types_asked_for(stage: Stage) -> None:
    await stage.subscribe("/ends", EventType.ALARM_RESOLVED)
    elder = await stage.alarm()
    await stage.world.operator(elder, "resolve")
    await stage.sender.drain()
    assert stage.front.heard("/ends") == ["alarm.resolved"]


async def test_a_foreign_region_hears_nothing(stage: Stage) -> None:
    here, _ = await stage.subscribe("/here", region=VILLAGE)
    there, _ = await stage.subscribe("/there", region=OTHER_VILLAGE)
    await stage.subscribe("/district", region="370302")
    await stage.alarm(VILLAGE)
    await stage.sender.drain()
    assert stage.front.heard("/here") == stage.front.heard("/district") == ["alarm.raised"]
    assert stage.front.heard("/there") == []
    assert (await stage.states(here), await stage.states(there)) == (["delivered"], [])


async def test_a_subscription_lies_within_its_makers_region(stage: Stage) -> None:
    local = await account(stage.world, VILLAGE)
    for region in ("", "370302", OTHER_VILLAGE):
        with pytest.raises(InvalidInput, match="your own"):
            await stage.subscribe("/x", region=region, who=local)
    with pytest.raises(InvalidInput, match="no such region"):
        await stage.subscribe("/x", region="370302999")
    made, _ = await stage.subscribe("/x", who=local)
    assert (await stage.row(made)).region_code == VILLAGE


async def test_of_an_elder_who_moved_away_nothing_more_is_told(stage: Stage) -> None:
    here, _ = await stage.subscribe("/here", region=VILLAGE)
    await stage.subscribe("/there", region=OTHER_VILLAGE)
    stage.front.statuses["/here"] = 503
    elder = await stage.alarm(VILLAGE)
    await stage.sender.drain()
    await stage.world.do("UPDATE elders SET region_code = :to WHERE id = :id", to=OTHER_VILLAGE, id=elder.id)
    stage.front.statuses.clear()
    await stage.world.operator(elder, "resolve")
    await stage.pass_time(DAY)
    assert stage.front.heard("/here") == ["alarm.raised"]  # the try before the move
    assert await stage.states(here) == ["withdrawn"]
    assert "no longer lives" in (await stage.log(here))[0].error
    assert stage.front.heard("/there") == ["alarm.resolved"]


@pytest.mark.unit
def test_what_a_subscription_wants() -> None:
    fact = Fact(5, "alarm.raised", None, None, VILLAGE)  # type: ignore[arg-type]

    def wish(region: str = "", types: set[str] | None = None, since: int = 4) -> bool:
        chosen = None if types is None else frozenset(types)
        return Wish(UUID(int=1), region, chosen, since, paused=False).wants(fact)

    assert wish()
    assert wish("370302001")
    assert wish(types={"alarm.raised"})
    assert not wish("370302002")
    assert not wish(types={"alarm.resolved"})
    assert not wish(since=5)
    unknown = Fact(5, "notice.sent", None, None, VILLAGE)  # type: ignore[arg-type]
    assert not Wish(UUID(int=1), "", None, 0, paused=False).wants(unknown)


@pytest.mark.unit
def test_every_fact_about_alarms_can_be_subscribed_to() -> None:
    """Whoever tells the feed a new fact about alarms says here whether front ends hear it."""
    told: set[str] = set()
    for file in Path("app/alarms").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        told |= set(re.findall(r'"(alarm\.[a-z_]+)"', text))
    told |= {f"alarm.{kind}" for kind in ("raised", "repeated", "acknowledged", "attending", "resolved")}
    assert told <= set(EventType), told - set(EventType)
    assert set(KINDS) == set(EventType)
    assert set(PAUSE_WORDS) == set(PauseReason)


# --- once, whoever does it -------------------------------------------------------------------------------------------


async def test_two_workers_make_and_send_each_message_once(stage: Stage) -> None:
    one, _ = await stage.subscribe("/one")
    two, _ = await stage.subscribe("/two")
    workers = [stage.sender, stage.worker()]
    for _ in range(3):
        elders = await asyncio.gather(*(stage.world.elder() for _ in range(4)))
        for elder in elders:
            await stage.world.contact(elder, "王小明")
            await stage.world.press_sos(await stage.world.device(elder))
        await asyncio.gather(*(worker.drain() for worker in workers))
    await stage.sender.drain()
    for id_, path in ((one, "/one"), (two, "/two")):
        assert await stage.states(id_) == ["delivered"] * 12
        assert len({seen.id for seen in stage.front.at(path)}) == len(stage.front.at(path)) == 12


async def test_a_fact_becomes_one_delivery_however_often_the_feed_is_read(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/one")
    await stage.alarm()
    await stage.sender.drain()
    await stage.world.do("UPDATE webhook_fan_out SET seq = 0")  # as if the number had been lost
    await stage.sender.drain()
    assert await stage.states(id_) == ["delivered"]
    assert len(stage.front.at("/one")) == 1


async def test_many_facts_are_read_page_by_page(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/many")
    elder = await stage.alarm()
    alarm = await stage.world.alarm(elder)
    await stage.world.do(
        "INSERT INTO feed_events (at, type, region_code, alarm_id, data) "
        "SELECT now(), 'alarm.commented', :region, :alarm, '{}' FROM generate_series(1, 1200)",
        region=VILLAGE, alarm=alarm.id,
    )  # fmt: skip
    pages = 0
    while True:
        async with transaction(stage.world.sessions) as session:
            if not (await fan_out(session, now=stage.world.time())).facts:
                break
        pages += 1
    rows = await stage.log(id_)
    assert pages == 3
    assert len({row.seq for row in rows}) == len(rows) == 1201


async def test_who_died_between_sending_and_recording_is_followed_by_another_with_the_same_id(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/desk")
    await stage.alarm()

    async def dies(_: Any) -> None:
        raise asyncio.CancelledError

    stage.sender._record = dies  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await stage.sender.drain()
    assert await stage.states(id_) == ["sending"]
    successor = stage.worker()
    assert await successor.drain() == 0  # the lease still runs
    stage.world.clock.now += queue.LEASE + timedelta(seconds=1)
    assert await successor.drain() == 1
    assert await stage.states(id_) == ["delivered"]
    first, second = stage.front.at("/desk")
    assert first.id == second.id
    assert (await stage.log(id_))[0].attempts == 2


async def test_a_worker_whose_lease_ran_out_does_not_write_over_its_successor(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/slow")
    stage.front.wait["/slow"] = asyncio.Event()
    await stage.alarm()
    late = asyncio.create_task(stage.worker(http=Http(allow_private=True, timeout_s=20)).drain())
    await _until(lambda: len(stage.front.at("/slow")) == 1)
    stage.world.clock.now += queue.LEASE + timedelta(seconds=1)
    stage.front.statuses["/slow"] = 500
    stage.front.wait["/slow"].set()
    await asyncio.sleep(0)
    stage.front.wait.clear()
    await stage.sender.drain()
    await late
    row = (await stage.log(id_))[0]
    assert row.attempts == 2
    assert row.state == "pending"


# --- failing, and trying again ---------------------------------------------------------------------------------------


async def test_retries_go_on_for_a_day_with_growing_gaps_and_the_same_id(stage: Stage) -> None:
    id_, secret = await stage.subscribe("/broken")
    stage.front.statuses["/broken"] = 500
    began = stage.world.time()
    await stage.alarm()
    await stage.sender.drain()
    await stage.pass_time(timedelta(days=2))
    tries = stage.front.at("/broken")
    assert len(tries) == 11
    assert len({seen.id for seen in tries}) == 1
    at = [int(seen.headers["webhook-timestamp"]) for seen in tries]
    gaps = [after - before for before, after in itertools.pairwise(at)]
    for gap, base in zip(gaps, TERMS.retries_s, strict=True):
        assert base - 1 <= gap <= base * 1.2 + 1, (gap, base)
    assert at[-1] - began.timestamp() > DAY.total_seconds()
    for seen in tries[-2:]:  # each try is signed anew, for its own time
        assert (
            str(Verifier(secret).sign(seen.id, _moment(seen), seen.body.decode())) == seen.headers["webhook-signature"]
        )
    row = (await stage.log(id_))[0]
    assert (row.state, row.http_status, row.error, row.attempts) == ("failed", 500, "status 500", 11)
    assert (await stage.row(id_)).failures == 1


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 408, 429, 500, 503])
async def test_whatever_is_not_2xx_is_tried_again(stage: Stage, status: int) -> None:
    id_, _ = await stage.subscribe("/desk")
    stage.front.statuses["/desk"] = status
    stage.front.headers["Location"] = stage.front.url + "/elsewhere"
    await stage.alarm()
    await stage.sender.drain()
    row = (await stage.log(id_))[0]
    assert (row.state, row.http_status) == ("pending", status)
    assert stage.front.at("/elsewhere") == []
    stage.front.statuses["/desk"] = 204
    await stage.pass_time(timedelta(seconds=70))
    assert await stage.states(id_) == ["delivered"]


async def test_retry_after_is_heeded(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/busy")
    stage.front.statuses["/busy"], stage.front.headers["Retry-After"] = 503, "45"
    await stage.alarm()
    await stage.sender.drain()
    assert (await stage.log(id_))[0].due_at - stage.world.time() >= timedelta(seconds=45)


async def test_410_pauses_at_once_and_says_why(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/gone")
    elder = await stage.alarm()
    await stage.alarm()
    stage.front.statuses["/gone"] = 410
    await stage.sender.drain()
    row = await stage.row(id_)
    assert (row.paused_reason, row.paused_at) == ("gone", stage.world.time())
    await stage.world.operator(elder, "resolve")
    await stage.sender.drain()
    assert set(await stage.states(id_)) == {"failed", "held"}
    asked = len(stage.front.at("/gone"))
    await stage.pass_time(timedelta(days=2))
    assert len(stage.front.at("/gone")) == asked
    finding = (await stage.world.findings())["paused_webhook"]
    assert (finding.blocking, finding.count, finding.ids) == (False, 1, (str(id_),))


async def test_long_failure_pauses_and_shows_as_a_finding(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/dead", EventType.ALARM_RAISED)
    stage.front.statuses["/dead"] = 500
    await stage.alarm()
    await stage.sender.drain()
    await stage.pass_time(timedelta(hours=2))
    assert (await stage.world.findings())["failing_webhook"].ids == (str(id_),)
    await stage.pass_time(timedelta(days=2))
    await stage.alarm()
    await stage.pass_time(timedelta(hours=32))
    row = await stage.row(id_)
    assert (row.paused_reason, row.paused_at is not None) == ("failing", True)
    await stage.alarm()
    await stage.sender.drain()
    assert await stage.states(id_) == ["failed", "failed", "held"]
    assert "paused_webhook" in await stage.world.findings()
    assert "failing_webhook" not in await stage.world.findings()


async def test_the_sweep_pauses_where_nothing_happens_any_more(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/dead")
    stage.front.statuses["/dead"] = 500
    await stage.alarm()
    await stage.sender.drain()
    await stage.pass_time(timedelta(days=3, seconds=1))
    assert (await stage.row(id_)).paused_at is None
    async with transaction(stage.world.sessions) as session:
        await queue.sweep(session, terms=TERMS, now=stage.world.time())
    assert (await stage.row(id_)).paused_reason == "failing"


async def test_many_given_up_messages_pause_as_well(stage: Stage) -> None:
    stage.terms = Terms(allow_private=True, retries_s=(1,), pause_after_failures=3)
    sender = stage.sender = stage.worker()
    id_, _ = await stage.subscribe("/dead")
    stage.front.statuses["/dead"] = 500
    for _ in range(3):
        assert (await stage.row(id_)).paused_at is None
        await stage.alarm()
        await sender.drain()
        await stage.pass_time(timedelta(seconds=5))
    assert (await stage.row(id_)).paused_reason == "failing"


async def test_one_success_forgives_all(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/desk")
    stage.front.statuses["/desk"] = 500
    await stage.alarm()
    await stage.sender.drain()
    assert (await stage.row(id_)).failing_since == stage.world.time()
    stage.front.statuses.clear()
    await stage.pass_time(timedelta(minutes=1))
    assert (await stage.row(id_)).failing_since is None


async def test_what_was_held_is_sent_when_it_is_asked_for(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/desk", EventType.ALARM_RAISED, EventType.ALARM_RESOLVED)
    await stage.rest(id_)
    first = await stage.alarm()
    since = stage.world.clock.now = stage.world.time() + timedelta(hours=1)
    await stage.alarm()
    await stage.sender.drain()
    assert (stage.front.at("/desk"), await stage.states(id_)) == ([], ["held", "held"])
    assert "paused_webhook" not in await stage.world.findings()  # somebody wanted it so
    await stage.wake_up(id_)
    await stage.world.operator(first, "resolve")
    await stage.sender.drain()
    assert stage.front.heard("/desk") == ["alarm.resolved"]  # from now on, and nothing of before by itself
    assert await stage.resend_failed(id_, since=since) == 1
    await stage.sender.drain()
    assert await stage.resend_failed(id_) == 1
    await stage.sender.drain()
    assert stage.front.heard("/desk") == ["alarm.resolved", "alarm.raised", "alarm.raised"]
    assert await stage.states(id_) == ["delivered"] * 3


async def test_sending_again_is_the_same_message(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/desk")
    await stage.alarm()
    await stage.sender.drain()
    line = (await stage.log(id_))[0]
    async with transaction(stage.world.sessions) as session:
        await queue.send_again(session, line.id, now=stage.world.time())
    stage.front.statuses["/desk"] = 500  # with a schedule of its own
    await stage.sender.drain()
    assert await stage.states(id_) == ["pending"]
    stage.front.statuses.clear()
    await stage.pass_time(timedelta(seconds=10))
    assert [seen.id for seen in stage.front.at("/desk")] == [str(line.id)] * 3
    assert (await stage.log(id_))[0].attempts == 3


async def test_a_pause_while_a_message_is_on_its_way_holds_its_next_try(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/slow")
    stage.front.wait["/slow"], stage.front.statuses["/slow"] = asyncio.Event(), 500
    await stage.alarm()
    sending = asyncio.create_task(stage.sender.drain())
    await _until(lambda: len(stage.front.at("/slow")) == 1)
    await stage.rest(id_)
    stage.front.wait["/slow"].set()
    await sending
    assert await stage.states(id_) == ["held"]


async def test_a_deleted_subscription_takes_its_queue_along(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/slow")
    stage.front.wait["/slow"] = asyncio.Event()
    await stage.alarm()
    sending = asyncio.create_task(stage.sender.drain())
    await _until(lambda: len(stage.front.at("/slow")) == 1)
    await stage.world.do("DELETE FROM webhook_subscriptions WHERE id = :id", id=id_)
    stage.front.wait["/slow"].set()
    await sending
    assert await stage.world.value("SELECT count(*) FROM webhook_deliveries") == 0


# --- one slow receiver -----------------------------------------------------------------------------------------------


async def test_a_receiver_that_hangs_does_not_delay_the_others(stage: Stage) -> None:
    hangs, _ = await stage.subscribe("/hangs")
    await stage.subscribe("/quick")
    stage.front.wait["/hangs"] = asyncio.Event()
    sender = stage.worker(http=Http(allow_private=True, timeout_s=30), most_each=3)
    running = asyncio.create_task(sender.run())
    try:
        for _ in range(12):
            await stage.alarm()
        sender._wake.set()
        await _until(lambda: len(stage.front.at("/quick")) == 12)
        assert len(stage.front.at("/hangs")) == 3  # its own places are full
        stage.front.wait["/hangs"].set()
        await _until(lambda: len(stage.front.at("/hangs")) == 12)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len({seen.id for seen in stage.front.at("/hangs")}) == 12
    assert len(await stage.log(hangs)) == 12


async def test_a_failing_receiver_gets_one_request_at_a_time(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/bad")
    for _ in range(6):
        await stage.alarm()
    stage.front.statuses["/bad"] = 500
    await stage.world.do("UPDATE webhook_subscriptions SET failing_since = :now", now=stage.world.time())
    async with transaction(stage.world.sessions) as session:
        await fan_out(session, now=stage.world.time())
        claims, due = await queue.claim(session, limit=100, most_each=8, busy={}, now=stage.world.time())
    assert len(claims) == 1
    assert due is None  # nothing more to take until this one is back
    assert (await stage.states(id_)).count("sending") == 1


# --- the owner -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("active = false", "owner_inactive"),
        (f"region_code = '{OTHER_VILLAGE}'", "owner_moved"),
        ("role = 'auditor'", "owner_moved"),
    ],
)
async def test_a_subscription_rests_when_its_owner_may_no_longer(stage: Stage, change: str, reason: str) -> None:
    owner = await account(stage.world, VILLAGE, Role.SUPERVISOR)
    id_, _ = await stage.subscribe("/desk", who=owner)
    await stage.alarm()
    await stage.world.do(f"UPDATE users SET {change} WHERE id = :id", id=owner.id)  # before it was sent
    await stage.sender.drain()
    assert stage.front.at("/desk") == []
    row = await stage.row(id_)
    assert row.paused_reason == reason
    assert await stage.states(id_) == ["held"]
    assert (await stage.log(id_))[0].last_attempt_at is None
    await stage.wake_up(id_)  # the administrator answers for it now
    assert (await stage.row(id_)).owner_id == stage.admin.id
    await stage.resend_failed(id_)
    await stage.sender.drain()
    assert stage.front.heard("/desk") == ["alarm.raised"]


# --- secrets ---------------------------------------------------------------------------------------------------------


async def test_while_a_secret_is_changed_over_both_sign(stage: Stage) -> None:
    id_, old = await stage.subscribe("/desk")
    new = await stage.rotate(id_, overlap=DAY)
    assert new != old
    await stage.alarm()
    await stage.sender.drain()
    seen = stage.front.at("/desk")[-1]
    assert len(seen.headers["webhook-signature"].split()) == 2
    for secret in (old, new):
        assert Verifier(secret).verify(seen.body, seen.headers) == seen.json
    stage.world.clock.now += DAY + timedelta(seconds=1)
    await stage.alarm()
    await stage.sender.drain()
    seen = stage.front.at("/desk")[-1]
    Verifier(new).sign(seen.id, _moment(seen), seen.body.decode())
    assert seen.headers["webhook-signature"] == Verifier(new).sign(seen.id, _moment(seen), seen.body.decode())
    async with transaction(stage.world.sessions) as session:
        await queue.sweep(session, terms=TERMS, now=stage.world.time())
    assert (await stage.row(id_)).previous_secret_sealed is None


async def test_a_leaked_secret_can_be_ended_at_once(stage: Stage) -> None:
    id_, old = await stage.subscribe("/desk")
    await stage.rotate(id_, overlap=timedelta())
    await stage.alarm()
    await stage.sender.drain()
    seen = stage.front.at("/desk")[-1]
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(seen.body, seen.headers)


async def test_neither_secret_nor_address_is_in_the_clear_in_the_database(stage: Stage) -> None:
    id_, secret = await stage.subscribe("/canary-path-771")
    newer = await stage.rotate(id_)
    await stage.alarm()
    await stage.sender.drain()
    for table in ("webhook_subscriptions", "webhook_deliveries"):
        for row in await stage.world.rows(f"SELECT t::text AS text FROM {table} t"):
            for canary in (secret, newer, "canary-path-771", "127.0.0.1"):
                assert canary not in row.text
                assert canary.encode().hex() not in row.text
    assert "sealed" not in repr(await stage.world.rows("SELECT 1"))
    made = Subscription(id=id_, url_sealed=b"seen-url", secret_sealed=b"seen-secret")
    assert "seen-" not in repr(made)


# --- where it may go -------------------------------------------------------------------------------------------------


class Names(AbstractResolver):
    """A name server in bad hands: each look-up gives the next of the addresses, the last one for ever."""

    def __init__(self, *turns: str) -> None:
        self.turns = list(turns)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = 2) -> Any:
        self.asked += 1
        ip = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        return [{"hostname": host, "host": ip, "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None: ...


REFUSED = [
    "http://front.example.org/h", "ftp://front.example.org/h", "https://", "not a url", "https://user@front.example.org/",
    "https://u:p@front.example.org/", "https://localhost/h", "https://localhost./h", "https://intranet/h",
    "https://db.internal/h", "https://printer.local/h", "https://a.localhost/h",
    "https://127.0.0.1/h", "https://127.1/h", "https://2130706433/h", "https://0177.0.0.1/h", "https://0x7f.0.0.1/h",
    "https://0x7f000001/h", "https://0/h", "https://0.0.0.0/h", "https://１２７.0.0.1/h", "https://127。0。0。1/h",
    "https://10.0.0.8/h", "https://172.20.1.1/h", "https://192.168.1.1/h", "https://169.254.169.254/latest/meta-data",
    "https://100.64.1.1/h", "https://100.100.100.200/h", "https://168.63.129.16/h", "https://224.0.0.1/h",
    "https://255.255.255.255/h", "https://192.0.0.192/h",
    "https://[::1]/h", "https://[::]/h", "https://[fe80::1]/h", "https://[fe80::1%25eth0]/h", "https://[fd00:ec2::254]/h",
    "https://[::ffff:127.0.0.1]/h", "https://[::ffff:7f00:1]/h", "https://[64:ff9b::7f00:1]/h", "https://[2002:7f00:1::]/h",
    "https://front.example.org:22/h", "https://front.example.org:80/h", "https://front.example.org:6667/h",
    "https://front.example.org:0/h", "https://front.example.org:99999/h", "https://front.example.org/" + "a" * 2000,
    "https://front.example.org/\r\nHost: x",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
async def test_addresses_that_are_refused_when_they_are_given(url: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await addresses.check(url, allow_private=False, resolver=lambda: Names("47.95.0.1"))
    assert refusal.value.field == "url"


@pytest.mark.parametrize(
    "url",
    ["https://front.example.org/h?a=1", "https://front.example.org:8443/h", "https://47.95.0.1/h",
     "https://[2400:3200::1]/h", "https://值班.example.org/h"],
)  # fmt: skip
async def test_addresses_that_are_taken(url: str) -> None:
    assert (await addresses.check(url, allow_private=False, resolver=lambda: Names("47.95.0.1"))).startswith("https://")


async def test_a_name_that_leads_inside_is_refused_when_it_is_given() -> None:
    with pytest.raises(InvalidInput, match="leads into a private network"):
        await addresses.check("https://front.example.org/h", allow_private=False, resolver=lambda: Names("10.0.0.8"))


async def test_where_private_networks_are_allowed_nothing_of_it_is_asked() -> None:
    for url in ("http://127.0.0.1:8080/h", "http://intranet/h", "https://10.0.0.8:22/h"):
        assert await addresses.check(url, allow_private=True) == url
    with pytest.raises(InvalidInput):
        await addresses.check("http://u:p@intranet/h", allow_private=True)


async def test_a_name_that_turns_inside_after_it_was_checked_is_not_called(stage: Stage) -> None:
    """DNS rebinding: public when it is given, this machine when the connection is made."""
    names = Names("47.95.0.1", "127.0.0.1")
    port = stage.front.url.rpartition(":")[2]
    url = await addresses.check(f"https://rebinding.example.org:{port}/h", allow_private=False, resolver=lambda: names)
    assert names.asked == 1
    id_, _ = await stage.subscribe("/h", url=url.replace("https", "http"))  # TLS is not what must hold it
    sender = stage.worker(http=Http(allow_private=False, timeout_s=1, resolver=lambda: names))
    await stage.alarm()
    await sender.drain()
    assert names.asked == 2
    assert stage.front.seen == []
    row = (await stage.log(id_))[0]
    assert "private network" in row.error
    assert row.http_status is None
    open_house = stage.worker(http=Http(allow_private=True, timeout_s=1, resolver=lambda: names))
    stage.world.clock.now += timedelta(minutes=1)
    await open_house.drain()
    assert stage.front.heard("/h") == ["alarm.raised"]  # it was the guard that held it


# --- the rest --------------------------------------------------------------------------------------------------------


async def test_a_test_message_is_tried_once_and_blames_nobody(stage: Stage) -> None:
    id_, secret = await stage.subscribe("/desk")
    stage.front.statuses["/desk"] = 500
    await stage.with_held(id_, lambda s, f: subscriptions.ask_test(s, f, now=stage.world.time()))
    await stage.sender.drain()
    await stage.pass_time(DAY)
    (seen,) = stage.front.at("/desk")
    assert seen.json["type"] == "webhook.test"
    assert seen.json["data"] == {"webhook_id": str(id_), "description": None}
    assert seen.headers["webhook-signature"] == Verifier(secret).sign(seen.id, _moment(seen), seen.body.decode())
    assert await stage.states(id_) == ["failed"]
    assert (await stage.row(id_)).failing_since is None
    assert await stage.resend_failed(id_) == 0


async def test_the_log_is_kept_for_its_time(stage: Stage) -> None:
    id_, _ = await stage.subscribe("/desk", EventType.ALARM_RAISED)
    await stage.alarm()
    await stage.sender.drain()
    stage.front.statuses["/desk"] = 500
    stage.world.clock.now += timedelta(days=31)
    await stage.alarm()
    await stage.sender.drain()
    async with transaction(stage.world.sessions) as session:
        assert await queue.sweep(session, terms=TERMS, now=stage.world.time()) == 1
    assert await stage.states(id_) == ["pending"]


async def test_deliveries_are_counted(stage: Stage) -> None:
    def count(state: str) -> float:
        return float(metrics.WEBHOOK_DELIVERIES.labels(state)._value.get())

    before = count("delivered"), count("pending")
    await stage.subscribe("/desk")
    await stage.subscribe("/bad")
    stage.front.statuses["/bad"] = 500
    await stage.alarm()
    await stage.sender.drain()
    assert (count("delivered") - before[0], count("pending") - before[1]) == (1, 1)


async def test_nothing_is_written_while_nobody_subscribes(stage: Stage) -> None:
    seq = await stage.world.value("SELECT seq FROM webhook_fan_out")
    await stage.alarm()
    async with transaction(stage.world.sessions) as session:
        assert (await fan_out(session, now=stage.world.time())).idle
    assert await stage.world.value("SELECT seq FROM webhook_fan_out") == seq


async def test_an_account_has_a_limit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MOST_EACH", 2)
    await stage.subscribe("/1")
    await stage.subscribe("/2")
    with pytest.raises(Exception, match="at most 2"):
        await stage.subscribe("/3")


def _moment(seen: Seen) -> Any:
    return datetime.fromtimestamp(int(seen.headers["webhook-timestamp"]), UTC)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)
