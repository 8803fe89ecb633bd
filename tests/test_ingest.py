"""The way of one event, from bytes to the journal and an alarm (design sections 1 and 4). All people are invented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from app.devices.codec import MAX_PAYLOAD, Decoded, Registry, Rejected
from app.devices.codecs.native import TYPES, NativeCodec
from app.devices.events import Frame, Observation
from app.devices.vocabulary import DeviceKind
from app.rules import judge
from app.rules.verdict import Raise
from tests.world import START, VILLAGE, Person, World

FAMILY = "王小明"


async def home(world: World) -> tuple[Person, str]:
    elder = await world.elder()
    await world.contact(elder, FAMILY)
    return elder, await world.device(elder)


async def journal(world: World) -> Sequence[Any]:
    return await world.rows("SELECT * FROM device_events ORDER BY id")


async def run_ingest(world: World, *frames: Frame, until: Callable[[], bool] | None = None) -> None:
    """The real loop, with a hand in the broker's place, until everything was acknowledged."""
    world.hand.put(*frames)
    running = asyncio.create_task(world.ingest.run())
    try:
        async with asyncio.timeout(10):
            while len(world.hand.acknowledged) < len(frames) or (until and not until()):
                await asyncio.sleep(0.01)
                assert not running.done(), running.exception()
    finally:
        running.cancel()


# --- every native type ----------------------------------------------------------------------------------------------------

RAISES = {
    "sos": ({}, "critical"),
    "fall": ({"confidence": 0.9}, "critical"),
    "smoke": ({"active": True}, "critical"),
    "gas": ({"active": True}, "critical"),
    "water_leak": ({"active": True}, "major"),
}
QUIET: dict[str, dict[str, Any]] = {
    "door": {"state": "open"},
    "motion": {},
    "bed": {"occupied": False},
    "cancel": {},
    "vitals": {"heart_rate": 71},
    "heartbeat": {"battery": 80, "rssi": -60},
}


@pytest.mark.unit
def test_every_type_has_its_story() -> None:
    assert set(TYPES) == {*RAISES, *QUIET}


@pytest.mark.parametrize("kind", RAISES)
async def test_an_emergency_is_journalled_and_raises(world: World, kind: str) -> None:
    elder, button = await home(world)
    fields, severity = RAISES[kind]
    await world.message(button, {"type": kind, "id": "e-1", **fields})
    alarm = await world.alarm(elder)
    assert (alarm.kind, alarm.severity, alarm.state) == (kind, severity, "open")
    [row] = await journal(world)
    assert (row.type, row.elder_id, row.event_id) == (kind, elder.id, "e-1")
    assert (alarm.trigger_event, alarm.trigger_device_id, alarm.trigger_event_id) == (row.id, button, "e-1")


async def test_everything_else_is_journalled_and_raises_nothing(world: World) -> None:
    elder, button = await home(world)
    await world.ingest.swallow([world.frame(button, {"type": kind, **fields}) for kind, fields in QUIET.items()])
    assert sorted(row.type for row in await journal(world)) == sorted(QUIET)
    assert {row.elder_id for row in await journal(world)} == {elder.id}
    assert not await world.alarms()
    assert not await world.rejected()


@pytest.mark.parametrize("kind", ["smoke", "gas", "water_leak"])
async def test_the_end_of_a_hazard_raises_nothing(world: World, kind: str) -> None:
    _, button = await home(world)
    await world.message(button, {"type": kind, "active": False})
    assert not await world.alarms()


@pytest.mark.parametrize("active", ["?", None, 7, [], {"a": 1}])
async def test_an_unreadable_hazard_is_a_hazard(world: World, active: Any) -> None:
    elder, button = await home(world)
    await world.message(button, {"type": "smoke", "active": active})
    assert (await world.alarm(elder)).kind == "smoke"


async def test_a_fall_the_detector_doubts_is_less_urgent_and_still_raised(world: World) -> None:
    elder, button = await home(world)
    await world.message(button, {"type": "fall", "confidence": 0.2})
    alarm = await world.alarm(elder)
    assert alarm.severity == "major"
    assert "20%" in alarm.because


async def test_heartbeat_and_status_keep_the_devices_state(world: World) -> None:
    _, button = await home(world)

    async def state() -> tuple[Any, ...]:
        [row] = await world.rows(
            "SELECT online, battery, rssi, last_seen_at FROM devices WHERE device_id = :d", d=button
        )
        return tuple(row)

    await world.message(button, {"type": "heartbeat", "battery": 81, "rssi": -60})
    assert await state() == (True, 81, -60, START)
    world.clock.now += timedelta(seconds=10)
    await world.message(button, {"online": False}, leaf="status")
    assert await state() == (False, 81, -60, world.clock.now)
    world.clock.now += timedelta(seconds=10)
    await world.message(button, {"type": "door", "state": "closed"})
    assert await state() == (True, 81, -60, world.clock.now)
    assert [row.type for row in await journal(world)] == ["heartbeat", "door"]  # status is no event
    said_at = world.clock.now
    world.clock.now += timedelta(days=3)
    await world.message(button, {"online": False}, leaf="status", retained=True)  # the broker says the old word again
    assert await state() == (False, 81, -60, said_at)


# --- the same message again -----------------------------------------------------------------------------------------------


async def test_a_thousand_duplicates_are_one_event_and_one_alarm(world: World) -> None:
    """Invariants 1 and 4: in one batch, across batches, and from two ingests at once."""
    elder, button = await home(world)
    frames = [world.frame(button, {"type": "sos", "id": "press-1"})] * 500
    await world.ingest.swallow(frames)
    await asyncio.gather(*(world.another_ingest().swallow(frames[:50]) for _ in range(10)))
    assert len(await journal(world)) == 1
    alarm = await world.alarm(elder)
    assert alarm.repeats == 0
    await world.settle()
    world.expect_heard(FAMILY, "alarm.raised", times=1)
    await world.operator(elder, "resolve")
    await world.ingest.swallow(frames)  # also after the end: no new alarm of an old event
    assert (await world.alarm(elder)).state == "resolved"


async def test_the_same_id_of_another_device_is_another_event(world: World) -> None:
    elder, button = await home(world)
    other = await world.device(elder)
    await world.ingest.swallow([world.frame(d, {"type": "sos", "id": "1"}) for d in (button, other)])
    assert len(await journal(world)) == 2
    assert (await world.alarm(elder)).repeats == 1


async def test_without_an_id_nothing_is_dropped_and_all_join(world: World) -> None:
    elder, button = await home(world)
    await world.ingest.swallow([world.frame(button, {"type": "sos"})] * 3)
    await world.message(button, {"type": "sos"})
    assert len(await journal(world)) == 4
    assert (await world.alarm(elder)).repeats == 3


async def test_retained_messages_of_an_event_kind_raise_nothing(world: World) -> None:
    _, button = await home(world)
    for body in ({"type": "sos", "id": "r"}, {"type": "sos"}, {"type": "fall"}):
        await world.message(button, body, retained=True)
    assert not await world.alarms()
    assert len(await journal(world)) == 3  # kept, marked
    assert all(row.data["_retained"] for row in await journal(world))
    assert await world.value("SELECT last_seen_at FROM devices WHERE device_id = :d", d=button) is None


async def test_a_retained_condition_raises_once_however_often_the_broker_says_it(world: World) -> None:
    elder, button = await home(world)
    for _ in range(5):
        await world.message(button, {"type": "smoke", "active": True}, retained=True)
    assert (await world.alarm(elder)).repeats == 0
    assert len(await journal(world)) == 1


# --- clocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts", "late", "believed"),
    [
        (START - timedelta(seconds=20), False, True),
        (START - timedelta(minutes=6), True, True),  # waited in a gateway
        (START - timedelta(days=2), True, True),
        (START + timedelta(hours=3), True, False),  # a clock that is ahead
        (datetime(1970, 1, 1, 0, 5, tzinfo=UTC), True, False),  # a clock that never was set
        (datetime(2099, 1, 1, tzinfo=UTC), True, False),
    ],
)
async def test_a_clock_that_is_off_marks_and_never_delays(
    world: World, ts: datetime, late: bool, believed: bool
) -> None:
    elder, button = await home(world)
    await world.press_sos(button, ts=int(ts.timestamp() * 1000))
    alarm = await world.alarm(elder)
    assert (alarm.late, alarm.raised_at, alarm.received_at) == (late, START, START)
    assert alarm.occurred_at == (ts if believed else START)
    assert alarm.next_at == START + timedelta(seconds=120)
    assert world.expect_heard(FAMILY, "alarm.raised").at == START
    [row] = await journal(world)
    assert (row.device_time, row.received_at) == (ts, START)  # both are kept


@pytest.mark.parametrize(
    "ts", ["yesterday", -5, 0, 1e300, 10**400, True, [], "0001-01-01T00:00:00+23:00", "9999-12-31"]
)
async def test_a_time_that_is_nonsense_is_no_reason_to_lose_an_alarm(world: World, ts: Any) -> None:
    elder, button = await home(world)
    await world.press_sos(button, ts=ts)
    assert (await world.alarm(elder)).occurred_at == START


# --- who wore it ----------------------------------------------------------------------------------------------------------


async def test_an_event_belongs_to_whoever_wore_the_device_when_it_happened(world: World) -> None:
    before, button = await home(world)
    now = await world.elder("李秀兰")
    world.clock.now += timedelta(minutes=30)
    handed_over = world.clock.now
    await world.bind(button, now)
    world.clock.now += timedelta(minutes=10)
    await world.press_sos(button, ts=(handed_over - timedelta(minutes=1)).isoformat())
    assert (await world.alarm(before)).late
    assert not await world.alarms(now)
    await world.press_sos(button, ts=(handed_over + timedelta(minutes=1)).isoformat())
    assert (await world.alarm(now)).kind == "sos"
    assert (await world.alarm(before)).repeats == 0


async def test_an_event_of_a_time_when_nobody_wore_it_is_the_present_wearers(world: World) -> None:
    before, button = await home(world)
    world.clock.now += timedelta(minutes=10)
    await world.bind(button, None)
    in_the_drawer = world.clock.now + timedelta(minutes=5)
    world.clock.now += timedelta(minutes=10)
    now = await world.elder("李秀兰")
    await world.bind(button, now)
    await world.press_sos(button, ts=in_the_drawer.isoformat())
    assert (await world.alarm(now)).kind == "sos"
    assert not await world.alarms(before)


async def test_a_press_of_a_button_nobody_wears_is_said_in_the_feed(world: World) -> None:
    button = await world.device(None)
    await world.press_sos(button)
    assert not await world.alarms()
    [fact] = await world.feed("event.unmatched")
    assert fact.region_code == VILLAGE  # whoever watches that village sees it
    assert fact.data["device_id"] == button
    assert len(await journal(world)) == 1


# --- what cannot be used --------------------------------------------------------------------------------------------------


async def test_an_unknown_device_is_kept_whole_and_listed_to_be_claimed(world: World) -> None:
    for _ in range(3):
        await world.message("stranger", {"type": "sos", "id": "x"})
    assert await world.rejected() == ["unknown_device"] * 3
    [row] = await world.rows("SELECT * FROM unclaimed_devices")
    assert (row.device_id, row.messages, row.last_topic) == ("stranger", 3, "devices/stranger/event")
    assert json.loads(await world.quarantined("unknown_device")) == {"type": "sos", "id": "x"}
    assert not await journal(world)
    await world.device(await world.elder(), "stranger")
    assert not await world.rows("SELECT * FROM unclaimed_devices")
    await world.message("stranger", {"type": "sos", "id": "x"})  # what was refused did not use up its id
    assert len(await world.alarms()) == 1


async def test_a_device_that_only_says_it_is_there_is_listed_to_be_claimed(world: World) -> None:
    await world.message("newcomer", {"online": True}, leaf="status")
    assert await world.rejected() == ["unknown_device"]
    await world.message("newcomer", {"online": True}, leaf="status", retained=True)  # said again at each connection
    await world.message("earlier", {"online": True}, leaf="status", retained=True)
    assert await world.rejected() == ["unknown_device"]
    rows = await world.rows("SELECT device_id, last_topic FROM unclaimed_devices ORDER BY device_id")
    assert [row.device_id for row in rows] == ["earlier", "newcomer"]
    assert rows[1].last_topic == "devices/newcomer/status"
    await world.device(None, "newcomer")
    await world.message("newcomer", {"online": False}, leaf="status")
    assert await world.rejected() == ["unknown_device"]


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "not UTF-8": (b'{"type":"sos\xff"}', "not_utf8"),
    "not JSON": (b'{"type":', "not_json"),
    "a list": (b'["sos"]', "not_an_object"),
    "no type": (b"{}", "missing_type"),
    "a type of no device": (b'{"type":"SOS!"}', "unknown_type"),
    "a type that is no text": (b'{"type":["sos"]}', "unknown_type"),
    "an object as type": (b'{"type":{"a":1}}', "unknown_type"),
    "a door in no state": (b'{"type":"door","state":"ajar"}', "bad_field"),
    "a bed without": (b'{"type":"bed"}', "bad_field"),
    "another device": (b'{"type":"sos","device_id":"sos-9"}', "names_another_device"),
    "too large": (b'{"type":"sos","note":"' + b"x" * MAX_PAYLOAD + b'"}', "too_large"),
    "too deep": (b'{"type":"sos","note":' + b"[" * 7000 + b"]" * 7000 + b"}", "not_json"),
    "a number too long": (b'{"type":"sos","n":' + b"9" * 5000 + b"}", "not_json"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_neighbours_lose_nothing(world: World, case: str) -> None:
    elder, button = await home(world)
    payload, reason = BAD[case]
    await world.ingest.swallow(
        [
            world.frame(button, {"type": "door", "state": "open", "id": "before"}),
            world.frame(button, payload),
            world.frame("stranger", {"type": "sos"}),
            world.frame(button, {"type": "sos", "id": "after"}),
        ]
    )
    assert sorted(await world.rejected()) == sorted([reason, "unknown_device"])
    assert await world.quarantined(reason) == payload
    assert {row.event_id for row in await journal(world)} == {"before", "after"}
    assert (await world.alarm(elder)).kind == "sos"


ODD: dict[str, bytes] = {
    "NUL in a text": b'{"type":"sos","id":"odd","note":"a\\u0000b","\\u0000":1}',
    "NUL in the id": b'{"type":"sos","id":"a\\u0000b"}',
    "a lone surrogate in a text": b'{"type":"sos","id":"odd","note":"\\ud800","\\udfff":1}',
    "a lone surrogate in the id": b'{"type":"sos","id":"\\ud800"}',
    "an infinite number": b'{"type":"sos","id":"odd","n":1e999,"m":-1e999}',
    "NaN": b'{"type":"sos","id":"odd","n":NaN,"m":nan,"i":-inf}',
    "a huge whole number": b'{"type":"sos","id":"odd","n":' + b"9" * 4000 + b"}",
    "huge numbers where small ones belong": b'{"type":"sos","battery":' + b"9" * 400 + b',"rssi":-1e308,"ts":1e308}',
    "a battery that measures nothing": b'{"type":"sos","battery":255,"rssi":127}',
    "a deep field": b'{"type":"sos","note":' + b"[" * 600 + b"]" * 600 + b"}",
    "a field just too deep": b'{"type":"sos","note":' + b"[" * 33 + b"]" * 33 + b"}",
    "many objects within each other": b'{"type":"sos","note":' + b'{"a":' * 600 + b"1" + b"}" * 600 + b"}",
    "a byte order mark": b'\xef\xbb\xbf{"type":"sos"}',
    "fields of the journal's own": b'{"type":"sos","_faults":1,"_retained":"x"}',
    "an id that is a number": b'{"type":"sos","id":17}',
    "an id too long": b'{"type":"sos","id":"' + b"i" * 129 + b'"}',
    "an empty id": b'{"type":"sos","id":""}',
    "an id that is an object": b'{"type":"sos","id":{}}',
    "the same field twice": b'{"type":"door","type":"sos","state":"open"}',
}


@pytest.mark.parametrize("case", ODD)
async def test_odd_fields_do_not_cost_the_alarm_or_its_neighbours(world: World, case: str) -> None:
    """Through the loop that acknowledges: it must not end, nor try for ever."""
    elder, button = await home(world)
    neighbour = await world.elder("李秀兰")
    other = await world.device(neighbour)
    await run_ingest(
        world, world.frame(button, ODD[case]), world.frame(other, {"type": "sos", "id": "n"}), until=lambda: True
    )
    assert (await world.alarm(elder)).kind == "sos"
    assert (await world.alarm(neighbour)).kind == "sos"
    assert await world.value("SELECT battery FROM devices WHERE device_id = :d", d=button) is None


async def test_no_depth_ends_the_loop(world: World) -> None:
    """Where parsing gives up depends on the stack: whatever the depth, a message is an alarm or in quarantine."""
    elder, button = await home(world)
    depths = [*range(850, 1000, 25), 2000, 8000]
    bodies = [b'{"type":"sos","note":' + b"[" * depth + b"]" * depth + b"}" for depth in depths]
    await run_ingest(world, *(world.frame(button, body) for body in bodies))
    assert len(await journal(world)) + len(await world.rejected()) == len(depths)
    await world.press_sos(button)
    assert await world.alarm(elder)


async def test_a_message_the_database_will_not_take_is_quarantined_alone(world: World) -> None:
    """Whatever the reason: the batch is halved until the one is found, and the others go on."""
    elder, button = await home(world)
    await world.do("ALTER TABLE device_events ADD CONSTRAINT x CHECK (event_id <> 'poison')")
    frames = [world.frame(button, {"type": "sos", "id": f"e{n}"}) for n in range(20)]
    frames.insert(7, world.frame(button, {"type": "sos", "id": "poison"}))
    await run_ingest(world, *frames)
    assert await world.rejected() == ["not_storable"]
    assert len(await journal(world)) == 20
    assert (await world.alarm(elder)).repeats == 19


async def test_a_value_the_database_cannot_convert_is_quarantined_alone(world: World) -> None:
    """The driver's own class of errors for bad data (class 22)."""
    _, button = await home(world)
    await world.do("ALTER TABLE device_events ADD CONSTRAINT x CHECK (event_id <> 'poison' OR (event_id::int > 0))")
    await run_ingest(
        world, *(world.frame(button, {"type": "sos", "id": one}) for one in ("a", "poison", "b")), until=lambda: True
    )
    assert await world.rejected() == ["not_storable"]
    assert {row.event_id for row in await journal(world)} == {"a", "b"}


async def test_nothing_is_acknowledged_before_its_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 1: at the moment of the acknowledgement the row is there for everybody; a failed commit has none."""
    _, button = await home(world)
    seen: list[int] = []
    acknowledge = world.hand.acknowledge
    monkeypatch.setattr("app.ingest._RETRY_S", 0.05)
    real, failures = world.ingest.swallow, [1, 2, 3]

    async def fails_at_first(frames: Sequence[Frame]) -> None:
        if failures:
            failures.pop()
            assert not world.hand.acknowledged
            raise OperationalError("x", None, ConnectionResetError())
        await real(frames)

    committed: list[Awaitable[Any]] = []
    monkeypatch.setattr(world.ingest, "swallow", fails_at_first)
    monkeypatch.setattr(
        world.hand,
        "acknowledge",
        lambda received: (committed.append(asyncio.ensure_future(journal(world))), acknowledge(received)),
    )
    await run_ingest(world, world.frame(button, {"type": "sos", "id": "1"}))
    seen = [len(rows) for rows in await asyncio.gather(*committed)]
    assert seen == [1]
    assert not failures


async def test_a_failed_transaction_leaves_nothing_half(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariants 1 and 2: journal, alarm, notices and facts are one commit; the message comes again and is new."""
    elder, button = await home(world)
    frame = world.frame(button, {"type": "sos", "id": "1"})
    with monkeypatch.context() as patch:
        patch.setattr("app.ingest.raise_alarms", _broken)
        with pytest.raises(RuntimeError):
            await world.ingest.swallow([frame])
    assert not await journal(world)
    await world.ingest.swallow([frame])
    assert (await world.alarm(elder)).repeats == 0


async def _broken(*_: Any, **__: Any) -> None:
    raise RuntimeError


async def test_smoke_in_two_homes_of_one_batch(world: World) -> None:
    homes = [await home(world) for _ in range(3)]
    detectors = [await world.device(elder, kind=DeviceKind.SMOKE_DETECTOR) for elder, _ in homes]
    await world.ingest.swallow([world.frame(d, {"type": "smoke", "active": True}) for d in detectors for _ in range(2)])
    assert [(await world.alarm(elder)).repeats for elder, _ in homes] == [1, 1, 1]


# --- any bytes ------------------------------------------------------------------------------------------------------------

REGISTRY = Registry([NativeCodec()])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*TYPES, "open", 255, 1e999]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_bodies = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES) | _json},
    optional=dict.fromkeys(
        ("id", "ts", "active", "state", "occupied", "confidence", "battery", "rssi", "online"), _json
    ),
)
_payloads = st.binary(max_size=200) | _bodies.map(lambda body: json.dumps(body).encode())
_topics = st.sampled_from(["devices/a/event", "devices/a/status"]) | st.text(max_size=40).map(
    lambda text: f"devices/{text}/event"
)


@pytest.mark.unit
@settings(max_examples=400, deadline=None)
@given(_topics | st.text(max_size=60), _payloads, st.booleans())
@example("devices/a/event", b'{"type":"sos","ts":1e999}', False)
@example("devices//event", b"{}", False)
@example("", b"", True)
def test_any_bytes_give_observations_or_reasons(topic: str, payload: bytes, retained: bool) -> None:
    found: Sequence[Decoded] = REGISTRY.decode(Frame(topic, payload, START, retained))
    assert found
    for one in found:
        match one:
            case Rejected():
                assert one.detail
            case Observation():
                assert abs(one.occurred_at - START) <= timedelta(days=30)
                assert one.battery is None or 0 <= one.battery <= 100
                if retained and one.event.type in ("sos", "fall"):
                    assert not isinstance(judge(one), Raise)


@pytest.mark.unit
def test_two_codecs_of_one_name_stop_the_start() -> None:
    with pytest.raises(ValueError, match="two codecs"):
        Registry([NativeCodec(), NativeCodec()])
