"""Networks that compare images, against plain computations."""

import torch
from PIL import Image

from tasks.config.evaluation import MetricNetworksConfig
from tasks.evaluation.metric_networks import MetricNetworks, as_pixels
from tasks.parts.loading import load_vision


def test_metric_networks_against_plain_computations(tiny_run):
    scorer = load_vision(tiny_run.config.parts.vision, tiny_run.config.runtime)
    metric_networks = MetricNetworks.load(
        MetricNetworksConfig(clip="tiny", perceptual=True), scorer, tiny_run.config.runtime
    )
    torch.manual_seed(0)
    a, b = torch.rand(70, 3, 16, 16), torch.rand(70, 3, 16, 16)  # more than a batch
    found = metric_networks.pairs(a, b)
    assert set(found) == {"clip_similarity", "perceptual_tiny_distance"}
    seen = [scorer.model.encode_image(scorer.prepare_tensor(x), normalize=True) for x in (a, b)]
    assert torch.allclose(found["clip_similarity"], (seen[0] * seen[1]).sum(-1), atol=1e-5)
    assert metric_networks.inception is None
    assert metric_networks.pairwise
    assert not MetricNetworks.load(MetricNetworksConfig(), scorer, tiny_run.config.runtime).pairwise


def test_images_become_squares_of_one_size():
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (10, 0, 30, 20))  # the middle square
    found = as_pixels([image, Image.new("L", (8, 8), 255)], 16)
    assert found.shape == (2, 3, 16, 16)
    assert found[0, :, 8, 8].tolist() == [0.0, 0.0, 1.0]
    assert float(found[0, 0].max()) == 0.0
    assert float(found[1].min()) == 1.0
