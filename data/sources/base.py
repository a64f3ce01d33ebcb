"""Where image-caption pairs come from: one interface, every source streams.

A source yields each of its rows in the same order: a ``Pair`` with the image's bytes, a ``Pair``
without them whose ``origin`` is the address to fetch, or a ``Rejected`` row. Nothing is skipped, so
the number of a row is stable and so is the shard that holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class SourceError(ValueError):
    """A source cannot be read or is not the one that was recorded."""


@dataclass(frozen=True)
class Pair:
    """One image and its caption, as the source holds them.

    Attributes:
        origin: where the image is from; the address to fetch when ``image`` is None.
        title: a short caption, or "".
    """

    key: str
    caption: str
    origin: str
    source: str
    image: bytes | None
    title: str = ""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be read: why, and where it is."""

    key: str
    reason: str
    place: str
    caption: str = ""


class Source(Protocol):
    """A stream of pairs by split, with an identity that changes when its contents do."""

    @property
    def remote(self) -> bool:
        """Whether its images are addresses that must be fetched."""

    def identity(self) -> str:
        """Hash of what the source holds; part of the download stage's fingerprint."""

    def splits(self) -> list[str]:
        """Names of the splits, in the order in which they are written."""

    def pairs(self, split: str) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split, always in the same order."""
