"""Two households of a township, one of the next, and everybody who may ask about them: for the matrix of scope."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import accounts
from app.access.vocabulary import KeyScope, Role
from app.db import transaction
from app.main import Embedded, Server
from app.settings import Settings
from tests.in_process import BASE, ask
from tests.world import DATA_KEY, TOKEN_KEY, id_number

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TOWNSHIP, NEXT_TOWNSHIP = "370302001", "370302002"
PASSWORD = "three-words-nobody-joins"
ROLES = ("admin", "supervisor", "operator", "visitor", "auditor")


# Ids of a place and its rules: neighbours share them.
OF_PLACES = frozenset({"code", "region_code", "closed_month_id", "escalation_policy", "care_policy", "special_period"})


@dataclass(frozen=True)
class Household:
    """Ids of everything that belongs to one elder and their place, under the names that routes give them."""

    mark: str  # stands in every name
    ids: dict[str, str]

    def traces(self) -> set[str]:
        """What must not appear where the household does not exist."""
        return {self.mark} | {value for name, value in self.ids.items() if name not in OF_PLACES}


@dataclass
class Asker:
    """Somebody who asks."""

    name: str
    token: str | None
    rights: frozenset[str]
    is_visitor: bool = False


@dataclass
class Town:
    """The application with its people."""

    app: FastAPI
    engine: AsyncEngine
    own: Household
    beside: Household  # in the same village, of another visitor
    foreign: Household
    askers: list[Asker] = field(default_factory=list)


class _Builder:
    def __init__(self, app: FastAPI, token: str) -> None:
        self.app, self.token = app, token

    async def made(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await ask(self.app, "POST", BASE + path, token=self.token, body=body)
        assert 200 <= answer.status < 300, (path, answer.status, answer.body)
        return answer.json() if answer.body else {}

    async def household(self, mark: str, key: str, village: str, number: int) -> Household:
        console = [{"kind": "console", "address": mark}]
        elder = await self.made(
            "/elders", name=f"{mark}老人", id_number=id_number(number), region_code=village, phone="13800000000",
            address=f"{mark}路1号", remarks=f"{mark}备注",
        )  # fmt: skip
        at = f"/elders/{elder['id']}"
        visitor = await self.made(
            "/visitors", name=f"{mark}网格员", kind="grid_worker", region_code=village, channels=console
        )
        await self.made(f"{at}/visitors", visitor_id=visitor["id"], role="primary")
        ids = {"elder_id": elder["id"], "visitor_id": visitor["id"], "code": village, "region_code": village}
        ids["contact_id"] = (await self.made(f"{at}/contacts", name=f"{mark}女儿", relation="女儿", channels=console))[
            "id"
        ]
        ids["member_id"] = (await self.made(f"{at}/family", name=f"{mark}儿子", relation="儿子"))["id"]
        consent = {"scope": "visit", "given_by": "elder", "given_on": "2026-11-01"}
        ids["consent_id"] = (await self.made(f"{at}/consents", **consent))["id"]
        ids["assessment_id"] = (
            await self.made(f"{at}/assessments", assessed_on="2026-11-01", level="mild", note=f"{mark}评估")
        )["id"]
        ids["finding_id"] = (
            await self.made(f"{at}/findings", kind="hazard", topic="gas", description=f"{mark}软管老化")
        )["id"]
        await self.made(
            "/devices", device_id=f"sos-{key}", kind="sos_button", elder_id=elder["id"], place=f"{mark}床头"
        )
        ids["device_id"] = f"sos-{key}"
        await self.made(f"/devices/sos-{key}/credentials")
        ids["tested_device"] = f"tst-{key}"
        await self.made("/devices", device_id=f"tst-{key}", kind="door_sensor", elder_id=elder["id"])
        ids["test_id"] = (await self.made(f"/devices/tst-{key}/tests", seconds=600))["id"]
        for name, kind in (("resolved_alarm", "fall"), ("attended_alarm", "smoke"), ("alarm_id", "reported")):
            alarm = await self.made("/alarms", elder_id=elder["id"], kind=kind, note=f"{mark}有事")
            ids[name] = alarm["id"]
        for name in ("resolved_alarm", "attended_alarm"):
            await self.made(f"/alarms/{ids[name]}/attend", note=mark)
        await self.made(f"/alarms/{ids['resolved_alarm']}/resolve", outcome="real_emergency", note=mark)
        visit = await self.made(
            "/visits", elder_id=elder["id"], visitor_id=visitor["id"], method="phone", note=f"{mark}还好",
            started_at="2026-11-20T08:00:00+08:00",
        )  # fmt: skip
        ids["visit_id"] = visit["id"]
        changed = await ask(
            self.app,
            "PATCH",
            f"{BASE}/visits/{visit['id']}",
            token=self.token,
            body={"note": f"{mark}好", "reason": mark},
        )
        assert changed.status == 200, changed.body
        await self.made(
            f"/regions/{village}/duty", **{"role": "village_head", "visitor_id": visitor["id"], "from": "2026-01-01"}
        )
        user = await self.made(
            "/users", username=f"desk-{key}", password=PASSWORD, role="operator", region_code=village
        )
        ids["user_id"] = user["id"]
        api_key = await self.made("/api-keys", name=f"{mark}大屏", scopes=["alarms:read"], region_code=village)
        ids["key_id"] = api_key["id"]
        hook = await self.made("/webhooks", url=f"http://127.0.0.1:9/{key}", region_code=village, description=mark)
        ids["webhook_id"] = hook["id"]
        ids["delivery_id"] = (await self.made(f"/webhooks/{hook['id']}/test"))["id"]
        policy = {"steps": [{"after_s": 60, "targets": ["operators"]}], "repeat_last_every_s": 60, "severity": "minor"}
        ids["escalation_policy"] = (
            await self.made("/escalation-policies", name=f"{village}规则", region_code=village, **policy)
        )["id"]
        ids["care_policy"] = (
            await self.made("/care-policies", version=f"{mark[::-1]}-1", region_code=village, visits={})
        )["id"]
        cold = {"kind": "weather", "from": "2026-12-10", "to": "2026-12-12", "levels": ["key"], "visits_per_day": 1}
        cold |= {"name": f"寒潮{number}", "region_code": village}
        ids["special_period"] = (await self.made("/special-periods", **cold))["id"]
        round_of = {"visitor_id": visitor["id"], "region_code": village, "from": "2026-11-23", "days": 7}
        ids["round_id"] = (await self.made("/rounds", **round_of))["id"]
        away = {"kind": "away", "begins_at": "2026-12-01T08:00:00+08:00", "ends_at": "2026-12-10T18:00:00+08:00"}
        ids["watch_period"] = (await self.made(f"{at}/watch-periods", **away, note=mark))["id"]
        own_rules = {"elder_id": elder["id"], "settings": {"door_left_open": {"after_minutes": 45}}, "note": mark}
        answer = await ask(self.app, "PUT", f"{BASE}/rules", token=self.token, body=own_rules)
        assert answer.status == 200, answer.body
        meeting = {"region_code": village, "held_on": "2026-11-20", "place": "村委", "topic": f"{mark}培训"}
        meeting |= {"in_charge": f"{mark}书记", "review": f"{mark}回顾", "visitor_ids": [visitor["id"]]}
        ids["training_id"] = (await self.made("/training-sessions", **meeting))["id"]
        outing = {"region_code": village, "held_on": "2026-11-18", "place": "幸福院", "kind": "recreation", "elders": 3}
        ids["station_activity"] = (await self.made("/station-activities", title=f"{mark}活动", **outing))["id"]
        await self.made(f"/visitors/{visitor['id']}/credit-statements", **{"from": "2026-11-01", "to": "2026-11-22"})
        seed = {"public_seed": f"{mark}开奖号", "seed_source": "官网公布", "size": 5}
        drawn = await self.made("/ledger-samples", month="2026-11", region_code=village, **seed)
        ids["sample_id"] = drawn["id"]
        ids["closed_month_id"] = (await self.made("/closed-months", month=f"2026-0{6 + number}", region_code=village))[
            "id"
        ]
        return Household(mark, ids)


@asynccontextmanager
async def town(url: str, folder: Path) -> AsyncIterator[Town]:
    """A migrated database at `url` with its people, and the application in front of it, in this process."""
    settings = Settings(
        _env_file=None, database_url=url, mqtt_url="mqtt://nowhere", data_dir=folder, allow_private_webhooks=True,
        data_key=base64.b64encode(DATA_KEY).decode(), token_key=base64.b64encode(TOKEN_KEY).decode(),
        access_token_seconds=86_400,
    )  # type: ignore[call-arg]  # fmt: skip
    server = Server(settings, Embedded(settings), {"api"}, clock=lambda: NOW)
    app = server.build()
    try:
        async with transaction(server.sessions) as session:
            await session.execute(
                sa.text(
                    "INSERT INTO regions (code, name, level, parent_code, created_at) VALUES (:code, :name, 'village', "
                    ":above, now()) ON CONFLICT DO NOTHING"
                ),
                [
                    {"code": f"{place}001", "name": f"{place}村", "above": f"{place}000"}
                    for place in (TOWNSHIP, NEXT_TOWNSHIP)
                ],
            )
            await accounts.create(
                session, username="chief", password=PASSWORD, role=Role.ADMIN, region_code="", visitor_id=None, now=NOW
            )
        chief = _Builder(app, await _log_in(app, "chief"))
        reads = [{"path": "$.event", "role": "type", "values": {"1": "fall"}}]
        await chief.made("/device-profiles", name="radar", title="雷达", topic="radar/{device_id}/up", fields=reads)
        made = Town(
            app,
            server.engine,
            await chief.household("本户", "own", f"{TOWNSHIP}001", 1),
            await chief.household("邻户", "beside", f"{TOWNSHIP}001", 2),
            await chief.household("外户", "foreign", f"{NEXT_TOWNSHIP}001", 3),
        )
        await _what_devices_said(server, made)
        made.askers = [asker async for asker in _askers(app, chief, made)]
        yield made
    finally:
        await server.engine.dispose()


async def _log_in(app: FastAPI, username: str) -> str:
    answer = await ask(app, "POST", f"{BASE}/auth/token", form={"username": username, "password": PASSWORD})
    assert answer.status == 200, answer.body
    return str(answer.json()["access_token"])


async def _what_devices_said(server: Server, made: Town) -> None:
    """Events, a message nobody could read, a list that was checked, the finished follow-up's id."""
    async with transaction(server.sessions) as session:
        for house in (made.own, made.beside, made.foreign):
            values = {
                "id": uuid4(),
                "device": house.ids["device_id"],
                "elder": house.ids["elder_id"],
                "mark": house.mark,
            }
            await session.execute(
                sa.text(
                    "INSERT INTO device_events (id, device_id, elder_id, type, occurred_at, received_at, late, data) "
                    "VALUES (:id, :device, :elder, 'sos', now(), now(), false, jsonb_build_object('m', CAST(:mark AS text)))"
                ),
                values,
            )
            await session.execute(
                sa.text(
                    "INSERT INTO rejected_messages (id, received_at, topic, device_id, reason, detail, payload) VALUES "
                    "(:id, now(), 'devices/' || :device || '/event', :device, 'unknown_topic', 'x', convert_to(:mark, 'UTF8'))"
                ),
                values,
            )
            check = sa.text(
                "INSERT INTO ledger_checks (id, kind, key, group_key, month, region_code, visit_id, because, figures, "
                "found_at, state) VALUES (:id, 'late_entry', :mark, :mark, '2026-11-01', :place, :visit, :mark, '{}', "
                "now(), 'open')"
            )
            house.ids["check_id"] = str(values["id"])
            place = {"place": house.ids["code"], "visit": house.ids["visit_id"]}
            await session.execute(check, {"id": values["id"], "mark": house.mark, **place})
            await session.execute(
                sa.text(
                    "INSERT INTO elder_imports (id, region_code, place_code, filename, size, file_sealed, state, rows_done, "
                    "tries, created_by, created_at) VALUES (:id, :code, :code, :name, 1, 'x', 'checked', 1, 1, "
                    "jsonb_build_object('name', CAST(:mark AS text), 'id', '', 'type', 'user'), now())"
                ),
                {"id": values["id"], "code": house.ids["code"], "name": house.mark, "mark": house.mark},
            )
            await session.execute(
                sa.text(
                    "INSERT INTO elder_import_rows (import_id, row, outcome, elder_id, changes, issues) "
                    "VALUES (:id, 1, 'unchanged', :elder, '{}', '[]')"
                ),
                values,
            )
            house.ids["import_id"] = str(values["id"])
            task = sa.text("SELECT id FROM care_tasks WHERE elder_id = :elder")
            house.ids["task_id"] = str(await session.scalar(task, {"elder": house.ids["elder_id"]}))
            house.ids["family_member_id"] = house.ids["member_id"]


async def _askers(app: FastAPI, chief: _Builder, made: Town) -> AsyncIterator[Asker]:
    """Each role in the own township; a key with each scope, and one with all scopes but it; nobody."""
    yield Asker("anonymous", None, frozenset())
    for role in ROLES:
        more = {"visitor_id": made.own.ids["visitor_id"]} if role == "visitor" else {}
        await chief.made("/users", username=f"the-{role}", password=PASSWORD, role=role, region_code=TOWNSHIP, **more)
        token = await _log_in(app, f"the-{role}")
        me = (await ask(app, "GET", f"{BASE}/me", token=token)).json()
        yield Asker(role, token, frozenset(me["rights"]), is_visitor=role == "visitor")
    for scope in KeyScope:
        for name, scopes in (("key with", [scope]), ("key without", [s for s in KeyScope if s is not scope])):
            key = await chief.made(
                "/api-keys", name=f"{name} {scope}", scopes=[s.value for s in scopes], region_code=TOWNSHIP
            )
            yield Asker(
                f"{name} {scope.value}", key["key"], frozenset({s.value for s in scopes} | {"self:read", "places:read"})
            )
