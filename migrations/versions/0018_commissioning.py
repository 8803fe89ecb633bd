"""Putting devices into service: guided tests and when the next is due, what unclaimed devices sent, batteries said twice"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0015"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_TEXTS = postgresql.ARRAY(sa.Text)
_TESTED = "('sos_button', 'fall_detector', 'smoke_detector', 'gas_detector', 'water_sensor')"


def upgrade() -> None:
    op.add_column("devices", sa.Column("battery_said", sa.Integer))
    for name in ("testing_until", "test_due_at", "test_remind_at"):
        op.add_column("devices", sa.Column(name, _MOMENT))
    op.execute("UPDATE devices SET battery_said = battery WHERE battery IS NOT NULL")
    op.execute(
        "UPDATE devices SET test_due_at = now() + interval '31 days', test_remind_at = now() + interval '31 days' "
        f"WHERE kind IN {_TESTED}"
    )
    op.create_index(
        "ix_devices_test_due_at", "devices", ["test_due_at", "device_id"],
        postgresql_where=sa.text("test_due_at IS NOT NULL"),
    )  # fmt: skip
    op.create_index(
        "ix_devices_test_remind_at",
        "devices",
        ["test_remind_at"],
        postgresql_where=sa.text("test_remind_at IS NOT NULL"),
    )
    op.add_column("unclaimed_devices", sa.Column("said", _TEXTS, nullable=False, server_default="{}"))
    op.create_index(
        "ix_rejected_messages_device_id_id", "rejected_messages", ["device_id", sa.text("id DESC")],
        postgresql_where=sa.text("device_id IS NOT NULL"),
    )  # fmt: skip
    op.create_table(
        "device_tests",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("device_id", sa.String(128), nullable=False),
        sa.Column("elder_id", sa.Uuid),
        sa.Column("expects", _TEXTS, nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("ends_at", _MOMENT, nullable=False),
        sa.Column("started_by", postgresql.JSONB, nullable=False),
        sa.Column("note", sa.String(500)),
        sa.Column("seen_at", _MOMENT),
        sa.Column("event_id", sa.Uuid),
        sa.Column("event_type", sa.String(32)),
        sa.Column("cancelled_at", _MOMENT),
        sa.Column("closed_at", _MOMENT),
        sa.CheckConstraint(
            "ends_at > started_at AND ends_at <= started_at + interval '15 minutes'", name="ck_device_tests_is_short"
        ),
        sa.CheckConstraint(
            "seen_at IS NULL OR (cancelled_at IS NULL AND event_id IS NOT NULL)", name="ck_device_tests_seen_has_event"
        ),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.device_id"], name="fk_device_tests_device_id_devices", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_device_tests"),
    )
    op.create_index("ix_device_tests_device_id_id", "device_tests", ["device_id", sa.text("id DESC")])
    op.create_index(
        "ix_device_tests_ends_at", "device_tests", ["ends_at"], postgresql_where=sa.text("closed_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("device_tests")
    op.drop_index("ix_rejected_messages_device_id_id", table_name="rejected_messages")
    op.drop_column("unclaimed_devices", "said")
    op.drop_index("ix_devices_test_remind_at", table_name="devices")
    op.drop_index("ix_devices_test_due_at", table_name="devices")
    for name in ("test_remind_at", "test_due_at", "testing_until", "battery_said"):
        op.drop_column("devices", name)
