"""Who may use which topic at the broker: said once, for Mosquitto's access file and for the brokers that ask us."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

_ROOT = "devices"
_SAYS = ("event", "status")
_HEARS = ("command",)
# `#` does not reach topics that begin with `$`: those of the platforms, and the broker's own figures, are named.
_FAMILIES = ("$sys/#", "$oc/#", "$thing/#", "$SYS/#")


class Action(StrEnum):
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


def device_may(device_id: str, action: Action, topic: str) -> bool:
    """A device speaks for itself and hears what is said to it. Wildcards fit nothing of its own: a device id has none."""
    match action:
        case Action.PUBLISH:
            return topic in own_topics(device_id, _SAYS)
        case Action.SUBSCRIBE:
            return topic in own_topics(device_id, _HEARS)


def server_may(action: Action, topic: str) -> bool:
    """The server hears everything but the broker's control, also through a shared subscription, and speaks only to
    devices: who takes its account cannot raise an alarm with it."""
    match action:
        case Action.PUBLISH:
            root, _, rest = topic.partition("/")
            device, _, leaf = rest.partition("/")
            return root == _ROOT and bool(device) and leaf in _HEARS
        case Action.SUBSCRIBE:
            if topic.startswith("$share/"):
                topic = topic.split("/", 2)[2] if topic.count("/") >= 2 else ""
            own = not topic.startswith("$") or any(topic.startswith(family[:-1]) for family in _FAMILIES)
            return bool(topic) and own


def own_topics(device_id: str, leaves: Sequence[str]) -> list[str]:
    return [f"{_ROOT}/{device_id}/{leaf}" for leaf in leaves]


def said_by(device_id: str) -> list[str]:
    return own_topics(device_id, _SAYS)


def heard_by(device_id: str) -> list[str]:
    return own_topics(device_id, _HEARS)


def server_rules() -> list[str]:
    """`server_may` as lines of Mosquitto's access file, for a listener that lets nobody but the server in. As patterns:
    Mosquitto forgets the rules of a single user for a session that it restored from disk, when it reads its files again
    before the user is back, and then drops what should wait there."""
    hears = [f"pattern read {topic}" for topic in ("#", *_FAMILIES)]
    return [*hears, *(f"pattern write {topic}" for topic in heard_by("+"))]


def device_rules(device_id: str, *, word: str = "topic") -> list[str]:
    """`device_may` as lines of Mosquitto's access file; with `%u` and the word `pattern` for all devices at once."""
    says = [f"{word} write {topic}" for topic in said_by(device_id)]
    return [*says, *(f"{word} read {topic}" for topic in heard_by(device_id))]
