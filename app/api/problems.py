"""The one file that maps errors to problems (RFC 9457). Problems hold no personal data: not even what was sent."""

from __future__ import annotations

import traceback
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors, logs

log = logs.get("api")
MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://shouwang.invalid/problems/"
_MOST_FIELDS = 50

STATUS: dict[type[errors.ShouwangError], int] = {
    errors.NotFound: 404,
    errors.InvalidInput: 422,
    errors.Conflict: 409,
    errors.IllegalTransition: 409,
    errors.VersionMismatch: 412,
    errors.NotLoggedIn: 401,
    errors.NotAllowed: 403,
    errors.TooManyRequests: 429,
    errors.IdempotencyMismatch: 422,
    errors.ChannelNotConfigured: 422,
    errors.LinkExpired: 410,
    errors.Unavailable: 503,
}


class FieldProblem(BaseModel):
    field: str = Field(examples=["body.birth_date"])
    detail: str = Field(examples=["Input should be a valid date"])


class Problem(BaseModel):
    """What went wrong and what would mend it."""

    type: str = Field(examples=[TYPE_BASE + "not-found"])
    title: str = Field(examples=["There is no such thing here"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no such elder"])
    errors: list[FieldProblem] = Field(default=[])


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for problem answers of these statuses."""
    return {
        status: {
            "description": _TITLES[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


_TITLES = {
    400: "The request cannot be read",
    401: "A valid bearer token is needed",
    403: "The account has no right to this",
    404: "There is no such thing here",
    405: "The method does not fit the route",
    409: "It conflicts with what is there",
    410: "No longer valid",
    412: "Somebody changed it in between",
    413: "The body is too large",
    415: "The media type does not fit",
    422: "The request does not fit",
    429: "Too many attempts",
    500: "The server made a mistake",
    503: "Something the server depends on does not answer",
}


def _answer(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    fields: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    body = {"type": TYPE_BASE + code, "title": title, "status": status, "detail": detail, "errors": fields or []}
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.ShouwangError)
    status = STATUS[type(error)]
    headers = {}
    if isinstance(error, errors.NotLoggedIn):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_s)
    fields = [{"field": f"body.{error.field}", "detail": error.detail}] if error.field else []
    return _answer(status, error.code, error.title, error.detail, fields=fields, headers=headers)


async def _does_not_fit(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [{"field": _place(e["loc"]), "detail": e["msg"]} for e in error.errors()[:_MOST_FIELDS]]
    detail = "; ".join(f"{f['field']}: {f['detail']}" for f in fields[:5]) or "the request does not fit the schema"
    return _answer(422, "invalid-input", _TITLES[422], detail, fields=fields)


def _place(loc: tuple[int | str, ...]) -> str:
    """Where it does not fit. An unknown field's name is the sender's: cut, and made fit to be written."""
    text = ".".join(str(part)[:64] for part in loc)
    return text.encode("utf-8", "replace").decode()


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(error.status_code, "bad-request")
    return _answer(
        error.status_code,
        code,
        _TITLES.get(error.status_code, "The request was refused"),
        str(error.detail),
        headers=dict(error.headers or {}),
    )


_CONSTRAINTS = {
    "uq_elders_id_number_index": "an elder with this ID number is enrolled already",
    "pk_devices": "a device of this id is registered already",
    "pk_regions": "a region of this code exists already",
    "uq_assignments_current": "this visitor is assigned to this elder already",
    "ex_bindings_one_wearer_at_a_time": "the device is bound for that time already",
    "uq_users_username": "an account of this username exists",
}


async def _database(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, IntegrityError):
        text = str(error.orig)
        for constraint, sentence in _CONSTRAINTS.items():
            if constraint in text:
                return _answer(409, "conflict", _TITLES[409], sentence)
        if "ForeignKeyViolation" in text or "foreign key" in text:
            return _answer(422, "invalid-input", _TITLES[422], "something the request names does not exist")
    if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError) and not error.connection_invalidated:
        name = type(error.orig).__name__
        if "DataError" in name or "DataError" in str(error.orig)[:200] or "CharacterNotInRepertoire" in str(error.orig):
            return _answer(422, "invalid-input", _TITLES[422], "a value cannot be stored (for example a NUL character)")
    log.error("database", error=type(error).__name__, orig=type(getattr(error, "orig", error)).__name__)
    return _answer(
        503,
        "unavailable",
        _TITLES[503],
        "the database did not answer as it should; try again",
        headers={"Retry-After": "1"},
    )


class Mistakes:
    """Our own mistakes become a problem and a log line. The line has where, not what: a message may quote a person."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - the outermost place: nothing above could do better
            log.error("mistake", error=type(error).__name__, where="".join(traceback.format_tb(error.__traceback__)))
            if not started:
                answer = _answer(500, "internal", _TITLES[500], "the server made a mistake; it is in its log")
                await answer(scope, receive, send)


def install(app: FastAPI) -> None:
    """Every error becomes a problem document."""
    app.add_exception_handler(errors.ShouwangError, _refused)
    app.add_exception_handler(RequestValidationError, _does_not_fit)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(TimeoutError, _database)
    app.add_exception_handler(OSError, _database)
    app.add_middleware(Mistakes)
