"""The ledger of visits: what was written down, what was corrected, months that are closed, and what visitors found."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.visits.vocabulary import (
    DeltaKind,
    FindingKind,
    Method,
    NotCounted,
    Stage,
    Topic,
    VisitOutcome,
)


def _actor(*, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(JSONB(none_as_null=True), nullable=nullable)


class Visit(SQLModel, table=True):
    __tablename__ = "visits"
    __table_args__ = (
        sa.CheckConstraint("ended_at IS NULL OR ended_at >= started_at", name="ends_after_it_begins"),
        sa.CheckConstraint("NOT qualifying OR non_qualifying_code IS NULL", name="who_does_not_count_says_why"),
        sa.CheckConstraint(
            "NOT qualifying OR (outcome = 'met' AND voided_at IS NULL)", name="only_a_meeting_qualifies"
        ),
        sa.CheckConstraint("(override IS NULL) = (override_reason IS NULL)", name="an_override_has_a_reason"),
        sa.CheckConstraint("(voided_at IS NULL) = (void_reason IS NULL)", name="voiding_has_a_reason"),
        sa.Index("ix_visits_elder_id_started_at", "elder_id", sa.text("started_at DESC")),
        sa.Index("ix_visits_alarm_id", "alarm_id", postgresql_where=sa.text("alarm_id IS NOT NULL")),
        sa.Index("ix_visits_started_at_id", sa.text("started_at DESC"), sa.text("id DESC")),
        # Figures of a place and time, and of a visitor and time, are read from these alone (docs/adr/0037).
        sa.Index(
            "ix_visits_place_code_started_at",
            sa.text("place_code text_pattern_ops"),
            "started_at",
            postgresql_include=["region_code", "elder_id", "outcome", "qualifying", "late", "voided_at"],
        ),
        sa.Index(
            "ix_visits_visitor_id_started_at",
            "visitor_id",
            "started_at",
            postgresql_include=[
                "region_code",
                "elder_id",
                "ended_at",
                "outcome",
                "qualifying",
                "voided_at",
                "non_qualifying_code",
            ],
        ),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    region_code: str = Field(max_length=12)  # scope: moves with the elder
    place_code: str = Field(  # statistics: where the elder lived on that day; never changes
        default="", sa_column=sa.Column(sa.String(12), nullable=False, server_default="")
    )
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id")
    method: Method = Field(sa_column=text_enum(Method, name="method"))
    outcome: VisitOutcome = Field(
        default=VisitOutcome.MET, sa_column=text_enum(VisitOutcome, name="outcome", default=VisitOutcome.MET)
    )
    started_at: datetime = Field(sa_column=moment())
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    services: list[str] = Field(default_factory=list, sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    health: dict[str, str] = Field(
        default_factory=dict, sa_column=sa.Column(JSONB, nullable=False, server_default=sa.text("'{}'"))
    )
    note: str | None = None
    alarm_id: UUID | None = Field(default=None, foreign_key="alarms.id")
    qualifying: bool
    non_qualifying_code: NotCounted | None = Field(
        default=None, sa_column=text_enum(NotCounted, name="non_qualifying_code", nullable=True)
    )
    same_as: UUID | None = None  # the visit this one is counted with
    late: bool = Field(default=False, sa_column=sa.Column(sa.Boolean, nullable=False, server_default=sa.false()))
    override: bool | None = None
    override_reason: str | None = Field(default=None, max_length=500)
    override_by: dict[str, Any] | None = Field(default=None, sa_column=_actor(nullable=True))
    voided_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    void_reason: str | None = Field(default=None, max_length=500)
    created_at: datetime = Field(sa_column=moment())
    created_by: str = Field(max_length=64)
    version: int = Field(default=1, sa_column=sa.Column(sa.Integer, nullable=False, server_default="1"))


class VisitPartner(SQLModel, table=True):
    """Who came along: the visit is one, and each of them was there."""

    __tablename__ = "visit_partners"
    __table_args__ = (sa.Index("ix_visit_partners_visitor_id_visit_id", "visitor_id", "visit_id"),)

    visit_id: UUID = Field(primary_key=True, foreign_key="visits.id")
    visitor_id: UUID = Field(primary_key=True, foreign_key="visitors.id")


class VisitVersion(SQLModel, table=True):
    """A visit as it was before a correction, and who corrected it why."""

    __tablename__ = "visit_versions"

    visit_id: UUID = Field(primary_key=True, foreign_key="visits.id")
    version: int = Field(primary_key=True)
    data: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    replaced_at: datetime = Field(sa_column=moment())
    replaced_by: dict[str, Any] = Field(sa_column=_actor())
    reason: str = Field(max_length=500)


class ClosedMonth(SQLModel, table=True):
    """A month of a region that was reported: from then on changes are deltas with a name."""

    __tablename__ = "closed_months"
    __table_args__ = (
        sa.UniqueConstraint("month", "region_code"),
        sa.CheckConstraint("extract(day FROM month) = 1", name="a_month_is_its_first_day"),
    )

    id: UUID = Field(primary_key=True)
    month: date
    region_code: str = Field(max_length=12)
    figures: dict[str, int] = Field(sa_column=sa.Column(JSONB, nullable=False))
    closed_at: datetime = Field(sa_column=moment())
    closed_by: dict[str, Any] = Field(sa_column=_actor())


class LedgerDelta(SQLModel, table=True):
    """What was changed in a closed month, by whom and why."""

    __tablename__ = "ledger_deltas"
    __table_args__ = (sa.Index("ix_ledger_deltas_closed_month_id", "closed_month_id", sa.text("id DESC")),)

    id: UUID = Field(primary_key=True)
    closed_month_id: UUID = Field(foreign_key="closed_months.id")
    visit_id: UUID = Field(foreign_key="visits.id")
    kind: DeltaKind = Field(sa_column=text_enum(DeltaKind, name="kind"))
    qualifying_before: bool | None = None
    qualifying_after: bool
    reason: str = Field(max_length=500)
    by: dict[str, Any] = Field(sa_column=_actor())
    at: datetime = Field(sa_column=moment())


class Finding(SQLModel, table=True):
    """A hazard, hardship, neglected duty or referral: open until it has ended."""

    __tablename__ = "findings"
    __table_args__ = (
        sa.Index("ix_findings_elder_id_id", "elder_id", sa.text("id DESC")),
        sa.Index("ix_findings_remind_on", "remind_on", postgresql_where=sa.text("remind_on IS NOT NULL")),
        sa.CheckConstraint("(ended_at IS NULL) = (remind_on IS NOT NULL)", name="open_ones_are_called_back"),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    visit_id: UUID | None = Field(default=None, foreign_key="visits.id", index=True)
    family_member_id: UUID | None = None
    kind: FindingKind = Field(sa_column=text_enum(FindingKind, name="kind"))
    topic: Topic = Field(sa_column=text_enum(Topic, name="topic"))
    description: str = Field(max_length=2000)
    stage: Stage = Field(sa_column=text_enum(Stage, name="stage"))
    found_at: datetime = Field(sa_column=moment())
    remind_on: date | None = None
    reminders: int = 0
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class FindingStep(SQLModel, table=True):
    """One step of a finding: who did what about it."""

    __tablename__ = "finding_steps"
    __table_args__ = (sa.Index("ix_finding_steps_finding_id", "finding_id", "id"),)

    id: UUID = Field(primary_key=True)
    finding_id: UUID = Field(foreign_key="findings.id")
    stage: Stage = Field(sa_column=text_enum(Stage, name="stage"))
    note: str | None = Field(default=None, max_length=2000)
    at: datetime = Field(sa_column=moment())
    by: dict[str, Any] = Field(sa_column=_actor())
