"""E-mail over SMTP (RFC 5321): the title is the subject, the text the body."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parseaddr
from urllib.parse import unquote, urlsplit

import aiosmtplib

from app.errors import ChannelNotConfigured, InvalidInput
from app.notify.channel import GiveUp, Letter, Outcome, Sent, TryAgain
from app.notify.channels._failures import never_raises
from app.notify.vocabulary import ChannelKind
from app.settings import Settings

TIMEOUT_S = 5.0  # for each step of the conversation; the whole of it has three times as long
_LONGEST = 254  # RFC 5321, 4.5.3.1.3
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class _Server:
    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None = field(repr=False)
    sender: str


class Email:
    """`smtp://` talks plainly, `smtp+starttls://` upgrades or gives up, `smtps://` begins with TLS."""

    kind = ChannelKind.EMAIL

    def __init__(self, settings: Settings, *, timeout_s: float = TIMEOUT_S) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None

    def check_address(self, address: str) -> str:
        self._server()
        address = address.strip()
        if len(address) > _LONGEST or not _ADDRESS.fullmatch(address):
            raise InvalidInput("an e-mail address looks like name@example.org", field="address")
        local, _, domain = address.rpartition("@")
        return f"{local}@{domain.lower()}"

    @never_raises
    async def send(self, letter: Letter) -> Outcome:
        """A 5xx reply is for good; a 4xx reply and a network that fails are worth another try."""
        try:
            server = self._server()
        except ChannelNotConfigured as error:
            return GiveUp(error.detail)
        try:
            async with asyncio.timeout(3 * self._timeout_s):
                await self._deliver(server, letter)
        except aiosmtplib.SMTPRecipientsRefused as refused:
            return _by_code(refused.recipients[0].code)
        except aiosmtplib.SMTPResponseException as reply:
            return _by_code(reply.code)
        except TimeoutError:
            return TryAgain("the mail server did not answer in time")
        except OSError as error:
            return TryAgain(f"the mail server is out of reach: {type(error).__name__}")
        except aiosmtplib.SMTPException:
            # What is left of the library's errors: the server lacks an extension.
            return GiveUp("the mail server does not offer what SHOUWANG_SMTP_URL asks for (STARTTLS or log-in)")
        return Sent()

    async def _deliver(self, server: _Server, letter: Letter) -> None:
        if server.scheme != "smtp" and self._tls is None:
            self._tls = ssl.create_default_context()  # reading the certificates takes tens of milliseconds: once
        domain = server.sender.rpartition("@")[2]
        message = EmailMessage()
        message["From"] = self._settings.smtp_from
        message["To"] = letter.address
        message["Subject"] = " ".join(letter.title.split())
        message["Date"] = letter.composed_at
        message["Message-ID"] = f"<{letter.notice_id}@{domain}>"  # the same over attempts: mailboxes drop a repeat
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday replies
        message.set_content(letter.text)
        await aiosmtplib.send(
            message,
            sender=server.sender,
            recipients=[letter.address],
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            local_hostname=domain,
            timeout=self._timeout_s,
            use_tls=server.scheme == "smtps",
            start_tls=server.scheme == "smtp+starttls",
            tls_context=self._tls,
        )

    def _server(self) -> _Server:
        """Raises `ChannelNotConfigured`."""
        text = self._settings.smtp_url.get_secret_value()
        if not text or not self._settings.smtp_from:
            raise ChannelNotConfigured("e-mail needs the settings SHOUWANG_SMTP_URL and SHOUWANG_SMTP_FROM")
        try:
            url = urlsplit(text)
            port = url.port or _PORTS[url.scheme]
            host = url.hostname or ""
        except (ValueError, KeyError):
            host = ""
        if not host:
            raise ChannelNotConfigured(
                "SHOUWANG_SMTP_URL must look like smtps://user:password@host:465 (or smtp+starttls://, or smtp://)"
            )
        sender = parseaddr(self._settings.smtp_from)[1]
        if not _ADDRESS.fullmatch(sender):
            raise ChannelNotConfigured("SHOUWANG_SMTP_FROM must hold an e-mail address, for example alarm@example.org")
        user = unquote(url.username) if url.username else None
        password = unquote(url.password) if url.password else None
        return _Server(url.scheme, host, port, user, password, sender)

    async def close(self) -> None:
        """Nothing is kept open between letters."""


def _by_code(code: int) -> Outcome:
    why = f"the mail server answered {code}"
    return GiveUp(why) if 500 <= code < 600 else TryAgain(why)
