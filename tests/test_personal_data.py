"""A copy of everything held about somebody; erasing them; and how long things are kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlmodel import SQLModel

import app.tables
from app.access import audit
from app.access.sealing import Sealer
from app.access.tables import idempotency_record
from app.db import transaction
from app.elders.tables import Elder
from app.errors import Conflict
from app.privacy import erasure, retention
from app.privacy.export import SECTIONS, Exporter, exported_columns
from app.privacy.held import ERASED, HELD, NOBODY
from app.privacy.labels import COLUMNS
from app.privacy.retention import PERIODS, Retention
from app.privacy.sealed import SEALED
from app.settings import Settings
from app.visits import chain
from tests.world import DATA_KEY, TZ, VILLAGE, Person, World

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]
CANARY = "金丝雀7731"
TABLES = SQLModel.metadata.tables
assert app.tables

# --- the registry ----------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_every_table_says_what_it_holds_of_a_person() -> None:
    """Whoever adds a table decides here: what of an elder it holds, and what of that is left when they are erased."""
    held = [one.table for one in HELD]
    assert len(held) == len(set(held))
    assert {*held, *NOBODY} == set(TABLES)
    assert not set(held) & NOBODY.keys()
    for name in NOBODY:
        assert "elder_id" not in TABLES[name].columns or name == "coverage_stale", f"{name} holds people"


@pytest.mark.unit
@pytest.mark.parametrize("one", HELD, ids=lambda one: one.table)
def test_every_column_is_kept_or_becomes_something(one: Any) -> None:
    columns = {column.name for column in TABLES[one.table].columns}
    assert set(one.hides) <= columns
    if not one.deleted:
        assert set(one.keeps).isdisjoint(one.becomes)
        assert {*one.keeps, *one.becomes} == columns
    for name in one.keeps:  # what stays cannot be a sealed value, and no long text that people write
        column = TABLES[one.table].columns[name]
        assert not name.endswith("_sealed")
        assert not (isinstance(column.type, sa.String) and (column.type.length or 0) >= 200)


@pytest.mark.unit
def test_every_column_of_an_export_has_a_chinese_name() -> None:
    shown = {name for one in SECTIONS for name in exported_columns(one, [c.name for c in TABLES[one.table].columns])}
    assert shown - COLUMNS.keys() == set()


# --- somebody of whom every table knows ------------------------------------------------------------------------------

_IDS = {"elders": "elder", "visits": "visit", "alarms": "alarm", "contacts": "contact", "findings": "finding",
        "visitors": "visitor", "closed_months": "month", "rounds": "round", "elder_imports": "import"}  # fmt: skip
# What the constraints of a table ask for.
_FITS: dict[str, dict[str, Any]] = {
    "alarms": {"state": "resolved", "outcome": "elder_well", "next_at": None},
    "notices": {"state": "failed", "sent_at": None, "recipient_type": "contact", "channel_id": None},
    "visits": {"qualifying": True, "non_qualifying_code": None, "outcome": "met", "override": True, "voided_at": None,
               "void_reason": None, "ended_at": None, "same_as": None, "place_code": VILLAGE},
    "findings": {"ended_at": None},
    "consents": {"expires_on": None, "withdrawn_on": None},
    "care_tasks": {"dismissed_at": None, "dismissed_reason": None, "dismissed_by": None},
    "elder_statuses": {"status": "moved", "reason": "moved", "until": None},
    "bindings": {"unbound_at": None},
    "channels": {"visitor_id": None},
    "assessments": {"withdrawn_at": None, "withdrawn_reason": None, "scale": None, "score": None},
    "elder_facts": {"disability_grade": 1, "valid_from": date(2026, 1, 1)},
    "rejected_messages": {"payload": None},
    "closed_months": {"month": date(2026, 10, 1)},
    "device_events": {"elder_id": None},
    "digests": {"state": "failed", "sent_at": None, "expires_at": datetime(2027, 1, 1, tzinfo=TZ)},
    "device_tests": {"ends_at": datetime(2026, 11, 23, 16, 10, tzinfo=TZ), "cancelled_at": None},
    "rule_versions": {"region_code": None},
    "watch_periods": {"ends_at": datetime(2026, 11, 25, tzinfo=TZ), "ended_at": None, "ended_by": None},
    "elder_imports": {"file_sealed": None, "state": "checked", "failure": None, "mode": None, "holder": None,
                      "leased_until": None},
    "rounds": {"until": date(2026, 12, 1)},
    "ledger_chain": {"of": "visit"},
    "ledger_checks": {"state": "reviewed", "other_visit_id": None},
}  # fmt: skip


@dataclass
class Somebody:
    """A row in every table that holds people, with the canary in every text and object that is not kept."""

    world: World
    elder: Person
    ids: dict[str, Any] = field(default_factory=dict)

    async def everywhere(self) -> None:
        self.ids |= {"elder": self.elder.id, "visitor": (await self.world.visitor("志愿者")).id}
        self.ids["device"] = await self.world.device(None)
        held = {one.table: one for one in HELD}
        async with transaction(self.world.sessions) as session:
            for table in SQLModel.metadata.sorted_tables:
                if (
                    table.name in held and table.name not in ("elders", "devices", "elder_months", "visit_duties")
                ) or table.name in ("closed_months", "rounds", "elder_imports"):
                    one = held.get(table.name)
                    row = self._row(table, set(one.keeps if one else table.columns.keys()))
                    if table.name in _IDS:
                        self.ids[_IDS[table.name]] = row["id"]
                    await session.execute(table.insert().values(**row))
            await session.execute(
                sa.text("UPDATE elders SET name = :c, remarks = :c, other_tags = :l, status = 'moved', status_reason = 'moved', "
                        "status_since = '2026-11-01' WHERE id = :e"),
                {"c": CANARY, "l": [CANARY], "e": self.elder.id},
            )  # fmt: skip
            await session.execute(sa.text("UPDATE devices SET place = :c"), {"c": CANARY})

    def _row(self, table: sa.Table, kept: set[str]) -> dict[str, Any]:
        row = {
            column.name: self._value(column, column.name in kept) for column in table.columns if column.identity is None
        }
        return row | _FITS.get(table.name, {}) | ({"elder_id": self.elder.id} if "elder_id" in row else {})

    def _value(self, column: sa.Column[Any], kept: bool) -> Any:
        for key in column.foreign_keys:
            where = key.column.table.name
            return {"regions": VILLAGE, "devices": self.ids.get("device")}.get(where) or self.ids.get(
                _IDS.get(where, "")
            )
        now = self.world.time()
        match column.name:
            case "id":
                return uuid4()
            case "region_code":
                return VILLAGE
            case "device_id" | "trigger_device_id":
                return self.ids["device"]
            case "reasons" if column.table.name == "classification_changes":
                return [{"clause": "二（一）1", "because": CANARY}]
            case _ if column.name.endswith("_sealed"):
                return b"\x00"  # sealed with the row's own id, below
        kind = column.type.impl if isinstance(column.type, sa.TypeDecorator) else column.type
        match kind:
            case sa.Enum():
                return kind.enums[0]
            case sa.String():
                return "x" if kept else CANARY
            case sa.Boolean():
                return False
            case sa.Integer() | sa.BigInteger():
                return 1
            case sa.DateTime():
                return now
            case sa.Date():
                return date(2026, 11, 1)
            case ARRAY() if isinstance(kind.item_type, sa.Uuid):
                return [self.elder.id]
            case ARRAY():
                return ["x" if kept else CANARY]
            case JSONB():
                if kept:
                    return {"type": "user", "id": "1", "name": "x"}
                who = str(self.elder.id)
                return {"type": "contact", "id": "1", "name": CANARY, "note": CANARY, "step": 2, "elder_id": who}
            case BYTEA():
                return CANARY.encode()
            case sa.Uuid():
                return uuid4()
        raise AssertionError(f"{column.table.name}.{column.name}: {column.type!r}")

    async def sealed(self) -> None:
        """The canary behind every seal too."""
        async with transaction(self.world.sessions) as session:
            for one in SEALED:
                rows = (await session.execute(sa.text(f"SELECT * FROM {one.table}"))).mappings().all()
                for row in rows:
                    if one.table == "visitors" or row.get("visitor_id"):  # staff's own
                        continue
                    where = " AND ".join(f"{name} = :{name}" for name in one.key)
                    values = {name: row[name] for name in one.key}
                    for column in one.columns:
                        if row[column] is not None:
                            text = self.world.sealer.seal(f"{CANARY} {self.elder.id}", record=one.record(row))
                            await session.execute(
                                sa.text(f"UPDATE {one.table} SET {column} = :v WHERE {where}"), {"v": text, **values}
                            )

    async def found(self) -> set[tuple[str, str]]:
        """Tables and columns in which the canary is seen, behind seals too."""
        seen = set()
        sealed = {one.table: one for one in SEALED}
        for name in TABLES:
            for row in await self._rows(name):
                for column, value in row.items():
                    if value is None:
                        continue
                    if column.endswith("_sealed"):
                        value = self.world.sealer.open_bytes(value, record=sealed[name].record(row)).decode()
                    text = json.dumps(value, default=_text, ensure_ascii=False)
                    if CANARY in text:
                        seen.add((name, column))
        return seen

    async def _rows(self, table: str) -> list[dict[str, Any]]:
        async with self.world.sessions() as session:
            return [dict(row) for row in (await session.execute(sa.text(f"SELECT * FROM {table}"))).mappings()]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@pytest.fixture
async def somebody(world: World) -> Somebody:
    one = Somebody(world, await world.elder("本人"))
    await one.everywhere()
    async with transaction(world.sessions) as session:
        await session.execute(
            sa.text("INSERT INTO idempotent_answers (principal, key, request_sealed, body_sealed, headers, created_at) "
                    "VALUES ('p', 'k', :s, :s, '{}', now())"),
            {"s": world.sealer.seal("x", record=idempotency_record("p", "k"))},
        )  # fmt: skip
    await one.sealed()
    return one


async def erase(world: World, elder_id: UUID) -> list[erasure.Part]:
    async with transaction(world.sessions) as session:
        elder = await session.get_one(Elder, elder_id, with_for_update=True)
        now = world.time()
        return await erasure.erase(
            session, elder, sealer=world.sealer, by="test", now=now, today=now.astimezone(TZ).date()
        )


async def test_nothing_of_an_erased_person_is_left_in_any_table(world: World, somebody: Somebody) -> None:
    planted = await somebody.found()
    assert {one.table for one in HELD if one.deleted or one.becomes} - {"bindings", "assignments", "elder_months"} <= {
        table for table, _ in planted
    }
    async with world.sessions() as session:
        elder = await session.get_one(Elder, somebody.elder.id)
        parts = await erasure.preview(session, elder)
        assert not await erasure.obstacles(session, elder)
    assert {part.table for part in parts if part.rows} == {one.table for one in HELD}
    months = await world.rows("SELECT * FROM elder_months ORDER BY month")
    done = await erase(world, somebody.elder.id)
    assert [(p.table, p.fate, p.rows) for p in done] == [(p.table, p.fate, p.rows) for p in parts]
    # The chains of the ledger hold digests: what stands there was put in by hand.
    assert {(table, name) for table, name in await somebody.found() if not table.startswith("ledger_")} == set()
    assert await world.rows("SELECT * FROM elder_months ORDER BY month") == months
    [row] = await world.rows("SELECT * FROM elders")
    assert (row.name, row.id_number_sealed, row.erased_at, row.birth_date.day) == (ERASED, None, world.time(), 1)
    assert row.birth_date.year % 10 == 0
    [visit] = await world.rows("SELECT * FROM visits")
    assert (visit.qualifying, visit.note, visit.override_reason) == (True, None, ERASED)
    [alarm] = await world.rows("SELECT * FROM alarms")
    assert (alarm.state, alarm.acknowledged_by["name"]) == ("resolved", ERASED)
    [entry] = await world.rows("SELECT * FROM alarm_entries")
    assert entry.data == {"step": 2}


async def test_only_the_person_is_erased(world: World, somebody: Somebody) -> None:
    other = Somebody(world, await world.elder("另一人"))
    world.clock.now += timedelta(seconds=1)
    await world.contact(other.elder, "另一人的女儿")
    await world.message(await world.device(other.elder), {"type": "door", "state": "open"})
    await erase(world, somebody.elder.id)
    assert [row.name for row in await world.rows("SELECT name FROM contacts")] == ["另一人的女儿"]
    assert await world.value("SELECT count(*) FROM device_events") == 1
    assert [row.name for row in await world.rows("SELECT name FROM elders WHERE erased_at IS NULL")] == ["另一人"]
    assert await world.value("SELECT count(*) FROM channels WHERE contact_id IS NOT NULL") == 1


async def test_whoever_is_enrolled_or_has_an_open_alarm_is_not_erased(world: World) -> None:
    elder = await world.elder()
    with pytest.raises(Conflict, match="still in the programme"):
        await erase(world, elder.id)
    await world.do("UPDATE elders SET status = 'paused', status_reason = 'in_hospital', status_since = '2026-11-01'")
    with pytest.raises(Conflict, match="still in the programme"):
        await erase(world, elder.id)
    await world.do("UPDATE elders SET status_reason = 'refused'")
    await world.press_sos(await world.device(elder))
    with pytest.raises(Conflict, match="1 alarms of this person are not resolved"):
        await erase(world, elder.id)
    await world.operator(elder, "resolve")
    await erase(world, elder.id)
    [row] = await world.rows("SELECT status, erased_at FROM elders")  # who refused and is erased is enrolled no longer
    assert (row.status, row.erased_at) == ("moved", world.time())
    with pytest.raises(sa.exc.IntegrityError):
        await world.do("UPDATE elders SET erased_at = NULL")
    await world.settle()
    assert (await world.rows("SELECT unbound_at FROM bindings"))[0].unbound_at is not None


async def test_a_copy_holds_everything_and_opens_what_is_sealed(world: World, somebody: Somebody) -> None:
    exporter = Exporter(world.sessions, world.sealer, TZ)
    copy = json.loads(b"".join([piece async for piece in exporter.as_json(somebody.elder.id, at=world.time())]))
    sections = {section["name"]: section["rows"] for section in copy["sections"]}
    assert [name for name, rows in sections.items() if not rows] == ["audit_log"]
    assert list(sections) == [one.table for one in SECTIONS]
    behind_seals = {("elders", "id_number"), ("elders", "phone"), ("elders", "address"), ("contacts", "phone"),
                    ("channels", "address"), ("family_members", "phone"), ("rejected_messages", "payload")}  # fmt: skip
    for table, column in behind_seals:
        assert sections[table][0][column] == f"{CANARY} {somebody.elder.id}"
    assert "secret" not in sections["channels"][0]
    assert not [key for rows in sections.values() for row in rows for key in row if key.endswith(("_sealed", "_index"))]
    page = b"".join([piece async for piece in exporter.as_page(somebody.elder.id, at=world.time())]).decode()
    assert page.count("<h2>") == len(SECTIONS)
    for section in copy["sections"]:
        assert section["title"] in page
    for words in ("身份证号", "已迁出", "联系人通知渠道", CANARY):
        assert words in page


async def test_a_page_writes_no_markup_of_others(world: World) -> None:
    elder = await world.elder("<script>alert(1)</script>")
    exporter = Exporter(world.sessions, world.sealer, TZ)
    page = b"".join([piece async for piece in exporter.as_page(elder.id, at=world.time())]).decode()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


async def test_what_does_not_open_does_not_stop_a_copy(world: World) -> None:
    elder = await world.elder()
    exporter = Exporter(world.sessions, Sealer(bytes(range(9, 41))), TZ)
    copy = json.loads(b"".join([piece async for piece in exporter.as_json(elder.id, at=world.time())]))
    assert copy["sections"][0]["rows"][0]["phone"] == "(无法解密)"


# --- retention -------------------------------------------------------------------------------------------------------


def keeper(world: World, **days: int) -> Retention:
    settings = Settings(**{one.setting: 0 for one in PERIODS} | {"erase_departed_after_days": 0} | days)  # type: ignore[arg-type]
    return Retention(world.sessions, settings, world.sealer, TZ)


async def test_what_is_old_goes_and_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 3)
    elder = await world.elder()
    await world.contact(elder, "女儿")
    button = await world.device(elder)
    for n in range(7):
        await world.message(button, {"type": "door", "state": "open", "id": str(n)})
    await world.message("stranger", {"type": "sos"})
    await world.press_sos(button, id="sos")
    await world.operator(elder, "resolve")
    await world.settle()
    before = world.clock.now
    world.clock.now += timedelta(days=200)
    await world.message(button, {"type": "door", "state": "open", "id": "new"})
    await world.press_sos(button, id="again")  # open: its notices stay, however old they get
    unread = await world.value("SELECT count(*) FROM feed_events")
    await world.do(
        "INSERT INTO webhook_subscriptions (id, owner_type, owner_id, owner_name, region_code, url_sealed, secret_sealed, "
        "since_seq, failures, created_at, version) VALUES (:id, 'user', :id, 'x', '', '', '', 0, 0, now(), 1)",
        id=uuid4(),
    )
    world.clock.now += timedelta(days=1)
    every = {one.setting: 100 for one in PERIODS}
    assert await keeper(world).run(world.time()) == {}  # 0: for ever
    removed = await keeper(world, **every).run(world.time())
    assert removed["device_events"] == 8
    assert removed["rejected_messages"] == 1
    assert removed["unclaimed_devices"] == 1
    assert removed["notices"] > 0
    assert "feed_events" not in removed  # no webhook has read it yet
    assert await world.value("SELECT count(*) FROM feed_events") == unread
    assert await world.value("SELECT count(*) FROM notices WHERE created_at < :t", t=before + timedelta(days=9)) == 0
    assert {row.event_id for row in await world.rows("SELECT event_id FROM device_events")} == {"new", "again"}
    await world.do("UPDATE webhook_fan_out SET seq = (SELECT min(seq) FROM feed_events)")
    assert (await keeper(world, **every).run(world.time()))["feed_events"] == 1
    await world.do("DELETE FROM webhook_subscriptions")
    assert (await keeper(world, **every).run(world.time()))["feed_events"] > 0  # nobody waits for them
    rows = await world.rows("SELECT actor, detail FROM audit_log WHERE action = 'retention.applied' ORDER BY id")
    assert rows[0].actor == {"type": "system", "name": "retention"}
    assert rows[0].detail["removed"] == removed
    assert rows[0].detail["days"] == every
    world.clock.now += timedelta(days=300)
    await keeper(world, **every).run(world.time())
    open_alarm = await world.value("SELECT id FROM alarms WHERE state <> 'resolved'")
    assert await world.value("SELECT count(*) FROM notices WHERE alarm_id = :a", a=open_alarm) > 0


async def test_one_worker_at_a_time(world: World) -> None:
    await world.message("stranger", {"type": "sos"})
    world.clock.now += timedelta(days=10)
    async with transaction(world.sessions) as session:
        await session.execute(sa.text(f"SELECT pg_advisory_xact_lock({retention._LOCK})"))
        assert await keeper(world, retain_quarantine_days=5).run(world.time()) == {}
    assert await keeper(world, retain_quarantine_days=5).run(world.time()) == {"rejected_messages": 1}


async def test_who_left_long_ago_is_erased(world: World) -> None:
    gone, waiting, recent, here = [await world.elder(name) for name in ("早走", "有报警", "刚走", "在册")]
    await world.press_sos(await world.device(waiting))
    for who, since in ((gone, date(2026, 1, 1)), (waiting, date(2026, 1, 1)), (recent, date(2026, 11, 1))):
        await world.do(
            "UPDATE elders SET status = 'deceased', status_reason = 'deceased', status_since = :s WHERE id = :id",
            s=since, id=who.id,
        )  # fmt: skip
    assert await keeper(world, erase_departed_after_days=100).run(world.time()) == {"elders": 1}
    names = {row.name for row in await world.rows("SELECT name FROM elders WHERE erased_at IS NULL")}
    assert names == {"有报警", "刚走", "在册"}
    [row] = await world.rows("SELECT * FROM audit_log WHERE action = 'elder.erased'")
    assert (row.subject_id, row.detail["reason"]) == (str(gone.id), "no_longer_needed")
    assert here.id
    async with world.sessions() as session:
        assert isinstance(await audit.verify(session), audit.Head)


@pytest.mark.unit
def test_periods_have_settings_and_ids_grow_with_time() -> None:
    defaults = Settings()
    assert all(getattr(defaults, one.setting) > 0 for one in PERIODS)
    moment = datetime(2026, 11, 26, 12, tzinfo=TZ)
    from app.ids import new_uuid

    assert new_uuid(moment - timedelta(milliseconds=1)) < retention.oldest_id(moment) <= new_uuid(moment)
    with pytest.raises(ValueError, match="RETAIN_FEED_DAYS must be more"):
        Settings(retain_feed_days=30, webhook_log_days=30)
    assert DATA_KEY


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def _chains(live: Live) -> tuple[type, type]:
    """What `verify-audit` and `verify-ledger` come to."""
    engine = create_async_engine(f"postgresql+asyncpg://postgres@/shouwang?host={live.folder / 'postgres' / 'run'}")
    try:
        async with AsyncSession(engine) as session:
            of_audit = await audit.verify(session)
        async with AsyncSession(engine) as session:
            return type(of_audit), type(await chain.verify(session))
    finally:
        await engine.dispose()


@pytest.mark.xdist_group("live")
def test_a_person_is_exported_corrected_and_erased(live: Live) -> None:
    village, number, wrong = live.village(), live.id_number("19410203"), live.id_number("19410204")
    elder = live.elder(village, name="单桂花", id_number=wrong, phone="13812340917", address="般阳路7号")
    e = f"/elders/{elder['id']}"
    live.contact(elder, "/daughter", name="单小妹", phone="13912340917")
    visitor = live.visitor(village)
    live.admin.made(f"{e}/visitors", visitor_id=visitor["id"])
    live.admin.made(f"{e}/consents", scope="home_visit", given_by="elder", given_on="2026-01-01")
    live.admin.made(
        "/visits", elder_id=elder["id"], visitor_id=visitor["id"], method="home", services=["daily_living"],
        started_at="2026-11-20T09:00:00+08:00", ended_at="2026-11-20T10:00:00+08:00", note="单桂花说头疼",
    )  # fmt: skip
    [visit] = live.admin.items("/visits", elder_id=elder["id"])
    assert (
        live.admin.patch(f"/visits/{visit['id']}", json={"note": "单桂花说腿疼", "reason": "单桂花更正"}).status_code
        == 200
    )
    live.admin.post("/ledger-checks/run", json={"month": "2026-11", "region_code": village})
    [late] = [one for one in live.admin.items("/ledger-checks", region_code=village) if one["kind"] == "late_entry"]
    reviewed = live.admin.post(
        f"/ledger-checks/{late['id']}/review", json={"outcome": "explained", "note": "问过单桂花"}
    )
    assert reviewed.status_code == 200, reviewed.text
    button = live.device(elder)
    live.say(f"devices/{button}/event", {"type": "sos", "id": "1"})
    alarm = live.soon(lambda: live.admin.items("/alarms", elder_id=elder["id"]))[0]

    # correction
    assert live.admin.patch(e, json={"id_number": number}).json()["birth_date"] == "1941-02-03"
    assert live.admin.patch(e, json={"id_number": number[:-1] + "?"}).status_code == 422
    other = live.elder(village)
    assert live.admin.patch(f"/elders/{other['id']}", json={"id_number": number}).status_code == 409
    assert live.admin.patch(e, json={"id_number": None}).status_code == 422

    # a copy
    assert live.admin.get(f"{e}/export").status_code == 422  # why?
    for role in ("operator", "visitor", "auditor"):
        api = live.user(role, village)
        assert api.get(f"{e}/export", params={"purpose": "家属申请"}).status_code in (403, 404)
        assert api.post(f"{e}/erasure", json={"reason": "left_programme"}).status_code in (403, 404)
    supervisor = live.user("supervisor", village)
    assert supervisor.post(f"{e}/erasure", json={"reason": "left_programme"}).status_code == 403
    answer = supervisor.get(f"{e}/export", params={"purpose": "家属单桂花申请"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="elder-{elder["id"]}.json"'
    rows = {section["name"]: section["rows"] for section in answer.json()["sections"]}
    assert (rows["elders"][0]["id_number"], rows["elders"][0]["phone"]) == (number, "+8613812340917")
    assert rows["contacts"][0]["phone"] == "+8613912340917"
    assert rows["visits"][0]["note"] == "单桂花说腿疼"
    assert rows["device_events"][0]["device_id"] == button
    assert "elder.exported" in [row["action"] for row in rows["audit_log"]]
    page = supervisor.get(f"{e}/export", params={"purpose": "家属申请", "format": "html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "般阳路7号" in page.text
    foreign = live.user("supervisor", live.village("370302002000"))
    assert foreign.get(f"{e}/export", params={"purpose": "家属申请"}).status_code == 404
    query = "SELECT detail::text AS d FROM audit_log WHERE action = 'elder.exported' AND subject_id = $1 ORDER BY id"
    noted = live.rows(query, elder["id"])
    assert len(noted) == 2
    assert "家属…申请" in noted[0]["d"]

    # erasing
    seen = live.admin.seen(f"{e}/erasure")
    assert (seen["allowed"], [o["code"] for o in seen["obstacles"]]) == (False, ["still_enrolled", "open_alarm"])
    refused = live.admin.post(f"{e}/erasure", json={"reason": "left_programme"})
    assert refused.status_code == 409, refused.text
    assert "resolve them first" in refused.json()["detail"]
    live.admin.post(f"/alarms/{alarm['id']}/resolve", json={"outcome": "elder_well", "note": "单桂花没事"})
    live.admin.patch(e, json={"status": "moved"})
    before = live.admin.seen("/stats/coverage", month="2026-11", region_code=village)
    seen = live.admin.seen(f"{e}/erasure")
    assert seen["allowed"]
    done = live.admin.post(f"{e}/erasure", json={"reason": "asked_by_family"}, headers={"Idempotency-Key": uuid4().hex})
    assert done.status_code == 200, done.text
    counts = {part["table"]: part["rows"] for part in done.json()["parts"]}
    assert (counts["contacts"], counts["visits"], counts["device_events"]) == (1, 1, 1)
    for path in (e, f"{e}/contacts", f"{e}/timeline", f"{e}/export?purpose=xx", f"{e}/erasure", f"{e}/family"):
        assert live.admin.get(path).status_code == 404, path
    assert live.admin.post(f"{e}/erasure", json={"reason": "left_programme"}).status_code == 404
    assert elder["id"] not in [one["id"] for one in live.admin.items("/elders", region_code=village)]
    assert live.admin.seen("/stats/coverage", month="2026-11", region_code=village) == before
    shown = live.admin.seen(f"/alarms/{alarm['id']}")
    assert shown["elder"]["name"] == ERASED
    assert live.admin.seen(f"/devices/{button}")["elder_id"] is None
    texts = json.dumps([shown, live.admin.seen(f"/alarms/{alarm['id']}/timeline"),
                        live.admin.seen(f"/alarms/{alarm['id']}/notifications")], ensure_ascii=False)  # fmt: skip
    tables = live.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    everything = [texts, live.log.read_text()]
    everything += [row[0] for (table,) in tables for row in live.rows(f'SELECT t::text FROM "{table}" t')]
    for canary in ("单桂花", "单小妹", number, wrong, "13812340917", "般阳路7号"):
        assert not [text[:200] for text in everything if canary in text], canary
    assert asyncio.run(_chains(live)) == (audit.Head, chain.Whole)  # both go on from what is left
    live.elder(village, name="单桂花", id_number=number)  # whoever comes back is somebody new
