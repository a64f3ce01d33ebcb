"""The step ``autoencoder``: pixels to latents and back, on scenes of all objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from data.scenes.grammar import World
from data.scenes.objects import THINGS
from gill.backbones.embedded import generator as parts
from gill.backbones.embedded.autoencoder import (
    AutoencoderShape,
    SceneAutoencoder,
    reconstruction_loss,
)
from gill.training import Optimization, Trainer
from tasks.embedded_training.common import SHIPPED, drive, images_of, load, only_shipped

AUTOENCODER_RUN = Optimization(
    steps=3000,
    learning_rate=1e-3,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    warmup_steps=100,
    schedule="trapezoid",
    precision="bfloat16",
    seed=1,
)
AUTOENCODER_BATCH, AUTOENCODER_NOISE = 32, 0.3
DECODER_RUN = Optimization(
    **{**vars(AUTOENCODER_RUN), "steps": 1600, "learning_rate": 5e-4, "seed": 2}
)


def train_autoencoder(folder: Path) -> dict[str, float]:
    """Train on scenes of all objects; report the mean absolute error on held-out ones."""
    world = World(len(THINGS))
    torch.manual_seed(0)
    vae = SceneAutoencoder(AutoencoderShape()).to(memory_format=torch.channels_last)

    def loss(images: Tensor) -> dict[str, Tensor]:
        _, decoded = vae(images, AUTOENCODER_NOISE)
        return {"loss": reconstruction_loss(decoded, images)}

    def batches(step: int) -> Iterator[Tensor]:
        while True:
            yield images_of(world, "train", step * AUTOENCODER_BATCH, AUTOENCODER_BATCH)
            step += 1

    trainer = Trainer(vae, loss, AUTOENCODER_RUN, companions={"statistics": vae.scale})
    drive(trainer, batches, folder / "autoencoder.pt", every=250)
    return absolute_error(vae.eval(), world)


def train_decoder(folder: Path) -> dict[str, float]:
    """Train the decoder further and leave the latents, and so a generator, as they are."""
    world = World(len(THINGS))
    vae = load_autoencoder(folder)
    decoder = vae.decoder.requires_grad_(True)

    def loss(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            latents = vae.latents(images)
            strength = AUTOENCODER_NOISE * torch.rand(len(latents), 1, 1, 1)
            noised = latents + strength * torch.randn_like(latents)
        return {"loss": reconstruction_loss(decoder(noised), images)}

    def batches(step: int) -> Iterator[Tensor]:
        step += AUTOENCODER_RUN.steps
        while True:
            yield images_of(world, "train", step * AUTOENCODER_BATCH, AUTOENCODER_BATCH)
            step += 1

    trainer = Trainer(decoder, loss, DECODER_RUN)
    drive(trainer, batches, folder / "decoder.pt", every=200)
    return absolute_error(vae.eval(), world)


def absolute_error(vae: SceneAutoencoder, world: World) -> dict[str, float]:
    """Mean absolute error on new compositions, of a range of 2."""
    with torch.no_grad():
        held_out = images_of(world, "test_new", 0, 512)
        errors = [(vae(part)[1] - part).abs().mean((1, 2, 3)) for part in held_out.split(64)]
        error = torch.cat(errors)
    return {"absolute_error": float(error.mean()), "standard_error": float(error.std() / 512**0.5)}


def load_autoencoder(folder: Path) -> SceneAutoencoder:
    """The trained autoencoder, in evaluation mode, with the later decoder if there is one."""
    if only_shipped(folder / "autoencoder.pt", SHIPPED / "vae"):
        return parts.load_autoencoder(SHIPPED / "vae").to(memory_format=torch.channels_last)
    state = load(folder / "autoencoder.pt")
    vae = SceneAutoencoder(AutoencoderShape())
    vae.load_state_dict(state["module"], strict=False)
    vae.scale.load_state_dict(state["companions"]["statistics"])
    if (folder / "decoder.pt").exists():
        vae.decoder.load_state_dict(load(folder / "decoder.pt")["module"])
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
