"""Measures of images against the formula and known cases."""

import lpips
import numpy as np
import pytest
import torch
from scipy import linalg
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from gill.evaluation.images import frechet_distance, paired_similarity, perceptual_distance


def test_frechet_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.normal(0, 1, (200_000, 2)))
    b = torch.from_numpy(rng.normal([3.0, 4.0], 2, (200_000, 2)))
    # |mu|^2 = 25 and, for each dimension, (1 - 2)^2 = 1.
    assert frechet_distance(a, b) == pytest.approx(27.0, rel=0.01)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("count", [40, 12])  # the second has fewer samples than dimensions
def test_frechet_distance_is_the_formula(count):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (count, 16)), rng.normal(0.2, 1.5, (50, 16))
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = a.mean(0) - b.mean(0)
    wanted = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)
    found = frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_paired_similarity():
    a = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert paired_similarity(a, torch.tensor([[0.0, 1.0], [0.6, 0.8]])).tolist() == [0.0, 1.0]


def test_a_perceptual_distance_is_between_directions_by_hand():
    """Places are averaged and layers summed; how strong a map is does not matter."""
    first = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]]])  # two places: (3, 4) and (1, 0)
    other = torch.tensor([[[[6.0, 0.0]], [[8.0, 5.0]]]])  # (6, 8), the same way, and (0, 5)
    deeper = torch.tensor([[[[1.0]], [[0.0]]]])
    # (0 + 2) / 2 in the first layer, the opposite direction's 4 in the second.
    found = perceptual_distance([first, deeper], [other, -2 * deeper])
    assert found.tolist() == pytest.approx([1.0 + 4.0])
    assert perceptual_distance([first], [first]).tolist() == [0.0]


def test_frechet_distance_is_torch_fidelitys():
    torch.manual_seed(0)
    a, b = torch.randn(40, 12), torch.randn(50, 12) * 1.5 + 0.3
    both = [fid_features_to_statistics(x.double()) for x in (a, b)]
    theirs = fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-5)


def test_perceptual_distance_is_that_of_the_lpips_package_without_its_weights():
    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", pnet_rand=True, lpips=False, verbose=False).eval()
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        theirs = network(a, b, normalize=True).flatten()
        maps = [list(network.net(network.scaling_layer(2 * x - 1))) for x in (a, b)]
    assert torch.allclose(perceptual_distance(*maps), theirs, atol=1e-5)
