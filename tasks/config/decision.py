"""The stage ``decision``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from gill.decision import DecisionSettings
from gill.settings import MOST, PAPER, later_setting, setting, with_default
from gill.training import Optimization
from tasks.config.base import EMBEDDED, PLAIN, SplitName, Unique, contents
from tasks.config.training import TrainingConfig


class DecisionConfig(TrainingConfig, DecisionSettings):
    """Labels by votes of the scorer or of people, then a linear classifier."""

    # A linear classifier of a few hundred prompts: a tenth of the steps of the other stages.
    steps: int = with_default(Optimization, "steps", 2000, EMBEDDED)
    split: SplitName = setting(
        "validation",
        "of the prompts: one that no other part was trained on",
        source="docs/reference/evaluation.md, Decisions",
    )
    train_prompts: int = setting(600, "to train on", unit="prompts", source=PAPER, ge=1, le=MOST)
    validation_prompts: int = setting(
        600, "to validate on", unit="prompts", source=PAPER, ge=1, le=MOST
    )
    # No choice wins with fewer than three votes (gill/decision.py), so there would be no label.
    votes: int = setting(5, "for each prompt", unit="votes", source=PAPER, ge=3, le=1000)
    margin: float = setting(
        0.02,
        "a vote goes to the image whose cosine with the caption is higher by more than this",
        unit="cosine",
        source=EMBEDDED,
        ge=0,
        le=2,
    )
    # Without it a scorer that likes real images better than this generator's votes "retrieve" for
    # nearly all.
    balance: bool = setting(
        False,
        "judge each prompt against the usual gap between generated and retrieved images",
        source="off: the votes stay as the scorer casts them",
    )
    votes_file: str = contents(
        "a TSV with votes of people (docs/reference/evaluation.md). Its prompts take the place of "
        "split: train_prompts of those with a confident label train, the rest validates"
    )
    rare_classes: Literal["as_is", "weight", "resample"] = setting(
        "weight",
        "as_is: as they come; weight: in the loss; resample: in the batches",
        source=EMBEDDED,
    )
    full_batch: bool = later_setting(
        False,
        "each step sees every training prompt once, as in the released code, and no batch_size",
        source="batches, as in the other stages",
    )
    ablations: Annotated[tuple[Literal["retrieval_score"], ...], Unique] = setting(
        ("retrieval_score",),
        "models with a further feature, trained beside the main one to be compared and not kept",
        source=PLAIN,
    )

    @model_validator(mode="after")
    def _drawn_or_whole(self) -> Self:
        if self.full_batch and self.rare_classes == "resample":
            raise ValueError(
                "full_batch takes each prompt once and rare_classes is 'resample', which draws "
                "them; set rare_classes to 'weight' or 'as_is'"
            )
        return self
