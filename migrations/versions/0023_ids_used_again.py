"""One more reason for quarantine: an id that was another event's before.

Revision ID: 0023
Revises: 0021b
"""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0021b"
branch_labels = None
depends_on = None

_BEFORE = (
    "unknown_topic", "too_large", "empty", "not_utf8", "not_json", "not_an_object", "missing_type", "unknown_type",
    "bad_field", "names_another_device", "bad_device_id", "unknown_device", "not_storable", "not_decoded",
    "no_known_field", "simulated",
)  # fmt: skip


def upgrade() -> None:
    _reasons((*_BEFORE, "id_used_again"))


def downgrade() -> None:
    op.execute("DELETE FROM rejected_messages WHERE reason = 'id_used_again'")
    _reasons(_BEFORE)


def _reasons(names: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{name}'" for name in names)
    op.drop_constraint(op.f("ck_rejected_messages_reason"), "rejected_messages")
    op.create_check_constraint(op.f("ck_rejected_messages_reason"), "rejected_messages", f"reason IN ({listed})")
