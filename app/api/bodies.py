"""Pieces that request bodies share: limits on every field, unknown fields refused."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.errors import InvalidInput


def _storable(text: str) -> str:
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("must not contain NUL or unpaired surrogates")
    return text


class Body(BaseModel):
    """A request body: a field we do not know is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(_storable)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_storable)]
Note = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_storable)]
Region12 = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$"), Field(examples=["370302001001"])]
Scope = Annotated[str, StringConstraints(pattern=r"^([0-9]{6}|[0-9]{9}|[0-9]{12})?$"), Field(examples=["370302"])]
DeviceIdText = Annotated[
    str,
    StringConstraints(pattern=r"^[^/+#\x00-\x1f\x7f]{1,128}$"),
    AfterValidator(_storable),
    Field(examples=["sos-0001"]),
]
Phone = Annotated[str, StringConstraints(min_length=3, max_length=40), Field(examples=["13800000000"])]
Token = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def if_match(
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
