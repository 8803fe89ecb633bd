"""Escalation policies: the newest for the severity, the nearest region first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from app.alarms.escalation import Plan, default_plan, desk_plan, make_plan
from app.db import Hands
from app.rules.verdict import DEVICE_HEALTH, AlarmKind, Severity

# The policies that may hold in `:regions`: of each severity and place the newest.
APPLYING = """
    SELECT DISTINCT ON (severity, region_code) severity, region_code, name, steps, repeat_last_every_s
    FROM escalation_policies
    WHERE EXISTS (SELECT FROM unnest(CAST(:regions AS text[])) AS r(code) WHERE starts_with(r.code, region_code))
    ORDER BY severity, region_code, id DESC
"""
_APPLYING = sa.text(APPLYING)


class Policy(NamedTuple):
    """One policy as it is kept."""

    severity: str
    region_code: str
    name: str
    steps: list[dict[str, Any]]
    repeat_last_every_s: int


class Policies:
    """The policies that apply to some regions, looked up once."""

    def __init__(self, rows: Sequence[Policy]) -> None:
        self._rows = rows
        self._plans: dict[tuple[Severity, str], Plan] = {}

    def plan_for(self, kind: AlarmKind, severity: Severity, region_code: str, *, now: datetime, tz: ZoneInfo) -> Plan:
        """The plan of an alarm of this kind that is raised now."""
        if kind not in DEVICE_HEALTH:
            return self.plan(severity, region_code)
        nearest = self._policy(severity, region_code)
        if nearest is None:
            return desk_plan(severity, now, tz)
        return make_plan(nearest.name, nearest.steps, nearest.repeat_last_every_s, severity=severity, of_a_device=True)

    def plan(self, severity: Severity, region_code: str) -> Plan:
        plan = self._plans.get((severity, region_code))
        if plan is None:
            plan = self._plans[severity, region_code] = self._nearest(severity, region_code)
        return plan

    def _nearest(self, severity: Severity, region_code: str) -> Plan:
        nearest = self._policy(severity, region_code)
        if nearest is None:
            return default_plan(severity)
        return make_plan(nearest.name, nearest.steps, nearest.repeat_last_every_s, severity=severity)

    def _policy(self, severity: Severity, region_code: str) -> Policy | None:
        fitting = [r for r in self._rows if r.severity == severity.value and region_code.startswith(r.region_code)]
        return max(fitting, key=lambda row: len(row.region_code), default=None)


async def policies_for(session: Hands, regions: Collection[str]) -> Policies:
    rows = await session.execute(_APPLYING, {"regions": sorted(set(regions))})
    return Policies([Policy(*row) for row in rows])
