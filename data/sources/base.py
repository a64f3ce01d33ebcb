"""Where image-caption pairs come from: one interface, every source streams.

A source yields each of its rows in the same order: a ``Pair`` with the image's bytes, a ``Pair``
without them whose ``origin`` is the address to fetch, or a ``Rejected`` row. Nothing is skipped, so
the number of a row is stable and so is the shard that holds it. No two rows have the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeVar

from data.faults import Tolerance

Item = TypeVar("Item")


class SourceError(ValueError):
    """A source cannot be read or is not the one that was recorded."""


@dataclass(frozen=True)
class Pair:
    """One image and its caption, as the source holds them.

    Attributes:
        origin: where the image is from; the address to fetch when ``image`` is None.
        title: a short caption, or "".
        truth: what the image shows, as JSON, where the source knows it; else "".
    """

    key: str
    caption: str
    origin: str
    source: str
    image: bytes | None
    title: str = ""
    truth: str = ""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be read: why, and where it is."""

    key: str
    reason: str
    place: str
    caption: str = ""


@dataclass(frozen=True)
class SourceSettings:
    """What a recipe says of its source; each takes what it knows.

    Attributes:
        paths: split -> files, or the split's name in the data set; with an optional ``[from:to]``.
        limit: at most this many rows of each split, or None for all.
        images: the folder that names in a list are in.
        scenes: how many the embedded world paints for training.
        dataset: a Hugging Face data set or a folder. columns, revision: of it.
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    images: str = ""
    scenes: int = 0
    dataset: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    revision: str = "main"


@dataclass
class Bookmarks:
    """Where to begin in a split, and which files begin where, as far as somebody has read them.

    So whoever goes on with finished work need not read again what that was made of.

    Attributes:
        start: number of the first row of the split that is wanted.
        known: number of a row -> number of the file that it is the first of; rows are counted from
            the first file's first, whatever part of them the split takes.
        new: of these, what was noted since ``take`` was called.
    """

    start: int = 0
    known: dict[int, int] = field(default_factory=dict)
    new: dict[int, int] = field(default_factory=dict)

    def note(self, row: int, file: int) -> None:
        """The file ``file`` begins with the row ``row``, be they there or not."""
        self.known[row] = self.new[row] = file

    def take(self) -> dict[int, int]:
        """What was noted since the last time."""
        taken, self.new = self.new, {}
        return taken

    def nearest(self, row: int) -> tuple[int, int]:
        """The last row at or before ``row`` that a file is known to begin with, and that file."""
        at = max((known for known in self.known if known <= row), default=0)
        return at, self.known.get(at, 0)


def wanted_of(rows: Iterable[Item], bookmarks: Bookmarks | None) -> Iterator[Item]:
    """The rows from ``bookmarks.start`` on, of a source that must read those before too."""
    return islice(rows, 0 if bookmarks is None else bookmarks.start, None)


class Source(Protocol):
    """A stream of pairs by split, with an identity that changes when its contents do."""

    @property
    def remote(self) -> bool:
        """Whether its images are addresses that must be fetched."""

    def identity(self) -> str:
        """Hash of what the source holds; part of the download stage's fingerprint."""

    def splits(self) -> list[str]:
        """Names of the splits, in the order in which they are written."""

    def pairs(self, split: str, bookmarks: Bookmarks | None = None) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split, always in the same order.

        Args:
            bookmarks: where to begin, if not with the first row; a source notes in them what it
                learns.
        """


def guarded(
    make: Callable[[], Pair | Rejected], key: str, place: str, faults: Tolerance
) -> Pair | Rejected:
    """The row that ``make`` gives, or a rejected one for what nobody expected of it.

    Raises:
        SystematicFaultError: that has happened too often.
    """
    try:
        row = make()
    except Exception as error:  # noqa: BLE001 one row must not end the others
        reason = faults.unexpected(place, error)
        return Rejected(key, reason, f"{place}: {str(error)[:300]}")
    faults.expected()
    return row


def printable(text: str) -> str:
    """A text as one that can be written as UTF-8: the rest is spelled out by number."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def storable(text: str) -> bool:
    """Whether a text can be written as UTF-8: lone halves of UTF-16 pairs cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
