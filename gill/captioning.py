"""W_cap: from an image to the language model's input."""

from __future__ import annotations

from torch import Tensor, nn


class CaptioningMap(nn.Module):
    """Linear map from a pooled vision feature to ``num_visual_tokens`` input embeddings."""

    def __init__(self, vision_dim: int, num_visual_tokens: int, llm_dim: int) -> None:
        super().__init__()
        self.num_visual_tokens, self.llm_dim = num_visual_tokens, llm_dim
        self.linear = nn.Linear(vision_dim, num_visual_tokens * llm_dim)

    def forward(self, feature: Tensor) -> Tensor:
        """Map ``(batch, vision_dim)`` to ``(batch, num_visual_tokens, llm_dim)``."""
        mapped: Tensor = self.linear(feature)
        return mapped.view(len(feature), self.num_visual_tokens, self.llm_dim)
