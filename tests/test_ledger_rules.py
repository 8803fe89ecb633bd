"""What the rules of the ledger point at, and what they leave alone. Pure."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.visits.checks import examine
from app.visits.checks.entry import Context, Entry
from app.visits.checks.text import bare
from app.visits.checks.travel import distance_km
from app.visits.sampling import draw, fingerprint
from app.visits.vocabulary import CheckKind, DoorEvidence, Method
from tests.world import OTHER_VILLAGE, TZ, VILLAGE

pytestmark = pytest.mark.unit
HERE = Context("v:2026-11", date(2026, 11, 1), TZ)
TOWN_AWAY = "370302105001"


def entry(day: int = 5, hour: float = 9, minutes: float | None = 25, **more: Any) -> Entry:
    start = datetime(2026, 11, day, tzinfo=TZ) + timedelta(hours=hour)
    end = None if minutes is None else start + timedelta(minutes=minutes)
    given = {
        "id": uuid4(), "elder_id": uuid4(), "place_code": VILLAGE, "method": Method.HOME, "started_at": start,
        "ended_at": end, "created_at": start + timedelta(hours=1), "note": None, "late": False, "door": None,
    } | more  # fmt: skip
    return Entry(**given)


def kinds(*entries: Entry, context: Context = HERE) -> list[str]:
    return [one.kind.value for one in examine(entries, context)]


def test_travel_asks_for_time_by_village_township_and_position() -> None:
    def hop(minutes: float, to: str, **more: Any) -> list[Entry]:
        return [entry(hour=9, minutes=30), entry(hour=9.5 + minutes / 60, place_code=to, **more)]

    assert kinds(*hop(4, OTHER_VILLAGE)) == ["impossible_travel"]
    assert kinds(*hop(5, OTHER_VILLAGE)) == []
    assert kinds(*hop(14, TOWN_AWAY)) == ["impossible_travel"]
    assert kinds(*hop(15, TOWN_AWAY)) == []
    assert kinds(*hop(0, VILLAGE)) == []
    assert kinds(*hop(0, TOWN_AWAY, method=Method.PHONE)) == []  # a voice travels fast
    (found,) = examine(hop(4, TOWN_AWAY), HERE)
    assert (found.figures["gap_minutes"], found.figures["needed_minutes"], found.figures["straight_km"]) == (
        4,
        15,
        None,
    )
    assert "4分钟" in found.because
    assert "11-05 09:30" in found.because
    # With positions it is the way that counts: near across a border, far within a township.
    near = Context("v", HERE.month, TZ, {VILLAGE: (36.60, 117.90), TOWN_AWAY: (36.61, 117.90)})
    assert kinds(*hop(2, TOWN_AWAY), context=near) == []
    far = Context("v", HERE.month, TZ, {VILLAGE: (36.60, 117.90), OTHER_VILLAGE: (36.80, 117.90)})
    (found,) = examine(hop(20, OTHER_VILLAGE), far)
    assert found.figures["straight_km"] == 22.2
    assert kinds(*hop(23, OTHER_VILLAGE), context=far) == []


def test_distances() -> None:
    assert round(distance_km((39.9, 116.4), (31.2, 121.5))) == 1071
    assert distance_km((36.6, 117.9), (36.6, 117.9)) == 0


def test_one_visitor_with_two_people_at_once() -> None:
    long = entry(hour=9, minutes=120)
    assert kinds(long, entry(hour=10)) == ["overlapping"]
    assert kinds(long, entry(hour=11)) == []
    assert kinds(long, entry(hour=10, elder_id=long.elder_id)) == []
    (found, *_) = examine([long, entry(hour=10, minutes=30)], HERE)
    assert (found.figures["overlap_minutes"], "30分钟" in found.because) == (30, True)
    one, other = entry(minutes=None), entry(minutes=None)  # two that begin in the same minute
    assert kinds(one, other) == ["overlapping"]
    assert examine([one, other], HERE)[0].key == examine([other, one], HERE)[0].key


def test_the_same_words_again_and_again() -> None:
    text = "老人身体状况良好,情绪稳定,家中用电安全。"
    variants = [text, text.replace(",", ", "), f"1. {text}"]
    (found,) = examine([entry(n + 3, note=note) for n, note in enumerate(variants)], HERE)
    assert (found.kind, found.figures["entries"], found.figures["elders"]) == (CheckKind.CLONED_TEXT, 3, 3)
    assert kinds(*(entry(n + 3, note=note) for n, note in enumerate(variants[:2]))) == []
    assert kinds(*(entry(n + 3, note="精神很好") for n in range(9))) == []
    assert kinds(*(entry(n + 3, note=text, written=False) for n in range(9))) == []
    assert bare("A b,C1!") == "abc"


def test_half_of_a_month_in_its_last_days() -> None:
    minutes = iter(range(11, 99))
    early = [entry(n + 1, minutes=next(minutes)) for n in range(5)]
    late = [entry(28 + n % 3, hour=8 + n, minutes=next(minutes)) for n in range(5)]
    (found,) = examine([*early, *late], HERE)
    assert (found.kind, found.whole_group, found.key) == (CheckKind.MONTH_END_BURST, True, "v:2026-11")
    assert found.figures == {"entries": 10, "in_last_days": 5, "days": 3, "percent": 50}
    assert kinds(*early, *late[:4]) == []  # too few to say anything
    assert kinds(*early, entry(6, minutes=77), *late) == []


def test_durations_nobody_measured() -> None:
    assert kinds(entry(minutes=0)) == ["zero_duration"]
    assert kinds(entry(minutes=0.5)) == ["zero_duration"]
    assert kinds(entry(minutes=1)) == []
    assert kinds(entry(minutes=0, method=Method.PHONE)) == []
    assert kinds(*(entry(n + 1, minutes=17) for n in range(10))) == ["round_durations"]
    assert kinds(*(entry(n + 1, minutes=30 * (n % 3 + 1)) for n in range(10))) == ["round_durations"]
    assert kinds(*(entry(n + 1, minutes=30) for n in range(9))) == []
    assert kinds(*(entry(n + 1, minutes=30 if n < 8 else 37) for n in range(10))) == []
    assert kinds(*(entry(n + 1, minutes=None) for n in range(10))) == []


def test_late_entries_and_doors() -> None:
    late = entry(late=True, created_at=datetime(2026, 11, 8, 9, 25, tzinfo=TZ))
    (found,) = examine([late], HERE)
    assert (found.kind, found.figures) == (CheckKind.LATE_ENTRY, {"hours": 72})
    assert kinds(entry(door=DoorEvidence.NOT_SEEN)) == ["no_door_event"]
    for evidence in (DoorEvidence.SEEN, DoorEvidence.SILENT_SENSOR, DoorEvidence.NO_SENSOR, None):
        assert kinds(entry(door=evidence)) == []
    assert kinds(entry(door=DoorEvidence.NOT_SEEN, method=Method.ENCOUNTER)) == []
    assert kinds(entry(door=DoorEvidence.NOT_SEEN, written=False)) == []


def test_an_honest_month_is_left_alone() -> None:
    honest = [
        entry(n + 1, hour=8 + n % 5, minutes=15 + 3 * n, note=f"第{n}次:{'阴晴雨雪'[n % 4] * n}") for n in range(20)
    ]
    assert kinds(*honest) == []


@given(st.lists(st.uuids(), min_size=1, max_size=60, unique=True), st.text(min_size=1, max_size=20), st.randoms())
def test_a_sample_is_the_same_for_everybody_and_follows_from_the_seed_alone(
    ids: list[UUID], seed: str, dice: Any
) -> None:
    mixed = list(ids)
    dice.shuffle(mixed)
    assert draw(mixed, seed=seed, size=10) == draw(ids, seed=seed, size=10)
    assert len(set(draw(ids, seed=seed, size=10))) == min(10, len(ids))
    assert draw(ids, seed=seed, size=5) == draw(ids, seed=seed, size=10)[:5]
    # One entry more or less moves nobody else's place.
    rest = [one for one in ids if one != ids[0]]
    assert draw(rest, seed=seed, size=60) == [one for one in draw(ids, seed=seed, size=60) if one != ids[0]]
    assert fingerprint(mixed) == fingerprint(ids) != fingerprint(rest)


def test_every_entry_is_drawn_about_as_often() -> None:
    ids, counts = [UUID(int=n) for n in range(20)], dict.fromkeys(range(20), 0)
    for n in range(1000):
        for one in draw(ids, seed=str(n), size=5):
            counts[one.int] += 1
    assert all(190 < count < 310 for count in counts.values())
