"""Networks that compare images: standard ones where a recipe gives weights, else the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gill.backbones.metric_networks import Distance, Features, load_inception, load_lpips
from gill.backbones.vision import VisionEncoder
from gill.evaluation.images import paired_similarity, perceptual_distance
from tasks.config.evaluation import MetricNetworksConfig
from tasks.config.parts import RuntimeConfig, VisionConfig
from tasks.evaluation.scene_reader import SceneMeasure
from tasks.parts.devices import device_of
from tasks.parts.loading import load_vision

_BATCH = 64


@dataclass(frozen=True)
class MetricNetworks:
    """Measures of made images against true ones, beside the scorer's own.

    Attributes:
        stand_in: the scorer, whose layers make the perceptual distance that is not LPIPS, or None.
        inception: FID's network, which gives features of images, where there is one.
        lpips, clip: the other standard networks that there are.
        scenes: what reads images of the embedded world, where a recipe asks for it.
    """

    stand_in: VisionEncoder | None
    inception: Features | None
    lpips: Distance | None
    clip: VisionEncoder | None
    scenes: SceneMeasure | None = None

    @classmethod
    def load(
        cls, config: MetricNetworksConfig, scorer: VisionEncoder, runtime: RuntimeConfig
    ) -> MetricNetworks:
        """Load what a recipe names.

        ``clip`` is open_clip's ``model/pretraining``, ``model//path/of/weights``, or a name with a
        colon that stands for both (``hf-hub:owner/repository``, ``local-dir:/path``).
        """
        device = device_of(runtime)
        whole = ":" in config.clip
        name, _, pretrained = (config.clip, "", "") if whole else config.clip.partition("/")
        return cls(
            stand_in=scorer if config.perceptual else None,
            inception=load_inception(config.fid, device) if config.fid else None,
            lpips=load_lpips(config.lpips, device) if config.lpips else None,
            clip=load_vision(VisionConfig(name=name, pretrained=pretrained), runtime)
            if config.clip
            else None,
            scenes=SceneMeasure.load(device) if config.scenes else None,
        )

    @property
    def pairwise(self) -> bool:
        """Whether there is one that compares each image with the true one."""
        return any((self.stand_in, self.lpips, self.clip))

    def truths(self, made: Tensor, truths: Sequence[str]) -> dict[str, Tensor]:
        """Values ``(n,)``, NaN where a truth has no such factor, of images ``(n, 3, s, s)``."""
        return {} if self.scenes is None else self.scenes(made, truths)

    def pairs(self, made: Tensor, true: Tensor) -> dict[str, Tensor]:
        """A value ``(n,)`` for each image, of images ``(n, 3, s, s)`` in [0, 1]."""
        found: dict[str, list[Tensor]] = {}
        for a, b in zip(made.split(_BATCH), true.split(_BATCH), strict=True):
            if (scorer := self.stand_in) is not None:
                maps = (
                    scorer.stages(scorer.prepare_tensor(a)),
                    scorer.stages(scorer.prepare_tensor(b)),
                )
                name = f"perceptual_{scorer.feature_name}_distance"
                found.setdefault(name, []).append(perceptual_distance(*maps))
            if self.lpips is not None:
                found.setdefault("lpips", []).append(self.lpips(a, b))
            if (clip := self.clip) is not None:
                seen = [clip.project(clip.pooled(clip.prepare_tensor(x))).cpu() for x in (a, b)]
                found.setdefault("clip_similarity", []).append(paired_similarity(*seen))
        return {name: torch.cat(parts) for name, parts in found.items()}


def as_pixels(images: Sequence[Image.Image], size: int) -> Tensor:
    """Images ``(n, 3, size, size)`` in [0, 1]: the middle square of each, resized."""
    squares = []
    for image in images:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        square = image.convert("RGB").crop((left, top, left + edge, top + edge))
        squares.append(np.asarray(square.resize((size, size), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
