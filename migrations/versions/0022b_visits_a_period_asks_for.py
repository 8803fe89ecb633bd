"""What is due is kept with how many visits a period asks for: what a month's outlook is made of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022b"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("visit_duties", sa.Column("per_period", sa.Integer(), server_default="1", nullable=False))
    # Where a policy of its own may ask for more than one, everybody is judged anew.
    op.execute(
        "UPDATE visit_duties SET look_on = DATE '0001-01-01' WHERE look_on IS NOT NULL AND EXISTS (SELECT FROM care_policies)"
    )


def downgrade() -> None:
    op.drop_column("visit_duties", "per_period")
