"""What statistics are read from: one row for each person and month, and the sums of them. Kept by the database itself, in
the transaction of every change (migration 0012, docs/adr/0024); nobody else writes here."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.db import text_enum
from app.elders.vocabulary import CareLevel, StatusReason


def _place() -> sa.Column[str]:
    """Sorted byte by byte, so that one index serves both a prefix and an order."""
    return sa.Column(sa.String(12, collation="C"), nullable=False)


def _count() -> sa.Column[int]:
    return sa.Column(sa.Integer, nullable=False, server_default="0")


class CoverageCalendar(SQLModel, table=True):
    """Up to which month people have rows, and by whose midnight a day begins. `reached`: how far the next is opened."""

    __tablename__ = "coverage_calendar"
    __table_args__ = (sa.CheckConstraint("single", name="one_row"),)

    single: bool = Field(default=True, primary_key=True)
    timezone: str = Field(sa_column=sa.Column(sa.Text, nullable=False))
    opened_through: date
    reached: UUID | None = None


class ElderMonth(SQLModel, table=True):
    """A person in a month they were enrolled in, as things stand on its last day by what is known now."""

    __tablename__ = "elder_months"
    __table_args__ = (
        sa.Index("ix_elder_months_month_place_code_elder_id", "month", "place_code", "elder_id"),
        sa.CheckConstraint("extract(day FROM month) = 1", name="a_month_is_its_first_day"),
        sa.CheckConstraint("(visits > 0) = (last_on IS NOT NULL)", name="whoever_was_visited_has_a_last_day"),
    )

    elder_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid, sa.ForeignKey("elders.id", ondelete="CASCADE"), primary_key=True)
    )
    month: date = Field(primary_key=True)
    place_code: str = Field(sa_column=_place())
    care_level: CareLevel = Field(sa_column=text_enum(CareLevel, name="care_level"))
    counted_from: date  # the month's first day, or the day of enrolment
    excused: StatusReason | None = Field(default=None, sa_column=text_enum(StatusReason, name="excused", nullable=True))
    evidenced: bool
    visits: int  # those that qualify
    attempts: int
    first_on: date | None = None
    last_on: date | None = None
    gap_days: int  # the longest run of days without a visit up to the last one


class CoverageSum(SQLModel, table=True):
    """Additive: the figures of a place, month and class are the sum of its rows. Rows are added, so that nobody waits for
    anybody, and now and then replaced by their sum."""

    __tablename__ = "coverage_sums"
    __table_args__ = (sa.Index("ix_coverage_sums_month_place_code", "month", "place_code"),)

    id: int | None = Field(default=None, sa_column=sa.Column(sa.BigInteger, sa.Identity(), primary_key=True))
    month: date
    place_code: str = Field(sa_column=_place())
    care_level: CareLevel = Field(sa_column=text_enum(CareLevel, name="care_level"))
    excluded: StatusReason | None = Field(
        default=None, sa_column=text_enum(StatusReason, name="excluded", nullable=True)
    )
    enrolled: int = Field(sa_column=_count())
    visited: int = Field(sa_column=_count())
    unevidenced: int = Field(sa_column=_count())
    visits: int = Field(sa_column=_count())
    attempts: int = Field(sa_column=_count())


class CoverageStale(SQLModel, table=True):
    """Whose rows a transaction must compute anew before it commits. Empty outside transactions."""

    __tablename__ = "coverage_stale"

    id: int | None = Field(default=None, sa_column=sa.Column(sa.BigInteger, sa.Identity(), primary_key=True))
    elder_id: UUID
    from_month: date
