"""Text messages and voice calls through Aliyun's SDK (the extra `shouwang[aliyun]`).

https://help.aliyun.com/document_detail/419273.html (SendSms) and …/393519.html (SingleCallByTts).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import re
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import msgspec
import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from app.errors import ChannelNotConfigured, InvalidInput
from app.notify.channel import GiveUp, Letter, Outcome, Sent, TryAgain
from app.notify.channels._failures import never_raises
from app.notify.vocabulary import ChannelKind
from app.settings import PREFIX, Settings

TIMEOUT_S = 5.0
_CHINA = 86
_LONGEST_VARIABLE = 35  # of a text message; a longer one is refused with isv.PARAM_LENGTH_LIMIT
_LONGEST_SPEECH = 249  # all variables of a call together stay below 250
_VOICE_OUT_ID = 15
_CODE = re.compile(r"[A-Za-z0-9._-]{1,60}")
# A limit by the day or month will not pass while an alarm waits: the next channel is better. The same holds for a
# variable that is too long and for missing rights.
_FOR_GOOD = re.compile(r"isv\.(DAY_LIMIT|MONTH_LIMIT|PARAM_)|isp\.RAM_")
_BUSY = re.compile(r"isv\.\w*LIMIT|isp\.|Throttling|ServiceUnavailable|InternalError|SignatureNonceUsed")


class Aliyun(ABC):
    """What both services have in common.

    The SDK's asyncio methods read the CA certificates from disk anew for each request (some 40 ms on the event loop)
    and keep no connection. Its plain methods keep both, so those run here, in a few threads of their own.
    """

    kind: ChannelKind
    package: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    landlines: ClassVar[bool]

    def __init__(self, settings: Settings, *, timeout_s: float = TIMEOUT_S) -> None:
        self._settings = settings
        self._millis = int(timeout_s * 1000)
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix=f"aliyun-{self.kind}")
        self._client: Any = None

    def check_address(self, address: str) -> str:
        self._check_ready()
        number = _parse(address)
        if number is None:
            raise InvalidInput("a phone number looks like 13800000000 or +8613800000000", field="address")
        if not self.landlines and phonenumbers.number_type(number) == PhoneNumberType.FIXED_LINE:
            raise InvalidInput("a text message needs a mobile number", field="address")
        return phonenumbers.format_number(number, PhoneNumberFormat.E164)

    @never_raises
    async def send(self, letter: Letter) -> Outcome:
        """Only code OK is sent; limits and a busy service are worth another try, other codes are not."""
        try:
            self._check_ready()
        except ChannelNotConfigured as error:
            return GiveUp(error.detail)
        if letter.digest and self.kind is ChannelKind.SMS and not self._settings.aliyun_sms_digest_template:
            return GiveUp(f"daily notices need the setting {PREFIX}ALIYUN_SMS_DIGEST_TEMPLATE")
        number = _parse(letter.address)
        if number is None:
            return GiveUp("the phone number is not valid")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._send, letter, _dialled(number))

    def _send(self, letter: Letter, number: str) -> Outcome:
        try:
            if self._client is None:
                self._client = self._make_client()
            body = self.call(self._client, letter, number)
        except Exception as error:  # noqa: BLE001 - the SDK raises bare exceptions whose texts repeat the request
            code, status = getattr(error, "code", None), getattr(error, "status_code", None)
            if not isinstance(code, str) or not isinstance(status, int):
                return TryAgain("the service did not answer, or not readably")
            return _by_code(code, status)
        if body is None or not isinstance(body.code, str):
            return TryAgain("the service's answer is not readable")
        return Sent(self.provider_id(body)) if body.code == "OK" else _by_code(body.code, 200)

    @abstractmethod
    def call(self, client: Any, letter: Letter, number: str) -> Any:
        """Send, in a thread; the body of the answer."""

    @abstractmethod
    def provider_id(self, body: Any) -> str | None: ...

    @abstractmethod
    def endpoint(self) -> str:
        """host[:port], with http:// in front for a test double."""

    def runtime(self) -> Any:
        """No repeats inside the SDK: the dispatcher repeats."""
        options = importlib.import_module("darabonba.runtime").RuntimeOptions
        return options(autoretry=False, connect_timeout=self._millis, read_timeout=self._millis)

    def models(self) -> Any:
        return importlib.import_module(f"{self.package}.models")

    def _make_client(self) -> Any:
        scheme, _, host = self.endpoint().rpartition("://")
        config = importlib.import_module("alibabacloud_tea_openapi.utils_models").Config(
            access_key_id=self._settings.aliyun_access_key_id,
            access_key_secret=self._settings.aliyun_access_key_secret.get_secret_value(),
            endpoint=host,
            protocol=scheme or "https",
        )
        return importlib.import_module(f"{self.package}.client").Client(config)

    def _check_ready(self) -> None:
        missing = [name for name in self.needs if not _plain(getattr(self._settings, name))]
        if missing:
            names = ", ".join(PREFIX + name.upper() for name in missing)
            raise ChannelNotConfigured(f"{self.kind} needs the settings {names}")
        if importlib.util.find_spec(self.package) is None:
            raise ChannelNotConfigured(f"{self.kind} needs Aliyun's SDK: install shouwang[aliyun]")

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Sms(Aliyun):
    """SendSms: the letter's short variables fill an approved template."""

    kind = ChannelKind.SMS
    package = "alibabacloud_dysmsapi20170525"
    needs = ("aliyun_access_key_id", "aliyun_access_key_secret", "aliyun_sms_sign_name", "aliyun_sms_template")
    landlines = False

    def call(self, client: Any, letter: Letter, number: str) -> Any:
        settings = self._settings
        request = self.models().SendSmsRequest(
            phone_numbers=number,
            sign_name=settings.aliyun_sms_sign_name,
            template_code=settings.aliyun_sms_digest_template if letter.digest else settings.aliyun_sms_template,
            template_param=_json({name: _cut(name, value) for name, value in letter.short.items()}),
            out_id=str(letter.notice_id),
        )
        return client.send_sms_with_options(request, self.runtime()).body

    def provider_id(self, body: Any) -> str | None:
        return body.biz_id or None

    def endpoint(self) -> str:
        return self._settings.aliyun_sms_endpoint


class Voice(Aliyun):
    """SingleCallByTts: a machine calls and reads an approved template, twice."""

    kind = ChannelKind.VOICE
    package = "alibabacloud_dyvmsapi20170525"
    needs = ("aliyun_access_key_id", "aliyun_access_key_secret", "aliyun_voice_template")
    landlines = True

    def call(self, client: Any, letter: Letter, number: str) -> Any:
        spoken = {name: value for name, value in letter.short.items() if "://" not in value}  # links are refused
        each = _LONGEST_SPEECH // max(len(spoken), 1)
        request = self.models().SingleCallByTtsRequest(
            called_number=number,
            called_show_number=self._settings.aliyun_voice_show_number or None,
            tts_code=self._settings.aliyun_voice_template,
            tts_param=_json({name: value[:each] for name, value in spoken.items()}),
            play_times=2,
            out_id=letter.notice_id.hex[-_VOICE_OUT_ID:],  # this service takes 15 bytes: the random end of the id
        )
        return client.single_call_by_tts_with_options(request, self.runtime()).body

    def provider_id(self, body: Any) -> str | None:
        return body.call_id or None

    def endpoint(self) -> str:
        return self._settings.aliyun_voice_endpoint


def _by_code(code: str, status: int) -> Outcome:
    why = f"code {code}" if _CODE.fullmatch(code) else f"status {status}"
    if _FOR_GOOD.match(code):
        return GiveUp(why)
    if _BUSY.match(code) or status >= 500 or status == 429:
        return TryAgain(why)
    return GiveUp(why)


def _parse(text: str) -> phonenumbers.PhoneNumber | None:
    try:
        number = phonenumbers.parse(text, "CN")
    except phonenumbers.NumberParseException:
        return None
    return number if phonenumbers.is_valid_number(number) else None


def _dialled(number: phonenumbers.PhoneNumber) -> str:
    """As both services want it: as dialled at home for a Chinese number, country code and number for others."""
    style = PhoneNumberFormat.NATIONAL if number.country_code == _CHINA else PhoneNumberFormat.E164
    return re.sub(r"\D", "", phonenumbers.format_number(number, style))


def _cut(name: str, value: str) -> str:
    if name == "link" or len(value) <= _LONGEST_VARIABLE:
        return value
    return value[: _LONGEST_VARIABLE - 1] + "…"


def _json(variables: dict[str, str]) -> str:
    return msgspec.json.encode(variables).decode()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else value.get_secret_value()
