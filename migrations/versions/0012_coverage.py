"""Coverage kept by the database: a row for each person and month, and sums of them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_LEVELS = ("key", "secondary", "general", "undetermined")
_REASONS = ("in_hospital", "in_institution", "away", "refused", "moved", "deceased", "other")
# Who is not expected to be visited (app/elders/status.py, EFFECTS; a test compares the two).
_EXCUSING = "('in_hospital', 'in_institution', 'away', 'refused', 'moved', 'deceased')"
_EVER = "date '1900-01-01'"
_DEFINER = "SECURITY DEFINER SET search_path = pg_catalog, public"


def _enum(name: str, values: tuple[str, ...], *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(
        name, sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32), nullable=nullable
    )


def _place() -> sa.Column[str]:
    return sa.Column("place_code", sa.String(length=12, collation="C"), nullable=False)


# What the rows of these people are, from these months on. Each month is judged by its last day: where the person lives,
# which class they have, and which status holds then, by what is known now. So nothing changes by time passing alone.
_ROWS = f"""
    CREATE FUNCTION coverage_rows(ids uuid[], froms date[], through date)
    RETURNS SETOF elder_months LANGUAGE sql STABLE AS $$
        WITH wanted AS (
            SELECT e.id, e.care_level, e.region_code, e.status, e.status_reason, e.status_since, e.status_until,
                   e.status_evidenced, w.from_month, c.timezone,
                   least(e.created_at, first.met) AS enrolled_at,
                   greatest(through, c.opened_through,
                            (SELECT max(m.month) FROM elder_months m WHERE m.elder_id = e.id)) AS through
            FROM unnest(ids, froms) AS w(id, from_month) JOIN elders e ON e.id = w.id CROSS JOIN coverage_calendar c
            LEFT JOIN LATERAL (
                SELECT v.started_at AS met FROM visits v
                WHERE v.elder_id = e.id AND v.outcome = 'met' AND v.voided_at IS NULL ORDER BY v.started_at LIMIT 1
            ) first ON true
        ),
        enrolled AS (SELECT w.*, (w.enrolled_at AT TIME ZONE w.timezone)::date AS enrolled_on FROM wanted w),
        months AS (
            SELECT n.*, m::date AS month, (m + interval '1 month')::date AS next_month,
                   (m + interval '1 month')::date - 1 AS last_day, greatest(m::date, n.enrolled_on) AS counted_from
            FROM enrolled n CROSS JOIN LATERAL generate_series(
                greatest(date_trunc('month', n.enrolled_on::timestamp), n.from_month::timestamp), n.through::timestamp,
                interval '1 month'
            ) m
        ),
        held AS (
            SELECT m.*, CASE WHEN s.until < m.last_day THEN 'active' ELSE coalesce(s.status, 'active') END AS held_status,
                   CASE WHEN s.until < m.last_day THEN NULL ELSE s.reason END AS held_reason,
                   s.since AS held_since, s.evidenced AS held_evidenced
            FROM months m LEFT JOIN LATERAL (
                (SELECT s.status, s.reason, s.since, s.until, s.evidence IS NOT NULL AS evidenced
                 FROM elder_statuses s WHERE s.elder_id = m.id AND s.since <= m.last_day
                 ORDER BY s.since DESC, s.recorded_at DESC, s.id DESC LIMIT 1)
                UNION ALL  -- written past the register: the person's own columns stand in for the history
                SELECT m.status, m.status_reason, coalesce(m.status_since, {_EVER}), m.status_until, m.status_evidenced
                WHERE NOT EXISTS (SELECT 1 FROM elder_statuses s WHERE s.elder_id = m.id)
                      AND coalesce(m.status_since, {_EVER}) <= m.last_day
            ) s ON true
        )
        SELECT h.id, h.month, coalesce(r.region_code, h.region_code),
               coalesce((SELECT c.care_level FROM classification_changes c
                         WHERE c.elder_id = h.id AND c.effective_on <= h.last_day ORDER BY c.seq DESC LIMIT 1),
                        (SELECT c.care_level FROM classification_changes c WHERE c.elder_id = h.id ORDER BY c.seq LIMIT 1),
                        h.care_level),
               h.counted_from,
               CASE WHEN h.held_reason IN {_EXCUSING} THEN h.held_reason END,
               coalesce(h.held_evidenced OR h.held_reason IS NULL OR h.held_reason NOT IN {_EXCUSING}, true),
               coalesce(v.visits, 0), coalesce(v.attempts, 0), v.first_on, v.last_on, coalesce(v.gap_days, 0)
        FROM held h
        LEFT JOIN LATERAL (
            SELECT r.region_code FROM residences r WHERE r.elder_id = h.id
            ORDER BY r.since <= h.last_day DESC, CASE WHEN r.since <= h.last_day THEN r.since END DESC, r.since LIMIT 1
        ) r ON true
        LEFT JOIN LATERAL (
            SELECT count(*) FILTER (WHERE qualifying)::int AS visits,
                   count(*) FILTER (WHERE attempt)::int AS attempts,
                   min(day) FILTER (WHERE qualifying) AS first_on, max(day) FILTER (WHERE qualifying) AS last_on,
                   greatest(max(gap), 0) AS gap_days
            FROM (
                SELECT qualifying, attempt, day,
                       CASE WHEN qualifying THEN day - 1 - coalesce(
                           lag(day) OVER (PARTITION BY qualifying ORDER BY day), h.counted_from - 1) END AS gap
                FROM (
                    SELECT v.qualifying, v.outcome <> 'met' AND v.voided_at IS NULL AS attempt,
                           (v.started_at AT TIME ZONE h.timezone)::date AS day
                    FROM visits v
                    WHERE v.elder_id = h.id AND v.started_at >= h.month::timestamp AT TIME ZONE h.timezone
                          AND v.started_at < h.next_month::timestamp AT TIME ZONE h.timezone
                ) days
            ) gaps
        ) v ON true
        WHERE h.held_status NOT IN ('moved', 'deceased') OR h.held_since >= h.month  -- who left before is not enrolled
    $$
"""

_REFRESH = """
    CREATE FUNCTION coverage_refresh(ids uuid[], froms date[], through date DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
        WITH fresh AS MATERIALIZED (SELECT * FROM coverage_rows(ids, froms, through)),
        gone AS (
            DELETE FROM elder_months m USING unnest(ids, froms) AS w(id, from_month)
            WHERE m.elder_id = w.id AND m.month >= w.from_month
                  AND NOT EXISTS (SELECT 1 FROM fresh f WHERE f.elder_id = m.elder_id AND f.month = m.month)
        )
        INSERT INTO elder_months AS kept SELECT * FROM fresh
        ON CONFLICT (elder_id, month) DO UPDATE SET
            place_code = excluded.place_code, care_level = excluded.care_level, counted_from = excluded.counted_from,
            excused = excluded.excused, evidenced = excluded.evidenced, visits = excluded.visits,
            attempts = excluded.attempts, first_on = excluded.first_on, last_on = excluded.last_on,
            gap_days = excluded.gap_days
        WHERE kept.* IS DISTINCT FROM excluded.*
    $$
"""

# People whose rows must be computed anew before this transaction commits. Their register entries are locked here, early:
# the rows are computed by one transaction after the other, each from what the one before left.
_MARK = f"""
    CREATE FUNCTION coverage_mark(ids uuid[], froms date[]) RETURNS void LANGUAGE plpgsql {_DEFINER} AS $$
    BEGIN
        IF ids IS NULL THEN
            RETURN;
        END IF;
        PERFORM 1 FROM elders WHERE id = ANY(ids) ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO coverage_stale (elder_id, from_month)
        SELECT id, date_trunc('month', min(from_month)::timestamp)::date FROM unnest(ids, froms) AS w(id, from_month)
        GROUP BY id;
        PERFORM set_config('shouwang.coverage', 'stale', true);
    END $$
"""

# Deferred: once at the commit, for all that the transaction changed. Other transactions' marks are not visible here, and
# none outlives its own.
_SETTLE = f"""
    CREATE FUNCTION coverage_settle() RETURNS trigger LANGUAGE plpgsql {_DEFINER} AS $$
    DECLARE
        ids uuid[];
        froms date[];
    BEGIN
        IF current_setting('shouwang.coverage', true) = 'fresh' THEN
            RETURN NULL;
        END IF;
        WITH taken AS (DELETE FROM coverage_stale RETURNING elder_id, from_month),
        each AS (SELECT elder_id, min(from_month) AS from_month FROM taken GROUP BY elder_id)
        SELECT array_agg(elder_id), array_agg(from_month) INTO ids, froms FROM each;
        PERFORM coverage_refresh(ids, froms);
        PERFORM set_config('shouwang.coverage', 'fresh', true);
        RETURN NULL;
    END $$
"""

_DAY = "(SELECT timezone FROM coverage_calendar)"
_CHANGED = {  # table: (columns that matter, the month from which they matter)
    "visits": (
        "elder_id, started_at, outcome, qualifying, voided_at", f"(row.started_at AT TIME ZONE {_DAY})::date"
    ),
    "elder_statuses": ("elder_id, status, reason, since, until, evidence", "row.since"),
    "residences": ("elder_id, region_code, since", _EVER),
    "classification_changes": (
        "elder_id, effective_on, care_level",
        "CASE WHEN EXISTS (SELECT 1 FROM classification_changes c WHERE c.elder_id = row.elder_id AND c.seq < row.seq) "
        f"THEN row.effective_on ELSE {_EVER} END",
    ),
    "elders": (
        "id, created_at, care_level, region_code, status, status_reason, status_since, status_until, status_evidenced",
        _EVER,
    ),
}  # fmt: skip
_EVENTS = {
    "insert": ("NEW TABLE AS after_it", "SELECT * FROM after_it"),
    "delete": ("OLD TABLE AS before_it", "SELECT * FROM before_it"),
    "update": (
        "OLD TABLE AS before_it NEW TABLE AS after_it",
        "(SELECT {columns} FROM before_it EXCEPT SELECT {columns} FROM after_it) UNION ALL "
        "(SELECT {columns} FROM after_it EXCEPT SELECT {columns} FROM before_it)",
    ),
}


def _watch(table: str) -> None:
    columns, month = _CHANGED[table]
    who = "id" if table == "elders" else "elder_id"
    extra = ", seq" if table == "classification_changes" else ""
    for event, (referencing, rows) in _EVENTS.items():
        if (table, event) == ("elders", "delete"):
            continue  # the rows go with their person
        name = f"coverage_{table}_{event}"
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql {_DEFINER} AS $$ BEGIN "
            f"PERFORM coverage_mark(array_agg(row.{who}), array_agg({month})) "
            f"FROM ({rows.format(columns=columns + extra)}) AS row; RETURN NULL; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table} REFERENCING {referencing} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        )


_SUMMED = """
    CREATE FUNCTION coverage_sums_{event}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public AS $$
    BEGIN
        INSERT INTO coverage_sums
            (month, place_code, care_level, excluded, enrolled, visited, unevidenced, visits, attempts)
        SELECT month, place_code, care_level, excluded, sum(sign), coalesce(sum(sign) FILTER (WHERE visits > 0), 0),
               coalesce(sum(sign) FILTER (WHERE unevidenced), 0), sum(sign * visits), sum(sign * attempts)
        FROM (SELECT *, CASE WHEN visits = 0 AND evidenced THEN excused END AS excluded,
                     visits = 0 AND NOT evidenced AS unevidenced FROM ({rows}) AS changed) AS row
        GROUP BY month, place_code, care_level, excluded
        HAVING (sum(sign), coalesce(sum(sign) FILTER (WHERE visits > 0), 0),
                coalesce(sum(sign) FILTER (WHERE unevidenced), 0), sum(sign * visits), sum(sign * attempts))
               <> (0, 0, 0, 0, 0);
        RETURN NULL;
    END $$
"""
_SIGNED = {
    "insert": "SELECT 1 AS sign, after_it.* FROM after_it",
    "delete": "SELECT -1 AS sign, before_it.* FROM before_it",
    "update": "SELECT 1 AS sign, after_it.* FROM after_it UNION ALL SELECT -1 AS sign, before_it.* FROM before_it",
}

# One batch of the next month's rows, for everybody: the database is the timer, any worker may do it, and a batch that
# was done is not done again. Returns how many people it looked at; 0: nothing is left to open.
_OPEN = f"""
    CREATE FUNCTION coverage_open(wanted date, batch int) RETURNS int LANGUAGE plpgsql {_DEFINER} AS $$
    DECLARE
        calendar coverage_calendar;
        next_month date;
        ids uuid[];
    BEGIN
        SELECT * INTO calendar FROM coverage_calendar WHERE opened_through < wanted FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN 0;
        END IF;
        next_month := (calendar.opened_through + interval '1 month')::date;
        SELECT array_agg(id) INTO ids FROM (
            SELECT id FROM elders WHERE calendar.reached IS NULL OR id > calendar.reached ORDER BY id LIMIT batch
            FOR NO KEY UPDATE
        ) AS next_ones;
        IF ids IS NULL THEN
            UPDATE coverage_calendar SET opened_through = next_month, reached = NULL;
            RETURN 1;
        END IF;
        PERFORM coverage_refresh(ids, array_fill(next_month, ARRAY[cardinality(ids)]), next_month);
        UPDATE coverage_calendar SET reached = ids[cardinality(ids)];
        RETURN cardinality(ids);
    END $$
"""


def upgrade() -> None:
    op.create_table(
        "coverage_calendar",
        sa.Column("single", sa.Boolean(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("opened_through", sa.Date(), nullable=False),
        sa.Column("reached", sa.Uuid(), nullable=True),
        sa.CheckConstraint("single", name=op.f("ck_coverage_calendar_one_row")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_coverage_calendar")),
    )
    op.execute(
        "INSERT INTO coverage_calendar (single, timezone, opened_through) VALUES (true, 'Asia/Shanghai', "
        "date_trunc('month', now() AT TIME ZONE 'Asia/Shanghai')::date)"
    )
    op.create_table(
        "elder_months",
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        _place(),
        _enum("care_level", _LEVELS),
        sa.Column("counted_from", sa.Date(), nullable=False),
        _enum("excused", _REASONS, nullable=True),
        sa.Column("evidenced", sa.Boolean(), nullable=False),
        sa.Column("visits", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_on", sa.Date(), nullable=True),
        sa.Column("last_on", sa.Date(), nullable=True),
        sa.Column("gap_days", sa.Integer(), nullable=False),
        sa.CheckConstraint("extract(day FROM month) = 1", name=op.f("ck_elder_months_a_month_is_its_first_day")),
        sa.CheckConstraint(
            "(visits > 0) = (last_on IS NOT NULL)", name=op.f("ck_elder_months_whoever_was_visited_has_a_last_day")
        ),
        sa.ForeignKeyConstraint(
            ["elder_id"], ["elders.id"], name=op.f("fk_elder_months_elder_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("elder_id", "month", name=op.f("pk_elder_months")),
    )  # fmt: skip
    op.create_index("ix_elder_months_month_place_code_elder_id", "elder_months", ["month", "place_code", "elder_id"])
    op.create_table(
        "coverage_sums",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        _place(),
        _enum("care_level", _LEVELS),
        _enum("excluded", _REASONS, nullable=True),
        *(sa.Column(name, sa.Integer(), nullable=False, server_default="0") for name in ("enrolled", "visited")),
        *(
            sa.Column(name, sa.Integer(), nullable=False, server_default="0")
            for name in ("unevidenced", "visits", "attempts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coverage_sums")),
    )
    op.create_index("ix_coverage_sums_month_place_code", "coverage_sums", ["month", "place_code"])
    op.create_table(
        "coverage_stale",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("elder_id", sa.Uuid(), nullable=False),
        sa.Column("from_month", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coverage_stale")),
    )
    for function in (_ROWS, _REFRESH, _MARK, _SETTLE, _OPEN):
        op.execute(function)
    for event, rows in _SIGNED.items():
        op.execute(_SUMMED.format(event=event, rows=rows))
        op.execute(
            f"CREATE TRIGGER coverage_sums_{event} AFTER {event.upper()} ON elder_months "
            f"REFERENCING {_EVENTS[event][0]} FOR EACH STATEMENT EXECUTE FUNCTION coverage_sums_{event}()"
        )
    op.execute(
        "CREATE CONSTRAINT TRIGGER coverage_settle AFTER INSERT ON coverage_stale DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION coverage_settle()"
    )
    for table in _CHANGED:
        _watch(table)
    op.execute(f"SELECT coverage_refresh(array_agg(id), array_agg({_EVER})) FROM elders HAVING count(*) > 0")


def downgrade() -> None:
    for table in _CHANGED:
        for event in _EVENTS:
            if (table, event) != ("elders", "delete"):
                op.execute(f"DROP TRIGGER coverage_{table}_{event} ON {table}")
                op.execute(f"DROP FUNCTION coverage_{table}_{event}()")
    op.execute("DROP FUNCTION coverage_open(date, int)")
    op.drop_table("coverage_stale")
    op.execute("DROP FUNCTION coverage_settle()")
    op.execute("DROP FUNCTION coverage_mark(uuid[], date[])")
    op.execute("DROP FUNCTION coverage_refresh(uuid[], date[], date)")
    op.execute("DROP FUNCTION coverage_rows(uuid[], date[], date)")
    op.drop_table("coverage_sums")
    op.drop_table("elder_months")
    for event in _EVENTS:
        op.execute(f"DROP FUNCTION coverage_sums_{event}()")
    op.drop_table("coverage_calendar")
