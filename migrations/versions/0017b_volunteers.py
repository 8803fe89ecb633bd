"""Volunteers' credit, training sessions, the activity log of village stations"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017b"
down_revision = "0017"
branch_labels = None
depends_on = None

_JSONB = postgresql.JSONB(astext_type=sa.Text())
_SERVICES = (
    "health_management", "home_safety", "daily_living", "rehabilitation", "emotional_support", "sanitation",
    "emergency_aid", "recreation", "other",
)  # fmt: skip


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "credit_statements",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("visitor_id", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("organisation", sa.String(length=200), nullable=True),
        sa.Column("since", sa.Date(), nullable=False),
        sa.Column("until", sa.Date(), nullable=False),
        sa.Column("visits", sa.Integer(), nullable=False),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.Column("lines", _JSONB, nullable=False),
        _moment("issued_at"),
        sa.Column("issued_by", _JSONB, nullable=False),
        _moment("revoked_at", nullable=True),
        sa.Column("revoked_reason", sa.String(length=500), nullable=True),
        sa.CheckConstraint("until >= since", name=op.f("ck_credit_statements_ends_after_it_begins")),
        sa.CheckConstraint(
            "(revoked_at IS NULL) = (revoked_reason IS NULL)", name=op.f("ck_credit_statements_revoking_has_a_reason")
        ),
        sa.ForeignKeyConstraint(["visitor_id"], ["visitors.id"], name=op.f("fk_credit_statements_visitor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_statements")),
        sa.UniqueConstraint("number", name=op.f("uq_credit_statements_number")),
    )
    op.create_index(
        "ix_credit_statements_visitor_id_id", "credit_statements", ["visitor_id", sa.literal_column("id DESC")]
    )
    op.create_table(
        "credited_visits",
        sa.Column("statement_id", sa.Uuid(), nullable=False),
        sa.Column("visit_id", sa.Uuid(), nullable=False),
        _moment("started_at"),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["statement_id"], ["credit_statements.id"], name=op.f("fk_credited_visits_statement_id")
        ),
        sa.ForeignKeyConstraint(["visit_id"], ["visits.id"], name=op.f("fk_credited_visits_visit_id")),
        sa.PrimaryKeyConstraint("statement_id", "visit_id", name=op.f("pk_credited_visits")),
    )
    op.create_index(op.f("ix_credited_visits_visit_id"), "credited_visits", ["visit_id"])
    op.create_table(
        "training_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("held_on", sa.Date(), nullable=False),
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column("topic", sa.String(length=200), nullable=False),
        sa.Column("in_charge", sa.String(length=100), nullable=False),
        sa.Column("visitor_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("guests", sa.Integer(), nullable=False),
        sa.Column("review", sa.String(length=4000), nullable=False),
        sa.Column("next_steps", sa.String(length=4000), nullable=True),
        _moment("created_at"),
        sa.Column("created_by", _JSONB, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("guests >= 0", name=op.f("ck_training_sessions_guests_are_counted")),
        sa.ForeignKeyConstraint(["region_code"], ["regions.code"], name=op.f("fk_training_sessions_region_code")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_sessions")),
    )
    op.create_table(
        "station_activities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("held_on", sa.Date(), nullable=False),
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(*_SERVICES, name="kind", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("description", sa.String(length=4000), nullable=True),
        sa.Column("visitor_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("elders", sa.Integer(), nullable=False),
        _moment("created_at"),
        sa.Column("created_by", _JSONB, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("elders >= 0", name=op.f("ck_station_activities_elders_are_counted")),
        sa.ForeignKeyConstraint(["region_code"], ["regions.code"], name=op.f("fk_station_activities_region_code")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_station_activities")),
    )
    for table in ("training_sessions", "station_activities"):
        op.create_index(
            f"ix_{table}_region_code_id",
            table,
            [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
        )


def downgrade() -> None:
    for table in ("station_activities", "training_sessions", "credited_visits", "credit_statements"):
        op.drop_table(table)
