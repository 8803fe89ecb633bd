"""What is known of the fields of devices, so that news is told from what is said again"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "device_states",
        sa.Column("device_id", sa.String(128), nullable=False),
        sa.Column("field", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("since", moment, nullable=False),
        sa.Column("said_at", moment, nullable=False),
        sa.Column("began_at", moment),
        sa.Column("peak", sa.SmallInteger, nullable=False),
        sa.Column("told_until", moment),
        sa.Column("raised_at", moment),
        sa.Column("raises", sa.Integer, nullable=False),
        sa.Column("stray_at", moment),
        sa.Column("stray_heard_at", moment),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("device_id", "field", name="pk_device_states"),
        postgresql_with={"fillfactor": "70"},
    )


def downgrade() -> None:
    op.drop_table("device_states")
