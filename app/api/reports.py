"""The annexes of the plan as files to print, to send, and to import again. Each file that leaves is an audit row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import date, datetime
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import audit
from app.access.principal import Principal, Right
from app.api.bodies import AN_ID
from app.api.context import NowDep, Parts, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.reveals import Reveal, RevealDep
from app.api.transactional import Transactional
from app.discretion import without_identity
from app.elders import register
from app.elders.form_words import Category
from app.elders.tables import Elder
from app.reports import gathering
from app.reports.forms import annex_1, annex_2, annex_3
from app.reports.gathering import Pen

router = APIRouter(route_class=Transactional, tags=["reports"])
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
CSV = "text/csv; charset=utf-8"

ElderId = Annotated[UUID, Query(description="Whose form.", examples=[AN_ID])]
Month = Annotated[str, Query(pattern=r"^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])$", examples=["2026-11"])]
RegionCode = Annotated[
    str,
    Query(
        pattern=r"^([0-9]{9}|[0-9]{12})$",
        description="A township or one of its villages: nine or twelve digits.",
        examples=["370302001"],
    ),
]
Shown = Annotated[
    Category, Query(alias="category", description="What 类别 shows: living situations (`tags`), `class`, or both.")
]


def file_answer(media_type: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for a route that answers with a file."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": "The file.", "content": {media_type: {"schema": schema}}}, **responses(404)}


async def _pen(
    session: AsyncSession, parts: Parts, now: datetime, reveal: Reveal | None, category: Category = Category.BOTH
) -> Pen:
    """Masked unless asked for plainly."""
    today = now.astimezone(parts.tz).date()
    return await gathering.pen(session, parts.sealer, today=today, plainly=reveal is not None, category=category)


def _note(
    session: AsyncSession, who: Principal, now: datetime, *, form: str, region_code: str, reveal: Reveal | None = None,
    elder: Elder | None = None, names: Iterable[str] = (), **detail: Any,
) -> None:  # fmt: skip
    if reveal:
        detail["purpose"] = without_identity(reveal.purpose, *([elder.name] if elder else names))
    audit.note(
        session, who, action="elder.exported", subject_type="elder" if elder else "region",
        subject_id=elder.id if elder else region_code, now=now, region_code=region_code, form=form,
        revealed=reveal is not None, **detail,
    )  # fmt: skip


def download(content: bytes, media_type: str, ascii_name: str, name: str) -> Response:
    """A file to save. Names of files hold no names of people: they end up in lists of downloads."""
    disposition = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name)}"
    return Response(content, media_type=media_type, headers={"Content-Disposition": disposition})


@router.get(
    "/reports/annex-1.xlsx",
    response_class=Response,
    responses=file_answer(XLSX),
    dependencies=[needs(Right.EXPORT)],
    summary="附件1: the survey form of one elder",
)
async def annex_1_file(
    elder_id: ElderId,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    reveal: RevealDep = None,
    category: Shown = Category.BOTH,
) -> Response:
    """A4, filled; ID number, address and phones are masked unless revealed."""
    elder = await register.elder_within(session, who, elder_id)
    pen = await _pen(session, parts, now, reveal, category)
    content = annex_1.draw(await gathering.survey(session, elder, pen))
    _note(session, who, now, form="annex-1", region_code=elder.region_code, elder=elder, reveal=reveal)
    return download(content, XLSX, "annex-1.xlsx", f"附件1摸底表-{pen.today:%Y%m%d}.xlsx")


@router.get(
    "/reports/annex-2.xlsx",
    response_class=Response,
    responses=file_answer(XLSX),
    dependencies=[needs(Right.EXPORT)],
    summary="附件2: the visits of one elder in one month",
)
async def annex_2_file(
    elder_id: ElderId, month: Month, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> Response:
    """A4 across. Visits and attempts of the calendar month in local time; voided entries are left out. The form has no
    ID number, so there is nothing to reveal."""
    elder = await register.elder_within(session, who, elder_id)
    first_day = date.fromisoformat(month + "-01")
    found = await gathering.month_of_visits(session, elder, first_day=first_day, tz=parts.tz)
    content = annex_2.draw(found)
    _note(session, who, now, form="annex-2", region_code=elder.region_code, elder=elder, month=month)
    return download(content, XLSX, f"annex-2-{month}.xlsx", f"附件2记录表-{month}.xlsx")


@router.get(
    "/reports/annex-3.xlsx",
    response_class=Response,
    responses=file_answer(XLSX),
    dependencies=[needs(Right.EXPORT)],
    summary="附件3: everybody enrolled in one township or village",
)
async def annex_3_file(
    region_code: RegionCode,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    reveal: RevealDep = None,
    category: Shown = Category.BOTH,
) -> Response:
    """A4 across, the table's head on every page. `POST /elders/imports` takes the file back: unchanged, it changes
    nothing, masked or not. Those who moved away or died are not in it."""
    found, pen = await _summary(session, parts, who, now, "annex-3.xlsx", region_code, reveal, category)
    content = await asyncio.to_thread(annex_3.draw, found)
    return download(content, XLSX, f"annex-3-{region_code}.xlsx", f"附件3汇总表-{region_code}-{pen.today:%Y%m%d}.xlsx")


@router.get(
    "/reports/annex-3.csv",
    response_class=Response,
    responses=file_answer("text/csv"),
    dependencies=[needs(Right.EXPORT)],
    summary="附件3 as CSV",
)
async def annex_3_csv(
    region_code: RegionCode,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    reveal: RevealDep = None,
    category: Shown = Category.BOTH,
) -> Response:
    """UTF-8 with a byte order mark. Cells that a spreadsheet would take for a formula, and ID numbers, begin with an
    apostrophe; an import takes it off again."""
    found, pen = await _summary(session, parts, who, now, "annex-3.csv", region_code, reveal, category)
    content = await asyncio.to_thread(annex_3.draw_csv, found)
    return download(content, CSV, f"annex-3-{region_code}.csv", f"附件3汇总表-{region_code}-{pen.today:%Y%m%d}.csv")


async def _summary(
    session: AsyncSession, parts: Parts, who: Principal, now: datetime, form: str, region_code: str,
    reveal: Reveal | None, category: Category,
) -> tuple[annex_3.Summary, Pen]:  # fmt: skip
    region = await register.region_within(session, who, f"{region_code:0<12}")
    pen = await _pen(session, parts, now, reveal, category)
    found = await gathering.summary(session, who, region, pen)
    _note(
        session, who, now, form=form, region_code=region.code, reveal=reveal, elders=len(found.lines),
        names=(line.name for line in found.lines),
    )  # fmt: skip
    return found, pen
