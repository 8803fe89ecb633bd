"""Values that say their key, keys that are exchanged, and texts that name nobody."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.access import sealing
from app.access.sealing import Sealer
from app.discretion import without_identity, without_numbers_of_people
from app.key_files import KeyFile, new_key
from app.settings import Settings, SettingsError, load_keys

pytestmark = pytest.mark.unit
ONE, TWO, THREE = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))


def sealed_by_version_1(key: bytes, text: str, record: bytes) -> bytes:
    """As the first release did it."""
    import hmac

    nonce = os.urandom(12)
    return b"\x01" + nonce + AESGCM(hmac.digest(key, b"seal", "sha256")).encrypt(nonce, text.encode(), record)


def test_the_first_key_seals_and_each_opens() -> None:
    record = uuid4()
    old, both, new = Sealer(ONE), Sealer(TWO, ONE), Sealer(TWO)
    value = old.seal("13800000000", record=record)
    assert both.open(value, record=record) == "13800000000"
    with pytest.raises(InvalidTag):
        new.open(value, record=record)
    assert new.open(both.seal("甲", record=record), record=record) == "甲"
    assert value.startswith(old.prefix)
    assert old.key_ids == both.key_ids[1:]


def test_a_value_opens_only_at_its_record_and_unchanged() -> None:
    sealer, record = Sealer(ONE, TWO), uuid4()
    value = sealer.seal("般阳路1号", record=record)
    with pytest.raises(InvalidTag):
        sealer.open(value, record=uuid4())
    other_key = Sealer(TWO).prefix + value[sealing.PREFIX :]
    for changed in (value[:-1] + bytes([value[-1] ^ 1]), other_key, b"", b"\x02", value[:10], b"\x03" + value[1:]):
        with pytest.raises(InvalidTag):
            sealer.open(changed, record=record)
    assert sealer.seal("般阳路1号", record=record) != value


def test_values_from_before_keys_had_names_open_with_any_key() -> None:
    record = uuid4()
    value = sealed_by_version_1(ONE, "370302194001011221", record.bytes)
    for sealer in (Sealer(ONE), Sealer(TWO, ONE)):
        assert sealer.open(value, record=record) == "370302194001011221"
    for sealer, at in ((Sealer(TWO), record), (Sealer(ONE), uuid4())):
        with pytest.raises(InvalidTag):
            sealer.open(value, record=at)


def test_hashes_are_found_under_every_key_and_in_the_older_form() -> None:
    old, both, other = Sealer(ONE), Sealer(TWO, ONE), Sealer(THREE)
    assert old.index("1226") in both.indexes("1226")
    assert old.index("1226")[sealing.PREFIX :] in both.indexes("1226")  # version 1: no key named
    assert both.index("1226") in both.indexes("1226")
    assert not set(other.indexes("1226")) & set(both.indexes("1226"))
    assert old.index("1226") != old.index("1227")


def test_two_processes_that_share_a_key_lock_a_common_number() -> None:
    assert set(Sealer(ONE).locks("x")) <= set(Sealer(TWO, ONE).locks("x"))
    assert Sealer(TWO, ONE).locks("x") == Sealer(ONE, TWO).locks("x")  # and all in one order


def test_an_unknown_key_is_looked_for_once_more_and_then_refused() -> None:
    record, given = uuid4(), [ONE]
    reader = Sealer(ONE, reread=lambda: tuple(given))
    value = Sealer(TWO, ONE).seal("x", record=record)
    with pytest.raises(InvalidTag):
        reader.open(value, record=record)
    given.insert(0, TWO)
    assert reader.open(value, record=record) == "x"
    assert reader.key_ids == Sealer(TWO, ONE).key_ids


def test_a_key_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    first, second = new_key(), new_key()
    path.write_text(f"# the key of 2026\n{first}\n")
    file = KeyFile(path)
    assert len(file.read()) == 1
    assert file.changed() is None
    KeyFile(path).put_first(second)
    keys = file.changed()
    assert keys is not None
    assert len(keys) == 2
    assert file.changed() is None
    path.write_text("half a k")
    assert file.changed() is None  # what we have is still good
    path.unlink()
    assert file.changed() is None


def test_the_old_keys_are_moved_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    path, retired = tmp_path / "keys", tmp_path / "keys.retired"
    first, second = new_key(), new_key()
    path.write_text(first + "\n")
    KeyFile(path).put_first(second)
    KeyFile(path).keep_first(retired)
    assert path.read_text() == second + "\n"
    assert retired.read_text() == first + "\n"
    assert [stat.st_mode & 0o777 for stat in (path.stat(), retired.stat())] == [0o600, 0o600]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("{a},{a}", "SHOUWANG_DATA_KEY must hold different keys"),
        ("{a},c2hvcnQ=", "SHOUWANG_DATA_KEY is weak"),
        ("{a},not base64", "SHOUWANG_DATA_KEY is not base64"),
        (",".join("{a}" for _ in range(9)), "SHOUWANG_DATA_KEY must hold different keys"),
    ],
)
def test_several_keys_in_one_setting(given: str, why: str) -> None:
    a, b = new_key(), new_key()
    keys = load_keys(Settings(database_url="x", data_key=f"{a}, {b}", token_key=new_key()))  # type: ignore[arg-type]
    assert len(keys.data) == 2
    with pytest.raises(SettingsError, match=why) as refused:
        load_keys(Settings(database_url="x", data_key=given.format(a=a), token_key=new_key()))  # type: ignore[arg-type]
    assert a not in str(refused.value)


def test_keys_in_a_file_of_the_deployers(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    settings = Settings(database_url="x", data_key_file=str(path), token_key=new_key())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"SHOUWANG_DATA_KEY_FILE: .* cannot be read"):
        load_keys(settings)
    path.write_text("\n")
    with pytest.raises(SettingsError, match=r"SHOUWANG_DATA_KEY_FILE: .* holds no key"):
        load_keys(settings)
    path.write_text(f"{new_key()}\n{new_key()}\n")
    assert len(load_keys(settings).data) == 2
    with pytest.raises(ValueError, match="set one of them"):
        Settings(data_key=new_key(), data_key_file=str(path))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("给王桂英女儿打电话", "给…女儿打电话"),
        ("call 138 0000 0000 back", "call … back"),
        ("证件 37030219400101122X 核对", "证件 … 核对"),
        ("mail mei@example.org", "mail …"),
        ("回访 2026-11 第 3 次", "回访 2026-11 第 3 次"),
    ],
)
def test_a_purpose_names_nobody(text: str, left: str) -> None:
    assert without_identity(text, "王桂英", "") == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("the value '13812345678' is not in its map", "the value '…' is not in its map"),
        ("`device_id` 0x00158d0001234567 is another", "`device_id` 0x00158d0001234567 is another"),
        ("imei 860000000000001 is unknown", "imei 860000000000001 is unknown"),
        ("id 370302194001011221", "id …"),
        ("from 0533-5180000", "from …"),
        ("at 18500 bytes; at most 16384 are read", "at 18500 bytes; at most 16384 are read"),
    ],
)
def test_numbers_of_people_are_taken_out_and_those_of_devices_stay(text: str, left: str) -> None:
    assert without_numbers_of_people(text) == left
