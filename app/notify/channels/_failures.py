"""What went wrong, in words that are safe to keep: no address, link, phone number or key survives in them."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from app.notify.channel import Letter, Outcome, TryAgain

_ChannelT = TypeVar("_ChannelT")
_LONGEST = 120
# Links, e-mail addresses, long numbers and long tokens: providers repeat parts of the request in their messages.
_PRIVATE = re.compile(r"https?://\S+|[\w.+-]+@[\w.-]+|\+?\d[\d -]{5,}\d|[A-Za-z0-9_=/+-]{20,}", re.ASCII)


def said(message: object, *private: str | None) -> str:
    """A provider's own message, shortened, without anything that looks private and without the `private` strings."""
    text = message if isinstance(message, str) else ""
    for part in private:
        if part:
            text = text.replace(part, "…")
    return " ".join(_PRIVATE.sub("…", text).split())[:_LONGEST]


def never_raises(
    send: Callable[[_ChannelT, Letter], Awaitable[Outcome]],
) -> Callable[[_ChannelT, Letter], Coroutine[Any, Any, Outcome]]:
    """`Channel.send` keeps its promise: an error nobody foresaw becomes `TryAgain` with nothing but its class name."""

    @functools.wraps(send)
    async def guarded(self: _ChannelT, letter: Letter) -> Outcome:
        try:
            return await send(self, letter)
        except Exception as error:  # noqa: BLE001 - a mistake in one channel must not stop the dispatcher
            return TryAgain(f"unexpected {type(error).__name__}")

    return guarded
