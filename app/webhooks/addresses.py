"""Where a subscriber may live. Stricter than for a contact's own webhook: a front end has https and a name.

What is refused here is refused again when the connection is made (`notify/channels/_http.py`): a name may show another
address by then.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from app.errors import InvalidInput
from app.notify.channels._addresses import http_url
from app.notify.channels._http import GuardedResolver, PrivateAddress

Resolvers = Callable[[], AbstractResolver]
_RESOLVE_S = 2.0
_FIELD = "url"
# Ports above the system's own on which something else than a front end listens (from the Fetch standard's list of bad
# ports) would let a stranger speak to it by way of us.
_OTHER_SERVICES = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)
_INSIDE = (".localhost", ".local", ".internal", ".intranet", ".lan", ".localdomain", ".home.arpa")


async def check(text: str, *, allow_private: bool, resolver: Resolvers = aiohttp.DefaultResolver) -> str:
    """The address in its normal form. Raises `InvalidInput` that says what a good one looks like.

    A name that resolves to nothing but private addresses is refused; one that does not resolve (yet) is not.
    """
    try:
        url = http_url(text, allow_private=allow_private)
    except InvalidInput as error:
        raise InvalidInput(error.detail, field=_FIELD) from None
    if not allow_private:
        _must_look_public(url)
        await _must_not_lead_inside(url, resolver)
    return str(url)


def _must_look_public(url: URL) -> None:
    if url.scheme != "https":
        raise InvalidInput("a webhook address is https://: what is sent is about people", field=_FIELD)
    host = (url.host or "").rstrip(".").lower()
    if not _is_address(host):
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]):
            raise InvalidInput("write an address in figures in its usual form, like 203.0.113.7", field=_FIELD)
        if "." not in host or ("." + host).endswith(_INSIDE):
            raise InvalidInput(
                "the host's name is one of a private network, which this server does not call", field=_FIELD
            )
    port = url.port or 0
    if port != 443 and (port < 1024 or port in _OTHER_SERVICES):
        raise InvalidInput("the port is 443 or one above 1023 that belongs to no other service", field=_FIELD)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _must_not_lead_inside(url: URL, resolver: Resolvers) -> None:
    host = url.raw_host or ""
    if _is_address(host):
        return
    guarded = GuardedResolver(resolver())
    try:
        async with asyncio.timeout(_RESOLVE_S):
            await guarded.resolve(host, url.port or 443)
    except PrivateAddress:
        raise InvalidInput(
            "the host's name leads into a private network, which this server does not call", field=_FIELD
        ) from None
    except (OSError, TimeoutError):
        pass
    finally:
        await guarded.close()
