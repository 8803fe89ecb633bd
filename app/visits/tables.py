"""The ledger of visits."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.visits.vocabulary import Method


class Visit(SQLModel, table=True):
    __tablename__ = "visits"
    __table_args__ = (
        sa.CheckConstraint("ended_at IS NULL OR ended_at >= started_at", name="ends_after_it_begins"),
        sa.Index("ix_visits_elder_id_started_at", "elder_id", sa.text("started_at DESC")),
        sa.Index("ix_visits_started_at_id", sa.text("started_at DESC"), sa.text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    region_code: str = Field(max_length=12)
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id", index=True)
    method: Method = Field(sa_column=text_enum(Method, name="method"))
    started_at: datetime = Field(sa_column=moment())
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    services: list[str] = Field(default_factory=list, sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    note: str | None = None
    alarm_id: UUID | None = Field(default=None, foreign_key="alarms.id")
    qualifying: bool
    non_qualifying_reason: str | None = None
    created_at: datetime = Field(sa_column=moment())
    created_by: str = Field(max_length=64)
