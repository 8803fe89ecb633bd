"""Adds up JUnit reports and refuses every skip that the list of allowed skips does not name.

    python -m scripts.check_skips --allowed .ci/allowed-skips --step "make check" 0 \
        --run "make test" 0 reports/test.xml

The last line written is `N passed, N failed, N skipped`. The exit code is 0 only when nothing failed and every skip is
allowed. A step that ended badly without a failed test in its report counts as one failure: it may not have run at all.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Allowed:
    pattern: str
    reason: str


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # test, why
    complaints: list[str] = field(default_factory=list)


def read_allowed(text: str) -> list[Allowed]:
    """One a line: a pattern of the test's name (`tests.test_x::test_y*`), two spaces or a tab, the reason."""
    allowed = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pattern, _, reason = line.strip().replace("\t", "  ").partition("  ")
        if not reason.strip():
            raise SystemExit(f"line {number} of the allowed skips gives no reason: {line}")
        allowed.append(Allowed(pattern, reason.strip()))
    return allowed


def add_report(tally: Tally, label: str, code: int, report: Path) -> None:
    failed_before = tally.failed
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))  # noqa: S314 - pytest wrote it a minute ago
    except (OSError, ElementTree.ParseError) as error:
        tally.failed += 1
        tally.complaints.append(f"{label}: no report ({error})")
        return
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            tally.failed += 1
            tally.complaints.append(f"{label}: failed {name}")
        elif skip is not None:
            tally.skipped.append((name, skip.get("message", "")))
        else:
            tally.passed += 1
    if not cases:
        tally.failed += 1
        tally.complaints.append(f"{label}: ran no test")
    elif code and tally.failed == failed_before:
        tally.failed += 1
        tally.complaints.append(f"{label}: ended with {code}, though no test failed")


def add_step(tally: Tally, label: str, code: int) -> None:
    if code:
        tally.failed += 1
        tally.complaints.append(f"{label}: ended with {code}")


def add_skips(tally: Tally, allowed: list[Allowed]) -> None:
    """A skip that is not listed is a failure: a test that never runs protects nobody."""
    for name, why in tally.skipped:
        if not any(fnmatch.fnmatchcase(name, entry.pattern) for entry in allowed):
            tally.complaints.append(f"skipped without leave: {name} ({why})")


def summary(tally: Tally) -> str:
    return f"{tally.passed} passed, {tally.failed} failed, {len(tally.skipped)} skipped"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allowed", type=Path, required=True)
    parser.add_argument("--step", nargs=2, action="append", default=[], metavar=("LABEL", "CODE"))
    parser.add_argument("--run", nargs=3, action="append", default=[], metavar=("LABEL", "CODE", "REPORT"))
    given = parser.parse_args(arguments)
    tally = Tally()
    for label, code in given.step:
        add_step(tally, label, int(code))
    for label, code, report in given.run:
        add_report(tally, label, int(code), Path(report))
    add_skips(tally, read_allowed(given.allowed.read_text(encoding="utf-8")))
    sys.stdout.write("".join(f"{line}\n" for line in [*tally.complaints, summary(tally)]))
    return 1 if tally.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
