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
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from data.download.addresses import BlockedAddressError, as_sent, is_public, normalise
from data.download.fetch_errors import BLOCKED, FetchError, network_error, retry_seconds
from data.download.opt_out import AGENT, Robots, opts_out
from data.download.settings import HttpLimits

Used = TypeVar("Used")
_REDIRECTS = {301, 302, 303, 307, 308}


class HttpClient:
    """One process's way to the web: a connection pool, one TLS context, host limits, robots.txt."""

    def __init__(self, limits: HttpLimits, in_flight: int) -> None:
        self.limits = limits
        self._allowed = [ipaddress.ip_network(n) for n in limits.allowed_networks]
        self._agent = f"{AGENT}/0.1 (+{limits.contact})"
        self._hosts: dict[str, tuple[asyncio.Semaphore, Counter[str]]] = {}
        self._slots = asyncio.Semaphore(in_flight)
        self._paused: dict[str, float] = {}
        self._robots = Robots(limits, self._get)

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
        self._robots.close()
        await self._session.close()

    def _socket(self, found: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = found
        if not is_public(address[0], self._allowed):
            raise BlockedAddressError(errno.EPERM, f"{BLOCKED} {address[0]}")
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
            if self.limits.robots and not await self._robots.allow(url):
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
            raise network_error(error) from error
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
            return normalise(str(url.join(URL(as_sent(place)))))
        except ValueError as error:
            raise FetchError("bad_url", f"redirect to {place}: {error}") from error

    def _status(self, url: URL, status: int, headers: Mapping[str, str]) -> FetchError:
        retry_at = 0.0
        if status in {429, 503} and (after := headers.get("Retry-After")):
            retry_at = time.time() + min(retry_seconds(after), self.limits.longest_pause)
            self._paused[url.host or ""] = retry_at
        return FetchError(f"http_{status}", str(url), retry_at)
