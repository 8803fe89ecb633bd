"""What an alarm was raised for is over. A device's trouble resolves itself; about a person somebody still looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alarms import entries, handling
from app.alarms.calming import Calming, calm
from app.alarms.vocabulary import AlarmState, Outcome
from app.rules.verdict import DEVICE_HEALTH, AlarmKind
from app.rules.watching import Ease
from app.words import say

_RESOLVES: Final = DEVICE_HEALTH | {AlarmKind.DOOR_LEFT_OPEN}
# Only what the rules raised themselves, and nobody is on the way to: whoever is, says how it ended.
_STANDING = sa.text(
    """
    SELECT a.id, a.state FROM unnest(CAST(:elder_id AS uuid[]), CAST(:kind AS text[])) AS i(elder_id, kind)
    CROSS JOIN LATERAL (
        SELECT id, state FROM alarms WHERE elder_id = i.elder_id AND kind = i.kind AND state <> 'resolved' LIMIT 1
    ) a ORDER BY a.id
    """
)


async def ease(session: AsyncSession, eased: Sequence[tuple[UUID, Ease]], *, now: datetime, tz: ZoneInfo) -> None:
    """Close or calm what stands."""
    for elder_id, one in eased:
        if one.kind in _RESOLVES:
            await _resolve(session, elder_id, one, now=now, tz=tz)
        else:
            because = say("reason.eased", because=one.because)
            await calm(session, Calming(elder_id, (one.kind,), one.because, now, None, because), now=now)


async def _resolve(session: AsyncSession, elder_id: UUID, one: Ease, *, now: datetime, tz: ZoneInfo) -> None:
    row = (await session.execute(_STANDING, {"elder_id": [elder_id], "kind": [one.kind.value]})).first()
    if row is None:
        return
    by = {"type": "system", "id": "rules", "name": say("system.rules")}
    if AlarmState(row.state) is not AlarmState.OPEN:
        await entries.write(session, [(row.id, "comment", by, {"text": one.because})], now=now)
        return
    outcome = Outcome.DEVICE_FAULT if one.kind in DEVICE_HEALTH else Outcome.OTHER
    alarm = await handling.hold(session, row.id)
    await handling.resolve(session, alarm, by=by, outcome=outcome, note=one.because, now=now, tz=tz, tell_device=False)
