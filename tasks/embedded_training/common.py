"""What the steps share: folders, checkpoints, images of scenes, the loop around a trainer."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.scenes.grammar import Split, World
from data.scenes.painter import paint_all
from gill.training import Trainer

logger = logging.getLogger("gill.backbones")

FOLDER = Path(__file__).parents[2] / "var" / "embedded_training"
SHIPPED = Path(__file__).parents[2] / "data" / "embedded" / "weights"


def only_shipped(checkpoint: Path, shipped: Path) -> bool:
    """Whether a part must be taken from what is shipped because its checkpoint is gone."""
    if checkpoint.exists() or not shipped.exists():
        return False
    logger.info("%s is missing: taken from %s", checkpoint, shipped)
    return True


def save(path: Path, state: Any) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load(path: Path) -> Any:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: an earlier step has not been run.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run the step {path.stem!r} first")
    return torch.load(path, weights_only=True)


def images_of(world: World, split: Split, start: int, count: int) -> Tensor:
    """Scenes ``start`` to ``start + count`` of a split: ``(count, 3, 64, 64)`` in [-1, 1]."""
    pixels = paint_all([world.scene(split, i) for i in range(start, start + count)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # already channels last in memory
    return images.float().div_(127.5).sub_(1)


def drive(
    trainer: Trainer,
    batches: Callable[[int], Iterator[Any]],
    path: Path,
    every: int,
    size: Callable[[Any], int] = len,
    after_checkpoint: Callable[[int], None] | None = None,
) -> None:
    """Run a trainer to its end, with a checkpoint and a log line after every ``every`` updates.

    Args:
        batches: the batches from an update on. size: examples in one.
        after_checkpoint: is told the number of finished updates.
    """
    if path.exists():
        state = load(path)
        now = trainer.config  # a run may be made longer, or be brought to its end
        state["config"] |= {"steps": now.steps, "schedule": now.schedule}
        trainer.load_state_dict(state)
        logger.info("%s goes on from update %d", path.stem, trainer.step)
    average, since, first = 0.0, time.monotonic(), trainer.step
    for report in trainer.run(batches(trainer.step), size):
        loss = float(report.losses["loss"])
        average = loss if average == 0.0 else 0.99 * average + 0.01 * loss
        if report.step % every == 0 or report.step == trainer.config.steps:
            save(path, trainer.state_dict())
            rate = (report.step - first) * report.examples / (time.monotonic() - since)
            left = (trainer.config.steps - report.step) * report.examples / rate / 60
            logger.info(
                "%s: %d updates, %d examples, loss %.4f, %.0f a second, %.0f minutes left",
                path.stem, report.step, report.step * report.examples, average, rate, left,
            )  # fmt: skip
            if after_checkpoint is not None:
                after_checkpoint(report.step)
