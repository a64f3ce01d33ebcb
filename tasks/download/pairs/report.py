"""The report of the pairs: ``pairs.json`` and ``pairs.html`` beside the features, and MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.artifacts import ClipFeatures, ImageShards
from data.io.atomic import write_bytes, write_json
from data.shards import from_bytes, read_table, rows_of, shard_names
from gill.backbones.vision import VisionEncoder
from tasks.download.pairs.captions import CaptionCounts, histogram, spread
from tasks.download.pairs.likeness import (
    ALIKE,
    LIKE_BITS,
    Alike,
    Marks,
    Row,
    Vectors,
    each_once,
    like_hashes,
    marks_of,
    nearest,
    same_bytes,
)
from tasks.download.pairs.page import page
from tasks.download.pairs.perceptual import BITS, Hashes, write_hashes
from tasks.download.pairs.similarity import has_text_tower, similarities
from tasks.tracking.stage_log import StageLog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLED = 5000  # pairs of a split for what costs a text tower or a search
_NAMED = 500  # of a kind that are named; of leaks all are
_WIDTH = 0.05  # of a bar of the histogram of similarities
_COLUMNS = ("key", "caption", "origin", "sha256", "original_width", "original_height")


@dataclass
class _Split:
    """What is kept of a split; captions of the sampled rows alone."""

    sample: list[int]
    keys: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    counts: CaptionCounts = field(default_factory=CaptionCounts)
    marks: Marks = field(default_factory=lambda: np.empty(0, np.uint64))
    short: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class _ComesAgain:
    """Images that come again by one measure, those nearest first."""

    what: str
    found: Sequence[Alike]

    def described(self) -> dict[str, Any]:
        """As JSON holds it: counts by splits, and names, those across splits first."""
        counts = Counter(f"{a.one.split} in {a.other.split}" for a in self.found)
        first = sorted(self.found, key=lambda a: a.one.split == a.other.split)[:_NAMED]
        return {
            "what": self.what,
            "counts": dict(counts.most_common()),
            "named": [[a.one.key, a.other.key, round(a.measure, 4)] for a in first],
        }


@dataclass(frozen=True)
class PairsReport:
    """Reads image shards and their features, and writes what they are like.

    Attributes:
        features: the folder with the shards of features.
        dropped: training pairs that are not trained on, by reason; the report counts them too.
    """

    images: ImageShards
    features: Path
    encoder: VisionEncoder
    dropped: Mapping[str, int] = field(default_factory=dict)
    sampled: int = SAMPLED

    def write(self, out: Path, log: StageLog) -> dict[str, float]:
        """Write the report and show it; returns its headlines."""
        splits = list(dict.fromkeys(n.rpartition("-")[0] for n in self.images.names()))
        # Training pairs first: what stands there and in a later split too is a leak.
        splits.sort(key=lambda split: (split != "train", split))
        tables = {split: self._read(split) for split in splits}
        sample = {split: tables[split].sample for split in splits}
        vectors = {split: self._sampled(split, sample[split]) for split in splits}
        similarity, why_not = self._similarity(tables, sample, vectors)
        again = self._come_again(tables, vectors, write_hashes(self.images, out, log))
        leaks = _leaks(again)
        report = {
            "splits": {
                split: {
                    "pairs": len(of.keys),
                    "sampled": len(of.sample),
                    **of.counts.described(),
                    "short_side": spread(of.short),
                    "similarity": spread(similarity[split]) if similarity else {},
                    "similarity_histogram": histogram(similarity[split], _WIDTH)
                    if similarity
                    else {},
                }
                for split, of in tables.items()
            },
            "dropped": dict(self.dropped),
            "similarity": why_not or "cosine of the recipe's CLIP, of the sample",
            "leaks": leaks,
            "comes_again": {kind: of.described() for kind, of in again.items()},
        }
        write_json(out / "pairs.json", report)
        shown = page(report)
        write_bytes(out / "pairs.html", shown.encode())
        log.document("pairs.html", shown)
        log.figure("pairs", _figure(tables, similarity))
        if leaks:
            held_out, trained, how = leaks[0]
            log.note(
                f"{len(leaks)} held-out images are training images or nearly so, such as "
                f"{held_out}, which is like {trained} by {how}; pairs.json names them"
            )
        means = {f"similarity_{s}": float(v.mean()) for s, v in similarity.items() if len(v)}
        dropped = {f"dropped_{reason}": float(count) for reason, count in self.dropped.items()}
        same = {alike.one for alike in again["bytes"].found if alike.leak}
        counts = {"leaked_images": float(len(same)), "leaked_or_alike_images": float(len(leaks))}
        return counts | means | dropped

    def _come_again(
        self, tables: Mapping[str, _Split], vectors: Mapping[str, Vectors], hashes: Path
    ) -> dict[str, _ComesAgain]:
        """Images that are there more than once, by each measure."""
        keys = {split: of.keys for split, of in tables.items()}
        rows = [Row(split, of.keys[i]) for split, of in tables.items() for i in of.sample]
        marks = {split: of.marks for split, of in tables.items()}
        known = {split: _hashes_in(hashes, split) for split in tables}
        sample = {split: of.sample for split, of in tables.items()}
        asked = np.concatenate([vectors[split] for split in tables])
        near = [a for a in nearest(asked, rows, self._features()) if a.measure >= ALIKE]
        return {
            "bytes": _ComesAgain("The same bytes, of all images", same_bytes(marks, keys)),
            "hash": _ComesAgain(
                f"Hashes of the look with at most {LIKE_BITS} of {BITS} bits unlike, of the sample",
                sorted(each_once(like_hashes(known, keys, sample)), key=lambda a: a.measure),
            ),
            "features": _ComesAgain(
                f"Features with a cosine of at least {ALIKE}, of the sample",
                sorted(each_once(near), key=lambda a: -a.measure),
            ),
        }

    def _read(self, split: str) -> _Split:
        names = self.images.names(split)
        sample = _spaced(sum(rows_of(self.images.folder / name) for name in names), self.sampled)
        of, wanted, first = _Split(sample), set(sample), 0
        marks, short = [np.empty(0, np.uint64)], [np.empty(0)]
        for name in names:
            table = self.images.read(name, _COLUMNS)
            captions = table.column("caption").to_pylist()
            of.counts.add(captions, table.column("origin").to_pylist())
            of.keys += table.column("key").to_pylist()
            of.captions += [c for row, c in enumerate(captions, first) if row in wanted]
            marks.append(marks_of(table.column("sha256").to_pylist()))
            sides = [table.column(f"original_{side}").to_numpy() for side in ("width", "height")]
            short.append(np.minimum(*sides))
            first += len(table)
        of.marks, of.short = np.concatenate(marks), np.concatenate(short)
        return of

    def _features(self, split: str | None = None) -> Iterator[tuple[str, Sequence[str], Vectors]]:
        for name in shard_names(self.features, split):
            table = read_table(self.features / name, None, ClipFeatures.SCHEMA)
            values = np.asarray(from_bytes(table, "feature"), np.float32)
            yield name.rpartition("-")[0], table.column("key").to_pylist(), values

    def _sampled(self, split: str, rows: Sequence[int]) -> Vectors:
        parts, first, wanted = [], 0, np.array(rows, np.int64)
        for _, keys, values in self._features(split):
            here = wanted[(wanted >= first) & (wanted < first + len(keys))] - first
            parts.append(values[here])
            first += len(keys)
        return np.concatenate(parts)

    def _similarity(
        self,
        tables: dict[str, _Split],
        sample: dict[str, list[int]],
        vectors: dict[str, Vectors],
    ) -> tuple[dict[str, Vectors], str]:
        """Cosines of captions and images by split; or why there are none."""
        if not has_text_tower(self.encoder):
            return {}, f"none: {self.encoder.name} has no text tower"
        found = {}
        for split in sample:
            found[split] = similarities(self.encoder, tables[split].captions, vectors[split])
        return found, ""


def _spaced(count: int, most: int) -> list[int]:
    """At most so many rows, evenly spaced."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).astype(int).tolist()))


def _leaks(again: Mapping[str, _ComesAgain]) -> list[list[str]]:
    """Held-out images that are or are like training images: each once, with one and by what."""
    found: dict[str, tuple[str, list[str]]] = {}
    for kind, of in again.items():
        for alike in of.found:
            if alike.leak:
                how = found.setdefault(alike.one.key, (alike.other.key, []))[1]
                how += [kind] if kind not in how else []
    return [[key, other, ", ".join(how)] for key, (other, how) in found.items()]


def _hashes_in(folder: Path, split: str) -> Hashes:
    columns = [
        read_table(folder / name, None, ClipFeatures.HASHES) for name in shard_names(folder, split)
    ]
    return np.concatenate([table.column("hash").to_numpy() for table in columns])


def _figure(tables: dict[str, _Split], similarity: dict[str, Vectors]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    shown = (
        (similarity, "cosine of caption and image"),
        ({s: np.array(t.counts.words) for s, t in tables.items()}, "words of a caption"),
        ({s: t.short for s, t in tables.items()}, "short side as it came, pixels"),
    )
    for panel, (values, label) in zip(panels, shown, strict=True):
        for split, of_split in values.items():
            if len(of_split):
                panel.hist(of_split, bins=40, density=True, histtype="step", label=split)
        panel.set(xlabel=label, ylabel="share of pairs")
        if values:
            panel.legend()
    return figure
