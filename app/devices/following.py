"""Keeps one ingest process abreast of the catalogue: it renews what decoding knows, and the broker's subscriptions with
it, whenever a profile, a gateway's names or a device of another family changed. No restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from zoneinfo import ZoneInfo

from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.db import Sessions, transaction
from app.devices import catalogue
from app.devices.codec import Registry
from app.devices.mqtt import MqttClient
from app.signals import wait

log = logs.get("catalogue")
_LOOK_S = 60.0  # also without a signal
_REST_S = 0.2  # a long import of devices signals at each of them


class Following:
    """`load()` once before the broker is asked for anything, then `run()`."""

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        changed: asyncio.Event,
        tz: ZoneInfo,
        *,
        group: str = "",
        unused: Sequence[str] = (),
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._changed = changed
        self._tz = tz
        self._group = group
        self._unused = list(unused)
        self.mqtt: MqttClient | None = None

    async def load(self) -> tuple[list[str], list[str]]:
        """Renew what is known. The topics to subscribe to, and those to give up."""
        async with transaction(self._sessions) as session:
            known = await catalogue.load(session, self._tz)
            withdrawn = await catalogue.withdrawn_topics(session)
        self._registry.know(known)
        topics = [self._shared(topic) for topic in self._registry.subscriptions]
        if self._group:
            # A shared subscription brings no retained message, and every process needs what gateways tell.
            topics += self._registry.unshared
        given_up = {topic for plain in (*withdrawn, *self._unused) for topic in (plain, self._shared(plain))}
        return topics, sorted(given_up.difference(topics))

    def _shared(self, topic: str) -> str:
        return f"$share/{self._group}/{topic}" if self._group else topic

    async def run(self) -> None:
        """Until cancelled, across restarts of the database."""
        while True:
            await wait(self._changed, at_most_s=_LOOK_S)
            try:
                topics, leave = await self.load()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("what devices mean could not be renewed", error=type(error).__name__)
                self._changed.set()
            else:
                if self.mqtt is not None:
                    self.mqtt.follow(topics, leave=leave)
            await asyncio.sleep(_REST_S)
