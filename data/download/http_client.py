"""Fetches one address of a data set. Addresses and what answers them are hostile.

Redirects are followed by hand, so that each hop is checked like the first; the address that a
socket is opened to is checked, so no name, odd notation or redirect leads inside; bodies are never
inflated and never read past a cap; and one deadline holds for all of it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar
from urllib.robotparser import RobotFileParser

import aiohttp
from yarl import URL

from data.download.settings import HttpLimits

Used = TypeVar("Used")
AGENT = "gill-pipeline"
OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex", "noml", "none"}
TRANSIENT = {
    "timeout", "short_body", "net_dns", "net_reset", "host_paused", "robots_unreachable",
    "http_408", "http_429", "http_500", "http_502", "http_503", "http_504",
}  # fmt: skip
_BLOCKED = "blocked address"
_REDIRECTS = {301, 302, 303, 307, 308}
_ROBOTS_BYTES = 500 << 10  # RFC 9309, 2.5
_ORIGINS = 4096  # whose robots.txt is remembered


class FetchError(Exception):
    """Why there is no image: a counted reason, a detail, and when to come back, if known."""

    def __init__(self, reason: str, detail: str = "", retry_at: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.retry_at = reason, detail[:300], retry_at


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


def opts_out(tags: Sequence[str]) -> str | None:
    """The directive of X-Robots-Tag headers that keeps an image out, if one does.

    A directive may be for one agent by name (``otherbot: noindex``); those for others are left out.
    """
    for tag in tags:
        agent, colon, rest = tag.partition(":")
        if colon and agent.strip().lower() not in OPT_OUT | {AGENT, "*", "unavailable_after"}:
            continue
        named = rest if colon and agent.strip().lower() in {AGENT, "*"} else tag
        for directive in named.split(","):
            if directive.strip().lower() in OPT_OUT:
                return directive.strip().lower()
    return None


def robots_rules(text: str) -> RobotFileParser:
    """The rules of a robots.txt. A line that cannot be parsed is left out (RFC 9309, 2.2)."""
    lines = text.splitlines()
    try:
        return _parsed(lines)
    except ValueError:
        return _parsed([line for line in lines if _parses(line)])


def _parsed(lines: Sequence[str]) -> RobotFileParser:
    rules = RobotFileParser()
    rules.parse(lines)
    return rules


def _parses(line: str) -> bool:
    try:
        _parsed(["User-agent: *", line])
    except ValueError:
        return False
    return True


class HttpClient:
    """One process's way to the web: a connection pool, one TLS context, host limits, robots.txt."""

    def __init__(self, limits: HttpLimits, in_flight: int) -> None:
        self.limits = limits
        self._allowed = [ipaddress.ip_network(n) for n in limits.allowed_networks]
        self._agent = f"{AGENT}/0.1 (+{limits.contact})"
        self._hosts: dict[str, tuple[asyncio.Semaphore, Counter[str]]] = {}
        self._slots = asyncio.Semaphore(in_flight)
        self._paused: dict[str, float] = {}
        self._robots: OrderedDict[URL, asyncio.Task[RobotFileParser | None]] = OrderedDict()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,  # the slots bound it; idle connections of hosts that do not come again go soon
            keepalive_timeout=4,
            ttl_dns_cache=600,
            ssl=ssl.create_default_context(),  # made once: loading the CA store takes 20 ms
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._agent, "Accept": "image/*,*/*;q=0.5",
                     "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=16 << 10,
            max_field_size=16 << 10,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._robots.values():
            task.cancel()
        await self._session.close()

    def _socket(self, found: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = found
        if not is_public(address[0], self._allowed):
            raise BlockedAddressError(errno.EPERM, f"{_BLOCKED} {address[0]}")
        return socket.socket(family, kind, protocol)

    async def fetch(self, text: str, use: Callable[[bytes], Awaitable[Used]]) -> Used:
        """What ``use`` makes of the body that an address leads to.

        The slot is kept meanwhile, so bodies cannot pile up before a slow consumer.

        Raises:
            FetchError: there is none; its reason is one of docs/how-to/your-own-data.md.
        """
        url = normalise(text)
        host = url.host or ""
        async with self._turn(host), self._slots:
            if self._paused.get(host, 0.0) > time.time():
                raise FetchError("host_paused", host, self._paused[host])
            try:
                async with asyncio.timeout(self.limits.deadline):
                    body = await self._follow(url)
            except TimeoutError:
                raise FetchError("timeout", f"{self.limits.deadline:g} s") from None
            return await use(body)

    @asynccontextmanager
    async def _turn(self, host: str) -> AsyncIterator[None]:
        """Wait for a host; nothing is kept of a host that nobody waits for."""
        turn, users = self._hosts.setdefault(
            host, (asyncio.Semaphore(self.limits.per_host), Counter())
        )
        users["now"] += 1
        try:
            async with turn:
                yield
        finally:
            users["now"] -= 1
            if not users["now"]:
                del self._hosts[host]

    async def _follow(self, url: URL) -> bytes:
        seen: list[URL] = []
        while True:
            if url in seen or len(seen) > self.limits.redirects:
                raise FetchError("too_many_redirects", f"{len(seen)}, the last to {url}")
            seen.append(url)
            if self.limits.robots and not await self._may_fetch(url):
                raise FetchError("opt_out", f"robots.txt of {url.origin()}")
            answer = await self._get(url, self.limits.largest_bytes)
            if isinstance(answer, bytes):
                return answer
            url = answer

    async def _get(self, url: URL, cap: int) -> bytes | URL:
        """The body of one hop, or where it redirects to."""
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    return self._target(url, response.headers)
                if response.status != 200:
                    raise self._status(url, response.status, response.headers)
                tags = response.headers.getall("X-Robots-Tag", [])
                if self.limits.opt_out and (directive := opts_out(tags)):
                    raise FetchError("opt_out", f"X-Robots-Tag: {directive}")
                coding = response.headers.get("Content-Encoding", "identity").lower()
                if coding not in {"identity", ""}:
                    raise FetchError("content_encoding", coding)
                length = response.content_length
                if length is not None and length > cap:
                    raise FetchError("too_large", f"{length} bytes")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > cap:
                        raise FetchError("too_large", f"more than {cap} bytes")
                return bytes(body)
        except aiohttp.ClientError as error:
            raise _network(error) from error
        except ConnectionError as error:
            raise FetchError("net_reset", str(error)) from error
        except ValueError as error:  # a host that has no ASCII form, found only when it is resolved
            raise FetchError("bad_url", str(error)) from error

    @staticmethod
    def _target(url: URL, headers: Mapping[str, str]) -> URL:
        place = headers.get("Location")
        if not place:
            raise FetchError("bad_redirect", "no Location")
        try:
            return normalise(str(url.join(URL(place))))
        except ValueError as error:
            raise FetchError("bad_url", f"redirect to {place}: {error}") from error

    def _status(self, url: URL, status: int, headers: Mapping[str, str]) -> FetchError:
        retry_at = 0.0
        if status in {429, 503} and (after := headers.get("Retry-After")):
            retry_at = time.time() + min(_seconds(after), self.limits.longest_pause)
            self._paused[url.host or ""] = retry_at
        return FetchError(f"http_{status}", str(url), retry_at)

    async def _may_fetch(self, url: URL) -> bool:
        origin = url.origin()
        if origin not in self._robots:
            task = asyncio.create_task(self._read_robots(origin))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # may be unawaited
            self._robots[origin] = task
            if len(self._robots) > _ORIGINS:
                self._robots.popitem(last=False)
        # Shielded: the deadline of one image must not cancel what others wait for.
        self._robots.move_to_end(origin)
        rules = await asyncio.shield(self._robots[origin])
        return rules is None or rules.can_fetch(AGENT, str(url))

    async def _read_robots(self, origin: URL) -> RobotFileParser | None:
        """The rules of a host. RFC 9309: no such file allows all, an ailing server nothing."""
        url = origin / "robots.txt"
        try:
            async with asyncio.timeout(self.limits.deadline):
                for _ in range(self.limits.redirects + 1):
                    answer = await self._get(url, _ROBOTS_BYTES)
                    if isinstance(answer, bytes):
                        return robots_rules(answer.decode("utf-8", "replace"))
                    url = answer
        except TimeoutError:
            raise FetchError("robots_unreachable", f"{origin}: timeout") from None
        except FetchError as error:
            if error.reason.startswith("http_5") or error.reason == "http_429":
                raise FetchError("robots_unreachable", str(error), error.retry_at) from error
            if error.reason.startswith(("net_", "blocked")):
                raise
        return None


_NETWORK = (  # what stands for an error of aiohttp, the most telling first
    (aiohttp.ClientConnectorDNSError, "net_dns"),
    (aiohttp.ClientSSLError, "net_tls"),  # certificates too
    (aiohttp.ClientConnectorError, "net_refused"),
    (aiohttp.ClientPayloadError, "short_body"),
    (aiohttp.InvalidURL, "bad_url"),
    (aiohttp.ClientResponseError, "bad_http"),
    (aiohttp.ClientError, "net_reset"),
)


def _network(error: aiohttp.ClientError) -> FetchError:
    text = " ".join(str(error).split()) or type(error).__name__
    if _BLOCKED in text:  # several addresses of a host are tried, and their errors joined
        return FetchError("blocked_address", text)
    return FetchError(next(reason for kind, reason in _NETWORK if isinstance(error, kind)), text)


def _seconds(after: str) -> float:
    """Retry-After as seconds from now: a number or a date; 0 for what is neither."""
    try:
        if after.strip().isdigit():
            return float(after)
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
