"""Pieces that request bodies share: limits on every field, unknown fields refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import Header
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from app.errors import InvalidInput


def printable(text: str) -> str:
    """Refuse control characters but line ends and tabs."""
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\r\t" for char in text):
        raise ValueError("must not contain control characters")
    return text


def _seen_whole(text: str) -> str:
    """Refuse characters nobody sees: the codecs refuse them too, and an id pasted with one would never be heard."""
    if not text.isprintable():
        raise ValueError("must have printable characters only (no zero-width or control characters)")
    return text


def one_line(text: str) -> str:
    """Refuse control characters and line ends."""
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        raise ValueError("must be one line without control characters")
    return text


def _written(value: object) -> object:
    """Numbers are not dates: pydantic would read 20261120 as a day in 1970."""
    if not isinstance(value, str | date):
        raise ValueError('must be text, for example "2026-11-20"')
    return value


def _day_in_range(day: date) -> date:
    if not date(1900, 1, 1) <= day <= date(2200, 1, 1):
        raise ValueError("must lie between the years 1900 and 2200")
    return day


def _time_in_range(moment: datetime) -> datetime:
    if not datetime(1900, 1, 2, tzinfo=UTC) <= moment <= datetime(2200, 1, 1, tzinfo=UTC):
        raise ValueError("must lie between the years 1900 and 2200")
    return moment


AN_ID = "019c0a52-6f00-7000-8000-000000000001"  # stands for an id that an earlier answer gave


def example(**fields: Any) -> ConfigDict:
    """A body that can be pasted, for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Body(BaseModel):
    """A request body: a field we do not know is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    def __repr_args__(self) -> Iterator[tuple[str, str]]:
        """Which fields were given, never what they say: it may be a password or a phone number."""
        yield from ((name, "…") for name in self.model_fields_set)


def _whole(text: str) -> str:
    """Refuse what answers show in place of something sealed: given back, it would take the place of what it hides."""
    if "***" in text:
        raise ValueError(
            "is the masked form that answers show: leave the field out to keep what is there, or give it whole"
        )
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(one_line)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(one_line)]
Address = Annotated[Short, AfterValidator(_whole)]
Note = Annotated[str, StringConstraints(max_length=2000), AfterValidator(printable)]
Day = Annotated[date, BeforeValidator(_written), AfterValidator(_day_in_range)]
Moment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_time_in_range)]
Region12 = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$"), Field(examples=["370302001001"])]
Scope = Annotated[str, StringConstraints(pattern=r"^([0-9]{6}|[0-9]{9}|[0-9]{12})?$"), Field(examples=["370302"])]
DeviceIdText = Annotated[
    str,
    StringConstraints(pattern=r"^[^/+#\x00-\x1f\x7f]{1,128}$"),
    AfterValidator(_seen_whole),
    Field(examples=["sos-0001"]),
]
Phone = Annotated[str, StringConstraints(min_length=3, max_length=40), Field(examples=["13800000000"])]
Token = Annotated[str, StringConstraints(min_length=1, max_length=100)]


async def if_match(
    header: Annotated[
        str | None, Header(alias="If-Match", max_length=40, description="The ETag you read; refused if it changed.")
    ] = None,
) -> int | None:
    """The version of If-Match; None when absent or `*`."""
    if header is None or header.strip() == "*":
        return None
    text = header.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidInput('If-Match must be an ETag of this resource, like "3"')
    return int(text)


def etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}


def explicit(body: BaseModel) -> dict[str, Any]:
    """The fields a PATCH really gave; those that may not be null and are, are refused."""
    return body.model_dump(exclude_unset=True)
