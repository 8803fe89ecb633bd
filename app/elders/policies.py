"""Policy versions in the database: which is in force where and when, drafts, and putting one in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal
from app.elders.policy import POLICY_2023, ClassRules, Policy, VisitRules
from app.elders.tables import CarePolicy
from app.errors import Conflict, InvalidInput, NotFound
from app.ids import new_uuid


@dataclass(frozen=True, slots=True)
class Version:
    """One version in force: either part may be absent, then the one above goes on holding."""

    version: str
    region_code: str
    since: date
    classification: ClassRules | None
    visits: VisitRules | None


@dataclass(frozen=True, slots=True)
class Policies:
    """All versions in force, so that `at()` is pure: the nearest region first, then the newest that has begun."""

    versions: tuple[Version, ...]

    def at(self, region_code: str, on: date) -> Policy:
        """What holds for a place on a day. Before the first version began, the first one holds."""
        covering = [v for v in self.versions if region_code.startswith(v.region_code)]
        classes = _chosen([v for v in covering if v.classification is not None], on)
        visits = _chosen([v for v in covering if v.visits is not None], on)
        return Policy(
            (classes and classes.classification) or POLICY_2023.classification,
            classes.version if classes else POLICY_2023.classification_version,
            (visits and visits.visits) or POLICY_2023.visits,
            visits.version if visits else POLICY_2023.visits_version,
        )

    def and_also(self, more: Version) -> Policies:
        """As if this version had been put in force last: for a dry run."""
        return Policies((more, *self.versions))


def _chosen(versions: list[Version], on: date) -> Version | None:
    begun = [v for v in versions if v.since <= on]
    if begun:
        return max(begun, key=lambda v: (len(v.region_code), v.since))
    outermost = [v for v in versions if not v.region_code]
    return min(outermost or versions, key=lambda v: v.since, default=None)


async def in_force(session: AsyncSession) -> Policies:
    """Every version that is or will be in force, in the order they were decided."""
    query = (
        select(CarePolicy).where(col(CarePolicy.in_force_from).is_not(None)).order_by(col(CarePolicy.decided_at).desc())
    )
    return Policies(tuple(_version(row) for row in (await session.execute(query)).scalars()))


def _version(row: CarePolicy) -> Version:
    assert row.in_force_from is not None
    return Version(
        row.version,
        row.region_code,
        row.in_force_from,
        None if row.classification is None else ClassRules.model_validate(row.classification),
        None if row.visits is None else VisitRules.model_validate(row.visits),
    )


async def draft(
    session: AsyncSession,
    *,
    version: str,
    region_code: str,
    classification: ClassRules | None,
    visits: VisitRules | None,
    note: str | None,
    now: datetime,
) -> CarePolicy:
    """Write a version that is not in force yet. Raises `Conflict` for a name that is taken."""
    if classification is None and visits is None:
        raise InvalidInput("a version says something about classification, visits or both", field="classification")
    if await session.scalar(select(col(CarePolicy.id)).where(col(CarePolicy.version) == version)) is not None:
        raise Conflict("a policy of this version exists already; a version is never changed", field="version")
    row = CarePolicy(
        id=new_uuid(now),
        version=version,
        region_code=region_code,
        classification=classification.model_dump(mode="json") if classification else None,
        visits=visits.model_dump(mode="json") if visits else None,
        note=note,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    return row


def concerns(who: Principal, region_code: str) -> bool:
    """A version is seen by those it holds for, and by those above."""
    return region_code.startswith(who.region_code) or who.region_code.startswith(region_code)


async def policy_within(session: AsyncSession, who: Principal, policy_id: UUID, *, lock: bool = False) -> CarePolicy:
    query = select(CarePolicy).where(col(CarePolicy.id) == policy_id)
    row = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if row is None or not concerns(who, row.region_code):
        raise NotFound("no such policy")
    return row


async def put_in_force(
    session: AsyncSession, row: CarePolicy, *, since: date, by: dict[str, Any], now: datetime, today: date
) -> None:
    """From `since` on (today or later: the past is not judged anew). Everybody it touches is due to be classed again."""
    if row.in_force_from is not None:
        raise Conflict("this version is in force already; write a new one to change it")
    if since < today:
        raise InvalidInput("a policy begins today or later: what was decided before stays as it was", field="from")
    row.in_force_from, row.decided_at, row.decided_by = since, now, by
    await session.flush()
    if row.classification is not None:
        await session.execute(
            sa.text(
                "UPDATE elders SET reclassify_on = least(reclassify_on, :since) WHERE reclassify_on IS NOT NULL "
                "AND region_code ^@ :prefix"
            ),
            {"since": since, "prefix": row.region_code},
        )
