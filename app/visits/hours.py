"""When people are told what is due: a chosen hour, quiet hours, the days before a week or month closes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from app.elders.policy import Period


@dataclass(frozen=True, slots=True)
class Hours:
    """In local time. `quiet_from` and `quiet_until` may lie on two days; equal ones mean no quiet hours."""

    at: time = time(8, 0)
    quiet_from: time = time(21, 0)
    quiet_until: time = time(7, 0)
    enabled: bool = True

    def quiet(self, at: time) -> bool:
        """Whether nobody is to be disturbed at this time of day."""
        if self.quiet_from <= self.quiet_until:
            return self.quiet_from <= at < self.quiet_until
        return at >= self.quiet_from or at < self.quiet_until


@dataclass(frozen=True, slots=True)
class Rising:
    """How many days before the last day of a week or month the people above are told who was not visited."""

    week_village: int = 2
    week_township: int = 1
    month_village: int = 5
    month_township: int = 2

    def village(self, period: Period) -> int:
        match period:
            case Period.WEEK:
                return self.week_village
            case Period.MONTH:
                return self.month_village
        assert_never(period)

    def township(self, period: Period) -> int:
        match period:
            case Period.WEEK:
                return self.week_township
            case Period.MONTH:
                return self.month_township
        assert_never(period)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a due row says: whether today's message is written now, and when to look again."""

    write: bool
    next_at: datetime


def turn(now: datetime, hours: Hours, tz: ZoneInfo) -> Turn:
    """For a row whose time has come, also long ago. Today's message is caught up today, outside the quiet hours; what
    yesterday missed is not sent at midnight, today's has it."""
    local = now.astimezone(tz)
    today = local.date()
    if not hours.enabled or local < at(today, hours.at, tz):
        return Turn(False, next_time(now, hours, tz))
    if not hours.quiet(local.time()):
        return Turn(True, next_time(now, hours, tz))
    loud = speak_from(now, hours, tz)
    return Turn(False, loud if loud.astimezone(tz).date() == today else next_time(now, hours, tz))


def next_time(now: datetime, hours: Hours, tz: ZoneInfo) -> datetime:
    """The chosen hour that comes next."""
    today = now.astimezone(tz).date()
    wanted = at(today, hours.at, tz)
    return wanted if wanted > now else at(today + timedelta(days=1), hours.at, tz)


def speak_from(now: datetime, hours: Hours, tz: ZoneInfo) -> datetime:
    """Now, or the end of the quiet hours."""
    local = now.astimezone(tz)
    if not hours.quiet(local.time()):
        return now
    end = at(local.date(), hours.quiet_until, tz)
    return end if end > now else at(local.date() + timedelta(days=1), hours.quiet_until, tz)


def silent_from(now: datetime, hours: Hours, tz: ZoneInfo) -> datetime:
    """When what is written now must have been sent: the next quiet hours, and the end of the day at the latest."""
    today = now.astimezone(tz).date()
    midnight = at(today + timedelta(days=1), time(0), tz)
    if hours.quiet_from == hours.quiet_until:
        return midnight
    begins = at(today, hours.quiet_from, tz)
    return begins if begins > now else midnight


def at(day: date, time_: time, tz: ZoneInfo) -> datetime:
    """A time of a local day."""
    return datetime.combine(day, time_, tz)
