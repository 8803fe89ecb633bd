"""What the rules look at, and what they say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from app.visits.vocabulary import CheckKind, DoorEvidence, Method

IN_PERSON = frozenset({Method.HOME, Method.ENCOUNTER})


@dataclass(frozen=True, slots=True)
class Entry:
    """A visit that was met and not voided, as a visitor's month has it. `written`: the visitor's own, and not one they only
    came along to."""

    id: UUID
    elder_id: UUID
    place_code: str
    method: Method
    started_at: datetime
    ended_at: datetime | None
    created_at: datetime
    note: str | None
    late: bool
    written: bool = True
    door: DoorEvidence | None = None

    @property
    def end(self) -> datetime:
        """When it was over at the earliest: without an end, when it began."""
        return self.ended_at or self.started_at

    @property
    def lasted(self) -> timedelta | None:
        return None if self.ended_at is None else self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class Limits:
    """From which figures on something is worth a look. None of them says that an entry is wrong."""

    travel_km_per_h: float = 60.0  # along a straight line: no road is one
    minutes_to_next_village: int = 5
    minutes_to_next_township: int = 15
    minutes_to_next_district: int = 40
    fewest_entries: int = 10  # a share of fewer says nothing
    burst_days: int = 3
    burst_share: float = 0.5
    same_text: int = 3
    text_length: int = 8
    round_share: float = 0.9
    zero: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Context:
    """What else a rule may know: the group it looks at, its month, local time, and where villages lie, if anybody said."""

    group: str
    month: date
    tz: ZoneInfo
    positions: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    limits: Limits = Limits()

    def day(self, moment: datetime) -> date:
        return moment.astimezone(self.tz).date()

    def clock(self, moment: datetime) -> str:
        """How a moment is written for those who read it."""
        return f"{moment.astimezone(self.tz):%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something to look at: why, in a sentence, and by which figures. `key` is the same each time it is found."""

    kind: CheckKind
    key: str
    because: str
    figures: dict[str, Any]
    about: Entry
    other: Entry | None = None
    whole_group: bool = False  # about the visitor's month and no single entry


class Rule(Protocol):
    def __call__(self, entries: Sequence[Entry], context: Context) -> Iterable[Suspicion]:
        """`entries` of one visitor and month, in the order in which they began."""
        ...


def pair_key(one: Entry, other: Entry) -> str:
    return ":".join(sorted((one.id.hex, other.id.hex)))
