"""Images that come again: the same bytes, like hashes, or features that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.download.pairs.perceptual import Hashes, nearest_hash

Vectors = npt.NDArray[np.float32]
Marks = npt.NDArray[np.uint64]
ALIKE = 0.98  # cosine of pooled features; see docs/how-to/your-own-data.md
LIKE_BITS = 6  # of 64 that differ at most; measured, see there too


@dataclass(frozen=True)
class Row:
    """Where an image stands."""

    split: str
    key: str


@dataclass(frozen=True)
class Alike:
    """Two images that are nearly the same; ``measure`` is their cosine, or the bits that differ."""

    one: Row
    other: Row
    measure: float = 0.0

    @property
    def leak(self) -> bool:
        """Whether ``one`` is held out and ``other`` is trained on."""
        return self.one.split != "train" and self.other.split == "train"


def each_once(found: Iterable[Alike]) -> list[Alike]:
    """Each two images once and a held-out one first, in the order in which they were found."""
    pairs: dict[tuple[Row, Row], Alike] = {}
    for alike in found:
        one, other = sorted((alike.one, alike.other), key=_held_out_first)
        pairs.setdefault((one, other), Alike(one, other, alike.measure))
    return list(pairs.values())


def _held_out_first(row: Row) -> tuple[bool, str, str]:
    return row.split == "train", row.split, row.key


def marks_of(digests: Sequence[str]) -> Marks:
    """64 bits of each digest, 0 where there is none."""
    return np.array([int(digest[:16] or "0", 16) for digest in digests], np.uint64)


def same_bytes(marks: Mapping[str, Marks], keys: Mapping[str, Sequence[str]]) -> list[Alike]:
    """Images whose bytes stand before them or in an earlier split, with the first of these.

    Args:
        marks: see ``marks_of``, of the bytes of each image by split. keys: of the same images.
    """
    splits, found = list(marks), []
    for number, split in enumerate(splits):
        for other in splits[: number + 1]:
            known, places = np.unique(marks[other], return_index=True)
            first = dict(zip(known.tolist(), places.tolist(), strict=True))
            again = np.flatnonzero(np.isin(marks[split], known[known != 0])).tolist()
            found += [
                Alike(Row(split, keys[split][place]), Row(other, keys[other][at]))
                for place in again
                for at in [first[int(marks[split][place])]]
                if (split, place) != (other, at)
            ]
    return found


def like_hashes(
    hashes: Mapping[str, Hashes],
    keys: Mapping[str, Sequence[str]],
    sample: Mapping[str, Sequence[int]],
    most: int = LIKE_BITS,
) -> list[Alike]:
    """Images of a sample with their nearest ones of each split, by hashes that differ little.

    Args:
        hashes: of every image by split. keys: of the same images. sample: places by split.
        most: bits that differ.
    """
    found = []
    for split, rows in sample.items():
        own = np.array(rows, np.int64)
        for other, theirs in hashes.items():
            at, bits = nearest_hash(hashes[split][own], theirs, own if other == split else None)
            found += [
                Alike(
                    Row(split, keys[split][rows[n]]), Row(other, keys[other][at[n]]), float(bits[n])
                )
                for n in np.flatnonzero(bits <= most).tolist()
            ]
    return found


def nearest(
    asked: Vectors, rows: Sequence[Row], batches: Iterable[tuple[str, Sequence[str], Vectors]]
) -> list[Alike]:
    """For each image that is asked about its nearest other one of each split, by features.

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
