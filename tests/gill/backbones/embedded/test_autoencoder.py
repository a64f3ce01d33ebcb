"""The autoencoder of scenes, and its loss against the plain one."""

import torch

from gill.backbones.embedded.autoencoder import (
    AutoencoderShape,
    SceneAutoencoder,
    reconstruction_loss,
)

MICRO = AutoencoderShape(channels=4, wide=16, middle=16)


def test_latents_are_normalised_and_an_eighth_of_the_edge():
    torch.manual_seed(0)
    vae = SceneAutoencoder(MICRO).train()
    images = torch.rand(16, 3, 64, 64) * 2 - 1
    latents, decoded = vae(images, noise=0.3)
    assert latents.shape == (16, 4, 8, 8)
    assert decoded.shape == images.shape
    assert latents.mean((0, 2, 3)).abs().max() < 1e-5
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-2
    vae.eval()
    assert torch.equal(vae.decode(latents).sample, vae.decode(latents, return_dict=False)[0])


def test_reconstruction_loss_is_the_plain_one():
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    error = a - b
    across = (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    assert torch.allclose(reconstruction_loss(a, b), error.abs().mean() + (across + down) / 2)
    assert reconstruction_loss(a, a) == 0
