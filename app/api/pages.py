"""Lists: newest first, in keyset order, `{"items": […], "next_cursor": …}`."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.errors import InvalidInput

T = TypeVar("T")
R = TypeVar("R")
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")]


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    items: list[T]
    next_cursor: str | None = Field(description="Give it back as `cursor` for the next page; null at the end.")


# The list that is being read: the path of its route. A cursor is good for the list that gave it.
of_list: ContextVar[str] = ContextVar("of_list", default="")


def _mark() -> str:
    return f"{zlib.crc32(of_list.get().encode()):08x}"


def encode(*keys: object) -> str:
    """An opaque cursor after a row with these sort keys."""
    text = json.dumps([_mark(), *(key.isoformat() if isinstance(key, datetime) else str(key) for key in keys)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str | None, *kinds: type) -> list[Any] | None:
    """The sort keys of a cursor. Raises `InvalidInput` for one we did not make."""
    if cursor is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds) + 1 or values.pop(0) != _mark():
            raise ValueError
        return [_read(value, kind) for value, kind in zip(values, kinds, strict=True)]
    except (ValueError, TypeError, OverflowError, binascii.Error):
        raise InvalidInput("`cursor` is not one of this list; begin again without it") from None


def _read(value: Any, kind: type) -> Any:
    if not isinstance(value, str):
        raise ValueError
    if kind is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    if kind is UUID:
        return UUID(value)
    if kind is int:
        number = int(value)
        if not 0 <= number < 2**63:
            raise ValueError
        return number
    if "\x00" in value:
        raise ValueError
    value.encode()  # an unpaired surrogate cannot be stored, so no row has it
    return value


def page(rows: Sequence[Any], limit: int, shape: Any, *keys: str) -> dict[str, Any]:
    """A page from `limit + 1` rows: the extra one only tells that there is more."""
    shown = rows[:limit]
    more = encode(*(getattr(shown[-1], key) for key in keys)) if len(rows) > limit and shown else None
    return {"items": [shape(row) for row in shown], "next_cursor": more}


async def newest(
    session: AsyncSession, query: SelectOfScalar[R], id_: Any, limit: int, cursor: str | None
) -> Sequence[R]:
    """The rows of a page by their ids, newest first, and one more where there are more: for `page`."""
    before = decode(cursor, UUID)
    if before:
        query = query.where(id_ < before[0])
    return (await session.execute(query.order_by(id_.desc()).limit(limit + 1))).scalars().all()
