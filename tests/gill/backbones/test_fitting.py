"""How the embedded backbones are trained: batches, losses and the averages that are shipped."""

import math

import pytest
import torch
from torch import nn

from gill.backbones.fitting import (
    KL_WEIGHT,
    AveragedDenoiser,
    ProjectionHeads,
    autoencoder_trainer,
    batch_indices,
    encode_latents,
    heads_trainer,
)
from gill.backbones.testing import micro_models
from gill.losses import contrastive_loss
from gill.training import Optimization


def taken(start, count):
    rows = batch_indices(10, 3, 7, start)
    return [next(rows).tolist() for _ in range(count)]


def test_an_epoch_has_no_row_twice_and_the_next_another_order():
    first, second = taken(0, 3), taken(3, 3)
    assert len({row for batch in first for row in batch}) == 9  # the rest of 10 is left out
    assert first != second


def test_a_resumed_training_sees_the_batches_that_it_would_have_seen():
    assert taken(0, 8)[5:] == taken(5, 3)


def test_fewer_rows_than_a_batch_are_all_taken():
    rows = batch_indices(2, 5, 0, 0)
    assert sorted(next(rows).tolist()) == [0, 1]


def heads_of(*weights):
    heads = ProjectionHeads(2, 2, 2)
    with torch.no_grad():
        for layer, weight in zip((heads.image, heads.text), weights, strict=True):
            layer.weight.copy_(torch.tensor(weight))
    return heads


def test_similarities_are_cosines_times_a_scale_of_at_most_a_hundred():
    heads = heads_of([[2.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]])
    image, text = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    found = heads(image, text).detach()
    torch.testing.assert_close(found, torch.tensor([[0.6, -0.8]]) * math.exp(2.659))
    with torch.no_grad():
        heads.logit_scale.fill_(9.0)
    torch.testing.assert_close(heads(image, text).detach(), torch.tensor([[60.0, -80.0]]))


def test_the_heads_learn_with_the_symmetric_contrastive_loss():
    torch.manual_seed(0)
    image, text = torch.randn(4, 2), torch.randn(4, 2)
    heads = heads_of([[1.0, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.3, 1.0]])
    trainer = heads_trainer(heads, image, text, Optimization(steps=1), noise=0.0)
    rows = torch.tensor([2, 0, 3])
    x, y = heads.image(image[rows]), heads.text(text[rows])
    unit = [v / v.norm(dim=-1, keepdim=True) for v in (x, y)]
    expected = contrastive_loss(*unit, heads.logit_scale.exp())
    torch.testing.assert_close(trainer.loss(rows)["loss"], expected)


def test_the_autoencoders_loss_is_the_error_and_a_light_kl():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    config = Optimization(steps=30, learning_rate=3e-3)
    trainer = autoencoder_trainer(micro_models.autoencoder(), images, config)
    found = [r.losses for r in trainer.run(batch_indices(6, 6, 0, 0))]
    for losses in found:
        wanted = losses["reconstruction"] + KL_WEIGHT * losses["kl"]
        assert losses["loss"].item() == pytest.approx(wanted.item())
    assert found[-1]["reconstruction"] < 0.9 * found[0]["reconstruction"]


def test_latents_are_of_images_between_minus_one_and_one_in_any_batch():
    torch.manual_seed(0)
    vae = micro_models.autoencoder().eval()
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    mean, deviation = encode_latents(vae, images, batch_size=2)
    plain = vae.encode(images.float() / 127.5 - 1).latent_dist
    torch.testing.assert_close(mean, plain.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(deviation, plain.std, atol=1e-5, rtol=1e-4)


def test_the_average_follows_the_weights_by_its_decay():
    module = nn.Linear(1, 1, bias=False)
    average = AveragedDenoiser(module, decay=0.9)
    for value in (1.0, 2.0):  # the first is taken over, the second moves it by a tenth
        nn.init.constant_(module.weight, value)
        average.update(module)
    assert average.average.module.weight.item() == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)
