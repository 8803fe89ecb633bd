"""How the messages of device families are read: built-in families, configured profiles, and a dry run."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from app.access import audit
from app.access.vocabulary import Right
from app.access.wall import beyond
from app.api import pages
from app.api.bodies import Body, etag, if_match
from app.api.context import NowDep, PartsDep, PrincipalDep, SessionDep, needs
from app.api.problems import responses
from app.api.transactional import Transactional, idempotent
from app.devices import catalogue, shapes
from app.devices.catalogue import Kept
from app.devices.codec import Codec, Knowledge, Registered, Registry
from app.devices.codecs import PROFILES, filters
from app.devices.events import Frame
from app.devices.profiles import Profile, ProfileError, ProfileField
from app.devices.vocabulary import DeviceKind, FieldKind, ProfileSource, RejectReason
from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch

router = APIRouter(route_class=Transactional, tags=["devices"], dependencies=[Depends(idempotent)])
ProfileName = Annotated[str, Path(max_length=64, pattern=r"^[a-z0-9][a-z0-9_.-]*$", examples=["acme-radar"])]
_MOST_PAYLOAD = 64 * 1024


class DeviceProfileOut(BaseModel):
    """A built-in family (read-only) or a configured profile."""

    name: str
    title: str
    source: Literal["built_in", "api", "file"]
    file: str | None = Field(default=None, description="The YAML file it stands in; it is changed there.")
    topics: list[str] = Field(description="Topic filters that the server subscribes to for it.")
    topic: str | None = None
    extends: str | None = None
    device_id_prefix: str = ""
    device_id_prefixes: list[str] = Field(default=[], description="How the ids of its devices begin.")
    records: str | None = None
    fields: list[ProfileField] = []
    version: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class TryIn(Body):
    """A message to read without keeping anything."""

    model_config = ConfigDict(
        extra="forbid",
        str_strip_whitespace=False,
        json_schema_extra={
            "examples": [
                {"topic": "zigbee2mqtt/客厅/求助按钮", "payload": '{"action":"emergency","battery":97}'},
                {"topic": "acme/R-17/up", "payload": {"event": 1, "bat": 80},
                 "profile": Profile.model_config["json_schema_extra"]["examples"][0]},  # type: ignore[index]
            ]
        },
    )  # fmt: skip

    topic: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^+#\x00-\x1f\x7f]+$")] = Field(
        examples=["zigbee2mqtt/客厅/求助按钮"]
    )
    payload: Annotated[str, StringConstraints(max_length=_MOST_PAYLOAD)] | dict[str, Any] = Field(
        description="As it was sent: text, or base64 with `encoding`; a JSON object is sent as JSON.",
        examples=['{"action":"emergency"}'],
    )
    encoding: Literal["utf-8", "base64"] = "utf-8"
    retained: bool = Field(default=False, description="As a broker marks what it kept.")
    profile: Profile | Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="Only this one: a draft, or the name of a family or of a configured profile."
    )
    kind: DeviceKind | None = Field(default=None, description="The device's role, where it is not registered.")

    @field_validator("topic")
    @classmethod
    def _in_utf8(cls, text: str) -> str:
        if not shapes.presentable(text) == text:
            raise ValueError("must be UTF-8")
        return text


class ObservationOut(BaseModel):
    """One thing the message says. The words of its type stand beside it (`state`, `active`, `occupied`, …)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["sos"])
    device_id: str
    profile: str
    field: str | None = Field(description="The field of the message it stood in.")
    field_kind: FieldKind
    event_id: str | None
    occurred_at: datetime
    device_time: datetime | None
    late: bool
    retained: bool
    battery: int | None
    rssi: int | None
    faults: list[str] = Field(description="Fields that could not be read and were taken as unknown.")


class ReasonOut(BaseModel):
    reason: RejectReason
    detail: str = Field(description="What would mend it.")
    device_id: str | None


class TryOut(BaseModel):
    device_id: str | None
    profile: str | None = Field(description="The family or profile that read it.")
    observations: list[ObservationOut]
    reasons: list[ReasonOut] = Field(description="Why it (or a part of it) would be quarantined.")
    ignored: list[str] = Field(description="Why it says nothing of a device, and is in order.")
    learned: dict[str, str] = Field(description="Names that a gateway explains: topic → address.")


@router.get(
    "/device-profiles",
    dependencies=[needs(Right.DEVICES_READ)],
    summary="Built-in families and configured profiles, by name",
)
async def profiles(
    session: SessionDep, parts: PartsDep, limit: pages.Limit = 50, cursor: pages.Cursor = None
) -> pages.Page[DeviceProfileOut]:
    after = pages.decode(cursor, str)
    shown = [_family(codec) for codec in parts.codecs if codec.name != PROFILES]
    shown += [_configured(kept) for kept in await catalogue.profiles(session)]
    rows = sorted((one for one in shown if not after or one.name > after[0]), key=lambda one: one.name)
    return pages.Page[DeviceProfileOut].model_validate(
        pages.page(rows[: limit + 1], limit, lambda one: one.model_dump(), "name")
    )


@router.post(
    "/device-profiles",
    status_code=201,
    responses=responses(409),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Configure a profile",
)
async def add_profile(
    body: Profile, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep
) -> DeviceProfileOut:
    """In force within a second on every running process: subscribed to, and read. Try it first with
    `POST /device-profiles/try`. All regions share the profiles: for accounts and keys of the whole district."""
    who.must_oversee_a_district()
    _check(body, parts.codecs)
    if await catalogue.profile(session, body.name) is not None:
        raise Conflict("a profile of this name exists; PUT changes it", field="name")
    if not await catalogue.put_profile(session, body, source=ProfileSource.API, file=None, now=now):
        raise Conflict("a profile of this name exists; PUT changes it", field="name")
    _note(session, who, "device_profile.added", body, now)
    return await _shown(session, body.name, response)


@router.post(
    "/device-profiles/try",
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="What would come of a message: observations or reasons. Nothing is kept",
)
async def try_profile(body: TryIn, session: SessionDep, parts: PartsDep, now: NowDep) -> TryOut:
    """The message is read as if it had arrived now, with the names and devices that are known; nothing is stored, raised
    or told to anybody."""
    frame = Frame(body.topic, _payload(body), now, body.retained)
    known = await catalogue.load_for(session, body.topic, parts.tz)
    codecs, known = _narrowed(body, parts.codecs, known)
    first = shapes.dry_run(Registry(codecs, known).decode(frame))
    ids = {one["device_id"] for one in (*first["observations"], *first["reasons"]) if one["device_id"]}
    ids |= {f"zigbee2mqtt:{body.topic.partition('/')[2].replace('/', '~1')}"}
    known = await catalogue.with_devices(session, known, ids)
    if body.kind is not None:
        name = known.assumed.profile if known.assumed else first["profile"] or "native"
        known = replace(known, assumed=Registered(name, body.kind))
    elif known.assumed is not None and (seen := known.devices.get(first["device_id"] or "")) is not None:
        known = replace(known, assumed=replace(known.assumed, kind=seen.kind))
    return TryOut.model_validate(shapes.dry_run(Registry(codecs, known).decode(frame)))


@router.get(
    "/device-profiles/{name}",
    responses=responses(404),
    dependencies=[needs(Right.DEVICES_READ)],
    summary="One family or profile",
)
async def profile(name: ProfileName, response: Response, session: SessionDep, parts: PartsDep) -> DeviceProfileOut:
    for codec in parts.codecs:
        if codec.name == name and name != PROFILES:
            return _family(codec)
    return await _shown(session, name, response)


@router.put(
    "/device-profiles/{name}",
    responses=responses(404, 409, 412),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Change a configured profile",
)
async def change_profile(
    name: ProfileName, body: Profile, response: Response, who: PrincipalDep, session: SessionDep, parts: PartsDep,
    now: NowDep, match: Annotated[int | None, Depends(if_match)],
) -> DeviceProfileOut:  # fmt: skip
    kept = await _own(session, who, parts.codecs, name, match)
    if body.name != name:
        raise InvalidInput("a profile keeps its name: devices are registered under it", field="name")
    _check(body, parts.codecs)
    if kept.profile.extends != body.extends and await _devices_under(session, name):
        raise Conflict("devices are registered under it, and their ids belong to what it extends", field="extends")
    await catalogue.put_profile(session, body, source=ProfileSource.API, file=None, now=now)
    _note(session, who, "device_profile.changed", body, now)
    return await _shown(session, name, response)


@router.delete(
    "/device-profiles/{name}",
    status_code=204,
    responses=responses(404, 409, 412),
    dependencies=[needs(Right.DEVICES_WRITE)],
    summary="Remove a profile",
)
async def remove_profile(
    name: ProfileName, who: PrincipalDep, session: SessionDep, parts: PartsDep, now: NowDep,
    match: Annotated[int | None, Depends(if_match)],
) -> None:  # fmt: skip
    """Refused while devices are registered under it: their messages would go to quarantine."""
    kept = await _own(session, who, parts.codecs, name, match)
    used = await _devices_under(session, name)
    if used:
        raise Conflict(f"{used} devices are registered under this profile; register them under another one first")
    await catalogue.withdraw_profile(session, name, now=now)
    _note(session, who, "device_profile.removed", kept.profile, now)


# --- pieces -----------------------------------------------------------------------------------------------------------------


def _check(profile: Profile, codecs: Any) -> None:
    try:
        profile.check_against(filters(codecs))
    except ProfileError as error:
        raise InvalidInput(str(error), field=error.field) from None


async def _own(session: Any, who: Any, codecs: Any, name: str, match: int | None) -> Kept:
    """A profile that the account may change, held. Raises for one that is not there, built in, kept in a file, or that
    devices beyond the account's region are read by; and for an account or key of less than a district."""
    who.must_oversee_a_district()
    if name in filters(codecs):
        raise Conflict(f"{name} is a built-in family and cannot be changed")
    kept = await catalogue.profile(session, name, lock=True)
    if kept is None:
        raise NotFound("no such profile")
    if kept.source is ProfileSource.FILE:
        raise Conflict(f"the profile is kept in the file {kept.file}; change it there and start the server again")
    if match is not None and match != kept.version:
        raise VersionMismatch("the profile was changed in between; read it again")
    if await _devices_under(session, name, outside=who.region_code):
        raise Conflict("devices outside your region are read by this profile")
    return kept


async def _devices_under(session: Any, name: str, *, outside: str | None = None) -> int:
    async with beyond(session, "a profile reads the devices of every region"):
        return await catalogue.devices_under(session, name, outside=outside)


async def _shown(session: Any, name: str, response: Response) -> DeviceProfileOut:
    kept = await catalogue.profile(session, name)
    if kept is None:
        raise NotFound("no such profile")
    response.headers.update(etag(kept.version))
    return _configured(kept)


def _family(codec: Codec) -> DeviceProfileOut:
    return DeviceProfileOut(
        name=codec.name, title=codec.title, source="built_in", topics=list(codec.subscriptions),
        device_id_prefixes=list(codec.id_prefixes),
    )  # fmt: skip


def _configured(kept: Kept) -> DeviceProfileOut:
    profile = kept.profile
    return DeviceProfileOut(
        name=profile.name, title=profile.title, source=kept.source.value, file=kept.file,
        topics=[profile.subscription] if profile.subscription else [], topic=profile.topic, extends=profile.extends,
        device_id_prefix=profile.device_id_prefix, records=profile.records, fields=profile.fields, version=kept.version,
        device_id_prefixes=[profile.device_id_prefix] if profile.device_id_prefix else [],
        created_at=kept.created_at, updated_at=kept.updated_at,
    )  # fmt: skip


def _note(session: Any, who: Any, action: str, profile: Profile, now: datetime) -> None:
    audit.note(
        session, who, action=action, subject_type="device_profile", subject_id=profile.name, now=now, region_code=who.region_code,
        topic=profile.topic, extends=profile.extends, fields=len(profile.fields),
    )  # fmt: skip


def _payload(body: TryIn) -> bytes:
    if isinstance(body.payload, dict):
        return json.dumps(body.payload, ensure_ascii=False).encode(errors="surrogatepass")
    if body.encoding == "base64":
        try:
            return base64.b64decode(body.payload, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("not base64", field="payload") from None
    return body.payload.encode(errors="surrogatepass")


def _narrowed(body: TryIn, codecs: Any, known: Knowledge) -> tuple[list[Codec], Knowledge]:
    """Only the family or profile that is asked for."""
    wanted = body.profile
    if wanted is None:
        return list(codecs), known
    if isinstance(wanted, Profile):
        _check(wanted, codecs)
        compiled = wanted.compiled()
    elif wanted in filters(codecs):
        return [codec for codec in codecs if codec.name == wanted], known
    elif wanted in known.profiles:
        compiled = known.profiles[wanted]
    else:
        raise InvalidInput("no such family or profile; GET /device-profiles lists them", field="profile")
    family = compiled.extends or PROFILES
    assumed = Registered(compiled.name, body.kind or DeviceKind.OTHER) if compiled.extends else None
    return [codec for codec in codecs if codec.name == family], replace(
        known, profiles={compiled.name: compiled}, assumed=assumed
    )
