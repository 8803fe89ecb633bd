"""Work beside the ledger: what is due, kept; what an emergency asks for; special periods; rounds; who is told when."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.elders.policy import Period
from app.elders.vocabulary import CareLevel
from app.visits.vocabulary import Festival, SpecialKind, TaskKind


class CareTask(SQLModel, table=True):
    """A visit or an assessment that an alarm asked for. Whether it was done is never written here: the ledger and the
    assessments say so, also after a correction (app/visits/tasks.py)."""

    __tablename__ = "care_tasks"
    __table_args__ = (
        # However an alarm is closed, and however often that is tried, it asks once.
        sa.UniqueConstraint("alarm_id", "kind"),
        sa.Index("ix_care_tasks_elder_id", "elder_id"),
        sa.Index("ix_care_tasks_rise_at", "rise_at", postgresql_where=sa.text("rise_at IS NOT NULL")),
        sa.CheckConstraint("due_at >= asked_at", name="due_after_it_is_asked"),
        sa.CheckConstraint("(dismissed_at IS NULL) = (dismissed_reason IS NULL)", name="who_dismisses_says_why"),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    kind: TaskKind = Field(sa_column=text_enum(TaskKind, name="kind"))
    alarm_id: UUID = Field(foreign_key="alarms.id")
    because: str = Field(max_length=500)
    asked_at: datetime = Field(sa_column=moment())
    asked_on: date  # the same in local time: an assessment has a day
    due_at: datetime = Field(sa_column=moment())
    # When somebody above is told that it was not done; empty: nobody any more.
    rise_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    risen: int = Field(default=0, sa_column=sa.Column(sa.Integer, nullable=False, server_default="0"))
    dismissed_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    dismissed_reason: str | None = Field(default=None, max_length=500)
    dismissed_by: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))


class SpecialPeriod(SQLModel, table=True):
    """Days on which more is due for some people of a place (policy row 10)."""

    __tablename__ = "special_periods"
    __table_args__ = (
        sa.CheckConstraint("until >= since", name="ends_after_it_begins"),
        sa.CheckConstraint("num_nonnulls(visits_per_day, visits_total) = 1", name="per_day_or_in_total"),
        sa.CheckConstraint("visits_per_day BETWEEN 1 AND 10", name="visits_per_day_1_to_10"),
        sa.CheckConstraint("visits_total BETWEEN 1 AND 62", name="visits_total_1_to_62"),
        sa.CheckConstraint("(kind = 'festival') = (festival IS NOT NULL)", name="a_festival_says_which"),
        sa.CheckConstraint("cardinality(levels) > 0", name="somebody_is_meant"),
        # The same warning sent twice, or two workers at New Year, make one period.
        sa.Index(
            "uq_special_periods_once",
            "region_code",
            "kind",
            "name",
            "since",
            unique=True,
            postgresql_where=sa.text("cancelled_at IS NULL"),
        ),
        # A festival is planned once a year and place, also when somebody cancelled it.
        sa.UniqueConstraint("region_code", "festival", "festival_on"),
        sa.Index("ix_special_periods_until", "until", postgresql_where=sa.text("cancelled_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=100)
    kind: SpecialKind = Field(sa_column=text_enum(SpecialKind, name="kind"))
    festival: Festival | None = Field(default=None, sa_column=text_enum(Festival, name="festival", nullable=True))
    festival_on: date | None = None
    region_code: str = Field(max_length=12)  # a prefix, as scopes are
    levels: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    since: date
    until: date
    visits_per_day: int | None = None
    visits_total: int | None = None
    entered_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    created_at: datetime = Field(sa_column=moment())
    cancelled_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class FestivalSetting(SQLModel, table=True):
    """What the festivals ask for in a region: which, from how many days before, how many visits, for whom."""

    __tablename__ = "festival_settings"
    __table_args__ = (sa.CheckConstraint("lead_days BETWEEN 0 AND 30", name="lead_days_0_to_30"),)

    region_code: str = Field(primary_key=True, max_length=12)
    festivals: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    lead_days: int
    visits_total: int
    levels: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    version: int = 1


class KeptDuty(SQLModel, table=True):
    """Whether somebody has something open or overdue: a hint of where a list has to look (app/visits/kept.py). Triggers
    of migration 0016 make a row, and make it stale."""

    __tablename__ = "visit_duties"
    __table_args__ = (
        sa.Index("ix_visit_duties_look_on", "look_on", postgresql_where=sa.text("look_on IS NOT NULL")),
        sa.Index(
            "ix_visit_duties_overdue",
            sa.text("region_code text_pattern_ops"),
            sa.text("elder_id DESC"),
            postgresql_where=sa.text("overdue"),
        ),
        sa.Index(
            "ix_visit_duties_open",
            sa.text("region_code text_pattern_ops"),
            sa.text("elder_id DESC"),
            postgresql_where=sa.text("still > 0"),
        ),
    )

    elder_id: UUID = Field(primary_key=True, foreign_key="elders.id", ondelete="CASCADE")
    region_code: str = Field(max_length=12)
    care_level: CareLevel = Field(sa_column=text_enum(CareLevel, name="care_level"))
    period: Period | None = Field(default=None, sa_column=text_enum(Period, name="period", nullable=True))
    period_end: date | None = None
    per_period: int = Field(default=1, sa_column=sa.Column(sa.Integer, nullable=False, server_default="1"))
    still: int = 0
    overdue: bool = False
    look_on: date | None = None  # judged anew from this day on; empty: they left


class Round(SQLModel, table=True):
    """A round that somebody accepted."""

    __tablename__ = "rounds"
    __table_args__ = (
        sa.CheckConstraint("until >= since", name="ends_after_it_begins"),
        sa.Index("ix_rounds_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    region_code: str = Field(max_length=12)
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id")
    since: date
    until: date
    accepted_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    accepted_at: datetime = Field(sa_column=moment())
    cancelled_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class RoundStop(SQLModel, table=True):
    """Who visits whom on which day, and why."""

    __tablename__ = "round_stops"
    __table_args__ = (
        sa.UniqueConstraint("round_id", "elder_id", "day"),  # somebody is seen once a day
        sa.Index("ix_round_stops_elder_id_day", "elder_id", "day"),
        sa.Index("ix_round_stops_visitor_id_day", "visitor_id", "day"),
    )

    round_id: UUID = Field(primary_key=True, foreign_key="rounds.id")
    position: int = Field(primary_key=True)
    day: date
    due_by: date
    visitor_id: UUID = Field(foreign_key="visitors.id")
    elder_id: UUID = Field(foreign_key="elders.id")
    reasons: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False))


class DigestSetting(SQLModel, table=True):
    """When a visitor, or the visitors and offices of a region, are told what is due (local time)."""

    __tablename__ = "digest_settings"
    __table_args__ = (
        sa.CheckConstraint("num_nonnulls(region_code, visitor_id) = 1", name="of_a_region_or_a_visitor"),
        sa.UniqueConstraint("region_code"),
        sa.UniqueConstraint("visitor_id"),
    )

    id: UUID = Field(primary_key=True)
    region_code: str | None = Field(default=None, max_length=12)
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id", ondelete="CASCADE")
    at: time
    quiet_from: time
    quiet_until: time
    enabled: bool
    week_village: int
    week_township: int
    month_village: int
    month_township: int
    version: int = 1


class DigestTimer(SQLModel, table=True):
    """When a visitor or the offices of a region are looked at next. Triggers of migration 0016 make a row with the first
    pairing or office; without a time it waits for the next chosen hour."""

    __tablename__ = "digest_timers"
    __table_args__ = (
        sa.CheckConstraint("kind IN ('visitor', 'region')", name="a_visitor_or_a_region"),
        sa.Index("ix_digest_timers_next_at", "next_at"),
    )

    kind: str = Field(primary_key=True, max_length=16)
    ref: str = Field(primary_key=True, max_length=64)
    next_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
