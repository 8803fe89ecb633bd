"""Routes that take a file: who sends it is known before it is read, and no transaction is open while it comes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.security import HTTPBearer
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.api.context import principal, right_of
from app.api.transactional import Transactional
from app.errors import InvalidInput

_bearer = HTTPBearer(auto_error=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """What was sent: as the body itself, or as the field `file` of a form."""

    content: bytes
    filename: str | None = None


class Uploading(Transactional):
    """Like `Transactional`, for files that take minutes on a village's line."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def handler(request: Request) -> Response:
            who = await principal(request, await _bearer(request))
            right = right_of(self)
            assert right is not None
            who.must(right)
            request.state.upload = await _taken(request, await request.body())
            return await original(request)

        return handler


async def _taken(request: Request, body: bytes) -> Upload:
    """The file stays in memory: what is personal is not written to a disk unsealed."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return Upload(body)
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=5)
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError):
        raise InvalidInput("the form cannot be read; send the file as the field `file`", field="file") from None
    sent = form.get("file")
    if not isinstance(sent, UploadFile):
        raise InvalidInput("send the file as the field `file` of the form", field="file")
    name = "".join(char for char in sent.filename or "" if char.isprintable())[-200:]
    return Upload(await sent.read(), name or None)


async def upload_of(request: Request) -> Upload:
    upload: Upload = request.state.upload
    return upload


UploadDep = Annotated[Upload, Depends(upload_of)]
