"""Captions of a split with their stored [IMG] states, and what else is stored of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.artifacts import ClipFeatures, ImageShards, TextTargets, TrainedAdapters
from data.shards import AlignedShards, Columns


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


@dataclass(frozen=True)
class HeldOut:
    """Held-out captions with all that is stored of them.

    Attributes:
        features: the scorer's, of the true images ``(n, vision_dim)``.
        targets: the generator's text-encoder output ``(n, num_targets, target_dim)``.
    """

    captions: Captions
    features: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def first(self, count: int) -> HeldOut:
        """The first of them."""
        rows = slice(count)
        return HeldOut(self.captions.rows(rows), self.features[rows], self.targets[rows])


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
    )


def _rows(
    split: str,
    images: ImageShards,
    adapters: TrainedAdapters,
    more: Mapping[Path, Sequence[str]],
) -> Columns:
    folders = {images.folder: ["caption"], adapters.states: ["state"], **more}
    return AlignedShards(folders, split).all()


def _captions(rows: Columns, adapters: TrainedAdapters) -> Captions:
    spec = adapters.adapters_spec()
    states = torch.from_numpy(np.asarray(rows["state"], np.float32))
    return Captions(
        [str(key) for key in rows["key"]],
        [str(caption) for caption in rows["caption"]],
        states.view(-1, int(spec["num_img_tokens"]), int(spec["llm_dim"])),
    )
