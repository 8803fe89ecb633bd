"""What a person may ask for (PIPL): a copy of everything held, and to be erased after leaving. Correction is PATCH."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.access import audit
from app.access.principal import Right
from app.api.bodies import Body, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.reveals import Purpose
from app.api.transactional import Transactional, idempotent
from app.discretion import without_identity
from app.elders import register
from app.privacy import erasure
from app.privacy.erasure import ErasureReason, Fate, Part
from app.privacy.export import Exporter

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])


class PartOut(BaseModel):
    table: str = Field(examples=["contacts"])
    title: str = Field(examples=["联系人"])
    fate: Fate = Field(description="deleted: gone; cleared: the row stays for statistics, without identity; kept.")
    rows: int


class ObstacleOut(BaseModel):
    code: Literal["still_enrolled", "open_alarm"]
    detail: str


class PreviewOut(BaseModel):
    elder_id: UUID
    allowed: bool
    obstacles: list[ObstacleOut]
    parts: list[PartOut]


class ErasureIn(Body):
    model_config = example(reason="left_programme")
    reason: ErasureReason


class ErasedOut(BaseModel):
    elder_id: UUID
    erased_at: datetime
    parts: list[PartOut]


@router.get(
    "/elders/{elder_id}/export",
    dependencies=[needs(Right.EXPORT)],
    response_class=StreamingResponse,
    responses={
        **responses(404),
        200: {
            "description": "Everything held about the person, whole.",
            "content": {
                "application/json": {"schema": {"type": "object", "required": ["elder_id", "exported_at", "sections"]}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
    },
    summary="A copy of everything held about one elder",
)
async def export_elder(
    elder_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    purpose: Annotated[Purpose, Query()],
    format: Annotated[Literal["json", "html"], Query(description="For machines, or a page that prints.")] = "json",
) -> StreamingResponse:
    """For the person or the family (PIPL article 45), unmasked: a right, a purpose, and an audit row. It names other
    people, contacts and family: look at it before it is handed over."""
    found = await register.elder_within(session, who, elder_id)
    audit.note(
        session, who, action="elder.exported", subject_type="elder", subject_id=elder_id, now=now,
        region_code=found.region_code, format=format, purpose=without_identity(purpose, found.name),
    )  # fmt: skip
    exporter = Exporter(parts.sessions, parts.sealer, parts.tz)
    pieces: AsyncIterator[bytes]
    match format:
        case "json":
            pieces, kind = exporter.as_json(elder_id, at=now), "application/json"
        case "html":
            pieces, kind = exporter.as_page(elder_id, at=now), "text/html; charset=utf-8"
    headers = {
        "Content-Disposition": f'attachment; filename="elder-{elder_id}.{format}"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(pieces, media_type=kind, headers=headers)


@router.get(
    "/elders/{elder_id}/erasure",
    responses=responses(404),
    dependencies=[needs(Right.ERASE)],
    summary="What erasing an elder would remove, and what stands in the way",
)
async def erasure_preview(elder_id: UUID, who: PrincipalDep, session: SessionDep) -> PreviewOut:
    """Nothing is changed."""
    found = await register.elder_within(session, who, elder_id)
    standing = await erasure.obstacles(session, found)
    return PreviewOut(
        elder_id=elder_id,
        allowed=not standing,
        obstacles=[ObstacleOut.model_validate({"code": one.code, "detail": one.detail}) for one in standing],
        parts=[_part(one) for one in await erasure.preview(session, found)],
    )


@router.post(
    "/elders/{elder_id}/erasure",
    responses=responses(404, 409),
    dependencies=[needs(Right.ERASE)],
    summary="Erase an elder who has left the programme",
)
async def erase_elder(
    elder_id: UUID, body: ErasureIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> ErasedOut:
    """For good. Names, numbers, addresses, contacts, family, notes, health and the devices' messages go; visits, alarms,
    places, statuses and classes stay for statistics, without identity; the audit log stays as it is. The person is no
    longer found by any route. Refused while the person is enrolled or an alarm is open: `GET` says so beforehand."""
    found = await register.elder_within(session, who, elder_id, lock=True)
    region = found.region_code
    done = await erasure.erase(
        session, found, sealer=parts.sealer, by=str(who.id), now=now, today=now.astimezone(parts.tz).date()
    )
    audit.note(
        session, who, action="elder.erased", subject_type="elder", subject_id=elder_id, now=now, region_code=region,
        reason=body.reason.value, rows=erasure.summary(done),
    )  # fmt: skip
    return ErasedOut(elder_id=elder_id, erased_at=now, parts=[_part(one) for one in done])


def _part(one: Part) -> PartOut:
    return PartOut(table=one.table, title=one.title, fate=one.fate, rows=one.rows)
