"""W_t2i, W_i2t and the temperature: one space for [IMG] states and images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_SCALE = 100.0


class RetrievalMaps(nn.Module):
    """Linear maps of the first [IMG] state and of the vision feature to unit vectors."""

    def __init__(self, llm_dim: int, vision_dim: int, retrieval_dim: int) -> None:
        super().__init__()
        self.text = nn.Linear(llm_dim, retrieval_dim)
        self.image = nn.Linear(vision_dim, retrieval_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_text(self, img_states: Tensor) -> Tensor:
        """Unit vectors ``(batch, retrieval_dim)`` of [IMG] states ``(batch, r, llm_dim)``.

        The released code maps all r positions and keeps the first; only the first is mapped here.
        """
        return F.normalize(self.text(img_states[:, 0].float()), dim=-1)

    def embed_image(self, feature: Tensor) -> Tensor:
        """Unit vectors ``(batch, retrieval_dim)`` of pooled features ``(batch, vision_dim)``."""
        return F.normalize(self.image(feature.float()), dim=-1)

    def scale(self, cap: float = MAX_SCALE) -> Tensor:
        """The temperature's inverse, at most ``cap``: 100 as in CLIP; 0 for no cap."""
        if not cap:
            return self.logit_scale.exp()
        return self.logit_scale.clamp(max=math.log(cap)).exp()
