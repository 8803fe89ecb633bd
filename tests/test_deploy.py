"""What is shipped for a district holds together, and the shipped broker keeps what a long outage piles up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.devices import mosquitto_auth, passwords
from app.devices.credentials import Login, ServerLogin
from app.devices.mosquitto_files import access_file, password_file, server_access_file, server_password_file
from app.settings import PREFIX, Settings
from scripts import check_skips
from tests.brokers import SERVER, SERVER_PASSWORD, Client, Mosquitto, until

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SUBCOMMANDS = {"serve", "migrate", "mosquitto-auth"}
KNOWN = {PREFIX + name.upper() for name in Settings.model_fields}


def dockerfile() -> list[tuple[str, str]]:
    """The instructions in order, continuation lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in lines]


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8")))


def env_example() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# --- the image --------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_the_image_copies_only_what_is_there_and_let_into_the_build() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copies = [rest.split() for word, rest in dockerfile() if word == "COPY" and "--from=" not in rest]
    sources = [source for *names, _ in copies for source in names]
    assert {"requirements.lock", "app", "migrations", "simulator"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore, f"{source} is kept out of the build by .dockerignore"


@pytest.mark.unit
def test_the_image_holds_every_package_of_the_wheel() -> None:
    packages = re.search(r"^packages = \[(.*)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert packages is not None
    copied = {source for word, rest in dockerfile() if word == "COPY" for source in rest.split()}
    assert set(re.findall(r'"(\w+)"', packages[1])) <= copied


@pytest.mark.unit
def test_the_image_runs_the_console_script_as_an_ordinary_user() -> None:
    users = [rest for word, rest in dockerfile() if word == "USER"]
    assert users
    assert users[-1].split(":")[0] not in {"root", "0"}
    assert [rest for word, rest in dockerfile() if word == "CMD"] == ['["shouwang", "serve"]']


@pytest.mark.unit
def test_the_image_installs_by_hash_and_names_no_registry() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in text
    addresses = set(re.findall(r"https?://([^/'\" ]+)", text))
    assert addresses <= {"127.0.0.1:"}, addresses
    assert "--index-url" not in text


# --- compose ----------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_every_service_of_ours_runs_the_console_script() -> None:
    ours = {name: service for name, service in compose()["services"].items() if "build" in service}
    assert set(ours) == {"migrate", "app", "mosquitto-auth"}
    for service in ours.values():
        assert (ROOT / service["build"] / "Dockerfile").exists()
        script, subcommand, *_ = service["command"]
        assert script == "shouwang"
        assert subcommand in SUBCOMMANDS
    assert ours["app"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


@pytest.mark.unit
def test_every_mounted_path_is_there_or_documented() -> None:
    declared = set(compose()["volumes"])
    for service in compose()["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0] if isinstance(mount, str) else mount["source"]
            if not source.startswith("."):
                assert source in declared, source
                continue
            assert (ROOT / source).exists(), source


@pytest.mark.unit
def test_the_brokers_files_are_written_by_the_user_who_reads_them() -> None:
    services = compose()["services"]
    writer, reader = services["mosquitto-auth"], services["mosquitto"]
    owner = writer["user"]
    assert f"install -d -o {owner.split(':')[0]} -g {owner.split(':')[1]} -m 0700 /mosquitto/auth" in (
        ROOT / "Dockerfile"
    ).read_text(encoding="utf-8"), "a fresh volume belongs to whom the image says"
    assert writer["command"][-2:] == ["--folder", "/mosquitto/auth"]
    for service in (writer, reader):
        assert "mosquitto-auth:/mosquitto/auth" in service["volumes"]
    configuration = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?(?:password_file|acl_file) /mosquitto/auth/(\S+)", configuration, re.MULTILINE))
    assert named == {mosquitto_auth.PASSWORDS, mosquitto_auth.ACCESS, "server-passwords", "server-acl"}
    assert configuration.count("allow_anonymous false") == configuration.count("\nlistener ") + 1, (
        "the one with TLS too"
    )


@pytest.mark.unit
def test_shouwangs_own_way_into_the_broker_is_not_offered_outside() -> None:
    services = compose()["services"]
    assert services["app"]["environment"]["SHOUWANG_MQTT_URL"].endswith("@mosquitto:1884")
    assert [port.rpartition(":")[2] for port in services["mosquitto"]["ports"]] == ["1883"]


@pytest.mark.unit
def test_what_must_outlive_a_container_is_on_a_volume() -> None:
    services = compose()["services"]
    assert "app-data:/var/lib/shouwang" in services["app"]["volumes"]  # the MQTT client id
    assert "mosquitto-data:/mosquitto/data" in services["mosquitto"]["volumes"]
    assert "postgres-data:/var/lib/postgresql" in services["postgres"]["volumes"]  # not …/data: 18 moved it


@pytest.mark.unit
@pytest.mark.parametrize(
    "secret",
    [
        "SHOUWANG_DATA_KEY",
        "SHOUWANG_TOKEN_KEY",
        "SHOUWANG_ADMIN_PASSWORD",
        "SHOUWANG_PUBLIC_URL",
        "POSTGRES_PASSWORD",
        "MQTT_PASSWORD",
    ],
)
def test_compose_refuses_to_start_without(secret: str) -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    uses = re.findall(r"\$\{" + secret + r"(:\?[^}]+)?\}", text)
    assert uses
    assert all(uses), f"{secret} is used without a message for when it is missing"
    assert env_example()[secret] == "", "an example secret would be used as it is"


@pytest.mark.unit
def test_compose_gives_the_server_only_settings_it_knows() -> None:
    for service in ("app", "migrate", "mosquitto-auth"):
        given = compose()["services"][service]["environment"]
        assert set(given) <= KNOWN, set(given) - KNOWN
    assert compose()["services"]["app"]["environment"] == compose()["services"]["migrate"]["environment"]


@pytest.mark.unit
def test_every_variable_of_compose_is_explained_in_the_example_and_the_other_way_round() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "compose.yaml").read_text(encoding="utf-8")))
    assert used == set(env_example())
    assert {name for name in env_example() if name.startswith(PREFIX)} <= KNOWN


@pytest.mark.unit
def test_every_setting_is_explained() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE))
    assert told == {name.removeprefix(PREFIX) for name in KNOWN}


# --- .ci/run ----------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_ci_calls_make_test_and_is_executable() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert re.search(r"^make test \|\| ", script.read_text(encoding="utf-8"), re.MULTILINE)


def report(folder: Path, *cases: str) -> Path:
    path = folder / "report.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>", encoding="utf-8")
    return path


PASSED = '<testcase classname="tests.test_a" name="test_one"/>'
SKIPPED = '<testcase classname="tests.test_a" name="test_two"><skipped message="no broker"/></testcase>'
FAILED = '<testcase classname="tests.test_a" name="test_three"><failure message="no"/></testcase>'


@pytest.mark.unit
@pytest.mark.parametrize(
    ("cases", "code", "allowed", "result", "last"),
    [
        ([PASSED], 0, "", 0, "1 passed, 0 failed, 0 skipped"),
        ([PASSED, SKIPPED], 0, "", 1, "1 passed, 0 failed, 1 skipped"),
        ([PASSED, SKIPPED], 0, "tests.test_a::test_t*  needs a broker", 0, "1 passed, 0 failed, 1 skipped"),
        ([PASSED, FAILED], 1, "", 1, "1 passed, 1 failed, 0 skipped"),
        ([PASSED], 2, "", 1, "1 passed, 1 failed, 0 skipped"),  # died after the last test
        ([], 5, "", 1, "0 passed, 1 failed, 0 skipped"),
    ],
)
def test_ci_counts_and_refuses_unlisted_skips(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cases: list[str],
    code: int,
    allowed: str,
    result: int,
    last: str,
) -> None:
    (tmp_path / "allowed").write_text(allowed + "\n", encoding="utf-8")
    run = ["--run", "make test", str(code), str(report(tmp_path, *cases))]
    assert check_skips.main(["--allowed", str(tmp_path / "allowed"), *run]) == result
    assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.mark.unit
def test_ci_fails_on_a_step_without_report_and_on_a_leave_without_reason(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("# nothing\n", encoding="utf-8")
    passed = ["--run", "make test", "0", str(report(tmp_path, PASSED))]
    assert check_skips.main(["--allowed", str(allowed), "--step", "make check", "2", *passed]) == 1
    assert check_skips.main(["--allowed", str(allowed), "--run", "make test", "0", str(tmp_path / "none.xml")]) == 1
    allowed.write_text("tests.test_a::*\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="no reason"):
        check_skips.main(["--allowed", str(allowed), *passed])


# --- the broker -------------------------------------------------------------------------------------------------------

PASSWORD = "correct horse"
DEVICE = "sos-0001"
PILE = 3000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    devices = [Login(name, name, passwords.hashed(PASSWORD)) for name in (DEVICE, "sos-0002")]
    for name, text in {
        "server-passwords": server_password_file(ServerLogin(SERVER, SERVER_PASSWORD), ""),
        "server-acl": server_access_file(),
        "passwords": password_file(devices, {"huawei-gateway": passwords.hashed(PASSWORD)}),
        "acl": access_file(devices, "user huawei-gateway\ntopic write $oc/#\n"),
    }.items():
        (broker.auth / name).write_text(text, encoding="utf-8")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.mark.mosquitto
def test_only_the_right_password_gets_in(broker: Mosquitto) -> None:
    right = Client(broker, SERVER, SERVER_PASSWORD)
    wrong = Client(broker, SERVER, "wrong", name="wrong")
    stranger = Client(broker, "stranger", PASSWORD)
    nobody = Client(broker, None)
    try:
        assert right.refused is None
        for client in (wrong, stranger, nobody):
            assert client.refused is not None
            assert "authori" in client.refused.lower()
    finally:
        for client in (right, wrong, stranger, nobody):
            client.leave()


@pytest.mark.mosquitto
def test_a_device_speaks_and_listens_only_for_itself(broker: Mosquitto) -> None:
    server = Client(broker, SERVER, SERVER_PASSWORD).subscribe("devices/+/event", "devices/+/status", "$oc/#")
    for topic in ("devices/sos-0002/event", "$oc/devices/x/sys/events/up"):
        impostor = Client(broker, DEVICE, PASSWORD)  # mosquitto also ends the connection of one who does so
        impostor.publish(topic, ["in another's name"])
        impostor.leave()
    device = Client(broker, DEVICE, PASSWORD).subscribe(f"devices/{DEVICE}/command", "devices/#")
    gateway = Client(broker, "huawei-gateway", PASSWORD)
    try:
        device.publish(f"devices/{DEVICE}/status", ["online"])
        device.publish(f"devices/{DEVICE}/event", ["pressed"])
        until(lambda: "pressed" in server.got, "the event did not arrive", lambda: server.got)
        assert server.got == ["online", "pressed"]
        gateway.publish("$oc/devices/x/sys/events/up", ["own"])  # `#` alone would not bring it to the server
        server.publish("devices/sos-0002/command", ["not yours"])
        server.publish(f"devices/{DEVICE}/command", ["help is coming"])
        until(lambda: bool(device.got), "the command did not arrive")
        until(lambda: "own" in server.got, "a topic with $ did not arrive")
        # The device subscribed twice to its own topic; what it may not read never came.
        assert set(device.got) == {"help is coming"}
    finally:
        for client in (server, device, gateway):
            client.leave()


@pytest.mark.mosquitto
def test_a_long_outage_loses_nothing_also_over_a_restart_of_the_broker(broker: Mosquitto) -> None:
    topic = f"devices/{DEVICE}/event"
    Client(broker, SERVER, SERVER_PASSWORD).subscribe("devices/+/event").leave()

    device = Client(broker, DEVICE, PASSWORD)
    first = [f"first-{number}" for number in range(PILE)]
    device.publish(topic, first)
    server = Client(broker, SERVER, SERVER_PASSWORD)
    assert server.session_present
    until(lambda: len(server.got) >= PILE, "after the outage there were only", lambda: len(server.got))
    assert server.got == first
    server.leave()

    second = [f"second-{number}" for number in range(PILE)]
    device.publish(topic, second)
    device.leave()
    broker.stop()
    broker.start()
    server = Client(broker, SERVER, SERVER_PASSWORD)
    assert server.session_present
    until(lambda: len(server.got) >= PILE, "after the restart there were only", lambda: len(server.got))
    assert server.got == second
    server.leave()


@pytest.mark.mosquitto
def test_a_killed_broker_keeps_what_it_wrote_at_its_last_save(broker: Mosquitto) -> None:
    Client(broker, SERVER, SERVER_PASSWORD).subscribe("devices/+/event").leave()
    device = Client(broker, DEVICE, PASSWORD)
    device.publish(f"devices/{DEVICE}/event", [f"{number}" for number in range(PILE)])
    device.leave()
    assert broker.process is not None
    broker.process.send_signal(signal.SIGUSR1)  # save now; by itself every autosave_interval seconds
    size = PILE * len(f"devices/{DEVICE}/event")
    saved = broker.folder / "data" / "mosquitto.db"
    until(lambda: saved.exists() and saved.stat().st_size > size, "mosquitto did not save")
    broker.stop(signal.SIGKILL)
    broker.start()
    server = Client(broker, SERVER, SERVER_PASSWORD)
    until(lambda: len(server.got) >= PILE, "after the kill there were only", lambda: len(server.got))
    server.leave()
