"""Is it alive, is it ready, what does it measure; the topics as AsyncAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from app import metrics, readiness
from app.api.asyncapi import document
from app.api.context import NowDep, PartsDep, parts_of
from app.api.problems import responses
from app.readiness import Finding

router = APIRouter(tags=["running"])


class Health(BaseModel):
    status: Literal["ok"]


class FindingOut(BaseModel):
    name: str
    blocking: bool
    count: int
    detail: str


class Ready(BaseModel):
    status: Literal["ready", "not_ready"]
    findings: list[FindingOut]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="The process answers")
async def healthz() -> Health:
    return Health(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    responses={503: {"model": Ready, "description": "Alarms would be lost or late"}},
    summary="What would fail before an alarm does",
)
async def readyz(request: Request, response: Response, parts: PartsDep, now: NowDep) -> Ready:
    """503 when something blocks the way of an alarm; findings that are work for people do not block."""
    findings: list[Finding] = [*request.app.state.inner_findings()]
    try:
        async with parts.sessions() as session:
            findings += await readiness.look(
                session, now=now, today=now.astimezone(parts.tz).date(), embedded_broker=parts.broker.embedded,
                doing=request.app.state.roles,
            )  # fmt: skip
    except (SQLAlchemyError, OSError, TimeoutError):
        findings.append(Finding("database", True, 1, "the database does not answer"))
    blocked = any(finding.blocking for finding in findings)
    response.status_code = 503 if blocked else 200
    return Ready(
        status="not_ready" if blocked else "ready",
        findings=[FindingOut(name=f.name, blocking=f.blocking, count=f.count, detail=f.detail) for f in findings],
    )


@router.get(
    "/metrics",
    response_class=Response,
    summary="For Prometheus",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text"},
        **responses(503),
    },
)
async def read_metrics(request: Request, now: NowDep) -> Response:
    await _measure(request, now)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _measure(request: Request, now: datetime) -> None:
    async with parts_of(request).sessions() as session:
        rows = (
            await session.execute(
                sa.text(
                    "SELECT severity, count(*) AS n, min(raised_at) FILTER (WHERE state = 'open' AND first_sent_at IS NULL) "
                    "AS untold FROM alarms WHERE next_at IS NOT NULL GROUP BY severity"
                )
            )
        ).all()
    counts = {row.severity: row.n for row in rows}
    for severity in ("critical", "major", "minor", "warning"):
        metrics.ALARMS_OPEN.labels(severity).set(counts.get(severity, 0))
    untold = [row.untold for row in rows if row.untold is not None]
    metrics.OLDEST_UNTOLD.set((now - min(untold)).total_seconds() if untold else 0)
    metrics.INGEST_LAG.set(request.app.state.ingest_lag_s(now))


@router.get("/asyncapi.json", summary="The MQTT topics, as AsyncAPI 3", response_class=JSONResponse)
async def asyncapi() -> dict[str, Any]:
    return document()
