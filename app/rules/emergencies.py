"""Events that raise at once (policy row 35: warn 第一时间), with the severities of a telecare centre."""

from __future__ import annotations

from app.devices.events import BatteryLow, Fall, Gas, Observation, Smoke, Sos, WaterLeak
from app.rules.verdict import AlarmKind, Raise, Severity
from app.words import say

_SURE_FALL = 0.5  # below, the detector itself doubts; a person is still sent, with the doubt said


def emergencies(seen: Observation) -> Raise | None:
    """SOS, fall, smoke and gas are critical; a leak, and a fall its detector doubts, are major; a low battery that may
    hide an SOS is minor."""
    match seen.event:
        case Sos():
            return Raise(AlarmKind.SOS, Severity.CRITICAL, say("because.sos"))
        case Fall(confidence=None):
            return Raise(AlarmKind.FALL, Severity.CRITICAL, say("because.fall"))
        case Fall(confidence=float() as sure):
            severity = Severity.CRITICAL if sure >= _SURE_FALL else Severity.MAJOR
            return Raise(AlarmKind.FALL, severity, say("because.fall_sure", percent=round(sure * 100)))
        case Smoke(active=True):
            return Raise(AlarmKind.SMOKE, Severity.CRITICAL, say("because.smoke"))
        case Gas(active=True):
            return Raise(AlarmKind.GAS, Severity.CRITICAL, say("because.gas"))
        case WaterLeak(active=True):
            return Raise(AlarmKind.WATER_LEAK, Severity.MAJOR, say("because.water_leak"))
        case BatteryLow(active=True, may_hide_sos=True):
            # The watch has room for one of the two: a person asks which it was.
            return Raise(AlarmKind.SOS, Severity.MINOR, say("because.may_hide_sos"))
        case _:
            return None
