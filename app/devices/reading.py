"""Single values of devices' messages: truth, numbers, times. What cannot be read is None, never a guess."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, TypeGuard
from zoneinfo import ZoneInfo

YES = {"true", "1", "on", "yes"}
NO = {"false", "0", "off", "no"}

# What makers call a condition that holds, and one that does not.
ACTIVE = YES | {
    "open", "opened", "alarm", "alarming", "alarmed", "triggered", "trigger", "detected", "detect", "leak", "leaking",
    "occupied", "presence", "present", "motion", "move", "moving", "pir", "fall", "falling", "fall_alarm", "pressed",
    "press", "active", "emergency", "sos", "wet", "报警", "告警", "打开", "有人",
}  # fmt: skip
INACTIVE = NO | {
    "close", "closed", "normal", "none", "clear", "cleared", "no_alarm", "no alarm", "safe", "ok", "vacant", "empty",
    "unoccupied", "absent", "idle", "inactive", "released", "release", "dry", "no_motion", "still", "正常", "关闭", "无人",
}  # fmt: skip
# Words that mean so only of one thing: `high` gas is no calm, a `high` battery is.
ACTIVE_OF = {
    "bed": ACTIVE | {"in", "in bed", "in_bed", "在床"},
    "tamper": ACTIVE | {"removed", "uninstalled"},
    "battery_low": ACTIVE | {"low"},
    "online": ACTIVE | {"online"},
}
INACTIVE_OF = {
    "bed": INACTIVE | {"out", "out of bed", "out_of_bed", "离床"},
    "tamper": INACTIVE | {"installed"},
    "battery_low": INACTIVE | {"middle", "medium", "high"},
    "online": INACTIVE | {"offline"},
}


def truth(value: Any, yes: set[str] = YES, no: set[str] = NO) -> bool | None:
    """True, false, or None: it says neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in yes else False if word in no else None
    return None


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e308 < value < 1e308


def number(value: Any) -> float | None:
    """A finite number; also one written as text."""
    if isinstance(value, str) and len(value) < 40:
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if is_number(value) else None


def whole(value: Any, low: int, high: int, name: str, faults: list[str]) -> int | None:
    """A whole number within limits; otherwise unknown, and said so."""
    if value is None:
        return None
    if not is_number(value) or not low <= value <= high:
        faults.append(f"{name}: not a number from {low} to {high}, taken as unknown")
        return None
    return int(round(value))


_VOLTS = (1.5, 4.5)  # what the cells of small devices have


def percent(value: Any, name: str, faults: list[str]) -> int | None:
    """A battery in percent. Volts that were taken for percent (3.05) would look like an empty one: unknown, and said so."""
    found = number(value)
    if found is not None and not found.is_integer() and _VOLTS[0] <= found <= _VOLTS[1]:
        faults.append(f"{name}: looks like volts and not percent, taken as unknown")
        return None
    return whole(value if found is None else found, 0, 100, name, faults)


# Later than any device was built, as seconds: anything below is a clock that was never set, whatever its unit.
_MAGNITUDES = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # ns, µs, ms; smaller numbers are seconds


def moment(value: Any, tz: ZoneInfo, unit: str | None = None) -> datetime | None:
    """A time as devices write it: epoch in any unit (told by size, unless `unit` is s, ms, us or ns), or ISO 8601; one
    without zone is read in `tz`. None: it is no time."""
    try:
        seconds = number(value)
        if seconds is not None:
            if seconds <= 0 or not math.isfinite(seconds):
                return None
            if unit is not None:
                return datetime.fromtimestamp(seconds / {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit], UTC)
            scale = next((scale for least, scale in _MAGNITUDES if seconds >= least), 1.0)
            return datetime.fromtimestamp(seconds / scale, UTC)
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value.strip())
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=tz)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def storable(text: str) -> bool:
    """No U+0000 and no unpaired surrogate: a text that a database keeps."""
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False


def value_key(value: Any) -> str:
    """A value as the key of a value map: `1`, `1.0` and "1" are one key, `true` and "True" another."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).strip().casefold() if isinstance(value, str | int | float) else ""
