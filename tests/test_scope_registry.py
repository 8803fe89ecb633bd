"""Every table has its wall, and a wall is made as it is written. No database."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlmodel import SQLModel

import app.tables  # noqa: F401 - every table enters the metadata
from app.access.scope import WALLS, by_elder, by_region, same_for_all, server_only
from app.access.wall import policies_of

pytestmark = pytest.mark.unit


def test_every_table_has_a_wall_and_every_wall_a_table() -> None:
    """A new table: one line in app/access/scope.py, which says how."""
    tables = {table.name for table in SQLModel.metadata.sorted_tables}
    assert tables - WALLS.keys() == set(), "tables without a wall: no route can read them until app/access/scope.py"
    assert WALLS.keys() - tables == set()


def test_a_table_of_elders_or_regions_is_open_to_nobody_as_a_whole() -> None:
    """What holds an elder's or a visitor's id is never «the same for all»."""
    for table in SQLModel.metadata.sorted_tables:
        wall = WALLS[table.name]
        if wall.everywhere and {"elder_id", "alarm_id", "visitor_id", "visit_id", "contact_id"} & {
            c.name for c in table.columns
        }:
            assert wall.region != "true", table.name
            assert wall.visitor != "true", table.name


def test_what_is_open_says_why() -> None:
    for name, wall in WALLS.items():
        if wall.region in ("true", "false") or wall.visitor == "true":
            assert wall.why, name


def test_walls_name_only_what_is_there() -> None:
    """A rule that names a table that is gone, or a column of another table, would fail at the next migration."""
    columns = {table.name: {c.name for c in table.columns} for table in SQLModel.metadata.sorted_tables}
    for name, wall in WALLS.items():
        for rule in (wall.region, wall.visitor, wall.writes or ""):
            for column in re.findall(r"\{t\}\.(\w+)", rule):
                assert column in columns[name], (name, column)
            for table in re.findall(r"FROM (\w+)", rule):
                assert table in columns, (name, table)


def test_policies_of_a_wall() -> None:
    made = {p.name: (p.role.value, p.command, p.using, p.check) for p in policies_of(by_elder())}
    assert set(made) == {"wall_everywhere", "wall_region", "wall_visitor"}
    assert made["wall_everywhere"] == ("shouwang_everywhere", "ALL", "true", None)
    role, command, using, check = made["wall_region"]
    assert (role, command) == ("shouwang_region", "ALL")
    assert using == check == "EXISTS (SELECT FROM elders e WHERE e.id = {t}.elder_id)"

    visitors_see_nothing = {p.name: p.using for p in policies_of(by_region())}
    assert visitors_see_nothing["wall_visitor"] == "false"

    rules = {p.name: (p.command, p.using) for p in policies_of(same_for_all("rules", writes="region_code"))}
    assert rules["wall_region"] == rules["wall_visitor"] == ("SELECT", "true")
    assert rules["wall_visitor_changes"] == ("UPDATE", "false")
    assert "region_code" in (rules["wall_region_changes"][1] or "")

    assert {p.using for p in policies_of(server_only("its own"))} == {"false"}


# Who asks is known in each of these before a row is read, or nobody is told a row.
_OWN_TRANSACTIONS = {
    "context.py": "finds out who asks",
    "transactional.py": "the request's own, behind the wall from `principal` on",
    "stream.py": "asks again who asks",
    "personal_data.py": "a copy is everything, read piece by piece, when it is known that its reader sees the person",
    "auth.py": "nobody is logged in yet",
    "running.py": "counts, of nobody",
}


def test_routes_open_no_transaction_of_their_own() -> None:
    """One that did would see everything: `walled(…)` is for that."""
    for file in sorted((Path(__file__).parent.parent / "app" / "api").glob("*.py")):
        opens = re.search(r"\btransaction\(|\.sessions\b", file.read_text())
        assert (opens is not None) == (file.name in _OWN_TRANSACTIONS), file.name
