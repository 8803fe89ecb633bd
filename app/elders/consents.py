"""Consents in the database: given, shown, withdrawn. The giving is never changed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.elders.consent import Consent
from app.elders.tables import ConsentEntry
from app.elders.vocabulary import ConsentGiver, ConsentScope
from app.errors import Conflict, InvalidInput


async def consents_of(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, list[Consent]]:
    """The consents of each elder."""
    rows = await session.execute(
        sa.text(
            "SELECT id, elder_id, scope, given_on, expires_on, withdrawn_on FROM consents "
            "WHERE elder_id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"ids": list(ids)},
    )
    found: dict[UUID, list[Consent]] = {}
    for row in rows:
        found.setdefault(row.elder_id, []).append(
            Consent(row.id, ConsentScope(row.scope), row.given_on, row.expires_on, row.withdrawn_on)
        )
    return found


def withdraw(entry: ConsentEntry, *, on: date, by: ConsentGiver | None, evidence: str | None, today: date) -> None:
    """From this day on it no longer holds. What was done before stays allowed."""
    if entry.withdrawn_on is not None:
        raise Conflict("the consent was withdrawn before")
    if on > today:
        raise InvalidInput("a withdrawal in the future", field="withdrawn_on")
    if on < entry.given_on:
        raise InvalidInput("a withdrawal before the consent was given", field="withdrawn_on")
    entry.withdrawn_on, entry.withdrawn_by, entry.withdrawal_evidence = on, by, evidence
