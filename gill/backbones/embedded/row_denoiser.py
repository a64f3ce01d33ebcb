"""Rows of a mapper, read as noisy sums of the code's vectors.

What minimises l_g is a mean over all that a caption may mean: a little of every class, with the
true ones ahead. Read through inner products with the vectors, the rest drowns them; but the vectors
are known and fewer than a row is wide, so each one's part can be told exactly. Every factor then
keeps the classes that stand out, and the row is put together again.

It stands before the UNet's cross-attention and has no weights of its own: diffusers' place for it
is ``encoder_hid_proj``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.backbones.embedded.codes import GROUPS, TruthCodes

SHARPNESS = 100.0  # of the softmax over parts; those of a true class are 0.1 to 0.7
LEAST = 0.1  # the part of a class below which a factor counts as not said
ROUNDS = 10  # of the assignment of kinds to rows


class RowDenoiser(nn.Module):
    """Rows ``(n, 5, width)`` to rows: exactly the code's where they come near to it."""

    def __init__(self, codes: TruthCodes) -> None:
        super().__init__()
        self.width = codes.width
        tables = [
            *[torch.cat([codes.objects, codes.numbers, codes.sizes])] * GROUPS,
            codes.arrangements,
            codes.grounds,
        ]
        groups = [len(codes.objects), len(codes.numbers), len(codes.sizes)]
        self.factors = [*[groups] * GROUPS, [len(codes.arrangements)], [len(codes.grounds)]]
        for row, table in enumerate(tables):
            # The tags of other rows are in the way of none, and a mapper may mix them in.
            parts = torch.linalg.pinv(torch.cat([table, codes.tags]))[:, : len(table)]
            self.register_buffer(f"vectors_{row}", table.clone(), persistent=False)
            self.register_buffer(f"parts_{row}", parts.contiguous(), persistent=False)
        self.register_buffer("tags", codes.tags.clone(), persistent=False)
        self.tags: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Denoise a batch, in float32 whatever precision surrounds it."""
        with torch.autocast(rows.device.type, enabled=False):
            found = [self._scores(rows[:, row].float(), row) for row in range(len(self.factors))]
            kinds = one_row_each(torch.stack([scores[0] for scores in found[:GROUPS]], 1))
            for row, scores in enumerate(found[:GROUPS]):
                scores[0] = kinds[:, row]
            made = [self._together(scores, row) for row, scores in enumerate(found)]
            return F.layer_norm(torch.stack(made, 1), (self.width,)).to(rows.dtype)

    def _scores(self, values: Tensor, row: int) -> list[Tensor]:
        """How far the classes of each factor stand out; the first of each is "not said"."""
        parts = values @ getattr(self, f"parts_{row}").float()
        factors = parts.split(self.factors[row], dim=-1)
        return [SHARPNESS * F.pad(factor, (1, 0), value=LEAST) for factor in factors]

    def _together(self, scores: list[Tensor], row: int) -> Tensor:
        shares = torch.cat([factor.softmax(-1)[:, 1:] for factor in scores], -1)
        return shares @ getattr(self, f"vectors_{row}").float() + self.tags[row].float()


def one_row_each(scores: Tensor) -> Tensor:
    """Scores ``(n, rows, classes)`` after which no kind of object has more than one row in all.

    A mapper that is not sure of the order has both kinds in both rows, and the likelier one would
    be drawn twice. These are Sinkhorn's iterations, with an upper bound for the columns instead of
    an equality; the first two classes, "not said" and "there is none", may have any number of rows.
    """
    for _ in range(ROUNDS):
        scores = scores.log_softmax(-1)
        over = scores[..., 2:].logsumexp(1, keepdim=True).clamp(min=0)
        scores = torch.cat([scores[..., :2], scores[..., 2:] - over], dim=-1)
    return scores


def read_through(unet: Any, denoiser: RowDenoiser) -> Any:
    """Let a diffusers UNet read its rows through a denoiser."""
    unet.encoder_hid_proj = denoiser
    unet.register_to_config(encoder_hid_dim_type="text_proj")
    return unet
