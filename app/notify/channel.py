"""What a channel is: a way to bring one letter to one address, and the three ways it can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.ids import NoticeId
from app.notify.vocabulary import ChannelKind


@dataclass(frozen=True, slots=True)
class Letter:
    """One message, ready to send. `payload` is what machines read (webhooks), the rest is what people read.

    `address` and `secret` are opened from their seal for the time of sending; they never enter a log or an error.
    """

    notice_id: NoticeId  # stable over attempts: receivers can tell a repeat
    address: str = field(repr=False)
    secret: str | None = field(repr=False)
    title: str = field(repr=False)
    text: str = field(repr=False)  # several sentences, the answer link at the end
    # Variables of a text message or voice template: name, kind, because, link.
    short: Mapping[str, str] = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    composed_at: datetime
    digest: bool = False  # no alarm: a text message takes another template


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side took it. `delivered`: it also says a person has it."""

    provider_id: str | None = None
    delivered: bool = False


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It may work later."""

    why: str
    after_s: float | None = None  # what the other side asked for (Retry-After)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It will never work like this."""

    why: str


Outcome = Sent | TryAgain | GiveUp


class Channel(Protocol):
    """One way of sending. Its parts may be slow; the dispatcher runs many at once."""

    kind: ChannelKind

    def check_address(self, address: str) -> str:
        """The address in its normal form. Raises `InvalidInput` that says what a good one looks like, and
        `ChannelNotConfigured` that names the missing settings when this server cannot send on the channel."""
        ...

    async def send(self, letter: Letter) -> Outcome:
        """Send once. Never raises: what went wrong is in the outcome, without the address or other personal data."""
        ...

    async def close(self) -> None: ...


class Channels:
    """The registry of channels. Two of one kind are a mistake and stop the start."""

    def __init__(self, *channels: Channel) -> None:
        self._by_kind = {channel.kind: channel for channel in channels}
        if len(self._by_kind) != len(channels):
            raise ValueError("two channels of one kind")

    def add(self, channel: Channel) -> None:
        """A channel that comes with a part started later (the broker's connection)."""
        if channel.kind in self._by_kind:
            raise ValueError(f"two channels of kind {channel.kind}")
        self._by_kind[channel.kind] = channel

    def get(self, kind: ChannelKind) -> Channel | None:
        return self._by_kind.get(kind)

    async def close(self) -> None:
        for channel in self._by_kind.values():
            await channel.close()
