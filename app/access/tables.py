"""Accounts, log-ins, API keys, audit and idempotent answers."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlmodel import Field, SQLModel

from app.access.vocabulary import KeyScope, Role
from app.db import moment, text_enum


class User(SQLModel, table=True):
    __tablename__ = "users"
    __table_args__ = (
        sa.Index("uq_users_username", sa.text("lower(username)"), unique=True),
        sa.CheckConstraint("role <> 'visitor' OR visitor_id IS NOT NULL OR NOT active", name="visitor_is_somebody"),
    )

    id: UUID = Field(primary_key=True)
    username: str = Field(max_length=64)
    password_hash: str = Field(repr=False)
    role: Role = Field(sa_column=text_enum(Role, name="role"))
    region_code: str = Field(max_length=12)  # a scope: a prefix of region codes
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id")
    active: bool = True
    created_at: datetime = Field(sa_column=moment())
    version: int = 1
    # Log-ins of an earlier generation are dead: one step ends them all, those that are just being made too.
    token_generation: int = Field(default=0, sa_column=sa.Column(sa.Integer, nullable=False, server_default="0"))


class LogIn(SQLModel, table=True):
    """One log-in with its family of refresh tokens. It lives until it expires, ends, or its account moves on."""

    __tablename__ = "logins"

    id: UUID = Field(primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", index=True)
    generation: int
    created_at: datetime = Field(sa_column=moment())
    expires_at: datetime = Field(sa_column=moment(index=True))
    ended_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class RefreshToken(SQLModel, table=True):
    """Used once. One that comes a second time was stolen, or its successor was: the log-in ends."""

    __tablename__ = "refresh_tokens"

    hash: bytes = Field(sa_column=sa.Column(BYTEA, primary_key=True), repr=False)
    login_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid, sa.ForeignKey("logins.id", ondelete="CASCADE"), nullable=False, index=True)
    )
    issued_at: datetime = Field(sa_column=moment())
    used_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))


class ApiKey(SQLModel, table=True):
    """A front end's key: its own rights and scope. Only the hash of its secret is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        sa.CheckConstraint(
            f"cardinality(scopes) > 0 AND scopes <@ ARRAY[{', '.join(repr(scope.value) for scope in KeyScope)}]::text[]",
            name="scopes",
        ),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=100)
    secret_hash: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False), repr=False)
    scopes: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text), nullable=False))
    region_code: str = Field(max_length=12)
    created_by: UUID = Field(foreign_key="users.id")
    held_by: UUID = Field(foreign_key="users.id", index=True)  # it never grants more than this account has
    created_at: datetime = Field(sa_column=moment())
    expires_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    last_used_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=moment(nullable=True))
    version: int = 1


class LoginTry(SQLModel, table=True):
    """One try counted in one bucket of the log-in limits (app/access/guard.py). Buckets are keyed hashes: what was typed
    as a username may have been a password."""

    __tablename__ = "login_tries"
    __table_args__ = (sa.Index("ix_login_tries_bucket_at", "bucket", "at"),)

    id: UUID = Field(primary_key=True)
    bucket: bytes = Field(sa_column=sa.Column(BYTEA, primary_key=True))
    at: datetime = Field(sa_column=moment(index=True))
    settled: bool = False  # false while the password is being checked


class KnownPlace(SQLModel, table=True):
    """An address (as a keyed hash) from which an account logged in: strangers' failures do not close it."""

    __tablename__ = "known_places"

    user_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    place: bytes = Field(sa_column=sa.Column(BYTEA, primary_key=True))
    last_seen_at: datetime = Field(sa_column=moment(index=True))


class AuditEntry(SQLModel, table=True):
    """Who did what to whom, from where. Written in the transaction of the deed; a trigger numbers and chains the rows and
    refuses every change of them."""

    __tablename__ = "audit_log"
    __table_args__ = (
        sa.Index("ix_audit_log_subject", "subject_type", "subject_id"),
        sa.Index("ix_audit_log_actor", sa.text("(actor ->> 'id')"), "id"),
        sa.Index("ix_audit_log_region_code_id", sa.text("region_code text_pattern_ops"), sa.text("id DESC")),
    )

    id: int = Field(sa_column=sa.Column(sa.BigInteger, primary_key=True, autoincrement=False))  # 1, 2, 3 without a gap
    at: datetime = Field(sa_column=moment())
    actor: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    action: str = Field(max_length=64)
    subject_type: str = Field(max_length=32)
    subject_id: str = Field(max_length=128)
    region_code: str | None = Field(default=None, max_length=12)
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=sa.Column(JSONB, nullable=False))
    origin: dict[str, Any] = Field(
        default_factory=dict, sa_column=sa.Column(JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))
    )
    previous_hash: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False))
    hash: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False))


class AuditHead(SQLModel, table=True):
    """How many rows the audit log has, and the hash of the last: a row cut off at the end is missed here."""

    __tablename__ = "audit_head"
    __table_args__ = (sa.CheckConstraint("single", name="one_row"),)

    single: bool = Field(default=True, primary_key=True)
    rows: int = Field(sa_column=sa.Column(sa.BigInteger, nullable=False))
    hash: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False))


def idempotency_record(principal: str, key: str) -> UUID:
    """What the sealed columns of an answer are bound to."""
    return UUID(bytes=hashlib.sha256(f"{principal}\n{key}".encode()).digest()[:16])


class IdempotentAnswer(SQLModel, table=True):
    """The answer given under an Idempotency-Key: asked again, said again."""

    __tablename__ = "idempotent_answers"

    principal: str = Field(primary_key=True, max_length=64)
    key: str = Field(primary_key=True, max_length=200)
    # Sealed, the request's hash too: from a plain hash of a short body the body can be guessed.
    request_sealed: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False), repr=False)
    status: int | None = None
    body_sealed: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA), repr=False)
    headers: dict[str, str] = Field(default_factory=dict, sa_column=sa.Column(JSONB, nullable=False))
    created_at: datetime = Field(sa_column=moment(index=True))
