"""Typed ids. Every kind of id the product hands out is named here and nowhere else."""

from __future__ import annotations

import random
from datetime import datetime
from typing import NewType
from uuid import UUID

ElderId = NewType("ElderId", UUID)
ContactId = NewType("ContactId", UUID)
VisitorId = NewType("VisitorId", UUID)
ChannelId = NewType("ChannelId", UUID)
AlarmId = NewType("AlarmId", UUID)
NoticeId = NewType("NoticeId", UUID)
EventId = NewType("EventId", UUID)
UserId = NewType("UserId", UUID)
DeviceId = NewType("DeviceId", str)
RegionCode = NewType("RegionCode", str)


# Ids are no secrets (scope guards rows, a keyed hash guards links), and a system call for each would cost a storm dearly.
_noise = random.Random()  # noqa: S311 - seeded by the operating system


def new_uuid(now: datetime) -> UUID:
    """A version 7 UUID (RFC 9562) for `now`: ids of one table sort by their age to the millisecond.

    Lists page by id alone because of this.
    """
    millis = int(now.timestamp() * 1000) & 0xFFFF_FFFF_FFFF
    noise = _noise.getrandbits(74)
    value = millis << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0b10 << 62 | noise & 0x3FFF_FFFF_FFFF_FFFF
    return UUID(int=value)


def first_uuid(moment: datetime) -> UUID:
    """No id that `new_uuid` made at `moment` or later is smaller: a time as a bound of an index of ids."""
    return UUID(int=(int(moment.timestamp() * 1000) & 0xFFFF_FFFF_FFFF) << 80)
