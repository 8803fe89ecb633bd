"""JSON paths: the part of RFC 9535 that finds a value in a message, and nothing that could run for long.

`$.a.b`, `$['a b'][0]`, `$.list[-1]`, `$.list[*].x`, `$.data[?(@.code=='sos')].value`; without `$` it means the same. Each
step goes one level down, so a path looks at each part of a message once at most. There are no functions, no `..`, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LONGEST = 200
_MOST_STEPS = 12
_MOST_FOUND = 100
_STEP = re.compile(
    r"""\.(?P<name>[^\s.\[\]'"*?@$()]+)|\.\*|(?P<all>\[\*\])|\[(?P<index>-?\d{1,4})\]
    |\[\s*(?P<quoted>'[^']*'|"[^"]*")\s*\]
    |\[\?\s*\(?\s*@(?:\.(?P<key>[^\s.\[\]'"*?@$()=]+)|\[(?P<qkey>'[^']*'|"[^"]*")\])\s*==\s*
      (?P<equal>'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?|true|false|null)\s*\)?\s*\]""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Where:
    """A filter: members whose `key` equals a value."""

    key: str
    equal: Any


_Step = str | int | _Where | None  # a name, an index, a filter, or every member


class PathError(ValueError):
    """A path that cannot be read. The sentence says where and what would do."""


@dataclass(frozen=True, slots=True)
class Path:
    text: str
    steps: tuple[_Step, ...]

    @property
    def plain(self) -> str | None:
        """The name, when the path is one member of the object."""
        return self.steps[0] if len(self.steps) == 1 and isinstance(self.steps[0], str) else None

    def find(self, root: Any) -> list[Any]:
        """The values at the path, at most 100; none: the message has no such part."""
        found = [root]
        for step in self.steps:
            found = [inner for one in found for inner in _down(one, step)][:_MOST_FOUND]
            if not found:
                return found
        return found


def _down(value: Any, step: _Step) -> Iterator[Any]:
    match step:
        case str():
            if isinstance(value, dict) and step in value:
                yield value[step]
        case int():
            if isinstance(value, list) and -len(value) <= step < len(value):
                yield value[step]
        case None:
            if isinstance(value, dict | list):
                yield from value.values() if isinstance(value, dict) else value
        case _Where(key, equal):
            members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            yield from (one for one in members if isinstance(one, dict) and key in one and _same(one[key], equal))


def _same(value: Any, equal: Any) -> bool:
    return value is equal if isinstance(equal, bool) or equal is None else bool(value == equal)


def parse(text: str) -> Path:
    """Raises `PathError`."""
    given = text.strip()
    if len(given) > LONGEST:
        raise PathError(f"the path is longer than {LONGEST} characters")
    if given in ("$", "@"):
        return Path(given, ())
    rest = given[1:] if given[:1] in ("$", "@") else given if given.startswith("[") else "." + given
    if ".." in rest:
        raise PathError(f"`{given}`: `..` is not read; write the whole way, for example $.data.alarm")
    steps: list[_Step] = []
    at = 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if step is None:
            raise PathError(
                f"`{given}` cannot be read at `{rest[at : at + 20]}`; a path looks like $.data.alarm, $.list[0], "
                "$['a b'], $.list[*].x or $.list[?(@.code=='sos')].value"
            )
        steps.append(_read(step))
        at = step.end()
    if not steps:
        raise PathError("the path is empty; `$` is the whole message")
    if len(steps) > _MOST_STEPS:
        raise PathError(f"`{given}` goes more than {_MOST_STEPS} steps down")
    return Path(given, tuple(steps))


def _read(step: re.Match[str]) -> _Step:
    if step["name"]:
        return step["name"]
    if step["index"]:
        return int(step["index"])
    if step["quoted"]:
        return step["quoted"][1:-1]
    if step["equal"]:
        return _Where(step["key"] or step["qkey"][1:-1], _literal(step["equal"]))
    return None


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text]
    return float(text) if "." in text else int(text)
