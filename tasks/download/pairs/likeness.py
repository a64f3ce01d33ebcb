"""Images that are there more than once: the same bytes, or features that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Marks = npt.NDArray[np.uint64]
ALIKE = 0.98  # cosine of pooled features; see docs/how-to/your-own-data.md


@dataclass(frozen=True)
class Row:
    """Where an image stands."""

    split: str
    key: str


@dataclass(frozen=True)
class Alike:
    """Two images that are nearly the same, the second the nearest of its split to the first."""

    one: Row
    other: Row
    cosine: float


def marks_of(digests: Sequence[str]) -> Marks:
    """64 bits of each digest, 0 where there is none."""
    return np.array([int(digest[:16] or "0", 16) for digest in digests], np.uint64)


def same_bytes(marks: dict[str, Marks], keys: dict[str, Sequence[str]]) -> list[tuple[Row, Row]]:
    """Images of a split whose bytes stand in an earlier split too, with one of those.

    Args:
        marks: see ``marks_of``, of the bytes of each image by split. keys: of the same images.
    """
    splits, found = list(marks), []
    for number, split in enumerate(splits):
        for other in splits[:number]:
            both = np.intersect1d(marks[split], marks[other])
            both = both[both != 0]
            places = np.flatnonzero(np.isin(marks[other], both))
            first = {int(marks[other][p]): keys[other][p] for p in reversed(places.tolist())}
            found += [
                (Row(split, keys[split][p]), Row(other, first[int(marks[split][p])]))
                for p in np.flatnonzero(np.isin(marks[split], both)).tolist()
            ]
    return found


def nearest(
    asked: Vectors, rows: Sequence[Row], batches: Iterable[tuple[str, Sequence[str], Vectors]]
) -> list[Alike]:
    """For each image that is asked about its nearest other one of each split.

    Args:
        asked: features ``(n, dim)`` of ``rows``.
        batches: split, keys and features of all images, a shard at a time; each is read once.
    """
    asked = _unit(asked)
    best: dict[str, tuple[Vectors, list[str]]] = {}
    places: dict[Row, int] = {row: place for place, row in enumerate(rows)}
    for split, keys, vectors in batches:
        if not len(keys):
            continue
        cosines = asked @ _unit(vectors).T
        for column, key in enumerate(keys):
            if Row(split, key) in places:
                cosines[places[Row(split, key)], column] = -2.0  # itself
        at = cosines.argmax(1)
        values = cosines[np.arange(len(asked)), at]
        most, named = best.setdefault(
            split, (np.full(len(asked), -2.0, np.float32), [""] * len(asked))
        )
        for place in np.flatnonzero(values > most).tolist():
            most[place], named[place] = values[place], keys[at[place]]
    return [
        Alike(row, Row(split, named[place]), float(most[place]))
        for split, (most, named) in best.items()
        for place, row in enumerate(rows)
        if named[place]
    ]


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
