"""The register: enrolling and finding people within a scope, sealing what is personal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal, begins, within
from app.access.sealing import Sealer, mask_address, mask_id_number, mask_phone
from app.access.wall import beyond
from app.elders import classifying, history
from app.elders.classification import classify
from app.elders.identity import Identity, age_on, read_id_number
from app.elders.phones import normal_phone
from app.elders.pinyin import as_typed, search_keys
from app.elders.policies import Policies
from app.elders.tables import Assignment, Contact, Duty, Elder, Region, Visitor
from app.elders.vocabulary import ChangeCause, DutyRole, ElderStatus, RegionLevel, StatusReason
from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch
from app.ids import new_uuid

# --- regions ---------------------------------------------------------------------------------------------------------


def level_of(code: str) -> RegionLevel:
    """6 + 3 + 3 digits: district, town, village."""
    if code.endswith("000000"):
        return RegionLevel.DISTRICT
    return RegionLevel.TOWNSHIP if code.endswith("000") else RegionLevel.VILLAGE


async def add_region(session: AsyncSession, who: Principal, *, code: str, name: str, now: datetime) -> Region:
    """A township or village below a region that exists. Raises `InvalidInput` when the one above does not."""
    if not who.sees(code):
        raise InvalidInput("the code is outside your own region", field="code")
    level = level_of(code)
    parent = {
        RegionLevel.DISTRICT: None,
        RegionLevel.TOWNSHIP: code[:6] + "000000",
        RegionLevel.VILLAGE: code[:9] + "000",
    }[level]
    if parent is not None and await session.get(Region, parent) is None:
        raise InvalidInput(f"add the region above first: {parent}", field="code")
    if await session.get(Region, code) is not None:
        raise Conflict("a region of this code exists already", field="code")
    region = Region(code=code, name=name, level=level, parent_code=parent, created_at=now)
    session.add(region)
    await session.flush()
    return region


async def region_within(session: AsyncSession, who: Principal, code: str) -> Region:
    region = await session.get(Region, code)
    if region is None or not who.sees(code):
        raise NotFound("no such region")
    return region


async def must_be_region(session: AsyncSession, who: Principal, code: str) -> None:
    """A code given in a body. Raises `InvalidInput` when it is unknown or outside the scope: alike."""
    if not who.sees(code) or await session.get(Region, code) is None:
        raise InvalidInput("no such region; add it with POST /api/v1/regions", field="region_code")


async def add_duty(
    session: AsyncSession,
    region: Region,
    *,
    role: DutyRole,
    visitor_id: UUID,
    since: date,
    until: date | None,
    now: datetime,
) -> Duty:
    """Somebody holds an office from a day to a day. The one who held it openly until then ends the day before."""
    wanted = RegionLevel.TOWNSHIP if role is DutyRole.TOWNSHIP_DUTY else RegionLevel.VILLAGE
    if region.level is not wanted:
        raise InvalidInput(f"{role.value} is an office of a {wanted.value}", field="role")
    if until is not None and until < since:
        raise InvalidInput("`to` is before `from`", field="to")
    await session.execute(
        sa.text(
            "UPDATE duties SET until = CAST(:since AS date) - 1 WHERE region_code = :code AND role = :role "
            "AND until IS NULL AND since < :since"
        ),
        {"code": region.code, "role": role.value, "since": since},
    )
    duty = Duty(
        id=new_uuid(now),
        region_code=region.code,
        role=role,
        visitor_id=visitor_id,
        since=since,
        until=until,
        created_at=now,
    )
    session.add(duty)
    await session.flush()
    return duty


# --- elders ----------------------------------------------------------------------------------------------------------

_PLAIN = ("name", "tags", "other_tags", "observed", "disability_grade", "dementia", "circumstances", "services",
          "service_notes", "willing", "willing_asked_on", "surveyed_on", "remarks")  # fmt: skip
_FACTS = {"observed", "disability_grade", "dementia", "circumstances"}
_STATUS = {"status", "status_reason", "status_since", "status_until", "status_evidence"}


async def enrol(
    session: AsyncSession, who: Principal, fields: Mapping[str, Any], *, sealer: Sealer, now: datetime, today: date
) -> Elder:
    """Enrol a person. Birth date and sex come from the ID number and are checked against those given, if any."""
    identity = read_id_number(fields["id_number"], today=today)
    for name, known in (("birth_date", identity.birth_date), ("sex", identity.sex)):
        if fields.get(name) is not None and fields[name] != known:
            raise InvalidInput(f"`{name}` does not fit the ID number", field=name)
    await must_be_region(session, who, fields["region_code"])
    _check_days(fields, today)
    await must_be_nobody_yet(session, identity.number, sealer=sealer)
    elder = new_elder(identity, fields, sealer=sealer, now=now)
    session.add(elder)
    await session.flush()
    by = str(who.id)
    await history.live_in(session, elder, elder.region_code, since=today, by=by, now=now)
    await history.keep_facts(session, elder, valid_from=history.SINCE_EVER, by=by, now=now)
    await _assess(session, elder, fields, by=by, now=now, today=today)
    if fields.get("status", ElderStatus.ACTIVE) != ElderStatus.ACTIVE:
        await _pass_to(session, elder, fields, by=by, now=now, today=today)
    await classifying.refresh(session, elder, cause=ChangeCause.ENROLLED, now=now, today=today)
    return elder


def new_elder(identity: Identity, fields: Mapping[str, Any], *, sealer: Sealer, now: datetime) -> Elder:
    """A row of the register from checked fields, not yet in the session."""
    elder_id = new_uuid(now)
    elder = Elder(
        id=elder_id,
        sex=identity.sex,
        birth_date=identity.birth_date,
        id_number_sealed=sealer.seal(identity.number, record=elder_id),
        id_number_index=sealer.index(identity.number),
        region_code=fields["region_code"],
        status=ElderStatus.ACTIVE,
        name_keys=search_keys(fields["name"]),
        created_at=now,
        updated_at=now,
        # Given, not left to the columns' factories: pydantic looks at the signature of `list` anew for each row.
        **{**_nothing_yet(), **{name: fields[name] for name in _PLAIN if name in fields}},
    )
    _seal_reach(elder, fields, sealer)
    return elder


def _nothing_yet() -> dict[str, Any]:
    return {"tags": [], "other_tags": [], "circumstances": [], "services": [], "service_notes": {}}


def set_fields(elder: Elder, fields: Mapping[str, Any], *, sealer: Sealer) -> bool:
    """Set the fields that are columns of the elder. True: facts changed that have a history of their own."""
    for name in _PLAIN:
        if name in fields:
            setattr(elder, name, fields[name])
    if "name" in fields:
        elder.name_keys = search_keys(fields["name"])
    _seal_reach(elder, fields, sealer)
    return bool(_FACTS & fields.keys())


async def change_elder(
    session: AsyncSession,
    who: Principal,
    elder: Elder,
    fields: Mapping[str, Any],
    *,
    sealer: Sealer,
    now: datetime,
    today: date,
) -> list[str]:
    """Change the given fields; what was before stays in the histories. Returns their names."""
    _check_days(fields, today)
    by = str(who.id)
    if fields.get("moved_on") and "region_code" not in fields:
        raise InvalidInput("`moved_on` goes with a new `region_code`", field="moved_on")
    if "region_code" in fields:
        await must_be_region(session, who, fields["region_code"])
        if fields["region_code"] != elder.region_code:
            since = fields.get("moved_on") or today
            await history.live_in(session, elder, fields["region_code"], since=since, by=by, now=now)
            elder.region_code = fields["region_code"]
    if "id_number" in fields:
        await _correct_number(session, elder, fields["id_number"], sealer=sealer, today=today)
    if set_fields(elder, fields, sealer=sealer):
        await history.keep_facts(session, elder, valid_from=today, by=by, now=now)
    await _assess(session, elder, fields, by=by, now=now, today=today)
    if _STATUS & fields.keys():
        await _pass_to(session, elder, fields, by=by, now=now, today=today)
    await touch(session, elder, now=now)
    cause = ChangeCause.STATUS if _STATUS & fields.keys() else ChangeCause.CHANGED
    await classifying.refresh(session, elder, cause=cause, now=now, today=today)
    return sorted(fields)


async def _correct_number(session: AsyncSession, elder: Elder, text: str, *, sealer: Sealer, today: date) -> None:
    """A wrong ID number is put right; birth date and sex follow it."""
    identity = read_id_number(text, today=today)
    if identity.number == sealer.open_optional(elder.id_number_sealed, record=elder.id):
        return
    await must_be_nobody_yet(session, identity.number, sealer=sealer)
    elder.id_number_sealed = sealer.seal(identity.number, record=elder.id)
    elder.id_number_index = sealer.index(identity.number)
    elder.birth_date, elder.sex = identity.birth_date, identity.sex


async def touch(session: AsyncSession, elder: Elder, *, now: datetime) -> None:
    """The elder changed: a new version for If-Match."""
    elder.version += 1
    elder.updated_at = now
    await session.flush()


def _check_days(fields: Mapping[str, Any], today: date) -> None:
    for name in ("willing_asked_on", "surveyed_on", "moved_on", "status_since"):
        if (fields.get(name) or today) > today:
            raise InvalidInput("a day in the future", field=name)


async def _assess(
    session: AsyncSession, elder: Elder, fields: Mapping[str, Any], *, by: str, now: datetime, today: date
) -> None:
    """`ability` as the elder's shape has it: a level with its day is an assessment, null withdraws them."""
    if "ability_level" not in fields and fields.get("ability_assessed_on") is None:
        return
    level = fields.get("ability_level", elder.ability_level)
    day = fields.get("ability_assessed_on")
    if level is None:
        if day is not None:
            raise InvalidInput("an assessment day without a level", field="ability.assessed_on")
        if elder.ability_level is not None:
            await history.withdraw_all_assessments(session, elder, reason="withdrawn by a change of the elder", now=now)
    elif level != elder.ability_level or day not in (None, elder.ability_assessed_on):
        await history.add_assessment(session, elder, assessed_on=day or today, level=level, by=by, now=now, today=today)


async def _pass_to(
    session: AsyncSession, elder: Elder, fields: Mapping[str, Any], *, by: str, now: datetime, today: date
) -> None:
    status = ElderStatus(fields.get("status", elder.status))
    same = status is elder.status
    reason = fields.get("status_reason", elder.status_reason if same else None)
    await history.set_status(
        session,
        elder,
        status=status,
        reason=StatusReason(reason) if reason else None,
        since=fields.get("status_since") or (elder.status_since if same else None) or today,
        until=fields.get("status_until", elder.status_until if same else None),
        evidence=fields.get("status_evidence"),
        by=by,
        now=now,
        today=today,
    )


_TAIL = 4


def phone_tail(phone: str) -> str:
    """What is hashed of a phone: its last four digits are found without opening a seal, and by the key's holder only."""
    return "phone-tail:" + phone[-_TAIL:]


async def lock_numbers(session: AsyncSession, numbers: Collection[str], *, sealer: Sealer) -> None:
    """Until the commit nobody else enrols these: while keys are exchanged two processes may write different hashes of one
    number, which no unique index would notice."""
    await session.execute(
        sa.text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS given(key)"),
        {"keys": sorted({lock for number in numbers for lock in sealer.locks(number)})},
    )


async def must_be_nobody_yet(session: AsyncSession, number: str, *, sealer: Sealer) -> None:
    """One person is enrolled once. Raises `Conflict`."""
    await lock_numbers(session, [number], sealer=sealer)
    known = select(col(Elder.id)).where(col(Elder.id_number_index).in_(sealer.indexes(number)))
    async with beyond(session, "one person is enrolled once, wherever that is"):
        there = await session.scalar(known)
    if there is not None:
        raise Conflict("an elder with this ID number is enrolled already", field="id_number")


def _seal_reach(elder: Elder, fields: Mapping[str, Any], sealer: Sealer) -> None:
    if "phone" in fields:
        phone = normal_phone(fields["phone"]) if fields["phone"] else None
        elder.phone_sealed = sealer.seal_optional(phone, record=elder.id)
        elder.phone_tail_index = sealer.index(phone_tail(phone)) if phone else None
    if "address" in fields:
        elder.address_sealed = sealer.seal_optional(fields["address"], record=elder.id)


async def index_phones(session: AsyncSession, sealer: Sealer, *, after: UUID, batch: int = 500) -> UUID | None:
    """Give phones their search hash where a migration or a bulk load could not: one batch of a walk by id.

    Returns where to go on, None at the end. A field that does not open (a lost key) is left as it is.
    """
    query = (
        select(Elder)
        .where(col(Elder.phone_sealed).is_not(None), col(Elder.phone_tail_index).is_(None), col(Elder.id) > after)
        .order_by(col(Elder.id))
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    found = (await session.execute(query)).scalars().all()
    for elder in found:
        try:
            phone = sealer.open_optional(elder.phone_sealed, record=elder.id)
        except (InvalidTag, ValueError):
            continue
        elder.phone_tail_index = sealer.index(phone_tail(phone)) if phone else None
        elder.name_keys = elder.name_keys or search_keys(elder.name)
    return found[-1].id if found else None


async def elder_within(
    session: AsyncSession, who: Principal, elder_id: UUID, *, version: int | None = None, lock: bool = False
) -> Elder:
    """Raises `NotFound` for an id that is absent, erased or outside the scope, alike."""
    query = select(Elder).where(
        col(Elder.id) == elder_id, within(who, col(Elder.region_code)), col(Elder.erased_at).is_(None)
    )
    elder = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if elder is None:
        raise NotFound("no such elder")
    if version is not None and elder.version != version:
        raise VersionMismatch("the elder changed since you read it; read it again")
    return elder


async def list_elders(
    session: AsyncSession,
    who: Principal,
    *,
    limit: int,
    before: UUID | None,
    region_code: str | None = None,
    name: str | None = None,
    tag: str | None = None,
    status: str | None = None,
    care_level: str | None = None,
    phone_tails: Sequence[bytes] | None = None,
    id_numbers: Sequence[bytes] | None = None,
) -> Sequence[Elder]:
    """Elders within the scope. `name`: a part of the name, or its pinyin: initials (wgy) or whole (wangguiying).
    `phone_tails`, `id_numbers`: every form in which the hash may be stored (`Sealer.indexes`)."""
    query = select(Elder).where(within(who, col(Elder.region_code)), col(Elder.erased_at).is_(None))
    if region_code:
        query = query.where(begins(col(Elder.region_code), region_code))
    if name:
        key = as_typed(name)
        by_sound = col(Elder.name_keys).contains(f" {key}", autoescape=True) if key else sa.false()
        query = query.where(sa.or_(col(Elder.name).contains(name, autoescape=True), by_sound))
    if tag:
        query = query.where(col(Elder.tags).contains([tag]))
    if status:
        query = query.where(col(Elder.status) == status)
    if care_level:
        query = query.where(col(Elder.care_level) == care_level)
    if phone_tails is not None:
        query = query.where(col(Elder.phone_tail_index).in_(phone_tails))
    if id_numbers is not None:
        query = query.where(col(Elder.id_number_index).in_(id_numbers))
    if before:
        query = query.where(col(Elder.id) < before)
    return (await session.execute(query.order_by(col(Elder.id).desc()).limit(limit + 1))).scalars().all()


async def names_of(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, tuple[str, str]]:
    """Name and region code of each elder."""
    rows = await session.execute(
        sa.text("SELECT id, name, region_code FROM elders WHERE id = ANY(CAST(:ids AS uuid[]))"), {"ids": list(ids)}
    )
    return {row.id: (row.name, row.region_code) for row in rows}


def elder_shape(
    elder: Elder, *, sealer: Sealer, today: date, in_force: Policies, plainly: bool = False
) -> dict[str, Any]:
    """An elder as the contract shows it: masked unless `plainly`. Age and care level are computed for today."""
    id_number = sealer.open_optional(elder.id_number_sealed, record=elder.id) or ""
    phone = sealer.open_optional(elder.phone_sealed, record=elder.id)
    address = sealer.open_optional(elder.address_sealed, record=elder.id)
    found = classify(history.facts_of(elder), on=today, policy=in_force.at(elder.region_code, today))
    return {
        "id": elder.id,
        "name": elder.name,
        "sex": elder.sex,
        "birth_date": elder.birth_date,
        "age": age_on(elder.birth_date, today),
        "id_number": id_number if plainly else mask_id_number(id_number),
        "phone": phone if plainly else mask_phone(phone),
        "address": address if plainly else mask_address(address),
        "region_code": elder.region_code,
        "tags": elder.tags,
        "other_tags": elder.other_tags,
        "ability": {"level": elder.ability_level, "assessed_on": elder.ability_assessed_on, "observed": elder.observed},
        "disability_grade": elder.disability_grade,
        "dementia": elder.dementia,
        "circumstances": elder.circumstances,
        "services": elder.services,
        "service_notes": elder.service_notes,
        "willing": elder.willing,
        "willing_asked_on": elder.willing_asked_on,
        "surveyed_on": elder.surveyed_on,
        "remarks": elder.remarks,
        "status": elder.status,
        "status_reason": elder.status_reason,
        "status_since": elder.status_since,
        "status_until": elder.status_until,
        "status_evidenced": elder.status_evidenced,
        "care_level": found.care_level,
        "care_level_reasons": [reason.shape() for reason in found.reasons],
        "policy_version": found.policy_version,
    }


# --- contacts, visitors, assignments ---------------------------------------------------------------------------------


async def contact_within(session: AsyncSession, who: Principal, elder_id: UUID, contact_id: UUID) -> Contact:
    await elder_within(session, who, elder_id)
    contact = await session.get(Contact, contact_id)
    if contact is None or contact.elder_id != elder_id:
        raise NotFound("no such contact")
    return contact


async def visitor_within(session: AsyncSession, who: Principal, visitor_id: UUID) -> Visitor:
    query = select(Visitor).where(col(Visitor.id) == visitor_id, within(who, col(Visitor.region_code)))
    visitor = (await session.execute(query)).scalar_one_or_none()
    if visitor is None:
        raise NotFound("no such visitor")
    return visitor


async def visitor_names(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, str]:
    """Who they are, for those who see what they did: a visit, a pairing. Also of somebody from outside the region."""
    query = select(col(Visitor.id), col(Visitor.name)).where(col(Visitor.id).in_(ids))
    async with beyond(session, "whoever sees a visit or a pairing sees the visitor's name"):
        return {row.id: row.name for row in await session.execute(query)}


async def must_be_visitor(session: AsyncSession, who: Principal, visitor_id: UUID) -> Visitor:
    """A visitor named in a body. Raises `InvalidInput` when absent or outside the scope, alike."""
    try:
        return await visitor_within(session, who, visitor_id)
    except NotFound:
        raise InvalidInput("no such visitor", field="visitor_id") from None


async def assign(session: AsyncSession, elder: Elder, visitor: Visitor, *, role: Any, now: datetime) -> Assignment:
    """Pair a visitor with an elder (policy row 21); paired already: only the role changes."""
    query = select(Assignment).where(
        col(Assignment.elder_id) == elder.id,
        col(Assignment.visitor_id) == visitor.id,
        col(Assignment.ended_at).is_(None),
    )
    current = (await session.execute(query.with_for_update())).scalar_one_or_none()
    if current is not None:
        current.role = role
        await session.flush()
        return current
    made = Assignment(id=new_uuid(now), elder_id=elder.id, visitor_id=visitor.id, role=role, created_at=now)
    session.add(made)
    await session.flush()
    return made
