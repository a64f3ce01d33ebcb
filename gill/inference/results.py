"""What the engine gives back: segments of an answer, and likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from gill.inference.settings import Choice

Reason = Literal["decision model", "asked for", "no index", "no decision model", "index used up"]


@dataclass(frozen=True)
class Text:
    """Decoded text of an answer, as the language model spaced it."""

    text: str


@dataclass(frozen=True)
class Decision:
    """Whether the image that follows is retrieved or generated.

    Attributes:
        probabilities: of each choice by the decision model; None without one.
        reason: what the choice rests on. Without an index images are always generated.
    """

    choice: Choice
    probabilities: dict[Choice, float] | None
    reason: Reason


@dataclass(frozen=True)
class RetrievedImage:
    """An image of the index.

    Attributes:
        score: cosine of W_t2i([IMG0]) and W_i2t(image).
        origin: where the image came from, as its source says.
    """

    key: str
    score: float
    origin: str


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """A new image.

    Attributes:
        image: ``(3, height, width)`` in [0, 1].
        score: the same cosine as of a retrieved image.
        seed: of the sampler.
    """

    image: Tensor
    score: float
    seed: int


Segment = Text | Decision | RetrievedImage | GeneratedImage


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods ``(n,)`` of answers, summed over tokens, and the tokens ``(n,)`` counted."""

    total: Tensor
    tokens: Tensor

    @property
    def mean(self) -> Tensor:
        """Per token ``(n,)``; its negative exponential is the perplexity."""
        return self.total / self.tokens


class ImageFeatures(NamedTuple):
    """The scorer's features of images.

    Attributes:
        pooled: ``(n, vision_dim)``, before the projection.
        vectors: unit vectors ``(n, embed_dim)`` in the space of images and text.
    """

    pooled: Tensor
    vectors: Tensor


def as_pil(image: Tensor) -> Image.Image:
    """A generated image ``(3, height, width)`` in [0, 1] as a PIL image."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))
