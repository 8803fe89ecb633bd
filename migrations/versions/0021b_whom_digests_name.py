"""Messages that are no alarms say whom they name"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021b"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("digests", sa.Column("about", postgresql.ARRAY(sa.Uuid), nullable=False, server_default="{}"))
    op.execute(
        """
        UPDATE digests d SET about = ARRAY(
            SELECT DISTINCT CAST(named #>> '{}' AS uuid) FROM (
                SELECT jsonb_path_query(d.data, '$.**.elder.id') UNION ALL
                SELECT jsonb_path_query(d.data, '$.unvisited[*].id')
            ) AS found(named)
        )
        """
    )
    op.alter_column("digests", "about", server_default=None)


def downgrade() -> None:
    op.drop_column("digests", "about")
