"""Checkpoints of a training: written whole, the last few kept, gone on from."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from data.io.atomic import atomic_file
from gill.training import ResumeError, Trainer

logger = logging.getLogger("gill")


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Save the trainer's state so that a crash leaves the old checkpoint or the new one."""
    _write(path, trainer.state_dict())


def restore(path: Path, trainer: Trainer) -> int:
    """Load a checkpoint if there is one; return the step to go on from."""
    if path.exists():
        trainer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return trainer.step


def _write(path: Path, state: Any) -> None:
    with atomic_file(path) as handle:
        torch.save(state, handle)


@dataclass
class Selection:
    """What validation has found: a part of a run's state beside the trainer's.

    Attributes:
        best: the lowest value of the stage's metric, and ``best_step`` where it was.
        waited: validations since then.
    """

    best: float = math.inf
    best_step: int = 0
    waited: int = 0


@dataclass(frozen=True)
class Checkpoints:
    """The last few checkpoints of a training run, and the weights of its best validation.

    Attributes:
        folder: where they lie. prefix: of their names. keep: how many are kept.
        settings: what the run was made with; a run with other settings is not gone on with.
        keep_best: whether the weights of the best validation are needed at the end.
    """

    folder: Path
    prefix: str
    keep: int
    settings: Mapping[str, Any]
    keep_best: bool = False

    def paths(self) -> list[Path]:
        """The checkpoints, newest first."""
        return sorted(self.folder.glob(f"{self.prefix}checkpoint-*.pt"), reverse=True)

    def save(self, trainer: Trainer, selection: Selection) -> None:
        """Save the whole state, then let go of the oldest."""
        path = self.folder / f"{self.prefix}checkpoint-{trainer.step:08d}.pt"
        state = {
            "trainer": trainer.state_dict(),
            "selection": asdict(selection),
            "settings": dict(self.settings),
        }
        _write(path, state)
        for old in self.paths()[self.keep :]:
            old.unlink()

    def restore(self, trainer: Trainer) -> Selection:
        """Go on from the newest checkpoint that can be read, if there is any.

        Raises:
            ResumeError: it was made with other settings; names them.
        """
        for path in self.paths():
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                selection = Selection(**state["selection"])
                then, now = dict(state["settings"]), self.settings
            except Exception as error:  # noqa: BLE001 a damaged pickle raises anything
                logger.warning("cannot read %s, going on from the one before: %s", path, error)
                continue
            if selection.best_step and not self._best_is_there():
                logger.warning("%s needs %s, which is lost", path, self._best)
                continue
            differs = [
                f"{key}: {then.get(key)!r} then, {now.get(key)!r} now"
                for key in sorted({*then, *now})
                if then.get(key) != now.get(key)
            ]
            if differs:
                raise ResumeError(
                    f"{path} was made with {'; '.join(differs)}. Set them back to go on, or delete "
                    f"{self.folder} to begin anew"
                )
            trainer.load_state_dict(state["trainer"])
            return selection
        return Selection()

    def _best_is_there(self) -> bool:
        return not self.keep_best or self._best.exists()

    def save_best(self, trainer: Trainer) -> None:
        """Keep the trained tensors as they are now."""
        _write(self._best, trainer.state_dict()["module"])

    def restore_best(self, trainer: Trainer) -> None:
        """Put the trained tensors of the best validation back."""
        state = torch.load(self._best, map_location="cpu", weights_only=True)
        trainer.module.load_state_dict(state, strict=False)

    @property
    def _best(self) -> Path:
        return self.folder / f"{self.prefix}best.pt"
