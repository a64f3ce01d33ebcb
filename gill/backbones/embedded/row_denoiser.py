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
        tables = {
            "group": [codes.objects, codes.numbers, codes.sizes],
            "arrangement": [codes.arrangements],
            "ground": [codes.grounds],
        }
        self.rows = [*["group"] * GROUPS, "arrangement", "ground"]
        self.factors = {kind: [len(table) for table in of] for kind, of in tables.items()}
        for kind, of in tables.items():
            vectors = torch.cat(of)
            # The tags of other rows are in the way of none, and a mapper may mix them in.
            parts = torch.linalg.pinv(torch.cat([vectors, codes.tags]))[:, : len(vectors)]
            self.register_buffer(f"{kind}_vectors", vectors, persistent=False)
            self.register_buffer(f"{kind}_parts", parts.contiguous(), persistent=False)
        self.register_buffer("tags", codes.tags.clone(), persistent=False)
        self.tags: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Denoise a batch, in float32 whatever precision surrounds it."""
        with torch.autocast(rows.device.type, enabled=False):
            found = [self._scores(rows[:, row].float(), kind) for row, kind in enumerate(self.rows)]
            kinds = one_row_each(torch.stack([scores[0] for scores in found[:GROUPS]], 1))
            for row, scores in enumerate(found[:GROUPS]):
                scores[0] = kinds[:, row]
            made = [
                self._together(scores, kind) for scores, kind in zip(found, self.rows, strict=True)
            ]
            denoised = torch.stack(made, 1) + self.tags.float()
            return F.layer_norm(denoised, (self.width,)).to(rows.dtype)

    def _scores(self, values: Tensor, kind: str) -> list[Tensor]:
        """How far the classes of each factor stand out; the first of each is "not said"."""
        parts = values @ getattr(self, f"{kind}_parts").float()
        factors = parts.split(self.factors[kind], dim=-1)
        return [SHARPNESS * F.pad(factor, (1, 0), value=LEAST) for factor in factors]

    def _together(self, scores: list[Tensor], kind: str) -> Tensor:
        shares = torch.cat([factor.softmax(-1)[:, 1:] for factor in scores], -1)
        return shares @ getattr(self, f"{kind}_vectors").float()


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


def read_through(unet: Any, codes: TruthCodes) -> Any:
    """Let a diffusers UNet read its rows through the denoiser of a code."""
    unet.encoder_hid_proj = RowDenoiser(codes)
    unet.register_to_config(encoder_hid_dim_type="text_proj")
    return unet
