"""work beside the visits"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "festival_settings",
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("festivals", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("lead_days", sa.Integer(), nullable=False),
        sa.Column("visits_total", sa.Integer(), nullable=False),
        sa.Column("levels", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("lead_days BETWEEN 0 AND 30", name=op.f("ck_festival_settings_lead_days_0_to_30")),
        sa.PrimaryKeyConstraint("region_code", name=op.f("pk_festival_settings")),
    )
    op.create_table(
        "special_periods",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("festival", "weather", "other", name="kind", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column(
            "festival",
            sa.Enum(
                "new_year",
                "spring_festival",
                "qingming",
                "labour_day",
                "dragon_boat",
                "mid_autumn",
                "national_day",
                "double_ninth",
                name="festival",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("festival_on", sa.Date(), nullable=True),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("levels", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("since", sa.Date(), nullable=False),
        sa.Column("until", sa.Date(), nullable=False),
        sa.Column("visits_per_day", sa.Integer(), nullable=True),
        sa.Column("visits_total", sa.Integer(), nullable=True),
        sa.Column("entered_by", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(kind = 'festival') = (festival IS NOT NULL)", name=op.f("ck_special_periods_a_festival_says_which")
        ),
        sa.CheckConstraint("cardinality(levels) > 0", name=op.f("ck_special_periods_somebody_is_meant")),
        sa.CheckConstraint(
            "num_nonnulls(visits_per_day, visits_total) = 1", name=op.f("ck_special_periods_per_day_or_in_total")
        ),
        sa.CheckConstraint("until >= since", name=op.f("ck_special_periods_ends_after_it_begins")),
        sa.CheckConstraint("visits_per_day BETWEEN 1 AND 10", name=op.f("ck_special_periods_visits_per_day_1_to_10")),
        sa.CheckConstraint("visits_total BETWEEN 1 AND 62", name=op.f("ck_special_periods_visits_total_1_to_62")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_special_periods")),
        sa.UniqueConstraint(
            "region_code", "festival", "festival_on", name=op.f("uq_special_periods_region_code_festival_festival_on")
        ),
    )
    op.create_index(
        "ix_special_periods_until",
        "special_periods",
        ["until"],
        unique=False,
        postgresql_where=sa.text("cancelled_at IS NULL"),
    )
    op.create_index(
        "uq_special_periods_once",
        "special_periods",
        ["region_code", "kind", "name", "since"],
        unique=True,
        postgresql_where=sa.text("cancelled_at IS NULL"),
    )
    op.create_table(
        "care_tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("follow_up", "assessment", name="kind", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("alarm_id", sa.Uuid(), nullable=False),
        sa.Column("because", sa.String(length=500), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_on", sa.Date(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rise_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("risen", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dismissed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dismissed_reason", sa.String(length=500), nullable=True),
        sa.Column("dismissed_by", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "(dismissed_at IS NULL) = (dismissed_reason IS NULL)", name=op.f("ck_care_tasks_who_dismisses_says_why")
        ),
        sa.CheckConstraint("due_at >= asked_at", name=op.f("ck_care_tasks_due_after_it_is_asked")),
        sa.ForeignKeyConstraint(["alarm_id"], ["alarms.id"], name=op.f("fk_care_tasks_alarm_id")),
        sa.ForeignKeyConstraint(["elder_id"], ["elders.id"], name=op.f("fk_care_tasks_elder_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_care_tasks")),
        sa.UniqueConstraint("alarm_id", "kind", name=op.f("uq_care_tasks_alarm_id_kind")),
    )
    op.create_index("ix_care_tasks_elder_id", "care_tasks", ["elder_id"], unique=False)
    op.create_index(
        "ix_care_tasks_rise_at",
        "care_tasks",
        ["rise_at"],
        unique=False,
        postgresql_where=sa.text("rise_at IS NOT NULL"),
    )
    op.create_index(
        "ix_visits_alarm_id", "visits", ["alarm_id"], unique=False, postgresql_where=sa.text("alarm_id IS NOT NULL")
    )


def downgrade() -> None:

    op.drop_index("ix_visits_alarm_id", table_name="visits", postgresql_where=sa.text("alarm_id IS NOT NULL"))
    op.drop_index("ix_care_tasks_rise_at", table_name="care_tasks", postgresql_where=sa.text("rise_at IS NOT NULL"))
    op.drop_index("ix_care_tasks_elder_id", table_name="care_tasks")
    op.drop_table("care_tasks")
    op.drop_index(
        "uq_special_periods_once", table_name="special_periods", postgresql_where=sa.text("cancelled_at IS NULL")
    )
    op.drop_index(
        "ix_special_periods_until", table_name="special_periods", postgresql_where=sa.text("cancelled_at IS NULL")
    )
    op.drop_table("special_periods")
    op.drop_table("festival_settings")
