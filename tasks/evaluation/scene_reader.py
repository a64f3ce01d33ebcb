"""The objective measure of the embedded world: what the scene reader finds of what was asked."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.scenes.grammar import Scene
from data.scenes.painter import EDGE
from data.scenes.scoring import FACTORS, Seen, score
from gill.backbones.embedded.generator import load_reader
from gill.backbones.embedded.reader import Reading, SceneReader
from tasks.parts.identity import WEIGHTS

MEASURES = (*FACTORS, "order")


@dataclass(frozen=True)
class SceneMeasure:
    """Compares images with the truth of the scenes that they should show."""

    reader: SceneReader

    @classmethod
    def load(cls, device: torch.device) -> SceneMeasure:
        """The reader that ships with the project."""
        return cls(load_reader(WEIGHTS / "reader").to(device))

    def __call__(self, images: Tensor, truths: Sequence[str]) -> dict[str, Tensor]:
        """A value ``(n,)`` of each factor, from 0 to 1; NaN where a scene has no such factor.

        Args:
            images: ``(n, 3, s, s)`` in [0, 1]; read at 64 x 64.
            truths: scenes as JSON, in their order; empty where there is none.
        """
        device = next(self.reader.parameters()).device
        if images.shape[-1] != EDGE:
            images = F.interpolate(images, (EDGE, EDGE), mode="bicubic", antialias=True).clamp(0, 1)
        readings = self.reader.read(images.to(device) * 2 - 1)
        return scores_of(truths, readings)


def scores_of(truths: Sequence[str], readings: Sequence[Reading]) -> dict[str, Tensor]:
    """Scores of readings: a value ``(n,)`` of each factor, NaN where a scene has none."""
    values = torch.full((len(MEASURES), len(truths)), math.nan)
    for row, (truth, reading) in enumerate(zip(truths, readings, strict=True)):
        if not truth:
            continue
        seen = [Seen(o.kind, o.size, o.x, o.y) for o in reading.objects]
        for factor, value in score(scene_of(truth), seen, reading.ground).items():
            values[MEASURES.index(factor), row] = value
    return dict(zip(MEASURES, values, strict=True))


def scene_of(truth: str) -> Scene:
    """The scene of a row's truth."""
    return Scene.from_dict(json.loads(truth))
