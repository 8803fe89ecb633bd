"""The register: regions and their offices, elders, contacts, visitors, assignments.

Sealed columns hold AES-GCM text bound to their record (`access/sealing.py`); the index column is a keyed hash.
"""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.elders.vocabulary import AbilityLevel, AssignmentRole, DutyRole, ElderStatus, Observed, RegionLevel, Sex


def _sealed(*, nullable: bool = True) -> sa.Column[bytes]:
    return sa.Column(BYTEA, nullable=nullable)


class Region(SQLModel, table=True):
    """A district, township or village, by its 12-digit code."""

    __tablename__ = "regions"
    __table_args__ = (sa.CheckConstraint("code ~ '^[0-9]{12}$'", name="code_has_12_digits"),)

    code: str = Field(primary_key=True, max_length=12)
    name: str = Field(max_length=100)
    level: RegionLevel = Field(sa_column=text_enum(RegionLevel, name="level"))
    parent_code: str | None = Field(default=None, foreign_key="regions.code")
    created_at: datetime = Field(sa_column=moment())


class Duty(SQLModel, table=True):
    """Who holds an office of a region, from a day to a day (the last day included)."""

    __tablename__ = "duties"
    __table_args__ = (
        sa.CheckConstraint("until IS NULL OR until >= since", name="ends_after_it_begins"),
        sa.Index("ix_duties_region_code_role", "region_code", "role"),
    )

    id: UUID = Field(primary_key=True)
    region_code: str = Field(foreign_key="regions.code")
    role: DutyRole = Field(sa_column=text_enum(DutyRole, name="role"))
    visitor_id: UUID = Field(foreign_key="visitors.id", index=True)
    since: date
    until: date | None = None
    created_at: datetime = Field(sa_column=moment())


class Elder(SQLModel, table=True):
    __tablename__ = "elders"
    __table_args__ = (
        sa.CheckConstraint("disability_grade BETWEEN 1 AND 4", name="disability_grade_1_to_4"),
        # Lists within a scope: code prefix, newest first.
        sa.Index("ix_elders_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=100)
    sex: Sex = Field(sa_column=text_enum(Sex, name="sex"))
    birth_date: date
    id_number_sealed: bytes = Field(sa_column=_sealed(nullable=False))
    # One person is enrolled once, found without opening any seal.
    id_number_index: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False, unique=True))
    phone_sealed: bytes | None = Field(default=None, sa_column=_sealed())
    address_sealed: bytes | None = Field(default=None, sa_column=_sealed())
    region_code: str = Field(foreign_key="regions.code")
    tags: list[str] = Field(default_factory=list, sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    ability_level: AbilityLevel | None = Field(
        default=None, sa_column=text_enum(AbilityLevel, name="ability_level", nullable=True)
    )
    ability_assessed_on: date | None = None
    observed: Observed | None = Field(default=None, sa_column=text_enum(Observed, name="observed", nullable=True))
    disability_grade: int | None = None
    dementia: bool = False
    services: list[str] = Field(default_factory=list, sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    status: ElderStatus = Field(sa_column=text_enum(ElderStatus, name="status"))
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    version: int = 1


class Contact(SQLModel, table=True):
    """A person to tell about one elder. Emergency contacts are told at once, in parallel."""

    __tablename__ = "contacts"

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id", index=True)
    name: str = Field(max_length=100)
    relation: str = Field(max_length=50)
    phone_sealed: bytes | None = Field(default=None, sa_column=_sealed())
    is_emergency: bool = True
    priority: int = 1
    created_at: datetime = Field(sa_column=moment())
    version: int = 1


class Visitor(SQLModel, table=True):
    """A person or office that visits; village heads and township duty are visitors who hold an office."""

    __tablename__ = "visitors"
    __table_args__ = (
        sa.Index("ix_visitors_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=100)
    kind: str = Field(max_length=32)
    organisation: str | None = Field(default=None, max_length=200)
    phone_sealed: bytes | None = Field(default=None, sa_column=_sealed())
    region_code: str = Field(foreign_key="regions.code")
    created_at: datetime = Field(sa_column=moment())
    version: int = 1


class Assignment(SQLModel, table=True):
    """A visitor paired with an elder (policy row 21). `ended_at` empty = paired now."""

    __tablename__ = "assignments"
    __table_args__ = (
        # The same visitor is paired with the same elder once at a time.
        sa.Index(
            "uq_assignments_current",
            "elder_id",
            "visitor_id",
            unique=True,
            postgresql_where=sa.text("ended_at IS NULL"),
        ),
        sa.Index("ix_assignments_visitor_id", "visitor_id"),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    visitor_id: UUID = Field(foreign_key="visitors.id")
    role: AssignmentRole = Field(sa_column=text_enum(AssignmentRole, name="role"))
    created_at: datetime = Field(sa_column=moment())
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
