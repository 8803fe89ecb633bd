"""Which gateway a Zigbee device hangs on, by its id alone. Pure.

A gateway is known by the topic of its own state (`zigbee2mqtt:<base>~1bridge`); it need not be registered. A device that is
known by its address hangs on the gateway that told its name; one that is known by its name, on the nearest gateway above it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from app.devices.meaning import device_ref

_BY_ADDRESS: Final = "zigbee:"
_BY_NAME: Final = "zigbee2mqtt:"
_BRIDGE: Final = "~1bridge"


def bridge_of(base: str) -> str | None:
    """The id of the gateway with this base topic."""
    return device_ref("zigbee2mqtt", f"{base}/bridge")


def base_of(device_id: str) -> str | None:
    """The base topic of a gateway; None: the device is none."""
    if not (device_id.startswith(_BY_NAME) and device_id.endswith(_BRIDGE)):
        return None
    return "/".join(map(_plain, device_id.removeprefix(_BY_NAME).removesuffix(_BRIDGE).split("~1")))


def names_below(base: str) -> Iterator[str]:
    """How ids of devices begin that may hang on it: a name is written without the base topic that is subscribed to."""
    levels = base.split("/")
    for depth in range(1, len(levels) + 1):
        below = device_ref("zigbee2mqtt", "/".join([*levels[depth:], "."]))
        yield (below or _BY_NAME).removesuffix(".")


def address_of(device_id: str) -> str | None:
    """The address of a device that is known by it."""
    return device_id.removeprefix(_BY_ADDRESS) if device_id.startswith(_BY_ADDRESS) else None


def may_hang_on(device_id: str, told_by: str | None, roots: Sequence[str]) -> Iterator[str]:
    """The gateways that a device may hang on, the nearest first. `told_by`: the base topic of the gateway that told its
    address; `roots`: the base topics that are subscribed to."""
    if told_by is not None:
        bases = [told_by]
    elif device_id.startswith(_BY_NAME) and base_of(device_id) is None:
        levels = device_id.removeprefix(_BY_NAME).split("~1")[:-1]
        bases = [
            "/".join([root, *map(_plain, levels[:depth])]) for depth in range(len(levels), -1, -1) for root in roots
        ]
    else:
        return
    yield from (one for base in bases if (one := bridge_of(base)) is not None)


def nearest(candidates: Sequence[str], known: Collection[str]) -> str | None:
    """The first of them that ever spoke."""
    return next((one for one in candidates if one in known), None)


def _plain(text: str) -> str:
    return text.replace("~3", "#").replace("~2", "+").replace("~0", "~")
