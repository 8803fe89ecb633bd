"""Which network addresses an outgoing request may reach. A webhook URL is a stranger's input (OWASP: SSRF)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from yarl import URL

from app.errors import InvalidInput

LONGEST_URL = 2000
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
# Public by their numbers, but inside a cloud the addresses of its own management services.
_MANAGEMENT = (IPv4Network("168.63.129.16/32"), IPv4Network("192.0.0.0/24"))
_GOOD_URL = "a webhook address is an http:// or https:// URL with a host, without user name and password"


def is_private(host: str) -> bool:
    """Whether `host`, an address in figures, lies inside: private, loopback, link-local, shared, reserved, multicast,
    unspecified or a cloud's own service, also when it is an IPv4 address dressed as IPv6."""
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_private(str(inner))
        if address.is_site_local:
            return True
    if any(address in network for network in _MANAGEMENT):
        return True
    # `is_global` alone lets multicast and a part of the reserved ranges pass.
    return not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address a translator or tunnel would reach for this IPv6 address."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def is_private_literal(url: URL) -> bool:
    """Whether the URL names a private address in figures; a name is judged when it is resolved."""
    try:
        return is_private(url.host or "")
    except ValueError:
        return False


def http_url(text: str, *, allow_private: bool) -> URL:
    """The parsed URL. Raises `InvalidInput` that says what a good one looks like."""
    text = text.strip()
    if len(text) > LONGEST_URL:
        raise InvalidInput(f"the address is longer than {LONGEST_URL} characters", field="address")
    if any(not char.isprintable() or char.isspace() for char in text):
        raise InvalidInput(f"{_GOOD_URL}, without spaces", field="address")
    try:
        url = URL(text)
        whole = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        whole = False
    if not whole or url.user is not None or url.password is not None:
        raise InvalidInput(_GOOD_URL, field="address")
    if not allow_private and is_private_literal(url):
        raise InvalidInput("the address lies in a private network, which this server does not call", field="address")
    return url.with_fragment(None)
