"""Recall at k between aligned sets of unit vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ranks(queries: Tensor, candidates: Tensor, chunk: int = 1024) -> Tensor:
    """Rank ``(n,)`` of each query's own candidate (the same row), 0 being best.

    Ties count against the query, so that equal vectors cannot look like a success.
    """
    out = []
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ candidates.T
        rows = torch.arange(len(scores))
        own = scores[rows, start + rows]
        out.append((scores >= own[:, None]).sum(-1) - 1)
    return torch.cat(out)


def recall(text: Tensor, image: Tensor, at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """R@k of text to image and of image to text."""
    found: dict[str, float] = {}
    for name, queries, candidates in (("t2i", text, image), ("i2t", image, text)):
        position = ranks(queries, candidates)
        for k in at:
            found[f"{name}_r{k}"] = float((position < k).float().mean())
    return found
