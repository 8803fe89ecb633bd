"""Group robots of WeCom, DingTalk and Feishu: one text message into a chat group.

Each answers HTTP 200 also when it refuses: what counts is the code in the body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from yarl import URL

from app.errors import InvalidInput
from app.notify.channel import GiveUp, Letter, Outcome, Sent, TryAgain
from app.notify.channels._addresses import http_url
from app.notify.channels._failures import never_raises, said
from app.notify.channels._http import Answer, Http, by_status
from app.notify.vocabulary import ChannelKind

_HEADERS = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "shouwang"}
_CALM_DOWN_S = 10.0  # limits are counted by the minute, and none of the three says how long to wait
# The providers add codes now and then; their words for "slow down" stay.
_TOO_FAST = re.compile(r"frequen(cy|t)|too many request|too fast|rate.?limit", re.IGNORECASE)


class GroupRobot(ABC):
    """What the three have in common. The address is the robot's own URL, which holds its key."""

    kind: ChannelKind
    hosts: ClassVar[tuple[str, ...]]
    path: ClassVar[str]
    example: ClassVar[str]
    busy: ClassVar[frozenset[int]]  # rate limits and a busy system; every other code is a refusal
    longest: ClassVar[int]  # bytes of text

    def __init__(self, http: Http, *, any_host: bool) -> None:
        self._http = http
        self._any_host = any_host

    def check_address(self, address: str) -> str:
        url = http_url(address, allow_private=self._any_host)
        ours = url.scheme == "https" and url.host in self.hosts and url.is_default_port()
        if not (ours or self._any_host) or not url.path.startswith(self.path):
            raise InvalidInput(f"the address of this robot looks like {self.example}", field="address")
        return str(url)

    @abstractmethod
    def request(self, letter: Letter, text: str) -> tuple[URL, dict[str, Any]]:
        """Where to POST, and what."""

    def result(self, answer: Mapping[str, Any]) -> tuple[object, object]:
        """The code and the message of an answer."""
        return answer.get("errcode"), answer.get("errmsg")

    @never_raises
    async def send(self, letter: Letter) -> Outcome:
        url, body = self.request(letter, _fit(f"{letter.title}\n{letter.text}", self.longest))
        answer = await self._http.post(url, msgspec.json.encode(body), _HEADERS)
        return self._outcome(answer, letter) if isinstance(answer, Answer) else answer

    def _outcome(self, answer: Answer, letter: Letter) -> Outcome:
        status = by_status(answer)
        code, message = self._read(answer.body)
        if code is None:
            return TryAgain("the robot's answer is not readable") if isinstance(status, Sent) else status
        if code == 0 and isinstance(status, Sent):
            return Sent()
        url = URL(letter.address)
        message = said(message, letter.address, letter.secret, url.name, *url.query.values())
        why = f"code {code}: {message}" if message else f"code {code}"
        if code in self.busy or _TOO_FAST.search(message):
            return TryAgain(why, answer.retry_after_s or _CALM_DOWN_S)
        return GiveUp(why) if isinstance(status, Sent) else status

    def _read(self, body: bytes) -> tuple[int | None, object]:
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None, None
        code, message = self.result(answer) if isinstance(answer, dict) else (None, None)
        return (code, message) if isinstance(code, int) else (None, None)

    async def close(self) -> None:
        await self._http.close()


class WeCom(GroupRobot):
    """https://developer.work.weixin.qq.com/document/path/91770 and, for the codes, path/90313."""

    kind = ChannelKind.WECOM
    hosts = ("qyapi.weixin.qq.com",)
    path = "/cgi-bin/webhook/send"
    example = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=…"
    busy = frozenset({-1, 45009, 45033})  # busy; 20 messages a minute; too many at once
    longest = 2048

    def request(self, letter: Letter, text: str) -> tuple[URL, dict[str, Any]]:
        return URL(letter.address), {"msgtype": "text", "text": {"content": text}}


class DingTalk(GroupRobot):
    """https://open.dingtalk.com/document/robots/custom-robot-access and, for the secret,
    …/robots/customize-robot-security-settings: HMAC-SHA256 of "time\\nsecret" in the query."""

    kind = ChannelKind.DINGTALK
    hosts = ("oapi.dingtalk.com",)
    path = "/robot/send"
    example = "https://oapi.dingtalk.com/robot/send?access_token=…"
    busy = frozenset({-1, 130101, 130102, 130103, 410100})  # busy; 20 messages a minute, after which it pauses
    longest = 18_000

    def request(self, letter: Letter, text: str) -> tuple[URL, dict[str, Any]]:
        url = URL(letter.address)
        if letter.secret:
            millis = str(int(letter.composed_at.timestamp() * 1000))
            sign = _hmac(letter.secret, f"{millis}\n{letter.secret}")
            url = url.update_query({"timestamp": millis, "sign": sign})
        return url, {"msgtype": "text", "text": {"content": text}}


class Feishu(GroupRobot):
    """https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot: with a secret, the HMAC-SHA256 of nothing
    under the key "time\\nsecret" goes into the body. Older robots answer StatusCode instead of code."""

    kind = ChannelKind.FEISHU
    hosts = ("open.feishu.cn", "open.larksuite.com")
    path = "/open-apis/bot/"
    example = "https://open.feishu.cn/open-apis/bot/v2/hook/…"
    busy = frozenset({-1, 11232, 11233})  # 100 messages a minute, 5 a second
    longest = 18_000

    def request(self, letter: Letter, text: str) -> tuple[URL, dict[str, Any]]:
        body: dict[str, Any] = {"msg_type": "text", "content": {"text": text}}
        if letter.secret:
            seconds = str(int(letter.composed_at.timestamp()))
            body |= {"timestamp": seconds, "sign": _hmac(f"{seconds}\n{letter.secret}", "")}
        return URL(letter.address), body

    def result(self, answer: Mapping[str, Any]) -> tuple[object, object]:
        if "code" in answer:
            return answer["code"], answer.get("msg")
        return answer.get("StatusCode"), answer.get("StatusMessage")


def _hmac(key: str, message: str) -> str:
    return base64.b64encode(hmac.digest(key.encode(), message.encode(), hashlib.sha256)).decode()


def _fit(text: str, longest: int) -> str:
    """At most `longest` bytes. The end stays whole, for there stands the link; the middle goes."""
    raw = text.encode()
    if len(raw) <= longest:
        return text
    tail = raw[-longest // 2 :].decode(errors="ignore")
    head = raw[: longest - len(tail.encode()) - len("…".encode())].decode(errors="ignore")
    return f"{head}…{tail}"
