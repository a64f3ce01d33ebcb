"""Ridge regression, which some parts start from."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(inputs: Tensor, targets: Tensor, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weight ``(out, in)`` and bias ``(out,)`` of the linear map from ``inputs`` to ``targets``.

    Args:
        inputs: ``(n, in)``. targets: ``(n, out)``.
        penalty: on the squared weights, relative to the mean variance of the inputs.
    """
    middle, centre = inputs.mean(0), targets.mean(0)
    x = inputs - middle
    gram = x.T @ x
    gram.diagonal().add_(penalty * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, x.T @ (targets - centre))
    return weight.T, centre - middle @ weight
