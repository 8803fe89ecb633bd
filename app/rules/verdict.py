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
    # What did not happen, noticed over time (app/rules/watching.py).
    NO_ACTIVITY = "no_activity"  # no sign of life at home
    NIGHT_EXIT = "night_exit"  # out by night, and not back
    DOOR_LEFT_OPEN = "door_left_open"
    BED_EXIT = "bed_exit"  # the bed left by night, and not returned to
    # How the devices themselves are: work for the duty desk, no reason to wake a family.
    DEVICE_SILENT = "device_silent"
    BATTERY_LOW = "battery_low"
    TAMPER = "tamper"
    FLAPPING = "flapping"
    CLOCK_WRONG = "clock_wrong"
    BRIDGE_OFFLINE = "bridge_offline"


DEVICE_HEALTH = frozenset(
    {
        AlarmKind.DEVICE_SILENT,
        AlarmKind.BATTERY_LOW,
        AlarmKind.TAMPER,
        AlarmKind.FLAPPING,
        AlarmKind.CLOCK_WRONG,
        AlarmKind.BRIDGE_OFFLINE,
    }
)


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
