"""The heads of the embedded image-text model and how they are trained."""

import math

import torch
from torch import nn

from gill.backbones.embedded.heads import (
    ProjectionHeads,
    batch_indices,
    heads_trainer,
    image_features,
)
from gill.training import Optimization


def test_scores_are_scaled_cosines():
    heads = ProjectionHeads(2, 2, 2)
    with torch.no_grad():
        heads.image.weight.copy_(torch.eye(2))
        heads.text.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        heads.logit_scale.fill_(math.log(10))
    image, text = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    torch.testing.assert_close(heads(image, text), torch.tensor([[6.0, 8.0]]))
    with torch.no_grad():
        heads.logit_scale.fill_(9.0)  # the scale is capped at 100
    torch.testing.assert_close(heads(image, text), torch.tensor([[60.0, 80.0]]))


def test_training_brings_pairs_together():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(64, 8, generator=generator)
    text = image @ torch.randn(8, 6, generator=generator)
    torch.manual_seed(0)
    heads = ProjectionHeads(8, 6, 4)
    config = Optimization(steps=60, learning_rate=1e-2)
    trainer = heads_trainer(heads, image, text, config, noise=0.01)
    batches = batch_indices(64, 32, 0, 0)
    losses = [float(report.losses["loss"]) for report in trainer.run(batches)]
    assert losses[-1] < 0.6 * losses[0]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own():
    batches = batch_indices(12, 4, seed=3, start=0)
    epochs = [torch.cat([next(batches) for _ in range(3)]) for _ in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(12)) for epoch in epochs)
    assert not torch.equal(*epochs)
    later = batch_indices(12, 4, seed=3, start=4)
    assert torch.equal(next(later), epochs[1][4:8])


def test_quadrants_are_means_of_quarters():
    class Trunk(nn.Module):
        def forward_features(self, pixels):
            return pixels

    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    found = image_features(Trunk(), pixels)
    assert found["pooled"].tolist() == [[7.5]]
    assert found["quadrants"].tolist() == [[2.5, 4.5, 10.5, 12.5]]
