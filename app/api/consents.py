"""Consents of an elder: who agreed to what, shown how, and withdrawn when."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right
from app.api import pages
from app.api.bodies import Body, Day, Name, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.elders import Remark
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import consents, register
from app.elders.tables import ConsentEntry
from app.elders.vocabulary import ConsentGiver, ConsentScope, EvidenceForm
from app.errors import InvalidInput, NotFound
from app.ids import new_uuid
from app.visits import ledger
from app.visits.ledger import Deed
from app.words import say

router = APIRouter(route_class=Transactional, tags=["people"], dependencies=[Depends(idempotent)])


class ConsentIn(Body):
    model_config = example(
        scope="home_visit", given_by="supporter", giver_name="王小明", relation="儿子", given_on="2026-01-05",
        expires_on="2027-01-04", evidence_form="signed_paper", evidence="同意书 2026-017",
    )  # fmt: skip
    scope: ConsentScope
    given_by: ConsentGiver
    giver_name: Name | None = None
    relation: Name | None = Field(default=None, max_length=50)
    given_on: Day
    expires_on: Day | None = Field(default=None, description="The last day it holds.")
    evidence_form: EvidenceForm | None = None
    evidence: Remark | None = Field(default=None, description="Where it can be seen: a number, a file, a witness.")
    withdrawn_on: Day | None = None


class WithdrawalIn(Body):
    model_config = example(withdrawn_on="2026-11-20", withdrawn_by="elder", withdrawal_evidence="电话录音")
    withdrawn_on: Day = Field(description="From this day on it no longer holds.")
    withdrawn_by: ConsentGiver | None = None
    withdrawal_evidence: Remark | None = None


class ConsentOut(BaseModel):
    id: UUID
    scope: ConsentScope
    given_by: ConsentGiver
    giver_name: str | None
    relation: str | None
    given_on: date
    expires_on: date | None
    evidence_form: EvidenceForm | None
    evidence: str | None
    recorded_at: datetime
    withdrawn_on: date | None
    withdrawn_by: ConsentGiver | None
    withdrawal_evidence: str | None


def _shape(row: ConsentEntry) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ConsentOut.model_fields}


@router.get(
    "/elders/{elder_id}/consents",
    dependencies=[needs(Right.ELDERS_READ)],
    responses=responses(404),
    summary="Consents, newest first",
)
async def list_consents(
    elder_id: UUID, who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[ConsentOut]:
    await register.elder_within(session, who, elder_id)
    query = select(ConsentEntry).where(col(ConsentEntry.elder_id) == elder_id)
    rows = await pages.newest(session, query, col(ConsentEntry.id), limit, cursor)
    return pages.Page[ConsentOut].model_validate(pages.page(rows, limit, _shape, "id"))


@router.post(
    "/elders/{elder_id}/consents",
    dependencies=[needs(Right.VISITS_WRITE)],
    status_code=201,
    responses=responses(404),
    summary="Record a consent",
)
async def give_consent(
    elder_id: UUID, body: ConsentIn, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> ConsentOut:
    """Visits at home on its days that waited for the paper are judged anew."""
    elder = await register.elder_within(session, who, elder_id, lock=True)
    today = now.astimezone(parts.tz).date()
    if body.given_on > today:
        raise InvalidInput("a consent in the future", field="given_on")
    if body.given_on < elder.birth_date:
        raise InvalidInput("a consent before the birth", field="given_on")
    if body.expires_on is not None and body.expires_on < body.given_on:
        raise InvalidInput("it expires before it was given", field="expires_on")
    if body.withdrawn_on is not None and not body.given_on <= body.withdrawn_on <= today:
        raise InvalidInput("withdrawn between the day it was given and today", field="withdrawn_on")
    made = ConsentEntry(
        id=new_uuid(now), elder_id=elder_id, recorded_at=now, recorded_by=str(who.id), **body.model_dump()
    )
    session.add(made)
    await session.flush()
    deed = Deed(who, now, parts.tz, say("ledger.consent_entered"))
    await ledger.revalue(session, elder_id, body.given_on, today, deed)
    audit.note(session, who, action="consent.given", subject_type="elder", subject_id=elder_id, now=now,
               region_code=elder.region_code, consent_id=str(made.id), scope=body.scope.value)  # fmt: skip
    return ConsentOut.model_validate(_shape(made))


@router.patch(
    "/elders/{elder_id}/consents/{consent_id}",
    dependencies=[needs(Right.VISITS_WRITE)],
    responses=responses(404),
    summary="Withdraw a consent",
)
async def withdraw_consent(
    elder_id: UUID,
    consent_id: UUID,
    body: WithdrawalIn,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
) -> ConsentOut:
    """The consent itself is never changed: what was done under it stays allowed."""
    elder = await register.elder_within(session, who, elder_id, lock=True)
    found = await session.get(ConsentEntry, consent_id)
    if found is None or found.elder_id != elder_id:
        raise NotFound("no such consent")
    today = now.astimezone(parts.tz).date()
    consents.withdraw(found, on=body.withdrawn_on, by=body.withdrawn_by, evidence=body.withdrawal_evidence, today=today)
    await session.flush()
    deed = Deed(who, now, parts.tz, say("ledger.consent_withdrawn"))
    await ledger.revalue(session, elder_id, body.withdrawn_on, today, deed)
    audit.note(session, who, action="consent.withdrawn", subject_type="elder", subject_id=elder_id, now=now,
               region_code=elder.region_code, consent_id=str(consent_id), scope=found.scope)  # fmt: skip
    return ConsentOut.model_validate(_shape(found))
