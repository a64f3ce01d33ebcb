"""Trains the embedded image generator on scenes: ``python -m tasks.embedded_training STEP``.

Steps, in order: ``autoencoder``, ``parser`` (the text layers on the grammar's own truth), and
``generator`` (text layers and UNet together), which may run for days; each goes on from its
checkpoint when it is started again.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.scenes.captions import caption
from data.scenes.grammar import Split, World
from data.scenes.objects import THINGS
from data.scenes.painter import paint_all
from data.scenes.truth import SIZES_OF_COLUMNS, columns
from gill.backbones.embedded.autoencoder import (
    AutoencoderShape,
    SceneAutoencoder,
    reconstruction_loss,
)
from gill.backbones.embedded.captions import CaptionStates, ChunkOrder, caption_states
from gill.backbones.embedded.generator import new_text_encoder
from gill.backbones.embedded.parsing import (
    ParsingHeads,
    TruthSizes,
    parsing_accuracy,
    parsing_loss,
)
from gill.training import Optimization, Trainer

logger = logging.getLogger("gill.backbones")

FOLDER = Path(__file__).parents[1] / "var" / "embedded_training"

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
PARSER_RUN = Optimization(
    steps=1500,
    learning_rate=1e-3,
    betas=(0.9, 0.98),
    warmup_steps=200,
    schedule="trapezoid",
    precision="bfloat16",
    seed=1,
)
PARSER_BATCH, PARSER_CHUNK, PARSER_PASSES, PARSER_NOISE = 64, 2048, 3, 0.5
CONSISTENCY = 1.0  # weight of the distance between two wordings of one scene


def save(path: Path, state: Any) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def images_of(world: World, split: Split, start: int, count: int) -> Tensor:
    """Scenes ``start`` to ``start + count`` of a split: ``(count, 3, 64, 64)`` in [-1, 1]."""
    pixels = paint_all([world.scene(split, i) for i in range(start, start + count)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # already channels last in memory
    return images.float().div_(127.5).sub_(1)


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
    vae.eval()
    with torch.no_grad():
        held_out = images_of(world, "test_new", 0, 512)
        error = torch.cat([(vae(part)[1] - part).abs().mean((1, 2, 3)) for part in held_out.split(64)])
    return {"absolute_error": float(error.mean()), "standard_error": float(error.std() / 512**0.5)}


def train_parser(folder: Path) -> dict[str, float]:
    """Train the text layers to read captions of all objects; report accuracy on held-out ones."""
    world = World(len(THINGS))
    encoder, tokenizer = new_text_encoder()
    heads = ParsingHeads(encoder.layers.shape.width, TruthSizes(**SIZES_OF_COLUMNS))
    trained = nn.ModuleDict({"layers": encoder.layers, "heads": heads})

    def read(split: Split, start: int, count: int, variant: int) -> CaptionStates:
        scenes = [world.scene(split, i) for i in range(start, start + count)]
        captions = [caption(s, split, start + i, variant) for i, s in enumerate(scenes)]
        return caption_states(encoder, tokenizer, captions)

    def truth(split: Split, start: int, count: int) -> Tensor:
        return torch.tensor([columns(world.scene(split, i)) for i in range(start, start + count)])

    def loss(batch: tuple[CaptionStates, CaptionStates, Tensor]) -> dict[str, Tensor]:
        one, other, said = batch
        rows = encoder.layers(torch.cat([one.states, other.states]), torch.cat([one.mask, other.mask]))
        noisy = rows + PARSER_NOISE * torch.randn_like(rows)
        first, second = rows.float().chunk(2)
        apart = (first - second).square().mean()
        parsing = parsing_loss(heads(noisy), torch.cat([said, said]))
        return {"loss": parsing + CONSISTENCY * apart, "parsing": parsing, "apart": apart}

    def batches(step: int) -> Iterator[tuple[CaptionStates, CaptionStates, Tensor]]:
        order = ChunkOrder(PARSER_CHUNK, PARSER_BATCH, PARSER_PASSES)
        held = -1
        while True:
            chunk, rows = order.rows(step)
            if chunk != held:
                start = chunk * PARSER_CHUNK
                one, other = (read("train", start, PARSER_CHUNK, v) for v in (0, 1))
                said, held = truth("train", start, PARSER_CHUNK), chunk
            yield one.rows(rows), other.rows(rows), said[rows]
            step += 1

    trainer = Trainer(trained, loss, PARSER_RUN)
    drive(trainer, batches, folder / "parser.pt", every=50)
    held_out = read("test_new", 0, 2048, 0)
    with torch.no_grad():
        found = heads(encoder.layers(held_out.states.float(), held_out.mask))
    accuracy = parsing_accuracy(found, truth("test_new", 0, 2048))
    names = [f"{what}_{i}" for i in range(3) for what in ("object", "number", "size")]
    return dict(zip([*names, "arrangement", "ground"], accuracy, strict=True))


def drive(trainer: Trainer, batches: Any, path: Path, every: int) -> None:
    """Run a trainer to its end, with checkpoints and a log line at every ``every`` updates."""
    if path.exists():
        trainer.load_state_dict(torch.load(path, weights_only=False))
    average, since, first = 0.0, time.monotonic(), trainer.step
    for report in trainer.run(batches(trainer.step)):
        loss = float(report.losses["loss"])
        average = loss if average == 0.0 else 0.98 * average + 0.02 * loss
        if report.step % every == 0 or report.step == trainer.config.steps:
            save(path, trainer.state_dict())
            rate = (report.step - first) * report.examples / (time.monotonic() - since)
            left = (trainer.config.steps - report.step) * report.examples / rate / 60
            logger.info(
                "%s: %d of %d updates, loss %.4f, %.0f images a second, %.1f minutes left",
                path.stem, report.step, trainer.config.steps, average, rate, left,
            )  # fmt: skip


STEPS = {"autoencoder": train_autoencoder, "parser": train_parser}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(prog="python -m tasks.embedded_training", description=__doc__)
    parser.add_argument("step", choices=tuple(STEPS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    step = STEPS[arguments.step]
    logger.info("%s: %s", arguments.step, step(arguments.folder))


if __name__ == "__main__":
    main()
