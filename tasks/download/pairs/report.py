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
from tasks.download.pairs.captions import CaptionCounts, spread
from tasks.download.pairs.likeness import (
    ALIKE,
    Alike,
    Marks,
    Row,
    Vectors,
    marks_of,
    nearest,
    same_bytes,
)
from tasks.download.pairs.similarity import has_text_tower, similarities
from tasks.tracking.stage_log import StageLog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLED = 5000  # pairs of a split for what costs a text tower or a search
_NAMED = 50  # examples of a kind in the report
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
        rows = [Row(s, tables[s].keys[i]) for s in splits for i in sample[s]]
        asked = np.concatenate([vectors[s] for s in splits])
        alike = [a for a in nearest(asked, rows, self._features()) if a.cosine >= ALIKE]
        same = same_bytes({s: tables[s].marks for s in splits}, {s: tables[s].keys for s in splits})
        report = {
            "splits": {
                split: {
                    "pairs": len(tables[split].keys),
                    **tables[split].counts.described(),
                    "short_side": spread(tables[split].short),
                    "similarity": spread(similarity[split]) if similarity else {},
                }
                for split in splits
            },
            "dropped": dict(self.dropped),
            "similarity": why_not or f"cosine of the recipe's CLIP, {self.sampled} of a split",
            "same_bytes": _pairs_of_splits([(a.split, b.split) for a, b in same]),
            "alike": _pairs_of_splits([(a.one.split, a.other.split) for a in alike]),
            "alike_from": ALIKE,
            "same_bytes_named": [[a.key, b.key] for a, b in same[:_NAMED]],
            "alike_named": [
                [a.one.key, a.other.key, round(a.cosine, 4)] for a in _across_first(alike)[:_NAMED]
            ],
        }
        write_json(out / "pairs.json", report)
        page = _page(report)
        write_bytes(out / "pairs.html", page.encode())
        log.document("pairs.html", page)
        log.figure("pairs", _figure(tables, similarity))
        leaks = [pair for pair in same if pair[1].split == "train"]
        if leaks:
            held_out, trained = leaks[0]
            log.note(
                f"{len(leaks)} held-out images have the bytes of training images, such as "
                f"{held_out.key} those of {trained.key}; pairs.html names them"
            )
        means = {f"similarity_{s}": float(v.mean()) for s, v in similarity.items() if len(v)}
        dropped = {f"dropped_{reason}": float(count) for reason, count in self.dropped.items()}
        return {"leaked_images": float(len(leaks)), **means, **dropped}

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


def _pairs_of_splits(pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    counted = Counter(f"{one} in {other}" for one, other in pairs)
    return dict(counted.most_common())


def _across_first(alike: Sequence[Alike]) -> list[Alike]:
    """Those across splits before those within one, the nearest first."""
    return sorted(alike, key=lambda a: (a.one.split == a.other.split, -a.cosine))


def _page(report: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    folder = Path(__file__).with_name("templates")
    jinja = Environment(
        loader=FileSystemLoader(folder), autoescape=select_autoescape(), trim_blocks=True
    )
    return jinja.get_template("pairs.html.j2").render(report=report)


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
