"""How the devices themselves are: silent, flat, tampered with, flapping, wrong about the time, cut off with their bridge.

Work for the duty desk. Where a bridge is offline, that is one trouble, and its devices are not silent one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from app.rules.home import Gadget, Home, clock_is_off, gadget_flaps
from app.rules.settings import BridgeOffline
from app.rules.verdict import AlarmKind, Severity
from app.rules.watching import Bridge, Condition, Device, Stage, View, saying, spell
from app.words import say

_GATEWAY = "gateway"


def bridge_offline(home: Home, view: View, now: float) -> Iterator[Condition]:
    """A gateway said, or its broker did, that it is gone."""
    rules = view.rules.bridge_offline
    if not rules.enabled:
        return
    for device_id, device in _offline_bridges(view):
        count = sum(other.kind != _GATEWAY for other in view.devices.values())
        due = device.heard + rules.after_minutes * 60
        yield Condition(
            AlarmKind.BRIDGE_OFFLINE,
            device.heard,
            (Stage(due, Severity.WARNING), Stage(due + rules.grows_after_hours * 3600, Severity.MINOR)),
            _gone(view, device_id, device, "because.bridge_offline", count=count),
            device_id,
        )
    for bridge in view.bridges:
        if bridge.told:
            yield _shared_bridge(view, bridge, rules)


def _shared_bridge(view: View, bridge: Bridge, rules: BridgeOffline) -> Condition:
    def because(at: float) -> str:
        return say(
            "because.shared_bridge_offline", place=bridge.place or bridge.device_id, time=view.clock(bridge.since),
            spell=spell(at - bridge.since), count=bridge.devices, homes=bridge.homes,
        )  # fmt: skip

    due = bridge.since + rules.after_minutes * 60
    stages = (Stage(due, Severity.WARNING), Stage(due + rules.grows_after_hours * 3600, Severity.MINOR))
    return Condition(AlarmKind.BRIDGE_OFFLINE, bridge.since, stages, because)


def _offline_bridges(view: View) -> Iterator[tuple[str, Device]]:
    for device_id, device in view.devices.items():
        if device.kind == _GATEWAY and device.online is False:
            yield device_id, device


def note_bridge(home: Home, view: View, now: float) -> None:
    """While the bridge is away nobody can tell silence from blindness: a silence counts from its return."""
    gone = [device.heard for _, device in _offline_bridges(view)] + [bridge.since for bridge in view.bridges]
    down = min(gone, default=0.0)
    if home.bridge_down and not down:
        home.bridge_back = now
    home.bridge_down = down


def device_silent(home: Home, view: View, now: float) -> Iterator[Condition]:
    """No message for longer than the sleepiest device takes, or its network says that it is gone."""
    rules = view.rules.device_silent
    if not rules.enabled or home.bridge_down:
        return
    for device_id, device in view.devices.items():
        if device.kind == _GATEWAY and device.online is False:
            continue
        gone = device.online is False
        wait = rules.offline_minutes * 60 if gone else rules.after_hours * 3600
        due = device.heard + wait
        key = "because.device_offline" if gone else "because.device_silent"
        yield Condition(
            AlarmKind.DEVICE_SILENT,
            device.heard,
            (Stage(due, Severity.WARNING), Stage(due + rules.grows_after_hours * 3600, Severity.MINOR)),
            _gone(view, device_id, device, key, limit=spell(wait)),
            device_id,
        )


def _gone(view: View, device_id: str, device: Device, key: str, **figures: object) -> Callable[[float], str]:
    def because(at: float) -> str:
        return say(
            key, place=device.place or device_id, device_id=device_id, time=view.clock(device.heard),
            spell=spell(at - device.heard), **figures,
        )  # fmt: skip

    return because


def battery_low(home: Home, view: View, now: float) -> Iterator[Condition]:
    """By the percentage, or because the device says so."""
    rules = view.rules.battery_low
    if not rules.enabled:
        return
    for device_id, gadget in home.gadgets.items():
        flat = 0 <= gadget.battery <= rules.flat_percent
        low = 0 <= gadget.battery <= rules.low_percent
        if not low and not gadget.low:
            continue
        severity = Severity.MINOR if flat else Severity.WARNING
        key = "because.battery_said" if not low else "because.battery_flat" if flat else "because.battery_low"
        words = say(
            key, place=gadget.place or view.place_of(device_id), device_id=device_id, percent=gadget.battery,
            limit=rules.flat_percent if flat else rules.low_percent,
        )  # fmt: skip
        yield Condition(AlarmKind.BATTERY_LOW, gadget.low or now, (Stage(0, severity),), saying(words), device_id)


def tamper(home: Home, view: View, now: float) -> Iterator[Condition]:
    if view.rules.tamper.enabled:
        yield from _said(home, view, AlarmKind.TAMPER, Severity.WARNING, "because.tamper", lambda one: one.tamper)


def unheard(home: Home, view: View, now: float) -> Iterator[Condition]:
    """Its network says that it drops what the device sends: a press of it would reach nobody. Until it is heard again."""
    if view.rules.device_silent.enabled:
        key = "because.device_unheard"
        yield from _said(home, view, AlarmKind.DEVICE_SILENT, Severity.MINOR, key, lambda one: one.unheard)


def _said(
    home: Home, view: View, kind: AlarmKind, severity: Severity, key: str, since: Callable[[Gadget], float]
) -> Iterator[Condition]:
    """What devices, or their network, say of themselves, since when (0: nothing)."""
    for device_id, gadget in home.gadgets.items():
        if began := since(gadget):
            place = gadget.place or view.place_of(device_id)
            words = say(key, place=place, device_id=device_id, time=view.clock(began))
            yield Condition(kind, began, (Stage(began, severity),), saying(words), device_id)


def flapping(home: Home, view: View, now: float) -> Iterator[Condition]:
    rules = view.rules.flapping
    if not rules.enabled:
        return
    for device_id, gadget in home.gadgets.items():
        if not _flaps(gadget, now, rules.changes, rules.within_minutes * 60):
            continue
        words = say(
            "because.flapping", place=gadget.place or view.place_of(device_id), device_id=device_id,
            changes=rules.changes, minutes=rules.within_minutes,
        )  # fmt: skip
        since = gadget.flips[-rules.changes] if len(gadget.flips) >= rules.changes else gadget.flips[0]
        yield Condition(AlarmKind.FLAPPING, since, (Stage(since, Severity.WARNING),), saying(words), device_id)


_FLAP_ENDS_S = 3600


def _flaps(gadget: Gadget, now: float, changes: int, within_s: float) -> bool:
    """An hour without a burst ends it."""
    return (
        bool(gadget.flips)
        and gadget_flaps(gadget, gadget.flips[-1], changes, within_s)
        and (now - gadget.flips[-1] < _FLAP_ENDS_S)
    )


def clock_wrong(home: Home, view: View, now: float) -> Iterator[Condition]:
    """Three messages in a row off by the same: no delay on the way does that."""
    rules = view.rules.clock_wrong
    if not rules.enabled:
        return
    for device_id, gadget in home.gadgets.items():
        wrong = gadget.skews >= rules.times and (clock_is_off(gadget, now) or gadget.skew > 0 or gadget.skew < -86_400)
        if not wrong:
            continue
        words = say(
            "because.clock_fast" if gadget.skew > 0 else "because.clock_slow",
            place=gadget.place or view.place_of(device_id), device_id=device_id, spell=spell(abs(gadget.skew)),
            times=gadget.skews,
        )  # fmt: skip
        stage = Stage(gadget.skewed, Severity.WARNING)
        yield Condition(AlarmKind.CLOCK_WRONG, gadget.skewed, (stage,), saying(words), device_id)
