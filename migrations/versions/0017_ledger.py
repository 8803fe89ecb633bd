"""A ledger that can be believed: chained history, entries to look at, samples; the first answer to an alarm by a person"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0010b"
branch_labels = None
depends_on = None

_JSONB = postgresql.JSONB(astext_type=sa.Text())
_NULLABLE_JSONB = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
_KINDS = (
    "impossible_travel", "overlapping", "cloned_text", "month_end_burst", "zero_duration", "round_durations",
    "late_entry", "no_door_event",
)  # fmt: skip

# A line for each of these visits that is not as its chain says, and for each version kept of it that has none. The
# arithmetic of `shouwang verify-ledger` (app/visits/chain.py) is the same, written again.
_APPEND = """
    CREATE FUNCTION ledger_append(ids uuid[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public SET timezone = 'UTC' AS $$
    DECLARE
        line record;
        head ledger_heads;
        next_hash bytea;
    BEGIN
        INSERT INTO ledger_heads (elder_id, rows, hash)
        SELECT DISTINCT v.elder_id, 0, sha256('shouwang ledger') FROM visits v WHERE v.id = ANY(ids)
        ON CONFLICT DO NOTHING;
        PERFORM 1 FROM ledger_heads h WHERE h.elder_id IN (SELECT v.elder_id FROM visits v WHERE v.id = ANY(ids))
        ORDER BY h.elder_id FOR NO KEY UPDATE;
        FOR line IN
            SELECT v.elder_id, said.of, v.id AS visit_id, said.version, sha256(convert_to(said.content, 'UTF8')) AS digest
            FROM visits v CROSS JOIN LATERAL (
                SELECT 'version' AS of, n.version, jsonb_build_array(
                           n.visit_id, n.version, n.data, n.replaced_at, n.replaced_by, n.reason)::text AS content
                FROM visit_versions n WHERE n.visit_id = v.id
                UNION ALL
                SELECT 'visit', v.version, jsonb_build_array(
                           v.id, v.elder_id, v.visitor_id, v.method, v.outcome, v.started_at, v.ended_at, v.services,
                           v.health, v.note, v.alarm_id, v.qualifying, v.non_qualifying_code, v.same_as, v.late,
                           v.override, v.override_reason, v.override_by, v.voided_at, v.void_reason, v.created_at,
                           v.created_by, v.version, v.place_code,
                           (SELECT coalesce(jsonb_agg(p.visitor_id ORDER BY p.visitor_id), '[]') FROM visit_partners p
                            WHERE p.visit_id = v.id))::text
            ) said
            WHERE v.id = ANY(ids)
            ORDER BY v.elder_id, v.created_at, v.id, said.of, said.version
        LOOP
            IF line.digest = (SELECT c.digest FROM ledger_chain c WHERE c.visit_id = line.visit_id AND c.of = line.of
                              AND (c.of = 'visit' OR c.version = line.version) ORDER BY c.seq DESC LIMIT 1) THEN
                CONTINUE;
            END IF;
            SELECT * INTO STRICT head FROM ledger_heads h WHERE h.elder_id = line.elder_id;
            next_hash := sha256(head.hash || convert_to(jsonb_build_array(
                line.elder_id, head.rows + 1, now(), line.of, line.visit_id, line.version, encode(line.digest, 'hex')
            )::text, 'UTF8'));
            INSERT INTO ledger_chain (elder_id, seq, at, of, visit_id, version, digest, previous_hash, hash)
            VALUES (line.elder_id, head.rows + 1, now(), line.of, line.visit_id, line.version, line.digest, head.hash,
                    next_hash);
            UPDATE ledger_heads SET rows = head.rows + 1, hash = next_hash WHERE elder_id = line.elder_id;
        END LOOP;
        -- Looked at soon after it ended, and once more when door events that were late have come in.
        INSERT INTO ledger_examinations (visit_id, due_at)
        SELECT v.id, greatest(now(), coalesce(v.ended_at, v.started_at) + interval '20 minutes') + again
        FROM visits v CROSS JOIN unnest(ARRAY[interval '0', interval '26 hours']) AS again WHERE v.id = ANY(ids);
    END $$
"""

# A person's right: versions are gone and notes emptied. A line for each version that is no more, and for what is left.
_ERASED = """
    CREATE FUNCTION ledger_erased(elder uuid) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public SET timezone = 'UTC' AS $$
    DECLARE
        line record;
        head ledger_heads;
        next_hash bytea;
    BEGIN
        PERFORM ledger_append(array_agg(id)) FROM visits WHERE elder_id = elder HAVING count(*) > 0;
        FOR line IN
            SELECT c.visit_id, c.version, sha256('erased') AS digest FROM ledger_chain c
            WHERE c.elder_id = elder AND c.of = 'version' AND NOT EXISTS (
                SELECT 1 FROM visit_versions n WHERE n.visit_id = c.visit_id AND n.version = c.version)
            ORDER BY c.seq
        LOOP
            SELECT * INTO STRICT head FROM ledger_heads h WHERE h.elder_id = elder;
            next_hash := sha256(head.hash || convert_to(jsonb_build_array(
                elder, head.rows + 1, now(), 'erased', line.visit_id, line.version, encode(line.digest, 'hex')
            )::text, 'UTF8'));
            INSERT INTO ledger_chain (elder_id, seq, at, of, visit_id, version, digest, previous_hash, hash)
            VALUES (elder, head.rows + 1, now(), 'erased', line.visit_id, line.version, line.digest, head.hash, next_hash);
            UPDATE ledger_heads SET rows = head.rows + 1, hash = next_hash WHERE elder_id = elder;
        END LOOP;
    END $$
"""


def _enum(name: str, *values: str, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(
        name, sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32), nullable=nullable
    )


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, postgresql.BYTEA(), nullable=False)


def upgrade() -> None:
    op.add_column("alarms", _moment("answered_at", nullable=True))
    op.execute(
        "UPDATE alarms a SET answered_at = first.at FROM (SELECT alarm_id, min(at) AS at FROM alarm_entries "
        "WHERE kind IN ('acknowledged', 'attending', 'resolved') AND by ->> 'type' IN ('user', 'contact', 'visitor') "
        "GROUP BY alarm_id) AS first WHERE first.alarm_id = a.id"
    )
    op.add_column("devices", sa.Column("model", sa.String(length=100), nullable=True))
    op.add_column("regions", sa.Column("latitude", sa.Double(), nullable=True))
    op.add_column("regions", sa.Column("longitude", sa.Double(), nullable=True))
    op.create_check_constraint(
        op.f("ck_regions_a_position_is_on_earth"),
        "regions",
        "(latitude IS NULL) = (longitude IS NULL) AND latitude BETWEEN -90 AND 90 AND longitude BETWEEN -180 AND 180",
    )
    _chain()
    _checks()
    op.execute(_APPEND)
    op.execute(_ERASED)
    op.execute("SELECT ledger_append(array_agg(id)) FROM visits HAVING count(*) > 0")


def _chain() -> None:
    op.create_table(
        "ledger_chain",
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        _moment("at"),
        sa.Column("of", sa.String(length=8), nullable=False),
        sa.Column("visit_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _bytes("digest"),
        _bytes("previous_hash"),
        _bytes("hash"),
        sa.CheckConstraint("of IN ('visit', 'version', 'erased')", name=op.f("ck_ledger_chain_of")),
        sa.PrimaryKeyConstraint("elder_id", "seq", name=op.f("pk_ledger_chain")),
    )
    op.create_index("ix_ledger_chain_visit_id", "ledger_chain", ["visit_id", "seq"])
    op.create_table(
        "ledger_heads",
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        _bytes("hash"),
        sa.Column("sealed", sa.Integer(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("elder_id", name=op.f("pk_ledger_heads")),
    )
    op.create_index("ix_ledger_heads_unsealed", "ledger_heads", ["elder_id"], postgresql_where=sa.text("rows > sealed"))
    op.create_table(
        "ledger_seals",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        _moment("at"),
        sa.Column("heads", sa.Integer(), nullable=False),
        _bytes("root"),
        _bytes("previous_hash"),
        _bytes("hash"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_ledger_seals")),
    )
    op.create_table(
        "ledger_seal_heads",
        sa.Column("seal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        _bytes("hash"),
        sa.PrimaryKeyConstraint("seal", "elder_id", name=op.f("pk_ledger_seal_heads")),
    )
    op.create_index(op.f("ix_ledger_seal_heads_elder_id"), "ledger_seal_heads", ["elder_id"])


def _checks() -> None:
    op.create_table(
        "ledger_examinations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("visit_id", sa.Uuid(), nullable=False),
        _moment("due_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_examinations")),
    )
    op.create_index(op.f("ix_ledger_examinations_due_at"), "ledger_examinations", ["due_at"])
    op.create_table(
        "ledger_checks",
        sa.Column("id", sa.Uuid(), nullable=False),
        _enum("kind", *_KINDS),
        sa.Column("key", sa.String(length=120), nullable=False),
        sa.Column("group_key", sa.String(length=80), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("visitor_id", sa.Uuid(), nullable=True),
        sa.Column("visit_id", sa.Uuid(), nullable=True),
        sa.Column("other_visit_id", sa.Uuid(), nullable=True),
        sa.Column("because", sa.String(length=500), nullable=False),
        sa.Column("figures", _JSONB, nullable=False),
        _moment("found_at"),
        _enum("state", "open", "reviewed", "withdrawn"),
        _enum("outcome", "explained", "corrected", "follow_up", "not_genuine", nullable=True),
        sa.Column("note", sa.String(length=2000), nullable=True),
        _moment("reviewed_at", nullable=True),
        sa.Column("reviewed_by", _NULLABLE_JSONB, nullable=True),
        sa.CheckConstraint(
            "(state = 'reviewed') = (outcome IS NOT NULL AND reviewed_at IS NOT NULL AND reviewed_by IS NOT NULL)",
            name=op.f("ck_ledger_checks_a_review_has_an_outcome_and_a_name"),
        ),
        sa.ForeignKeyConstraint(["visitor_id"], ["visitors.id"], name=op.f("fk_ledger_checks_visitor_id")),
        sa.ForeignKeyConstraint(["visit_id"], ["visits.id"], name=op.f("fk_ledger_checks_visit_id")),
        sa.ForeignKeyConstraint(["other_visit_id"], ["visits.id"], name=op.f("fk_ledger_checks_other_visit_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_checks")),
        sa.UniqueConstraint("kind", "key", name=op.f("uq_ledger_checks_kind_key")),
    )
    op.create_index(
        "ix_ledger_checks_region_code_id",
        "ledger_checks",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
    )
    op.create_index("ix_ledger_checks_group_key", "ledger_checks", ["group_key"])
    op.create_index(op.f("ix_ledger_checks_visitor_id"), "ledger_checks", ["visitor_id"])
    op.create_index(op.f("ix_ledger_checks_visit_id"), "ledger_checks", ["visit_id"])
    op.create_table(
        "ledger_samples",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("region_code", sa.String(length=12), nullable=False),
        sa.Column("public_seed", sa.String(length=200), nullable=False),
        sa.Column("seed_source", sa.String(length=200), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("population", sa.Integer(), nullable=False),
        _bytes("population_hash"),
        sa.Column("visit_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        _moment("drawn_at"),
        sa.Column("drawn_by", _JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_samples")),
        sa.UniqueConstraint(
            "month", "region_code", "public_seed", name=op.f("uq_ledger_samples_month_region_code_public_seed")
        ),
    )
    op.create_index(
        "ix_ledger_samples_region_code_id",
        "ledger_samples",
        [sa.literal_column("region_code text_pattern_ops"), sa.literal_column("id DESC")],
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION ledger_erased(uuid)")
    op.execute("DROP FUNCTION ledger_append(uuid[])")
    for table in (
        "ledger_samples", "ledger_checks", "ledger_examinations", "ledger_seal_heads", "ledger_seals", "ledger_heads",
        "ledger_chain",
    ):  # fmt: skip
        op.drop_table(table)
    op.drop_constraint(op.f("ck_regions_a_position_is_on_earth"), "regions", type_="check")
    for table, column in (
        ("regions", "longitude"),
        ("regions", "latitude"),
        ("devices", "model"),
        ("alarms", "answered_at"),
    ):
        op.drop_column(table, column)
