"""Figures of alarms: how many of what, how they ended, how soon somebody was told, and how soon a person answered. Read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alarms.vocabulary import Outcome
from app.ids import first_uuid
from app.reports.area import names
from app.reports.rates import rate
from app.rules.verdict import AlarmKind, Severity

# What telecare centres are held to: answered by a person within so many seconds.
TARGETS: Mapping[int, float] = {60: 0.975, 180: 0.99}
_SLACK = timedelta(minutes=1)  # an id is as old as its row, to the clock's last correction


class AlarmGroup(StrEnum):
    KIND = "kind"
    OUTCOME = "outcome"
    SEVERITY = "severity"
    DEVICE_MODEL = "device_model"
    TOWNSHIP = "township"
    VILLAGE = "village"
    MONTH = "month"


def _key(by: AlarmGroup | None) -> str:
    """SQL for what a line is about. A device without a model is called by the profile that reads it."""
    match by:
        case None:
            return "NULL"
        case AlarmGroup.KIND:
            return "a.kind"
        case AlarmGroup.OUTCOME:
            return "coalesce(a.outcome, 'unresolved')"
        case AlarmGroup.SEVERITY:
            return "a.severity"
        case AlarmGroup.DEVICE_MODEL:
            model = "d.kind || '/' || coalesce(d.model, d.profile)"
            return f"CASE WHEN d.device_id IS NULL THEN 'reported_by_a_person' ELSE {model} END"
        case AlarmGroup.TOWNSHIP:
            return "left(a.region_code, 9) || '000'"
        case AlarmGroup.VILLAGE:
            return "a.region_code"
        case AlarmGroup.MONTH:
            return "to_char(a.received_at AT TIME ZONE :zone, 'YYYY-MM')"
        case _:
            assert_never(by)


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from the event's arrival to something; None when it never happened."""

    p50: float | None
    p95: float | None
    longest: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """One line. `answerable`: alarms that a person could have answered within the longest of the targets."""

    key: str | None
    name: str | None
    alarms: int
    outcomes: dict[str, int]
    first_notice: Waits
    first_answer: Waits
    answerable: int
    within: dict[int, int]

    @property
    def resolved(self) -> int:
        return sum(self.outcomes.values())

    @property
    def false_alarm_rate(self) -> float | None:
        """Of those that ended and were no test."""
        return rate(self.outcomes.get(Outcome.FALSE_ALARM, 0), self.resolved - self.outcomes.get(Outcome.TEST, 0))


_OUTCOMES = ", ".join(f"count(*) FILTER (WHERE outcome = '{one.value}') AS {one.value}" for one in Outcome)
_WITHIN = ", ".join(
    f"count(*) FILTER (WHERE answered <= {s} AND received_at <= :before) AS within_{s}" for s in TARGETS
)
_FIGURES = """
    SELECT key, count(*) AS alarms, {outcomes},
           percentile_cont(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY told) AS told,
           percentile_cont(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY answered) AS answered,
           count(*) FILTER (WHERE received_at <= :before) AS answerable, {within}
    FROM (SELECT {key} AS key, a.outcome, a.received_at,
                 CAST(extract(epoch FROM a.first_sent_at - a.received_at) AS float8) AS told,
                 CAST(extract(epoch FROM a.answered_at - a.received_at) AS float8) AS answered
          FROM alarms a LEFT JOIN devices d ON d.device_id = a.trigger_device_id
          WHERE a.id >= :first AND a.id < :last AND a.received_at >= :since AND a.received_at < :until
                AND a.region_code ^@ :prefix AND (CAST(:kind AS text) IS NULL OR a.kind = :kind)
                AND (CAST(:severity AS text) IS NULL OR a.severity = :severity)) AS alarm
    GROUP BY key ORDER BY alarms DESC, key
"""


async def figures(
    session: AsyncSession,
    prefix: str,
    *,
    since: datetime,
    until: datetime,
    by: AlarmGroup | None,
    kind: AlarmKind | None,
    severity: Severity | None,
    now: datetime,
    tz: ZoneInfo,
) -> list[Figures]:
    """Alarms that arrived in a time and region. Only the time asked for is read, by the ids' own order."""
    query = sa.text(_FIGURES.format(key=_key(by), outcomes=_OUTCOMES, within=_WITHIN))
    values: dict[str, Any] = {
        "first": first_uuid(since - _SLACK), "last": first_uuid(until + _SLACK), "since": since, "until": until,
        "prefix": prefix, "kind": kind.value if kind else None, "severity": severity.value if severity else None,
        "before": now - timedelta(seconds=max(TARGETS)),
    }  # fmt: skip
    if by is AlarmGroup.MONTH:
        values["zone"] = tz.key
    rows = (await session.execute(query, values)).all()
    placed = by in (AlarmGroup.TOWNSHIP, AlarmGroup.VILLAGE)
    named = await names(session, {row.key for row in rows}) if placed else {}
    return [_line(row, named.get(row.key)) for row in rows]


def _line(row: Any, name: str | None) -> Figures:
    outcomes = {one.value: getattr(row, one.value) for one in Outcome}
    return Figures(
        row.key, name, row.alarms, outcomes, _waits(row.told), _waits(row.answered), row.answerable,
        {seconds: getattr(row, f"within_{seconds}") for seconds in TARGETS},
    )  # fmt: skip


def _waits(cuts: list[float | None] | None) -> Waits:
    return Waits(*(None if cut is None else round(cut, 3) for cut in cuts or [None, None, None]))
