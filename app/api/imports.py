"""Lists of people taken into the register: handed in, looked at (the dry run), and only then written."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.access import audit
from app.access.principal import Principal, Right
from app.api import pages
from app.api.bodies import Body, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.reports import CSV, download, file_answer
from app.api.transactional import Transactional, idempotent
from app.api.uploads import UploadDep, Uploading
from app.imports import queue
from app.imports.tables import ElderImport, ElderImportRow
from app.imports.vocabulary import Mode, Outcome, Severity, State
from app.reports.forms.look import plain_in_csv

uploads = APIRouter(route_class=Uploading, tags=["people"], dependencies=[Depends(idempotent)])
router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])
_LEVEL = {Severity.ERROR: "错误", Severity.WARNING: "提醒"}
_OUTCOME = {Outcome.CREATE: "新登记", Outcome.UPDATE: "更改", Outcome.UNCHANGED: "无变化", Outcome.ERROR: "不导入"}


class Counts(BaseModel):
    create: int = 0
    update: int = 0
    unchanged: int = 0
    error: int = Field(default=0, description="Rows that are not taken.")
    warning: int = Field(default=0, description="Rows that are, with something to look at.")


class ImportOut(BaseModel):
    id: UUID
    state: State = Field(
        description="`uploaded` (the dry run waits or runs) → `checked` → `committing` → `committed`; or `failed`, "
        "`cancelled`."
    )
    filename: str | None
    size: int
    region_code: str | None = Field(description="The township or village the list was said to be of.")
    mode: Mode | None
    rows_total: int | None = Field(description="People in the list; null until it has been read.")
    rows_done: int = Field(description="Of the run that is going on, or went last.")
    counts: Counts = Field(description="What the rows would do; when committed, what they did.")
    notices: list[str] = Field(description="What concerns the whole list, in Chinese.")
    failure: str | None = Field(description="Why it cannot be read, in Chinese.")
    created_by: str
    created_at: datetime
    checked_at: datetime | None
    finished_at: datetime | None


class IssueOut(BaseModel):
    severity: Severity
    code: str = Field(examples=["id_checksum"])
    column: str | None = Field(description="The letter of the spreadsheet.", examples=["E"])
    header: str | None = Field(examples=["身份证号"])
    message: str = Field(description="What to mend, in Chinese.")


class RowOut(BaseModel):
    row: int = Field(description="As the spreadsheet numbers it.")
    outcome: Outcome
    elder_id: UUID | None
    changes: list[str] = Field(description="Names of the fields that change.")
    issues: list[IssueOut]


class CommitIn(Body):
    model_config = example(mode="all_or_nothing")
    mode: Mode = Field(
        description="`all_or_nothing` is refused when a row has an error, and writes nothing when one gets one."
    )


def _shape(row: ElderImport) -> ImportOut:
    return ImportOut(
        **{
            name: getattr(row, name)
            for name in ImportOut.model_fields
            if name not in ("region_code", "counts", "created_by")
        },
        region_code=row.place_code,
        counts=Counts(**row.counts),
        created_by=row.created_by["name"],
    )


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}


@uploads.post(
    "/elders/imports",
    status_code=202,
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Hand in a list of people for a dry run",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": _FORM, "application/octet-stream": _BINARY, "text/csv": _BINARY},
        }
    },
)
async def hand_in(
    upload: UploadDep,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    region_code: Annotated[
        str | None,
        Query(
            pattern=r"^([0-9]{9}|[0-9]{12})$",
            description="The township or village the list is of; otherwise what stands above the table, or your own.",
        ),
    ] = None,
) -> ImportOut:
    """附件3 or what resembles it, as XLSX or CSV (UTF-8, GBK, UTF-16; commas, tabs, semicolons), as the field `file` of a
    form or as the body itself. At most 16 MiB and 100,000 rows. Nothing is written: ask for the import until it is
    `checked`, read its rows, then commit it. docs/import.zh.md tells clerks what a list looks like."""
    made = await queue.hand_in(
        session, who, upload.content, filename=upload.filename, place_code=region_code, sealer=parts.sealer, now=now
    )
    _note(session, who, "import.uploaded", made, now, size=made.size, place_code=made.place_code)
    response.headers["Location"] = f"/api/v1/elders/imports/{made.id}"
    return _shape(made)


@router.get("/elders/imports", dependencies=[needs(Right.ELDERS_WRITE)], summary="Imports of your region, newest first")
async def imports(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[ImportOut]:
    before = pages.decode(cursor, UUID)
    found = await queue.list_imports(session, who, limit=limit, before=before[0] if before else None)
    return pages.Page[ImportOut].model_validate(pages.page(found, limit, lambda row: _shape(row).model_dump(), "id"))


@router.get(
    "/elders/imports/{import_id}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="How far an import is, and what it does",
)
async def one_import(import_id: UUID, who: PrincipalDep, session: SessionDep) -> ImportOut:
    return _shape(await queue.import_within(session, who, import_id))


@router.get(
    "/elders/imports/{import_id}/rows",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="What each row does, in the order of the list",
)
async def import_rows(
    import_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    outcome: Outcome | None = None,
    with_issues: Annotated[bool, Query(description="Only rows with errors or warnings.")] = False,
) -> pages.Page[RowOut]:
    found = await queue.import_within(session, who, import_id)
    after = pages.decode(cursor, int)
    given = await queue.rows(
        session, found.id, limit=limit + 1, after=after[0] if after else -1, outcome=outcome, with_issues=with_issues
    )
    return pages.Page[RowOut].model_validate(pages.page(given, limit, _row, "row"))


def _row(row: ElderImportRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in RowOut.model_fields}


@router.get(
    "/elders/imports/{import_id}/issues.csv",
    response_class=Response,
    responses=file_answer("text/csv"),
    dependencies=[needs(Right.ELDERS_WRITE)],
    summary="Errors and warnings by row and column, to print or to pass on",
)
async def import_issues(import_id: UUID, who: PrincipalDep, session: SessionDep) -> Response:
    """UTF-8 with a byte order mark: 行号, 列, 表头, 级别, 问题, 结果. It holds no names and no numbers of people."""
    found = await queue.import_within(session, who, import_id)
    text = io.StringIO()
    csv.writer(text).writerow(("行号", "列", "表头", "级别", "问题", "结果"))
    after = -1
    while batch := await queue.rows(session, found.id, limit=2000, after=after, with_issues=True):
        await asyncio.to_thread(_write_issues, text, batch)
        after = batch[-1].row
    return download(
        b"\xef\xbb\xbf" + text.getvalue().encode(),
        CSV,
        f"import-{import_id}.csv",
        f"导入问题-{str(import_id)[-6:]}.csv",
    )


def _write_issues(text: io.StringIO, batch: Sequence[ElderImportRow]) -> None:
    writer = csv.writer(text)
    for row in batch:
        for issue in row.issues:
            cells = (
                issue["column"] or "",
                issue["header"] or "",
                _LEVEL[Severity(issue["severity"])],
                issue["message"],
            )
            writer.writerow((row.row, *(plain_in_csv(cell) for cell in cells), _OUTCOME[row.outcome]))


@router.post(
    "/elders/imports/{import_id}/commit",
    status_code=202,
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="Write a checked list into the register",
)
async def commit_import(
    import_id: UUID, body: CommitIn, who: PrincipalDep, session: SessionDep, now: NowDep
) -> ImportOut:
    """Every row is compared with the register again: it may have changed since the dry run. Asking twice is asking once."""
    found = await queue.import_within(session, who, import_id, lock=True)
    if await queue.ask_commit(session, who, found, body.mode):
        _note(session, who, "import.commit_asked", found, now, mode=body.mode.value)
    return _shape(found)


@router.post(
    "/elders/imports/{import_id}/cancel",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404),
    summary="Forget a list that is not to be written",
)
async def cancel_import(import_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> ImportOut:
    """The file is deleted at once; so it is after a commit, and after three days."""
    found = await queue.import_within(session, who, import_id, lock=True)
    if found.state is not State.CANCELLED:
        await queue.cancel(session, found, now=now)
        _note(session, who, "import.cancelled", found, now)
    return _shape(found)


def _note(session: AsyncSession, who: Principal, action: str, found: ElderImport, now: datetime, **detail: Any) -> None:
    audit.note(
        session, who, action=action, subject_type="import", subject_id=found.id, now=now,
        region_code=found.region_code or None, **detail,
    )  # fmt: skip
