"""Every operation of /openapi.json, asked by everybody, about what is their own, what is foreign and what is nowhere.

Foreign and absent ids answer alike: status, headers, body, and the statements that the database was asked. Nothing that
is answered holds a trace of a household outside the scope. A new operation stands in `MATRIX`, or this fails; one word in
`PLAIN` will do when its ids have the names of `households.Household` and the example of its body can be sent.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from app.api import transactional
from app.api.application import PUBLIC, guarded_routes
from app.api.transactional import Replay, Transactional
from app.db import last_acts
from app.embedded.postgres import EmbeddedPostgres
from tests.households import NEXT_TOWNSHIP, OF_PLACES, PASSWORD, TOWNSHIP, Asker, Household, Town, town
from tests.in_process import Answer, ask

# --- the matrix ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """How one operation is asked about what is one's own. `body` is laid over the example of the document; `subjects` says
    what an id stands for that has another name; `refused` whom the operation itself refuses, and how."""

    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)  # what is the same for everybody
    refused: Mapping[str, int] = field(default_factory=dict)
    tells: bool = True  # a list with nothing in the path: it tells of the own household or its place
    unique: Collection[
        str
    ] = ()  # fields that are one's wherever that is: taken is said alike of one's own and of foreign
    finds: bool = False  # a search by POST: what is not there is not found, and no mistake
    done: int | None = None  # of two statuses of success the one to expect
    stream: bool = False


PLAIN = """
    revoke_own_tokens log_out users user change_user reset_password revoke_tokens api_keys add_key api_key
    change_key revoke_key take_over_key audit_log regions region duty add_duty elders elder assessments assess
    withdraw_assessment statuses set_status residences family add_relative change_relative remove_relative
    classification classification_changes care_policies write_care_policy list_consents give_consent
    withdraw_consent contacts add_contact contact change_contact remove_contact visitors add_visitor visitor
    change_visitor assignments assign unassign devices device bind unbind bindings events rejected
    issue_credentials read_credentials revoke_credentials policies due visit_rules closed_months deltas visits
    visit versions elder_timeline findings open_finding finding finding_step care_tasks care_task alarms
    report alarm acknowledge attend resolve escalate comment notifications timeline webhooks webhook
    change_webhook remove_webhook rotate_secret test_webhook resend_failed deliveries delivery resend coverage
    coverage_trend coverage_forecast change_device device_states evidence due_tests start_test
    hours_of_visitors issue_statement credit_statements trainings activities run_checks ledger_checks ledger_check
    review_check ledger_samples ledger_sample place_region
    imports one_import import_rows import_issues commit_import cancel_import
""".split()  # noqa: SIM905
MATRIX: dict[str, Row] = {name: Row() for name in PLAIN}
_WRITERS_ONLY = {"operator": 403, "visitor": 403, "key": 403}  # whoever wrote it down, or manages the register
_SUPERVISORS = {"operator": 403, "visitor": 403}  # a key may enter weather
_ENTERED = {"operator": 403, "visitor": 404, "key": 403}  # what the key itself entered
_SHARED = dict.fromkeys(("admin", "supervisor", "key"), 403)  # by all regions: for a whole district
_PERIOD = {"period_id": "special_period"}
_PROFILE = {"name": "radar"}
MATRIX |= {
    # accounts, places, rules
    "add_user": Row(body={"username": "desk-new"}),
    "add_region": Row(body={"code": f"{TOWNSHIP}009"}),
    "me": Row(tells=False),
    "change_own_password": Row(body={"old_password": PASSWORD, "password": "another-four-words-together"}),
    "scales": Row(tells=False),
    "status_meanings": Row(tells=False),
    "undetermined": Row(tells=False),
    "audit_log": Row(subjects={"subject": "elder_id"}),
    "care_policy": Row(subjects={"policy_id": "care_policy"}),
    "put_care_policy_in_force": Row(subjects={"policy_id": "care_policy"}),
    "dry_run": Row(subjects={"policy_id": "care_policy"}),
    "policy": Row(subjects={"policy_id": "escalation_policy"}),
    "add_policy": Row(),
    "add_scale": Row(body={"name": "another scale"}, refused=_SHARED),
    # people
    "enrol": Row(),
    "search": Row(body={"name": "户老人"}, finds=True),
    "change": Row(),
    "export_elder": Row(query={"purpose": "家属申请"}),
    "erasure_preview": Row(),
    "erase_elder": Row(refused={"admin": 409}),  # who is enrolled is not erased
    # devices
    "register_device": Row(body={"device_id": "sos-new"}, unique=("device_id",)),
    "unclaimed": Row(tells=False),
    "one_test": Row(subjects={"device_id": "tested_device"}),
    "cancel_test": Row(subjects={"device_id": "tested_device"}),
    "import_devices": Row(refused=dict.fromkeys(("admin", "supervisor", "key"), 422)),  # asked without a list
    "profiles": Row(tells=False),
    "add_profile": Row(refused=_SHARED),
    "try_profile": Row(),
    "profile": Row(fixed=_PROFILE),
    "change_profile": Row(fixed=_PROFILE, body=_PROFILE, refused=_SHARED),
    "remove_profile": Row(fixed=_PROFILE, refused=_SHARED),
    # visits
    "close_month": Row(),
    "record": Row(),
    "correct": Row(refused=_WRITERS_ONLY),
    "void": Row(refused=_WRITERS_ONLY),
    "override": Row(),
    "dismiss_task": Row(),
    "alarm_visit": Row(subjects={"alarm_id": "attended_alarm"}, done=201),
    "covered_elders": Row(refused={"visitor": 403, "key": 403}),  # asks for statistics too
    "special_periods": Row(),
    "enter_period": Row(refused=_SUPERVISORS),
    "special_period": Row(subjects=_PERIOD),
    "change_period": Row(subjects=_PERIOD, refused=_ENTERED),
    "cancel_period": Row(subjects=_PERIOD, refused=_ENTERED),
    "period_completion": Row(subjects=_PERIOD),
    "festivals": Row(tells=False),
    "festival_setting": Row(),
    "set_festivals": Row(),
    "propose_round": Row(query={"from": "2026-11-24", "region_code": f"{TOWNSHIP}001"}),
    "accept_round": Row(body={"from": "2026-11-24"}, refused={"visitor": 403}),
    "rounds": Row(),
    "one_round": Row(),
    "cancel_round": Row(),
    "digests": Row(tells=False),
    "preview_digest": Row(),
    "region_hours": Row(),
    "set_region_hours": Row(),
    "visitor_hours": Row(),
    "set_visitor_hours": Row(),
    # watches
    "rules": Row(),
    "set_rules": Row(),
    "history": Row(tells=False),
    "periods": Row(),
    "enter": Row(),
    "end": Row(subjects={"period_id": "watch_period"}),
    # statistics, volunteers, the ledger
    "alarm_statistics": Row(tells=False),
    "hours_of_visitor": Row(),
    "record_training": Row(body={"held_on": "2026-11-20"}),
    "change_training": Row(subjects={"session_id": "training_id"}),
    "record_activity": Row(body={"held_on": "2026-11-18"}),
    "change_activity": Row(subjects={"activity_id": "station_activity"}),
    "draw_sample": Row(body={"month": "2026-11"}),
    "township_review": Row(),
    # front ends, alarms and reports
    "add_webhook": Row(body={"url": "http://127.0.0.1:9/new"}),
    "stream": Row(stream=True),
    "annex_1_file": Row(),
    "annex_2_file": Row(query={"month": "2026-11"}),
    "annex_3_file": Row(),
    "annex_3_csv": Row(),
    "hand_in": Row(refused=dict.fromkeys(("admin", "supervisor", "key"), 422)),  # there is no file in these questions
}

# --- operations of the document --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    right: str
    done: int  # the status of success
    in_path: tuple[str, ...]
    in_query: tuple[tuple[str, bool], ...]  # with: is it required
    in_body: tuple[str, ...]
    example: Mapping[str, Any] | None
    if_match: bool
    row: Row

    def subject(self, name: str) -> str | None:
        """Which id of a household a parameter or field holds; None when it holds none."""
        known = self.row.subjects.get(name, NAMES.get(name, name))
        return known if known in IDS else None


NAMES = {"partner_ids": "visitor_id", "parent_code": "code"}
IDS = frozenset(
    """
        import_id elder_id visitor_id code region_code contact_id member_id family_member_id consent_id assessment_id
        finding_id device_id alarm_id attended_alarm visit_id user_id key_id webhook_id delivery_id
        escalation_policy care_policy closed_month_id task_id
        special_period round_id tested_device test_id watch_period
        special_period round_id tested_device test_id check_id sample_id training_id station_activity
    """.split()  # noqa: SIM905
)


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, said in item.items():
            if said["operationId"] not in PUBLIC:
                yield _operation(document, method, path, said)


def _operation(document: Mapping[str, Any], method: str, path: str, said: Mapping[str, Any]) -> Operation:
    parameters = said.get("parameters", [])
    schema = _schema(document, said)
    return Operation(
        said["operationId"], method.upper(), path, said["security"][0]["HTTPBearer"][0],
        MATRIX[said["operationId"]].done or min(int(status) for status in said["responses"] if status.startswith("2")),
        tuple(p["name"] for p in parameters if p["in"] == "path"),
        tuple((p["name"], p.get("required", False)) for p in parameters if p["in"] == "query"),
        tuple(schema.get("properties", ())) if schema else (),
        schema["examples"][0] if schema else None,
        any(p["name"] == "If-Match" for p in parameters),
        MATRIX[said["operationId"]],
    )  # fmt: skip


def _schema(document: Mapping[str, Any], said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    content = said.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    named = [one["$ref"] for one in (content["schema"], *content["schema"].get("anyOf", ())) if "$ref" in one]
    found: Mapping[str, Any] = (
        document["components"]["schemas"][named[0].rsplit("/", 1)[1]] if named else content["schema"]
    )
    return found


# --- asking ----------------------------------------------------------------------------------------------------------

ABSENT = Household(
    "nobody",
    {name: str(UUID(int=0xA000 + number)) for number, name in enumerate(sorted(IDS))}
    | {"device_id": "sos-absent", "code": f"{NEXT_TOWNSHIP}999", "region_code": f"{NEXT_TOWNSHIP}999"},
)


@dataclass(frozen=True)
class Question:
    """One request: whose ids stand in it, by the places where an id can stand."""

    operation: Operation
    whose: Mapping[tuple[str, str], Household]  # (path|query|body, name) -> household; the own one when it is missing
    own: Household
    headers: tuple[tuple[str, str], ...] = ()

    def _id(self, where: str, name: str) -> str:
        subject = self.operation.subject(name)
        assert subject is not None, f"{self.operation.name}: what does `{name}` name? Say it in its Row's subjects"
        return self.whose.get((where, name), self.own).ids[subject]

    def strangers(self) -> list[str]:
        """The ids in it that are not one's own."""
        return [self._id(where, name) for where, name in self.whose]

    @property
    def path(self) -> str:
        return re.sub(
            r"{(\w+)}",
            lambda found: quote(self.operation.row.fixed.get(found[1]) or self._id("path", found[1])),
            self.operation.path,
        )

    @property
    def query(self) -> dict[str, Any]:
        wanted = {name for name, required in self.operation.in_query if required and self.operation.subject(name)}
        wanted |= {name for where, name in self.whose if where == "query"}
        return {**self.operation.row.query, **{name: self._id("query", name) for name in wanted}}

    @property
    def body(self) -> dict[str, Any] | None:
        example = self.operation.example
        if example is None:
            return None
        given = {**example, **self.operation.row.body}
        for name in {
            *example,
            *(name for where, name in self.whose if where == "body"),
        } - self.operation.row.body.keys():
            if self.operation.subject(name) is not None:
                given[name] = [self._id("body", name)] if name.endswith("_ids") else self._id("body", name)
        for where, name in self.whose:  # over the row's too
            if where == "body":
                given[name] = [self._id("body", name)] if name.endswith("_ids") else self._id("body", name)
        return given


class Enquiry:
    """Asks the town, and undoes what was done."""

    def __init__(self, people: Town) -> None:
        self.town = people
        self.statements: list[str] = []
        self.count = 0
        sa.event.listen(people.engine.sync_engine, "before_cursor_execute", self._heard)

    def _heard(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        self.statements.append(statement)

    async def ask(self, who: Asker, question: Question) -> Answer:
        self.count += 1
        self.statements.clear()
        operation = question.operation
        return await ask(
            self.town.app, operation.method, question.path, token=who.token, query=question.query, body=question.body,
            headers=dict(question.headers) | ({"Last-Event-ID": "0"} if operation.row.stream else {}),
            at_most_s=0.3 if operation.row.stream else None,
        )  # fmt: skip


async def _undone(request: Any, response: Any) -> None:
    """In the place of keeping the answer: all is done as ever, answered, and rolled back."""
    await last_acts(request.state.session)
    raise Replay(response)


@pytest.fixture(scope="module")
async def enquiry(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Enquiry]:
    url = make_url(postgres.url("postgres"))
    admin = await asyncpg.connect(host=url.query["host"], user="postgres", database="postgres")
    name = f"matrix_{uuid4().hex[:8]}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE shouwang STRATEGY FILE_COPY")
    try:
        async with town(postgres.url(name), tmp_path_factory.mktemp("matrix")) as people:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(transactional, "_keep_answer", _undone)
                yield Enquiry(people)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


def asked_by(people: Town, operation: Operation) -> list[Asker]:
    """Everybody; of the keys the one that has just the right, and the one that has every right but it."""
    keys = {f"key with {operation.right}", f"key without {operation.right}"}
    if not any(asker.name in keys for asker in people.askers):
        keys = {"key with elders:read"}  # a right that no key has
    return [asker for asker in people.askers if not asker.name.startswith("key ") or asker.name in keys]


def text_of(answer: Answer) -> str:
    """What is in an answer; a workbook is opened."""
    if answer.body[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(answer.body)) as book:
            return "".join(book.read(name).decode("utf-8", "replace") for name in book.namelist())
    return answer.body.decode("utf-8", "replace")


def likeness(answer: Answer, question: Question, statements: list[str]) -> tuple[object, ...]:
    """What a client, or a clock, could tell two answers apart by; the ids that were sent are taken out."""
    text, headers = (
        text_of(answer),
        {n: v for n, v in answer.headers.items() if n not in ("x-request-id", "content-length")},
    )
    for sent in question.strangers():
        text, headers = text.replace(sent, "<id>"), {n: v.replace(sent, "<id>") for n, v in headers.items()}
    asked = tuple(one for one in statements if "api_keys" not in one)  # a key's last use is noted once a minute
    return answer.status, headers, text, asked


def places(operation: Operation) -> Iterator[tuple[tuple[str, str], ...]]:
    """Where a strange id is put: each place alone, and the whole path."""
    in_path = tuple(("path", name) for name in operation.in_path if operation.subject(name))
    yield from ((place,) for place in in_path)
    if len(in_path) > 1:
        yield in_path
    yield from ((("query", name),) for name, _ in operation.in_query if operation.subject(name))
    yield from ((("body", name),) for name in operation.in_body if operation.subject(name))


def test_every_operation_stands_in_the_matrix(enquiry: Enquiry) -> None:
    document = enquiry.town.app.openapi()
    names = [said["operationId"] for item in document["paths"].values() for said in item.values()]
    assert len(names) == len(set(names)), "two operations of one name"
    there = set(names) - PUBLIC
    assert there - MATRIX.keys() == set(), "new operations: one word in PLAIN, or a Row (docs/contributing.md)"
    assert MATRIX.keys() - there == set()
    # Their session is behind the wall; the stream steps behind it at each read.
    assert [r.name for r, _ in guarded_routes(enquiry.town.app) if not isinstance(r, Transactional)] == ["stream"]


async def test_what_is_ones_own_is_answered_by_right(enquiry: Enquiry) -> None:
    """By right: success, and no trace of what is foreign. Without: 401 or 403, whatever the id."""
    people, wrong = enquiry.town, []
    for operation in operations(people.app.openapi()):
        for who in asked_by(people, operation):
            question = Question(operation, {}, people.own)
            answer = await enquiry.ask(who, question)
            allowed = operation.right in who.rights
            kind = "key" if who.name.startswith("key ") else who.name
            expected = operation.done if allowed else 403 if who.token else 401
            if allowed:
                expected = operation.row.refused.get(kind, expected)
            if answer.status != expected:
                wrong.append(f"{operation.name} by {who.name}: {answer.status}, not {expected}: {answer.body[:300]!r}")
                continue
            if not answer.status < 400:
                continue
            text = text_of(answer)
            hidden = people.foreign.traces() | (people.beside.traces() if who.is_visitor else set())
            wrong += [f"{operation.name} tells {who.name} of {trace}" for trace in hidden if trace in text]
            listed = operation.method == "GET" and not operation.in_path and operation.row.tells
            if listed and who.name == "admin" and not any(t in text for t in {*people.own.traces(), TOWNSHIP}):
                wrong.append(f"{operation.name} tells nothing of the own household: {text[:200]}")
    assert not wrong, "\n".join([f"{len(wrong)} of {enquiry.count}", *wrong])


async def test_foreign_is_answered_like_absent(enquiry: Enquiry) -> None:
    """Status, headers, body and statements: for each place where an id stands, and for each who asks."""
    people, wrong = enquiry.town, []
    for operation in operations(people.app.openapi()):
        for who, where in product(asked_by(people, operation), places(operation)):
            for headers, stranger in product(
                headers_to_try(operation, who, where), strangers_to(people, operation, who, where)
            ):
                answers = []
                unique = {name for _, name in where} <= set(operation.row.unique)
                for household in (stranger, people.own if unique else ABSENT):
                    question = Question(operation, dict.fromkeys(where, household), people.own, headers)
                    answer = await enquiry.ask(who, question)
                    answers.append(likeness(answer, question, enquiry.statements))
                about = f"{operation.name} by {who.name} at {where} {headers} {stranger.mark}"
                if answers[0] != answers[1]:
                    wrong.append(f"{about}:\n  {str(answers[0])[:700]}\n  {str(answers[1])[:700]}")
                if answers[0][0] not in refusals(operation, who, where):
                    wrong.append(f"{about}: {answers[0][0]}")
    assert not wrong, "\n".join([f"{len(wrong)} of {enquiry.count}", *wrong])


def headers_to_try(
    operation: Operation, who: Asker, where: tuple[tuple[str, str], ...]
) -> Iterator[tuple[tuple[str, str], ...]]:
    yield ()
    if who.name == "admin" and operation.if_match and where[0][0] == "path":
        yield (("If-Match", '"7"'),)
    if who.name == "admin" and operation.method == "POST":
        yield (("Idempotency-Key", f"{operation.name} {where}"),)


def strangers_to(
    people: Town, operation: Operation, who: Asker, where: tuple[tuple[str, str], ...]
) -> Iterator[Household]:
    yield people.foreign
    if who.is_visitor and not any(operation.subject(name) in OF_PLACES for _, name in where):
        yield people.beside


def refusals(operation: Operation, who: Asker, where: tuple[tuple[str, str], ...]) -> Collection[int]:
    """How a strange id may be answered."""
    place, name = where[0]
    if operation.right not in who.rights:
        return {403 if who.token else 401}
    if place == "path":
        return {404}
    if name in operation.row.unique:
        return {409}
    kind = "key" if who.name.startswith("key ") else who.name
    if kind in operation.row.refused:
        return {operation.row.refused[kind]}
    return {404, 422} | ({200} if place == "query" or operation.row.finds else set())
