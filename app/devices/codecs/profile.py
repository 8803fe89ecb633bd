"""Configured profiles: a topic pattern with a device placeholder, JSON paths, value maps and the role of each field.

The device's id is what stands in the placeholder (or at the field with the role `device_id`), with the profile's prefix.
Such an id could be another device's, so a message counts only for a device registered under this very profile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.devices.codec import Decoded, Knowledge, Rejected, read_bodies
from app.devices.events import Frame, Observation
from app.devices.meaning import Extra, Gathered, device_ref, observations, once
from app.devices.paths import Path
from app.devices.vocabulary import RejectReason

_MOST_RECORDS = 100


@dataclass(frozen=True, slots=True)
class Compiled:
    """A profile, ready to read. `extends`: the family whose devices it adds fields to; otherwise it has a topic."""

    name: str
    extends: str | None
    subscription: str | None
    topic: re.Pattern[str] | None
    prefix: str
    records: Path | None
    extra: Extra
    missing: str = field(default="")  # for the reason when nothing is found


class ProfileCodec:
    """All configured profiles that have a topic of their own."""

    name = "profile"
    title = "Configured profiles"
    subscriptions: Sequence[str] = ()
    unshared: Sequence[str] = ()
    first_levels: Sequence[str] | None = None
    id_prefixes: Sequence[str] = ()

    def decode(self, frame: Frame, known: Knowledge) -> Sequence[Decoded] | None:
        """Where several profiles read the same topic: the one the device is registered under, otherwise the first that
        makes anything of it. So a new profile takes no device away from another."""
        refused: list[Decoded] = []
        first: list[Decoded] | None = None
        matched = False
        for profile in known.profiles.values():
            found = profile.topic.fullmatch(frame.topic) if profile.topic is not None else None
            if found is None:
                continue
            matched = True
            decoded = read(frame, profile, found.groupdict().get("device_id"), known)
            seen = [one.device_id for one in decoded if isinstance(one, Observation)]
            if any((there := known.registered(id_)) is not None and there.profile == profile.name for id_ in seen):
                return decoded
            if seen:
                first = first or decoded
            else:
                refused += decoded
        return (first or refused) if matched else None


def read(frame: Frame, profile: Compiled, device: str | None, known: Knowledge) -> list[Decoded]:
    """What one profile makes of a message whose topic fits."""
    bodies = read_bodies(frame.payload)
    if isinstance(bodies, Rejected):
        return [_of(profile, bodies)]
    result: list[Decoded] = []
    part = 0
    for body in bodies.objects:
        found = profile.records.find(body)[:_MOST_RECORDS] if profile.records is not None else [body]
        # `records: $.list` and `records: $.list[*]` mean the same.
        records = found[0][:_MOST_RECORDS] if len(found) == 1 and isinstance(found[0], list) else found
        for record in records:
            result += _record(frame, profile, device, body, record, part, known)
            part += 1
        if not records and profile.records is not None:
            detail = f"`{profile.records.text}` is not in the message"
            result.append(_of(profile, Rejected(RejectReason.NO_KNOWN_FIELD, detail)))
    if result and bodies.rejects:
        result += [_of(profile, reject) for reject in bodies.rejects]
    return result


def _record(
    frame: Frame,
    profile: Compiled,
    device: str | None,
    body: dict[str, Any],
    record: Any,
    part: int,
    known: Knowledge,
) -> list[Decoded]:
    gathered = Gathered(known.tz)
    profile.extra.read(record, gathered, root=body)
    # The deployer says that it is an id; with the device's time it stays one when the counter begins anew.
    gathered.event_id = once(gathered.event_id, gathered.device_time) or gathered.event_id
    if part and gathered.event_id is not None:
        gathered.event_id = f"{gathered.event_id}/{part}"[-128:]  # the message's id, when its records have none
    text = device or gathered.device_id
    if text is None:
        detail = "no device: the topic has no {device_id}, and no field with the role device_id is in the message"
        return [_of(profile, Rejected(RejectReason.BAD_DEVICE_ID, detail))]
    # The prefix ends in a separator of its own; device_ref keeps what no id may hold out of it.
    ref = device_ref("", text)
    device_id = profile.prefix + ref[1:] if ref is not None else None
    if device_id is not None and not 1 <= len(device_id) <= 128:
        device_id = None
    if not gathered.touched and not gathered.rejects:
        return [_of(profile, Rejected(RejectReason.NO_KNOWN_FIELD, profile.missing, device_id))]
    if gathered.rejects and not (gathered.said or gathered.readings or _heard(gathered)):
        return [_of(profile, Rejected(one.reason, one.detail, device_id)) for one in gathered.rejects]
    if isinstance(record, dict):
        gathered.keep(record)
    found = observations(
        frame, known, family=profile.name, device_id=device_id, gathered=gathered, guarded=True, part=part
    )
    return [_of(profile, one) if isinstance(one, Rejected) else one for one in found]


def _heard(gathered: Gathered) -> bool:
    return gathered.battery is not None or gathered.rssi is not None


def _of(profile: Compiled, reject: Rejected) -> Rejected:
    return Rejected(reject.reason, f"{profile.name}: {reject.detail}", reject.device_id)
