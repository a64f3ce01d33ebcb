"""W_cap: from an image to the language model's input."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gill.initialization import ridge

INITIAL_SCALE = 0.1


class CaptioningMap(nn.Module):
    """Linear map from a pooled vision feature to ``num_visual_tokens`` input embeddings."""

    def __init__(self, vision_dim: int, num_visual_tokens: int, llm_dim: int) -> None:
        super().__init__()
        self.num_visual_tokens, self.llm_dim = num_visual_tokens, llm_dim
        self.linear = nn.Linear(vision_dim, num_visual_tokens * llm_dim)

    @torch.no_grad()
    def initialize_from(
        self, embeddings: Tensor, slot: int = 0, words: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Start as a prompt that each image changes a little.

        The biases become the embeddings, and the random weights a tenth of what they were. A frozen
        language model is thrown off by random vectors: it then begins at a loss of 7 instead of 6
        and learns several times slower (docs/experiments.md).

        Args:
            embeddings: ``(n, llm_dim)``; of fewer than ``num_visual_tokens`` the last is repeated.
            slot: the visual token that starts as the words of the image instead.
            words: weight ``(llm_dim, vision_dim)`` and bias ``(llm_dim,)`` of that token.
        """
        rows = embeddings[: self.num_visual_tokens]
        missing = self.num_visual_tokens - len(rows)
        rows = torch.cat([rows, rows[-1:].expand(missing, -1)])
        self.linear.bias.copy_(rows.flatten())
        self.linear.weight.mul_(INITIAL_SCALE)
        if words is not None:
            own = slice(slot * self.llm_dim, (slot + 1) * self.llm_dim)
            self.linear.weight[own], self.linear.bias[own] = words

    def forward(self, feature: Tensor) -> Tensor:
        """Map ``(batch, vision_dim)`` to ``(batch, num_visual_tokens, llm_dim)``."""
        mapped: Tensor = self.linear(feature)
        return mapped.view(len(feature), self.num_visual_tokens, self.llm_dim)


def words_of_images(
    features: Tensor, captions: Sequence[Sequence[int]], embeddings: Tensor
) -> tuple[Tensor, Tensor]:
    """Ridge regression from pooled features to what their captions' tokens mean on average.

    A caption's vector is the mean of its tokens' embeddings, each weighted by the logarithm of its
    rarity. The regression falls short of their spread, so it is stretched back to it.

    Args:
        features: ``(n, vision_dim)``. captions: ``n`` lists of token ids, none of them empty.
        embeddings: ``(vocab_size, llm_dim)``, the language model's input embeddings.

    Returns:
        Weight ``(llm_dim, vision_dim)`` and bias ``(llm_dim,)``.
    """
    seen = Counter(token for ids in captions for token in set(ids))
    rarity = {token: math.log(len(captions) / count) + 0.05 for token, count in seen.items()}
    vectors = []
    for ids in captions:
        weights = torch.tensor([rarity[token] for token in ids], device=embeddings.device)
        rows = embeddings[torch.tensor(ids, device=embeddings.device)].float()
        vectors.append(weights @ rows / weights.sum())
    target = torch.stack(vectors).to(features.device)
    weight, _ = ridge(features, target)
    middle, centre = features.mean(0), target.mean(0)
    reached = ((features - middle) @ weight.T).norm().clamp(min=1e-6)
    weight = weight * ((target - centre).norm() / reached)
    return weight, centre - weight @ middle
