"""What makes the ledger one that can be believed: its chained history, entries to look at, sample lists (docs/adr/0025)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.visits.vocabulary import CheckKind, CheckState, ReviewOutcome


def _bytes() -> sa.Column[bytes]:
    return sa.Column(BYTEA, nullable=False)


class LedgerLink(SQLModel, table=True):
    """One line of an elder's chain: the digest of a visit as it stood after a change, or of a version that was kept. The
    chain holds digests only: what somebody has a right to have erased can be erased."""

    __tablename__ = "ledger_chain"
    __table_args__ = (
        sa.Index("ix_ledger_chain_visit_id", "visit_id", "seq"),
        sa.CheckConstraint("of IN ('visit', 'version', 'erased')", name="of"),
    )

    elder_id: UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True)  # 1, 2, 3 … without a gap
    at: datetime = Field(sa_column=moment())
    of: str = Field(max_length=8)
    visit_id: UUID
    version: int
    digest: bytes = Field(sa_column=_bytes())
    previous_hash: bytes = Field(sa_column=_bytes())
    hash: bytes = Field(sa_column=_bytes())


class LedgerHead(SQLModel, table=True):
    """How long an elder's chain is, its last hash, and up to where a seal has it."""

    __tablename__ = "ledger_heads"
    __table_args__ = (sa.Index("ix_ledger_heads_unsealed", "elder_id", postgresql_where=sa.text("rows > sealed")),)

    elder_id: UUID = Field(primary_key=True)
    rows: int
    hash: bytes = Field(sa_column=_bytes())
    sealed: int = Field(default=0, sa_column=sa.Column(sa.Integer, nullable=False, server_default="0"))


class LedgerSeal(SQLModel, table=True):
    """All heads that moved since the seal before, in one hash: the seals are a chain of their own."""

    __tablename__ = "ledger_seals"

    seq: int = Field(sa_column=sa.Column(sa.BigInteger, primary_key=True, autoincrement=False))
    at: datetime = Field(sa_column=moment())
    heads: int
    root: bytes = Field(sa_column=_bytes())
    previous_hash: bytes = Field(sa_column=_bytes())
    hash: bytes = Field(sa_column=_bytes())


class SealedHead(SQLModel, table=True):
    """An elder's head as a seal has it."""

    __tablename__ = "ledger_seal_heads"

    seal: int = Field(sa_column=sa.Column(sa.BigInteger, primary_key=True, autoincrement=False))
    elder_id: UUID = Field(primary_key=True, index=True)
    rows: int
    hash: bytes = Field(sa_column=_bytes())


class ExaminationDue(SQLModel, table=True):
    """Entries that are to be looked at by the rules of `app/visits/checks`. Rows are only added and taken."""

    __tablename__ = "ledger_examinations"

    id: int | None = Field(default=None, sa_column=sa.Column(sa.BigInteger, sa.Identity(), primary_key=True))
    visit_id: UUID
    due_at: datetime = Field(sa_column=moment(index=True))


class LedgerCheck(SQLModel, table=True):
    """Something a supervisor should look at, and why. It changes nothing by itself; once reviewed it does not come again."""

    __tablename__ = "ledger_checks"
    __table_args__ = (
        sa.UniqueConstraint("kind", "key"),
        sa.Index("ix_ledger_checks_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
        sa.Index("ix_ledger_checks_group_key", "group_key"),
        sa.CheckConstraint(
            "(state = 'reviewed') = (outcome IS NOT NULL AND reviewed_at IS NOT NULL AND reviewed_by IS NOT NULL)",
            name="a_review_has_an_outcome_and_a_name",
        ),
    )

    id: UUID = Field(primary_key=True)
    kind: CheckKind = Field(sa_column=text_enum(CheckKind, name="kind"))
    key: str = Field(max_length=120)  # what it is about: the same finding twice is one
    group_key: str = Field(max_length=80)  # what was examined together: a visitor's month, or one entry
    month: date
    region_code: str = Field(max_length=12)
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id", index=True)
    visit_id: UUID | None = Field(default=None, foreign_key="visits.id", index=True)
    other_visit_id: UUID | None = Field(default=None, foreign_key="visits.id")
    because: str = Field(max_length=500)
    figures: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    found_at: datetime = Field(sa_column=moment())
    state: CheckState = Field(sa_column=text_enum(CheckState, name="state"))
    outcome: ReviewOutcome | None = Field(
        default=None, sa_column=text_enum(ReviewOutcome, name="outcome", nullable=True)
    )
    note: str | None = Field(default=None, max_length=2000)
    reviewed_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    reviewed_by: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))


class LedgerSample(SQLModel, table=True):
    """A sample that was drawn. `population_hash` says from which entries, so that anybody can draw it again."""

    __tablename__ = "ledger_samples"
    __table_args__ = (
        sa.UniqueConstraint("month", "region_code", "public_seed"),
        sa.Index("ix_ledger_samples_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    month: date
    region_code: str = Field(max_length=12)
    public_seed: str = Field(max_length=200)
    seed_source: str = Field(max_length=200)
    size: int
    population: int
    population_hash: bytes = Field(sa_column=_bytes())
    visit_ids: list[UUID] = Field(sa_column=sa.Column(ARRAY(sa.Uuid), nullable=False))
    drawn_at: datetime = Field(sa_column=moment())
    drawn_by: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
