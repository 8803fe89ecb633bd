"""The journal: every message that could be read, once, with the elder who wore the device when it happened."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from app.db import Hands
from app.devices.codec import Rejected
from app.devices.edges import Because, Edge, State, field_of, value_of
from app.devices.events import Frame, Observation, Status
from app.discretion import without_numbers_of_people
from app.ids import new_uuid

_TOPIC_LIMIT = 512
_DEPTH = 32  # nested lists and objects of one message that are kept
_ROOM = 1_048_576  # bytes of one quarantined payload that are kept


@dataclass(slots=True)
class Journalled:
    """An observation and what the journal knows of it. `fresh`: not seen before; `known`: a registered device; `edge`:
    whether it is news beside what the device said before, which `states.settle` decides."""

    seen: Observation
    id: UUID
    known: bool = False
    fresh: bool = False
    elder_id: UUID | None = None
    region_code: str | None = None
    kind: str | None = None
    place: str | None = None
    testing_until: datetime | None = None  # a guided test of the device may go on until then
    tested: UUID | None = None  # the test it belongs to: no alarm
    state: State | None = None  # what was known of the field before
    edge: Edge = Edge.NEWS
    edge_reason: Because = Because.HAPPENED

    def become(self, other: Journalled) -> None:
        """Take in what the journal knows of it by another id."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))


# The wearer is whoever wore the device when it happened; where nobody did (a clock that is wrong, a device in a
# drawer) whoever wears it as the message arrives: better a person asked in vain than an alarm of nobody.
# The look-ups are lateral with a limit: one index probe a row, whatever the planner believes about the batch. Bindings
# of a device do not overlap, so the last that began by then is the only one that can hold. What is known of the field is
# read beside it. A retained message is known by its content; when the field was otherwise in between, the same content is
# another event.
_WRITE = sa.text(
    """
    WITH placed AS (
        SELECT i.id, i.device_id, i.type, i.occurred_at, i.device_time, i.received_at, i.late, i.data, i.place,
               d.region_code AS device_region, d.kind, d.place AS device_place, d.testing_until,
               coalesce(worn.elder_id, wears.elder_id) AS elder_id,
               CASE WHEN s.value <> i.value AND starts_with(i.event_id, 'retained:')
                    THEN i.event_id || '@' || extract(epoch FROM s.since) ELSE i.event_id END AS event_id,
               s.value, s.since, s.said_at, s.began_at, s.peak, s.told_until, s.raised_at, s.raises, s.stray_at,
               s.stray_heard_at, s.version
        FROM unnest(CAST(:id AS uuid[]), CAST(:device_id AS text[]), CAST(:type AS text[]),
                    CAST(:event_id AS text[]), CAST(:occurred_at AS timestamptz[]),
                    CAST(:device_time AS timestamptz[]), CAST(:received_at AS timestamptz[]),
                    CAST(:late AS bool[]), CAST(:data AS text[]), CAST(:guard AS text[]), CAST(:field AS text[]),
                    CAST(:value AS text[])) WITH ORDINALITY
             AS i(id, device_id, type, event_id, occurred_at, device_time, received_at, late, data, guard, field, value, place)
        CROSS JOIN LATERAL (
            SELECT region_code, kind, place, testing_until FROM devices
            WHERE device_id = i.device_id AND (i.guard IS NULL OR i.guard = profile) LIMIT 1
        ) d
        LEFT JOIN LATERAL (
            SELECT b.elder_id, b.unbound_at FROM bindings b
            WHERE b.device_id = i.device_id AND b.bound_at <= i.occurred_at ORDER BY b.bound_at DESC LIMIT 1
        ) worn ON worn.unbound_at IS NULL OR worn.unbound_at > i.occurred_at
        LEFT JOIN LATERAL (
            SELECT b.elder_id, b.unbound_at FROM bindings b
            WHERE worn.elder_id IS NULL AND b.device_id = i.device_id ORDER BY b.bound_at DESC LIMIT 1
        ) wears ON wears.unbound_at IS NULL
        LEFT JOIN LATERAL (
            SELECT * FROM device_states WHERE i.field IS NOT NULL AND device_id = i.device_id AND field = i.field LIMIT 1
        ) s ON true
    ),
    written AS (
        INSERT INTO device_events (id, device_id, elder_id, type, event_id, occurred_at, device_time, received_at,
                                   late, data)
        SELECT id, device_id, elder_id, type, event_id, occurred_at, device_time, received_at, late, CAST(data AS jsonb)
        FROM placed ORDER BY device_id, event_id, id
        ON CONFLICT (device_id, event_id) WHERE event_id IS NOT NULL DO NOTHING
        RETURNING id
    ),
    kept AS (
        UPDATE devices AS d
        SET last_seen_at = greatest(d.last_seen_at, r.seen_at),
            battery = CASE WHEN r.battery IS NULL OR (r.battery = 0 AND d.battery_said IS DISTINCT FROM 0) THEN d.battery
                           ELSE r.battery END,
            battery_said = coalesce(r.battery, d.battery_said), rssi = coalesce(r.rssi, d.rssi), online = r.online
        FROM (SELECT * FROM unnest(CAST(:spoke as text[]), CAST(:state_guard AS text[]), CAST(:seen_at AS timestamptz[]),
                                   CAST(:battery AS int[]), CAST(:rssi AS int[]), CAST(:online AS bool[]))
              AS x(device_id, guard, seen_at, battery, rssi, online) ORDER BY device_id) r
        WHERE d.device_id = r.device_id AND (r.guard IS NULL OR r.guard = d.profile)
          AND (d.last_seen_at IS NULL AND r.seen_at IS NOT NULL OR r.seen_at > d.last_seen_at + interval '1 second'
               OR d.online IS DISTINCT FROM r.online OR r.battery IS DISTINCT FROM d.battery_said AND r.battery IS NOT NULL)
    )
    SELECT p.place, p.elder_id, coalesce(e.region_code, p.device_region) AS region_code, w.id IS NOT NULL AS fresh, p.kind,
           p.device_place, p.testing_until,
           p.value, p.since, p.said_at, p.began_at, p.peak, p.told_until, p.raised_at, p.raises, p.stray_at,
           p.stray_heard_at, p.version
    FROM placed p LEFT JOIN written w ON w.id = p.id
    LEFT JOIN LATERAL (SELECT region_code FROM elders WHERE id = p.elder_id LIMIT 1) e ON true
    """
)


async def write(session: Hands, observations: Sequence[Observation]) -> list[Journalled]:
    """Journal what happened, and keep how the devices are: last seen, battery, signal, online (to the second: alarms need
    no more). One whose (device, event id) is there already is not fresh. Order is kept.

    Status messages are not journalled: they say how the device is, not what happened.
    """
    if not observations:
        return []
    seen = [one for one in observations if not isinstance(one.event, Status)]
    ids = [new_uuid(one.received_at) for one in seen]
    rows = await session.execute(_WRITE, {
        "id": ids,
        "device_id": [one.device_id for one in seen],
        "type": [one.event.type for one in seen],
        "event_id": [one.event_id for one in seen],
        "occurred_at": [one.occurred_at for one in seen],
        "device_time": [one.device_time for one in seen],
        "received_at": [one.received_at for one in seen],
        "late": [one.late for one in seen],
        "data": [_data(one) for one in seen],
        "guard": [_guard(one) for one in seen],
        "field": [field_of(one) for one in seen],
        "value": [value_of(one.event) for one in seen],
        **_state(observations),
    })  # fmt: skip
    journalled = [Journalled(one, id_) for one, id_ in zip(seen, ids, strict=True)]
    for number, elder_id, region_code, fresh, kind, place, testing_until, *state in rows:
        one = journalled[number - 1]
        one.known, one.fresh, one.elder_id, one.region_code = True, fresh, elder_id, region_code
        one.kind, one.place, one.testing_until = kind, place, testing_until
        if state[0] is not None:
            one.state = State(*state)
    return journalled


def _data(one: Observation) -> str:
    if not one.data and not one.faults and not one.retained:
        return "{}"
    body = dict(one.data)
    if one.faults:
        body["_faults"] = list(one.faults)
    if one.retained:
        body["_retained"] = True
    if all(_plain(name) and _plain(value) for name, value in body.items()):
        return msgspec.json.encode(body).decode()
    return json.dumps(_storable_json(body), ensure_ascii=False)


def _plain(value: Any) -> bool:
    """Nearly every value: nothing in it needs mending."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii() and value.isprintable())
    return kind is bool or (kind is int and -(2**53) < value < 2**53)


def _storable_json(value: Any, room: int = _DEPTH) -> Any:
    """What PostgreSQL's jsonb cannot hold (U+0000, lone surrogates, infinities) is replaced, and what lies too deep is
    left out; the rest is untouched."""
    match value:
        case str():
            return _storable(value)
        case float() if not math.isfinite(value):
            return None
        case int() if not isinstance(value, bool) and abs(value) > 10**300:
            return None
        case list() | dict() if room == 0:
            return None
        case list():
            return [_storable_json(item, room - 1) for item in value]
        case dict():
            return {_storable(name): _storable_json(item, room - 1) for name, item in value.items()}
        case _:
            return value


def _guard(one: Observation) -> str | None:
    """The profile the device must be registered under for the observation to count; None: any."""
    return one.source.profile if one.source.guarded else None


def _state(seen: Sequence[Observation]) -> dict[str, list[Any]]:
    """The last word of each device that spoke, in columns. A retained status, said again by the broker at a connection,
    tells how the device is and is no sign of life."""
    state: dict[tuple[str, str], tuple[datetime | None, int | None, int | None, bool]] = {}
    for one in seen:
        if one.retained and not isinstance(one.event, Status):
            continue  # an old message said again is no sign of life
        who = one.device_id, _guard(one) or ""
        heard_at, battery, rssi, _ = state.get(who, (None, None, None, True))
        online = one.event.online if isinstance(one.event, Status) else True
        state[who] = (
            heard_at if one.retained else one.received_at,
            one.battery if one.battery is not None else battery,
            one.rssi if one.rssi is not None else rssi,
            online,
        )
    ordered = sorted(state.items())
    return {
        "spoke": [device_id for (device_id, _), _ in ordered],
        "state_guard": [guard or None for (_, guard), _ in ordered],
        "seen_at": [seen_at for _, (seen_at, *_) in ordered],
        "battery": [battery for _, (_, battery, _, _) in ordered],
        "rssi": [rssi for _, (_, _, rssi, _) in ordered],
        "online": [online for _, (*_, online) in ordered],
    }


_STRANGERS = sa.text(
    """
    SELECT device_id FROM unnest(CAST(:device_id AS text[]), CAST(:guard AS text[])) AS x(device_id, guard)
    WHERE NOT EXISTS (SELECT FROM devices d WHERE d.device_id = x.device_id AND (x.guard IS NULL OR x.guard = d.profile))
    """
)


async def unknown_status(
    session: Hands, observations: Sequence[tuple[Observation, Frame]]
) -> list[tuple[Observation, Frame]]:
    """Status messages of devices that nobody registered."""
    said = [(seen, frame) for seen, frame in observations if isinstance(seen.event, Status)]
    if not said:
        return []
    asked = {"device_id": [seen.device_id for seen, _ in said], "guard": [_guard(seen) for seen, _ in said]}
    strangers = {row.device_id for row in await session.execute(_STRANGERS, asked)}
    return [(seen, frame) for seen, frame in said if seen.device_id in strangers]


_UNCLAIMED = sa.text(
    """
    INSERT INTO unclaimed_devices AS u (device_id, first_seen_at, last_seen_at, messages, last_topic, profile_guess,
                                        said, online, online_since)
    SELECT device_id, min(at), max(at), count(*), max(topic), max(guess), array_agg(DISTINCT type),
           (array_agg(online ORDER BY place DESC) FILTER (WHERE online IS NOT NULL))[1],
           max(at) FILTER (WHERE online IS NOT NULL)
    FROM unnest(CAST(:device_id AS text[]), CAST(:at AS timestamptz[]), CAST(:topic AS text[]), CAST(:guess AS text[]),
                CAST(:type AS text[]), CAST(:online AS bool[])) WITH ORDINALITY
         AS x(device_id, at, topic, guess, type, online, place)
    WHERE NOT EXISTS (SELECT FROM devices d WHERE d.device_id = x.device_id)
    GROUP BY device_id ORDER BY device_id
    ON CONFLICT (device_id) DO UPDATE SET last_seen_at = excluded.last_seen_at,
        messages = u.messages + excluded.messages, last_topic = excluded.last_topic,
        profile_guess = excluded.profile_guess,
        online = coalesce(excluded.online, u.online),
        online_since = CASE WHEN excluded.online IS DISTINCT FROM u.online AND excluded.online IS NOT NULL
                            THEN excluded.online_since ELSE u.online_since END,
        said = ARRAY(SELECT DISTINCT unnest(u.said || excluded.said) ORDER BY 1)
    """
)


async def note_unclaimed(session: Hands, frames: Sequence[tuple[Observation, Frame]]) -> None:
    """Devices that speak and that nobody registered: for the list of those to claim, with the family that read them
    and the kinds of things they said. Whole messages are in quarantine."""
    if frames:
        await session.execute(_UNCLAIMED, {
            "device_id": [seen.device_id for seen, _ in frames],
            "at": [frame.received_at for _, frame in frames],
            "topic": [frame.topic[:_TOPIC_LIMIT] for _, frame in frames],
            "guess": [seen.source.profile for seen, _ in frames],
            "type": [seen.event.type for seen, _ in frames],
            "online": [seen.event.online if isinstance(seen.event, Status) else None for seen, _ in frames],
        })  # fmt: skip


_QUARANTINE = sa.text(
    """
    INSERT INTO rejected_messages (id, received_at, topic, device_id, reason, detail, payload_sealed)
    SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:received_at AS timestamptz[]), CAST(:topic AS text[]),
                         CAST(:device_id AS text[]), CAST(:reason AS text[]), CAST(:detail AS text[]),
                         CAST(:payload AS bytea[]))
    """
)


Seal = Callable[[bytes, UUID], bytes]  # a content, and the row it belongs to


async def quarantine(session: Hands, rejects: Sequence[tuple[Frame, Rejected]], *, seal: Seal) -> None:
    """Keep messages that could not be used, whole, with the reason. They may hold anything: they are sealed."""
    if rejects:
        ids = [new_uuid(frame.received_at) for frame, _ in rejects]
        await session.execute(_QUARANTINE, {
            "id": ids,
            "received_at": [frame.received_at for frame, _ in rejects],
            "topic": [_storable(frame.topic)[:_TOPIC_LIMIT] for frame, _ in rejects],
            "device_id": [_storable(r.device_id)[:128] if r.device_id else None for _, r in rejects],
            "reason": [r.reason.value for _, r in rejects],
            "detail": [without_numbers_of_people(_storable(r.detail)) for _, r in rejects],
            "payload": [seal(frame.payload[:_ROOM], id_) for id_, (frame, _) in zip(ids, rejects, strict=True)],
        })  # fmt: skip


async def seal_older(session: Hands, *, seal: Seal, batch: int = 200) -> int:
    """Seal messages from before they were sealed: what the migration could not do without the key. How many."""
    rows = await session.execute(
        sa.text(
            "SELECT id, payload FROM rejected_messages WHERE payload IS NOT NULL ORDER BY id LIMIT :batch "
            "FOR UPDATE SKIP LOCKED"
        ),
        {"batch": batch},
    )
    found = {row.id: seal(row.payload, row.id) for row in rows}
    if found:
        await session.execute(
            sa.text(
                "UPDATE rejected_messages r SET payload = NULL, payload_sealed = s.sealed "
                "FROM unnest(CAST(:id AS uuid[]), CAST(:sealed AS bytea[])) AS s(id, sealed) WHERE r.id = s.id"
            ),
            {"id": list(found), "sealed": list(found.values())},
        )
    return len(found)


def _storable(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
