"""Personal data at rest: AES-256-GCM, bound to its record, under one of several keys; and keyed hashes ("blind indexes") to
find ID numbers and phones without opening them.

A sealed value says which key opens it: version 2, four bytes of the key's id, a nonce, the text. Values of version 1 say
nothing; they are older than rotation, and every key is tried. A hash says its key too, so that a rotation can be counted.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_OLD, _VERSION = b"\x01", b"\x02"
_ID = 4
_NONCE = 12
PREFIX = len(_VERSION) + _ID  # what a value or a hash of the present version begins with

Reread = Callable[[], Sequence[bytes] | None]  # the keys as they are now; None: unchanged


class _Key:
    """What is made from one of the 32-byte keys. Never printed."""

    __slots__ = ("aead", "index_key", "prefix")

    def __init__(self, key: bytes) -> None:
        self.prefix = _VERSION + hmac.digest(key, b"id", "sha256")[:_ID]
        self.aead = AESGCM(hmac.digest(key, b"seal", "sha256"))
        self.index_key = hmac.digest(key, b"index", "sha256")

    def hash(self, text: str) -> bytes:
        return hmac.digest(self.index_key, text.encode(), hashlib.sha256)


class Sealer:
    """Seals with the first key, opens with any. `record` is the row a value belongs to: copied to another row it does not
    open there. `reread` tells of keys that were exchanged while the process runs (`refresh`)."""

    def __init__(self, *keys: bytes, reread: Reread | None = None) -> None:
        self._take(keys)
        self._reread = reread

    def _take(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(_Key(key) for key in keys)
        self._by_prefix = {key.prefix: key for key in self._keys}

    def refresh(self) -> bool:
        """Take the keys as they are now. Says whether anything changed."""
        keys = self._reread() if self._reread else None
        if keys is None:
            return False
        self._take(keys)
        return True

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys, that of the sealing one first. An id tells nothing about its key."""
        return tuple(key.prefix[1:].hex() for key in self._keys)

    @property
    def prefix(self) -> bytes:
        """What every value and hash begins with that needs no other key than the first."""
        return self._keys[0].prefix

    # --- values ------------------------------------------------------------------------------------------------------

    def seal(self, text: str, *, record: UUID) -> bytes:
        return self.seal_bytes(text.encode(), record=record)

    def seal_bytes(self, content: bytes, *, record: UUID) -> bytes:
        key, nonce = self._keys[0], os.urandom(_NONCE)
        return key.prefix + nonce + key.aead.encrypt(nonce, content, key.prefix + record.bytes)

    def open(self, sealed: bytes, *, record: UUID) -> str:
        """Raises `cryptography.exceptions.InvalidTag` when the key or the record is another."""
        return self.open_bytes(sealed, record=record).decode()

    def open_bytes(self, sealed: bytes, *, record: UUID) -> bytes:
        if sealed[:1] == _OLD:
            return self._open_old(sealed, record)
        prefix = bytes(sealed[:PREFIX])
        key = self._by_prefix.get(prefix)
        if key is None and self.refresh():
            key = self._by_prefix.get(prefix)
        if key is None:
            raise InvalidTag
        nonce, content = sealed[PREFIX : PREFIX + _NONCE], sealed[PREFIX + _NONCE :]
        if len(nonce) < _NONCE:
            raise InvalidTag
        return key.aead.decrypt(nonce, content, prefix + record.bytes)

    def _open_old(self, sealed: bytes, record: UUID) -> bytes:
        nonce, content = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        if len(nonce) < _NONCE:
            raise InvalidTag
        for key in self._keys:
            try:
                return key.aead.decrypt(nonce, content, record.bytes)
            except InvalidTag:
                continue
        raise InvalidTag

    def seal_optional(self, text: str | None, *, record: UUID) -> bytes | None:
        return None if text is None else self.seal(text, record=record)

    def open_optional(self, sealed: bytes | None, *, record: UUID) -> str | None:
        return None if sealed is None else self.open(sealed, record=record)

    # --- hashes ------------------------------------------------------------------------------------------------------

    def index(self, text: str) -> bytes:
        """A keyed hash: equal texts have equal hashes under one key, and only the key's holder can compute them."""
        key = self._keys[0]
        return key.prefix + key.hash(text)

    def indexes(self, text: str) -> list[bytes]:
        """Every form in which the hash of this text may be stored: under each key, and as version 1 had it."""
        return [form for key in self._keys for form in (key.prefix + key.hash(text), key.hash(text))]

    def locks(self, text: str) -> list[int]:
        """Numbers to lock so that nobody stores the same text beside us, whichever key theirs is: in one order for all."""
        return sorted(int.from_bytes(key.hash(text)[:8], signed=True) for key in self._keys)


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
