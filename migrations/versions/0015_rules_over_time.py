"""rules over time: the state of homes, settings, periods, and their kinds of alarms"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_BEFORE = ("sos", "fall", "smoke", "gas", "water_leak", "reported")
_NEW = (
    "no_activity", "night_exit", "door_left_open", "bed_exit", "device_silent", "battery_low", "tamper", "flapping",
    "clock_wrong", "bridge_offline",
)  # fmt: skip


def _kinds(names: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_alarms_kind"), "alarms", type_="check")
    quoted = ", ".join(f"'{name}'" for name in names)
    # Every row fits already: it is checked without keeping writers out.
    op.execute(f"ALTER TABLE alarms ADD CONSTRAINT ck_alarms_kind CHECK (kind IN ({quoted})) NOT VALID")
    op.execute("ALTER TABLE alarms VALIDATE CONSTRAINT ck_alarms_kind")


def upgrade() -> None:
    _kinds((*_BEFORE, *_NEW))
    op.create_table(
        "home_states",
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["elder_id"], ["elders.id"], name=op.f("fk_home_states_elder_id_elders")),
        sa.PrimaryKeyConstraint("elder_id", name=op.f("pk_home_states")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_home_states_due_at", "home_states", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_table(
        "rule_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=True),
        sa.Column("elder_id", sa.Uuid(), nullable=True),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("note", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.CheckConstraint(
            "(region_code IS NULL) <> (elder_id IS NULL)", name=op.f("ck_rule_versions_of_a_region_or_of_an_elder")
        ),
        sa.ForeignKeyConstraint(["elder_id"], ["elders.id"], name=op.f("fk_rule_versions_elder_id_elders")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_versions")),
    )
    op.create_index(
        "ix_rule_versions_elder_id", "rule_versions", ["elder_id"], postgresql_where=sa.text("elder_id IS NOT NULL")
    )
    op.create_table(
        "watch_periods",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("away", "maintenance", name="kind", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("begins_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("note", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.String(length=100), nullable=True),
        sa.CheckConstraint("ends_at > begins_at", name=op.f("ck_watch_periods_ends_after_it_begins")),
        sa.CheckConstraint(
            "ends_at <= begins_at + CASE kind WHEN 'away' THEN interval '90 days' ELSE interval '7 days' END",
            name=op.f("ck_watch_periods_never_for_ever"),
        ),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (ended_by IS NULL)", name=op.f("ck_watch_periods_who_ends_it_is_known")
        ),
        sa.ForeignKeyConstraint(["elder_id"], ["elders.id"], name=op.f("fk_watch_periods_elder_id_elders")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch_periods")),
    )
    op.create_index("ix_watch_periods_elder_id", "watch_periods", ["elder_id", "ends_at"])


def downgrade() -> None:
    op.drop_table("watch_periods")
    op.drop_table("rule_versions")
    op.drop_table("home_states")
    op.execute(
        "DELETE FROM notices n USING alarms a WHERE a.id = n.alarm_id AND a.kind = ANY(ARRAY" + repr(list(_NEW)) + ")"
    )
    op.execute(
        "DELETE FROM alarm_entries n USING alarms a WHERE a.id = n.alarm_id AND a.kind = ANY(ARRAY"
        + repr(list(_NEW))
        + ")"
    )
    op.execute(
        "DELETE FROM care_tasks n USING alarms a WHERE a.id = n.alarm_id AND a.kind = ANY(ARRAY"
        + repr(list(_NEW))
        + ")"
    )
    op.execute("DELETE FROM alarms WHERE kind = ANY(ARRAY" + repr(list(_NEW)) + ")")
    _kinds(_BEFORE)
