"""What the store has on some images: the images themselves and their pooled features, by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.artifacts import ClipFeatures, ImageShards
from data.lookup import ShardLookup
from tasks.evaluation.thumbnails import opened


@dataclass(frozen=True)
class StoredImages:
    """Looks images up by their keys, which are read once."""

    images: ShardLookup
    features: ShardLookup

    @classmethod
    def of(cls, images: ImageShards, features: ClipFeatures) -> StoredImages:
        """Of all splits."""
        return cls(
            ShardLookup.of(images.folder, kind=images.SCHEMA),
            ShardLookup.of(features.folder, kind=features.SCHEMA),
        )

    def opened(self, keys: Sequence[str]) -> list[Image.Image]:
        """The images of some keys, in their order."""
        files = self.images.rows(keys, ["image"])["image"] if keys else []
        return [opened(cast(bytes, data)) for data in files]

    def pooled(self, keys: Sequence[str]) -> Tensor:
        """The scorer's pooled features ``(keys, vision_dim)``."""
        rows = self.features.rows(keys, ["feature"])["feature"]
        return torch.from_numpy(np.asarray(rows, np.float32))
