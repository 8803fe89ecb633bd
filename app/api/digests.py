"""What visitors and offices are told beside the alarms: when, what today, and what was sent."""

from __future__ import annotations

from datetime import datetime, time
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field, StringConstraints, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access import audit
from app.access.principal import Principal, Right, begins, normal_scope, within
from app.api import pages
from app.api.bodies import Body, etag, example, if_match
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.elders import register
from app.errors import InvalidInput
from app.notify.tables import DigestRow
from app.notify.vocabulary import ChannelKind, DigestKind, NoticeState
from app.visits import daily
from app.visits.hours import Hours, Rising
from app.visits.work_tables import DigestSetting

router = APIRouter(route_class=Transactional, tags=["visits"], dependencies=[Depends(idempotent)])
Place = Annotated[str, StringConstraints(pattern=r"^([0-9]{6}|[0-9]{9}|[0-9]{12})$")]
# OpenAPI's `time` has an offset; this one is the district's clock.
Clock = Annotated[
    time,
    Field(examples=["08:00"], description="Local time of the district."),
    WithJsonSchema({"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", "examples": ["08:00"]}),
]
Lead = Annotated[int, Field(ge=0, le=27, description="Days before the last day.")]


class HoursIn(Body):
    model_config = example(at="07:30", quiet_from="20:00", quiet_until="07:00")
    at: Clock = Hours().at
    quiet_from: Clock = Hours().quiet_from
    quiet_until: Clock = Field(default=Hours().quiet_until, description="The same as `quiet_from`: no quiet hours.")
    enabled: bool = True


class RegionHoursIn(HoursIn):
    model_config = example(at="08:30", week_village=2, week_township=1, month_village=5, month_township=2)
    week_village: Lead = Field(default=Rising().week_village, description="When the village head is told.")
    week_township: Lead = Field(default=Rising().week_township, description="When the township's duty is told.")
    month_village: Lead = Rising().month_village
    month_township: Lead = Rising().month_township


class HoursOut(HoursIn):
    own: bool = Field(description="Set for exactly this one; false: what holds without that.")


class RegionHoursOut(RegionHoursIn):
    own: bool = Field(description="Set for exactly this region; false: what holds without that.")


class Receiver(BaseModel):
    id: UUID
    name: str


class DigestOut(BaseModel):
    id: UUID
    kind: DigestKind
    key: str = Field(description="Once for each key: the day, the week or month that closes, the task.")
    visitor: Receiver
    region_code: str
    title: str
    text: str
    state: NoticeState
    channel: ChannelKind | None
    attempts: int
    created_at: datetime
    due_at: datetime
    sent_at: datetime | None
    error: str | None


class PreviewOut(BaseModel):
    title: str | None = Field(description="null: nothing is due, nothing would be sent.")
    text: str | None
    data: dict[str, Any] | None = Field(description="What a webhook channel would get as `data`.")


@router.get("/digests", dependencies=[needs(Right.VISITS_READ)], summary="Daily notices and warnings that were written")
async def digests(
    who: PrincipalDep,
    session: SessionDep,
    limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
    kind: DigestKind | None = None,
    visitor_id: UUID | None = None,
    region_code: Annotated[str | None, Query(pattern=r"^[0-9]{2,12}$")] = None,
    state: NoticeState | None = None,
) -> pages.Page[DigestOut]:
    """One message a visitor and day, one an office and closing week or month; newest first, with how sending went."""
    query = select(DigestRow).where(within(who, col(DigestRow.region_code)))
    for column, value in ((DigestRow.kind, kind), (DigestRow.visitor_id, visitor_id), (DigestRow.state, state)):
        if value is not None:
            query = query.where(col(column) == value)
    if region_code:
        query = query.where(begins(col(DigestRow.region_code), region_code))
    rows = await pages.newest(session, query, col(DigestRow.id), limit, cursor)
    names = await register.visitor_names(session, {row.visitor_id for row in rows})

    def shape(row: DigestRow) -> dict[str, Any]:
        shown = {name: getattr(row, name) for name in DigestOut.model_fields if name != "visitor"}
        return {**shown, "visitor": {"id": row.visitor_id, "name": names.get(row.visitor_id, "")}}

    return pages.Page[DigestOut].model_validate(pages.page(rows, limit, shape, "id"))


@router.get(
    "/visitors/{visitor_id}/digest",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="What a visitor would be told now",
)
async def preview_digest(
    visitor_id: UUID, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> PreviewOut:
    """The message as it would be written at the chosen hour. Writes and sends nothing."""
    visitor = await register.visitor_within(session, who, visitor_id)
    made = await daily.message_of(session, visitor_id, visitor.region_code, now=now, tz=parts.tz)
    if made is None:
        return PreviewOut(title=None, text=None, data=None)
    return PreviewOut(title=made.title, text=made.text, data=dict(made.data))


# --- when ------------------------------------------------------------------------------------------------------------


async def _own(session: AsyncSession, **of: Any) -> DigestSetting | None:
    [(name, value)] = of.items()
    query = select(DigestSetting).where(col(getattr(DigestSetting, name)) == value)
    return (await session.execute(query)).scalar_one_or_none()


@router.get(
    "/digest-settings/regions/{region_code}",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="When visitors and offices of a region are told",
)
async def region_hours(
    region_code: Place, response: Response, who: PrincipalDep, session: SessionDep
) -> RegionHoursOut:
    """Its own setting, or the nearest above it, or the plain one."""
    prefix = normal_scope(region_code)
    await register.region_within(session, who, prefix.ljust(12, "0"))
    own = await _own(session, region_code=prefix)
    response.headers.update(etag(own.version if own else 0))
    every = await daily.settings(session)
    hours, rising = every.hours(prefix), every.rising(prefix)
    return RegionHoursOut(
        own=own is not None, **{name: getattr(hours, name) for name in HoursIn.model_fields},
        **{name: getattr(rising, name) for name in ("week_village", "week_township", "month_village", "month_township")},
    )  # fmt: skip


@router.put(
    "/digest-settings/regions/{region_code}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404, 412),
    summary="Set when visitors and offices of a region are told",
)
async def set_region_hours(
    region_code: Place,
    body: RegionHoursIn,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> RegionHoursOut:
    """The chosen hour, the quiet hours, and how many days before a week or month closes whom is told."""
    prefix = normal_scope(region_code)
    await register.region_within(session, who, prefix.ljust(12, "0"))
    _check(body)
    kept = await daily.set_hours(
        session, {"region_code": prefix}, body.model_dump(), version=version, now=now, tz=parts.tz
    )
    _note(session, who, "digests.set", "region", prefix, prefix, now, body)
    response.headers.update(etag(kept.version))
    return RegionHoursOut(own=True, **body.model_dump())


@router.get(
    "/digest-settings/visitors/{visitor_id}",
    dependencies=[needs(Right.VISITS_READ)],
    responses=responses(404),
    summary="When a visitor is told",
)
async def visitor_hours(visitor_id: UUID, response: Response, who: PrincipalDep, session: SessionDep) -> HoursOut:
    """The visitor's own setting, or their region's."""
    visitor = await register.visitor_within(session, who, visitor_id)
    own = await _own(session, visitor_id=visitor_id)
    response.headers.update(etag(own.version if own else 0))
    hours = (await daily.settings(session)).hours(visitor.region_code, visitor_id)
    return HoursOut(own=own is not None, **{name: getattr(hours, name) for name in HoursIn.model_fields})


@router.put(
    "/digest-settings/visitors/{visitor_id}",
    dependencies=[needs(Right.ELDERS_WRITE)],
    responses=responses(404, 412),
    summary="Set when a visitor is told",
)
async def set_visitor_hours(
    visitor_id: UUID,
    body: HoursIn,
    response: Response,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    now: NowDep,
    version: Annotated[int | None, Depends(if_match)] = None,
) -> HoursOut:
    visitor = await register.visitor_within(session, who, visitor_id)
    _check(body)
    kept = await daily.set_hours(
        session, {"visitor_id": visitor_id}, body.model_dump(), version=version, now=now, tz=parts.tz
    )
    _note(session, who, "digests.set", "visitor", visitor_id, visitor.region_code, now, body)
    response.headers.update(etag(kept.version))
    return HoursOut(own=True, **body.model_dump())


def _check(body: HoursIn) -> None:
    for name in ("at", "quiet_from", "quiet_until"):
        if getattr(body, name).tzinfo is not None:
            raise InvalidInput("a local time without an offset, for example 08:00", field=name)
    if Hours(body.at, body.quiet_from, body.quiet_until).quiet(body.at):
        raise InvalidInput("the chosen hour lies in the quiet hours", field="at")


def _note(
    session: AsyncSession,
    who: Principal,
    action: str,
    kind: str,
    id_: object,
    region: str,
    now: datetime,
    body: HoursIn,
) -> None:
    audit.note(session, who, action=action, subject_type=kind, subject_id=id_, now=now, region_code=region,
               at=f"{body.at:%H:%M}", enabled=body.enabled)  # fmt: skip


# --- what a webhook channel gets ---------------------------------------------------------------------------------------

_TEXT, _ID, _DAY = {"type": "string"}, {"type": "string", "format": "uuid"}, {"type": "string", "format": "date"}
_ELDER = {"type": "object", "properties": {"id": _ID, "name": _TEXT, "region_code": _TEXT}}
_TOLD: dict[DigestKind, tuple[str, dict[str, Any]]] = {
    DigestKind.DUE: (
        "What is due today, to a visitor, once a day.",
        {
            "day": _DAY,
            "findings": {
                "type": "array",
                "items": {"type": "object", "properties": {"id": _ID, "kind": _TEXT, "topic": _TEXT, "elder": _ELDER}},
            },
            "visits": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "elder": _ELDER, "period": {"enum": ["week", "month"]}, "period_end": _DAY,
                        "visits_required": {"type": "integer"}, "visits_done": {"type": "integer"},
                        "overdue": {"type": "boolean"}, "special_period": {"type": ["string", "null"]},
                        "follow_up_by": {"type": ["string", "null"], "format": "date-time"},
                        "planned_today": {"type": "boolean"},
                    },
                },
            },
        },
    ),
    DigestKind.UNVISITED: (
        "Who was not visited in a week or month that is about to close, to a village head or a township's duty.",
        {"period": {"enum": ["week", "month"]}, "period_start": _DAY, "period_end": _DAY, "region_code": _TEXT,
         "unvisited": {"type": "array", "items": _ELDER}},
    ),
    DigestKind.TASK_OVERDUE: (
        "A follow-up or assessment that nobody did in time, to a village head, later to a township's duty.",
        {"task": {"type": "object"}, "elder": _ELDER},
    ),
}  # fmt: skip


def described() -> dict[str, Any]:
    """The `webhooks` of the OpenAPI document that are no alarms: to the webhook channels of visitors."""
    return {kind.value: {"post": _described(kind, says, data)} for kind, (says, data) in _TOLD.items()}


def _described(kind: DigestKind, says: str, data: dict[str, Any]) -> dict[str, Any]:
    recipient = {"type": "object", "properties": dict.fromkeys(("type", "id", "name", "role"), _TEXT)}
    payload = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": kind.value},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"type": "object", "properties": {**data, "recipient": recipient, "reason": _TEXT}},
        },
    }
    return {
        "summary": says,
        "description": "Signed with the channel's secret, as alarms are; `webhook-id` is the same on every attempt.",
        "requestBody": {"content": {"application/json": {"schema": payload}}},
        "responses": {"2XX": {"description": "Taken."}},
    }
