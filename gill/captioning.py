"""W_cap: from a picture to the language model's input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

START_SCALE = 0.1


class CaptioningMap(nn.Module):
    """Linear map from a pooled vision feature to ``num_visual_tokens`` input embeddings."""

    def __init__(self, vision_dim: int, num_visual_tokens: int, llm_dim: int) -> None:
        super().__init__()
        self.num_visual_tokens, self.llm_dim = num_visual_tokens, llm_dim
        self.linear = nn.Linear(vision_dim, num_visual_tokens * llm_dim)

    @torch.no_grad()
    def start_from(self, embeddings: Tensor) -> None:
        """Start as a prompt that each picture changes a little.

        The biases become the embeddings, and the random weights a tenth of what they were. A frozen
        language model is thrown off by random vectors: it then begins at a loss of 7 instead of 6
        and learns several times slower (docs/experiments.md).

        Args:
            embeddings: ``(n, llm_dim)``; of fewer than ``num_visual_tokens`` the last is repeated.
        """
        rows = embeddings[: self.num_visual_tokens]
        missing = self.num_visual_tokens - len(rows)
        rows = torch.cat([rows, rows[-1:].expand(missing, -1)])
        self.linear.bias.copy_(rows.flatten())
        self.linear.weight.mul_(START_SCALE)

    def forward(self, feature: Tensor) -> Tensor:
        """Map ``(batch, vision_dim)`` to ``(batch, num_visual_tokens, llm_dim)``."""
        mapped: Tensor = self.linear(feature)
        return mapped.view(len(feature), self.num_visual_tokens, self.llm_dim)
