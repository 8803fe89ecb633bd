"""The register: regions and their offices, elders, contacts, visitors, assignments.

Sealed columns hold AES-GCM text bound to their record (`access/sealing.py`); the index column is a keyed hash.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlmodel import Field, SQLModel

from app.db import moment, text_enum
from app.elders.vocabulary import (
    AbilityLevel,
    AssignmentRole,
    CareLevel,
    ChangeCause,
    ConsentGiver,
    ConsentScope,
    DutyRole,
    ElderStatus,
    EvidenceForm,
    Observed,
    RegionLevel,
    Sex,
    StatusReason,
)


def _texts() -> sa.Column[list[str]]:
    return sa.Column(ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'"))


def _sealed(*, nullable: bool = True) -> sa.Column[bytes]:
    return sa.Column(BYTEA, nullable=nullable)


class Region(SQLModel, table=True):
    """A district, township or village, by its 12-digit code."""

    __tablename__ = "regions"
    __table_args__ = (
        sa.CheckConstraint("code ~ '^[0-9]{12}$'", name="code_has_12_digits"),
        sa.CheckConstraint(
            "(latitude IS NULL) = (longitude IS NULL) AND latitude BETWEEN -90 AND 90 AND longitude BETWEEN -180 AND 180",
            name="a_position_is_on_earth",
        ),
    )

    code: str = Field(primary_key=True, max_length=12)
    name: str = Field(max_length=100)
    level: RegionLevel = Field(sa_column=text_enum(RegionLevel, name="level"))
    parent_code: str | None = Field(default=None, foreign_key="regions.code")
    latitude: float | None = Field(default=None, sa_column=sa.Column(sa.Double))  # about the middle of the village
    longitude: float | None = Field(default=None, sa_column=sa.Column(sa.Double))
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
        sa.Index("ix_elders_phone_tail_index", "phone_tail_index"),
        # What the daily look finds: birthdays, pauses that end, policies that begin.
        sa.Index(
            "ix_elders_reclassify_on", "reclassify_on", "id", postgresql_where=sa.text("reclassify_on IS NOT NULL")
        ),
        sa.CheckConstraint("status <> 'active' OR status_reason IS NULL", name="active_needs_no_reason"),
        sa.CheckConstraint(
            "CASE WHEN erased_at IS NULL THEN num_nulls(id_number_sealed, id_number_index) = 0 "
            "ELSE num_nonnulls(id_number_sealed, id_number_index, phone_sealed, address_sealed, phone_tail_index) = 0 END",
            name="an_identity_until_erased",
        ),
        # Whom the retention job finds: who left and is not erased yet.
        sa.Index(
            "ix_elders_departed",
            "status_since",
            postgresql_where=sa.text("erased_at IS NULL AND status IN ('moved', 'deceased')"),
        ),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=100)
    sex: Sex = Field(sa_column=text_enum(Sex, name="sex"))
    birth_date: date
    # Empty only when the person was erased: the row stays for statistics, without identity.
    id_number_sealed: bytes | None = Field(default=None, sa_column=_sealed(), repr=False)
    # One person is enrolled once, found without opening any seal.
    id_number_index: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA, unique=True), repr=False)
    phone_sealed: bytes | None = Field(default=None, sa_column=_sealed(), repr=False)
    address_sealed: bytes | None = Field(default=None, sa_column=_sealed(), repr=False)
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
    # What holds today, from `elder_statuses`.
    status: ElderStatus = Field(sa_column=text_enum(ElderStatus, name="status"))
    status_reason: StatusReason | None = Field(
        default=None, sa_column=text_enum(StatusReason, name="status_reason", nullable=True)
    )
    status_since: date | None = None
    status_until: date | None = None
    status_evidenced: bool = Field(
        default=True, sa_column=sa.Column(sa.Boolean, nullable=False, server_default=sa.true())
    )
    other_tags: list[str] = Field(default_factory=list, sa_column=_texts())
    circumstances: list[str] = Field(default_factory=list, sa_column=_texts())
    service_notes: dict[str, str] = Field(
        default_factory=dict, sa_column=sa.Column(JSONB, nullable=False, server_default=sa.text("'{}'"))
    )
    willing: bool | None = None  # empty: not asked yet (policy row 3)
    willing_asked_on: date | None = None
    surveyed_on: date | None = None  # annex 1's date
    remarks: str | None = Field(default=None, max_length=500)  # annex 3's 备注
    # Found by sound, and by the phone's last four digits without opening a seal.
    name_keys: str = Field(default="", sa_column=sa.Column(sa.Text, nullable=False, server_default=""))
    phone_tail_index: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA), repr=False)
    # The class as last computed, and the day on which it must be looked at again (empty: never, they left).
    care_level: CareLevel = Field(
        default=CareLevel.UNDETERMINED,
        sa_column=text_enum(CareLevel, name="care_level", default=CareLevel.UNDETERMINED),
    )
    reclassify_on: date | None = Field(
        default=None, sa_column=sa.Column(sa.Date, nullable=True, server_default=sa.text("CURRENT_DATE"))
    )
    created_at: datetime = Field(sa_column=moment())
    updated_at: datetime = Field(sa_column=moment())
    erased_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class Residence(SQLModel, table=True):
    """Where an elder lived since when: visits and statistics count for the place of that day."""

    __tablename__ = "residences"
    __table_args__ = (sa.UniqueConstraint("elder_id", "since"),)

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    region_code: str = Field(foreign_key="regions.code")
    since: date
    recorded_at: datetime = Field(sa_column=moment())
    recorded_by: str = Field(max_length=64)


class StatusEntry(SQLModel, table=True):
    """A status from a day on, with its evidence. Never changed; of two that begin on one day the later counts."""

    __tablename__ = "elder_statuses"
    __table_args__ = (
        sa.CheckConstraint("until IS NULL OR until >= since", name="ends_after_it_begins"),
        sa.CheckConstraint("until IS NULL OR status = 'paused'", name="only_a_pause_ends_by_itself"),
        sa.Index("ix_elder_statuses_elder_id_since", "elder_id", "since"),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    status: ElderStatus = Field(sa_column=text_enum(ElderStatus, name="status"))
    reason: StatusReason | None = Field(default=None, sa_column=text_enum(StatusReason, name="reason", nullable=True))
    since: date
    until: date | None = None
    evidence: str | None = Field(default=None, max_length=500)
    recorded_at: datetime = Field(sa_column=moment())
    recorded_by: str = Field(max_length=64)


class KnownFacts(SQLModel, table=True):
    """What was known from a day on, apart from assessments. One row a day on which something changed."""

    __tablename__ = "elder_facts"
    __table_args__ = (sa.CheckConstraint("disability_grade BETWEEN 1 AND 4", name="disability_grade_1_to_4"),)

    elder_id: UUID = Field(primary_key=True, foreign_key="elders.id")
    valid_from: date = Field(primary_key=True)
    observed: Observed | None = Field(default=None, sa_column=text_enum(Observed, name="observed", nullable=True))
    disability_grade: int | None = None
    dementia: bool
    circumstances: list[str] = Field(sa_column=_texts())
    recorded_at: datetime = Field(sa_column=moment())
    recorded_by: str = Field(max_length=64)


class AbilityScale(SQLModel, table=True):
    """Which score means which level: public sources differ, so it is data (GB/T 42195)."""

    __tablename__ = "ability_scales"

    name: str = Field(primary_key=True, max_length=100)
    bands: list[dict[str, Any]] = Field(sa_column=sa.Column(JSONB, nullable=False))
    created_at: datetime = Field(sa_column=moment())


class Assessment(SQLModel, table=True):
    """An ability assessment. Never changed; a wrong one is withdrawn with a reason."""

    __tablename__ = "assessments"
    __table_args__ = (
        sa.Index("ix_assessments_elder_id_assessed_on", "elder_id", sa.text("assessed_on DESC"), sa.text("id DESC")),
        sa.CheckConstraint("score IS NULL OR scale IS NOT NULL", name="a_score_has_a_scale"),
        sa.CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_reason IS NULL)", name="who_withdraws_says_why"),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    assessed_on: date
    level: AbilityLevel = Field(sa_column=text_enum(AbilityLevel, name="level"))
    score: int | None = None
    scale: str | None = Field(default=None, foreign_key="ability_scales.name")
    assessor: str | None = Field(default=None, max_length=100)
    organisation: str | None = Field(default=None, max_length=200)
    note: str | None = Field(default=None, max_length=500)
    recorded_at: datetime = Field(sa_column=moment())
    recorded_by: str = Field(max_length=64)
    withdrawn_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    withdrawn_reason: str | None = Field(default=None, max_length=500)


class FamilyMember(SQLModel, table=True):
    """Annex 1's family: name, relation, how to reach them. Not an emergency contact (choice 13)."""

    __tablename__ = "family_members"

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id", index=True)
    name: str = Field(max_length=100)
    relation: str = Field(max_length=50)
    phone_sealed: bytes | None = Field(default=None, sa_column=_sealed(), repr=False)
    lives_with: bool = False
    supporter: bool = False  # 赡养人: has the legal duty, and may consent to home visits
    lives_away: bool = False  # 在外地居住: is reminded to phone, not to come
    created_at: datetime = Field(sa_column=moment())
    version: int = 1


class ConsentEntry(SQLModel, table=True):
    """Who agreed to what, when, shown how; and whether it was withdrawn (choice 10). The giving is never changed."""

    __tablename__ = "consents"
    __table_args__ = (
        sa.CheckConstraint("expires_on IS NULL OR expires_on >= given_on", name="expires_after_it_was_given"),
        sa.CheckConstraint("withdrawn_on IS NULL OR withdrawn_on >= given_on", name="withdrawn_after_it_was_given"),
        sa.Index("ix_consents_elder_id_scope", "elder_id", "scope"),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    scope: ConsentScope = Field(sa_column=text_enum(ConsentScope, name="scope"))
    given_by: ConsentGiver = Field(sa_column=text_enum(ConsentGiver, name="given_by"))
    giver_name: str | None = Field(default=None, max_length=100)
    relation: str | None = Field(default=None, max_length=50)
    given_on: date
    expires_on: date | None = None
    evidence_form: EvidenceForm | None = Field(
        default=None, sa_column=text_enum(EvidenceForm, name="evidence_form", nullable=True)
    )
    evidence: str | None = Field(default=None, max_length=500)
    recorded_at: datetime = Field(sa_column=moment())
    recorded_by: str = Field(max_length=64)
    withdrawn_on: date | None = None
    withdrawn_by: ConsentGiver | None = Field(
        default=None, sa_column=text_enum(ConsentGiver, name="withdrawn_by", nullable=True)
    )
    withdrawal_evidence: str | None = Field(default=None, max_length=500)


class CarePolicy(SQLModel, table=True):
    """A version of the rules for a region and below. A draft until it is put in force, and then never changed."""

    __tablename__ = "care_policies"
    __table_args__ = (
        sa.CheckConstraint("num_nonnulls(classification, visits) > 0", name="says_something"),
        sa.Index("ix_care_policies_in_force_from", "in_force_from"),
    )

    id: UUID = Field(primary_key=True)
    version: str = Field(max_length=100, unique=True)
    region_code: str = Field(max_length=12)
    classification: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))
    visits: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))
    note: str | None = Field(default=None, max_length=500)
    in_force_from: date | None = None
    decided_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    decided_by: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(JSONB(none_as_null=True)))
    created_at: datetime = Field(sa_column=moment())


class ClassificationChange(SQLModel, table=True):
    """A result that differs from the one before: since which day, why, by which version, from which inputs."""

    __tablename__ = "classification_changes"
    __table_args__ = (sa.Index("ix_classification_changes_elder_id_seq", "elder_id", sa.text("seq DESC")),)

    seq: int | None = Field(default=None, sa_column=sa.Column(sa.BigInteger, sa.Identity(), primary_key=True))
    id: UUID
    elder_id: UUID = Field(foreign_key="elders.id")
    effective_on: date
    care_level: CareLevel = Field(sa_column=text_enum(CareLevel, name="care_level"))
    reasons: list[dict[str, str]] = Field(sa_column=sa.Column(JSONB, nullable=False))
    policy_version: str = Field(max_length=100)
    inputs: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    cause: ChangeCause = Field(sa_column=text_enum(ChangeCause, name="cause"))
    recorded_at: datetime = Field(sa_column=moment())


class Contact(SQLModel, table=True):
    """A person to tell about one elder. Emergency contacts are told at once, in parallel."""

    __tablename__ = "contacts"

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id", index=True)
    name: str = Field(max_length=100)
    relation: str = Field(max_length=50)
    phone_sealed: bytes | None = Field(default=None, sa_column=_sealed(), repr=False)
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
    phone_sealed: bytes | None = Field(default=None, sa_column=_sealed(), repr=False)
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
        sa.Index("ix_assignments_elder_id_id", "elder_id", sa.text("id DESC")),
    )

    id: UUID = Field(primary_key=True)
    elder_id: UUID = Field(foreign_key="elders.id")
    visitor_id: UUID = Field(foreign_key="visitors.id")
    role: AssignmentRole = Field(sa_column=text_enum(AssignmentRole, name="role"))
    created_at: datetime = Field(sa_column=moment())
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
