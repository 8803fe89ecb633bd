"""Mosquitto's two files as text: who is let in (`passwords`), and who may use which topic (`acl`). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.devices import passwords
from app.devices.credentials import Login, ServerLogin
from app.devices.topics import device_rules, server_rules

_HEAD = "# Written by `shouwang mosquitto-auth` from the database; what is changed here by hand is lost.\n"
_PREFIXES = ("$5$", "$6$", "$7$", "$argon2id$")


class BadFile(Exception):
    """A file of further accounts cannot be used. The sentence says which line."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a new password file changes, by user name."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def read_passwords(text: str) -> dict[str, str]:
    """User name → hash. Raises `BadFile` for a line that is neither."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, kept = line.partition(":")
        if not name.strip() or not colon or not kept.startswith(_PREFIXES):
            raise BadFile(f"line {number} of the further passwords is not `name:hash` as mosquitto_passwd writes it")
        found[name.strip()] = kept.strip()
    return found


def server_password_file(server: ServerLogin, before: str) -> str:
    """The one account of the server's own listener. A password that fits what the file held `before` keeps its hash, so
    that the same inputs make the same file."""
    kept = _forgiving(before).get(server.username, "")
    if not passwords.fits(server.password, kept):
        kept = passwords.hashed(server.password, iterations=passwords.CHOSEN_ITERATIONS)
    return f"{_HEAD}{server.username}:{kept}\n"


def server_access_file() -> str:
    """Rules of the server's own listener."""
    return _HEAD + "\n".join(server_rules()) + "\n"


def password_file(devices: Sequence[Login], more: Mapping[str, str]) -> str:
    """Everybody who may come in by the devices' listener; a name that is in `more` is that account's."""
    lines = {**{device.username: device.password_hash for device in devices}, **more}
    return _HEAD + "".join(f"{name}:{lines[name]}\n" for name in sorted(lines))


def access_file(devices: Sequence[Login], more: str) -> str:
    """Rules of the devices' listener. Devices whose user name is their id share one pattern; the others get lines of
    their own, which Mosquitto searches one after the other."""
    parts = ["# Every device, for itself: its user name is its device id.", *device_rules("%u", word="pattern")]
    for device in devices:
        if device.username != device.device_id:
            parts += ["", f"user {device.username}", *device_rules(device.device_id)]
    if more.strip():
        parts += ["", "# Further accounts.", more.strip()]
    return _HEAD + "\n".join(parts) + "\n"


def _forgiving(text: str) -> dict[str, str]:
    try:
        return read_passwords(text)
    except BadFile:
        return {}  # somebody's file stands there: all of it is replaced


def difference(text_before: str, text_after: str) -> Difference:
    """Between two password files; what cannot be read counts as empty."""
    before, after = _forgiving(text_before), _forgiving(text_after)
    return Difference(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(name for name in before.keys() & after.keys() if before[name] != after[name])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )
