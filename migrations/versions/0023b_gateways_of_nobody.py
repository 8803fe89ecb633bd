"""Whether a device that nobody registered is online, since when; the gateway that told an address, found by it.

Revision ID: 0023b
Revises: 0022b
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023b"
down_revision = "0022b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("unclaimed_devices", sa.Column("online", sa.Boolean(), nullable=True))
    op.add_column("unclaimed_devices", sa.Column("online_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_zigbee_names_address", "zigbee_names", ["address"])


def downgrade() -> None:
    op.drop_index("ix_zigbee_names_address", table_name="zigbee_names")
    op.drop_column("unclaimed_devices", "online_since")
    op.drop_column("unclaimed_devices", "online")
