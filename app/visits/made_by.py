"""SQL for what a visitor did: the visits they made or came along to in a time, by indexes that know both."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.ids import first_uuid

_SLACK = timedelta(days=1)  # an entry is written after its visit began, to the clock's last correction


def made_by(who: str) -> str:
    """A subquery with the columns of `visits`, for the binds of `span`. `who` is an expression: `:visitor`, or a column of
    what stands left of a LATERAL. Two branches, because an OR of them reads everybody's visits."""
    return f"""(
        SELECT v.* FROM visits v WHERE v.visitor_id = {who} AND v.started_at >= :start AND v.started_at < :end
        UNION ALL
        SELECT v.* FROM visit_partners p JOIN visits v ON v.id = p.visit_id
        WHERE p.visitor_id = {who} AND p.visit_id >= :first AND v.visitor_id IS DISTINCT FROM p.visitor_id
              AND v.started_at >= :start AND v.started_at < :end
    )"""  # noqa: S608 - constants


def span(start: datetime, end: datetime) -> dict[str, Any]:
    """The binds of `made_by`: visits that began from `start` on and before `end`."""
    first: UUID = first_uuid(start - _SLACK)
    return {"start": start, "end": end, "first": first}
