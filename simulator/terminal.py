"""What the simulator prints: one line a thing, with the time."""

from __future__ import annotations

import sys
from datetime import datetime

GOOD = "✓"
BAD = "✗"
_COLOURS = {GOOD: "\033[32m", BAD: "\033[31m"}


class SimulatorError(Exception):
    """The simulator cannot go on. The sentence says why and what to mend."""


def prepare() -> None:
    """Chinese names and ✓ must not break a terminal of another encoding; lines go out at once."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace", line_buffering=True)


def say(text: str) -> None:
    """One line with the time before it."""
    print(f"{datetime.now().astimezone():%H:%M:%S}  {text}", flush=True)


def mark(good: bool) -> str:
    """✓ or ✗, in colour on a terminal."""
    sign = GOOD if good else BAD
    return f"{_COLOURS[sign]}{sign}\033[0m" if sys.stdout.isatty() else sign
