"""Lists of people taken into the register: the imports, and what became of each row"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0017b"
branch_labels = None
depends_on = None

_STATES = ("uploaded", "checked", "committing", "committed", "failed", "cancelled")
_MODES = ("all_or_nothing", "good_rows_only")
_OUTCOMES = ("create", "update", "unchanged", "error")


def _words(*values: str, name: str) -> sa.Enum:
    return sa.Enum(*values, native_enum=False, create_constraint=True, name=name, length=32)


def upgrade() -> None:
    op.create_table(
        "elder_imports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("place_code", sa.String(), nullable=True),
        sa.Column("filename", sa.String(length=200), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("file_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column("state", _words(*_STATES, name="state"), nullable=False),
        sa.Column("mode", _words(*_MODES, name="mode"), nullable=True),
        sa.Column("failure", sa.String(length=500), nullable=True),
        sa.Column("notices", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("rows_total", sa.Integer(), nullable=True),
        sa.Column("rows_done", sa.Integer(), nullable=False),
        sa.Column("counts", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_by", postgresql.JSONB(), nullable=False),
        sa.Column("committed_by", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state NOT IN ('uploaded', 'committing') OR file_sealed IS NOT NULL",
            name=op.f("ck_elder_imports_work_has_a_file"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('committing', 'committed') OR mode IS NOT NULL",
            name=op.f("ck_elder_imports_a_commit_has_a_mode"),
        ),
        sa.CheckConstraint(
            "(state = 'failed') = (failure IS NOT NULL)", name=op.f("ck_elder_imports_who_fails_says_why")
        ),
        sa.CheckConstraint(
            "(holder IS NULL) = (leased_until IS NULL)", name=op.f("ck_elder_imports_a_lease_has_a_holder")
        ),
        sa.ForeignKeyConstraint(["place_code"], ["regions.code"], name=op.f("fk_elder_imports_place_code")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_elder_imports")),
    )
    op.create_index(
        "ix_elder_imports_region_code_id",
        "elder_imports",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
    )
    op.create_index(
        "ix_elder_imports_waiting",
        "elder_imports",
        ["id"],
        postgresql_where=sa.text("state IN ('uploaded', 'committing')"),
    )
    op.create_index("ix_elder_imports_created_at", "elder_imports", ["created_at"])
    op.create_table(
        "elder_import_rows",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("outcome", _words(*_OUTCOMES, name="outcome"), nullable=False),
        sa.Column("elder_id", sa.Uuid(), nullable=True),
        sa.Column("changes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("issues", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"], ["elder_imports.id"], name=op.f("fk_elder_import_rows_import_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("import_id", "row", name=op.f("pk_elder_import_rows")),
    )
    op.create_index("ix_elder_import_rows_outcome", "elder_import_rows", ["import_id", "outcome", "row"])


def downgrade() -> None:
    op.drop_table("elder_import_rows")
    op.drop_table("elder_imports")
