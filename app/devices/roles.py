"""The role of a device decides what a word means: `single` on an emergency button is an SOS, on a doorbell it is not;
`fall` of a toy cube is an object that falls."""

from __future__ import annotations

from dataclasses import replace

from app.devices.events import (
    Bed,
    Cleared,
    Door,
    Event,
    Fall,
    Gas,
    Motion,
    Observation,
    Press,
    Smoke,
    Sos,
    Switch,
    WaterLeak,
)
from app.devices.vocabulary import DeviceKind


def in_role(event: Event, kind: DeviceKind | None) -> Event:
    """What the event means, said by a device of this role; None: nobody gave it one."""
    match event:
        case Press(word, meant):
            match kind or meant:
                case DeviceKind.SOS_BUTTON:
                    return Sos(unsaid=not word)
                case DeviceKind.FALL_DETECTOR if word == "fall":
                    return Fall()
                case DeviceKind() if not word:
                    return Cleared("press")
                case _:
                    return event
        case Switch(on=on):
            return _switched(event, on, kind)
        case _:
            return event


def _switched(event: Switch, on: bool, kind: DeviceKind | None) -> Event:
    match kind:
        case DeviceKind.SOS_BUTTON:
            return Sos() if on else Cleared("sos")
        case DeviceKind.FALL_DETECTOR:
            return Fall() if on else Cleared("fall")
        case DeviceKind.DOOR_SENSOR:
            return Door(on)
        case DeviceKind.MOTION_SENSOR:
            return Motion(on)
        case DeviceKind.BED_SENSOR:
            return Bed(on)
        case DeviceKind.SMOKE_DETECTOR:
            return Smoke(on)
        case DeviceKind.GAS_DETECTOR:
            return Gas(on)
        case DeviceKind.WATER_SENSOR:
            return WaterLeak(on)
        case DeviceKind.GATEWAY | DeviceKind.OTHER | None:
            return event


def seen_in_role(seen: Observation, kind: str | None) -> Observation:
    """The observation with its event in the device's role, as the register has it."""
    if not isinstance(seen.event, Press | Switch):
        return seen
    meaning = in_role(seen.event, DeviceKind(kind) if kind is not None else None)
    return seen if meaning is seen.event else replace(seen, event=meaning)
