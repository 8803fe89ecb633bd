"""One request, one transaction, committed before the reply. A POST with an Idempotency-Key is answered once and then
replayed: the key and the answer are rows of the same transaction, so a crash leaves both or neither. An answer may hold
what is shown once (a webhook's secret), so it is sealed like everything personal.

It is replayed only to whom it could be given now. Where the account saw other people then - it moved, a pairing ended, the
elder moved away - the request is asked again for its refusal: what is foreign by now is answered like what is absent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from fastapi import Header, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.access import keys
from app.access.principal import Principal
from app.access.tables import idempotency_record
from app.access.vocabulary import Role
from app.access.wall import hidden
from app.api import pages
from app.api.context import PrincipalDep, parts_of, right_of, session_of
from app.db import transaction
from app.errors import Conflict, IdempotencyMismatch

log = logs.get("api")
_KEPT_HEADERS = ("etag", "location", "cache-control")


class Replay(Exception):
    """The answer was given before."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Transactional(APIRoute):
    """A route whose handler runs inside a transaction."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def handler(request: Request) -> Response:
            pages.of_list.set(self.path)
            try:
                async with transaction(parts_of(request).sessions) as session:
                    request.state.session = session
                    response = await original(request)
                    await _keep_answer(request, response)
            except Replay as replay:
                return replay.response
            finally:
                await _note_use(request)
            return response

        return handler


async def _note_use(request: Request) -> None:
    """An API key's last use, at most once a minute, also when the request itself was refused. Never worth a failure."""
    key_id = getattr(request.state, "key_used", None)
    if key_id is None:
        return
    parts = parts_of(request)
    try:
        async with transaction(parts.sessions) as session:
            await keys.note_use(session, key_id, now=parts.clock())
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        log.warning("the use of an API key could not be noted", error=type(error).__name__)


async def idempotent(
    request: Request,
    who: PrincipalDep,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=200,
            description="Repeat a POST safely: the same key answers as the first time.",
        ),
    ] = None,
) -> None:
    """Take the key, or replay its answer - to whom may still ask for it. A second request that arrives meanwhile waits
    for the first to commit."""
    if key is None or request.method != "POST":
        return
    right = right_of(request.scope["route"])
    if right is not None:
        who.must(right)
    session = session_of(request)
    hashed, sealer, record = await _fingerprint(request), parts_of(request).sealer, idempotency_record(str(who.id), key)
    taken = await session.execute(
        sa.text(
            "INSERT INTO idempotent_answers (principal, key, request_sealed, headers, created_at) "
            "VALUES (:principal, :key, :request, '{}', :now) ON CONFLICT DO NOTHING RETURNING key"
        ),
        {
            "principal": str(who.id),
            "key": key,
            "request": sealer.seal(hashed, record=record),
            "now": parts_of(request).clock(),
        },
    )
    if taken.first() is not None:
        request.state.idempotency = (who, key)
        return
    row = (
        await session.execute(
            sa.text(
                "SELECT request_sealed, status, body_sealed, headers FROM idempotent_answers "
                "WHERE principal = :principal AND key = :key"
            ),
            {"principal": str(who.id), "key": key},
        )
    ).one()
    if sealer.open(row.request_sealed, record=record) != hashed:
        raise IdempotencyMismatch("this Idempotency-Key was used for another request; use a new key for a new request")
    kept = _opened(sealer.open(row.body_sealed, record=record))
    if not _sees_as_much(who, kept) or await hidden(session, _ids_in(f"{request.url} {kept.answer}")):
        request.state.for_its_refusal = True
        return
    kind = "application/json" if row.status < 400 else "application/problem+json"
    headers = {**row.headers, "Idempotent-Replay": "true", "content-type": kind}
    raise Replay(Response(kept.answer, row.status, headers=headers))


class _Kept(msgspec.Struct, frozen=True):
    """An answer, and how far the account saw that it was given to."""

    answer: str
    region_code: str | None = None  # null: kept by an earlier version, which did not note it
    visitor_id: UUID | None = None


_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _ids_in(text: str) -> list[UUID]:
    return [UUID(found) for found in _ID.findall(text)]


def _opened(text: str) -> _Kept:
    try:
        return msgspec.json.decode(text, type=_Kept)
    except msgspec.DecodeError:
        return _Kept(text)


def _sees_as_much(who: Principal, kept: _Kept) -> bool:
    if kept.region_code is None:
        return True
    return kept.region_code.startswith(who.region_code) and kept.visitor_id == _narrowed_to(who)


def _narrowed_to(who: Principal) -> UUID | None:
    return who.visitor_id if who.role is Role.VISITOR else None


async def _fingerprint(request: Request) -> str:
    """Equal requests have equal ones."""
    upload = getattr(request.state, "upload", None)  # a form has another boundary each time
    body = upload.content if upload else await request.body()
    text = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + body
    return hashlib.sha256(text).hexdigest()


async def _keep_answer(request: Request, response: Response) -> None:
    if getattr(request.state, "for_its_refusal", False):
        raise Conflict("this Idempotency-Key was used when your account saw other people; use a new key")
    taken: tuple[Principal, str] | None = getattr(request.state, "idempotency", None)
    if taken is None:
        return
    (who, key), sealer = taken, parts_of(request).sealer
    kept = _Kept(bytes(response.body).decode(), who.region_code, _narrowed_to(who))
    sealed = sealer.seal(msgspec.json.encode(kept).decode(), record=idempotency_record(str(who.id), key))
    await session_of(request).execute(
        sa.text(
            "UPDATE idempotent_answers SET status = :status, body_sealed = :body, headers = CAST(:headers AS jsonb) "
            "WHERE principal = :principal AND key = :key"
        ),
        {
            "principal": str(who.id),
            "key": key,
            "status": response.status_code,
            "body": sealed,
            "headers": json.dumps({name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}),
        },
    )
