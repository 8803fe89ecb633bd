"""A recipient answers by the link of their notice: one alarm, until it is closed or the link is old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alarms import handling
from app.alarms.links import LINK_LIFE
from app.alarms.views import COLUMNS
from app.alarms.vocabulary import AlarmState, Outcome
from app.errors import LinkExpired, NotFound
from app.ids import NoticeId
from app.notify.circle import of_circle

_SAME_PRESS = timedelta(seconds=30)


class Action(StrEnum):
    ACKNOWLEDGE = "acknowledge"
    ATTEND = "attend"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Invitation:
    """A link's notice with its alarm."""

    alarm: Mapping[str, Any]
    alarm_id: UUID
    state: AlarmState
    by: dict[str, Any]


_INVITATION = sa.text(
    f"""
    SELECT n.recipient_type, n.recipient_id, n.recipient_name, n.created_at, {COLUMNS},
           CASE n.recipient_type
               WHEN 'contact' THEN EXISTS (SELECT FROM contacts c WHERE c.id = CAST(n.recipient_id AS uuid))
               ELSE {
        of_circle(visitor="CAST(n.recipient_id AS uuid)", elder="e.id", region="e.region_code", began="a.raised_at")
    }
           END AS of_circle
    FROM notices n JOIN alarms a ON a.id = n.alarm_id JOIN elders e ON e.id = a.elder_id
    WHERE n.id = :id AND n.recipient_type IN ('contact', 'visitor')
    """  # noqa: S608 - a constant
)


async def invitation(session: AsyncSession, notice_id: NoticeId, *, now: datetime) -> Invitation:
    """Raises `NotFound` for a notice that is gone and `LinkExpired` for one that is old, or of somebody who was taken off
    the person's contacts, or whose pairing with the person was ended. Who holds an office of the place, or held one when
    the alarm began, may finish what they promised."""
    row = (await session.execute(_INVITATION, {"id": notice_id})).mappings().first()
    if row is None:
        raise NotFound("no such link")
    if not row["of_circle"]:
        raise LinkExpired("the recipient is no longer somebody whom alarms of this person are for")
    if now > row["created_at"] + LINK_LIFE:
        raise LinkExpired("the link is more than a day old")
    by = {"type": row["recipient_type"], "id": row["recipient_id"], "name": row["recipient_name"]}
    return Invitation(dict(row), row["alarm_id"], AlarmState(row["alarm_state"]), by)


async def answer(
    session: AsyncSession,
    to: Invitation,
    *,
    action: Action,
    eta_minutes: int | None,
    outcome: Outcome | None,
    note: str | None,
    now: datetime,
    tz: ZoneInfo,
) -> None:
    """Do what the recipient says. The same answer again changes nothing; a closed alarm is `LinkExpired`."""
    held = await handling.hold(session, to.alarm_id)
    if held.state is AlarmState.RESOLVED:
        raise LinkExpired("the alarm is closed")
    match action:
        case Action.ACKNOWLEDGE:
            if held.state is not AlarmState.ATTENDING and not await _said_so_just_now(
                session, to, eta_minutes=eta_minutes, now=now
            ):
                await handling.acknowledge(session, held, by=to.by, eta_minutes=eta_minutes, note=note, now=now)
        case Action.ATTEND:
            if held.state is not AlarmState.ATTENDING:
                await handling.attend(session, held, by=to.by, note=note, now=now)
        case Action.RESOLVE:
            end = outcome or Outcome.OTHER
            await handling.resolve(session, held, by=to.by, outcome=end, note=note, now=now, tz=tz)


async def _said_so_just_now(session: AsyncSession, to: Invitation, *, eta_minutes: int | None, now: datetime) -> bool:
    """Whether this person's promise of the same time stands already: a button pressed twice. Under the lock of `hold`."""
    minutes = handling.DEFAULT_ETA_MINUTES if eta_minutes is None else eta_minutes
    due: datetime | None = await session.scalar(
        sa.text(
            "SELECT promise_due_at FROM alarms WHERE id = :id AND state = 'acknowledged' "
            "AND acknowledged_by ->> 'id' = :by"
        ),
        {"id": to.alarm_id, "by": to.by["id"]},
    )
    return due is not None and abs(now + timedelta(minutes=minutes) - due) < _SAME_PRESS
