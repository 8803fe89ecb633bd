"""Accounts, audit and idempotent answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlmodel import Field, SQLModel

from app.access.vocabulary import Role
from app.db import moment, text_enum


class User(SQLModel, table=True):
    __tablename__ = "users"
    __table_args__ = (sa.Index("uq_users_username", sa.text("lower(username)"), unique=True),)

    id: UUID = Field(primary_key=True)
    username: str = Field(max_length=64)
    password_hash: str
    role: Role = Field(sa_column=text_enum(Role, name="role"))
    region_code: str = Field(max_length=12)  # a scope: a prefix of region codes
    visitor_id: UUID | None = Field(default=None, foreign_key="visitors.id")
    active: bool = True
    created_at: datetime = Field(sa_column=moment())
    version: int = 1


class AuditEntry(SQLModel, table=True):
    """Who did what to whom, from where. Written in the transaction of the deed."""

    __tablename__ = "audit_log"
    __table_args__ = (sa.Index("ix_audit_log_subject", "subject_type", "subject_id"),)

    id: int | None = Field(default=None, sa_column=sa.Column(sa.BigInteger, sa.Identity(), primary_key=True))
    at: datetime = Field(sa_column=moment())
    actor: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    action: str = Field(max_length=64)
    subject_type: str = Field(max_length=32)
    subject_id: str = Field(max_length=128)
    region_code: str | None = Field(default=None, max_length=12)
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=sa.Column(JSONB, nullable=False))


class IdempotentAnswer(SQLModel, table=True):
    """The answer given under an Idempotency-Key: asked again, said again."""

    __tablename__ = "idempotent_answers"

    principal: str = Field(primary_key=True, max_length=64)
    key: str = Field(primary_key=True, max_length=200)
    request_hash: bytes = Field(sa_column=sa.Column(BYTEA, nullable=False))
    status: int | None = None
    body: bytes | None = Field(default=None, sa_column=sa.Column(BYTEA))
    headers: dict[str, str] = Field(default_factory=dict, sa_column=sa.Column(JSONB, nullable=False))
    created_at: datetime = Field(sa_column=moment(index=True))
