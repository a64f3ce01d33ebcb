"""Drives a ``Trainer`` inside a stage: checkpoints, metrics over steps, progress with ETA."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from gill.training import Optimization, Trainer
from tasks.config import TrainingConfig
from tasks.stage import StageContext

# Training draws from PyTorch's global generator, which all threads share: one stage at a time.
RANDOM = threading.Lock()
_CHECKPOINT = "checkpoint.pt"


def optimization(config: TrainingConfig) -> Optimization:
    """The optimizer settings of a training stage."""
    names = Optimization.__dataclass_fields__
    return Optimization(**{k: v for k, v in config.model_dump().items() if k in names})


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Save the whole state so that a crash leaves the old checkpoint or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as handle:
        torch.save(trainer.state_dict(), handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def restore(path: Path, trainer: Trainer) -> int:
    """Load a checkpoint if there is one; return the step to go on from."""
    if path.exists():
        device = trainer.parameters[0].device
        trainer.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    return trainer.step


def train(
    trainer: Trainer,
    batches: Callable[[int], Iterable[Any]],
    context: StageContext,
    name: str = "",
    validate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Run a trainer to its last step, going on from the stage's checkpoint.

    Args:
        batches: gives the batches from a position on.
        name: prefix of the metrics and the checkpoint, for a stage that trains several things.
        validate: held-out metrics, computed every ``validate_every`` steps and at the end.
    """
    config: TrainingConfig = context.config
    prefix = f"{name}_" if name else ""
    checkpoint = context.out / f"{prefix}{_CHECKPOINT}"
    resumed = restore(checkpoint, trainer)
    began, examples = time.monotonic(), 0
    total = trainer.config.steps
    every = getattr(config, "validate_every", 0)
    for report in trainer.run(batches(trainer.step * trainer.config.accumulate)):
        examples += report.examples
        last = report.step == total
        if report.step % config.log_every == 0 or last:
            speed = examples / max(1e-9, time.monotonic() - began)
            values = {f"{prefix}{k}": float(v) for k, v in report.losses.items()}
            values |= {
                f"{prefix}learning_rate": report.learning_rate,
                f"{prefix}gradient_norm": float(report.gradient_norm),
                f"{prefix}examples_per_second": speed,
            }
            context.log.metrics(values, report.step)
        context.log.progress(report.step, total, f"{prefix}steps", resumed)
        if report.step % config.checkpoint_every == 0 or last:
            save_checkpoint(checkpoint, trainer)
        if validate is not None and every and report.step % every == 0 and not last:
            context.log.metrics(
                {f"{prefix}validation_{k}": v for k, v in validate().items()}, report.step
            )


def finish(context: StageContext) -> None:
    """Remove the checkpoints once the results are written."""
    for path in context.out.glob(f"*{_CHECKPOINT}"):
        path.unlink()
