"""The step ``generator``: the UNet, on latents and codes of an endless stream of scenes.

A chunk of scenes is painted and encoded once and then used several times with new noise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.scenes.grammar import World
from gill.backbones.embedded.captions import ChunkOrder
from gill.backbones.embedded.codes import swapped_groups
from gill.backbones.embedded.denoiser import MovingAverage, unsure, velocity_loss
from gill.backbones.embedded.generator import UNetShape, load_weights, new_unet
from gill.backbones.embedded.row_denoiser import read_through
from gill.backbones.embedded.text_encoder import TextShape
from gill.backbones.image_generator import new_scheduler
from gill.training import Optimization, Trainer
from tasks.embedded_training.autoencoder import load_autoencoder
from tasks.embedded_training.common import drive, images_of, load, save
from tasks.embedded_training.parser import new_codes, truth_of

logger = logging.getLogger("gill.backbones")

BATCH, CHUNK, PASSES = 64, 4096, 6
LEARNING_RATE = 1e-3
IMAGES = 5_000_000  # half a day of one core for each million
CHECKPOINT_EVERY = 512  # updates; about 4 minutes on one core
MILESTONES = (25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000)


@dataclass(frozen=True)
class Phase:
    """Which scenes are trained on from a number of images on."""

    start: int
    world: World


CURRICULUM = (
    Phase(0, World(40, (45, 15, 36))),
    Phase(300_000, World(40, (20, 20, 55))),
)


def world_at(images: int) -> World:
    """The world of the curriculum's phase."""
    return [phase.world for phase in CURRICULUM if phase.start <= images][-1]


@dataclass(frozen=True)
class SceneBatch:
    """Latents ``(n, c, 8, 8)``, rows of the code ``(n, rows, width)``, rows in another order."""

    latents: Tensor
    rows: Tensor
    swapped: Tensor

    def __len__(self) -> int:
        return len(self.latents)


class Chunks:
    """Latents and rows of the code of chunks of training scenes.

    Args:
        folder: where the trained autoencoder is.
    """

    def __init__(self, folder: Path, order: ChunkOrder) -> None:
        self.order = order
        self.vae = load_autoencoder(folder)
        self.codes = new_codes()

    @torch.no_grad()
    def make(self, number: int) -> SceneBatch:
        """A chunk."""
        count = self.order.chunk
        world = world_at(number * count * self.order.passes)
        start = number * count
        latents = []
        for at in range(start, start + count, 256):
            images = images_of(world, "train", at, min(256, start + count - at))
            with torch.autocast("cpu", torch.bfloat16):
                latents.append(self.vae.latents(images))
        truth = truth_of(world, "train", start, count)
        return SceneBatch(torch.cat(latents), self.codes(truth), self.codes(swapped_groups(truth)))

    def batches(self, step: int) -> Iterator[SceneBatch]:
        """Batches from an update on; they do not end."""
        held, made = -1, SceneBatch(torch.empty(0), torch.empty(0), torch.empty(0))
        while True:
            chunk, chosen = self.order.rows(step)
            if chunk != held:
                made = self.make(chunk)
                held = chunk
            latents = made.latents[chosen].contiguous(memory_format=torch.channels_last)
            yield SceneBatch(latents, made.rows[chosen], made.swapped[chosen])
            step += 1


def new_trainer(unet: Any, average: MovingAverage, empty: Tensor, config: Optimization) -> Trainer:
    """The UNet's trainer."""
    scheduler = new_scheduler()

    def loss(batch: SceneBatch) -> dict[str, Tensor]:
        rows = unsure(batch.rows, batch.swapped)
        return {"loss": velocity_loss(unet, scheduler, batch.latents, rows, empty)}

    return Trainer(
        unet, loss, config, lambda: average.update(unet), companions={"average": average}
    )


def averaged_unet(path: Path) -> tuple[Any, int]:
    """A UNet with the averaged weights of a checkpoint or milestone, and the images it has seen."""
    state = load(path)
    unet = read_through(new_unet(UNetShape(), TextShape()), new_codes())
    if "unet" in state:
        unet.load_state_dict(state["unet"])
        return unet.eval(), int(state["images"])
    averaged = state["companions"]["average"]
    start = "average."
    unet.load_state_dict(
        {k.removeprefix(start): v for k, v in averaged.items() if k.startswith(start)}
    )
    return unet.eval(), int(state["step"]) * BATCH


def train_generator(
    folder: Path, images: int = IMAGES, shipped: Path | None = None
) -> dict[str, float]:
    """Train until so many images have been seen, from the checkpoint if there is one.

    Args:
        shipped: where there is no checkpoint, begin with the shipped averaged weights and at the
            number of images they had seen, with a new optimizer.
    """
    order = ChunkOrder(CHUNK, BATCH, PASSES)
    chunks = Chunks(folder, order)
    torch.manual_seed(0)
    unet, copy = (
        read_through(new_unet(UNetShape(), TextShape()), chunks.codes).to(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    begin = 0
    if shipped is not None:
        load_weights(unet, shipped / "unet" / "diffusion_pytorch_model.safetensors")
        unet.requires_grad_(True)
        begin = json.loads((shipped / "training.json").read_text())["generator"]["images_seen"]
    average = MovingAverage(unet, copy)
    empty = chunks.codes.empty()
    config = Optimization(
        steps=images // BATCH,
        learning_rate=LEARNING_RATE,
        betas=(0.9, 0.99),
        warmup_steps=200,
        schedule="trapezoid",
        precision="bfloat16",
        seed=1,
    )
    trainer = new_trainer(unet, average, empty, config)
    trainer.step = begin // BATCH
    average.updates.fill_(trainer.step)

    def keep_milestone(step: int) -> None:
        seen = step * BATCH
        for mark in MILESTONES:
            path = folder / f"unet-{mark}.pt"
            if mark <= seen and not path.exists():
                save(path, {"images": seen, "unet": average.average.state_dict()})

    drive(
        trainer,
        chunks.batches,
        folder / "generator.pt",
        CHECKPOINT_EVERY,
        after_checkpoint=keep_milestone,
    )
    return {"images": float(trainer.step * BATCH)}
