"""Devices, who wore them when, the journal of what they said, and what could not be read."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, ExcludeConstraint
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.devices.vocabulary import DeviceKind, ProfileSource, RejectReason


class Device(SQLModel, table=True):
    __tablename__ = "devices"
    __table_args__ = (
        sa.Index("ix_devices_region_code", sa.text("region_code text_pattern_ops")),
        sa.Index("ix_devices_created_at", sa.text("created_at DESC"), sa.text("device_id DESC")),
        # What decoding must know of devices of other families is loaded whole.
        sa.Index("ix_devices_profile", "profile", postgresql_where=sa.text("profile <> 'native'")),
        # Self-tests that are due, and those to be reminded of.
        sa.Index(
            "ix_devices_test_due_at", "test_due_at", "device_id", postgresql_where=sa.text("test_due_at IS NOT NULL")
        ),
        sa.Index("ix_devices_test_remind_at", "test_remind_at", postgresql_where=sa.text("test_remind_at IS NOT NULL")),
        # last_seen_at changes with every message: room on the page keeps those updates off the indexes (HOT).
        {"postgresql_with": {"fillfactor": "70"}},
    )

    device_id: str = Field(primary_key=True, max_length=128)
    kind: DeviceKind = Field(sa_column=text_enum(DeviceKind, name="kind"))
    profile: str = Field(default="native", max_length=64)
    model: str | None = Field(default=None, max_length=100)  # what the box says: false alarms are counted by it
    place: str | None = Field(default=None, max_length=100)
    region_code: str = Field(max_length=12)
    online: bool | None = None
    battery: int | None = None
    battery_said: int | None = None  # the last word of it; an empty battery is believed when it is said twice
    rssi: int | None = None
    last_seen_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    created_at: datetime = Field(sa_column=moment())
    testing_until: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    test_due_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    test_remind_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class Binding(SQLModel, table=True):
    """Who wore a device from when to when. An event belongs to whoever wore it when it happened."""

    __tablename__ = "bindings"
    __table_args__ = (
        # A device is worn by one person at a time. An expression, so that the planner does not take this GiST index to
        # find a wearer: that costs ten times the B-tree below.
        ExcludeConstraint(
            (sa.text("(device_id || '')"), "="),
            (sa.text("tstzrange(bound_at, unbound_at)"), "&&"),
            name="ex_bindings_one_wearer_at_a_time",
            using="gist",
        ),
        sa.CheckConstraint("unbound_at IS NULL OR unbound_at >= bound_at", name="ends_after_it_begins"),
        sa.Index("ix_bindings_elder_id", "elder_id"),
        sa.Index("ix_bindings_device_id_bound_at", "device_id", "bound_at"),
    )

    id: UUID = Field(primary_key=True)
    device_id: str = Field(foreign_key="devices.device_id")
    elder_id: UUID = Field(foreign_key="elders.id")
    bound_at: datetime = Field(sa_column=moment())
    unbound_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class DeviceEvent(SQLModel, table=True):
    """The journal. Without foreign keys: it outlives the register, and each would cost a row lock per event."""

    __tablename__ = "device_events"
    __table_args__ = (
        # The same (device, event id) is one event however often it arrives.
        sa.Index(
            "uq_device_events_device_id_event_id",
            "device_id",
            "event_id",
            unique=True,
            postgresql_where=sa.text("event_id IS NOT NULL"),
        ),
        sa.Index("ix_device_events_device_id_id", "device_id", sa.text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    device_id: str
    elder_id: UUID | None = None
    type: str = Field(max_length=32)
    event_id: str | None = Field(default=None, max_length=160)
    occurred_at: datetime = Field(sa_column=moment())
    device_time: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    received_at: datetime = Field(sa_column=moment())
    late: bool
    data: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))


class DeviceState(SQLModel, table=True):
    """What is known of one field of a device, so that what it says again is told from news (`app.devices.edges.State`). A
    row of another process's hand is not overwritten: `version` is compared and set. Without a foreign key, which would cost
    a row lock for each field a device ever says: only what the journal knows is written."""

    __tablename__ = "device_states"
    __table_args__ = (
        # Written with nearly every change: room on the page keeps those updates off the index (HOT).
        {"postgresql_with": {"fillfactor": "70"}},
    )

    device_id: str = Field(primary_key=True, max_length=128)
    field: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    value: str = Field(sa_column=sa.Column(sa.Text, nullable=False))
    since: datetime = Field(sa_column=moment())
    said_at: datetime = Field(sa_column=moment())
    began_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    peak: int = Field(sa_column=sa.Column(sa.SmallInteger, nullable=False))
    told_until: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    raised_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    raises: int = Field(sa_column=sa.Column(sa.Integer, nullable=False))
    stray_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    stray_heard_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = Field(sa_column=sa.Column(sa.Integer, nullable=False))


class UnclaimedDevice(SQLModel, table=True):
    """A device that speaks but that nobody registered."""

    __tablename__ = "unclaimed_devices"

    device_id: str = Field(primary_key=True, max_length=128)
    first_seen_at: datetime = Field(sa_column=moment())
    last_seen_at: datetime = Field(sa_column=moment(index=True))
    messages: int = Field(sa_column=sa.Column(sa.BigInteger, nullable=False))
    last_topic: str
    profile_guess: str = Field(max_length=64)
    online: bool | None = None  # its own word or its network's: a gateway need not be registered to be missed
    online_since: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    said: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False, server_default="{}"))


class DeviceTest(SQLModel, table=True):
    """A guided test of a device, kept as evidence: who tested, when, what was seen, how fast (docs/adr/0029)."""

    __tablename__ = "device_tests"
    __table_args__ = (
        sa.CheckConstraint("ends_at > started_at AND ends_at <= started_at + interval '15 minutes'", name="is_short"),
        sa.CheckConstraint("seen_at IS NULL OR (cancelled_at IS NULL AND event_id IS NOT NULL)", name="seen_has_event"),
        sa.Index("ix_device_tests_device_id_id", "device_id", sa.text("id DESC")),
        # Windows that are over and were not closed yet.
        sa.Index("ix_device_tests_ends_at", "ends_at", postgresql_where=sa.text("closed_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    device_id: str = Field(
        sa_column=sa.Column(sa.String(128), sa.ForeignKey("devices.device_id", ondelete="CASCADE"), nullable=False)
    )
    elder_id: UUID | None = None
    expects: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    started_at: datetime = Field(sa_column=moment())
    ends_at: datetime = Field(sa_column=moment())
    started_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    note: str | None = Field(default=None, max_length=500)
    seen_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    event_id: UUID | None = None
    event_type: str | None = Field(default=None, max_length=32)
    cancelled_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    closed_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class RejectedMessage(SQLModel, table=True):
    """Quarantine: the whole message, why it could not be used, and what would mend it."""

    __tablename__ = "rejected_messages"
    __table_args__ = (
        sa.CheckConstraint("num_nonnulls(payload, payload_sealed) = 1", name="sealed_or_older"),
        sa.Index("ix_rejected_messages_device_id", "device_id"),
        sa.Index("ix_rejected_messages_unsealed", "id", postgresql_where=sa.text("payload IS NOT NULL")),
        # What a device that is to be claimed sent last.
        sa.Index(
            "ix_rejected_messages_device_id_id",
            "device_id",
            sa.text("id DESC"),
            postgresql_where=sa.text("device_id IS NOT NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    received_at: datetime = Field(sa_column=moment())
    topic: str
    device_id: str | None = None
    reason: RejectReason = Field(sa_column=text_enum(RejectReason, name="reason"))
    detail: str
    # It may hold anything, so it is sealed. `payload` only in rows older than that, until a worker has sealed them.
    payload_sealed: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA), repr=False)
    payload: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA), repr=False)


class DeviceCredential(SQLModel, table=True):
    """What a device logs in to the broker with. The password itself is kept nowhere: it is shown once. One row a device;
    a revoked one has no hash, so that no broker can let it in. A trigger tells the brokers of every change."""

    __tablename__ = "device_credentials"
    __table_args__ = (
        sa.CheckConstraint("(password_hash IS NULL) = (revoked_at IS NOT NULL)", name="revoked_has_no_password"),
    )

    device_id: str = Field(
        sa_column=sa.Column(sa.String(128), sa.ForeignKey("devices.device_id", ondelete="CASCADE"), primary_key=True)
    )
    username: str = Field(sa_column=sa.Column(sa.Text, nullable=False, unique=True))
    password_hash: str | None = Field(default=None, sa_column=sa.Column(sa.Text), repr=False)
    issued_at: datetime = Field(sa_column=moment())
    rotated_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class DeviceProfile(SQLModel, table=True):
    """A configured profile as its deployer wrote it. A withdrawn one stays as a row: brokers keep subscriptions for
    clients that are away, and its topic must still be given up."""

    __tablename__ = "device_profiles"

    name: str = Field(primary_key=True, max_length=64)
    definition: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    source: ProfileSource = Field(sa_column=text_enum(ProfileSource, name="source"))
    file: str | None = Field(default=None, max_length=255)
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    withdrawn_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class ZigbeeName(SQLModel, table=True):
    """Which Zigbee device a gateway's name stands for, as its `bridge/devices` said last."""

    __tablename__ = "zigbee_names"
    __table_args__ = (sa.Index("ix_zigbee_names_base", "base"), sa.Index("ix_zigbee_names_address", "address"))

    topic: str = Field(primary_key=True)
    base: str
    address: str = Field(max_length=18)
    model: str | None = None
    told_at: datetime = Field(sa_column=moment())
