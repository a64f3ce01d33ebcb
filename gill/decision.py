"""The decision model: retrieve or generate, and the rule that makes its labels from votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gill.inference.settings import Choice
from gill.settings import REFERENCE, ComponentSettings, setting

Vote = Literal["gen", "ret", "same"]
CHOICES: tuple[Choice, Choice] = (
    "generate",
    "retrieve",
)  # order of the logits, as in the released checkpoint
GENERATE, RETRIEVE = 0, 1


class DecisionSettings(ComponentSettings):
    """How the decision model is regularized."""

    dropout: float = setting(
        0.5,
        "of the [IMG0] state, while it trains",
        unit="probability",
        source=REFERENCE,
        ge=0,
        lt=1,
    )


class DecisionModel(nn.Module):
    """Linear classifier on the [IMG0] hidden state, with dropout while it trains."""

    def __init__(self, llm_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(llm_dim, len(CHOICES))

    def forward(self, img_states: Tensor) -> Tensor:
        """Logits ``(batch, 2)`` of [IMG] states ``(batch, r, llm_dim)``, read at [IMG0]."""
        out: Tensor = self.linear(self.dropout(img_states[:, 0].float()))
        return out

    @torch.no_grad()
    def probabilities(self, img_states: Tensor) -> Tensor:
        """Probabilities ``(batch, 2)`` in the order of ``CHOICES``."""
        return self(img_states).softmax(-1)


def confident_label(votes: Sequence[Vote]) -> int | None:
    """Turn five votes into a label, or None where they do not agree (the paper's appendix).

    A choice wins with four votes or more, or with three against at most one.
    """
    generate, retrieve = votes.count("gen"), votes.count("ret")
    if generate >= 4 or (generate == 3 and retrieve <= 1):
        return GENERATE
    if retrieve >= 4 or (retrieve == 3 and generate <= 1):
        return RETRIEVE
    return None


def votes_from_scores(generated: Tensor, retrieved: Tensor, margin: float) -> list[list[Vote]]:
    """Votes of an image-text scorer that stands in for people.

    Args:
        generated: ``(prompts, seeds)``, score of each generated image with its caption.
        retrieved: ``(prompts,)``, score of the retrieved image.
        margin: a difference of at most this much is a vote for ``same``.
    """
    difference = generated - retrieved[:, None]
    return [
        ["gen" if d > margin else "ret" if d < -margin else "same" for d in row]
        for row in difference.tolist()
    ]
