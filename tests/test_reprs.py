"""No secret and no sealed field in a `repr`: what a traceback, a debugger or a careless log line would show."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from sqlmodel import SQLModel

import app
from app.access.sealing import Sealer
from app.api.api_keys import NewKey
from app.api.bodies import Body
from app.api.elders import ElderSearch
from app.embedded.parts import Embedded
from app.key_files import KeyFile, new_key
from app.main import Server
from app.settings import Keys, Settings, load_keys

pytestmark = pytest.mark.unit
SECRET = {"secret", "secrets", "password", "old_password", "api_key", "data_key", "token_key", "token", "access_token",
          "refresh_token",           "password_hash", "secret_hash"}  # fmt: skip
PERSONAL = {"id_number", "phone", "address"}
# A name of that kind that is none.
HARMLESS = {
    "app.api.elders.ElderOut",  # what it shows is masked, unless revealed: then it is on its way out
    "app.api.contacts.ContactOut", "app.api.visitors.VisitorOut", "app.api.channels.ChannelOut",
    "app.api.records.FamilyOut", "app.api.audit_log.From",
    "app.api.alarms.AlarmElder", "app.devices.codec.Named",
    "app.devices.tables.ZigbeeName",
    "app.access.principal.Origin",
}  # fmt: skip


def _modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(app.__path__, "app."):
        if found.name not in ("app.demo",):
            yield importlib.import_module(found.name)


def _shown_fields(kind: type) -> dict[str, bool]:
    """Field and whether its value is in the repr."""
    if dataclasses.is_dataclass(kind):
        return {one.name: one.repr and kind.__dataclass_params__.repr for one in dataclasses.fields(kind)}  # type: ignore[attr-defined]
    if issubclass(kind, Body):  # shows the names of fields only
        return {}
    if issubclass(kind, BaseModel):
        return {name: one.repr and one.annotation is not SecretStr for name, one in kind.model_fields.items()}
    return {}


def _classes() -> Iterator[tuple[str, type]]:
    for module in _modules():
        for name, kind in vars(module).items():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                yield f"{module.__name__}.{name}", kind


def test_fields_that_hold_secrets_or_sealed_values_are_not_shown() -> None:
    wrong = [
        f"{name}.{field}"
        for name, kind in _classes()
        if name not in HARMLESS
        for field, shown in _shown_fields(kind).items()
        if shown and field in SECRET | PERSONAL
    ]
    assert not wrong, "\n".join(wrong)
    assert not _shown_fields(NewKey)["key"]  # an API key, as it is shown once


def test_a_body_shows_which_fields_it_has() -> None:
    body = ElderSearch(id_number="370302194001011221", purpose="x1")
    for text in (repr(body), str(body)):
        assert "id_number='…'" in text
        assert "3703" not in text


def test_rows_do_not_show_sealed_columns() -> None:
    wrong = [
        f"{name}.{field}"
        for name, kind in _classes()
        if issubclass(kind, SQLModel)
        for field, shown in _shown_fields(kind).items()
        if shown and field.endswith(("_sealed", "_index"))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_setting_that_is_a_secret_is_typed_as_one() -> None:
    words = ("key", "secret", "password", "smtp_url", "mqtt_url", "database_url")
    plain = {
        "mqtt_key_file",
        "data_key_file",
        "aliyun_access_key_id",
        "webhook_secret_overlap_s",
    }  # files, names, times
    for name, one in Settings.model_fields.items():
        if any(word in name for word in words) and name not in plain:
            assert one.annotation is SecretStr, name


def test_no_part_of_a_server_shows_a_secret(tmp_path: Path) -> None:
    """Built with a known text in every secret, and every part within reach looked at."""
    mark = "canary-Secret-93"
    texts = {
        name: f"{mark}-{name}" for name, one in Settings.model_fields.items() if one.annotation is SecretStr
    } | {  # those that must have a form
        "database_url": f"postgresql+asyncpg://u:{mark}@127.0.0.1:1/x", "mqtt_url": f"mqtt://u:{mark}@127.0.0.1:1",
        "smtp_url": f"smtps://u:{mark}@mail.example.org:465", "data_key": new_key(), "token_key": new_key(),
        "mqtt_auth_secret": f"{mark}-0123456789abcdefghijklmnopqrstuvwxyz",
    }  # fmt: skip
    settings = Settings(**texts, smtp_from="desk@example.org", data_dir=tmp_path)  # type: ignore[arg-type]
    keys = load_keys(settings)
    server = Server(settings, Embedded(settings), ("api", "ingest", "worker"))
    built = server.build()
    hidden = [mark, texts["data_key"], texts["token_key"], repr(keys.data[0]), repr(keys.token), keys.data[0].hex()]
    parts = [
        settings,
        keys,
        server,
        built,
        built.state.parts,
        Sealer(*keys.data),
        KeyFile(tmp_path / "k"),
        Keys((b"x",), b"y"),
    ]
    for thing in list(_within(parts)):
        for text in (repr(thing), str(thing)):
            assert not [secret for secret in hidden if secret in text], type(thing)


def _within(things: list[Any]) -> Iterator[Any]:
    """Our own objects that can be reached from these."""
    seen: set[int] = set()
    waiting = list(things)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if _ours(thing):
            yield thing
        if isinstance(thing, list | tuple | set | frozenset):
            waiting += [one for one in thing if _ours(one)]
        elif isinstance(thing, dict):
            waiting += [one for one in thing.values() if _ours(one)]
        elif hasattr(thing, "__dict__"):
            waiting += [one for one in vars(thing).values() if _ours(one) or isinstance(one, list | tuple | dict)]


def _ours(thing: Any) -> bool:
    return type(thing).__module__.startswith("app.") and not isinstance(thing, type)
