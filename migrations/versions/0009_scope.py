"""What the wall around each principal needs (docs/adr/0018). The wall itself is raised after every migration from
`app/access/scope.py`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0012"
branch_labels = None
depends_on = None

_ROLES = ("shouwang_everywhere", "shouwang_region", "shouwang_visitor")


def upgrade() -> None:
    op.create_index("ix_assignments_elder_id_id", "assignments", ["elder_id", sa.text("id DESC")])
    # What these do concerns all rows, whoever set them off: they look over the wall, as their owner.
    for function in ("audit_chain()", "users_keep_an_administrator()"):
        op.execute(f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = public, pg_temp")
    op.execute(
        """
        CREATE FUNCTION device_region(device_id text) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER
        SET search_path = public, pg_temp
        RETURN (SELECT d.region_code FROM devices d WHERE d.device_id = device_region.device_id)
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DO $$
        DECLARE
            wall record;
        BEGIN
            FOR wall IN SELECT policyname, tablename FROM pg_policies WHERE policyname ^@ 'wall_' LOOP
                EXECUTE format('DROP POLICY %I ON %I', wall.policyname, wall.tablename);
                EXECUTE format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', wall.tablename);
            END LOOP;
        END $$
        """
    )
    op.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM " + ", ".join(_ROLES))
    op.execute("REVOKE USAGE ON SCHEMA public FROM " + ", ".join(_ROLES))
    op.execute("DROP FUNCTION device_region(text)")
    for function in ("audit_chain()", "users_keep_an_administrator()"):
        op.execute(f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path")
    op.drop_index("ix_assignments_elder_id_id", table_name="assignments")
    # The roles stay: they are the cluster's, and other databases may use them.
