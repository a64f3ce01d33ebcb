"""What every stage that trains has."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from gill.settings import MOST, MOST_TOGETHER, REFERENCE, UNMEASURED, setting, with_default
from gill.training import Optimization, Precision
from tasks.config.base import Config, unfingerprinted

_OFF = "off, as in the reference run"


def _interval(default: int, description: str) -> Any:
    return unfingerprinted(default, description, unit="steps", source=UNMEASURED, ge=1, le=MOST)


class TrainingConfig(Optimization, Config):
    """A training stage: the optimizer's settings and those of the loop around it."""

    batch_size: int = setting(
        200, "pairs of an update", unit="pairs", source=REFERENCE, ge=1, le=MOST_TOGETHER
    )
    keep_best: bool = setting(
        False,
        "end with the weights of the best validation instead of the last step's",
        source=_OFF,
    )
    early_stopping: int = setting(
        0,
        "stop after so many validations without a best one; 0: never",
        unit="validations",
        source=_OFF,
        ge=0,
        le=MOST,
    )
    log_every: int = _interval(20, "between two points of a curve")
    validate_every: int = _interval(200, "between two validations")
    checkpoint_every: int = _interval(200, "between two checkpoints")
    checkpoint_minutes: float = unfingerprinted(
        20.0,
        "a checkpoint is made after so long at the latest",
        unit="minutes",
        source="the most that a kill may cost",
        gt=0,
        le=MOST,
    )
    keep_checkpoints: int = unfingerprinted(
        2,
        "the last ones stay",
        unit="checkpoints",
        source="one to go back to, should the last be damaged",
        ge=1,
        le=MOST,
    )

    @model_validator(mode="after")
    def _parts_of_a_batch(self) -> Self:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate}; it must be at most batch_size, which is "
                f"{self.batch_size}"
            )
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that bear on the result: with a choice by validation, how it is done too."""
        own = self.model_dump(include={"validate_every", "validation_pairs"})
        return super().fingerprint_fields() | (own if self.keep_best or self.early_stopping else {})


class PairsTrainingConfig(TrainingConfig):
    """A training stage on image-caption pairs; the defaults are the reference run's."""

    # The optimizer's own defaults are neutral: no warm-up, no drops, float32.
    steps: int = with_default(Optimization, "steps", 20_000, REFERENCE)
    warmup_steps: int = with_default(Optimization, "warmup_steps", 2000, REFERENCE)
    decay_every: int = with_default(Optimization, "decay_every", 10_000, REFERENCE)
    precision: Precision = with_default(Optimization, "precision", "bfloat16", REFERENCE)
    validation_pairs: int = unfingerprinted(
        0,
        "that a validation looks at, from the beginning; 0: the whole split",
        unit="pairs",
        source="all there are",
        ge=0,
        le=MOST,
    )
