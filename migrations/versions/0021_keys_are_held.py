"""API keys are held by an account: first by the one that made them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("held_by", sa.Uuid))
    op.execute("UPDATE api_keys SET held_by = created_by")
    op.alter_column("api_keys", "held_by", nullable=False)
    op.create_foreign_key("fk_api_keys_held_by", "api_keys", "users", ["held_by"], ["id"])
    op.create_index("ix_api_keys_held_by", "api_keys", ["held_by"])


def downgrade() -> None:
    op.drop_column("api_keys", "held_by")
