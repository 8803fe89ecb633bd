"""Imports and what became of each row. The file stands here sealed, until it is used, cancelled or three days old."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.imports.vocabulary import Mode, Outcome, State


class ElderImport(SQLModel, table=True):
    __tablename__ = "elder_imports"
    __table_args__ = (
        sa.CheckConstraint(
            "state NOT IN ('uploaded', 'committing') OR file_sealed IS NOT NULL", name="work_has_a_file"
        ),
        sa.CheckConstraint("state NOT IN ('committing', 'committed') OR mode IS NOT NULL", name="a_commit_has_a_mode"),
        sa.CheckConstraint("(state = 'failed') = (failure IS NOT NULL)", name="who_fails_says_why"),
        sa.CheckConstraint("(holder IS NULL) = (leased_until IS NULL)", name="a_lease_has_a_holder"),
        sa.Index("ix_elder_imports_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
        sa.Index("ix_elder_imports_waiting", "id", postgresql_where=sa.text("state IN ('uploaded', 'committing')")),
        sa.Index("ix_elder_imports_created_at", "created_at"),
    )

    id: UUID = Field(primary_key=True)
    region_code: str = Field(max_length=12)  # the importer's scope: who sees it
    place_code: str | None = Field(default=None, foreign_key="regions.code")  # the township or village the list is of
    filename: str | None = Field(default=None, max_length=200)
    size: int
    file_sealed: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA), repr=False)
    state: State = Field(sa_column=text_enum(State, name="state"))
    mode: Mode | None = Field(default=None, sa_column=text_enum(Mode, name="mode", nullable=True))
    failure: str | None = Field(default=None, max_length=500)
    notices: list[str] = Field(
        default_factory=list, sa_column=sa.Column(ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'"))
    )
    rows_total: int | None = None
    rows_done: int = 0
    counts: dict[str, int] = Field(
        default_factory=dict, sa_column=sa.Column(JSONB, nullable=False, server_default=sa.text("'{}'"))
    )
    # Which process works on it, and until when it is believed to live.
    holder: UUID | None = None
    leased_until: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    tries: int = 0
    created_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    committed_by: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))
    created_at: datetime = Field(sa_column=moment())
    checked_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    finished_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class ElderImportRow(SQLModel, table=True):
    """One row of the list: what it would do, or did."""

    __tablename__ = "elder_import_rows"
    __table_args__ = (
        # Those that somebody has to look at.
        sa.Index("ix_elder_import_rows_outcome", "import_id", "outcome", "row"),
    )

    import_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid, sa.ForeignKey("elder_imports.id", ondelete="CASCADE"), primary_key=True)
    )
    row: int = Field(primary_key=True)
    outcome: Outcome = Field(sa_column=text_enum(Outcome, name="outcome"))
    elder_id: UUID | None = None  # no foreign key: the result outlives an erased person for a month
    changes: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    issues: list[dict[str, Any]] = Field(sa_column=sa.Column(JSONB, nullable=False))
