"""`/a/{token}`: a small page for a phone. GET shows and changes nothing, however many scanners open it; POST acts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParam
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape
from pydantic import Field, ValidationError

from app import words
from app.alarms import answering
from app.alarms.answering import Action, Invitation
from app.alarms.vocabulary import AlarmState, Outcome
from app.api.alarms import AlarmOut
from app.api.bodies import Body, Note, example
from app.api.context import NowDep, Parts, PartsDep, SessionDep
from app.api.problems import responses
from app.api.transactional import Transactional
from app.errors import InvalidInput, LinkExpired, NotFound, ShouwangError

router = APIRouter(route_class=Transactional, tags=["outside"])
_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape(default=True)
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}
_MAX_BODY = 16 * 1024
Token = Annotated[str, PathParam(max_length=500)]


class AnswerIn(Body):
    model_config = example(action="acknowledge", eta_minutes=15)
    action: Action
    eta_minutes: int | None = Field(default=None, ge=1, le=240)
    outcome: Outcome | None = None
    note: Note | None = None


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"$ref": "#/components/schemas/AnswerIn"}}
            for kind in ("application/json", "application/x-www-form-urlencoded")
        },
    }
}
_SHOWN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page, or with `Accept: application/json` the alarm.",
        "content": {
            "text/html": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/AlarmOut"}},
        },
    }
}


def _page_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same problems, which a browser gets as a page."""
    found = responses(*statuses)
    for answer in found.values():
        answer["content"]["text/html"] = {"schema": {"type": "string"}}
    return found


@router.head("/a/{token}", include_in_schema=False)
@router.get(
    "/a/{token}",
    responses=_SHOWN | _page_problems(404, 410, 422),
    summary="Show an alarm to its recipient",
    response_model=None,
)
async def show(token: Token, request: Request, session: SessionDep, parts: PartsDep, now: NowDep) -> Response:
    """Changes nothing: mail scanners and link previews may open it."""
    try:
        invited = await answering.invitation(session, parts.links.read(token), now=now)
    except (NotFound, LinkExpired) as error:
        return _refusal(request, error)
    return _shown(request, parts, invited, now, message=None)


@router.post(
    "/a/{token}",
    responses=_SHOWN | _page_problems(404, 409, 410, 422),
    openapi_extra=_BODY,
    summary="Answer an alarm",
    response_model=None,
)
async def act(token: Token, request: Request, session: SessionDep, parts: PartsDep, now: NowDep) -> Response:
    """`acknowledge` with `eta_minutes`, `attend`, or `resolve` with an `outcome`; as a form or JSON."""
    try:
        notice_id = parts.links.read(token)
        invited = await answering.invitation(session, notice_id, now=now)
        given = await _read(request)
        if given.action is Action.RESOLVE and given.outcome is None:
            raise InvalidInput("say how it ended", field="outcome")
        await answering.answer(
            session,
            invited,
            action=given.action,
            eta_minutes=given.eta_minutes,
            outcome=given.outcome,
            note=given.note,
            now=now,
            tz=parts.tz,
        )
    except ShouwangError as error:
        return _refusal(request, error)
    invited = await answering.invitation(session, notice_id, now=now)
    return _shown(request, parts, invited, now, message=words.say("page.thanks"))


async def _read(request: Request) -> AnswerIn:
    body = await request.body()
    if len(body) > _MAX_BODY:
        raise InvalidInput("the answer is too long")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/x-www-form-urlencoded":
            form = await request.form(max_fields=10, max_files=0)
            return AnswerIn.model_validate({name: value for name, value in form.items() if value != ""})
        if kind == "application/json":
            return AnswerIn.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidInput(first["msg"], field=".".join(str(part) for part in first["loc"]) or None) from None
    except (ValueError, UnicodeError):
        raise InvalidInput("the answer cannot be read") from None
    raise InvalidInput("send a form or JSON with `action`")


def _wants_json(request: Request) -> bool:
    accepts = request.headers.get("accept", "")
    return "application/json" in accepts and "text/html" not in accepts


def _shown(request: Request, parts: Parts, invited: Invitation, now: Any, *, message: str | None) -> Response:
    # Once it is over nobody has to find the door: the address and the phone are masked again.
    alarm = parts.shapes.alarm(invited.alarm, now=now, plainly=invited.state is not AlarmState.RESOLVED)
    if _wants_json(request):
        return JSONResponse(AlarmOut.model_validate(alarm).model_dump(mode="json"), headers=_HEADERS)
    promise = invited.alarm["promise_due_at"]
    by = invited.alarm["attended_by"] or invited.alarm["acknowledged_by"]
    promised = None
    if by and invited.state.value in ("acknowledged", "attending"):
        promised = (
            words.say("page.by", name=by["name"], time=parts.shapes.clock_time(promise)) if promise else by["name"]
        )
    html = _pages.get_template("answer.html").render(
        say=words.say,
        lang=words.language(),
        alarm=alarm,
        message=message,
        promised=promised,
        raised=parts.shapes.clock_time(invited.alarm["raised_at"]),
        outcomes=[o.value for o in Outcome],
    )
    return HTMLResponse(html, headers=_HEADERS)


def _refusal(request: Request, error: ShouwangError) -> Response:
    """Raised on for machines; a page for people. The transaction is rolled back either way."""
    if _wants_json(request):
        raise error
    raise PageRefusal(error)


class PageRefusal(Exception):
    """An error of the answer page, shown as a page."""

    def __init__(self, error: ShouwangError) -> None:
        super().__init__(error.detail)
        self.error = error


async def refusal_page(_: Request, error: Exception) -> Response:
    assert isinstance(error, PageRefusal)
    status = {NotFound: 404, LinkExpired: 410}.get(type(error.error), 409)
    if isinstance(error.error, InvalidInput):
        status = 422
    expired = status in (404, 410)
    why = "page.outcome_missing" if error.error.field == "outcome" else "page.refused_why"
    html = _pages.get_template("answer.html").render(
        say=words.say,
        lang=words.language(),
        alarm=None,
        title=words.say("page.expired" if expired else "page.refused"),
        message=words.say("page.expired_why" if expired else why),
    )
    return HTMLResponse(html, status, headers=_HEADERS)
