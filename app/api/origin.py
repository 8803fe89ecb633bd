"""Where a request came from. `X-Forwarded-For` counts only as far as proxies we trust wrote it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from fastapi import Request

from app.access.principal import Origin
from app.settings import Network

_MOST_HOPS = 20
_AGENT_CHARS = 200


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address of the client. `forwarded` are the values of X-Forwarded-For, nearest last.

    Each proxy appends whom it spoke with; so from the right, the first address that is no trusted proxy is the client.
    What stands further left the client may have written itself. Without trusted proxies the header means nothing.
    """
    address = _plain(peer)
    if not trusted or not _in(address, trusted):
        return address
    hops = [hop.strip() for value in forwarded for hop in value.split(",") if hop.strip()]
    for hop in reversed(hops[-_MOST_HOPS:]):
        found = _plain(hop)
        if not found:
            return address  # not an address: what wrote it is not understood, so the proxy itself stands for it
        address = found
        if not _in(address, trusted):
            return address
    return address


def _plain(text: str) -> str:
    """An address without port, brackets, zone; empty when it is none."""
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        ip = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip)


def _in(address: str, networks: Sequence[Network]) -> bool:
    if not address:
        return False
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in networks)


def origin_of(request: Request, trusted: Sequence[Network]) -> Origin:
    """For the limits of log-in and the audit log."""
    peer = request.client.host if request.client else ""
    agent = request.headers.get("user-agent", "")
    return Origin(
        address=client_address(peer, request.headers.getlist("x-forwarded-for"), trusted),
        user_agent="".join(char if char.isprintable() else "?" for char in agent[:_AGENT_CHARS]),
        request_id=getattr(request.state, "request_id", ""),
    )
