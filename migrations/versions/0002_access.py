"""access: log-ins, API keys, limits of log-in, the chained audit log"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What a row's hash covers. The arithmetic of `shouwang verify-audit` (app/access/audit.py) is the same, written again.
_CONTENT = (
    "jsonb_build_array({row}.id, {row}.at, {row}.actor, {row}.action, {row}.subject_type, {row}.subject_id, "
    "{row}.region_code, {row}.detail, {row}.origin)::text"
)

_CHAIN = f"""
    CREATE FUNCTION audit_chain() RETURNS trigger LANGUAGE plpgsql SET timezone = 'UTC' AS $$
    DECLARE
        head audit_head;
    BEGIN
        -- The head's row lock, held until the commit, puts the writers in one order.
        SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
        NEW.id := head.rows + 1;
        NEW.previous_hash := head.hash;
        NEW.hash := sha256(head.hash || convert_to({_CONTENT.format(row="NEW")}, 'UTF8'));
        UPDATE audit_head SET rows = NEW.id, hash = NEW.hash;
        RETURN NEW;
    END $$
"""

_REFUSE = """
    CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit log is append-only: its rows are never changed or removed' USING ERRCODE = 'SW002';
    END $$
"""

_LAST_ADMINISTRATOR = """
    CREATE FUNCTION users_keep_an_administrator() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- Two administrators who disable each other at once: the second waits here and sees what the first did.
        PERFORM pg_advisory_xact_lock(7301305);
        IF NOT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND active
                       AND left(OLD.region_code, length(region_code)) = region_code) THEN
            RAISE EXCEPTION 'the last active administrator of a region stays one' USING ERRCODE = 'SW001';
        END IF;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    _accounts()
    _log_ins()
    _audit()


def _accounts() -> None:
    op.add_column("users", sa.Column("token_generation", sa.Integer(), nullable=False, server_default="0"))
    # An account for a visitor that names nobody could see nothing: it is put to rest, an administrator mends it.
    op.execute("UPDATE users SET active = false WHERE role = 'visitor' AND visitor_id IS NULL")
    op.create_check_constraint(
        op.f("ck_users_visitor_is_somebody"), "users", "role <> 'visitor' OR visitor_id IS NOT NULL OR NOT active"
    )
    op.execute(_LAST_ADMINISTRATOR)
    op.execute(
        "CREATE TRIGGER users_keep_an_administrator AFTER UPDATE OR DELETE ON users FOR EACH ROW "
        "WHEN (OLD.role = 'admin' AND OLD.active) EXECUTE FUNCTION users_keep_an_administrator()"
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("secret_hash", postgresql.BYTEA(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ ARRAY['elders:read', 'elders:write', 'alarms:read', 'alarms:write', "
            "'visits:read', 'visits:write', 'devices:read', 'devices:write', 'stats:read', 'reveal']::text[]",
            name=op.f("ck_api_keys_scopes"),
        ),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_api_keys_created_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )


def _log_ins() -> None:
    op.create_table(
        "logins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_logins_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logins")),
    )
    op.create_index(op.f("ix_logins_user_id"), "logins", ["user_id"])
    op.create_index(op.f("ix_logins_expires_at"), "logins", ["expires_at"])
    op.create_table(
        "refresh_tokens",
        sa.Column("hash", postgresql.BYTEA(), nullable=False),
        sa.Column("login_id", sa.Uuid(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["login_id"], ["logins.id"], name=op.f("fk_refresh_tokens_login_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_refresh_tokens")),
    )
    op.create_index(op.f("ix_refresh_tokens_login_id"), "refresh_tokens", ["login_id"])
    op.create_table(
        "login_tries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("bucket", postgresql.BYTEA(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", "bucket", name=op.f("pk_login_tries")),
    )
    op.create_index("ix_login_tries_bucket_at", "login_tries", ["bucket", "at"])
    op.create_index(op.f("ix_login_tries_at"), "login_tries", ["at"])
    op.create_table(
        "known_places",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("place", postgresql.BYTEA(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_known_places_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "place", name=op.f("pk_known_places")),
    )
    op.create_index(op.f("ix_known_places_last_seen_at"), "known_places", ["last_seen_at"])


def _audit() -> None:
    op.create_table(
        "audit_head",
        sa.Column("single", sa.Boolean(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("hash", postgresql.BYTEA(), nullable=False),
        sa.CheckConstraint("single", name=op.f("ck_audit_head_one_row")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_audit_head")),
    )
    op.execute("INSERT INTO audit_head (single, rows, hash) VALUES (true, 0, sha256('shouwang audit log'))")
    op.execute("ALTER TABLE audit_log RENAME TO audit_log_before")
    for index in ("pk_audit_log", "ix_audit_log_subject"):
        op.execute(f"ALTER INDEX {index} RENAME TO {index}_before")
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject_type", sa.String(length=32), nullable=False),
        sa.Column("subject_id", sa.String(length=128), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "origin", postgresql.JSONB(astext_type=sa.Text()), nullable=False, server_default=sa.text("'{}'::jsonb")
        ),
        sa.Column("previous_hash", postgresql.BYTEA(), nullable=False),
        sa.Column("hash", postgresql.BYTEA(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_subject", "audit_log", ["subject_type", "subject_id"])
    op.create_index("ix_audit_log_actor", "audit_log", [sa.literal_column("(actor ->> 'id')"), "id"])
    op.create_index(
        "ix_audit_log_region_code_id",
        "audit_log",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
    )
    op.execute(_CHAIN)
    op.execute("CREATE TRIGGER audit_chain BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_chain()")
    op.execute(
        "INSERT INTO audit_log (at, actor, action, subject_type, subject_id, region_code, detail) "
        "SELECT at, actor, action, subject_type, subject_id, region_code, detail FROM audit_log_before ORDER BY id"
    )
    op.execute("DROP TABLE audit_log_before")
    op.execute(_REFUSE)
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )
    op.execute(
        "CREATE TRIGGER audit_head_stays BEFORE DELETE OR TRUNCATE ON audit_head "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE audit_log RENAME TO audit_log_chained")
    for index in ("pk_audit_log", "ix_audit_log_subject"):
        op.execute(f"ALTER INDEX {index} RENAME TO {index}_chained")
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject_type", sa.String(length=32), nullable=False),
        sa.Column("subject_id", sa.String(length=128), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_subject", "audit_log", ["subject_type", "subject_id"], unique=False)
    op.execute(
        "INSERT INTO audit_log (at, actor, action, subject_type, subject_id, region_code, detail) "
        "SELECT at, actor, action, subject_type, subject_id, region_code, detail FROM audit_log_chained ORDER BY id"
    )
    op.execute("DROP TABLE audit_log_chained")
    op.execute("DROP TABLE audit_head")
    op.execute("DROP FUNCTION audit_chain()")
    op.execute("DROP FUNCTION audit_refuse()")
    for table in ("known_places", "login_tries", "refresh_tokens", "logins", "api_keys"):
        op.drop_table(table)
    op.execute("DROP TRIGGER users_keep_an_administrator ON users")
    op.execute("DROP FUNCTION users_keep_an_administrator()")
    op.drop_constraint(op.f("ck_users_visitor_is_somebody"), "users", type_="check")
    op.drop_column("users", "token_generation")
