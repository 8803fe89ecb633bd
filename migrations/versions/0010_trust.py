"""trust: sealed idempotency store and quarantine, the data keys that processes know"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "heartbeats", sa.Column("data_keys", postgresql.ARRAY(sa.Text()), nullable=False, server_default="{}")
    )
    # What was answered in the last two days cannot be sealed anew here, without the key: it is forgotten.
    op.execute("DELETE FROM idempotent_answers")
    op.drop_column("idempotent_answers", "body")
    op.drop_column("idempotent_answers", "request_hash")
    op.add_column("idempotent_answers", sa.Column("request_sealed", postgresql.BYTEA(), nullable=False))
    op.add_column("idempotent_answers", sa.Column("body_sealed", postgresql.BYTEA(), nullable=True))

    # Older quarantined messages are sealed by a worker at its next start.
    op.add_column("rejected_messages", sa.Column("payload_sealed", postgresql.BYTEA(), nullable=True))
    op.alter_column("rejected_messages", "payload", nullable=True)
    op.create_check_constraint(
        op.f("ck_rejected_messages_sealed_or_older"), "rejected_messages", "num_nonnulls(payload, payload_sealed) = 1"
    )
    op.create_index(
        "ix_rejected_messages_unsealed", "rejected_messages", ["id"], postgresql_where=sa.text("payload IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_rejected_messages_unsealed", table_name="rejected_messages")
    op.drop_constraint(op.f("ck_rejected_messages_sealed_or_older"), "rejected_messages", type_="check")
    op.execute("DELETE FROM rejected_messages WHERE payload IS NULL")
    op.alter_column("rejected_messages", "payload", nullable=False)
    op.drop_column("rejected_messages", "payload_sealed")
    op.execute("DELETE FROM idempotent_answers")
    op.drop_column("idempotent_answers", "body_sealed")
    op.drop_column("idempotent_answers", "request_sealed")
    op.add_column("idempotent_answers", sa.Column("request_hash", postgresql.BYTEA(), nullable=False))
    op.add_column("idempotent_answers", sa.Column("body", postgresql.BYTEA(), nullable=True))
    op.drop_column("heartbeats", "data_keys")
