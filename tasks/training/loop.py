"""Drives a ``Trainer`` inside a stage: checkpoints, validation, metrics over steps, progress."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.io.atomic import write_json
from data.shards import AlignedShards, Columns
from gill.training import NonFiniteLossError, Trainer
from tasks.config.training import PairsTrainingConfig, TrainingConfig
from tasks.runner.context import StageContext
from tasks.training.checkpoints import Checkpoints, Selection, logger

# Training draws from PyTorch's global generator, which all threads share: one stage at a time.
RANDOM = threading.Lock()


_NOT_FINITE = "not_finite.json"


def held_out(shards: AlignedShards, config: PairsTrainingConfig) -> Columns:
    """The pairs that a validation looks at."""
    return shards.first(config.validation_pairs) if config.validation_pairs else shards.all()


def on_device(values: Any, device: torch.device, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A column of a batch on the device, through pinned memory where that is a GPU.

    The copy then runs beside what the GPU is doing, and so does the next step's reading.
    """
    rows = torch.from_numpy(np.asarray(values, dtype))
    if device.type == "cuda":
        rows = rows.pin_memory()
    return rows.to(device, non_blocking=True)


def train(
    trainer: Trainer,
    batches: Callable[[int], Iterable[Any]],
    context: StageContext,
    name: str = "",
    validate: Callable[[], dict[str, float]] | None = None,
    metric: str = "loss",
    start: Callable[[], None] | None = None,
) -> None:
    """Run a trainer to its last step, going on from the stage's checkpoint.

    Args:
        batches: gives the batches from a position on.
        name: prefix of the metrics and the checkpoints, for a stage that trains several things.
        validate: held-out metrics, computed every ``validate_every`` steps by the first worker.
        metric: the one by which the best step is chosen; lower is better.
        start: changes the untrained weights where there is no checkpoint to go on from.

    Raises:
        NonFiniteLossError: names the file with the keys of the batch.
        ResumeError: the checkpoint was made with other settings.
    """
    config: TrainingConfig = context.config
    prefix = f"{name}_" if name else ""
    checkpoints = Checkpoints(
        context.out, prefix, config.keep_checkpoints, config.fingerprint_fields()
    )
    selection = checkpoints.restore(trainer)
    if start is not None and trainer.step == 0:
        start()
    trainer.workers.barrier()  # the first worker may write a newer one as soon as it goes on
    try:
        _run(trainer, batches, context, prefix, checkpoints, selection, validate, metric)
    except NonFiniteLossError as error:
        path = context.out / f"{prefix}{_NOT_FINITE}"
        if trainer.workers.first:
            write_json(path, {"step": error.step, "losses": error.losses, "keys": error.keys})
        raise NonFiniteLossError(error.step, error.losses, error.keys, str(path)) from error
    if validate is not None and config.keep_best:
        checkpoints.restore_best(trainer)
        context.log.metrics({f"{prefix}best_step": float(selection.best_step)}, trainer.step)


def _run(
    trainer: Trainer,
    batches: Callable[[int], Iterable[Any]],
    context: StageContext,
    prefix: str,
    checkpoints: Checkpoints,
    selection: Selection,
    validate: Callable[[], dict[str, float]] | None,
    metric: str,
) -> None:
    config: TrainingConfig = context.config
    resumed, total = trainer.step, trainer.config.steps
    patience = config.early_stopping if validate is not None else 0
    chooses = config.keep_best or patience > 0
    if patience and selection.waited >= patience:
        return  # it was killed between stopping and what comes after
    began = saved = time.monotonic()
    examples = 0
    for report in trainer.run(batches(trainer.step)):
        examples += report.examples
        last = report.step == total
        if report.step % config.log_every == 0 or last:
            trainer.check()
            speed = examples / max(1e-9, time.monotonic() - began)
            values = {f"{prefix}{k}": float(v) for k, v in report.losses.items()}
            values |= {
                f"{prefix}learning_rate": report.learning_rate,
                f"{prefix}gradient_norm": float(report.gradient_norm),
                f"{prefix}examples_per_second": speed,
            }
            context.log.metrics(values, report.step)
        context.log.progress(report.step, total, f"{prefix}steps", resumed)
        # The stage validates after the last step anyway, so here only where there is a choice.
        if validate is not None and (
            (last and chooses) or (report.step % config.validate_every == 0 and not last)
        ):
            trainer.check()
            _validate(trainer, context, prefix, checkpoints, selection, validate, metric)
            last = last or bool(patience and selection.waited >= patience)
        due = time.monotonic() - saved > 60 * config.checkpoint_minutes
        if trainer.workers.first and (due or last or report.step % config.checkpoint_every == 0):
            trainer.check()
            checkpoints.save(trainer, selection)
            saved = time.monotonic()
        if last and report.step < total:
            best = selection.best_step
            logger.info("stopped at step %d: nothing better since step %d", report.step, best)
            return


def _validate(
    trainer: Trainer,
    context: StageContext,
    prefix: str,
    checkpoints: Checkpoints,
    selection: Selection,
    validate: Callable[[], dict[str, float]],
    metric: str,
) -> None:
    found = torch.zeros(1, dtype=torch.float32, device=trainer.device)
    if trainer.workers.first:
        values = validate()
        found += values[metric]
        context.log.metrics({f"{prefix}validation_{k}": v for k, v in values.items()}, trainer.step)
    trainer.workers.broadcast([found])  # all workers must choose alike
    value = float(found)
    if not math.isfinite(value):
        raise NonFiniteLossError(trainer.step, {f"validation_{metric}": value})
    if value < selection.best:
        selection.best, selection.best_step, selection.waited = value, trainer.step, 0
        if context.config.keep_best and trainer.workers.first:
            checkpoints.save_best(trainer)
    else:
        selection.waited += 1


def finish(context: StageContext) -> None:
    """Remove what only a later resumption would need, once the results are written."""
    for pattern in ("*checkpoint-*.pt", "*best.pt", f"*{_NOT_FINITE}"):
        for path in context.out.glob(pattern):
            path.unlink()
