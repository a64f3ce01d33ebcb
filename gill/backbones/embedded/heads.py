"""The embedded image-text model's features, pooled or by quadrants, and the heads onto them.

A pooled feature is a bag of things: it does not say what is left of what. Four quadrants do, at
four times the width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.training import Optimization, Trainer

Pooling = Literal["pooled", "quadrants"]


@torch.no_grad()
def image_features(trunk: Any, pixels: Tensor) -> dict[Pooling, Tensor]:
    """Both kinds of feature of prepared images.

    Args:
        trunk: a timm model. pixels: ``(n, 3, h, w)``, normalised.

    Returns:
        ``pooled`` ``(n, width)`` and ``quadrants`` ``(n, 4 width)``: upper left, upper right, lower
        left, lower right.
    """
    maps = trunk.forward_features(pixels.contiguous(memory_format=torch.channels_last)).float()
    quarters = F.adaptive_avg_pool2d(maps, 2).permute(0, 2, 3, 1).flatten(1)
    return {"pooled": maps.mean((2, 3)), "quadrants": quarters}


class ProjectionHeads(nn.Module):
    """The two trained heads of the embedded image-text model, each onto ``embed_dim``."""

    def __init__(self, image_dim: int, text_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.image = nn.Linear(image_dim, embed_dim, bias=False)
        self.text = nn.Linear(text_dim, embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.659))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Scaled cosine similarities ``(n, n)`` of pooled features."""
        image = F.normalize(self.image(image), dim=-1)
        text = F.normalize(self.text(text), dim=-1)
        return self.logit_scale.exp().clamp(max=100.0) * image @ text.T


def heads_trainer(
    heads: ProjectionHeads, image: Tensor, text: Tensor, config: Optimization, noise: float = 0.1
) -> Trainer:
    """Train the heads with the symmetric contrastive loss on cached pooled features.

    Args:
        image: ``(n, image_dim)``; text: ``(n, text_dim)``.
        noise: deviation of the noise that is added to the features, relative to theirs.
    """
    image_noise, text_noise = noise * image.std(), noise * text.std()

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        x = image[rows] + image_noise * torch.randn_like(image[rows])
        y = text[rows] + text_noise * torch.randn_like(text[rows])
        logits = heads(x, y)
        labels = torch.arange(len(rows))
        return {"loss": (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2}

    return Trainer(heads, loss, config)


def batch_indices(count: int, batch_size: int, seed: int, start: int) -> Iterator[Tensor]:
    """Endless row numbers ``(batch_size,)`` in a new order each epoch, from batch ``start`` on."""
    per_epoch = max(1, count // batch_size)
    position = start
    while True:
        epoch, offset = divmod(position, per_epoch)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
        yield order[offset * batch_size : (offset + 1) * batch_size]
        position += 1
