"""A story with values that are nobody's, through every flow, the failing ones too; then every byte the server left behind is
searched for them: its log at the lowest level, metrics, problems, lists, each row, and the database's files and WAL."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.live import Live

pytest_plugins = ["tests.live"]


def forms(value: str) -> Iterator[bytes]:
    """How a value may lie somewhere: as text, in UTF-16, as hex, escaped in JSON or an address, in base64 wherever it
    begins."""
    raw = value.encode()
    yield from {
        raw,
        value.encode("utf-16-le"),
        raw.hex().encode(),
        json.dumps(value)[1:-1].encode(),
        quote(value).encode(),
    }
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw)
        inner = text[(4 if shift else 0) : len(text) - 4]  # what does not depend on the neighbours
        yield inner.replace(b"+", b"-").replace(b"/", b"_")
        yield inner


def search(content: bytes, needles: Iterable[str]) -> set[str]:
    """Which of the values the content holds, in any form."""
    return {needle for needle in needles if any(form in content for form in forms(needle))}


def left_behind(folder: Path) -> dict[str, bytes]:
    """Every file of the server's, but the keys themselves."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("data_key", "token_key"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.unit
@pytest.mark.parametrize("value", ["13977788899", "金丝雀胡同77号", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "abcd"])
def test_the_search_finds_what_is_there(value: str, before: str) -> None:
    text = f'{before}{{"v":"{value}"}}yz'
    plain = (
        text.encode(),
        text.encode("utf-16-le"),
        json.dumps(text).encode(),
        quote(text).encode(),
        text.encode().hex().encode(),
    )
    for content in (*plain, base64.b64encode(text.encode()), base64.urlsafe_b64encode(text.encode())):
        assert search(b"x" * 99 + content, [value]) == {value}
    assert search(b"nothing of it", [value]) == set()


@pytest.mark.xdist_group("live")
def test_no_byte_that_is_left_behind_tells_of_anybody(live: Live) -> None:
    village, mark = live.village(), uuid4().hex[:12]
    number, phone, address = live.id_number("19310207"), "13977788891", f"金丝雀胡同{mark}号"
    contact_phone, visitor_phone, family_phone = "13977788892", "13977788893", "13977788894"
    hook, mail, robot = f"canary-hook-{mark}", f"canary.{mark}@example.org", f"canary-robot-{mark}"
    password, wrong = f"canary-pass-{mark}", f"canary-wrong-{mark}"
    plain = f"对照{mark}"  # free text: this one must be found
    canaries = {number, phone, address, contact_phone, visitor_phone, family_phone, hook, mail, robot, password, wrong}
    said: list[str] = []  # answers that anybody may keep: problems, masked lists

    def heard(answer: Any) -> Any:
        said.append(answer.text)
        return answer

    def refused(answer: Any) -> None:
        assert 400 <= answer.status_code < 500, answer.text
        heard(answer)

    once = lambda: {"Idempotency-Key": uuid4().hex}  # noqa: E731
    body = {
        "name": "金",
        "id_number": number,
        "phone": phone,
        "address": address,
        "region_code": village,
        "remarks": plain,
    }
    elder = heard(live.admin.post("/elders", json=body, headers=once())).json()
    e = f"/elders/{elder['id']}"

    # bodies with the right values in the wrong places
    for wrong_body in (
        body, {**body, "id_number": number[:-1] + "?"}, {**body, "phone": phone * 9, "dementia": address},
        {**body, "birth_date": number, "tags": [address], "region_code": phone}, {**body, number: phone},
        {**body, "name": address + "\0"}, {"phone": {"phone": phone}, "address": [address]}, [number, phone], number,
    ):  # fmt: skip
        refused(live.admin.post("/elders", json=wrong_body))
    refused(live.admin.post("/elders", data=json.dumps(body)[:-1], headers={"content-type": "application/json"}))
    refused(live.admin.get("/elders", params={"tag": address, "cursor": phone}))
    refused(live.admin.get(f"/elders/{number}"))
    refused(live.admin.get(f"/elders/{address}/contacts/{phone}"))
    refused(live.admin.post("/elders/search", json={"id_number": number}))
    refused(live.admin.patch(e, json={"phone": phone, "ability": address, "status": phone}))

    # people around, and channels that work, fail and are not there
    channels = [{"kind": "webhook", "address": live.receiver.url(f"/broken/{hook}")},
                {"kind": "webhook", "address": f"http://127.0.0.1:9/{hook}"},
                {"kind": "webhook", "address": live.receiver.url(f"/{hook}")}]  # fmt: skip
    person = {"name": "女", "relation": "女儿", "phone": contact_phone}
    for kind, where in (
        ("email", mail),
        ("sms", contact_phone),
        ("wecom", f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={robot}"),
    ):
        heard(live.admin.post(f"{e}/contacts", json={**person, "channels": [{"kind": kind, "address": where}]}))
    refused(
        live.admin.post(
            f"{e}/contacts", json={**person, "channels": [{"kind": "webhook", "address": f"ftp://{hook}/"}]}
        )
    )
    made = live.admin.post(f"{e}/contacts", headers=once(), json={**person, "channels": channels}).json()
    secrets = {channel["secret"] for channel in made["channels"]}
    visitor = live.admin.post("/visitors", headers=once(), json={
        "name": "志", "region_code": village, "phone": visitor_phone, "channels": channels[:1]}).json()  # fmt: skip
    secrets.add(visitor["channels"][0]["secret"])
    live.admin.made(f"{e}/visitors", visitor_id=visitor["id"])
    heard(
        live.admin.post(f"{e}/family", headers=once(), json={"name": "儿", "relation": "儿子", "phone": family_phone})
    )

    # accounts, keys, devices, subscribers
    live.admin.made("/users", username=f"u-{mark}", password=password, role="supervisor", region_code=village)
    office = {"X-Forwarded-For": "192.0.2.77"}
    refused(live.anonymous.post("/auth/token", data={"username": f"u-{mark}", "password": wrong}, headers=office))
    refused(live.anonymous.post("/auth/token", data={"username": wrong, "password": password}, headers=office))
    tokens = live.anonymous.post(
        "/auth/token", data={"username": f"u-{mark}", "password": password}, headers=office
    ).json()
    secrets |= {tokens["access_token"], tokens["refresh_token"]}
    key = live.admin.post(
        "/api-keys", headers=once(), json={"name": "屏", "scopes": ["elders:read"], "region_code": village}
    ).json()
    secrets.add(key["key"])
    refused(live.anonymous.get("/elders", headers={"Authorization": f"Bearer {key['key']}x"}))
    button = live.device(elder)
    issued = live.admin.post(f"/devices/{button}/credentials", headers=once()).json()
    secrets.add(issued["password"])
    subscription = live.admin.post("/webhooks", headers=once(), json={
        "url": live.receiver.url(f"/broken/sub-{hook}"), "region_code": village}).json()  # fmt: skip
    secrets.add(subscription["secret"])
    refused(
        live.admin.post("/webhooks", json={"url": f"http://{mail}:{wrong}@127.0.0.1/{hook}", "event_types": [hook]})
    )

    # devices that say what they should not
    live.say(f"devices/{button}/event", json.dumps({"type": number, "phone": phone}).encode())
    live.say(f"devices/{button}/event", f'{{"type":"sos","phone":"{phone}",'.encode())
    live.say(f"devices/{button}/event", json.dumps({"type": "door", "state": address}, ensure_ascii=False).encode())
    live.say(f"devices/nobody-{mark}/event", json.dumps({"type": "sos", "from": phone, "at": address}).encode())
    live.say(f"devices/{button}/event", {"type": "sos", "id": "1"})

    # an alarm, answered by its link; everything seen as the desk sees it
    alarm = live.soon(lambda: live.admin.items("/alarms", elder_id=elder["id"]))[0]
    link = live.receiver.first(f"/{hook}")["data"]["ack_url"]
    secrets.add(link.rpartition("/")[2])
    live.anonymous.get(link)
    refused(live.anonymous.post(link, data={"action": phone, "outcome": address}))
    live.anonymous.post(link, data={"action": "resolve", "outcome": "test"})
    live.soon(lambda: len(live.admin.items("/rejected-messages", device_id=button)) == 3)
    operator = live.user("operator", village)
    writer = live.admin.made("/api-keys", name="册", scopes=["devices:write", "devices:read"], region_code=village)
    front = type(live.admin)(live.base, writer["key"])
    for api, path in (
        (operator, "/elders"), (operator, e), (operator, f"{e}/contacts"), (operator, f"{e}/family"), (operator, "/alarms"),
        (operator, f"{e}/timeline"), (operator, f"/visitors/{visitor['id']}"), (operator, f"/alarms/{alarm['id']}/timeline"),
        (operator, f"/alarms/{alarm['id']}/notifications"), (operator, f"/devices/{button}/events"),
        (front, "/rejected-messages"), (live.admin, "/users"), (live.admin, "/api-keys"),
        (live.admin, f"/webhooks/{subscription['id']}/deliveries"), (live.admin, f"/devices/{button}/credentials"),
    ):  # fmt: skip
        assert heard(api.get(path)).status_code == 200, path
    refused(operator.get(e, params={"reveal": "true", "purpose": phone}))

    # those with the right see it, and only they
    why = f"给 {phone} 回电,{mail}"
    assert live.admin.seen(e, reveal="true", purpose=why)["phone"] == "+86" + phone
    assert live.admin.seen(f"{e}/contacts", reveal="true", purpose=why)["items"][0]["phone"] == "+86" + contact_phone
    assert live.admin.get(f"{e}/export", params={"purpose": why}).status_code == 200
    assert live.admin.get(f"{e}/export", params={"purpose": why, "format": "html"}).status_code == 200
    said.append(json.dumps(live.admin.items("/audit-log", limit=200), ensure_ascii=False))
    said.append(live.anonymous.get(f"{live.base}/metrics").text)
    said.append(json.dumps([body for path, _, body in live.receiver.taken if "/sub-" in path], ensure_ascii=False))

    everything = canaries | secrets
    for text in said:
        assert search(text.encode(), everything) == set(), text[:300]
    tables = [
        row["table_name"]
        for row in live.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    ]
    assert len(tables) > 40
    seen_plain = False
    for table in tables:
        for (row,) in live.rows(f'SELECT t::text FROM "{table}" t'):
            assert search(row.encode(), everything) == set(), table
            seen_plain = seen_plain or plain in row
    assert seen_plain
    live.rows("CHECKPOINT")
    files = left_behind(live.folder)
    assert {"server.log"} < files.keys()
    assert any("pg_wal" in name for name in files)
    found = {name: hit for name, content in files.items() if (hit := search(content, everything))}
    assert found == {}
    where_plain = {name for name, content in files.items() if search(content, {plain})}
    assert any("pg_wal" in name for name in where_plain)  # the control: what is not sealed is found
    assert any("base" in name for name in where_plain)
