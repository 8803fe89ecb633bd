"""One outgoing HTTP client: never follows a redirect, never reaches a private network unless it may."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.notify.channel import GiveUp, Outcome, Sent, TryAgain
from app.notify.channels._addresses import is_private, is_private_literal

TIMEOUT_S = 5.0
LONGEST_WAIT_S = 60.0
_LONGEST_ANSWER = 64 * 1024
_TRY_AGAIN = frozenset({408, 425, 429})
_NO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_PRIVATE = "the address lies in a private network, which this server does not call"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: at most the first 64 KiB of it."""

    status: int
    retry_after_s: float | None
    body: bytes


class PrivateAddress(OSError):
    """The name resolves to nothing but private addresses."""


class GuardedResolver(AbstractResolver):
    """Drops private addresses from what `inner` finds. aiohttp connects to exactly the addresses that come out of
    here, so a name that shows another address the second time (DNS rebinding) gains nothing."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        public = [result for result in found if not is_private(result["host"])]
        if found and not public:
            raise PrivateAddress
        return public

    async def close(self) -> None:
        await self._inner.close()


class Http:
    """A lazily made client session; connections are kept and shared by everything the channel sends."""

    def __init__(
        self,
        *,
        allow_private: bool,
        timeout_s: float = TIMEOUT_S,
        resolver: Callable[[], AbstractResolver] = aiohttp.DefaultResolver,
    ) -> None:
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer | TryAgain | GiveUp:
        """POST once and read the answer; what keeps an answer from coming is the outcome."""
        if not self._allow_private and is_private_literal(url):
            return GiveUp(_PRIVATE)  # aiohttp asks no resolver about an address in figures
        try:
            try:
                return await self._post(url, body, headers)
            except aiohttp.ClientConnectionError as error:
                if not _kept_too_long(error):
                    raise
                return await self._post(url, body, headers)
        except aiohttp.InvalidURL:
            return GiveUp("the address is not a URL that can be called")
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, PrivateAddress):
                return GiveUp(_PRIVATE)
            return TryAgain("the name of the host does not resolve")
        except TimeoutError:
            return TryAgain(f"no answer within {self._timeout_s:g} s")
        except aiohttp.ClientSSLError:
            return TryAgain("the TLS connection was refused")
        except (aiohttp.ClientError, OSError) as error:
            return TryAgain(f"network error: {type(error).__name__}")

    async def _post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        session = self._session or self._open()
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            text = bytearray()
            # The status already says how it went; the body only has to be read to keep the connection.
            with suppress(aiohttp.ClientError, TimeoutError):
                while len(text) < _LONGEST_ANSWER and (chunk := await response.content.readany()):
                    text += chunk
            return Answer(response.status, _seconds(response.headers.get("Retry-After")), bytes(text))

    def _open(self) -> aiohttp.ClientSession:
        found = self._resolver()
        connector = aiohttp.TCPConnector(
            limit=0,  # the dispatcher has its own
            limit_per_host=200,  # of 400: one receiver that hangs leaves half for the others
            ttl_dns_cache=30,
            keepalive_timeout=2,  # shorter than what common servers keep, so that few close on our next request
            resolver=found if self._allow_private else GuardedResolver(found),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NO_HEADERS,
            auto_decompress=False,
            trust_env=False,
        )
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def by_status(answer: Answer) -> Outcome:
    """What an HTTP status means for a letter (RFC 9110)."""
    status = answer.status
    if 200 <= status < 300:
        return Sent()
    if 300 <= status < 400:
        return GiveUp(f"redirects are not followed (status {status})")
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        return GiveUp(f"status {status}")
    return TryAgain(f"status {status}", answer.retry_after_s)


def _seconds(value: str | None) -> float | None:
    """`Retry-After` in seconds; its date form is left to the dispatcher's own patience."""
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    return min(float(value), LONGEST_WAIT_S)


def _kept_too_long(error: aiohttp.ClientConnectionError) -> bool:
    """The other side closed a kept connection just as we used it: no reason to let an alarm wait for its next turn.

    Receivers know a repeat by the notice id."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    gone = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError)
    return gone or (isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE))
