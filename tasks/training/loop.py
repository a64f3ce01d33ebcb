"""Drives a ``Trainer`` inside a stage: checkpoints, validation, metrics over steps, progress."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.io.atomic import write_json
from data.shards import AlignedShards, Columns
from gill.devices import sent
from gill.training import NonFiniteLossError, StepReport, Trainer
from tasks.config.training import PairsTrainingConfig, TrainingConfig
from tasks.tracking.stage_log import StageLog
from tasks.training.checkpoints import Checkpoints, Selection, logger

# Training draws from PyTorch's global generator, which all threads share: one stage at a time.
RANDOM = threading.Lock()


_NOT_FINITE = "not_finite.json"
MADE_WITH = "made_with.json"  # what unfinished work rests on that is not in the configuration


def held_out(shards: AlignedShards, config: PairsTrainingConfig) -> Columns:
    """The pairs that a validation looks at."""
    return shards.first(config.validation_pairs) if config.validation_pairs else shards.all()


def on_device(values: Any, device: torch.device, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A column of a batch on the device, through pinned memory where that is a GPU.

    The copy then runs beside what the GPU is doing, and so does the next step's reading.
    """
    return sent(torch.from_numpy(np.asarray(values, dtype)), device)


@dataclass
class TrainingLoop:
    """Runs a trainer to its last step, going on from the last checkpoint.

    Attributes:
        config: of the stage. out: where checkpoints lie. log: where metrics and progress go.
        name: prefix of the metrics and the checkpoints, for a stage that trains several things.
        validate: held-out metrics, computed every ``validate_every`` steps by the first worker.
        metric: the one by which the best step is chosen; lower is better.
    """

    trainer: Trainer
    config: TrainingConfig
    out: Path
    log: StageLog
    name: str = ""
    validate: Callable[[], dict[str, float]] | None = None
    metric: str = "loss"

    def run(
        self, batches: Callable[[int], Iterable[Any]], start: Callable[[], None] | None = None
    ) -> None:
        """Train.

        Args:
            batches: gives the batches from a position on.
            start: changes the untrained weights where there is no checkpoint to go on from.

        Raises:
            NonFiniteLossError: names the file with the keys of the batch.
            ResumeError: the checkpoint was made with other settings.
        """
        trainer = self.trainer
        selection = self._checkpoints.restore(trainer)
        if start is not None and trainer.step == 0:
            start()
        trainer.workers.barrier()  # the first worker may write a newer one as soon as it goes on
        try:
            self._train(batches, selection)
        except NonFiniteLossError as error:
            path = self.out / f"{self._prefix}{_NOT_FINITE}"
            if trainer.workers.first:
                write_json(path, {"step": error.step, "losses": error.losses, "keys": error.keys})
            raise NonFiniteLossError(error.step, error.losses, error.keys, str(path)) from error
        if self.validate is not None and self.config.keep_best:
            self._checkpoints.restore_best(trainer)
            best = {f"{self._prefix}best_step": float(selection.best_step)}
            self.log.metrics(best, trainer.step)

    @property
    def _prefix(self) -> str:
        return f"{self.name}_" if self.name else ""

    @property
    def _checkpoints(self) -> Checkpoints:
        config = self.config
        return Checkpoints(
            self.out,
            self._prefix,
            config.keep_checkpoints,
            config.fingerprint_fields(),
            keep_best=self.validate is not None and config.keep_best,
        )

    def _train(self, batches: Callable[[int], Iterable[Any]], selection: Selection) -> None:
        trainer, config = self.trainer, self.config
        resumed, total = trainer.step, trainer.config.steps
        patience = config.early_stopping if self.validate is not None else 0
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
                self._report(report, examples / max(1e-9, time.monotonic() - began))
            self.log.progress(report.step, total, f"{self._prefix}steps", resumed)
            # The stage validates after the last step anyway, so here only where there is a choice.
            due = report.step % config.validate_every == 0 and not last
            if self.validate is not None and (due or (last and chooses)):
                trainer.check()
                self._validate(self.validate, selection)
                last = last or bool(patience and selection.waited >= patience)
            due = time.monotonic() - saved > 60 * config.checkpoint_minutes
            due = due or last or report.step % config.checkpoint_every == 0
            if trainer.workers.first and due:
                trainer.check()
                self._checkpoints.save(trainer, selection)
                saved = time.monotonic()
            if last and report.step < total:
                best = selection.best_step
                logger.info("stopped at step %d: nothing better since step %d", report.step, best)
                return

    def _report(self, report: StepReport, speed: float) -> None:
        values = {name: float(value) for name, value in report.losses.items()}
        values["learning_rate"] = report.learning_rate
        values["gradient_norm"] = float(report.gradient_norm)
        values["examples_per_second"] = speed
        self.log.metrics({f"{self._prefix}{k}": v for k, v in values.items()}, report.step)

    def _validate(self, validate: Callable[[], dict[str, float]], selection: Selection) -> None:
        trainer = self.trainer
        found = torch.zeros(1, dtype=torch.float32, device=trainer.device)
        if trainer.workers.first:
            values = validate()
            found += values[self.metric]
            named = {f"{self._prefix}validation_{k}": v for k, v in values.items()}
            self.log.metrics(named, trainer.step)
        trainer.workers.broadcast([found])  # all workers must choose alike
        value = float(found)
        if not math.isfinite(value):
            raise NonFiniteLossError(trainer.step, {f"validation_{self.metric}": value})
        if value < selection.best:
            selection.best, selection.best_step, selection.waited = value, trainer.step, 0
            if self.config.keep_best and trainer.workers.first:
                self._checkpoints.save_best(trainer)
        else:
            selection.waited += 1


def finish(out: Path) -> None:
    """Remove what only a later resumption would need, once the results are written."""
    for pattern in ("*checkpoint-*.pt", "*best.pt", f"*{_NOT_FINITE}", f"*{MADE_WITH}"):
        for path in out.glob(pattern):
            path.unlink()
