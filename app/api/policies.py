"""Escalation policies."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, model_validator
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Right, normal_scope, within
from app.alarms.tables import EscalationPolicy
from app.api import pages
from app.api.bodies import Body, Name, Scope, example
from app.api.context import NowDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.errors import InvalidInput, NotFound
from app.ids import new_uuid
from app.notify.vocabulary import Target
from app.rules.verdict import Severity

router = APIRouter(route_class=Transactional, tags=["alarms"], dependencies=[Depends(idempotent)])


class StepIn(Body):
    after_s: int = Field(ge=0, le=604_800, description="Seconds after the alarm was raised.", examples=[120])
    targets: list[Target] = Field(min_length=1, max_length=5)


class PolicyIn(Body):
    model_config = example(
        name="般阳路街道 紧急", severity="critical", region_code="370302001",
        steps=[{"after_s": 0, "targets": ["emergency_contacts", "assigned_visitors", "village_head", "operators"]},
               {"after_s": 120, "targets": ["township_duty", "operators"]}],
        repeat_last_every_s=60,
    )  # fmt: skip
    name: Name
    severity: Severity
    region_code: Scope | None = Field(default=None, description="Where it applies; your own region when absent.")
    steps: list[StepIn] = Field(min_length=1, max_length=20)
    repeat_last_every_s: Annotated[int, Field(ge=1, le=86_400)]

    @model_validator(mode="after")
    def _in_order(self) -> PolicyIn:
        times = [step.after_s for step in self.steps]
        if times != sorted(times):
            raise ValueError("`after_s` counts from the raising of the alarm: steps must be in that order")
        return self


class PolicyOut(BaseModel):
    id: UUID
    name: str
    severity: Severity
    region_code: str
    steps: list[StepIn]
    repeat_last_every_s: int
    created_at: datetime


@router.get(
    "/escalation-policies", dependencies=[needs(Right.ALARMS_READ)], summary="Policies within your scope, newest first"
)
async def policies(
    who: PrincipalDep, session: SessionDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[PolicyOut]:
    before = pages.decode(cursor, UUID)
    query = select(EscalationPolicy).where(within(who, col(EscalationPolicy.region_code)))
    if before:
        query = query.where(col(EscalationPolicy.id) < before[0])
    rows = (await session.execute(query.order_by(col(EscalationPolicy.id).desc()).limit(limit + 1))).scalars().all()
    return pages.Page[PolicyOut].model_validate(pages.page(rows, limit, _shape, "id"))


@router.post(
    "/escalation-policies", status_code=201, dependencies=[needs(Right.POLICIES_WRITE)], summary="Say who is told when"
)
async def add_policy(body: PolicyIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> PolicyOut:
    """Applies to alarms raised after it: the nearest region first, then the newest. The first instant always tells
    the emergency contacts, the assigned visitors, the village head and the operators; these steps come after it, and
    the last repeats until somebody answers."""
    region = normal_scope(body.region_code) if body.region_code is not None else who.region_code
    if not who.sees(region):
        raise InvalidInput("the region is outside your own", field="region_code")
    if not await _holds_somewhere(session, region):
        raise InvalidInput("no region begins with this code; the policy would apply to nobody", field="region_code")
    policy = EscalationPolicy(
        id=new_uuid(now), name=body.name, severity=body.severity, region_code=region,
        steps=[step.model_dump(mode="json") for step in body.steps], repeat_last_every_s=body.repeat_last_every_s,
        created_at=now,
    )  # fmt: skip
    session.add(policy)
    await session.flush()
    audit.note(
        session,
        who,
        action="policy.added",
        subject_type="policy",
        subject_id=policy.id,
        now=now,
        region_code=region,
        severity=body.severity.value,
        steps=policy.steps,
        repeat_last_every_s=policy.repeat_last_every_s,
    )
    return PolicyOut.model_validate(_shape(policy))


async def _holds_somewhere(session: Any, region: str) -> bool:
    found = await session.scalar(
        sa.text("SELECT EXISTS (SELECT FROM regions WHERE starts_with(code, :region))"), {"region": region}
    )
    return bool(found)


@router.get(
    "/escalation-policies/{policy_id}",
    responses=responses(404),
    dependencies=[needs(Right.ALARMS_READ)],
    summary="One policy",
)
async def policy(policy_id: UUID, who: PrincipalDep, session: SessionDep) -> PolicyOut:
    found = await session.get(EscalationPolicy, policy_id)
    if found is None or not who.sees(found.region_code):
        raise NotFound("no such policy")
    return PolicyOut.model_validate(_shape(found))


def _shape(policy: EscalationPolicy) -> dict[str, object]:
    return {name: getattr(policy, name) for name in PolicyOut.model_fields}
