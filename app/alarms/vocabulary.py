"""The words of an alarm."""

from enum import StrEnum


class AlarmState(StrEnum):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    ATTENDING = "attending"
    RESOLVED = "resolved"


class Outcome(StrEnum):
    REAL_EMERGENCY = "real_emergency"
    FALSE_ALARM = "false_alarm"
    TEST = "test"
    ELDER_WELL = "elder_well"
    HOSPITALISED = "hospitalised"
    DEVICE_FAULT = "device_fault"
    OTHER = "other"
