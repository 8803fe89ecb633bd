"""Personal data at rest: AES-256-GCM, bound to its record, and a keyed hash to find ID numbers without opening them."""

from __future__ import annotations

import hashlib
import hmac
import os
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NONCE = 12


class Sealer:
    """Seals and opens text. `record` is the row it belongs to: a value copied to another row does not open there."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(hmac.digest(key, b"seal", "sha256"))
        self._index_key = hmac.digest(key, b"index", "sha256")

    def seal(self, text: str, *, record: UUID) -> bytes:
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._aead.encrypt(nonce, text.encode(), record.bytes)

    def open(self, sealed: bytes, *, record: UUID) -> str:
        """Raises `cryptography.exceptions.InvalidTag` when the key or the record is another."""
        return self._aead.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], record.bytes).decode()

    def seal_optional(self, text: str | None, *, record: UUID) -> bytes | None:
        return None if text is None else self.seal(text, record=record)

    def open_optional(self, sealed: bytes | None, *, record: UUID) -> str | None:
        return None if sealed is None else self.open(sealed, record=record)

    def index(self, text: str) -> bytes:
        """A keyed hash: equal texts have equal hashes, and only the key's holder can compute them."""
        return hmac.digest(self._index_key, text.encode(), hashlib.sha256)


def mask_id_number(text: str) -> str:
    """First six and last four: 370302********1226."""
    return text[:6] + "*" * 8 + text[-4:]


def mask_phone(text: str | None) -> str | None:
    """The last four digits stay."""
    return None if text is None else "*" * max(len(text) - 4, 3) + text[-4:]


def mask_address(text: str | None) -> str | None:
    """The first six characters stay, of a short address the first half: the village, not the door."""
    return None if text is None else text[: min(6, len(text) // 2)] + "***"


def mask_channel(kind: str, address: str) -> str:
    """Enough to recognise a channel by, too little to use it."""
    match kind:
        case "sms" | "voice":
            return mask_phone(address) or ""
        case "email":
            name, _, host = address.partition("@")
            return f"{name[:1]}***@{host}"
        case "console":
            return address
        case _:
            scheme, _, rest = address.partition("://")
            return f"{scheme}://{rest.partition('/')[0]}/***"
