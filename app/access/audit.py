"""Who did what: written in the transaction of the deed. Sealed values appear as "changed", never as themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.access.principal import Principal
from app.access.tables import AuditEntry


def note(
    session: AsyncSession,
    principal: Principal,
    *,
    action: str,
    subject_type: str,
    subject_id: object,
    now: datetime,
    region_code: str | None = None,
    **detail: Any,
) -> None:
    """One line of the audit log."""
    session.add(
        AuditEntry(
            at=now,
            actor=principal.who(),
            action=action,
            subject_type=subject_type,
            subject_id=str(subject_id),
            region_code=region_code,
            detail=detail,
        )
    )
