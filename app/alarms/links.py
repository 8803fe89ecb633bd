"""Answer links: `/a/{token}` lets one recipient of one alarm answer without an account.

The token is the notice's id with a keyed hash: nothing to store, nothing to guess, the same on every attempt to send.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import timedelta
from uuid import UUID

from app.errors import NotFound
from app.ids import NoticeId

LINK_LIFE = timedelta(hours=24)
_MAC_BYTES = 16


class Links:
    """Makes and reads answer links."""

    def __init__(self, key: bytes, base_url: str) -> None:
        self._key = hmac.digest(key, b"answer-link", "sha256")
        self._base = base_url

    def url(self, notice_id: NoticeId) -> str:
        return f"{self._base}/a/{self.token(notice_id)}"

    def token(self, notice_id: NoticeId) -> str:
        raw = notice_id.bytes + self._mac(notice_id.bytes)
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def read(self, token: str) -> NoticeId:
        """The notice of a token. Raises `NotFound` for anything this server did not make."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 16 + _MAC_BYTES or not hmac.compare_digest(raw[16:], self._mac(raw[:16])):
            raise NotFound("no such link")
        return NoticeId(UUID(bytes=raw[:16]))

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")[:_MAC_BYTES]
