"""Volunteers' credit, training sessions and the village station's activities (policy rows 22-25, 40-42, 46)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.elders.vocabulary import Service


class CreditStatement(SQLModel, table=True):
    """What a visitor did in some months, for their school: without any elder's identity. Revoked when an entry it counts
    was voided or changed."""

    __tablename__ = "credit_statements"
    __table_args__ = (
        sa.Index("ix_credit_statements_visitor_id_id", "visitor_id", sa.text("id DESC")),
        sa.CheckConstraint("until >= since", name="ends_after_it_begins"),
        sa.CheckConstraint("(revoked_at IS NULL) = (revoked_reason IS NULL)", name="revoking_has_a_reason"),
    )

    id: UUID = Field(primary_key=True)
    number: str = Field(max_length=16, unique=True)
    code: str = Field(max_length=16)
    visitor_id: UUID = Field(foreign_key="visitors.id")
    holder: str = Field(max_length=100)
    organisation: str | None = Field(default=None, max_length=200)
    since: date
    until: date
    visits: int
    minutes: int
    lines: list[dict[str, Any]] = Field(sa_column=sa.Column(JSONB, nullable=False))
    issued_at: datetime = Field(sa_column=moment())
    issued_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    revoked_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    revoked_reason: str | None = Field(default=None, max_length=500)


class CreditedVisit(SQLModel, table=True):
    """Which entries a statement counts, and with what."""

    __tablename__ = "credited_visits"

    statement_id: UUID = Field(primary_key=True, foreign_key="credit_statements.id")
    visit_id: UUID = Field(primary_key=True, foreign_key="visits.id", index=True)
    started_at: datetime = Field(sa_column=moment())
    minutes: int


class TrainingSession(SQLModel, table=True):
    """A meeting that trains and looks back at the last stage (policy row 42)."""

    __tablename__ = "training_sessions"
    __table_args__ = (
        sa.Index("ix_training_sessions_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
        sa.CheckConstraint("guests >= 0", name="guests_are_counted"),
    )

    id: UUID = Field(primary_key=True)
    region_code: str = Field(max_length=12, foreign_key="regions.code")
    held_on: date
    place: str = Field(max_length=200)
    topic: str = Field(max_length=200)
    in_charge: str = Field(max_length=100)
    visitor_ids: list[UUID] = Field(sa_column=sa.Column(ARRAY(sa.Uuid), nullable=False))
    guests: int = 0
    review: str = Field(max_length=4000)
    next_steps: str | None = Field(default=None, max_length=4000)
    created_at: datetime = Field(sa_column=moment())
    created_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    version: int = 1


class StationActivity(SQLModel, table=True):
    """A line of the village station's activity log (policy rows 33 and 41)."""

    __tablename__ = "station_activities"
    __table_args__ = (
        sa.Index("ix_station_activities_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
        sa.CheckConstraint("elders >= 0", name="elders_are_counted"),
    )

    id: UUID = Field(primary_key=True)
    region_code: str = Field(max_length=12, foreign_key="regions.code")
    held_on: date
    place: str = Field(max_length=200)
    kind: Service = Field(sa_column=text_enum(Service, name="kind"))
    title: str = Field(max_length=200)
    description: str | None = Field(default=None, max_length=4000)
    visitor_ids: list[UUID] = Field(sa_column=sa.Column(ARRAY(sa.Uuid), nullable=False))
    elders: int
    created_at: datetime = Field(sa_column=moment())
    created_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    version: int = 1
