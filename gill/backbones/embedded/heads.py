"""Features of the embedded image-text model: pooled over the image, or over its quadrants.

A pooled feature is a bag of things: it does not say what is left of what. Four quadrants do, at
four times the width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

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
