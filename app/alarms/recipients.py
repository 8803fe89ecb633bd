"""The people behind a step's targets, as they are now. Plans are frozen; people are looked up live."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from app.alarms.policies import APPLYING, Policies, Policy
from app.db import Hands
from app.notify.outbox import Recipient
from app.notify.vocabulary import ChannelKind, RecipientType, Target
from app.words import say

# Everybody who could be told about each elder, by target, with their first channel. An office is held on a day in
# local time; the deputy stands in where no village head of today has a channel.
_PERSONS = """
    WITH wanted AS (SELECT id, region_code FROM elders WHERE id = ANY(CAST(:elder_ids AS uuid[]))),
    office AS (
        SELECT w.id AS elder_id, d.visitor_id, d.role, ch.id AS channel_id, ch.kind AS channel,
               bool_or(d.role = 'village_head') OVER (PARTITION BY w.id) AS has_head
        FROM wanted w
        CROSS JOIN LATERAL (
            SELECT * FROM duties WHERE region_code = w.region_code AND role IN ('village_head', 'deputy')
            UNION ALL
            SELECT * FROM duties WHERE region_code = left(w.region_code, 9) || '000' AND role = 'township_duty'
        ) d
        CROSS JOIN LATERAL (
            SELECT id, kind FROM channels WHERE visitor_id = d.visitor_id ORDER BY position LIMIT 1
        ) ch
        WHERE d.since <= :today AND (d.until IS NULL OR d.until >= :today)
    ),
    person AS (
        SELECT c.elder_id, 'emergency_contacts' AS target, 'contact' AS type, c.id, c.name, c.priority AS rank,
               ch.id AS channel_id, ch.kind AS channel
        FROM contacts c
        CROSS JOIN LATERAL (SELECT id, kind FROM channels WHERE contact_id = c.id ORDER BY position LIMIT 1) ch
        WHERE c.elder_id = ANY(CAST(:elder_ids AS uuid[])) AND c.is_emergency
        UNION ALL
        SELECT a.elder_id, 'assigned_visitors', 'visitor', v.id, v.name, CASE a.role WHEN 'primary' THEN 1 ELSE 2 END,
               ch.id, ch.kind
        FROM assignments a
        CROSS JOIN LATERAL (SELECT id, name FROM visitors WHERE id = a.visitor_id LIMIT 1) v
        CROSS JOIN LATERAL (SELECT id, kind FROM channels WHERE visitor_id = v.id ORDER BY position LIMIT 1) ch
        WHERE a.elder_id = ANY(CAST(:elder_ids AS uuid[])) AND a.ended_at IS NULL
        UNION ALL
        SELECT o.elder_id, CASE o.role WHEN 'township_duty' THEN 'township_duty' ELSE 'village_head' END,
               'visitor', v.id, v.name, 1, o.channel_id, o.channel
        FROM office o
        CROSS JOIN LATERAL (SELECT id, name FROM visitors WHERE id = o.visitor_id LIMIT 1) v
        WHERE o.role <> 'deputy' OR NOT o.has_head
    )
    SELECT elder_id, target, type, id, name, channel_id, channel FROM person ORDER BY elder_id, rank, id
"""
_PEOPLE = sa.text(_PERSONS)
# Both questions of an alarm that is about to be raised, who and by which plan, in one way there and back.
_CIRCLE = sa.text(
    f"""
    SELECT elder_id, target, type, id, name, channel_id, channel, NULL AS region_code, NULL AS steps, NULL AS repeat_s
    FROM ({_PERSONS}) AS people
    UNION ALL
    SELECT NULL, NULL, severity, NULL, name, NULL, NULL, region_code, steps, repeat_last_every_s
    FROM ({APPLYING}) AS policies
    """  # noqa: S608 - constants
)

People = Mapping[UUID, Mapping[Target, list[Recipient]]]


async def people_of(session: Hands, elder_ids: Collection[UUID], *, now: datetime, tz: ZoneInfo) -> People:
    """Who can be told about each elder, by target. A person without any channel is nobody here (see readiness)."""
    rows = await session.execute(_PEOPLE, {"elder_ids": list(set(elder_ids)), "today": now.astimezone(tz).date()})
    return _people(rows)


async def circle(
    session: Hands, elder_ids: Collection[UUID], regions: Collection[str], *, now: datetime, tz: ZoneInfo
) -> tuple[People, Policies]:
    """`people_of` and `policies_for` together."""
    found = {
        "elder_ids": list(set(elder_ids)), "today": now.astimezone(tz).date(), "regions": sorted(set(regions))
    }  # fmt: skip
    rows = (await session.execute(_CIRCLE, found)).all()
    policies = [
        Policy(severity, region_code, name, steps, repeat_s)
        for elder_id, _, severity, _, name, _, _, region_code, steps, repeat_s in rows
        if elder_id is None
    ]
    return _people(row[:7] for row in rows if row[0] is not None), Policies(policies)


def _people(rows: Iterable[Any]) -> People:
    found: dict[UUID, dict[Target, list[Recipient]]] = defaultdict(lambda: defaultdict(list))
    for elder_id, target, type_, id_, name, channel_id, channel in rows:
        found[elder_id][_TARGETS[target]].append(
            Recipient(_TYPES[type_], str(id_), name, target, _CHANNELS[channel], channel_id)
        )
    return found


_TARGETS = {target.value: target for target in Target}
_TYPES = {type_.value: type_ for type_ in RecipientType}
_CHANNELS = {kind.value: kind for kind in ChannelKind}


@cache
def operators() -> Recipient:
    """The duty desk: its console, beside the feed it watches."""
    return Recipient(
        RecipientType.OPERATORS, "operators", say("operators.name"), Target.OPERATORS.value, ChannelKind.CONSOLE, None
    )


def chosen(people: Mapping[Target, list[Recipient]], targets: Collection[Target]) -> list[Recipient]:
    """The recipients of a step, each once, in the order of the targets."""
    once: dict[str, Recipient] = {}
    for target in targets:
        group = [operators()] if target is Target.OPERATORS else people.get(target, [])
        for recipient in group:
            once.setdefault(recipient.id, recipient)
    return list(once.values())


def reaches_a_person(recipients: Collection[Recipient]) -> bool:
    """A screen at the duty desk is not a person who was told."""
    return any(recipient.type is not RecipientType.OPERATORS for recipient in recipients)
