"""Guided tests of devices ("press now"), their evidence, and the monthly self-tests that are due."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from app.access import audit
from app.access.principal import Right
from app.api import pages
from app.api.bodies import Body, Short, example
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.devices import DeviceId, device_within
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.clock import monotonic
from app.devices import commissioning, wearing
from app.devices.commissioning import Outcome
from app.devices.vocabulary import DeviceKind
from app.errors import Conflict, NotFound

router = APIRouter(route_class=Transactional, tags=["devices"], dependencies=[Depends(idempotent)])


class TestIn(Body):
    model_config = example(seconds=120, note="安装后第一次测试")
    seconds: int = Field(default=120, ge=15, le=600, description="How long the window stays open; it ends by itself.")
    expects: list[Short] | None = Field(
        default=None, max_length=5, examples=[["sos"]],
        description="What is waited for, in the words of the journal. Left out: what a device of this kind is there for.",
    )  # fmt: skip
    note: Short | None = Field(default=None, examples=["安装后第一次测试"])


class TestOut(BaseModel):
    id: UUID
    device_id: str
    elder_id: UUID | None = Field(description="Who wore it when it was tested.")
    outcome: Outcome = Field(description="`waiting`: press now; `not_seen`: the window is over and nothing came.")
    expects: list[str]
    started_at: datetime
    ends_at: datetime
    started_by: str
    note: str | None
    seen_at: datetime | None
    seen_after_s: float | None = Field(description="Seconds from the start of the test to the receipt of the message.")
    event_id: UUID | None = Field(description="The event of GET /devices/{device_id}/events that was seen.")
    event_type: str | None


class DueTestOut(BaseModel):
    device_id: str
    kind: DeviceKind
    place: str | None
    elder_id: UUID
    region_code: str
    due_since: datetime
    last_tested_at: datetime | None


@router.get(
    "/devices/tests/due",
    dependencies=[needs(Right.DEVICES_READ)],
    summary="Worn devices whose monthly self-test is due, the longest due first",
)
async def due_tests(
    who: PrincipalDep, session: SessionDep, now: NowDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[DueTestOut]:
    """Emergency buttons, fall, smoke, gas and water detectors are tested once a month, and when they are new. A test that
    was seen (POST /devices/{device_id}/tests) is the evidence."""
    after = pages.decode(cursor, datetime, str)
    rows = await commissioning.due(
        session, scope=who.region_code, now=now, after=(after[0], after[1]) if after else None, limit=limit + 1
    )
    return pages.Page[DueTestOut].model_validate(pages.page(rows, limit, _due_shape, "test_due_at", "device_id"))


@router.post(
    "/devices/{device_id}/tests",
    status_code=201,
    responses=responses(404, 409),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Press now: open a short window in which the device's own alarm is a test",
)
async def start_test(device_id: DeviceId, body: TestIn, who: PrincipalDep, session: SessionDep, now: NowDep) -> TestOut:
    """The first expected message of this device within the window is journalled, seen and told as a test: no alarm, nobody
    of the family hears of it, and a native device hears `{"type":"test","state":"seen"}`. Everything else alarms as ever:
    another danger, another device, a second press later than 10 seconds after the first, and smoke, gas or a leak that has
    not ended when the window has. Refused while an alarm of that kind is unresolved for the wearer."""
    device = await device_within(session, who, device_id, lock=True)
    expects = commissioning.expected_of(device.kind, body.expects)
    elder_id = await wearing.wearer(session, device_id)
    test_id = await commissioning.start(
        session, device_id=device_id, elder_id=elder_id, expects=expects, window=timedelta(seconds=body.seconds),
        by=who.who(), note=body.note, now=now,
    )  # fmt: skip
    audit.note(
        session, who, action="device.test_started", subject_type="device", subject_id=device_id, now=now,
        region_code=device.region_code, test_id=test_id, expects=list(expects), seconds=body.seconds,
    )  # fmt: skip
    return await _shown(session, device_id, test_id, now)


@router.get(
    "/devices/{device_id}/tests",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_READ)],
    summary="The tests of a device, newest first: the evidence",
)
async def evidence(
    device_id: DeviceId, who: PrincipalDep, session: SessionDep, now: NowDep, limit: pages.Limit = 50,
    cursor: pages.Cursor = None,
) -> pages.Page[TestOut]:  # fmt: skip
    await device_within(session, who, device_id)
    before = pages.decode(cursor, UUID)
    rows = await commissioning.of_device(session, device_id, before=before[0] if before else None, limit=limit + 1)
    return pages.Page[TestOut].model_validate(pages.page(rows, limit, lambda row: _shape(row, now), "id"))


@router.get(
    "/devices/{device_id}/tests/{test_id}",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_READ)],
    summary="One test: seen, or not yet",
)
async def one_test(
    device_id: DeviceId,
    test_id: UUID,
    who: PrincipalDep,
    session: SessionDep,
    parts: PartsDep,
    wait_s: Annotated[
        float,
        Query(ge=0, le=20, description="Answer as soon as the test is no longer `waiting`, at the latest after this."),
    ] = 0,
) -> TestOut:
    """Also in the feed: `device.test_seen` and `device.test_not_seen`."""
    await device_within(session, who, device_id)
    until = monotonic() + wait_s
    while True:
        shown = await _shown(session, device_id, test_id, parts.clock())
        left = until - monotonic()
        if shown.outcome is not Outcome.WAITING or left <= 0:
            return shown
        await parts.feed.news(at_most_s=min(left, 1.0))


@router.delete(
    "/devices/{device_id}/tests/{test_id}",
    status_code=204,
    responses=responses(404, 409),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="End a test before its time",
)
async def cancel_test(device_id: DeviceId, test_id: UUID, who: PrincipalDep, session: SessionDep, now: NowDep) -> None:
    """From now on whatever the device says is no test."""
    device = await device_within(session, who, device_id, lock=True)
    if await commissioning.find(session, device_id, test_id) is None:
        raise NotFound("no such test of this device")
    if not await commissioning.cancel(session, test_id, device_id, now=now):
        raise Conflict("the test is over")
    audit.note(
        session, who, action="device.test_cancelled", subject_type="device", subject_id=device_id, now=now,
        region_code=device.region_code, test_id=test_id,
    )  # fmt: skip


async def _shown(session: Any, device_id: str, test_id: UUID, now: datetime) -> TestOut:
    row = await commissioning.find(session, device_id, test_id)
    if row is None:
        raise NotFound("no such test of this device")
    return TestOut.model_validate(_shape(row, now))


def _shape(row: Any, now: datetime) -> dict[str, Any]:
    after = (row.seen_at - row.started_at).total_seconds() if row.seen_at else None
    plain = {name: getattr(row, name) for name in TestOut.model_fields
             if name not in ("outcome", "started_by", "seen_after_s")}  # fmt: skip
    return {**plain, "outcome": commissioning.outcome_of(row, now=now), "started_by": row.started_by["name"],
            "seen_after_s": after}  # fmt: skip


def _due_shape(row: Any) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in DueTestOut.model_fields if name != "due_since"}
    return {**shown, "due_since": row.test_due_at}
