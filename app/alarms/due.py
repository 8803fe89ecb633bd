"""What is due: escalation steps, promises that passed, alarms attended and never ended. The database is the timer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.alarms import entries, facts, handling
from app.alarms.escalation import AT_ONCE, Due, Plan, advance
from app.alarms.raising import answerer
from app.alarms.recipients import chosen, operators, people_of, reaches_a_person
from app.alarms.vocabulary import AlarmState
from app.notify import outbox
from app.notify.outbox import Planned, Recipient
from app.notify.vocabulary import Purpose, Target
from app.rules.verdict import DEVICE_HEALTH
from app.words import say

log = logs.get("alarms")
_BATCH = 100
_AGAIN_AFTER = timedelta(minutes=1)
_DUE = sa.text(
    """
    SELECT id, elder_id, kind, region_code, state, step, round, plan, plan_from, acknowledged_by, acknowledged_at,
           promise_due_at, attended_by, trigger_device_id, unreachable_since
    FROM alarms WHERE next_at <= :now ORDER BY next_at LIMIT :batch FOR UPDATE SKIP LOCKED
    """
)
_STEP = sa.text(
    """
    UPDATE alarms SET step = :step, next_at = :next_at, round = round + 1, version = version + 1,
        unreachable_since = CASE WHEN :nobody THEN coalesce(unreachable_since, :now) ELSE unreachable_since END
    WHERE id = :id
    """
)
_REOPEN = sa.text(
    """
    UPDATE alarms SET state = 'open', acknowledged_at = NULL, acknowledged_by = NULL, promise_due_at = NULL
    WHERE id = :id AND state = 'acknowledged'
    """
)

Everyone = Mapping[Target, list[Recipient]]


async def take_due_steps(session: AsyncSession, *, now: datetime, tz: ZoneInfo) -> int:
    """Do what is due, each row once however many workers look. Returns how many alarms were moved."""
    rows = (await session.execute(_DUE, {"now": now, "batch": _BATCH})).all()
    if not rows:
        return 0
    people = await people_of(session, [row.elder_id for row in rows], now=now, tz=tz)
    for row in rows:
        await _take_apart(session, row, people.get(row.elder_id, {}), now)
    return len(rows)


async def _take_apart(session: AsyncSession, row: Any, everyone: Everyone, now: datetime) -> None:
    """One alarm in a savepoint: what is wrong with one (a plan that cannot be read) holds back none of the others. It is
    looked at again in a minute, and the log says so. A database that is away is everybody's trouble and goes on up."""
    told = len(session.info.get("facts", ()))
    try:
        async with session.begin_nested():
            await _do_due(session, row, everyone, now)
    except Exception as error:
        if isinstance(error, OSError | TimeoutError | SQLAlchemyError) and not isinstance(
            error, IntegrityError | DataError
        ):
            raise
        log.error(
            "an alarm's due step cannot be done; again in a minute", alarm=str(row.id), error=type(error).__name__
        )
        del session.info.get("facts", [])[told:]
        await session.execute(
            sa.text("UPDATE alarms SET next_at = :again WHERE id = :id"), {"id": row.id, "again": now + _AGAIN_AFTER}
        )


async def _do_due(session: AsyncSession, row: Any, everyone: Everyone, now: datetime) -> None:
    match AlarmState(row.state):
        case AlarmState.OPEN:
            await _step(session, row, everyone, now)
        case AlarmState.ACKNOWLEDGED:
            await _promise_passed(session, row, everyone, now)
        case AlarmState.ATTENDING:
            await _ask_for_outcome(session, row, now)
        case AlarmState.RESOLVED:
            raise AssertionError("a resolved alarm has no next time (CHECK unresolved_has_a_next_time)")


def _find_step(row: Any, plan: Plan, everyone: Everyone, now: datetime) -> tuple[Due, list[Recipient]]:
    """The next step with somebody in it: a step with nobody in it costs no time. A step of the duty desk alone takes its
    time like any other. A last step with nobody in it calls all whom the plan names: what repeats until somebody answers
    never repeats to nobody while somebody can be reached."""
    step = row.step
    while True:
        due = advance(plan, step=step, plan_from=row.plan_from, now=now)
        who = chosen(everyone, due.targets)
        for_the_desk = set(due.targets) == {Target.OPERATORS}
        if reaches_a_person(who) or row.kind in DEVICE_HEALTH or for_the_desk:
            return due, who
        if due.step >= len(plan.steps) - 1:
            return due, chosen(everyone, _named_in(plan))
        step = due.step


def _named_in(plan: Plan) -> list[Target]:
    return list(dict.fromkeys(target for step in plan.steps for target in step.targets))


async def _step(session: AsyncSession, row: Any, everyone: Everyone, now: datetime) -> None:
    plan = Plan.from_json(row.plan)
    due, who = _find_step(row, plan, everyone, now)
    await _take(session, row, due, who, Purpose.ESCALATED, due.reason, now, anybody=chosen(everyone, _named_in(plan)))


async def _promise_passed(session: AsyncSession, row: Any, everyone: Everyone, now: datetime) -> None:
    await session.execute(_REOPEN, {"id": row.id})
    plan = Plan.from_json(row.plan)
    due, _ = _find_step(row, plan, everyone, now)
    minutes = round((row.promise_due_at - row.acknowledged_at) / timedelta(minutes=1))
    reason = say("reason.promise_passed", name=row.acknowledged_by["name"], minutes=minutes)
    who = chosen(everyone, dict.fromkeys((*AT_ONCE, *due.targets)))
    held = handling.Held(row.id, row.elder_id, row.region_code, AlarmState.OPEN, row.round, row.trigger_device_id)
    await handling.tell_device_open(session, held, now=now)
    await entries.write(
        session, [(row.id, "reopened", None, {"because": reason, "promised_by": row.acknowledged_by})], now=now
    )
    facts.tell(session, "alarm.reopened", region_code=row.region_code, alarm_id=row.id, now=now, because=reason)
    anybody = chosen(everyone, (*AT_ONCE, *_named_in(plan)))
    await _take(session, row, due, who, Purpose.REOPENED, reason, now, anybody=anybody)


async def _take(
    session: AsyncSession, row: Any, due: Due, who: list[Recipient], purpose: Purpose, reason: str, now: datetime,
    *, anybody: list[Recipient],
) -> None:  # fmt: skip
    """`anybody`: whom the plan could tell in any of its steps. Only when that is nobody, the alarm is unreachable."""
    nobody = not reaches_a_person(anybody) and row.kind not in DEVICE_HEALTH  # for a device the desk is enough
    await session.execute(_STEP, {"id": row.id, "step": due.step, "next_at": due.next_at, "now": now, "nobody": nobody})
    await outbox.plan(session, [Planned(row.id, purpose, row.round + 1, reason, one) for one in who], now=now)
    await entries.write(
        session,
        [(row.id, "escalated", None, {"step": due.step, "because": reason, "told": [one.name for one in who]})],
        now=now,
    )
    facts.tell(
        session,
        "alarm.escalated",
        region_code=row.region_code,
        alarm_id=row.id,
        now=now,
        step=due.step,
        because=reason,
        next_at=due.next_at,
    )
    if nobody:
        facts.tell(
            session,
            "alarm.unreachable",
            region_code=row.region_code,
            alarm_id=row.id,
            now=now,
            because="nobody of any step has a channel",
        )


async def _ask_for_outcome(session: AsyncSession, row: Any, now: datetime) -> None:
    await session.execute(
        sa.text("UPDATE alarms SET next_at = :next_at, round = round + 1, version = version + 1 WHERE id = :id"),
        {"id": row.id, "next_at": now + handling.REMIND_AFTER},
    )
    person = await answerer(session, row.attended_by) if row.attended_by["type"] in ("contact", "visitor") else None
    told = [one for one in (person, operators()) if one is not None]
    reason = say("reason.reminded")
    await outbox.plan(session, [Planned(row.id, Purpose.REMINDED, row.round + 1, reason, one) for one in told], now=now)
    facts.tell(session, "alarm.reminded", region_code=row.region_code, alarm_id=row.id, now=now, because=reason)
