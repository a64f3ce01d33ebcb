"""What a recipe's rehearsal makes and how much of it, and what of the recipe that replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.names import RecipeName
from flows.overrides import ConfigError
from gill.backbones.testing.published import ClipSize, DiffusionSize, OptSize

LANGUAGE, VISION, GENERATOR, PAIRS = "language", "vision", "generator", "pairs"  # folders
_DECISION_STEPS = 50  # of a linear classifier, which takes milliseconds for each


@dataclass(frozen=True)
class Parts:
    """Sizes of the three frozen parts."""

    language: OptSize
    vision: ClipSize
    generator: DiffusionSize


@dataclass(frozen=True)
class Splits:
    """Pairs of each split."""

    train: int
    validation: int
    test: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class Rehearsal:
    """How a recipe is rehearsed.

    Attributes:
        published: the parts as published. parts: as they are made here.
        whole: pairs of the recipe's data. pairs: of the rehearsal's.
        steps: of each training. sampler_steps: of the image generator.
        prompts, images: of the decision, half for each of its splits; of the evaluation.
        captions: images that the evaluation captions.
    """

    recipe: RecipeName
    published: Parts
    parts: Parts
    whole: Splits
    pairs: Splits
    steps: int = 3
    sampler_steps: int = 1
    prompts: int = 10
    images: int = 2
    captions: int = 8

    def overrides(self, folder: Path) -> dict[str, Any]:
        """What of the recipe is replaced: parts, data and amounts. All else is the recipe's own."""
        train, held_out = (str(folder / PAIRS / f"{s}-*.tar") for s in ("train", "held_out"))
        validation = self.pairs.validation
        return {
            "parts.language.name": str(folder / LANGUAGE),
            "parts.vision.name": f"local-dir:{folder / VISION}",
            "parts.vision.pretrained": "",
            "parts.generator.name": str(folder / GENERATOR),
            "parts.generator.steps": self.sampler_steps,
            "download.paths": {
                "train": train,
                "validation": f"{held_out}[:{validation}]",
                "test": f"{held_out}[{validation}:]",
            },
            "adapters.steps": self.steps,
            "mapper.steps": self.steps,
            "decision.steps": _DECISION_STEPS,
            "decision.train_prompts": self.prompts // 2,
            "decision.validation_prompts": self.prompts - self.prompts // 2,
            "decision.votes": 4,  # of fewer a confident label is rare where weights are random
            "decision.margin": 0.0,  # random weights have no strong opinion
            "evaluate.images": self.images,
            "evaluate.decision_prompts": self.images,
            "evaluate.captions": self.captions,
        }

    def cut(self) -> list[str]:
        """What of the parts and settings is smaller than in the recipe, in words."""
        made, real = self.parts, self.published
        said = [
            (made.language.layers, real.language.layers, "layers of the language model"),
            (made.vision.layers, real.vision.layers, "layers of the vision tower"),
            (made.generator.image_size, real.generator.image_size, "pixels of a sampled image"),
        ]
        return [f"{few} of {many} {what}" for few, many, what in said if few < many]


def rehearsal_of(recipe: str) -> Rehearsal:
    """How a recipe is rehearsed, cut to a depth that two cores run in minutes.

    Raises:
        ConfigError: it needs no rehearsal.
    """
    found = next((name for name in REHEARSALS if name == recipe), None)
    if found is None:
        raise ConfigError(
            f"the recipe {recipe!r} has no stand-ins, since its own parts are small: run it as it "
            f"is, `gill run --recipe {recipe}`; `gill rehearse` takes {', '.join(REHEARSALS)}"
        )
    return REHEARSALS[found]


def changed(
    rehearsal: Rehearsal, steps: int | None, layers: int | None, full: bool, sampler_steps: int
) -> Rehearsal:
    """A rehearsal with another depth or number of steps, or with nothing cut of its parts.

    Args:
        steps: of each training, or None. layers: of language model and vision tower, or None.
        full: whether nothing of the parts is cut. sampler_steps: the recipe's, for that.
    """
    if full:
        rehearsal = replace(
            rehearsal,
            parts=rehearsal.published,
            sampler_steps=sampler_steps,
            # Enough that a fast GPU is not measured while it warms up.
            pairs=Splits(10 * rehearsal.pairs.train, 32, 32),
            steps=20,
            images=32,
            captions=32,
        )
    if layers is not None:
        parts = rehearsal.parts
        rehearsal = replace(
            rehearsal,
            parts=replace(
                parts,
                language=replace(parts.language, layers=layers),
                vision=parts.vision.with_layers(min(layers, rehearsal.published.vision.layers)),
            ),
        )
    return rehearsal if steps is None else replace(rehearsal, steps=steps)


def _opt_6_7b() -> Rehearsal:
    published = Parts(OptSize(), ClipSize(), DiffusionSize())
    return Rehearsal(
        recipe="opt-6.7b",
        published=published,
        parts=Parts(
            replace(published.language, layers=2),
            published.vision.with_layers(2),
            # The same weights on fewer latents: sampling is the only work that a CPU cannot do.
            replace(published.generator, image_size=128, denoising=4.59e10, decoding=1.551e11),
        ),
        whole=Splits(3_300_000, 6000, 7000),  # CC3M
        pairs=Splits(200, 16, 16),  # one batch, and a few to look at
    )


REHEARSALS: Mapping[RecipeName, Rehearsal] = {"opt-6.7b": _opt_6_7b()}
