"""Known vulnerabilities of everything in requirements.lock, by pip-audit. A found one fails unless it is allowed.

    python -m scripts.audit --lock requirements.lock --allowed .ci/allowed-vulnerabilities

Asks PyPI's advisory data, then OSV's. Where neither can be reached (a machine behind a mirror) it says so in one line that
cannot be missed, and ends well: an audit that did not happen is not a failure, and must not look like a pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SERVICES = ("pypi", "osv")
_TIMEOUT_S = 240


@dataclass
class Audit:
    """What one service said: which packages it knows, and what is wrong with them."""

    audited: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    found: list[tuple[str, str, frozenset[str], str]] = field(default_factory=list)  # package, id, all ids, mended in


def read_allowed(text: str) -> dict[str, str]:
    """One a line: the vulnerability's id, two spaces or a tab, the reason."""
    allowed = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        id_, _, reason = line.strip().replace("\t", "  ").partition("  ")
        if not reason.strip():
            raise SystemExit(f"line {number} of the allowed vulnerabilities gives no reason: {line}")
        allowed[id_] = reason.strip()
    return allowed


def read_report(text: str) -> Audit:
    """pip-audit's JSON."""
    audit = Audit()
    for package in json.loads(text)["dependencies"]:
        if "skip_reason" in package:
            audit.missed.add(package["name"])
            continue
        audit.audited.add(package["name"])
        for one in package["vulns"]:
            ids = frozenset({one["id"], *one.get("aliases", [])})
            mended = ", ".join(one.get("fix_versions", [])) or "no version yet"
            audit.found.append((f"{package['name']} {package['version']}", one["id"], ids, mended))
    return audit


def judge(audit: Audit, allowed: dict[str, str]) -> tuple[list[str], bool]:
    """The lines to print, and whether all is well."""
    if not audit.audited:
        return ["NOT AUDITED: no advisory data can be reached from this machine; run it where it can"], True
    lines, well, used = [f"{len(audit.audited)} packages audited"], True, set()
    if audit.missed:
        lines.append(f"NOT AUDITED, no data: {', '.join(sorted(audit.missed))}")
    for package, id_, ids, mended in audit.found:
        leave = next((one for one in sorted(ids) if one in allowed), None)
        if leave is None:
            well = False
            lines.append(f"VULNERABLE: {package}: {id_}; mended in: {mended}")
        else:
            used.add(leave)
            lines.append(f"allowed: {package}: {leave} ({allowed[leave]})")
    lines += [f"allowed but not found any more, take it off the list: {id_}" for id_ in sorted(set(allowed) - used)]
    if well:
        lines.append("nothing found that is not allowed")
    return lines, well


def ask(lock: Path, service: str) -> Audit:
    """One service's answer; an empty one when it cannot be reached."""
    command: list[Any] = [
        sys.executable, "-m", "pip_audit", "--requirement", lock, "--require-hashes", "--disable-pip",
        "--vulnerability-service", service, "--format", "json", "--progress-spinner", "off", "--timeout", "10",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
        return read_report(done.stdout)
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return Audit()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--allowed", type=Path, required=True)
    given = parser.parse_args(arguments)
    allowed = read_allowed(given.allowed.read_text(encoding="utf-8"))
    audit = Audit()
    for service in _SERVICES:
        audit = ask(given.lock, service)
        if audit.audited:
            break
    lines, well = judge(audit, allowed)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
