"""What a device logs in to the broker with: issued and rotated here, shown once."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from app.access import audit
from app.access.vocabulary import Right
from app.api.context import PartsDep, PrincipalDep, SessionDep, needs
from app.api.devices import DeviceId, device_within
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.devices import credentials, topics
from app.devices.tables import DeviceCredential
from app.errors import NotFound

router = APIRouter(route_class=Transactional, tags=["devices"], dependencies=[Depends(idempotent)])


class TopicsOut(BaseModel):
    publish: list[str] = Field(examples=[["devices/sos-0001/event", "devices/sos-0001/status"]])
    subscribe: list[str] = Field(examples=[["devices/sos-0001/command"]])


class CredentialsOut(BaseModel):
    """Without the password: nobody can look it up."""

    device_id: str = Field(examples=["sos-0001"])
    state: Literal["none", "active", "revoked"]
    username: str | None = Field(examples=["sos-0001"])
    issued_at: datetime | None
    rotated_at: datetime | None
    revoked_at: datetime | None


class NewCredentialsOut(BaseModel):
    device_id: str = Field(examples=["sos-0001"])
    username: str = Field(examples=["sos-0001"], description="The device id, unless it cannot be a user name.")
    password: str = Field(
        repr=False,
        examples=["rT0H6vUuYkq3pHcN1oQm0sYb5c2rWqk7eYxJ9d4LZ8A"],
        description="Shown this once, and kept nowhere.",
    )
    client_id: str = Field(examples=["sos-0001"], description="The MQTT client id to use: brokers may insist on it.")
    topics: TopicsOut
    issued_at: datetime
    rotated_at: datetime | None


@router.post(
    "/devices/{device_id}/credentials",
    status_code=201,
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="A new password for the device's log-in at the broker, shown once",
)
async def issue_credentials(
    device_id: DeviceId, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep
) -> NewCredentialsOut:
    """The password before it, if there was one, is good for nothing from now on: a device that is connected with it is
    cut off as soon as the broker has been told, and comes back with the new one."""
    device = await device_within(session, who, device_id, lock=True)
    now = parts.clock()
    issued = await credentials.issue(session, device_id, server=parts.broker.server, now=now)
    audit.note(
        session,
        who,
        action="device.credentials_issued" if issued.rotated_at is None else "device.credentials_rotated",
        subject_type="device",
        subject_id=device_id,
        now=now,
        region_code=device.region_code,
    )
    response.headers["Cache-Control"] = "no-store"
    return NewCredentialsOut(
        device_id=device_id,
        username=issued.username,
        password=issued.password,
        client_id=issued.username,
        topics=TopicsOut(publish=topics.said_by(device_id), subscribe=topics.heard_by(device_id)),
        issued_at=issued.issued_at,
        rotated_at=issued.rotated_at,
    )


@router.get(
    "/devices/{device_id}/credentials",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_READ)],
    summary="Whether the device has a password at the broker, and since when",
)
async def read_credentials(device_id: DeviceId, who: PrincipalDep, session: SessionDep) -> CredentialsOut:
    await device_within(session, who, device_id)
    return _shape(device_id, await credentials.of(session, device_id))


@router.delete(
    "/devices/{device_id}/credentials",
    status_code=204,
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="The broker lets the device in no more, and cuts it off if it is connected",
)
async def revoke_credentials(device_id: DeviceId, who: PrincipalDep, session: SessionDep, parts: PartsDep) -> None:
    device = await device_within(session, who, device_id, lock=True)
    now = parts.clock()
    if not await credentials.revoke(session, device_id, now=now):
        raise NotFound("the device has no password that could be revoked")
    audit.note(
        session,
        who,
        action="device.credentials_revoked",
        subject_type="device",
        subject_id=device_id,
        now=now,
        region_code=device.region_code,
    )


def _shape(device_id: str, row: DeviceCredential | None) -> CredentialsOut:
    if row is None:
        return CredentialsOut(
            device_id=device_id, state="none", username=None, issued_at=None, rotated_at=None, revoked_at=None
        )
    return CredentialsOut(
        device_id=device_id,
        state="active" if row.revoked_at is None else "revoked",
        username=row.username,
        issued_at=row.issued_at,
        rotated_at=row.rotated_at,
        revoked_at=row.revoked_at,
    )
