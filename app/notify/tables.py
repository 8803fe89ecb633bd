"""How people are reached, and the outbox."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.notify.vocabulary import ChannelKind, DigestKind, NoticeState, Purpose, RecipientType


class Channel(SQLModel, table=True):
    """One way to reach a contact or a visitor; `position` is the order in which they are tried."""

    __tablename__ = "channels"
    __table_args__ = (
        sa.CheckConstraint("num_nonnulls(contact_id, visitor_id) = 1", name="belongs_to_one_person"),
        sa.Index("ix_channels_contact_id", "contact_id", "position"),
        sa.Index("ix_channels_visitor_id", "visitor_id", "position"),
    )

    id: UUID = Field(primary_key=True)
    contact_id: UUID | None = Field(default=None, foreign_key="contacts.id", ondelete="CASCADE")
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id", ondelete="CASCADE")
    position: int
    kind: ChannelKind = Field(sa_column=text_enum(ChannelKind, name="kind"))
    address_sealed: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False), repr=False)
    secret_sealed: bytes | None = Field(
        default=None, sa_column=sa.Column(BYTEA), repr=False
    )  # webhooks: the signing secret


class Notice(SQLModel, table=True):
    """The outbox: one message to one recipient on one channel."""

    __tablename__ = "notices"
    __table_args__ = (
        # What a worker may claim: waiting, or held by a worker whose lease ran out.
        sa.Index("ix_notices_due", "due_at", postgresql_where=sa.text("state IN ('pending', 'sending')")),
        # A recipient is told once a round on each channel, whoever plans it twice. Also finds the notices of an alarm.
        sa.Index(
            "uq_notices_round",
            "alarm_id",
            "round",
            "purpose",
            "recipient_id",
            "channel_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint("(state = 'sent' OR state = 'delivered') = (sent_at IS NOT NULL)", name="sent_has_a_time"),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failure_has_a_reason"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: UUID = Field(primary_key=True)
    alarm_id: UUID = Field(foreign_key="alarms.id")
    purpose: Purpose = Field(sa_column=text_enum(Purpose, name="purpose"))
    round: int
    reason: str  # why this one is told now, in words
    recipient_type: RecipientType = Field(sa_column=text_enum(RecipientType, name="recipient_type"))
    recipient_id: str = Field(max_length=128)
    recipient_name: str = Field(max_length=100)
    recipient_role: str = Field(max_length=32)
    channel: ChannelKind = Field(sa_column=text_enum(ChannelKind, name="channel"))
    channel_id: UUID | None = None  # no foreign key: a contact may change channels while a notice waits
    state: NoticeState = Field(sa_column=text_enum(NoticeState, name="state"))
    attempts: int = 0
    created_at: datetime = Field(sa_column=moment())
    # pending: when to try; sending: when the lease runs out.
    due_at: datetime = Field(sa_column=moment())
    sent_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    provider_id: str | None = Field(default=None, max_length=128)
    error: str | None = None


class DigestRow(SQLModel, table=True):
    """A message that is no alarm: to one visitor, once for its key. It goes through the person's channels in turn."""

    __tablename__ = "digests"
    __table_args__ = (
        # Two workers, or one after a restart, write the day's message once.
        sa.UniqueConstraint("visitor_id", "kind", "key"),
        sa.Index("ix_digests_due", "due_at", postgresql_where=sa.text("state IN ('pending', 'sending')")),
        sa.Index("ix_digests_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
        sa.CheckConstraint("(state = 'sent' OR state = 'delivered') = (sent_at IS NOT NULL)", name="sent_has_a_time"),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failure_has_a_reason"),
        sa.CheckConstraint("expires_at > created_at", name="expires_after_it_is_written"),
    )

    id: UUID = Field(primary_key=True)
    kind: DigestKind = Field(sa_column=text_enum(DigestKind, name="kind"))
    key: str = Field(max_length=100)
    visitor_id: UUID = Field(foreign_key="visitors.id", ondelete="CASCADE")
    region_code: str = Field(max_length=12)
    title: str
    text: str
    data: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    about: list[UUID] = Field(sa_column=sa.Column(ARRAY(sa.Uuid), nullable=False))  # the elders it names
    state: NoticeState = Field(sa_column=text_enum(NoticeState, name="state"))
    attempts: int = 0
    position: int = 0  # how many of the person's channels failed for good
    channel: ChannelKind | None = Field(default=None, sa_column=text_enum(ChannelKind, name="channel", nullable=True))
    created_at: datetime = Field(sa_column=moment())
    due_at: datetime = Field(sa_column=moment())
    expires_at: datetime = Field(sa_column=moment())
    sent_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    error: str | None = None
