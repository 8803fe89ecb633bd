"""What the forms say, read from the register and the ledger within a scope. Nothing is changed here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from app.access.principal import Principal, begins, normal_scope, within
from app.access.sealing import Sealer, mask_address, mask_id_number, mask_phone
from app.elders import history, policies, register
from app.elders.classification import classify
from app.elders.form_words import SEX, Category, write_ability, write_category
from app.elders.identity import age_on
from app.elders.policies import Policies
from app.elders.tables import Elder, FamilyMember, Region
from app.elders.vocabulary import ElderStatus, RegionLevel, Service
from app.errors import InvalidInput
from app.reports.forms import annex_1, annex_2, annex_3
from app.visits.rules import CLAUSES
from app.visits.tables import Visit, VisitPartner
from app.visits.vocabulary import Method, NotCounted, VisitOutcome

MOST_ROWS = 50_000
_BATCH = 1000
_METHOD = {Method.HOME: "入户", Method.PHONE: "电话", Method.ONLINE: "线上", Method.ENCOUNTER: "路遇"}
_OUTCOME = {
    VisitOutcome.MET: "",
    VisitOutcome.NOBODY_HOME: "家中无人",
    VisitOutcome.NO_ANSWER: "无人接听",
    VisitOutcome.TURNED_AWAY: "谢绝探访",
}


@dataclass(frozen=True, slots=True)
class Pen:
    """How people are written: on which day, with which keys and policies, masked or plainly, and what 类别 shows."""

    sealer: Sealer
    today: date
    in_force: Policies
    plainly: bool
    category: Category

    def id_number(self, elder: Elder) -> str:
        number = self.sealer.open_optional(elder.id_number_sealed, record=elder.id) or ""
        return number if self.plainly else mask_id_number(number)

    def address(self, elder: Elder) -> str:
        address = self.sealer.open_optional(elder.address_sealed, record=elder.id)
        return (address if self.plainly else mask_address(address)) or ""

    def phone(self, member: FamilyMember) -> str:
        phone = self.sealer.open_optional(member.phone_sealed, record=member.id)
        return (phone if self.plainly else mask_phone(phone)) or ""

    def kind(self, elder: Elder) -> str:
        policy = self.in_force.at(elder.region_code, self.today)
        found = classify(history.facts_of(elder), on=self.today, policy=policy)
        return write_category(elder.tags, elder.other_tags, found.care_level, self.category)

    def ability(self, elder: Elder) -> str:
        return write_ability(elder.ability_level, elder.observed, elder.disability_grade, elder.dementia)


async def pen(session: AsyncSession, sealer: Sealer, *, today: date, plainly: bool, category: Category) -> Pen:
    return Pen(sealer, today, await policies.in_force(session), plainly, category)


# --- annex 1 ---------------------------------------------------------------------------------------------------------


async def survey(session: AsyncSession, elder: Elder, pen: Pen) -> annex_1.Survey:
    """附件1 of one elder."""
    query = select(FamilyMember).where(col(FamilyMember.elder_id) == elder.id).order_by(col(FamilyMember.id))
    family = (await session.execute(query.limit(50))).scalars().all()
    return annex_1.Survey(
        surveyed_on=elder.surveyed_on, name=elder.name, sex=SEX[elder.sex], age=age_on(elder.birth_date, pen.today),
        id_number=pen.id_number(elder), category=pen.kind(elder), ability=pen.ability(elder),
        address=pen.address(elder),
        family=[annex_1.Relative(one.name, one.relation, pen.phone(one)) for one in family],
        services=[Service(one) for one in elder.services],
        notes={Service(name): note for name, note in elder.service_notes.items()},
    )  # fmt: skip


# --- annex 2 ---------------------------------------------------------------------------------------------------------


async def month_of_visits(session: AsyncSession, elder: Elder, *, first_day: date, tz: ZoneInfo) -> annex_2.Month:
    """附件2 of one elder's calendar month, local time (choice 8). Voided entries are not in it; attempts are, as such."""
    beginning = datetime(first_day.year, first_day.month, 1, tzinfo=tz)
    next_month = (first_day.replace(day=1) + timedelta(days=32)).replace(day=1)
    end = datetime(next_month.year, next_month.month, 1, tzinfo=tz)
    query = (
        select(Visit)
        .where(
            col(Visit.elder_id) == elder.id,
            col(Visit.voided_at).is_(None),
            col(Visit.started_at) >= beginning,
            col(Visit.started_at) < end,
        )
        .order_by(col(Visit.started_at), col(Visit.id))
    )
    visits = (await session.execute(query.limit(1000))).scalars().all()
    names = await _who_came(session, visits)
    township, village = await _place(session, visits[-1].place_code if visits else elder.region_code)
    return annex_2.Month(
        township=township, village=village, name=elder.name, first_day=first_day,
        lines=[
            annex_2.Line(
                visit.started_at.astimezone(tz).date(), [Service(one) for one in visit.services],
                "、".join(names.get(visit.id, [])), _remark(visit),
            )
            for visit in visits
        ],
    )  # fmt: skip


async def _who_came(session: AsyncSession, visits: Sequence[Visit]) -> dict[UUID, list[str]]:
    """The visitor first, then who came along."""
    ids = [visit.id for visit in visits]
    partners = (
        await session.execute(
            select(VisitPartner).where(col(VisitPartner.visit_id).in_(ids)).order_by(col(VisitPartner.visitor_id))
        )
    ).scalars()
    came = {visit.id: [visit.visitor_id] if visit.visitor_id else [] for visit in visits}
    for partner in partners:
        came[partner.visit_id].append(partner.visitor_id)
    wanted = {one for some in came.values() for one in some}
    names = await register.visitor_names(session, wanted)
    return {visit_id: [names[one] for one in some if one in names] for visit_id, some in came.items()}


def _remark(visit: Visit) -> str:
    """备注: how, what came of it when nobody was met, what was noted, and why it does not count."""
    words = [_METHOD[visit.method], _OUTCOME[visit.outcome], visit.note or ""]
    if visit.non_qualifying_code not in (None, NotCounted.ATTEMPT):
        words.append(f"不计探访（{CLAUSES[visit.non_qualifying_code]}）")
    return "；".join(word for word in words if word)


async def _place(session: AsyncSession, code: str) -> tuple[str, str]:
    """Names of the township and the village of a code; empty where there is none."""
    found = await session.execute(
        sa.text("SELECT level, name FROM regions WHERE code IN (:code, :above)"),
        {"code": code, "above": code[:9] + "000"},
    )
    names = {row.level: row.name for row in found}
    return names.get(RegionLevel.TOWNSHIP, ""), names.get(RegionLevel.VILLAGE, "")


# --- annex 3 ---------------------------------------------------------------------------------------------------------


async def summary(session: AsyncSession, who: Principal, region: Region, pen: Pen) -> annex_3.Summary:
    """附件3 of a township or one of its villages: everybody enrolled and not gone, by village, in the order of enrolment.

    Raises `InvalidInput` for a district, and for more people than a form may have.
    """
    if region.level is RegionLevel.DISTRICT:
        raise InvalidInput("the form is of one township or village: give its code", field="region_code")
    enrolled = (
        within(who, col(Elder.region_code)),
        begins(col(Elder.region_code), normal_scope(region.code)),
        col(Elder.status).in_([ElderStatus.ACTIVE, ElderStatus.PAUSED]),
    )
    many = await session.scalar(select(sa.func.count()).select_from(Elder).where(*enrolled)) or 0
    if many > MOST_ROWS:
        raise InvalidInput(f"more than {MOST_ROWS} people: ask for one village at a time", field="region_code")
    lines: list[annex_3.Line] = []
    after = ("", UUID(int=0))
    while True:
        query = (
            select(Elder)
            .where(*enrolled, sa.tuple_(col(Elder.region_code), col(Elder.id)) > after)
            .order_by(col(Elder.region_code), col(Elder.id))
            .limit(_BATCH)
        )
        batch = (await session.execute(query)).scalars().all()
        if not batch:
            break
        lines += await asyncio.to_thread(_lines, batch, pen)
        after = (batch[-1].region_code, batch[-1].id)
        for one in batch:
            session.expunge(one)
    township, village = await _place(session, region.code)
    return annex_3.Summary(" ".join(name for name in (township, village) if name), pen.today, lines)


def _lines(elders: Sequence[Elder], pen: Pen) -> list[annex_3.Line]:
    return [_line(one, pen) for one in elders]


def _line(elder: Elder, pen: Pen) -> annex_3.Line:
    return annex_3.Line(
        elder.name, SEX[elder.sex], age_on(elder.birth_date, pen.today), pen.id_number(elder), pen.address(elder),
        pen.kind(elder), pen.ability(elder), elder.remarks or "",
    )  # fmt: skip
