"""Subscriptions of front ends, and the log of what was delivered to them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.webhooks.vocabulary import DeliveryState, OwnerType, PauseReason


class Subscription(SQLModel, table=True):
    """A front end that wants to hear. It hears only of its region, and only while its owner may."""

    __tablename__ = "webhook_subscriptions"
    __table_args__ = (
        sa.Index(
            "ix_webhook_subscriptions_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")
        ),
        sa.Index("ix_webhook_subscriptions_owner_id", "owner_id"),
        sa.CheckConstraint("(paused_at IS NULL) = (paused_reason IS NULL)", name="pause_has_a_reason"),
        sa.CheckConstraint(
            "(previous_secret_sealed IS NULL) = (previous_secret_until IS NULL)", name="previous_secret_has_an_end"
        ),
        sa.CheckConstraint("event_types IS NULL OR cardinality(event_types) > 0", name="wants_something"),
    )

    id: UUID = Field(primary_key=True)
    owner_type: OwnerType = Field(sa_column=text_enum(OwnerType, name="owner_type"))
    owner_id: UUID  # no foreign key: an account or a key, and the subscription tells when it is gone
    owner_name: str = Field(max_length=100)
    region_code: str = Field(max_length=12)  # a scope: a prefix of region codes
    url_sealed: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False), repr=False)  # may hold a receiver's token
    description: str | None = Field(default=None, max_length=200)
    event_types: list[str] | None = Field(default=None, sa_column=sa.Column(ARRAY(sa.Text)))  # null: all
    secret_sealed: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False), repr=False)
    previous_secret_sealed: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA), repr=False)
    previous_secret_until: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    since_seq: int = Field(sa_column=sa.Column(sa.BigInteger, nullable=False))  # facts after this one
    paused_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    paused_reason: PauseReason | None = Field(
        default=None, sa_column=text_enum(PauseReason, name="paused_reason", nullable=True)
    )
    failing_since: datetime | None = Field(default=None, sa_column=moment(nullable=True))  # no success since then
    failures: int = 0  # messages given up since the last success
    created_at: datetime = Field(sa_column=moment())
    version: int = 1


class Delivery(SQLModel, table=True):
    """One message to one subscription: the queue and the log. What it says is made when it is sent, so it holds no
    person."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        # A fact goes to a subscription once.
        sa.Index("uq_webhook_deliveries_fact", "subscription_id", "seq", unique=True),
        # What a worker may claim: waiting, or held by a worker whose lease ran out.
        sa.Index(
            "ix_webhook_deliveries_due",
            "subscription_id",
            "due_at",
            postgresql_where=sa.text("state IN ('pending', 'sending')"),
        ),
        sa.Index("ix_webhook_deliveries_log", "subscription_id", sa.text("id DESC")),
        sa.Index("ix_webhook_deliveries_created_at", "created_at"),
        sa.CheckConstraint("(state = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_has_a_time"),
        sa.CheckConstraint("state NOT IN ('failed', 'withdrawn') OR error IS NOT NULL", name="failure_has_a_reason"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: UUID = Field(primary_key=True)  # the webhook-id: the same on every attempt and when sent again
    subscription_id: UUID = Field(foreign_key="webhook_subscriptions.id", ondelete="CASCADE")
    seq: int | None = Field(
        default=None, sa_column=sa.Column(sa.BigInteger)
    )  # the fact's number in the feed; null: a test
    event_type: str = Field(max_length=48)
    occurred_at: datetime = Field(sa_column=moment())
    alarm_id: UUID | None = None
    state: DeliveryState = Field(sa_column=text_enum(DeliveryState, name="state"))
    attempts: int = 0  # ever: the fence against a worker whose lease ran out
    attempts_before: int = 0  # those before it was last sent again: the schedule counts from here
    created_at: datetime = Field(sa_column=moment())
    # pending: when to try; sending: when the lease runs out.
    due_at: datetime = Field(sa_column=moment())
    last_attempt_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    delivered_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    http_status: int | None = None
    error: str | None = None


class FanOut(SQLModel, table=True):
    """How far the feed has been read for subscriptions. One row; whoever holds its lock reads on."""

    __tablename__ = "webhook_fan_out"
    __table_args__ = (sa.CheckConstraint("sole", name="one_row"),)

    sole: bool = Field(default=True, primary_key=True)
    seq: int = Field(sa_column=sa.Column(sa.BigInteger, nullable=False))
