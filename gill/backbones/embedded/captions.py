"""States of captions, computed once for a chunk of scenes, and the order in which rows are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gill.backbones.embedded.text_encoder import SceneTextEncoder


@dataclass(frozen=True)
class CaptionStates:
    """States of the frozen text encoder ``(n, tokens, width)`` and the mask ``(n, tokens)``."""

    states: Tensor
    mask: Tensor

    def rows(self, rows: Tensor) -> CaptionStates:
        """Some rows, cut to their longest caption."""
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        return CaptionStates(self.states[rows, :longest], mask[:, :longest])


def caption_states(
    encoder: SceneTextEncoder, tokenizer: Any, captions: Sequence[str], batch_size: int = 64
) -> CaptionStates:
    """Encode captions in the order of their length, in bfloat16; long ones are cut."""
    tokens = encoder.layers.shape.tokens
    ids = tokenizer(list(captions), truncation=True, max_length=tokens)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    states = torch.zeros(len(ids), tokens, encoder.layers.shape.states, dtype=torch.bfloat16)
    mask = torch.zeros(len(ids), tokens, dtype=torch.long)
    for start in range(0, len(ids), batch_size):
        part = order[start : start + batch_size]
        longest = len(ids[part[-1]])
        padded = torch.stack(
            [F.pad(torch.tensor(ids[i]), (0, longest - len(ids[i]))) for i in part]
        )
        seen = torch.stack([(torch.arange(longest) < len(ids[i])).long() for i in part])
        with torch.autocast(encoder.device.type, torch.bfloat16):
            found = encoder.states(padded, seen)
        states[part, :longest], mask[part, :longest] = found.to(torch.bfloat16), seen
    return CaptionStates(states, mask)


@dataclass(frozen=True)
class ChunkOrder:
    """Which rows of which chunk an update sees: a chunk is used ``passes`` times, each shuffled.

    Repeating a chunk with new noise costs little in quality and saves painting and encoding (data
    echoing; Choi et al. 2019).
    """

    chunk: int
    batch: int
    passes: int

    def rows(self, step: int) -> tuple[int, Tensor]:
        """Number of the chunk of an update, and its rows ``(batch,)``."""
        per_pass = self.chunk // self.batch
        sweep, at = divmod(step, per_pass)
        order = torch.randperm(self.chunk, generator=torch.Generator().manual_seed(sweep))
        return sweep // self.passes, order[at * self.batch : (at + 1) * self.batch]
