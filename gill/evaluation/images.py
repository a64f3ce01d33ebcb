"""How close sets of images are, in a named feature space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two Gaussians fitted to features ``(n, d)`` and ``(m, d)``.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Dowson and Landau 1982). It is called FID
    only with Inception features; with fewer samples than dimensions it is biased upwards, so only
    distances from the same number of samples compare. Computed by torch-fidelity, from the
    eigenvalues of the product in double precision.
    """
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    fitted = [fid_features_to_statistics(features.double()) for features in (a, b)]
    return float(fid_statistics_to_metric(*fitted, verbose=False)[KEY_METRIC_FID])


def paired_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine ``(n,)`` of rows of unit vectors."""
    return torch.as_tensor((a * b).sum(-1))


def perceptual_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Distance ``(n,)`` of images, from maps ``(n, channels, h, w)`` of some layers of a network.

    LPIPS without its learnt weights (Zhang et al. 2018, eq. 1 with w = 1): maps are made unit
    vectors over the channels; squared differences are summed over channels, averaged over places
    and summed over layers. It is called LPIPS only with that network and its weights.
    """
    total = torch.zeros(len(a[0]))
    for x, y in zip(a, b, strict=True):
        difference = F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)
        total = total + difference.square().sum(1).mean((1, 2)).cpu()
    return total
