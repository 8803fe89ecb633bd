"""what is due is kept"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0010"
branch_labels = None
depends_on = None


_STALE = "DATE '0001-01-01'"
# What a duty depends on: whatever changes here makes the row of its elder stale.
_SOURCES = ("visits", "elder_statuses", "elder_facts", "assessments", "residences", "care_tasks")
_ELDER = ("region_code", "status", "care_level", "birth_date", "ability_level", "observed", "disability_grade",
          "dementia", "circumstances")  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "digest_timers",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("ref", sa.String(length=64), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('visitor', 'region')", name=op.f("ck_digest_timers_a_visitor_or_a_region")),
        sa.PrimaryKeyConstraint("kind", "ref", name=op.f("pk_digest_timers")),
    )
    op.create_index("ix_digest_timers_next_at", "digest_timers", ["next_at"], unique=False)
    op.create_table(
        "digest_settings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=True),
        sa.Column("visitor_id", sa.Uuid(), nullable=True),
        sa.Column("at", sa.Time(), nullable=False),
        sa.Column("quiet_from", sa.Time(), nullable=False),
        sa.Column("quiet_until", sa.Time(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("week_village", sa.Integer(), nullable=False),
        sa.Column("week_township", sa.Integer(), nullable=False),
        sa.Column("month_village", sa.Integer(), nullable=False),
        sa.Column("month_township", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "num_nonnulls(region_code, visitor_id) = 1", name=op.f("ck_digest_settings_of_a_region_or_a_visitor")
        ),
        sa.ForeignKeyConstraint(
            ["visitor_id"], ["visitors.id"], name=op.f("fk_digest_settings_visitor_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_digest_settings")),
        sa.UniqueConstraint("region_code", name=op.f("uq_digest_settings_region_code")),
        sa.UniqueConstraint("visitor_id", name=op.f("uq_digest_settings_visitor_id")),
    )
    op.create_table(
        "digests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "visits.due",
                "visits.unvisited",
                "task.overdue",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("visitor_id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "sending",
                "sent",
                "delivered",
                "failed",
                "cancelled",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column(
            "channel",
            sa.Enum(
                "webhook",
                "sms",
                "voice",
                "email",
                "wecom",
                "dingtalk",
                "feishu",
                "console",
                "device",
                name="channel",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(state = 'sent' OR state = 'delivered') = (sent_at IS NOT NULL)", name=op.f("ck_digests_sent_has_a_time")
        ),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name=op.f("ck_digests_failure_has_a_reason")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_digests_expires_after_it_is_written")),
        sa.ForeignKeyConstraint(
            ["visitor_id"], ["visitors.id"], name=op.f("fk_digests_visitor_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_digests")),
        sa.UniqueConstraint("visitor_id", "kind", "key", name=op.f("uq_digests_visitor_id_kind_key")),
    )
    op.create_index(
        "ix_digests_due",
        "digests",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'sending')"),
    )
    op.create_index(
        "ix_digests_region_code_id",
        "digests",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "rounds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("visitor_id", sa.Uuid(), nullable=True),
        sa.Column("since", sa.Date(), nullable=False),
        sa.Column("until", sa.Date(), nullable=False),
        sa.Column("accepted_by", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("until >= since", name=op.f("ck_rounds_ends_after_it_begins")),
        sa.ForeignKeyConstraint(["visitor_id"], ["visitors.id"], name=op.f("fk_rounds_visitor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
    )
    op.create_index(
        "ix_rounds_region_code_id",
        "rounds",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "visit_duties",
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column(
            "care_level",
            sa.Enum(
                "key",
                "secondary",
                "general",
                "undetermined",
                name="care_level",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "period",
            sa.Enum("week", "month", name="period", native_enum=False, create_constraint=True, length=32),
            nullable=True,
        ),
        sa.Column("period_end", sa.Date(), nullable=True),
        sa.Column("still", sa.Integer(), nullable=False),
        sa.Column("overdue", sa.Boolean(), nullable=False),
        sa.Column("look_on", sa.Date(), nullable=True),
        sa.ForeignKeyConstraint(["elder_id"], ["elders.id"], name=op.f("fk_visit_duties_elder_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("elder_id", name=op.f("pk_visit_duties")),
    )
    op.create_index(
        "ix_visit_duties_look_on",
        "visit_duties",
        ["look_on"],
        unique=False,
        postgresql_where=sa.text("look_on IS NOT NULL"),
    )
    op.create_index(
        "ix_visit_duties_open",
        "visit_duties",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("elder_id DESC")],
        unique=False,
        postgresql_where=sa.text("still > 0"),
    )
    op.create_index(
        "ix_visit_duties_overdue",
        "visit_duties",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("elder_id DESC")],
        unique=False,
        postgresql_where=sa.text("overdue"),
    )
    op.create_table(
        "round_stops",
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("due_by", sa.Date(), nullable=False),
        sa.Column("visitor_id", sa.Uuid(), nullable=False),
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("reasons", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["elder_id"], ["elders.id"], name=op.f("fk_round_stops_elder_id")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_round_stops_round_id")),
        sa.ForeignKeyConstraint(["visitor_id"], ["visitors.id"], name=op.f("fk_round_stops_visitor_id")),
        sa.PrimaryKeyConstraint("round_id", "position", name=op.f("pk_round_stops")),
        sa.UniqueConstraint("round_id", "elder_id", "day", name=op.f("uq_round_stops_round_id_elder_id_day")),
    )
    op.create_index("ix_round_stops_elder_id_day", "round_stops", ["elder_id", "day"], unique=False)
    op.create_index("ix_round_stops_visitor_id_day", "round_stops", ["visitor_id", "day"], unique=False)
    _triggers()


def _function(name: str, body: str) -> None:
    """Runs as the owner of the tables: whoever writes a visit need not see what is kept of it."""
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = public, pg_temp AS $$ BEGIN {body} RETURN NULL; END $$"
    )


def _triggers() -> None:
    _function(
        "duty_made",
        f"""INSERT INTO visit_duties (elder_id, region_code, care_level, still, overdue, look_on)
            VALUES (NEW.id, NEW.region_code, NEW.care_level, 0, false, {_STALE});""",
    )
    op.execute("CREATE TRIGGER duty_made AFTER INSERT ON elders FOR EACH ROW EXECUTE FUNCTION duty_made()")
    _function(
        "duty_changed",
        f"UPDATE visit_duties SET region_code = NEW.region_code, look_on = {_STALE} WHERE elder_id = NEW.id;",
    )
    before, after = (", ".join(f"{row}.{column}" for column in _ELDER) for row in ("OLD", "NEW"))
    op.execute(
        "CREATE TRIGGER duty_changed AFTER UPDATE ON elders FOR EACH ROW "
        f"WHEN (({before}) IS DISTINCT FROM ({after})) EXECUTE FUNCTION duty_changed()"
    )
    # In one order, so that two who change many cannot wait for each other.
    _function(
        "duties_stale",
        f"""WITH touched AS (
                SELECT elder_id FROM visit_duties WHERE elder_id IN (SELECT c.elder_id FROM changed c)
                ORDER BY elder_id FOR UPDATE
            )
            UPDATE visit_duties d SET look_on = {_STALE} FROM touched t WHERE d.elder_id = t.elder_id;""",
    )
    for table in _SOURCES:
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            op.execute(
                f"CREATE TRIGGER duties_stale_{event.lower()} AFTER {event} ON {table} "
                f"REFERENCING {row} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION duties_stale()"
            )
    _function(
        "duties_by_policy",
        """UPDATE visit_duties SET look_on = least(look_on, NEW.in_force_from)
           WHERE region_code ^@ NEW.region_code::text AND look_on IS NOT NULL;""",
    )
    op.execute(
        "CREATE TRIGGER duties_by_policy AFTER INSERT OR UPDATE OF in_force_from ON care_policies FOR EACH ROW "
        "WHEN (NEW.in_force_from IS NOT NULL) EXECUTE FUNCTION duties_by_policy()"
    )
    _function(
        "duties_by_special_period",
        f"""UPDATE visit_duties SET look_on = {_STALE}
            WHERE region_code ^@ NEW.region_code::text AND look_on IS NOT NULL
              AND (period_end IS NULL OR period_end >= least(NEW.since, OLD.since));""",
    )
    op.execute(
        "CREATE TRIGGER duties_by_special_period AFTER INSERT OR UPDATE ON special_periods FOR EACH ROW "
        "EXECUTE FUNCTION duties_by_special_period()"
    )
    for table, kind, column in (("assignments", "visitor", "visitor_id"), ("duties", "region", "region_code")):
        _function(
            f"timer_by_{table}",
            f"INSERT INTO digest_timers (kind, ref) VALUES ('{kind}', NEW.{column}::text) ON CONFLICT DO NOTHING;",
        )
        op.execute(
            f"CREATE TRIGGER timer_by_{table} AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION timer_by_{table}()"
        )
    op.execute(
        f"""
        INSERT INTO visit_duties (elder_id, region_code, care_level, still, overdue, look_on)
        SELECT id, region_code, care_level, 0, false, {_STALE} FROM elders
        """
    )
    op.execute("INSERT INTO digest_timers (kind, ref) SELECT DISTINCT 'visitor', visitor_id::text FROM assignments")
    op.execute("INSERT INTO digest_timers (kind, ref) SELECT DISTINCT 'region', region_code FROM duties")


def _drop_triggers() -> None:
    for table in _SOURCES:
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER duties_stale_{event} ON {table}")
    for table, name in (("elders", "duty_made"), ("elders", "duty_changed"), ("care_policies", "duties_by_policy"),
                        ("special_periods", "duties_by_special_period"), ("assignments", "timer_by_assignments"),
                        ("duties", "timer_by_duties")):  # fmt: skip
        op.execute(f"DROP TRIGGER {name} ON {table}")
        op.execute(f"DROP FUNCTION {name}()")
    op.execute("DROP FUNCTION duties_stale()")


def downgrade() -> None:
    _drop_triggers()
    op.drop_index("ix_round_stops_visitor_id_day", table_name="round_stops")
    op.drop_index("ix_round_stops_elder_id_day", table_name="round_stops")
    op.drop_table("round_stops")
    op.drop_index("ix_visit_duties_overdue", table_name="visit_duties", postgresql_where=sa.text("overdue"))
    op.drop_index("ix_visit_duties_open", table_name="visit_duties", postgresql_where=sa.text("still > 0"))
    op.drop_index("ix_visit_duties_look_on", table_name="visit_duties", postgresql_where=sa.text("look_on IS NOT NULL"))
    op.drop_table("visit_duties")
    op.drop_index("ix_rounds_region_code_id", table_name="rounds")
    op.drop_table("rounds")
    op.drop_index("ix_digests_region_code_id", table_name="digests")
    op.drop_index("ix_digests_due", table_name="digests", postgresql_where=sa.text("state IN ('pending', 'sending')"))
    op.drop_table("digests")
    op.drop_table("digest_settings")
    op.drop_index("ix_digest_timers_next_at", table_name="digest_timers")
    op.drop_table("digest_timers")
