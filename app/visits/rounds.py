"""Rounds proposed fairly over the visitors that people are paired with (policy row 21, 二（二）7). Pure.

The most urgent are placed first; a primary visitor goes before a backup; where several share a person, the load decides
and then whose turn it is; nobody gets more than they can do in a day. The same input, in whatever order, gives the same
round, and every stop says why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from uuid import UUID

from app.elders.vocabulary import AssignmentRole


class Why(StrEnum):
    """Why a stop is as it is."""

    FOLLOW_UP = "follow_up"
    OVERDUE = "overdue"
    SPECIAL_PERIOD = "special_period"
    DUE_BY = "due_by"
    PRIMARY = "primary"
    NO_PRIMARY = "no_primary"  # a backup: nobody is the primary visitor
    PRIMARY_FULL = "primary_full"  # a backup: every primary visitor has as much as they can do
    LOAD = "load"  # of several, the one with less to do
    TURN = "turn"  # of several, one who did not go last


class LeftOut(StrEnum):
    NOBODY_PAIRED = "nobody_paired"
    EVERYBODY_FULL = "everybody_full"


@dataclass(frozen=True, slots=True)
class Pair:
    visitor_id: UUID
    role: AssignmentRole
    last_visit: date | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """Somebody to be visited: so many times, by this day."""

    elder_id: UUID
    visits: int
    by: date
    pairs: tuple[Pair, ...]
    follow_up: bool = False
    overdue: bool = False
    special: bool = False

    @property
    def urgent(self) -> bool:
        return self.follow_up or self.overdue


@dataclass(frozen=True, slots=True)
class Stop:
    day: date
    visitor_id: UUID
    elder_id: UUID
    by: date
    reasons: tuple[Why, ...]


@dataclass(frozen=True, slots=True)
class Unplaced:
    elder_id: UUID
    visits: int
    because: LeftOut


@dataclass(frozen=True, slots=True)
class Proposal:
    stops: tuple[Stop, ...]
    unplaced: tuple[Unplaced, ...]

    def load(self) -> Mapping[UUID, int]:
        """How many stops each visitor has."""
        return Counter(stop.visitor_id for stop in self.stops)


@dataclass
class _Plan:
    days: Sequence[date]
    capacity: int
    booked: Counter[tuple[UUID, date]]
    on: defaultdict[UUID, set[date]] = field(default_factory=lambda: defaultdict(set))  # an elder is seen once a day

    def load(self, visitor: UUID) -> int:
        return sum(self.booked[visitor, day] for day in self.days)

    def free_days(self, visitor: UUID, want: Want) -> list[date]:
        in_time = [day for day in self.days if day <= want.by] or list(self.days)
        return [d for d in in_time if self.booked[visitor, d] < self.capacity and d not in self.on[want.elder_id]]


def propose(
    wants: Iterable[Want], days: Sequence[date], *, capacity: int, booked: Mapping[tuple[UUID, date], int] | None = None
) -> Proposal:
    """A round for some days. `capacity`: stops of one visitor in one day; `booked`: what they are to do already."""
    plan = _Plan(sorted(days), capacity, Counter(booked or {}))
    stops: list[Stop] = []
    unplaced: list[Unplaced] = []
    for want in sorted(wants, key=_urgency):
        for n in range(want.visits):
            stop = _place(want, plan)
            if stop is None:
                because = LeftOut.EVERYBODY_FULL if want.pairs else LeftOut.NOBODY_PAIRED
                unplaced.append(Unplaced(want.elder_id, want.visits - n, because))
                break
            stops.append(stop)
            plan.booked[stop.visitor_id, stop.day] += 1
            plan.on[want.elder_id].add(stop.day)
    stops.sort(key=lambda s: (s.day, s.visitor_id))  # stable: the most urgent of a day stay first
    return Proposal(tuple(stops), tuple(unplaced))


def _urgency(want: Want) -> tuple[bool, bool, date, bool, int, UUID]:
    return not want.follow_up, not want.overdue, want.by, not want.special, len(want.pairs), want.elder_id


def _place(want: Want, plan: _Plan) -> Stop | None:
    primaries = [pair for pair in want.pairs if pair.role is AssignmentRole.PRIMARY]
    for role in (AssignmentRole.PRIMARY, AssignmentRole.BACKUP):
        able = [pair for pair in want.pairs if pair.role is role and plan.free_days(pair.visitor_id, want)]
        if not able:
            continue
        chosen, why = _fairest(able, want, plan)
        day = _day(chosen.visitor_id, want, plan)
        if role is AssignmentRole.PRIMARY:
            standing = Why.PRIMARY
        else:
            standing = Why.PRIMARY_FULL if primaries else Why.NO_PRIMARY
        return Stop(day, chosen.visitor_id, want.elder_id, want.by, (*_because(want), standing, *why))
    return None


def _fairest(able: Sequence[Pair], want: Want, plan: _Plan) -> tuple[Pair, tuple[Why, ...]]:
    """Whose load is two or more above the least stands back; among the others it is the turn of whoever was not there
    last, then of whoever has less to do, then of whoever was there longest ago."""
    least = min(plan.load(pair.visitor_id) for pair in able)
    level = [pair for pair in able if plan.load(pair.visitor_id) < least + 2]
    latest = max((pair.last_visit for pair in want.pairs if pair.last_visit), default=None)

    def order(pair: Pair) -> tuple[bool, int, date, UUID]:
        went_last = latest is not None and pair.last_visit == latest
        return went_last, plan.load(pair.visitor_id), pair.last_visit or date.min, pair.visitor_id

    chosen = min(level, key=order)
    others = [pair for pair in able if pair is not chosen]
    why: list[Why] = []
    if any(plan.load(pair.visitor_id) > plan.load(chosen.visitor_id) for pair in others):
        why.append(Why.LOAD)
    if latest is not None and chosen.last_visit != latest and any(p.last_visit == latest for p in others):
        why.append(Why.TURN)
    return chosen, tuple(why)


def _day(visitor: UUID, want: Want, plan: _Plan) -> date:
    """The first day for what is urgent; otherwise the visitor's emptiest day in time."""
    free = plan.free_days(visitor, want)
    return free[0] if want.urgent else min(free, key=lambda day: (plan.booked[visitor, day], day))


def _because(want: Want) -> tuple[Why, ...]:
    given = [(want.follow_up, Why.FOLLOW_UP), (want.overdue, Why.OVERDUE), (want.special, Why.SPECIAL_PERIOD)]
    return tuple(why for holds, why in given if holds) or (Why.DUE_BY,)
