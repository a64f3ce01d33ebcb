"""Addresses in their one spelling, and which of them may be reached at all."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from yarl import URL

from data.download.fetch_errors import FetchError


class BlockedAddressError(OSError):
    """A socket was to be opened to an address that is not public."""


def normalise(text: str) -> URL:
    """An address in its one spelling: percent-encoded, without fragment.

    Raises:
        FetchError: ``bad_url``, for what is not a plain http or https address.
    """
    try:
        url = URL(text.strip())
        host, port = url.host, url.port
        if host and not host.strip("0123456789abcdefABCDEFxX."):
            url = url.with_host(_dotted(host))
    except Exception as error:  # yarl raises ValueError, and for some hosts IndexError
        raise FetchError("bad_url", str(error)) from error
    if url.scheme not in {"http", "https"}:
        raise FetchError("bad_url", f"the scheme is {url.scheme!r}")
    if not host or not port:
        raise FetchError("bad_url", "no host or a port of 0")
    if url.user is not None or url.password is not None:
        raise FetchError("bad_url", "it holds a user name")
    return URL(str(url.with_fragment(None)), encoded=True)


def as_sent(place: str) -> str:
    """A header's address whose bytes are not UTF-8, with those bytes percent-encoded.

    That is what browsers ask for after a Latin-1 ``Location``, and what servers then know.
    """
    if place.isascii() or not any("\udc80" <= c <= "\udcff" for c in place):
        return place
    data = place.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if b < 0x80 else f"%{b:02X}" for b in data)


def _dotted(host: str) -> str:
    """A decimal, octal or hexadecimal IPv4 address as four numbers; any other host as it is."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def is_public(
    address: str, allowed: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    """Whether a numeric address is one of the public Internet, or is allowed by name."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner:
            return is_public(str(inner), allowed)
    if any(ip in network for network in allowed):
        return True
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)  # NAT64's are reserved
