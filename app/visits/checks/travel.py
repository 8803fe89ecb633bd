"""Impossible travel: from one home to the next faster than anybody drives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from app.visits.checks.entry import IN_PERSON, Context, Entry, Suspicion, pair_key
from app.visits.vocabulary import CheckKind
from app.words import say

_EARTH_KM = 6371.0


def impossible_travel(entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
    """By the positions of the villages where both are known; otherwise by what it takes at least to the next village,
    township or district. Homes have no position here: within a village nothing is said."""
    in_person = [entry for entry in entries if entry.method in IN_PERSON]
    for before, after in itertools.pairwise(in_person):
        gap = (after.started_at - before.end).total_seconds() / 60
        needed, km = _minutes(before.place_code, after.place_code, context)
        if 0 <= gap < needed:
            figures = {
                "gap_minutes": round(gap), "needed_minutes": math.ceil(needed), "from": before.place_code,
                "to": after.place_code, "straight_km": None if km is None else round(km, 1),
            }  # fmt: skip
            key = "check.impossible_travel" + ("" if km is None else "_km")
            because = say(
                key, end=context.clock(before.end), start=context.clock(after.started_at), gap=round(gap),
                needed=math.ceil(needed), km=figures["straight_km"],
            )  # fmt: skip
            yield Suspicion(CheckKind.IMPOSSIBLE_TRAVEL, pair_key(before, after), because, figures, after, other=before)


def _minutes(one: str, other: str, context: Context) -> tuple[float, float | None]:
    if one == other:
        return 0, None
    limits, known = context.limits, context.positions
    if one in known and other in known:
        km = distance_km(known[one], known[other])
        return km / limits.travel_km_per_h * 60, km
    if one[:6] != other[:6]:
        return limits.minutes_to_next_district, None
    if one[:9] != other[:9]:
        return limits.minutes_to_next_township, None
    return limits.minutes_to_next_village, None


def distance_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Between two points (latitude, longitude in degrees) along the earth's surface."""
    (lat1, lon1), (lat2, lon2) = (tuple(map(math.radians, point)) for point in (one, other))
    chord = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(math.sqrt(min(1.0, chord)))
