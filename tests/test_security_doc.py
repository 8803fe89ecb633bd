"""What docs/security.md and docs/policy.md name as shown by a test is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["docs/security.md", "docs/policy.md"])
def test_every_test_that_is_named_is_there(page: str) -> None:
    missing, count = [], 0
    for line in (ROOT / page).read_text().splitlines():
        file = ""
        for found in re.finditer(r"`(?:(test_\w+\.py))?(?:::(test_\w+))?`", line):
            file = found[1] or file
            path = ROOT / "tests" / file
            if not file:
                continue
            count += 1
            if not path.is_file() or (found[2] and f"def {found[2]}(" not in path.read_text()):
                missing.append(f"{file}::{found[2] or ''}")
    assert count > 20
    assert not missing
