"""erasure: people who left keep a row for statistics, without identity"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010b"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("elders", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("elders", "id_number_sealed", nullable=True)
    op.alter_column("elders", "id_number_index", nullable=True)
    op.create_check_constraint(
        op.f("ck_elders_an_identity_until_erased"),
        "elders",
        "CASE WHEN erased_at IS NULL THEN num_nulls(id_number_sealed, id_number_index) = 0 "
        "ELSE num_nonnulls(id_number_sealed, id_number_index, phone_sealed, address_sealed, phone_tail_index) = 0 END",
    )
    op.create_index(
        "ix_elders_departed",
        "elders",
        ["status_since"],
        postgresql_where=sa.text("erased_at IS NULL AND status IN ('moved', 'deceased')"),
    )
    op.create_index("ix_rejected_messages_device_id", "rejected_messages", ["device_id"])


def downgrade() -> None:
    """Refused by PostgreSQL while anybody is erased: nobody can give them a number again."""
    op.drop_index("ix_rejected_messages_device_id", table_name="rejected_messages")
    op.drop_index("ix_elders_departed", table_name="elders")
    op.drop_constraint(op.f("ck_elders_an_identity_until_erased"), "elders", type_="check")
    op.alter_column("elders", "id_number_index", nullable=False)
    op.alter_column("elders", "id_number_sealed", nullable=False)
    op.drop_column("elders", "erased_at")
