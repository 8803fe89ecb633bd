"""The elder's own device: its command topic says that help is coming (design section 4)."""

from __future__ import annotations

import json
from typing import Protocol

from app.errors import InvalidInput
from app.notify.channel import Letter, Outcome, Sent, TryAgain
from app.notify.vocabulary import ChannelKind


class Publisher(Protocol):
    async def publish(self, topic: str, payload: bytes) -> None: ...


class DeviceChannel:
    """Publishes to `devices/{device_id}/command`, QoS 1. Nobody can be given this channel as a way to reach them."""

    kind = ChannelKind.DEVICE

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def check_address(self, address: str) -> str:
        raise InvalidInput("a device is not a way to reach a person")

    async def send(self, letter: Letter) -> Outcome:
        payload = json.dumps(dict(letter.payload), ensure_ascii=False).encode()
        try:
            await self._publisher.publish(f"devices/{letter.address}/command", payload)
        except (ConnectionError, TimeoutError) as error:
            return TryAgain(f"the broker did not take it ({type(error).__name__})")
        return Sent()

    async def close(self) -> None:
        """The connection belongs to whoever made it."""
