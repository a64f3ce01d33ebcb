"""The generator's text encoder: frozen MiniLM, and layers on top that bind words to places.

MiniLM is made for the meaning of a whole sentence and hardly says what is left of what. A few
learned queries read its states and are what the UNet attends to. They are few and normalised, so
that a mapper can learn to make them; each has a fixed role (see ``codes``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TextShape:
    """Widths and depths.

    Attributes:
        states: width of the frozen states. tokens: how many are read. queries: rows of the output.
        width: of a row. depth: layers. heads: of attention. hidden: of the feed-forward part.
    """

    states: int = 384
    tokens: int = 32
    queries: int = 5
    width: int = 256
    depth: int = 3
    heads: int = 4
    hidden: int = 768


class TextLayers(nn.Module):
    """Learned queries that read a caption: rows ``(n, queries, width)``, each normalised."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = s = shape
        self.entry = nn.Linear(s.states, s.width)
        self.entry_norm = nn.LayerNorm(s.width)
        self.positions = nn.Parameter(0.02 * torch.randn(s.tokens, s.width))
        self.queries = nn.Parameter(0.5 * torch.randn(s.queries, s.width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                s.width, s.heads, s.hidden, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(s.depth)
        )
        self.exit_norm = nn.LayerNorm(s.width, elementwise_affine=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Read a batch of captions.

        Args:
            states: ``(n, tokens, states)`` of the frozen encoder. mask: ``(n, tokens)``, 1 where
                there is a token.
        """
        memory = self.entry_norm(self.entry(states)) + self.positions[: states.shape[1]]
        x = self.queries.expand(len(states), -1, -1)
        padding = mask == 0
        for layer in self.layers:
            x = layer(x, memory, memory_key_padding_mask=padding)
        return torch.as_tensor(self.exit_norm(x))


class SceneTextEncoder(nn.Module):
    """MiniLM and the text layers as one module that speaks as a transformers text encoder does."""

    def __init__(self, frozen: Any, layers: TextLayers) -> None:
        super().__init__()
        self.frozen, self.layers = frozen, layers
        self.config = SimpleNamespace(**asdict(layers.shape), use_attention_mask=True)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.layers.queries.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.layers.queries.device

    @torch.no_grad()
    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States of the frozen encoder ``(n, tokens, states)``."""
        return torch.as_tensor(
            self.frozen(input_ids, attention_mask=attention_mask).last_hidden_state
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        """Rows ``(n, queries, width)`` for token ids, as the first of a tuple."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        input_ids, attention_mask = (
            x[:, : self.layers.shape.tokens] for x in (input_ids, attention_mask)
        )
        return (self.layers(self.states(input_ids, attention_mask), attention_mask),)
