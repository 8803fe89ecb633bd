"""What a status means for alarms, visits and statistics: one table. Pure (policy row 38, choice 9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from app.elders.vocabulary import ElderStatus, StatusReason


class AlarmsGo(StrEnum):
    """No status ever silences an alarm: somebody else may be in the home, or the register may be wrong."""

    AS_USUAL = "as_usual"
    WITH_A_NOTE = "with_a_note"  # everybody is told, and told what the register says


class Counting(StrEnum):
    """How a person counts in the visiting rate."""

    COUNTED = "counted"
    EXCLUDED_WITH_EVIDENCE = "excluded_with_evidence"  # in the raw rate; out of the adjusted one only when evidenced
    LEFT = "left"  # no longer enrolled


@dataclass(frozen=True, slots=True)
class Effects:
    alarms: AlarmsGo
    visits_due: bool
    counting: Counting
    collect_devices: bool  # devices still bound are a finding of `shouwang check`


_PAUSED = Effects(
    AlarmsGo.WITH_A_NOTE, visits_due=False, counting=Counting.EXCLUDED_WITH_EVIDENCE, collect_devices=False
)
_GONE = Effects(AlarmsGo.WITH_A_NOTE, visits_due=False, counting=Counting.LEFT, collect_devices=True)

EFFECTS: dict[tuple[ElderStatus, StatusReason | None], Effects] = {
    (ElderStatus.ACTIVE, None): Effects(AlarmsGo.AS_USUAL, True, Counting.COUNTED, collect_devices=False),
    (ElderStatus.PAUSED, StatusReason.IN_HOSPITAL): _PAUSED,
    (ElderStatus.PAUSED, StatusReason.IN_INSTITUTION): _PAUSED,
    (ElderStatus.PAUSED, StatusReason.AWAY): _PAUSED,
    # Who refuses to be visited has not refused to be rescued: the alarm goes as usual.
    (ElderStatus.PAUSED, StatusReason.REFUSED): Effects(
        AlarmsGo.AS_USUAL, False, Counting.EXCLUDED_WITH_EVIDENCE, collect_devices=False
    ),
    # An unexplained pause stops nothing that protects: visits stay due.
    (ElderStatus.PAUSED, StatusReason.OTHER): Effects(AlarmsGo.AS_USUAL, True, Counting.COUNTED, collect_devices=False),
    (ElderStatus.MOVED, StatusReason.MOVED): _GONE,
    (ElderStatus.DECEASED, StatusReason.DECEASED): _GONE,
}
_ONLY = {
    ElderStatus.ACTIVE: None,
    ElderStatus.MOVED: StatusReason.MOVED,
    ElderStatus.DECEASED: StatusReason.DECEASED,
}
PAUSE_REASONS = tuple(reason for status, reason in EFFECTS if status is ElderStatus.PAUSED and reason)


def normal_reason(status: ElderStatus, reason: StatusReason | None) -> StatusReason | None:
    """The reason that belongs to a status. Raises `ValueError` for one that does not fit it."""
    if status is ElderStatus.PAUSED:
        chosen: StatusReason | None = reason or StatusReason.OTHER
    else:
        chosen = _ONLY[status]
        if reason not in (None, chosen):
            raise ValueError(f"{status.value} has no reason {reason.value if reason else ''}".rstrip())
    if (status, chosen) not in EFFECTS:
        raise ValueError(f"{status.value} has no reason {chosen.value if chosen else ''}".rstrip())
    return chosen


@dataclass(frozen=True, slots=True)
class StatusPeriod:
    """From a day on; a pause may end by itself after its last day `until`."""

    status: ElderStatus
    reason: StatusReason | None
    since: date
    until: date | None = None
    evidenced: bool = False

    @property
    def effects(self) -> Effects:
        return EFFECTS[self.status, self.reason]


def status_on(periods: Iterable[StatusPeriod], day: date) -> StatusPeriod:
    """What held on a day. `periods` in the order they were recorded: of two that begin on one day the later wins.

    Before the first of them, and after a pause that has ended, a person is active.
    """
    held = StatusPeriod(ElderStatus.ACTIVE, None, date.min, None, evidenced=True)
    for period in periods:
        if held.since <= period.since <= day:
            held = period
    if held.until is not None and held.until < day:
        return StatusPeriod(
            ElderStatus.ACTIVE, None, date.fromordinal(held.until.toordinal() + 1), None, evidenced=True
        )
    return held
