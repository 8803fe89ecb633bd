"""device credentials"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_credentials",
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(password_hash IS NULL) = (revoked_at IS NOT NULL)",
            name=op.f("ck_device_credentials_revoked_has_no_password"),
        ),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.device_id"], name=op.f("fk_device_credentials_device_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_device_credentials")),
        sa.UniqueConstraint("username", name=op.f("uq_device_credentials_username")),
    )
    # However a row changes or vanishes (with its device, by hand), whoever keeps a broker in step looks at once.
    op.execute(
        """
        CREATE FUNCTION device_credentials_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('shouwang', 'credentials');
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER tell_brokers AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON device_credentials
        FOR EACH STATEMENT EXECUTE FUNCTION device_credentials_changed()
        """
    )


def downgrade() -> None:
    op.drop_table("device_credentials")
    op.execute("DROP FUNCTION device_credentials_changed()")
