"""The one file that maps errors to problems (RFC 9457). Problems hold no personal data: not even what was sent."""

from __future__ import annotations

import re
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from app import errors, logs
from app.discretion import without_identity

log = logs.get("api")
MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://shouwang.invalid/problems/"
_MOST_FIELDS = 50
_OF_THE_ROUTER = {
    "Not Found": "there is no such path; /openapi.json lists all, and most begin with /api/v1",
    "Method Not Allowed": "this path does not take that method; the header Allow says which it takes",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

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
    request_id: str | None = Field(
        default=None, description="Of a 5xx: what to look for in the server's log. Every answer has it in X-Request-ID."
    )


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
    408: "The request took too long to arrive",
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


def answer(
    status: int,
    code: str,
    detail: str,
    *,
    title: str | None = None,
    fields: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem document."""
    title = title or _TITLES.get(status, "The request was refused")
    body = {"type": TYPE_BASE + code, "title": title, "status": status, "detail": detail, "errors": fields or []}
    # Not in a 4xx: what is foreign and what is absent answer alike, to the byte.
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if status >= 500 and request_id:
        body["request_id"] = request_id
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def refusal(error: errors.ShouwangError) -> JSONResponse:
    """The problem of an error. A handler that returns it, instead of raising, keeps what it wrote in its transaction."""
    status = STATUS[type(error)]
    headers = {}
    if isinstance(error, errors.NotLoggedIn):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = "5"
    fields = [{"field": f"body.{error.field}", "detail": error.detail}] if error.field else []
    return answer(status, error.code, error.detail, title=error.title, fields=fields, headers=headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.ShouwangError)
    return refusal(error)


_JSON = re.compile(r"application/(.*\+)?json")


def _said(error: dict[str, Any]) -> str:
    """What is wrong; of JSON that cannot be read, the parser's own words."""
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"
    if error["type"] == "value_error":  # our own words, without the library's before them
        return str(error["ctx"]["error"])
    return str(error["msg"])


def _takes_a_form(request: Request) -> bool:
    body = getattr(request.scope.get("route"), "body_field", None)
    return isinstance(getattr(body, "field_info", None), Form)


async def _does_not_fit(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    unread = request.method != "GET" and any(e["loc"] == ("body",) for e in error.errors())
    if unread and not _JSON.fullmatch(kind) and not _takes_a_form(request):
        said = f"not as {kind[:60]}" if kind.isascii() and kind.isprintable() and kind else "it names no Content-Type"
        return answer(422, "invalid-input", f"send the body as application/json; {said}")
    fields = [{"field": _place(e["loc"]), "detail": _said(e)} for e in error.errors()[:_MOST_FIELDS]]
    detail = "; ".join(f"{f['field']}: {f['detail']}" for f in fields[:5]) or "the request does not fit the schema"
    return answer(422, "invalid-input", detail, fields=fields)


def _place(loc: tuple[int | str, ...]) -> str:
    """Where it does not fit. An unknown field's name is the sender's, and may be anything: only what looks like a name of
    a field is said again."""
    return ".".join(_field(part) for part in loc)


def _field(part: int | str) -> str:
    text = str(part)[:64]
    return without_identity(text) if isinstance(part, int) or _NAME.fullmatch(text) else "…"


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400 and error.detail == "There was an error parsing the body":
        return answer(
            400, "bad-request", "the body cannot be read: send JSON in UTF-8, or a form where the route takes one"
        )
    code = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(error.status_code, "bad-request")
    detail = _OF_THE_ROUTER.get(str(error.detail), str(error.detail))
    return answer(error.status_code, code, detail, headers=dict(error.headers or {}))


_CONSTRAINTS = {
    "uq_elders_id_number_index": "an elder with this ID number is enrolled already",
    "pk_devices": "a device of this id is registered already",
    "pk_regions": "a region of this code exists already",
    "uq_assignments_current": "this visitor is assigned to this elder already",
    "ex_bindings_one_wearer_at_a_time": "the device is bound for that time already",
    "ck_users_visitor_is_somebody": "an account of the role visitor names its visitor",
    "uq_users_username": "an account of this username exists",
}


# Raised by the database's own functions (migrations), when two requests pass our own check side by side.
_REFUSALS = {
    "SW001": "this is the last active administrator of its region; make another one first",
    "SW002": "the audit log is append-only",
}


async def _database(_: Request, error: Exception) -> JSONResponse:
    cause = getattr(getattr(error, "orig", None), "__cause__", None)
    state = str(getattr(cause, "sqlstate", None) or "")
    if state in ("23505", "23P01"):
        named = (words for constraint, words in _CONSTRAINTS.items() if constraint in str(cause))
        return answer(409, "conflict", next(named, "it is there already"))
    if state in _REFUSALS:
        return answer(409, "conflict", _REFUSALS[state])
    if state == "23503":
        return answer(422, "invalid-input", "something the request names does not exist, or is still named elsewhere")
    if state.startswith(("22", "23")):
        return answer(422, "invalid-input", "a value cannot be stored (for example a NUL character)")
    log.error("database", error=type(error).__name__, cause=type(cause).__name__, sqlstate=state)
    return answer(
        503,
        "unavailable",
        "the database did not answer as it should; try again",
        headers={"Retry-After": "1"},
    )


def install(app: FastAPI) -> None:
    """Every error becomes a problem document."""
    app.add_exception_handler(errors.ShouwangError, _refused)
    app.add_exception_handler(RequestValidationError, _does_not_fit)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(TimeoutError, _database)
    app.add_exception_handler(OSError, _database)
