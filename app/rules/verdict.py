"""What a rule says about an event: a decision with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    WARNING = "warning"

    @property
    def rank(self) -> int:
        """0 is the most urgent."""
        return list(Severity).index(self)


class AlarmKind(StrEnum):
    SOS = "sos"
    FALL = "fall"
    SMOKE = "smoke"
    GAS = "gas"
    WATER_LEAK = "water_leak"
    REPORTED = "reported"  # a person reports it


@dataclass(frozen=True, slots=True)
class Raise:
    """Raise an alarm of this kind, or join the one that is unresolved. `only_joins`: said again; it raises none."""

    kind: AlarmKind
    severity: Severity
    because: str
    only_joins: bool = False


@dataclass(frozen=True, slots=True)
class Calm:
    """The elder says "I am fine": lower the urgency of alarms of these kinds, keep one human check."""

    kinds: tuple[AlarmKind, ...]
    because: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """No alarm, and why not."""

    because: str


Verdict = Raise | Calm | Nothing
