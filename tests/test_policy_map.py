"""docs/policy.md is whole: each of the 52 rows has its line, and every test it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
LINES = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8").splitlines()
TABLE = LINES[LINES.index("|---|---|---|---|---|") + 1 : LINES.index("## Where the text leaves a choice") - 1]
ROWS = [line for line in LINES if re.match(r"\| \d", line)]


def test_every_row_of_the_policy_has_its_line() -> None:
    found: list[int] = []
    for line in ROWS:
        match = re.match(r"\| (\d+)(?:[–-](\d+))? ", line)
        assert match, line
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    assert found == list(range(1, 53))  # in order, each once
    assert ROWS == TABLE  # and nothing between them, such as what a merge leaves


def test_every_line_says_what_serves_it_and_what_shows_it() -> None:
    for line in ROWS:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 5, line
        assert all(cells), line
        assert "::" in cells[4] or "the same" in cells[4] or "no software" in cells[3], line


def test_every_test_that_is_named_is_there() -> None:
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")}
    for line in LINES:
        for file, test in re.findall(r"`(?:(test_\w+)\.py)?::(test_\w+)`", line):
            where = [sources[file]] if file else sources.values()
            assert any(f"def {test}(" in source for source in where), f"{file}::{test}"
