"""Visits of a place and of a visitor, with a time, are counted from indexes alone (docs/adr/0037)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_visits_place_code_started_at", table_name="visits", postgresql_where=sa.text("qualifying"))
    op.create_index(
        "ix_visits_place_code_started_at", "visits", [sa.text("place_code text_pattern_ops"), "started_at"],
        postgresql_include=["region_code", "elder_id", "outcome", "qualifying", "late", "voided_at"],
    )  # fmt: skip
    op.drop_index("ix_visits_visitor_id", table_name="visits")
    op.create_index(
        "ix_visits_visitor_id_started_at", "visits", ["visitor_id", "started_at"],
        postgresql_include=["region_code", "elder_id", "ended_at", "outcome", "qualifying", "voided_at",
                            "non_qualifying_code"],
    )  # fmt: skip
    op.drop_index("ix_visit_partners_visitor_id", table_name="visit_partners")
    op.create_index("ix_visit_partners_visitor_id_visit_id", "visit_partners", ["visitor_id", "visit_id"])


def downgrade() -> None:
    op.drop_index("ix_visit_partners_visitor_id_visit_id", table_name="visit_partners")
    op.create_index("ix_visit_partners_visitor_id", "visit_partners", ["visitor_id"])
    op.drop_index("ix_visits_visitor_id_started_at", table_name="visits")
    op.create_index("ix_visits_visitor_id", "visits", ["visitor_id"])
    op.drop_index("ix_visits_place_code_started_at", table_name="visits")
    op.create_index(
        "ix_visits_place_code_started_at", "visits", [sa.text("place_code text_pattern_ops"), "started_at"],
        postgresql_where=sa.text("qualifying"),
    )  # fmt: skip
