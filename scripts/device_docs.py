"""The golden examples beside the codecs: read them, run them, and write docs/devices/*.md from them.

python -m scripts.device_docs          writes the pages
python -m scripts.device_docs --check  says which are not up to date (exit code 1)
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from app.devices import codecs, shapes
from app.devices.codec import Decoded, Knowledge, Named, Registered, Registry
from app.devices.events import Frame
from app.devices.profiles import Profile
from app.devices.vocabulary import DeviceKind

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "app" / "devices" / "codecs" / "examples"
PAGES = ROOT / "docs" / "devices"
ARRIVED = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)

# Page → the codec file whose words it begins with.
MODULES = {
    "native": "native", "zigbee2mqtt": "zigbee2mqtt", "chirpstack": "chirpstack", "ttn": "ttn", "thing_model": "thing_model",
    "esphome": "entity", "tasmota": "entity", "shelly": "shelly", "traccar": "traccar", "profile": "profile",
}  # fmt: skip
TITLES = {
    "native": "Native devices", "zigbee2mqtt": "Zigbee2MQTT", "chirpstack": "ChirpStack v4", "ttn": "The Things Stack v3",
    "thing_model": "物模型", "esphome": "ESPHome", "tasmota": "Tasmota", "shelly": "Shelly Gen2+", "traccar": "Traccar",
    "profile": "Configured profiles",
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    family: str
    name: str
    topic: str
    payload: bytes
    retained: bool
    known: Knowledge
    expect: dict[str, Any]
    why: str = ""
    given: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def frame(self) -> Frame:
        return Frame(self.topic, self.payload, ARRIVED, self.retained)

    def decoded(self) -> list[Decoded]:
        return list(Registry(codecs.families(), self.known).decode(self.frame))

    def faults(self) -> list[str]:
        """How what comes differs from what is expected; nothing: it is as expected."""
        shown = shapes.dry_run(self.decoded())
        wanted = self.expect
        found = []
        if shown["device_id"] != wanted.get("device_id"):
            found.append(f"device_id is {shown['device_id']!r}")
        if len(shown["observations"]) != len(wanted.get("observations", [])):
            found.append(f"{len(shown['observations'])} observations: {[one['type'] for one in shown['observations']]}")
        for number, (one, want) in enumerate(zip(shown["observations"], wanted.get("observations", []), strict=False)):
            for name, value in want.items():
                if name not in one or not _same(one[name], value):
                    found.append(f"observations[{number}].{name} is {one.get(name)!r}, not {value!r}")
        if [one["reason"] for one in shown["reasons"]] != wanted.get("reasons", []):
            found.append(f"reasons are {shown['reasons']}")
        if bool(shown["ignored"]) is not wanted.get("ignored", False):
            found.append(f"ignored is {shown['ignored']}")
        if shown["learned"] != wanted.get("learned", {}):
            found.append(f"learned is {shown['learned']}")
        return found


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and wanted.startswith("retained:"):  # a hash: its form is enough
        return isinstance(value, str) and value.startswith("retained:")
    return bool(value == wanted) and type(value) is type(wanted)


def examples() -> Iterator[Example]:
    """All of them, in the order of the files."""
    for family in MODULES:
        for given in yaml.safe_load((EXAMPLES / f"{family}.yaml").read_text(encoding="utf-8")):
            yield _example(family, given)


def _example(family: str, given: dict[str, Any]) -> Example:
    unknown = set(given) - {"name", "why", "topic", "payload", "base64", "retained", "known", "expect"}
    if unknown:
        raise ValueError(f"{family}.yaml: {given['name']}: unknown {unknown}")
    payload = given.get("payload")
    if "base64" in given:
        data = base64.b64decode(given["base64"])
    else:
        data = payload.encode() if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False).encode()
    known = given.get("known", {})
    profiles = {one["name"]: Profile.model_validate(one) for one in known.get("profiles", [])}
    for profile in profiles.values():
        profile.check_against(codecs.filters(codecs.families()))
    return Example(
        family=family,
        name=given["name"],
        topic=given["topic"],
        payload=data,
        retained=given.get("retained", False),
        known=Knowledge(
            names={topic: Named(*words) for topic, words in known.get("names", {}).items()},
            devices={
                id_: Registered(profile, DeviceKind(kind)) for id_, (profile, kind) in known.get("devices", {}).items()
            },
            profiles={name: profile.compiled() for name, profile in profiles.items()},
        ),
        expect=given["expect"],
        why=given.get("why", ""),
        given=given,
    )


# --- pages ----------------------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """File name → text."""
    told: dict[str, list[Example]] = {family: [] for family in MODULES}
    for example in examples():
        told[example.family].append(example)
    return {f"{family}.md": _page(family, found) for family, found in told.items()}


def _page(family: str, found: list[Example]) -> str:
    module = importlib.import_module(f"app.devices.codecs.{MODULES[family]}")
    by_name = {codec.name: codec for codec in codecs.families()}
    names = [preset.name for preset in module.PRESETS] if family == "thing_model" else [family]
    topics = [f"`{topic}`" for name in names if name in by_name for topic in by_name[name].subscriptions]
    prefixes = [f"`{prefix}`" for name in names if name in by_name for prefix in by_name[name].id_prefixes]
    lines = [
        f"# {TITLES[family]}",
        "",
        "<!-- Written by `python -m scripts.device_docs` from the codec and its golden examples. -->",
        "",
        (module.__doc__ or "").strip(),
        "",
    ]
    if len(names) > 1 or family not in ("native", "profile"):
        lines += [f"- Profile: {', '.join(f'`{name}`' for name in names)}"]
    if topics:
        lines += [f"- Topics: {', '.join(topics)}"]
    if prefixes:
        lines += [f"- Device ids begin with {', '.join(prefixes)}"]
    lines += ["", "## Examples", ""]
    for example in found:
        lines += _told(example)
    return "\n".join(lines).rstrip() + "\n"


def _told(example: Example) -> list[str]:
    lines = [f"### {example.name}", ""]
    if example.why:
        lines += [example.why, ""]
    known = example.given.get("known", {})
    for profile in known.get("profiles", []):
        lines += [
            "With the profile",
            "",
            "```yaml",
            yaml.safe_dump(profile, allow_unicode=True, sort_keys=False).rstrip(),
            "```",
            "",
        ]
    for id_, (profile, kind) in known.get("devices", {}).items():
        lines += [f"`{id_}` is registered: profile `{profile}`, role `{kind}`.", ""]
    for topic, (_, address, model) in known.get("names", {}).items():
        lines += [f"The gateway said that `{topic}` is `{address}`{f' ({model})' if model else ''}.", ""]
    retained = " (retained)" if example.retained else ""
    lines += ["```", f"{example.topic}{retained}", example.payload.decode(errors="replace"), "```", ""]
    wanted = example.expect
    for one in wanted.get("observations", []):
        device = one.get("device_id", wanted.get("device_id"))
        words = {name: value for name, value in one.items() if name not in ("type", "device_id")}
        rest = f" {json.dumps(words, ensure_ascii=False)}" if words else ""
        lines += [f"→ `{device}` **{one['type']}**{rest}", ""]
    for reason in wanted.get("reasons", []):
        lines += [f"→ quarantine: **{reason}**", ""]
    for topic, address in wanted.get("learned", {}).items():
        lines += [f"→ learned: `{topic}` is `{address}`", ""]
    if wanted.get("ignored"):
        lines += ["→ nothing: it is in order and says nothing of a device", ""]
    return lines


def main() -> int:
    PAGES.mkdir(exist_ok=True)
    stale = [
        name for name, text in pages().items() if not (PAGES / name).is_file() or (PAGES / name).read_text() != text
    ]
    if "--check" in sys.argv:
        if stale:
            sys.stderr.write(f"not up to date: {', '.join(stale)}; run python -m scripts.device_docs\n")
        return 1 if stale else 0
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
