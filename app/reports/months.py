"""Months as statistics are asked for: `2026-11`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from app.errors import InvalidInput


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month in local time, by its first day."""

    first: date

    @classmethod
    def of(cls, day: date) -> Self:
        return cls(day.replace(day=1))

    @classmethod
    def asked(cls, text: str | None, *, today: date, field: str = "month") -> Self:
        """From `2026-11`; this month when absent. Raises `InvalidInput` for one that has not begun."""
        found = cls.of(today) if text is None else cls(date.fromisoformat(text + "-01"))
        if found.first > today:
            raise InvalidInput(f"the month {text} has not begun", field=field)
        return found

    @property
    def last(self) -> date:
        return self.after().first - timedelta(days=1)

    def after(self) -> Month:
        return Month.of(self.first + timedelta(days=31))

    def before(self, count: int = 1) -> Month:
        """This many months earlier."""
        months = self.first.year * 12 + self.first.month - 1 - count
        return Month(date(months // 12, months % 12 + 1, 1))

    def begins(self, tz: ZoneInfo) -> datetime:
        """The midnight it begins with."""
        return datetime.combine(self.first, datetime.min.time(), tz)

    def ends(self, tz: ZoneInfo) -> datetime:
        """The midnight after it."""
        return self.after().begins(tz)

    def until(self, today: date) -> date:
        """Its last day; of the month that is running, today."""
        return min(self.last, today)

    def __str__(self) -> str:
        return f"{self.first:%Y-%m}"
