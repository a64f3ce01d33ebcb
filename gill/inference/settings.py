"""How an answer is made: every setting of inference, declared and bounded here and nowhere else."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from gill.backbones.sampling import Sampling
from gill.settings import MOST_TOGETHER, PAPER, ComponentSettings, said, setting

Choice = Literal["generate", "retrieve"]
EndOfText = Literal["stop", "go_on"]

_NEUTRAL = "changes nothing"
_ROUND = "a round number that was not measured"
_SEEDS = 2**63  # PyTorch's generators take those below it, and as many below zero


def _number(value: float) -> float:
    if math.isnan(value):
        raise ValueError("must be a number")
    return value


Bias = Annotated[float, Field(allow_inf_nan=True), AfterValidator(_number)]


class DecodingSettings(ComponentSettings):
    """How tokens are chosen.

    Raises:
        ValueError: a setting is out of range; says which, its value and the range.
    """

    max_new_tokens: int = setting(
        32,
        "chosen tokens at most; an image counts once, its forced tokens do not",
        unit="tokens",
        source="the reference implementation's",
        ge=1,
        le=MOST_TOGETHER,
    )
    min_new_tokens: int = setting(
        0,
        "before so many neither the end of the text nor an image is chosen",
        unit="tokens",
        source=_NEUTRAL,
        ge=0,
        le=MOST_TOGETHER,
    )
    end_of_text: EndOfText = setting(
        "stop",
        "stop: an answer ends there; go_on: it is read and decoding goes on to max_new_tokens, as "
        "in the released code",
        source="nobody reads what follows",
    )
    temperature: float = setting(
        0.0, "0 takes the likeliest token, more makes others likelier", source=PAPER, ge=0, le=1e6
    )
    top_p: float = setting(
        1.0,
        "sample from the likeliest tokens that have this probability together",
        unit="probability",
        source=_NEUTRAL,
        gt=0,
        le=1,
    )
    image_bias: Bias = setting(
        0.0,
        "added to the logit of an image; inf shows one at once, -inf never",
        unit="logits",
        source=_NEUTRAL,
    )
    max_images: int = setting(
        4,
        "places with images at most",
        unit="places",
        source=_ROUND,
        ge=0,
        le=MOST_TOGETHER,
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ValueError(said(error)) from error

    @model_validator(mode="after")
    def _fewest_within_most(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}; it must be at most max_new_tokens "
                f"({self.max_new_tokens})"
            )
        return self

    def changed(self, **changes: Any) -> Self:
        """These settings with some changed; raises as the class does."""
        return type(self)(**{**self.model_dump(), **changes})

    def room(self, num_img_tokens: int) -> int:
        """Positions that an answer may take."""
        shown = min(self.max_images, self.max_new_tokens)
        return self.max_new_tokens + shown * (num_img_tokens - 1)


class Settings(DecodingSettings, Sampling):
    """How an answer is made: its tokens, and its images, whose sampler a recipe's replaces."""

    seed: int = setting(
        0,
        "the same prompt, settings and seed give the same answer, alone or in a batch",
        source="arbitrary",
        ge=-_SEEDS,
        lt=_SEEDS,
    )
    num_images: int = setting(
        1,
        "images at each place: the nearest ones, or generated ones by their retrieval score",
        unit="images",
        source=PAPER,
        ge=1,
        le=1000,
    )
    choice: Choice | None = setting(
        None,
        "generate or retrieve every image instead of letting the decision model choose",
        source=PAPER,
    )
    truncate_left: bool = setting(
        False,
        "cut a prompt that is too long from the left instead of refusing it",
        source="nothing is left out unasked",
    )
