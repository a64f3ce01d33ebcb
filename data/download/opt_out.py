"""What the owners of images ask of robots: robots.txt and the X-Robots-Tag of an answer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from urllib.robotparser import RobotFileParser

from yarl import URL

from data.download.fetch_errors import FetchError
from data.download.settings import HttpLimits

AGENT = "gill-pipeline"
OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex", "noml", "none"}
_ROBOTS_BYTES = 500 << 10  # RFC 9309, 2.5
_ORIGINS = 4096  # whose robots.txt is remembered


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
    """The rules of a robots.txt.

    A byte order mark is no part of the first line, and a line that cannot be parsed is left out
    (RFC 9309, 2.2 and 2.3).
    """
    lines = text.lstrip("\ufeff").splitlines()
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


class Robots:
    """The robots.txt of each host, read once.

    Args:
        get: fetches one hop, at most so many bytes: the body, or where it redirects to.
    """

    def __init__(
        self, limits: HttpLimits, get: Callable[[URL, int], Awaitable[bytes | URL]]
    ) -> None:
        self._limits, self._get = limits, get
        self._known: OrderedDict[URL, asyncio.Task[RobotFileParser | None]] = OrderedDict()

    def close(self) -> None:
        """Let go of what is still being read."""
        for task in self._known.values():
            task.cancel()

    async def allow(self, url: URL) -> bool:
        """Whether this agent may fetch an address.

        Raises:
            FetchError: its host is ailing.
        """
        origin = url.origin()
        if origin not in self._known:
            task = asyncio.create_task(self._read(origin))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # may be unawaited
            self._known[origin] = task
            if len(self._known) > _ORIGINS:
                self._known.popitem(last=False)
        # Shielded: the deadline of one image must not cancel what others wait for.
        self._known.move_to_end(origin)
        rules = await asyncio.shield(self._known[origin])
        return rules is None or rules.can_fetch(AGENT, str(url))

    async def _read(self, origin: URL) -> RobotFileParser | None:
        """The rules of a host. RFC 9309: no such file allows all, an ailing server nothing."""
        url = origin / "robots.txt"
        try:
            async with asyncio.timeout(self._limits.deadline):
                for _ in range(self._limits.redirects + 1):
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
