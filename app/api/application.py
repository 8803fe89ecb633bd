"""The FastAPI application: routers, problems, the OpenAPI document with the webhooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel

from app.access.vocabulary import Right
from app.api import (
    alarms,
    answer,
    api_keys,
    audit_log,
    auth,
    broker,
    classification,
    consents,
    contacts,
    credentials,
    device_imports,
    device_profiles,
    device_tests,
    devices,
    digests,
    docs,
    duties,
    edges,
    elders,
    findings,
    imports,
    ledger_checks,
    pairings,
    personal_data,
    policies,
    problems,
    records,
    regions,
    reports,
    review,
    rounds,
    rules,
    running,
    special_periods,
    station,
    stats,
    stream,
    tasks,
    users,
    visitors,
    visits,
    volunteers,
    watch_periods,
    webhook_document,
    webhook_log,
    webhooks,
)
from app.api.answer import AnswerIn, PageRefusal, refusal_page
from app.api.context import Parts, principal, right_of
from app.api.middleware import BodyLimit, Mistakes, RequestIds
from app.api.problems import Problem, responses
from app.imports.files import MOST_BYTES
from app.readiness import Finding

BASE = "/api/v1"
_MAX_BODY = 1024 * 1024
_UPLOAD = f"{BASE}/elders/imports"
_FORM_AROUND = 16 * 1024  # what a form adds to its file
_UPLOAD_S = 300.0  # 16 MiB on a slow line
# What is open to somebody without a log-in. Every other route asks for one, and declares the right it needs.
PUBLIC = frozenset(
    {
        "healthz", "readyz", "read_metrics", "asyncapi", "show", "act", "token", "docs", "start", "asset",
        "broker_login", "broker_topic", "check_statement",
    }
)  # fmt: skip
_DESCRIPTION = """Alarms from the homes of older people, and the visiting-care ledger beside them.

Get a token from `POST /api/v1/auth/token`, or an API key from `POST /api/v1/api-keys`, and send it as
`Authorization: Bearer …`; each operation names the right it needs beside its security scheme. Errors are problem
documents (RFC 9457). Lists give `next_cursor`. A POST may carry an `Idempotency-Key`; changes may carry `If-Match`."""

Findings = Callable[[], list[Finding]]
Lag = Callable[[datetime], float]


def build(
    parts: Parts,
    *,
    roles: Collection[str],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    inner_findings: Findings = list,
    ingest_lag_s: Lag = lambda _: 0.0,
    origins: Sequence[str] = (),
    https: bool = False,
) -> FastAPI:
    """The application. A process without the `api` role still says how it is: /healthz, /readyz, /metrics."""
    app = FastAPI(
        title="Shouwang 守望", version="1", description=_DESCRIPTION, lifespan=lifespan, redoc_url=None, docs_url=None,
        generate_unique_id_function=_operation_id,
    )  # fmt: skip
    app.state.parts = parts
    app.state.roles = frozenset(roles)
    app.state.inner_findings = inner_findings
    app.state.ingest_lag_s = ingest_lag_s
    # The last one added stands outermost.
    app.add_middleware(BodyLimit, most=_MAX_BODY, larger={_UPLOAD: MOST_BYTES + _FORM_AROUND})
    app.add_middleware(edges.Deadlines, slow_bodies={_UPLOAD: _UPLOAD_S})
    app.add_middleware(Mistakes)
    if origins:
        app.add_middleware(edges.cross_origin, origins=origins)
    app.add_middleware(edges.SecurityHeaders, https=https)
    app.add_middleware(RequestIds)
    problems.install(app)
    app.add_exception_handler(PageRefusal, refusal_page)
    app.include_router(running.router)
    if "api" in roles:
        app.include_router(docs.router)
        _include_api(app)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _include_api(app: FastAPI) -> None:
    app.include_router(answer.router, responses=responses(400, 408, 413, 503))
    app.include_router(auth.public, prefix=BASE, responses=responses(400, 408, 413, 503))
    app.include_router(volunteers.public, prefix=BASE, responses=responses(400, 408, 413, 422, 503))
    app.include_router(broker.router, prefix=BASE)
    app.include_router(stream.router, prefix=BASE)  # before /alarms/{alarm_id}
    guarded = APIRouter(dependencies=[Depends(principal)], responses=responses(400, 401, 403, 408, 409, 413, 422, 503))
    areas = (
        auth, users, api_keys, audit_log, regions, imports, elders, records, classification, consents, contacts,
        visitors, pairings, devices, device_imports, device_tests, credentials, device_profiles, personal_data,
        policies, duties, visits, findings, tasks, alarms, webhooks, webhook_log, reports,
        special_periods, stats, rounds, digests, rules, watch_periods,
        ledger_checks, volunteers, station, review,
    )  # fmt: skip
    guarded.include_router(imports.uploads)
    for area in areas:
        guarded.include_router(area.router)
    app.include_router(guarded, prefix=BASE)
    undeclared = [route.name for route, right in guarded_routes(app) if right is None]
    if undeclared:
        raise RuntimeError(f"routes that do not say which right they need (app/api/context.py, needs): {undeclared}")


def guarded_routes(app: FastAPI) -> list[tuple[APIRoute, Right | None]]:
    """Every route behind a log-in with the one right it declares."""
    routes = [context.original_route for context in iter_route_contexts(app.routes)]
    return [(r, right_of(r)) for r in routes if isinstance(r, APIRoute) and r.name not in PUBLIC]


def _operation_id(route: APIRoute) -> str:
    return route.name


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, AnswerIn):
        _add_schema(schemas, model)
    rights = {route.name: right for route, right in guarded_routes(app)}
    for item in document["paths"].values():
        for operation in item.values():
            right = rights.get(operation.get("operationId"))
            if right is not None:  # OpenAPI 3.1: the roles that a request needs stand beside its scheme
                operation["security"] = [{"HTTPBearer": [right.value]}]
    document["webhooks"] = {
        "alarm": {"post": webhook_document.to_people()},
        **webhook_document.described(),
        **digests.described(),
    }
    app.openapi_schema = document
    return document


def _add_schema(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
