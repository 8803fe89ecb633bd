"""An alarm's own history: one line for each thing that happened to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from app.db import Hands
from app.ids import new_uuid

_INSERT = sa.text(
    """
    INSERT INTO alarm_entries (id, alarm_id, at, kind, by, data)
    SELECT id, alarm_id, :at, kind, CAST(by AS jsonb), CAST(data AS jsonb)
    FROM unnest(CAST(:id AS uuid[]), CAST(:alarm_id AS uuid[]), CAST(:kind AS text[]), CAST(:by AS text[]),
                CAST(:data AS text[])) AS entry(id, alarm_id, kind, by, data)
    """
)

Entry = tuple[UUID, str, dict[str, Any] | None, dict[str, Any]]  # alarm, kind, by, data


async def write(session: Hands, entries: list[Entry], *, now: datetime) -> None:
    """Append lines to the histories of alarms."""
    if not entries:
        return
    await session.execute(
        _INSERT,
        {
            "at": now,
            "id": [new_uuid(now) for _ in entries],
            "alarm_id": [alarm_id for alarm_id, *_ in entries],
            "kind": [kind for _, kind, *_ in entries],
            "by": [msgspec.json.encode(by).decode() if by else None for *_, by, _ in entries],
            "data": [msgspec.json.encode(data).decode() for *_, data in entries],
        },
    )
