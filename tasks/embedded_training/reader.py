"""The step ``reader``: the network that judges images, and what it finds in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from data.scenes.grammar import GROUNDS, SIZES, Scene, Split, World
from data.scenes.objects import THINGS
from data.scenes.scoring import FACTORS, KIND_OF, SIZE_NAMES, Seen, score
from gill.backbones.embedded import generator as parts
from gill.backbones.embedded.autoencoder import SceneAutoencoder
from gill.backbones.embedded.reader import ReaderShape, Reading, SceneReader, reader_loss
from gill.training import Optimization, Trainer
from tasks.embedded_training.autoencoder import load_autoencoder
from tasks.embedded_training.common import SHIPPED, drive, images_of, load, only_shipped

READER_RUN = Optimization(
    steps=1500,
    learning_rate=2e-3,
    betas=(0.9, 0.99),
    weight_decay=0.01,
    warmup_steps=100,
    schedule="trapezoid",
    precision="bfloat16",
    seed=1,
)
READER_BATCH, READER_NOISE = 64, 0.1
SCENES_OF_READER = 10_000_000  # index from which its scenes are taken: no generator sees them


def new_reader() -> SceneReader:
    """An untrained reader of all objects."""
    return SceneReader(ReaderShape(len(THINGS), tuple(SIZES.values()), len(GROUNDS)))


def cells_of(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Object, size, column and row of each cell ``(n, 4, 8, 8)``, and grounds ``(n,)``."""
    cells = torch.full((len(scenes), 4, 8, 8), -1)
    cells[:, 0] = 0
    for i, scene in enumerate(scenes):
        for group in scene.groups:
            edge = SIZES[group.size]
            inside = torch.arange(edge)
            for x, y in group.places:
                patch = cells[i, :, y : y + edge, x : x + edge]
                patch[0], patch[1] = KIND_OF[group.name] + 1, SIZE_NAMES.index(group.size)
                patch[2], patch[3] = inside[None, :], inside[:, None]
    return cells, torch.tensor([GROUNDS.index(scene.ground) for scene in scenes])


def train_reader(folder: Path) -> dict[str, float]:
    """Train on true scenes and their reconstructions; report scores on new compositions."""
    world, vae = World(len(THINGS)), load_autoencoder(folder)
    torch.manual_seed(0)
    reader = new_reader().to(memory_format=torch.channels_last)

    def loss(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        images, cells, grounds = batch
        half = len(images) // 2
        with torch.no_grad():
            latents = vae.latents(images[:half])
            strength = 0.6 * torch.rand(half, 1, 1, 1)
            images[:half] = vae.decoder(latents + strength * torch.randn_like(latents))
        images = images + READER_NOISE * torch.rand(len(images), 1, 1, 1) * torch.randn_like(images)
        seen, behind = reader(images)
        return {"loss": reader_loss(seen, behind, cells, grounds)}

    def batches(step: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while True:
            start = SCENES_OF_READER + step * READER_BATCH
            scenes = [world.scene("train", i) for i in range(start, start + READER_BATCH)]
            yield images_of(world, "train", start, READER_BATCH), *cells_of(scenes)
            step += 1

    trainer = Trainer(reader, loss, READER_RUN)
    drive(trainer, batches, folder / "reader.pt", every=100, size=lambda batch: len(batch[0]))
    return reader_accuracy(reader.eval(), vae, world, 1000)


def load_reader(folder: Path) -> SceneReader:
    """The trained reader, in evaluation mode."""
    if only_shipped(folder / "reader.pt", SHIPPED / "reader"):
        return parts.load_reader(SHIPPED / "reader")
    reader = new_reader()
    reader.load_state_dict(load(folder / "reader.pt")["module"])
    return reader.eval().requires_grad_(False)


def scores_of(scenes: Sequence[Scene], readings: Sequence[Reading]) -> dict[str, Tensor]:
    """Scores of each factor over the scenes that have it."""
    found: dict[str, list[float]] = {}
    for scene, reading in zip(scenes, readings, strict=True):
        seen = [Seen(o.kind, o.size, o.x, o.y) for o in reading.objects]
        for factor, value in score(scene, seen, reading.ground).items():
            found.setdefault(factor, []).append(value)
    return {k: torch.tensor(found[k]) for k in (*FACTORS, "order") if k in found}


def summary(scores: dict[str, Tensor]) -> dict[str, float]:
    """Means and, as ``..._se``, standard errors."""
    found = {}
    for factor, values in scores.items():
        found[factor] = round(float(values.mean()), 4)
        if len(values) > 1:
            found[f"{factor}_se"] = round(float(values.std() / len(values) ** 0.5), 4)
    return found


@torch.no_grad()
def reader_accuracy(
    reader: SceneReader, vae: SceneAutoencoder, world: World, count: int, split: Split = "test_new"
) -> dict[str, float]:
    """The reader's own rows: true scenes, through the autoencoder, and shuffled captions."""
    scenes = [world.scene(split, i) for i in range(count)]
    images = images_of(world, split, 0, count)
    through = torch.cat([vae.decoder(vae.latents(part)) for part in images.split(128)])
    readings = reader.read(images)
    rows = {
        "true": scores_of(scenes, readings),
        "autoencoder": scores_of(scenes, reader.read(through)),
        "shuffled": scores_of(scenes[1:] + scenes[:1], readings),
    }
    return {f"{row} {k}": v for row, found in rows.items() for k, v in summary(found).items()}
