"""The four losses of GILL (facts: l_c, l_p, l_r, l_g), each a scalar in float32."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GenerationForm = Literal["norm", "squared"]


def token_loss(vocabulary: Tensor, img: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the vocabulary extended by the [IMG] tokens, mean over the labels: l_c, l_p.

    Args:
        vocabulary: logits ``(n, vocab_size)`` of the frozen output layer.
        img: logits ``(n, r)`` of the [IMG] tokens.
        labels: ``(n,)``, ids; [IMGi] is ``vocab_size + i``.
    """
    return F.cross_entropy(torch.cat([vocabulary.float(), img.float()], dim=-1), labels)


def contrastive_loss(text: Tensor, image: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the batch: l_r.

    Args:
        text: unit vectors ``(n, d)``; image: unit vectors ``(n, d)`` of the same examples.
        scale: the inverse temperature.
    """
    logits = scale * text @ image.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def generation_loss(predicted: Tensor, target: Tensor, form: GenerationForm = "norm") -> Tensor:
    """Distance between the mapper's output and the text encoder's output: l_g.

    ``norm`` is the released code's: l2 norm over the width, mean over tokens and batch.
    ``squared`` is the paper's equation: squared l2 norm over the width, mean over both.

    Args:
        predicted: ``(batch, tokens, dim)``; target: the same shape.
    """
    difference = predicted.float() - target.float()
    if form == "squared":
        return difference.square().sum(-1).mean()
    if form == "norm":
        return difference.norm(dim=-1).mean()
    raise ValueError(f"the form of the generation loss is {form!r}; use 'norm' or 'squared'")
