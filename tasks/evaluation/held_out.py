"""Captions of a split with their stored [IMG] states, and what else is stored of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.artifacts import ClipFeatures, ImageShards, TextTargets, TrainedAdapters
from data.shards import AlignedShards, Columns

_MEAN_OF = 4096  # targets


@dataclass(frozen=True)
class Captions:
    """Captions and the [IMG] states ``(n, r, llm_dim)`` that follow them."""

    keys: list[str]
    captions: list[str]
    states: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, rows: slice) -> Captions:
        """A part of them."""
        return Captions(self.keys[rows], self.captions[rows], self.states[rows])

    def at(self, places: Sequence[int]) -> Captions:
        """Those at some places."""
        keys, captions = ([values[i] for i in places] for values in (self.keys, self.captions))
        return Captions(keys, captions, self.states[list(places)])


@dataclass(frozen=True)
class HeldOut:
    """Held-out captions with all that is stored of them.

    Attributes:
        features: the scorer's, of the true images ``(n, vision_dim)``.
        targets: the generator's text-encoder output ``(n, num_targets, target_dim)``.
        sources: what each pair is from. truths: what its image shows, as JSON, or "".
    """

    captions: Captions
    features: Tensor
    targets: Tensor
    sources: list[str]
    truths: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def first(self, count: int) -> HeldOut:
        """The first of them."""
        return self.at(range(min(count, len(self))))

    def of(self, sources: Collection[str]) -> HeldOut:
        """Those of some sources; all of them where none is named.

        Raises:
            ValueError: there is none.
        """
        if not sources:
            return self
        places = [i for i, source in enumerate(self.sources) if source in sources]
        if not places:
            raise ValueError(
                f"no test pair is from {', '.join(sorted(sources))}; evaluate.sources may name "
                f"{', '.join(sorted(set(self.sources)))}"
            )
        return self.at(places)

    def parts(self) -> dict[str, list[int]]:
        """Places of scenes and drawings apart, where there are both."""
        scenes = [i for i, truth in enumerate(self.truths) if truth]
        drawings = [i for i, truth in enumerate(self.truths) if not truth]
        return {"scenes": scenes, "drawings": drawings} if scenes and drawings else {}

    def with_truth(self) -> HeldOut:
        """Those whose truth is known.

        Raises:
            ValueError: there is none.
        """
        places = [i for i, truth in enumerate(self.truths) if truth]
        if not places:
            raise ValueError(
                "no test pair has its truth, which only scenes have: set evaluate.hard_candidates "
                "to 0, or download.source to scenes"
            )
        return self.at(places)

    def at(self, places: Sequence[int]) -> HeldOut:
        """Those at some places."""
        rows = list(places)
        return HeldOut(
            self.captions.at(rows),
            self.features[rows],
            self.targets[rows],
            [self.sources[i] for i in rows],
            [self.truths[i] for i in rows],
        )


def read_captions(images: ImageShards, adapters: TrainedAdapters, split: str) -> Captions:
    """The captions of a split, in the order of its shards."""
    return _captions(_rows(split, images, adapters, {}), adapters)


def read_held_out(
    images: ImageShards,
    features: ClipFeatures,
    targets: TextTargets,
    adapters: TrainedAdapters,
    split: str = "test",
) -> HeldOut:
    """The captions of a split with their features and targets."""
    more = {features.folder: ["feature"], targets.folder: ["target"]}
    rows = _rows(split, images, adapters, more)
    target = torch.from_numpy(np.asarray(rows["target"], np.float32))
    return HeldOut(
        _captions(rows, adapters),
        torch.from_numpy(np.asarray(rows["feature"], np.float32)),
        target.view(-1, *targets.shape),
        [str(source) for source in rows["source"]],
        [str(truth) for truth in rows["truth"]],
    )


def mean_target(targets: TextTargets, count: int = _MEAN_OF) -> Tensor:
    """Mean ``(num_targets, target_dim)`` of the first training targets."""
    rows = AlignedShards({targets.folder: ["target"]}, "train").first(count)
    return torch.from_numpy(np.asarray(rows["target"], np.float32)).mean(0).view(targets.shape)


def _rows(
    split: str,
    images: ImageShards,
    adapters: TrainedAdapters,
    more: Mapping[Path, Sequence[str]],
) -> Columns:
    folders = {images.folder: ["caption", "source", "truth"], adapters.states: ["state"], **more}
    return AlignedShards(folders, split).all()


def _captions(rows: Columns, adapters: TrainedAdapters) -> Captions:
    spec = adapters.adapters_spec()
    states = torch.from_numpy(np.asarray(rows["state"], np.float32))
    return Captions(
        [str(key) for key in rows["key"]],
        [str(caption) for caption in rows["caption"]],
        states.view(-1, int(spec["num_img_tokens"]), int(spec["llm_dim"])),
    )
