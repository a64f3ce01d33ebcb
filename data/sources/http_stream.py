"""A file at an address of the web, read as one stream that outlives the network's errors.

fsspec and huggingface_hub find the files; the bytes are read here, since their streams do not
survive all that a server does: they take whatever answers a range for that range, a short body for
the end, and cannot go on where a server has no ranges (docs/decisions.md).

A connection that breaks is opened again where it was, with a range. What comes is held against the
last bytes that came before; where they differ, or there are no ranges, the file is read from its
beginning, and what came before must have the digest that it had. So no byte is lost, given twice or
taken from another version of the file.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any

import httpx
from fsspec.utils import infer_compression

from data.download.fetch_errors import retry_seconds
from data.sources.base import SourceError
from data.sources.http_version import Version, first_byte

log = logging.getLogger(__name__)
WAITS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0)  # seconds before each try after the first
_LONGEST_WAIT = 300.0  # seconds: a longer Retry-After is cut to it
_ASKED_ABOUT = 3  # tries at what a file is, before a run
_SILENCE = 60.0  # seconds without a byte end a try
_PROGRESS = 1 << 20  # bytes since the last break: what was in vain before is forgotten
_OVERLAP = 16 << 10  # bytes that are read twice when a stream goes on
_FOR_A_WHILE = {408, 425, 429, 500, 502, 503, 504}
_NO_HEAD = {403, 405, 501}


class StreamError(SourceError):
    """An address cannot be read on; says which, at which byte, and what to do."""


class _Interruption(Exception):
    """What broke a stream off, and for how many seconds the server wants to be left alone."""

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


class HttpStream(io.RawIOBase):
    """The bytes behind an address in their order, from the first to the last.

    Args:
        address: how messages name it. url: where it is. headers: of every request.

    Attributes:
        at: bytes that were read.
    """

    def __init__(self, address: str, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.at, self._tries = 0, 1 + len(WAITS)
        self._address, self._url = address, url
        self._headers = {**(headers or {}), "Accept-Encoding": "identity"}
        self._answer: httpx.Response | None = None
        self._blocks: Iterator[bytes] = iter(())
        self._version = Version()
        self._digest, self._tail, self._rest = hashlib.sha256(), b"", b""
        self._ranges, self._ended_at = True, -1
        self._vain, self._broke_at = 0, 0

    def readable(self) -> bool:
        """It is read, and not moved about in."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; 0 at the end and nowhere else.

        Raises:
            StreamError: the address cannot be read on.
        """
        room = memoryview(buffer).cast("B")
        block = self._rest or self._next()
        self._rest = block[len(room) :]
        given = min(len(room), len(block))
        room[:given] = block[:given]
        return given

    def version(self) -> Version:
        """What the server says of the file, without its bytes.

        Raises:
            StreamError: it says nothing.
        """
        self._tries = _ASKED_ABOUT
        while True:
            try:
                for method in ("HEAD", "GET"):
                    answer = self._send(method, {})
                    self._hang_up()
                    if method == "HEAD" and answer.status_code in _NO_HEAD:
                        continue
                    self._check_status(answer)
                    found = Version.of(answer)
                    if found.size is not None:
                        break
                return found
            except (httpx.HTTPError, _Interruption) as error:
                self._wait_after(error)

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            self._hang_up()
        super().close()

    def _next(self) -> bytes:
        """The next block, over as many connections as it takes; empty at the end."""
        while True:
            try:
                if self._answer is None:
                    self._connect()
                if block := self._block():
                    self._count(block)
                    return block
                if self._is_end():
                    return b""
            except (httpx.HTTPError, _Interruption) as error:
                self._wait_after(error)

    def _block(self) -> bytes:
        return next((block for block in self._blocks if block), b"")

    def _count(self, block: bytes) -> None:
        self.at += len(block)
        self._digest.update(block)
        self._tail = (self._tail + block)[-_OVERLAP:]
        if self.at - self._broke_at >= _PROGRESS:
            self._vain = 0

    def _is_end(self) -> bool:
        """Whether a body that ended well ended where the file does."""
        if self._version.size is not None:
            if self.at < self._version.size:
                short = self._version.size - self.at
                raise _Interruption(f"the body ended {short:,} bytes too early")
            return True
        in_chunks = self._answer is not None and "Transfer-Encoding" in self._answer.headers
        if in_chunks or self._ended_at == self.at:
            return True
        # The end of the connection is all that says so, and that of a cut one looks the same.
        self._ended_at = self.at
        self._hang_up()
        return False

    def _wait_after(self, error: Exception) -> None:
        """Wait for the next try.

        Raises:
            StreamError: there were enough in vain.
        """
        self._hang_up()
        cause = " ".join(str(error).split()) or type(error).__name__
        self._vain, self._broke_at = self._vain + 1, self.at
        place = f"{self._address} at byte {self.at:,}"
        if self._vain >= self._tries:
            raise StreamError(
                f"cannot read {place}: {cause} ({self._vain} tries in vain). Look at the network "
                "or the server and run again: finished shards are kept, and the files that they "
                "are made of are not read again"
            ) from error
        wait = min(_LONGEST_WAIT, max(WAITS[self._vain - 1], getattr(error, "wait", 0.0)))
        log.warning("cannot read %s: %s; trying again in %g s", place, cause, wait)
        time.sleep(wait)

    def _hang_up(self) -> None:
        if self._answer is not None:
            with suppress(httpx.HTTPError):
                self._answer.close()
        self._answer, self._blocks = None, iter(())

    def _connect(self) -> None:
        """Ask for the file, or for what is left of it; the next block is the one at ``at``."""
        if self.at and self._ranges:
            start = self.at - len(self._tail)
            self._ask({"Range": f"bytes={start}-"}, start)
            if self._ranges:
                return
        if self._answer is None:
            self._ask({}, None)
        if self._passed(self.at) != self._digest.digest():
            self._refuse("other contents")

    def _ask(self, headers: Mapping[str, str], start: int | None) -> None:
        """Begin an answer, of the same version as those before, that continues what was read.

        One from the beginning is left there, with ``_ranges`` off where a part was asked for.

        Args:
            start: of the part that is asked for.
        """
        answer = self._send("GET", headers)
        if answer.status_code == 416 and start is not None:
            self._refuse(str(Version.of(answer)))
        self._check_status(answer)
        now = Version.of(answer)
        if self._version.differs(now):
            self._refuse(str(now))
        self._version = self._version.joined(now)
        coding = answer.headers.get("Content-Encoding", "identity")
        if coding not in {"identity", ""} and infer_compression(answer.url.path) is None:
            raise StreamError(
                f"{self._address} is sent as {coding}, though it was asked for as it is; make the "
                "server send it so, or copy the file here"
            )
        self._answer, self._blocks = answer, answer.iter_raw()
        begins = first_byte(answer)
        if start is None or begins is None:
            self._ranges = self._ranges and start is None
        elif begins != start or self._passed(len(self._tail)) != _sha256(self._tail):
            log.warning("%s answers a range from byte %s with another; it is read from its "
                        "beginning", self._address, f"{start:,}")  # fmt: skip
            self._ranges = False
            self._hang_up()

    def _send(self, method: str, headers: Mapping[str, str]) -> httpx.Response:
        try:
            sent = {**self._headers, **headers}
            request = _client().build_request(method, self._url, headers=sent)
            self._answer = _client().send(request, stream=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise StreamError(
                f"cannot read {self._address}: {error}; mend download.paths"
            ) from error
        return self._answer

    def _check_status(self, answer: httpx.Response) -> None:
        ranged = "Range" in answer.request.headers
        if answer.status_code == 200 or (answer.status_code == 206 and ranged):
            return
        said = f"the server says {answer.status_code} {answer.reason_phrase}".strip()
        if answer.status_code in _FOR_A_WHILE:
            raise _Interruption(said, retry_seconds(answer.headers.get("Retry-After", "")))
        raise StreamError(
            f"cannot read {self._address} at byte {self.at:,}: {said}. Mend download.paths, or the "
            "access (HF_TOKEN for a gated data set), and run again: finished shards are kept"
        )

    def _refuse(self, now: str) -> None:
        raise StreamError(
            f"{self._address} is another file now than when its first {self.at:,} bytes were read "
            f"({self._version} then, {now} now). Run again: it is read as it is now, into an "
            "artifact of its own. A name with a version in it (hf://...@revision/...) stays"
        )

    def _passed(self, size: int) -> bytes:
        """The digest of the next bytes of an answer, which are read over."""
        digest = hashlib.sha256()
        while size:
            if not (block := self._block()):
                raise _Interruption("the body ended before it came to anything new")
            digest.update(block[:size])
            if len(block) > size:
                self._blocks = chain([block[size:]], self._blocks)
            size -= min(size, len(block))
        return digest.digest()


@cache
def _client() -> httpx.Client:
    """The way of all streams to the web: certificates are read once, connections used again."""
    return httpx.Client(timeout=_SILENCE, follow_redirects=True)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
