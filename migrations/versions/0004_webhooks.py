"""webhook subscriptions of front ends, and the log of deliveries"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None


def _enum(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def upgrade() -> None:
    op.create_table(
        "webhook_subscriptions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_type", _enum("owner_type", "user", "api_key"), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("owner_name", sa.String(length=100), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("url_sealed", postgresql.BYTEA(), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=True),
        sa.Column("event_types", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("secret_sealed", postgresql.BYTEA(), nullable=False),
        sa.Column("previous_secret_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column("previous_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("since_seq", sa.BigInteger(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "paused_reason",
            _enum("paused_reason", "by_hand", "gone", "failing", "owner_inactive", "owner_moved"),
            nullable=True,
        ),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(paused_at IS NULL) = (paused_reason IS NULL)", name=op.f("ck_webhook_subscriptions_pause_has_a_reason")
        ),
        sa.CheckConstraint(
            "(previous_secret_sealed IS NULL) = (previous_secret_until IS NULL)",
            name=op.f("ck_webhook_subscriptions_previous_secret_has_an_end"),
        ),
        sa.CheckConstraint(
            "event_types IS NULL OR cardinality(event_types) > 0",
            name=op.f("ck_webhook_subscriptions_wants_something"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_subscriptions")),
    )
    op.create_index(
        "ix_webhook_subscriptions_region_code_id",
        "webhook_subscriptions",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("ix_webhook_subscriptions_owner_id", "webhook_subscriptions", ["owner_id"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("event_type", sa.String(length=48), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("alarm_id", sa.Uuid(), nullable=True),
        sa.Column(
            "state",
            _enum("state", "pending", "sending", "delivered", "failed", "held", "withdrawn"),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempts_before", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(state = 'delivered') = (delivered_at IS NOT NULL)",
            name=op.f("ck_webhook_deliveries_delivered_has_a_time"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('failed', 'withdrawn') OR error IS NOT NULL",
            name=op.f("ck_webhook_deliveries_failure_has_a_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["webhook_subscriptions.id"],
            name=op.f("fk_webhook_deliveries_subscription_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index("uq_webhook_deliveries_fact", "webhook_deliveries", ["subscription_id", "seq"], unique=True)
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["subscription_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'sending')"),
    )
    op.create_index(
        "ix_webhook_deliveries_log",
        "webhook_deliveries",
        ["subscription_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("ix_webhook_deliveries_created_at", "webhook_deliveries", ["created_at"], unique=False)
    op.create_table(
        "webhook_fan_out",
        sa.Column("sole", sa.Boolean(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("sole", name=op.f("ck_webhook_fan_out_one_row")),
        sa.PrimaryKeyConstraint("sole", name=op.f("pk_webhook_fan_out")),
    )
    op.execute("INSERT INTO webhook_fan_out (sole, seq) SELECT true, coalesce(max(seq), 0) FROM feed_events")


def downgrade() -> None:
    op.drop_table("webhook_fan_out")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_subscriptions")
