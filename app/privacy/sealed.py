"""Every sealed column and every keyed hash of every table. A test fails when one of the schema is missing here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.access.tables import idempotency_record
from app.elders.register import phone_tail

Row = Mapping[str, Any]


def _by_id(row: Row) -> UUID:
    found: UUID = row["id"]
    return found


@dataclass(frozen=True, slots=True)
class Sealed:
    """A table's sealed columns, what they are bound to, and the hashes made of them."""

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ("id",)  # the primary key, in its order
    record: Callable[[Row], UUID] = _by_id
    # A hash's column: the sealed column it is made of, and what of its text is hashed.
    hashes: Mapping[str, tuple[str, Callable[[str], str]]] = field(default_factory=dict)


SEALED = (
    Sealed(
        "elders",
        ("id_number_sealed", "phone_sealed", "address_sealed"),
        hashes={"id_number_index": ("id_number_sealed", str), "phone_tail_index": ("phone_sealed", phone_tail)},
    ),
    Sealed("family_members", ("phone_sealed",)),
    Sealed("contacts", ("phone_sealed",)),
    Sealed("visitors", ("phone_sealed",)),
    Sealed("channels", ("address_sealed", "secret_sealed")),
    Sealed("webhook_subscriptions", ("url_sealed", "secret_sealed", "previous_secret_sealed")),
    Sealed("elder_imports", ("file_sealed",)),
    Sealed("rejected_messages", ("payload_sealed",)),
    Sealed(
        "idempotent_answers",
        ("request_sealed", "body_sealed"),
        key=("principal", "key"),
        record=lambda row: idempotency_record(row["principal"], row["key"]),
    ),
)
