"""How close sets of pictures are, in a named feature space."""

from __future__ import annotations

import numpy as np
import torch
from scipy import linalg
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two Gaussians fitted to features ``(n, d)`` and ``(m, d)``.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Dowson and Landau 1982). It is called FID
    only with Inception features; with fewer samples than dimensions it is biased upwards, so only
    distances from the same number of samples compare.
    """
    x, y = a.double().numpy(), b.double().numpy()
    shift = x.mean(0) - y.mean(0)
    covariance_a, covariance_b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # The eigenvalues of a product of two covariances are real and not negative; what rounding
    # leaves of the imaginary part and below zero is dropped.
    eigenvalues = linalg.eigvals(covariance_a @ covariance_b)
    root = np.sqrt(np.clip(eigenvalues.real, 0.0, None)).sum()
    return float(shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root)


def paired_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine ``(n,)`` of rows of unit vectors."""
    return torch.as_tensor((a * b).sum(-1))
