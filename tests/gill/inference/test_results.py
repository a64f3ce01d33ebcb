"""Results: pixels to images, and likelihoods per token."""

import torch

from gill.inference.results import Likelihood, as_pil


def test_pixels_are_rounded_and_keep_their_place():
    image = torch.zeros(3, 2, 3)
    image[0, 0, 2] = 1.0  # red at the right of the first row
    image[1, 1, 0] = 0.5
    image[2, 1, 1] = 7.0  # out of range
    found = as_pil(image)
    assert found.size == (3, 2)
    assert found.getpixel((2, 0)) == (255, 0, 0)
    assert found.getpixel((0, 1)) == (0, 128, 0)
    assert found.getpixel((1, 1)) == (0, 0, 255)


def test_likelihood_per_token():
    found = Likelihood(torch.tensor([-6.0, -1.0]), torch.tensor([3, 1]))
    assert found.mean.tolist() == [-2.0, -1.0]
