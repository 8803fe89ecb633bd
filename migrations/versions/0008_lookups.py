"""Indexes that hot look-ups want, and none that mislead the planner or serve nothing"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _one_wearer("device_id || ''")
    op.drop_index("ix_notices_alarm_id", table_name="notices")
    op.drop_index("ix_elders_reclassify_on", table_name="elders")
    op.create_index(
        "ix_elders_reclassify_on",
        "elders",
        ["reclassify_on", "id"],
        postgresql_where=sa.text("reclassify_on IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_elders_reclassify_on", table_name="elders")
    op.create_index(
        "ix_elders_reclassify_on", "elders", ["reclassify_on"], postgresql_where=sa.text("reclassify_on IS NOT NULL")
    )
    op.create_index("ix_notices_alarm_id", "notices", ["alarm_id"])
    _one_wearer("device_id")


def _one_wearer(device: str) -> None:
    """The same rule by another expression: as `device_id` itself the planner takes its GiST index to find a wearer, which
    costs ten times the B-tree."""
    op.drop_constraint("ex_bindings_one_wearer_at_a_time", "bindings")
    op.execute(
        "ALTER TABLE bindings ADD CONSTRAINT ex_bindings_one_wearer_at_a_time "
        f"EXCLUDE USING gist (({device}) WITH =, tstzrange(bound_at, unbound_at) WITH &&)"
    )
