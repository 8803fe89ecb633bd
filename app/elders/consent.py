"""Consent on a day. Pure (二（四）2: 入户探访要征得老年人或其赡养人同意; choice 10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from app.elders.vocabulary import ConsentScope


@dataclass(frozen=True, slots=True)
class Consent:
    """Given from a day on, until it expires (that day included) or is withdrawn (that day excluded)."""

    id: UUID
    scope: ConsentScope
    given_on: date
    expires_on: date | None = None
    withdrawn_on: date | None = None

    def holds(self, day: date) -> bool:
        return (
            self.given_on <= day
            and (self.expires_on is None or day <= self.expires_on)
            and (self.withdrawn_on is None or day < self.withdrawn_on)
        )


def consent_on(consents: Iterable[Consent], scope: ConsentScope, day: date) -> Consent | None:
    """The newest consent of this scope that holds on a day."""
    held = [one for one in consents if one.scope is scope and one.holds(day)]
    return max(held, key=lambda one: (one.given_on, one.id), default=None)
