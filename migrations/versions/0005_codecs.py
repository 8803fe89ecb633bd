"""Configured device profiles, the names of Zigbee gateways, and more reasons for quarantine.

Revision ID: 0005
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

_BEFORE = (
    "unknown_topic", "too_large", "empty", "not_utf8", "not_json", "not_an_object", "missing_type", "unknown_type",
    "bad_field", "names_another_device", "bad_device_id", "unknown_device", "not_storable",
)  # fmt: skip
_NEW = ("not_decoded", "no_known_field", "simulated")


def upgrade() -> None:
    op.create_table(
        "device_profiles",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("definition", postgresql.JSONB(), nullable=False),
        sa.Column(
            "source",
            sa.Enum("api", "file", name="source", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("file", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_device_profiles")),
    )
    op.create_table(
        "zigbee_names",
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("address", sa.String(length=18), nullable=False),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("topic", name=op.f("pk_zigbee_names")),
    )
    op.create_index("ix_zigbee_names_base", "zigbee_names", ["base"])
    op.create_index("ix_devices_profile", "devices", ["profile"], postgresql_where=sa.text("profile <> 'native'"))
    _reasons((*_BEFORE, *_NEW))


def downgrade() -> None:
    op.execute("DELETE FROM rejected_messages WHERE reason IN ('not_decoded', 'no_known_field', 'simulated')")
    _reasons(_BEFORE)
    op.drop_index("ix_devices_profile", table_name="devices")
    op.drop_table("zigbee_names")
    op.drop_table("device_profiles")


def _reasons(names: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{name}'" for name in names)
    op.drop_constraint(op.f("ck_rejected_messages_reason"), "rejected_messages")
    op.create_check_constraint(op.f("ck_rejected_messages_reason"), "rejected_messages", f"reason IN ({listed})")
