"""The webhook: one POST of the letter's payload, signed as https://www.standardwebhooks.com describes."""

from __future__ import annotations

import base64
import functools
import hmac

import msgspec
from yarl import URL

from app.notify.channel import GiveUp, Letter, Outcome
from app.notify.channels._addresses import http_url
from app.notify.channels._failures import never_raises
from app.notify.channels._http import Answer, Http, by_status
from app.notify.vocabulary import ChannelKind


class Webhook:
    """Sends to a front end or another system. A letter without a secret goes unsigned."""

    kind = ChannelKind.WEBHOOK

    def __init__(self, http: Http, *, allow_private: bool) -> None:
        self._http = http
        self._allow_private = allow_private

    def check_address(self, address: str) -> str:
        return str(http_url(address, allow_private=self._allow_private))

    @never_raises
    async def send(self, letter: Letter) -> Outcome:
        """2xx is sent; 408, 425, 429, 5xx and a network that fails are worth another try; the rest is not."""
        body = msgspec.json.encode(letter.payload)
        message_id = str(letter.notice_id)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "shouwang",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(letter.composed_at.timestamp())),
        }
        if letter.secret is not None:
            try:
                key = _key(letter.secret)
            except ValueError:
                return GiveUp("the signing secret is not whsec_ and base64")
            headers["webhook-signature"] = _signature(key, message_id, headers["webhook-timestamp"], body)
        answer = await self._http.post(_url(letter.address), body, headers)
        return by_status(answer) if isinstance(answer, Answer) else answer

    async def close(self) -> None:
        await self._http.close()


@functools.lru_cache(maxsize=1024)
def _key(secret: str) -> bytes:
    """The bytes of `whsec_…`. Raises ValueError when it is none."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    if not key:
        raise ValueError("empty")
    return key


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Standard Webhooks, version 1. The library does the same with four times the work, at every alarm; the tests verify
    with the library."""
    signed = hmac.digest(key, b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body), "sha256")
    return "v1," + base64.b64encode(signed).decode()


@functools.lru_cache(maxsize=1024)
def _url(address: str) -> URL:
    return URL(address)
