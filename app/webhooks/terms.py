"""The terms of delivering to subscribers: when to try again, when to rest, how long things are kept."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
from aiohttp.abc import AbstractResolver

from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Terms:
    """What the deployer decides (README, settings WEBHOOK_…)."""

    allow_private: bool = False
    # Seconds between the tries: a day and a bit in all.
    retries_s: tuple[int, ...] = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 36000)
    pause_after: timedelta = timedelta(days=3)
    pause_after_failures: int = 100
    keep_log: timedelta = timedelta(days=30)
    secret_overlap: timedelta = timedelta(days=1)
    resolver: Callable[[], AbstractResolver] = aiohttp.DefaultResolver  # whom to ask for the address of a name

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        return cls(
            allow_private=settings.allow_private_webhooks,
            retries_s=settings.webhook_retry_seconds,
            pause_after=timedelta(seconds=settings.webhook_pause_after_s),
            pause_after_failures=settings.webhook_pause_after_failures,
            keep_log=timedelta(days=settings.webhook_log_days),
            secret_overlap=timedelta(seconds=settings.webhook_secret_overlap_s),
        )

    def next_try(self, tries: int, *, asked_s: float | None, test: bool) -> timedelta | None:
        """How long to wait after the `tries`-th failed try of a message (1 = the first): the schedule with up to a fifth
        more, so that many do not come back together; at least what the receiver asked for. None: give up; a `test` is
        tried once, for somebody who is looking at it."""
        if test or tries > len(self.retries_s):
            return None
        wait = self.retries_s[tries - 1] * (1 + random.random() / 5)  # noqa: S311 - spreads load, guards nothing
        return timedelta(seconds=max(wait, asked_s or 0.0))
