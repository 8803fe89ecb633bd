"""Which places a statistic is about: the region asked for, cut to the scope of who asks."""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.principal import Principal, normal_scope
from app.errors import InvalidInput


class GroupBy(StrEnum):
    TOWNSHIP = "township"
    VILLAGE = "village"
    CARE_LEVEL = "care_level"


async def area(session: AsyncSession, who: Principal, region_code: str | None) -> str:
    """A prefix of place codes, to compare with `^@`: behind the wall LIKE uses no index. Raises `InvalidInput` for a region
    that is absent or outside the scope, alike."""
    prefix = normal_scope(region_code or "")
    if who.region_code.startswith(prefix):
        return who.region_code or await _the_only_district(session)
    known = sa.text("SELECT 1 FROM regions WHERE code ^@ :prefix LIMIT 1")
    if not who.sees(prefix) or (await session.execute(known, {"prefix": prefix})).first() is None:
        raise InvalidInput("no such region", field="region_code")
    return prefix


async def _the_only_district(session: AsyncSession) -> str:
    """Who sees everything asks about the district; where there are several, about all of them."""
    rows = await session.execute(sa.text("SELECT code FROM regions WHERE level = 'district' LIMIT 2"))
    codes = rows.scalars().all()
    return normal_scope(codes[0]) if len(codes) == 1 else ""


def whole_code(prefix: str) -> str:
    """The 12-digit code of a district, township or village from its prefix."""
    return f"{prefix:0<12}"


async def names(session: AsyncSession, codes: set[str]) -> dict[str, str]:
    """The names of regions."""
    rows = await session.execute(
        sa.text("SELECT code, name FROM regions WHERE code = ANY(CAST(:codes AS text[]))"), {"codes": sorted(codes)}
    )
    return {row.code: row.name for row in rows}
