"""How an answer is made: every setting of inference, validated here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_args

from gill.backbones.sampling import Sampling
from gill.decision import Choice


@dataclass(frozen=True)
class DecodingSettings:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: chosen tokens at most; an image counts once, its forced tokens do not.
        min_new_tokens: before so many tokens neither end-of-text nor [IMG0] is chosen.
        temperature: 0 is greedy.
        top_p: nucleus sampling, from the smallest set of tokens with this probability.
        image_bias: added to the logit of [IMG0]; ``inf`` shows images at once, ``-inf`` never.
        max_images: [IMG0] is not chosen again after so many.

    Raises:
        ValueError: a setting is out of range; says which, its value and the range.
    """

    max_new_tokens: int = 32
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    image_bias: float = 0.0
    max_images: int = 4

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if name not in _RANGES:
                continue
            valid, wanted = _RANGES[name]
            if not valid(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}; it must be at most max_new_tokens "
                f"({self.max_new_tokens})"
            )

    def room(self, num_img_tokens: int) -> int:
        """Positions that an answer may take."""
        shown = min(self.max_images, self.max_new_tokens)
        return self.max_new_tokens + shown * (num_img_tokens - 1)


_SAMPLING = Sampling()  # whose defaults a recipe's generator replaces


@dataclass(frozen=True)
class Settings(DecodingSettings):
    """How an answer is made; see ``DecodingSettings`` for the tokens.

    Attributes:
        seed: the same prompt, settings and seed give the same answer, alone or in a batch.
        num_images: images at each place: the nearest ones, or candidates of the generator
            ranked by retrieval score.
        guidance_scale, steps: of the generator's sampler.
        batch_size: images sampled together; it does not bear on the result.
        choice: retrieve or generate every image; None lets the decision model choose.
        truncate_left: cut a prompt that is too long from the left instead of refusing it.
    """

    seed: int = 0
    num_images: int = 1
    guidance_scale: float = _SAMPLING.guidance_scale
    steps: int = _SAMPLING.steps
    batch_size: int = _SAMPLING.batch_size
    choice: Choice | None = None
    truncate_left: bool = False


def _at_least(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: bool(value >= least), f"at least {least}"


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": _at_least(1),
    "min_new_tokens": _at_least(0),
    "temperature": (lambda value: 0 <= value < math.inf, "0 or more and finite"),
    "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "image_bias": (lambda value: not math.isnan(value), "a number"),
    "max_images": _at_least(0),
    "num_images": _at_least(1),
    "guidance_scale": (math.isfinite, "finite"),
    "steps": _at_least(1),
    "batch_size": _at_least(1),
    "choice": (
        lambda value: value is None or value in get_args(Choice),
        "'generate', 'retrieve' or None",
    ),
}
