"""Features of the embedded image-text model."""

import torch

from gill.backbones.embedded.heads import image_features


def test_quadrants_are_means_of_their_quarters():
    class Trunk:
        def forward_features(self, x):
            return x

    maps = torch.randn(2, 3, 4, 4)
    found = image_features(Trunk(), maps)
    quarters = [maps[:, :, y : y + 2, x : x + 2].mean((2, 3)) for y in (0, 2) for x in (0, 2)]
    assert torch.allclose(found["quadrants"], torch.cat(quarters, 1), atol=1e-6)
    assert torch.allclose(found["pooled"], maps.mean((2, 3)), atol=1e-6)
