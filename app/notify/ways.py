"""The channels of contacts and visitors: checked when they are given, sealed at rest, in the order they are tried."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.sealing import Sealer, mask_channel
from app.errors import InvalidInput
from app.ids import new_uuid
from app.notify.channel import Channels
from app.notify.tables import Channel
from app.notify.vocabulary import ChannelKind

Owner = Literal["contact_id", "visitor_id"]


@dataclass(frozen=True, slots=True)
class Way:
    """A channel as it is given: `secret` only for webhooks (made when absent)."""

    kind: ChannelKind
    address: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)


def check(ways: Sequence[Way], channels: Channels) -> list[Way]:
    """Addresses in their normal form. Raises `InvalidInput` or `ChannelNotConfigured`: now, not at three at night."""
    checked = []
    for position, way in enumerate(ways):
        channel = channels.get(way.kind)
        if channel is None or way.kind is ChannelKind.DEVICE:
            raise InvalidInput(f"channel kind {way.kind.value} cannot be given to a person", field="channels")
        if "***" in way.address:
            raise InvalidInput(
                "a masked address, as answers show it: leave `channels` out to keep them, or give each address whole",
                field=f"channels.{position}.address",
            )
        try:
            address = channel.check_address(way.address)
        except InvalidInput as error:
            raise InvalidInput(error.detail, field=f"channels.{position}.address") from None
        checked.append(Way(way.kind, address, _secret(way, position)))
    return checked


def _secret(way: Way, position: int) -> str | None:
    if way.kind is ChannelKind.WEBHOOK:
        text = way.secret or "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        try:
            good = text.startswith("whsec_") and 24 <= len(base64.b64decode(text[6:], validate=True)) <= 64
        except ValueError:
            good = False
        if not good:
            raise InvalidInput(
                "a webhook secret is `whsec_` and the base64 of 24 to 64 bytes", field=f"channels.{position}.secret"
            )
        return text
    return way.secret


async def replace(
    session: AsyncSession, owner: Owner, owner_id: UUID, ways: Sequence[Way], *, sealer: Sealer, now: datetime
) -> None:
    """Give a person these channels instead of the ones before."""
    await session.execute(sa.text(f"DELETE FROM channels WHERE {owner} = :id"), {"id": owner_id})  # noqa: S608
    for position, way in enumerate(ways):
        channel_id = new_uuid(now)
        session.add(Channel(
            id=channel_id, position=position, kind=way.kind, address_sealed=sealer.seal(way.address, record=channel_id),
            secret_sealed=sealer.seal_optional(way.secret, record=channel_id), **{owner: owner_id},
        ))  # fmt: skip
    await session.flush()


async def of(
    session: AsyncSession, owner: Owner, ids: Collection[UUID], *, sealer: Sealer, plainly: bool
) -> Mapping[UUID, list[dict[str, Any]]]:
    """The channels of people, masked unless `plainly`; secrets are never shown again."""
    rows = await session.execute(
        sa.text(
            f"SELECT id, {owner} AS owner, kind, address_sealed FROM channels "  # noqa: S608
            f"WHERE {owner} = ANY(CAST(:ids AS uuid[])) ORDER BY {owner}, position"
        ),
        {"ids": list(ids)},
    )
    found: dict[UUID, list[dict[str, Any]]] = {}
    for row in rows:
        address = sealer.open(row.address_sealed, record=row.id)
        shown = address if plainly else mask_channel(row.kind, address)
        found.setdefault(row.owner, []).append({"kind": row.kind, "address": shown})
    return found
