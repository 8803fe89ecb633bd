"""The ways to reach a contact or a visitor, as the API takes and shows them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from app.api.bodies import Body
from app.api.context import Parts
from app.notify import ways
from app.notify.vocabulary import ChannelKind
from app.notify.ways import Way

PersonChannel = Annotated[ChannelKind, Field(examples=["webhook"])]


class ChannelIn(Body):
    kind: PersonChannel
    address: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]+$")] = Field(
        examples=["https://example.org/hooks/anna"]
    )
    secret: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]+$")] | None = Field(
        default=None, description="webhook: `whsec_…`, made and shown once when absent; robots: the signing secret."
    )


class ChannelOut(BaseModel):
    kind: ChannelKind
    address: str
    secret: str | None = Field(default=None, description="Only in the answer that made it.")


def checked(channels: list[ChannelIn], parts: Parts) -> list[Way]:
    """Raises `InvalidInput` that names the channel that would not work, and what to mend."""
    return ways.check([Way(c.kind, c.address, c.secret) for c in channels], parts.channels)


def with_secrets(channels: list[dict[str, Any]], given: list[Way]) -> list[dict[str, Any]]:
    """The answer that makes a webhook shows its secret, once."""
    for channel, way in zip(channels, given, strict=False):
        if way.kind is ChannelKind.WEBHOOK:
            channel["secret"] = way.secret
    return channels
