"""Rounds: urgent first, primary before backup, balanced, in turn, the same whatever the order. Pure."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.elders.vocabulary import AssignmentRole
from app.visits.rounds import LeftOut, Pair, Want, Why, propose

pytestmark = pytest.mark.unit
MONDAY = date(2026, 11, 23)
WEEK = [MONDAY + timedelta(days=n) for n in range(7)]
A, B, C = (UUID(int=n) for n in (101, 102, 103))
PRIMARY, BACKUP = AssignmentRole.PRIMARY, AssignmentRole.BACKUP


def want(n: int, *pairs: Pair, by: date = WEEK[-1], visits: int = 1, **more: bool) -> Want:
    return Want(UUID(int=n), visits, by, pairs, **more)


def test_the_primary_goes_until_their_days_are_full_and_then_the_backup() -> None:
    wants = [want(n, Pair(A, PRIMARY), Pair(B, BACKUP), by=MONDAY) for n in range(1, 4)]
    found = propose(wants, WEEK, capacity=2)
    assert [(stop.visitor_id, stop.reasons[-1]) for stop in found.stops] == [
        (A, Why.PRIMARY), (A, Why.PRIMARY), (B, Why.PRIMARY_FULL)
    ]  # fmt: skip
    assert propose([want(1, Pair(B, BACKUP))], WEEK, capacity=2).stops[0].reasons == (Why.DUE_BY, Why.NO_PRIMARY)


def test_who_is_left_out_is_said() -> None:
    found = propose([want(1), want(2, Pair(A, PRIMARY)), want(3, Pair(A, PRIMARY))], WEEK[:1], capacity=1)
    assert [(one.elder_id.int, one.because) for one in found.unplaced] == [
        (1, LeftOut.NOBODY_PAIRED), (3, LeftOut.EVERYBODY_FULL)
    ]  # fmt: skip


def test_the_urgent_come_first_and_early_and_the_rest_is_spread() -> None:
    wants = [want(n, Pair(A, PRIMARY)) for n in range(1, 7)]
    wants += [want(8, Pair(A, PRIMARY), overdue=True), want(9, Pair(A, PRIMARY), follow_up=True)]
    found = propose(wants, WEEK, capacity=2)
    assert [stop.elder_id.int for stop in found.stops if stop.day == MONDAY] == [9, 8]
    assert max(Counter(stop.day for stop in found.stops).values()) == 2
    assert {stop.day for stop in found.stops} == set(WEEK)


def test_several_share_the_load_and_take_turns() -> None:
    day = MONDAY - timedelta(days=7)
    pairs = (Pair(A, PRIMARY, day), Pair(B, PRIMARY, day - timedelta(days=7)), Pair(C, PRIMARY))
    found = propose([want(n, *pairs) for n in range(1, 31)], WEEK, capacity=9)
    assert max(found.load().values()) - min(found.load().values()) <= 2
    alone = propose([want(1, *pairs)], WEEK, capacity=9).stops[0]
    assert (alone.visitor_id, alone.reasons) == (C, (Why.DUE_BY, Why.PRIMARY, Why.TURN))
    busy = propose([want(1, *pairs)], WEEK, capacity=9, booked={(C, WEEK[2]): 2, (B, WEEK[2]): 2}).stops[0]
    assert (busy.visitor_id, busy.reasons[-1]) == (A, Why.LOAD)


def test_more_than_one_visit_of_a_person_is_on_different_days_and_in_time() -> None:
    found = propose([want(1, Pair(A, PRIMARY), visits=3, by=WEEK[3])], WEEK, capacity=9)
    assert [stop.day for stop in found.stops] == WEEK[:3]
    assert propose([want(1, Pair(A, PRIMARY), visits=3, by=WEEK[1])], WEEK, capacity=9).unplaced[0].visits == 1


people = st.lists(
    st.builds(
        lambda n, by, visits, roles, overdue: want(
            n, *(Pair(v, role) for v, role in roles.items()), by=WEEK[by], visits=visits, overdue=overdue
        ),
        st.integers(1, 10_000), st.integers(0, 6), st.integers(1, 3),
        st.dictionaries(st.sampled_from([A, B, C]), st.sampled_from([PRIMARY, BACKUP])), st.booleans(),
    ),
    max_size=25, unique_by=lambda w: w.elder_id,
)  # fmt: skip


@given(people, st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_round_is_fair_whole_and_the_same_in_any_order(wants: list[Want], capacity: int, dice: random.Random) -> None:
    found = propose(wants, WEEK, capacity=capacity)
    shuffled = [Want(w.elder_id, w.visits, w.by, tuple(dice.sample(w.pairs, len(w.pairs))), overdue=w.overdue)
                for w in dice.sample(wants, len(wants))]  # fmt: skip
    assert propose(shuffled, WEEK, capacity=capacity) == found
    assert max(Counter((s.visitor_id, s.day) for s in found.stops).values(), default=0) <= capacity
    assert max(Counter((s.elder_id, s.day) for s in found.stops).values(), default=0) <= 1
    by_id = {w.elder_id: w for w in wants}
    placed = Counter(s.elder_id for s in found.stops)
    left = {one.elder_id: one.visits for one in found.unplaced}
    for elder_id, one in by_id.items():
        assert placed[elder_id] + left.get(elder_id, 0) == one.visits
    for stop in found.stops:
        assert stop.day <= stop.by
        assert stop.visitor_id in {pair.visitor_id for pair in by_id[stop.elder_id].pairs}
