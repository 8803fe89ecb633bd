"""The state of each home, the settings of the rules, and periods that cover them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.rules.cover import PeriodKind

LONGEST_DAYS = {PeriodKind.AWAY: 90, PeriodKind.MAINTENANCE: 7}


class HomeState(SQLModel, table=True):
    """What is known of one home (app/rules/home.py), as JSON that only that code reads, and when to look at it next. Written
    by compare-and-set on `version`: a process that read an older one reads again."""

    __tablename__ = "home_states"
    __table_args__ = (
        # What the tick looks for.
        sa.Index("ix_home_states_due_at", "due_at", postgresql_where=sa.text("due_at IS NOT NULL")),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    elder_id: UUID = Field(primary_key=True, foreign_key="elders.id")
    state: str = Field(sa_column=sa.Column(sa.Text, nullable=False))
    due_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class RuleVersion(SQLModel, table=True):
    """Settings of the rules for a region and below, or for one elder. Never changed: a newer one takes its place from its
    day on; an empty document gives back what is inherited."""

    __tablename__ = "rule_versions"
    __table_args__ = (
        sa.CheckConstraint("(region_code IS NULL) <> (elder_id IS NULL)", name="of_a_region_or_of_an_elder"),
        sa.Index("ix_rule_versions_elder_id", "elder_id", postgresql_where=sa.text("elder_id IS NOT NULL")),
    )

    id: UUID = Field(primary_key=True)
    region_code: str | None = Field(default=None, max_length=12)
    elder_id: UUID | None = Field(default=None, foreign_key="elders.id")
    settings: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    valid_from: datetime = Field(sa_column=moment())
    note: str | None = Field(default=None, max_length=500)
    created_at: datetime = Field(sa_column=moment())
    created_by: str = Field(max_length=100)


class WatchPeriod(SQLModel, table=True):
    """Somebody is away, or a home is worked on. It always ends by itself; it may be ended sooner."""

    __tablename__ = "watch_periods"
    __table_args__ = (
        sa.CheckConstraint("ends_at > begins_at", name="ends_after_it_begins"),
        # Nobody is forgotten: an absence lasts 90 days at most, work on a home a week. Longer ones are said again.
        sa.CheckConstraint(
            "ends_at <= begins_at + CASE kind WHEN 'away' THEN interval '90 days' ELSE interval '7 days' END",
            name="never_for_ever",
        ),
        sa.CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="who_ends_it_is_known"),
        sa.Index("ix_watch_periods_elder_id", "elder_id", "ends_at"),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    kind: PeriodKind = Field(sa_column=text_enum(PeriodKind, name="kind"))
    begins_at: datetime = Field(sa_column=moment())
    ends_at: datetime = Field(sa_column=moment())
    note: str | None = Field(default=None, max_length=500)
    created_at: datetime = Field(sa_column=moment())
    created_by: str = Field(max_length=100)
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    ended_by: str | None = Field(default=None, max_length=100)
