"""Alarms, what happened to them, the policies of escalation, and the feed."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from app.alarms.vocabulary import AlarmState, Outcome
from app.db import moment, text_enum
from app.rules.verdict import AlarmKind, Severity


class Alarm(SQLModel, table=True):
    __tablename__ = "alarms"
    __table_args__ = (
        # Exactly one unresolved alarm per elder and kind: a repeat joins it.
        sa.Index(
            "uq_alarms_unresolved", "elder_id", "kind", unique=True, postgresql_where=sa.text("state <> 'resolved'")
        ),
        # What the tick looks for.
        sa.Index("ix_alarms_next_at", "next_at", postgresql_where=sa.text("next_at IS NOT NULL")),
        sa.Index("ix_alarms_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
        sa.Index("ix_alarms_elder_id_id", "elder_id", sa.text("id DESC")),
        sa.CheckConstraint("(state = 'resolved') = (next_at IS NULL)", name="unresolved_has_a_next_time"),
        sa.CheckConstraint(
            "(state = 'resolved') = (resolved_at IS NOT NULL AND outcome IS NOT NULL)", name="resolved_has_an_outcome"
        ),
        sa.CheckConstraint(
            "state <> 'acknowledged' OR (acknowledged_at IS NOT NULL AND acknowledged_by IS NOT NULL "
            "AND promise_due_at IS NOT NULL)",
            name="acknowledged_has_a_promise",
        ),
        sa.CheckConstraint(
            "state <> 'attending' OR (attended_at IS NOT NULL AND attended_by IS NOT NULL)",
            name="attending_has_somebody",
        ),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    region_code: str = Field(max_length=12)
    kind: AlarmKind = Field(sa_column=text_enum(AlarmKind, name="kind"))
    severity: Severity = Field(sa_column=text_enum(Severity, name="severity"))
    state: AlarmState = Field(sa_column=text_enum(AlarmState, name="state"))
    because: str
    trigger_event: UUID | None = None  # the journal's row
    trigger_device_id: str | None = None
    trigger_event_id: str | None = None
    occurred_at: datetime = Field(sa_column=moment())
    received_at: datetime = Field(sa_column=moment())
    late: bool = False
    raised_at: datetime = Field(sa_column=moment())
    first_sent_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    answered_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))  # first by a person, for good
    acknowledged_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    acknowledged_by: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))
    promise_due_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    attended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    attended_by: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))
    resolved_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    outcome: Outcome | None = Field(default=None, sa_column=text_enum(Outcome, name="outcome", nullable=True))
    repeats: int = 0
    # The plan: frozen when the alarm was raised; people are looked up live.
    plan: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    plan_from: datetime = Field(sa_column=moment())  # the steps' seconds count from here
    step: int = 0
    round: int = 0  # grows with each telling; see notices.round
    # open: the next step; acknowledged: when the promise passes; attending: when to ask for an outcome.
    next_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    unreachable_since: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class AlarmEntry(SQLModel, table=True):
    """One line of an alarm's history: moves, repeats, comments. Written in the transaction of the move."""

    __tablename__ = "alarm_entries"
    __table_args__ = (sa.Index("ix_alarm_entries_alarm_id", "alarm_id", "id"),)

    id: UUID = Field(primary_key=True)
    alarm_id: UUID = Field(foreign_key="alarms.id")
    at: datetime = Field(sa_column=moment())
    kind: str = Field(max_length=32)
    by: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))
    data: dict[str, Any] = Field(default_factory=dict, sa_column=sa.Column(JSONB, nullable=False))


class EscalationPolicy(SQLModel, table=True):
    """Who is told when. Applies to alarms raised after it: the nearest region, then the newest."""

    __tablename__ = "escalation_policies"

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=100)
    severity: Severity = Field(sa_column=text_enum(Severity, name="severity"))
    region_code: str = Field(max_length=12)
    steps: list[dict[str, Any]] = Field(sa_column=sa.Column(JSONB, nullable=False))
    repeat_last_every_s: int
    created_at: datetime = Field(sa_column=moment())


class FeedEvent(SQLModel, table=True):
    """A committed fact for those who watch. `seq` grows in commit order (an advisory lock sees to it)."""

    __tablename__ = "feed_events"

    seq: int | None = Field(default=None, sa_column=sa.Column(sa.BigInteger, sa.Identity(), primary_key=True))
    at: datetime = Field(sa_column=moment(index=True))
    type: str = Field(max_length=48)
    region_code: str = Field(max_length=12)
    alarm_id: UUID | None = None
    data: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))


class Heartbeat(SQLModel, table=True):
    """What each running process says of itself, so that `shouwang check` sees a dead one."""

    __tablename__ = "heartbeats"

    process: str = Field(primary_key=True, max_length=128)
    part: str = Field(primary_key=True, max_length=32)
    seen_at: datetime = Field(sa_column=moment())
    ok: bool
    detail: str
    # Ids of its data keys, the sealing one first: a rotation waits for processes that do not know a key yet.
    data_keys: list[str] = Field(
        default_factory=list, sa_column=sa.Column(ARRAY(sa.Text), nullable=False, server_default="{}")
    )
