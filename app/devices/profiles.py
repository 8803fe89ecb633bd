"""Device profiles as a deployer writes them (through the API or in a YAML file), checked, and made ready to read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from app.devices import paths
from app.devices.codecs.profile import Compiled
from app.devices.meaning import Extra, PathField
from app.devices.meaning import Field as Spec
from app.devices.reading import value_key
from app.devices.vocabulary import FieldKind, Role

_PLACEHOLDER = "{device_id}"
_LEVEL = re.compile(r"[^+#{}\x00-\x1f\x7f]*")
_MAPPED = {
    Role.SOS, Role.FALL, Role.FALL_WARNING, Role.DOOR, Role.MOTION, Role.BED, Role.SMOKE, Role.GAS, Role.WATER_LEAK,
    Role.CANCEL, Role.PRESS, Role.TAMPER, Role.BATTERY_LOW, Role.ONLINE, Role.HEARTBEAT, Role.TYPE,
}  # fmt: skip
_TYPES = sorted(_MAPPED - {Role.PRESS, Role.TYPE})
# What a value may mean, in words: (holds, is over).
_WORDS: Mapping[Role, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Role.DOOR: (("open",), ("closed",)),
    Role.BED: (("occupied",), ("empty",)),
    Role.ONLINE: (("online",), ("offline",)),
}
_ANY_WORDS = (("true", "active"), ("false", "inactive"))
_SILENT = "ignore"


def _text(value: Any) -> Any:
    """YAML reads `1:` and `true:` as a number and a truth: a key of a map is a text."""
    if isinstance(value, dict):
        return {value_key(key) if isinstance(key, bool | int | float) else key: word for key, word in value.items()}
    return value


def _clean(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


Clean = AfterValidator(_clean)


def _path(text: str) -> str:
    return paths.parse(text).text


PathText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=paths.LONGEST),
    Clean,
    Field(
        description="A JSON path: $.a.b, $['a b'], $.list[0], $.list[*].x, $.data[?(@.code=='sos')].value. "
        "`@` (or nothing) begins at the record, `$` at the whole message.",
        examples=["$.data.alarm"],
    ),
]


class ProfileError(ValueError):
    """A profile that fits its schema and cannot be used here. `field`: which part to mend."""

    def __init__(self, sentence: str, *, field: str) -> None:
        super().__init__(sentence)
        self.field = field


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class When(_Model):
    """The field counts only where the value at `path` is one of `equals`."""

    path: PathText
    equals: list[Annotated[str, StringConstraints(max_length=200), Clean] | bool | int | float] = Field(
        min_length=1, max_length=50, examples=[["alarm"]]
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        _path(self.path)
        return self


class ProfileField(_Model):
    """One field of the message: where it stands, and what it means."""

    path: PathText
    role: Role = Field(description="What the field means; `type`: its value says what happened, by the value map.")
    values: Annotated[
        dict[
            Annotated[str, StringConstraints(max_length=64), Clean],
            Annotated[str, StringConstraints(max_length=64), Clean] | bool,
        ]
        | None,
        BeforeValidator(_text),
    ] = Field(
        default=None,
        max_length=100,
        description="Value → what it means. For the role `type` a type (`sos`, `fall`, `door:open`, `bed:empty`, "
        "`smoke:false`, …); for another role true or false, or its own words (`open`, `closed`, `occupied`, `empty`, "
        "`online`, `offline`); `ignore` for none of our concern. The key `*` is any other value. Without a map the usual "
        "words are understood.",
        examples=[{"1": "sos", "2": "fall", "*": "ignore"}],
    )
    kind: FieldKind | None = Field(
        default=None, description="How the field is to be used; usual for its role when absent."
    )
    unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None, description="Of a time; told by its size when absent."
    )
    when: When | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _path(self.path)
        if self.unit is not None and self.role is not Role.TIME:
            raise ValueError(f"`unit` belongs to the role time, not to {self.role.value}")
        if self.values is not None and self.role not in _MAPPED:
            raise ValueError(f"the role {self.role.value} takes its value as it is; leave out `values`")
        if self.kind is not None and self.role in (
            Role.TIME,
            Role.EVENT_ID,
            Role.DEVICE_ID,
            Role.IGNORE,
            Role.CONFIDENCE,
        ):
            raise ValueError(f"`kind` means nothing for the role {self.role.value}; leave it out")
        self.spec()
        return self

    def spec(self) -> Spec:
        """Raises ValueError for a value that is mapped onto something unknown."""
        given = self.values
        mapped = None if given is None else {_key(key): self._meaning(key, word) for key, word in given.items()}
        return Spec(self.role, self.kind, mapped, self.unit)

    def _meaning(self, key: str, word: str | bool) -> tuple[Role, bool] | None:
        text = str(word).strip().lower()
        if text == _SILENT:
            return None
        if self.role in (Role.TYPE, Role.PRESS):
            name, _, state = text.partition(":")
            if name not in _TYPES:
                raise ValueError(
                    f"the value {key!r} is mapped onto the unknown type {name[:40]!r}; types are "
                    f"{', '.join(_TYPES)}, or {_SILENT}"
                )
            return Role(name), _holds(Role(name), state, key) if state else True
        return self.role, _holds(self.role, text, key)


def _key(key: str) -> str:
    return key.strip().casefold()


def _holds(role: Role, word: str, key: str) -> bool:
    yes, no = _WORDS.get(role, ((), ()))
    if word in (*yes, *_ANY_WORDS[0]):
        return True
    if word in (*no, *_ANY_WORDS[1]):
        return False
    words = ", ".join((*yes, *no, "true", "false", _SILENT))
    raise ValueError(
        f"the value {key!r} is mapped onto {word[:40]!r}, which {role.value} does not know; it knows {words}"
    )


class Profile(_Model):
    """How the messages of a family of devices are to be read, without code."""

    model_config = ConfigDict(
        extra="forbid",
        str_strip_whitespace=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "acme-radar",
                    "title": "Acme 毫米波雷达",
                    "topic": "acme/{device_id}/up",
                    "fields": [
                        {"path": "$.event", "role": "type",
                         "values": {"1": "fall", "2": "sos", "10": "motion", "11": "motion:false", "0": "heartbeat"}},
                        {"path": "$.ts", "role": "time", "unit": "s"},
                        {"path": "$.seq", "role": "event_id"},
                        {"path": "$.bat", "role": "battery"},
                    ],
                }
            ]
        },
    )  # fmt: skip

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")] = Field(
        description="Devices are registered under it.", examples=["acme-radar"]
    )
    title: Annotated[str, StringConstraints(max_length=100), Clean] = Field(default="", examples=["Acme 毫米波雷达"])
    topic: Annotated[str, StringConstraints(min_length=1, max_length=300), Clean] | None = Field(
        default=None,
        description="The topics of these devices: levels as they are, `+` for any one level, `#` at the end for any "
        "rest, and {device_id} once where the device's name stands (also as a part of a level).",
        examples=["acme/{device_id}/up"],
    )
    extends: Annotated[str, StringConstraints(max_length=64), Clean] | None = Field(
        default=None,
        description="Instead of a topic: the built-in family that brings these devices' messages (`chirpstack`, `ttn`, "
        "`zigbee2mqtt`, `aliyun`, …). The fields then are those of its decoded object.",
    )
    device_id_prefix: Annotated[str, StringConstraints(max_length=40, pattern=r"^[A-Za-z0-9_.:-]*$")] = Field(
        default="", description="Put before the device's name, where names of two makers could be the same."
    )
    records: PathText | None = Field(
        default=None,
        description="Where one message holds a list of records, the path to them; each is read as a message.",
    )
    fields: list[ProfileField] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.topic is None) == (self.extends is None):
            raise ValueError("give either `topic` (devices with topics of their own) or `extends` (a built-in family)")
        roles = {field.role for field in self.fields}
        if self.topic is not None:
            _check_topic(self.topic)
            if _PLACEHOLDER not in self.topic and Role.DEVICE_ID not in roles:
                raise ValueError(
                    "which device a message is from is not said: put {device_id} into `topic`, for example "
                    "acme/{device_id}/up, or give a field the role device_id"
                )
        else:
            for name, given in (("records", self.records), ("device_id_prefix", self.device_id_prefix)):
                if given:
                    raise ValueError(f"`{name}` goes with `topic`; with `extends` the family knows")
            if Role.DEVICE_ID in roles:
                raise ValueError("the role device_id goes with `topic`; with `extends` the family knows the device")
        if self.records is not None:
            _path(self.records)
        if not roles - {Role.TIME, Role.EVENT_ID, Role.DEVICE_ID, Role.CONFIDENCE, Role.IGNORE}:
            raise ValueError("no field says what happened: give at least one a role like type, sos, door or heartbeat")
        return self

    @property
    def subscription(self) -> str | None:
        """The topic filter of its messages."""
        if self.topic is None:
            return None
        return "/".join("+" if _PLACEHOLDER in level else level for level in self.topic.split("/"))

    def check_against(self, families: Mapping[str, Sequence[str]]) -> None:
        """Raises `ProfileError` when the name is a family's, the family it extends is none, or its topics are a family's.

        `families`: name → topic filters.
        """
        if self.name in families or self.name == "profile":
            raise ProfileError(f"{self.name} is a built-in family; give the profile another name", field="name")
        if self.extends is not None and self.extends not in families:
            raise ProfileError(f"must be one of {', '.join(sorted(families))}", field="extends")
        if self.extends == "native":
            raise ProfileError("native devices say what they mean; give a `topic` instead", field="extends")
        mine = self.subscription
        if mine is None:
            return
        for family, filters in families.items():
            clash = next((one for one in filters if one[0] != "+" and overlap(mine, one)), None)
            if clash is not None:
                raise ProfileError(
                    f"messages of {mine} would be read by the built-in family {family} ({clash}); "
                    f"use `extends: {family}`, or topics of its own",
                    field="topic",
                )

    def compiled(self) -> Compiled:
        """Ready to read. Raises ValueError for what cannot be read."""
        fields = []
        for one in self.fields:
            when = one.when
            fields.append(
                PathField(
                    paths.parse(one.path), one.spec(), whole=one.path.startswith("$") and self.topic is not None,
                    where=paths.parse(when.path) if when else None,
                    where_whole=bool(when and when.path.startswith("$") and self.topic is not None),
                    equals=frozenset(value_key(value) for value in when.equals) if when else frozenset(),
                )
            )  # fmt: skip
        shown = ", ".join(one.path for one in self.fields[:10])
        return Compiled(
            name=self.name, extends=self.extends, subscription=self.subscription,
            topic=_pattern(self.topic) if self.topic is not None else None, prefix=self.device_id_prefix,
            records=paths.parse(self.records) if self.records is not None else None, extra=Extra(tuple(fields)),
            missing=f"none of its fields is in the message: {shown}",
        )  # fmt: skip


def _check_topic(topic: str) -> None:
    levels = topic.split("/")
    example = "for example acme/{device_id}/up"
    if topic.count(_PLACEHOLDER) > 1:
        raise ValueError(f"`topic`: {_PLACEHOLDER} may stand in it once, {example}")
    for number, level in enumerate(levels):
        rest = level.replace(_PLACEHOLDER, "")
        if level == "#":
            if number != len(levels) - 1:
                raise ValueError(f"`topic`: # may stand only at the end, {example}")
        elif level != "+" and not _LEVEL.fullmatch(rest):
            if "{" in rest or "}" in rest:
                raise ValueError(f"`topic`: the only placeholder is {_PLACEHOLDER}; use + for other levels, {example}")
            raise ValueError(f"`topic`: + and # stand for whole levels ({level[:40]!r} is not), {example}")
    if not any(
        _LEVEL.fullmatch(level.replace(_PLACEHOLDER, "")) and level.replace(_PLACEHOLDER, "") for level in levels
    ):
        raise ValueError(f"`topic`: too broad; at least one level must be a name, {example}")
    if levels[0] == "$share":
        raise ValueError("`topic`: leave out $share; the server shares subscriptions by SHOUWANG_MQTT_SHARED_GROUP")


def _pattern(topic: str) -> re.Pattern[str]:
    """The topic as a regular expression, without anything that could take long."""
    parts = []
    for level in topic.split("/"):
        if level == "+":
            parts.append("[^/]*")
        elif level == "#":
            parts.append(".*")
        else:
            before, placeholder, after = level.partition(_PLACEHOLDER)
            name = "(?P<device_id>[^/]+)" if placeholder else ""
            parts.append(re.escape(before) + name + re.escape(after))
    text = "/".join(parts)
    return re.compile(text.removesuffix("/.*") + "(?:/.*)?" if topic.endswith("/#") else text, re.DOTALL)


def overlap(one: str, other: str) -> bool:
    """Whether a topic could match both filters."""
    left, right = one.split("/"), other.split("/")
    for a, b in zip(left, right, strict=False):
        if "#" in (a, b):
            return True
        if a != b and "+" not in (a, b):
            return False
    return (
        len(left) == len(right)
        or (len(left) > len(right) and left[len(right)] == "#")
        or (len(right) > len(left) and right[len(left)] == "#")
    )


# --- from files -----------------------------------------------------------------------------------------------------------

_MOST_BYTES = 256 * 1024


class ProfileFileError(ValueError):
    """A file that holds no usable profile. The sentence names file and field."""


def from_file(path: FilePath, families: Mapping[str, Sequence[str]]) -> list[Profile]:
    """The profiles of a YAML file (one, or several as documents or as a list). Raises `ProfileFileError`."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ProfileFileError(f"{path.name}: larger than {_MOST_BYTES} bytes")
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileFileError(f"{path.name}: cannot be read ({type(error).__name__})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ProfileFileError(
            f"{path.name}{where}: not YAML: {getattr(error, 'problem', None) or 'cannot be read'}"
        ) from None
    found: list[Profile] = []
    for given in [one for document in documents for one in (document if isinstance(document, list) else [document])]:
        if given is None:
            continue
        try:
            profile = Profile.model_validate(given)
            profile.check_against(families)
        except ValidationError as error:
            raise ProfileFileError(f"{path.name}: {in_words(error)}") from None
        except ValueError as error:
            raise ProfileFileError(f"{path.name}: {error}") from None
        found.append(profile)
    return found


def in_words(error: ValidationError) -> str:
    """The faults of a profile, each with its place."""
    faults = error.errors(include_input=False, include_url=False)[:10]
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc']) or 'profile'}: {fault['msg']}" for fault in faults)


def from_directory(
    directory: FilePath, families: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[str, Profile]], list[str]]:
    """Name → (file, profile) of the `*.yaml` and `*.yml` files of a directory, and what is wrong with the others."""
    found: dict[str, tuple[str, Profile]] = {}
    faults: list[str] = []
    if not directory.is_dir():
        return {}, [f"{directory}: no such directory"]
    files = sorted([*directory.glob("*.yaml"), *directory.glob("*.yml")])
    for path in files:
        try:
            profiles = from_file(path, families)
        except ProfileFileError as error:
            faults.append(str(error))
            continue
        for profile in profiles:
            if profile.name in found:
                faults.append(f"{path.name}: {profile.name} is in {found[profile.name][0]} already")
            else:
                found[profile.name] = (path.name, profile)
    return found, faults


def compile_all(profiles: Collection[Profile]) -> dict[str, Compiled]:
    return {profile.name: profile.compiled() for profile in profiles}
