"""Every family of devices: the golden examples beside the codecs, and what no bytes may do. All people are invented."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import msgspec.structs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.devices import codecs, shapes
from app.devices.codec import Ignored, Knowledge, Learned, Registered, Registry, Rejected, read_object
from app.devices.events import Frame, Observation, Press, Sos, Switch
from app.devices.meaning import device_ref, once
from app.devices.paths import PathError, parse
from app.devices.profiles import Profile, ProfileFileError, from_directory, from_file, overlap
from app.devices.roles import in_role
from app.devices.vocabulary import DeviceKind, FieldKind, Role
from app.rules import judge
from app.rules.verdict import Raise
from scripts import device_docs
from scripts.device_docs import ARRIVED, Example

EXAMPLES = list(device_docs.examples())
ALL = codecs.families()
pytestmark = pytest.mark.unit

# --- golden examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.family}: {e.name}")
def test_golden(example: Example) -> None:
    assert example.faults() == []


def test_an_example_that_expects_something_else_is_found_out() -> None:
    for example in EXAMPLES:
        wrong = dataclasses.replace(example, expect={"device_id": "another", "observations": [{"type": "sos"}] * 9})
        assert wrong.faults(), example.name


@pytest.mark.parametrize("family", device_docs.MODULES)
def test_every_family_has_examples_of_use_and_of_rejects(family: str) -> None:
    mine = [example for example in EXAMPLES if example.family == family]
    assert any(example.expect.get("observations") for example in mine)
    assert any(example.expect.get("reasons") for example in mine)


def test_every_family_and_preset_has_a_page_and_an_example() -> None:
    read = {one.source.profile for e in EXAMPLES for one in e.decoded() if isinstance(one, Observation)}
    assert {codec.name for codec in ALL} - {"profile"} <= read


def test_the_pages_are_up_to_date() -> None:
    for name, text in device_docs.pages().items():
        assert (device_docs.PAGES / name).read_text(encoding="utf-8") == text, "python -m scripts.device_docs"


_EVENT_KINDS = ("sos", "fall", "fall_warning", "press", "battery_low")

# --- any bytes, any topic ------------------------------------------------------------------------------------------------------

_PROFILES = {
    name: compiled for example in EXAMPLES for name, compiled in example.known.profiles.items()
}  # those of the examples
_REGISTERED = {id_: known for example in EXAMPLES for id_, known in example.known.devices.items()}
_NAMES = {topic: named for example in EXAMPLES for topic, named in example.known.names.items()}
EVERYTHING = Registry(ALL, Knowledge(names=_NAMES, devices=_REGISTERED, profiles=_PROFILES))

_any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["ON", "sos", 255, 1e999, "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_bytes = st.binary(max_size=300) | _any_json.map(lambda value: json.dumps(value).encode())
_topics = st.sampled_from([example.topic for example in EXAMPLES]) | st.text(max_size=80)


def _is_sound(frame: Frame) -> None:
    found = EVERYTHING.decode(frame)
    assert found
    json.dumps(shapes.dry_run(found), ensure_ascii=False, allow_nan=False).encode()
    same: dict[tuple[str, str], Any] = {}  # what passes for one event must be one: the journal keeps the first
    for one in found:
        if isinstance(one, Observation) and one.event_id:
            assert same.setdefault((one.device_id, one.event_id), one.event) == one.event
    for one in found:
        match one:
            case Rejected():
                assert one.detail
            case Ignored():
                assert one.because
            case Learned():
                assert one.base
            case Observation():
                assert 1 <= len(one.device_id) <= 128
                assert one.device_id.isprintable()
                assert one.event_id is None or len(one.event_id) <= 160
                assert abs(one.occurred_at - ARRIVED) <= timedelta(days=30)
                assert one.battery is None or 0 <= one.battery <= 100
                assert len(one.source.profile) <= 64
                if frame.retained and one.source.kind is FieldKind.EVENT and one.event.type in _EVENT_KINDS:
                    assert not isinstance(judge(one), Raise)


@settings(max_examples=500, deadline=None)
@given(_topics, _bytes, st.booleans())
def test_any_bytes_on_any_topic(topic: str, payload: bytes, retained: bool) -> None:
    _is_sound(Frame(topic, payload, ARRIVED, retained))


@st.composite
def _mutated(draw: st.DrawFn) -> Frame:
    """A golden example with a little of it changed: bytes, a value, a key, a level of the topic, two spliced."""
    example = draw(st.sampled_from(EXAMPLES))
    payload, topic = example.payload, example.topic
    match draw(st.sampled_from(["bytes", "value", "cut", "splice", "topic", "other"])):
        case "bytes" if payload:
            at = draw(st.integers(0, len(payload) - 1))
            payload = payload[:at] + draw(st.binary(max_size=3)) + payload[at + draw(st.integers(0, 3)) :]
        case "value":
            payload = _with_another_value(draw, payload)
        case "cut":
            payload = payload[: draw(st.integers(0, len(payload)))]
        case "splice":
            payload += draw(st.sampled_from(EXAMPLES)).payload
        case "topic":
            levels = topic.split("/")
            levels[draw(st.integers(0, len(levels) - 1))] = draw(st.text(max_size=12))
            topic = "/".join(levels)
        case _:
            topic = draw(st.sampled_from(EXAMPLES)).topic
    return Frame(topic, payload, ARRIVED, draw(st.booleans()))


def _with_another_value(draw: st.DrawFn, payload: bytes) -> bytes:
    try:
        body = json.loads(payload)
    except ValueError:
        return payload
    places: list[tuple[Any, Any]] = []
    waiting = [body]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            places += [(one, key) for key in (one if isinstance(one, dict) else range(len(one)))]
            waiting += list(one.values()) if isinstance(one, dict) else one
    if places:
        where, key = draw(st.sampled_from(places))
        where[key] = draw(_any_json)
    return json.dumps(body).encode()


@settings(max_examples=1500, deadline=None)
@given(_mutated())
def test_mutated_examples(frame: Frame) -> None:
    _is_sound(frame)


# --- an SOS beside rubbish ---------------------------------------------------------------------------------------------------


def _begins_with_an_sos(example: Example) -> bool:
    seen = example.expect.get("observations")
    return bool(seen) and seen[0]["type"] == "sos" and not example.retained


_SOS = [e for e in EXAMPLES if e.family not in ("native", "esphome", "profile") and _begins_with_an_sos(e)]


@pytest.mark.parametrize("example", _SOS, ids=lambda e: f"{e.family}: {e.name}")
@pytest.mark.parametrize("rubbish", [b'{"battery":', b"\xff\xfe{", b'{"a":1}', b"garbage"])
def test_an_sos_spliced_with_rubbish_is_seen(example: Example, rubbish: bytes) -> None:
    """Two payloads in one, bad UTF-8: the SOS is read, and the message stays in quarantine as well."""
    frame = msgspec.structs.replace(example.frame, payload=example.payload + rubbish)
    found = Registry(ALL, example.known).decode(frame)
    assert [one for one in found if isinstance(one, Observation) and isinstance(one.event, Sos)]
    assert [one for one in found if isinstance(one, Rejected)]


@pytest.mark.parametrize("bad", ["NaN", "nan", "null", '"\\u0000"', "[]", "{}", "1e999", "-1", '"x"'])
@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("zigbee2mqtt/b", '{"action":"sos","battery":%s,"last_seen":%s,"contact":%s}'),
        ("application/1/device/24e1/event/up", '{"time":%s,"rxInfo":%s,"object":{"press":"short","battery":%s}}'),
        ("tylink/d/thing/property/report", '{"msgId":%s,"time":%s,"data":{"sos":{"value":true},"battery":{"value":%s}}}'),
        ("stat/t/RESULT", '{"Time":%s,"Wifi":{"Signal":%s},"Battery":%s,"Button1":{"Action":"sos"}}'),
        ("traccar/events", '{"event":{"id":%s,"type":"alarm","eventTime":%s,"attributes":{"alarm":"sos"}},'
                           '"position":{"attributes":{"batteryLevel":%s}},"device":{"uniqueId":"1"}}'),
    ],
)  # fmt: skip
def test_one_bad_field_does_not_cost_the_sos(topic: str, body: str, bad: str) -> None:
    found = Registry(ALL).decode(Frame(topic, (body % (bad, bad, bad)).encode(), ARRIVED))
    assert [one for one in found if isinstance(one, Observation) and isinstance(one.event, Sos)], found


# --- identities ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=2), min_size=2, max_size=2))
def test_two_devices_never_get_one_id(pair: list[list[str]]) -> None:
    one, other = (device_ref("x", *parts) for parts in pair)
    assert one is None or one != other or pair[0] == pair[1]
    assert one is None or not set(one) & set("/+#")


def test_a_counter_that_begins_anew_is_no_old_message() -> None:
    before, after = ARRIVED, ARRIVED + timedelta(minutes=5)
    assert once(1, before) != once(1, after)
    assert once(1, before) == once("1", before)
    assert once("1", None) is None
    assert once("3ac7e3c4-4401-4b8d-9386-a5c902f9202d", None) == "3ac7e3c4-4401-4b8d-9386-a5c902f9202d"


def test_the_role_decides_what_a_word_means() -> None:
    assert in_role(Press("single"), DeviceKind.SOS_BUTTON) == Sos()
    assert in_role(Press("single"), DeviceKind.OTHER) == Press("single")
    assert in_role(Press("short", DeviceKind.SOS_BUTTON), None) == Sos()
    assert in_role(Press("short", DeviceKind.SOS_BUTTON), DeviceKind.OTHER) == Press("short", DeviceKind.SOS_BUTTON)
    for kind in DeviceKind:
        for on in (True, False):
            in_role(Switch("a", on), kind)  # every role has an answer


# --- JSON paths ---------------------------------------------------------------------------------------------------------------

_BODY = {
    "a": {"b": [1, {"c": 2}], "x y": 3, "中": 4},
    "list": [{"code": "sos", "value": True}, {"code": "n", "value": 0}],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.a.b[0]", [1]), ("a.b[1].c", [2]), ("@.a.b[-1].c", [2]), ("$['a']['x y']", [3]), ('$["a"].中', [4]),
        ("$.list[*].code", ["sos", "n"]), ("$.list.*.code", ["sos", "n"]), ("$.list[?(@.code=='sos')].value", [True]),
        ("$.list[?@.value==0].code", ["n"]), ("$.list[?(@['code']==\"n\")].value", [0]), ("$.none.b", []), ("$.a.b.c", []),
        ("$.a.b[7]", []), ("$", [_BODY]), ("$.list[?(@.value==true)].code", ["sos"]),
    ],
)  # fmt: skip
def test_paths(path: str, found: list[Any]) -> None:
    assert parse(path).find(_BODY) == found


@pytest.mark.parametrize("path", ["$..a", "$.", "$.a[", "$.a[b]", "$.a b", "$.a[?(@.b>1)]", "__import__('os')", "$." + "a" * 300,
                                  "$" + ".a" * 20, "", "$.a[?(@.b==system('x'))]"])  # fmt: skip
def test_paths_that_cannot_be_read(path: str) -> None:
    with pytest.raises(PathError) as error:
        parse(path)
    assert len(str(error.value)) > 15


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="$@.[]*?()='\"ab0-", max_size=60), _any_json)
def test_any_path_is_read_or_refused(text: str, body: Any) -> None:
    try:
        path = parse(text)
    except PathError:
        return
    assert len(path.find(body)) <= 100


# --- profiles -------------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"name": "acme", "topic": "acme/{device_id}/up", "fields": [{"path": "$.a", "role": "sos"}]}


def _field(**more: Any) -> dict[str, Any]:
    return {"fields": [{"path": "$.a", "role": "sos", **more}]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"topic": "acme/#/up"}, "# may stand only at the end"),
        ({"topic": "acme/{imei}/up"}, "the only placeholder is {device_id}"),
        ({"topic": "acme/{device_id}/{device_id}"}, "once"),
        ({"topic": "acme/+/up"}, "which device"),
        ({"topic": "acme/a+b/{device_id}"}, "whole levels"),
        ({"topic": "#"}, "too broad"),
        ({"topic": "{device_id}/#"}, "too broad"),
        ({"topic": "devices/{device_id}/event"}, "built-in family native"),
        ({"topic": "zigbee2mqtt/{device_id}"}, "extends: zigbee2mqtt"),
        ({"topic": None}, "either `topic`"),
        ({"extends": "chirpstack"}, "either `topic`"),
        ({"topic": None, "extends": "chirpstak"}, "must be one of"),
        ({"topic": None, "extends": "native"}, "native devices"),
        ({"name": "chirpstack"}, "built-in family"),
        ({"name": "Acme Radar"}, "name"),
        ({"fields": []}, "at least 1"),
        (_field(role="soss"), "Input should be 'sos'"),
        (_field(path="$..a"), "write the whole way"),
        (_field(path="$.a["), "cannot be read at"),
        (_field(role="type", values={"1": "explosion"}), "unknown type 'explosion'"),
        (_field(role="type", values={"1": "door:ajar"}), "which door does not know"),
        (_field(role="door", values={"1": "ajar"}), "it knows open, closed"),
        (_field(role="battery", values={"1": "2"}), "takes its value as it is"),
        (_field(unit="s"), "`unit` belongs to the role time"),
        (_field(role="time"), "no field says what happened"),
        (_field(when={"path": "$..x", "equals": [1]}), "write the whole way"),
        (_field(when={"path": "$.x", "equals": []}), "at least 1"),
        (_field(vlaues={}), "not permitted"),
        ({"records": "$..x"}, "write the whole way"),
    ],
)
def test_a_profile_that_cannot_be_used_says_what_to_mend(tmp_path: Any, change: dict[str, Any], says: str) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(json.dumps({name: value for name, value in {**GOOD, **change}.items() if value is not None}))
    with pytest.raises(ProfileFileError) as error:
        from_file(file, codecs.filters(ALL))
    assert says in str(error.value)
    assert str(error.value).startswith("acme.yaml: ")


def test_yaml_and_json_read_the_same_map(tmp_path: Any) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: acme\ntopic: acme/{device_id}/up\nfields:\n  - path: $.a\n    role: door\n    values: {1: open, false: closed}\n"
    )
    [profile] = from_file(tmp_path / "a.yaml", codecs.filters(ALL))
    assert profile.fields[0].values == {"1": "open", "false": "closed"}
    spec = profile.fields[0].spec()
    assert spec.values == {"1": (Role.DOOR, True), "false": (Role.DOOR, False)}


def test_a_directory_says_what_is_wrong_with_each_file_and_uses_the_others(tmp_path: Any) -> None:
    (tmp_path / "good.yaml").write_text(json.dumps(GOOD))
    (tmp_path / "twice.yml").write_text(json.dumps(GOOD))
    (tmp_path / "bad.yaml").write_text("name: [")
    (tmp_path / "note.txt").write_text("not a profile")
    found, faults = from_directory(tmp_path, codecs.filters(ALL))
    assert list(found) == ["acme"]
    assert sorted(fault.split(":")[0] for fault in faults) == ["bad.yaml", "twice.yml"]
    assert from_directory(tmp_path / "none", {})[1]


@given(
    st.lists(st.sampled_from(["a", "b", "+", "#"]), min_size=1, max_size=4),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=4),
)
def test_overlap_is_symmetric_and_sees_every_match(levels: list[str], topic: list[str]) -> None:
    pattern = "/".join(level for n, level in enumerate(levels) if level != "#" or n == len(levels) - 1) or "a"
    name = "/".join(topic)
    assert overlap(pattern, name) == overlap(name, pattern)
    if all(p in ("+", t) for p, t in zip(pattern.split("/"), topic, strict=False)) and len(pattern.split("/")) == len(
        topic
    ):
        assert overlap(pattern, name)


def test_a_profile_reads_only_its_own_topics() -> None:
    profile = Profile.model_validate({**GOOD, "topic": "acme/+/unit-{device_id}/#"})
    assert profile.subscription == "acme/+/+/#"
    topic = profile.compiled().topic
    assert topic is not None
    assert topic.fullmatch("acme/x/unit-7") is not None  # `#` is also nothing
    found = topic.fullmatch("acme/x/unit-7/a/b")
    assert found is not None
    assert found["device_id"] == "7"
    for other in ("acme/x/unit-/a", "acme/unit-7/a", "acme/x/y/unit-7", "xacme/x/unit-7/a"):
        assert topic.fullmatch(other) is None, other


def test_what_is_tried_is_named() -> None:
    [one] = EVERYTHING.decode(Frame("application/1/what", b"{}", ARRIVED))
    assert isinstance(one, Rejected)
    assert "chirpstack" in one.detail
    assert "profile" in one.detail
    assert "zigbee2mqtt" not in one.detail


def test_families_in_use() -> None:
    assert [codec.name for codec in codecs.in_use(ALL, ["shelly"])] == ["native", "profile", "shelly"]
    assert codecs.in_use(ALL, []) == ALL
    with pytest.raises(ValueError, match="no such family"):
        codecs.in_use(ALL, ["shely"])


def test_subscriptions_are_those_of_families_and_profiles() -> None:
    topics = Registry(ALL, Knowledge(profiles={"acme": Profile.model_validate(GOOD).compiled()})).subscriptions
    assert "acme/+/up" in topics
    assert "$oc/devices/+/sys/properties/report/#" in topics  # `#` alone reaches no topic that begins with $
    assert len(topics) == len(set(topics))


def test_a_device_registered_under_the_profile_that_extends_its_family_is_read_by_it() -> None:
    profile = Profile.model_validate({"name": "acme-lora", "extends": "ttn", "fields": [{"path": "e", "role": "sos"}]})
    body = {"end_device_ids": {"device_id": "x"}, "uplink_message": {"decoded_payload": {"e": 1}}}
    frame = Frame("v3/a/devices/x/up", json.dumps(body).encode(), ARRIVED)
    known = Knowledge(profiles={"acme-lora": profile.compiled()})
    [unclaimed] = Registry(ALL, known).decode(frame)
    assert isinstance(unclaimed, Observation)
    assert unclaimed.event.type == "heartbeat"
    claimed = dataclasses.replace(known, devices={"ttn:a:x": Registered("acme-lora", DeviceKind.SOS_BUTTON)})
    [pressed] = Registry(ALL, claimed).decode(frame)
    assert isinstance(pressed, Observation)
    assert pressed.event == Sos()


def test_a_new_profile_takes_no_device_away_from_another() -> None:
    """Both read the topic; the device's own decides, whatever their names."""
    mine = Profile.model_validate({**GOOD, "name": "mine"}).compiled()
    thief = Profile.model_validate(
        {**GOOD, "name": "a-thief", "fields": [{"path": "$.a", "role": "heartbeat"}]}
    ).compiled()
    known = Knowledge(
        profiles={"a-thief": thief, "mine": mine}, devices={"R1": Registered("mine", DeviceKind.SOS_BUTTON)}
    )
    [seen] = Registry(ALL, known).decode(Frame("acme/R1/up", b'{"a":1}', ARRIVED))
    assert isinstance(seen, Observation)
    assert (seen.event, seen.source.profile) == (Sos(), "mine")
    [other] = Registry(ALL, known).decode(Frame("acme/R2/up", b'{"a":1}', ARRIVED))
    assert isinstance(other, Observation)
    assert other.source.profile == "a-thief"


def test_the_zero_byte_that_ends_a_string_in_c_loses_no_sos() -> None:
    assert read_object(b'{"type":"sos","id":"z"}\0\0') == {"type": "sos", "id": "z"}
