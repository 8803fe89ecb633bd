"""The settings of the rules as they are kept: of regions and of elders, the newest that has begun of each place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.rules.settings import Document, Rules, lay_over


class Held(NamedTuple):
    """A version that holds."""

    id: UUID
    region_code: str | None
    elder_id: UUID | None
    settings: dict[str, dict[str, Any]]
    valid_from: datetime


# Of each place and each elder the version that began last; of two that began together the one written later.
_HOLDING = sa.text(
    """
    SELECT DISTINCT ON (region_code, elder_id) id, region_code, elder_id, settings, valid_from
    FROM rule_versions
    WHERE valid_from <= :now AND (elder_id IS NULL OR elder_id = ANY(CAST(:elder_ids AS uuid[])))
    ORDER BY region_code, elder_id, valid_from DESC, id DESC
    """
)


@dataclass(frozen=True, slots=True)
class Rulebook:
    """What holds at one time for some elders. Pure: the outermost region first, the elder last."""

    regions: tuple[Held, ...]
    elders: Mapping[UUID, Held]

    def versions(self, region_code: str, elder_id: UUID | None) -> list[Held]:
        """What applies, from the outside in."""
        found = [one for one in self.regions if region_code.startswith(one.region_code or "")]
        own = self.elders.get(elder_id) if elder_id is not None else None
        return [*found, own] if own else found

    def rules(self, region_code: str, elder_id: UUID | None) -> Rules:
        return lay_over(one.settings for one in self.versions(region_code, elder_id))


async def rulebook(session: AsyncSession, elder_ids: Collection[UUID], *, now: datetime) -> Rulebook:
    """What holds now for these elders and for every region."""
    rows = [Held(*row) for row in await session.execute(_HOLDING, {"now": now, "elder_ids": list(elder_ids)})]
    regions = sorted((one for one in rows if one.elder_id is None), key=lambda one: len(one.region_code or ""))
    return Rulebook(tuple(regions), {one.elder_id: one for one in rows if one.elder_id is not None})


def sources(versions: Collection[Held]) -> Iterator[tuple[str, Held]]:
    """Each field that somebody set, with the version that decides it, from the outside in: the last one counts."""
    for one in versions:
        for group, fields in one.settings.items():
            for name in fields:
                yield f"{group}.{name}", one


def over(book: Rulebook, region_code: str, elder_id: UUID | None, document: Document) -> list[Document]:
    """The documents as they would lie with `document` in the place of this scope's own version."""
    kept = [one.settings for one in book.versions(region_code, elder_id) if not _same(one, region_code, elder_id)]
    return [*kept, document]


def _same(one: Held, region_code: str, elder_id: UUID | None) -> bool:
    return one.elder_id == elder_id if elder_id is not None else one.region_code == region_code


# Homes whose settings changed are looked at when the change begins.
LOOK_AGAIN = sa.text(
    """
    UPDATE home_states h SET due_at = least(h.due_at, :at)
    FROM elders e WHERE e.id = h.elder_id
      AND (e.id = CAST(:elder_id AS uuid) OR CAST(:elder_id AS uuid) IS NULL AND starts_with(e.region_code, :region_code))
    """
)


async def look_again(session: AsyncSession, *, elder_id: UUID | None, region_code: str, at: datetime) -> None:
    await session.execute(LOOK_AGAIN, {"elder_id": elder_id, "region_code": region_code, "at": at})
