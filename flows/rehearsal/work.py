"""How much a run does: units of each stage's work, and operations of a unit.

Operations count the matrix products alone, two for each weight and token. Only their ratio between
the rehearsed and the published sizes is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flows.config import PipelineConfig
from flows.rehearsal.sizes import Parts, Splits
from tasks.config.adapters import AdaptersConfig
from tasks.config.training import PairsTrainingConfig

CAPTION_TOKENS = 11  # of CC3M's captions on the mean, with BOS
FORWARD_OF_STEP = 0.5  # of a step's time: weights are frozen, so backward is one pass more
FORWARD_OF_TRAINED_STEP = 1 / 3  # where the weights are trained: two passes more
_CONDITIONS = 3  # image sets of the evaluation beside one for each baseline: gill, ceiling, floor


@dataclass(frozen=True)
class Scale:
    """A run's size: what is configured, of which parts, on how many pairs."""

    config: PipelineConfig
    parts: Parts
    splits: Splits


def units(scale: Scale) -> dict[str, dict[str, float]]:
    """Units of work of each stage, named as its progress names them."""
    config, splits = scale.config, scale.splits
    adapters, mapper, decision, evaluate = (
        config.adapters, config.mapper, config.decision, config.evaluate,
    )  # fmt: skip
    steps = _steps(adapters, splits, FORWARD_OF_STEP)
    prompts = min(decision.train_prompts + decision.validation_prompts, splits.validation)
    names = ("steps", *(f"with_{name}_steps" for name in decision.ablations))
    classifier = dict.fromkeys(names, float(decision.steps))
    sets = _CONDITIONS + len(set(mapper.baselines) - {mapper.kind})
    # A mapper that is trained with the adapters needs no states of its own pairs.
    held_out = splits.validation + splits.test
    states = splits.total if config.schedule == "staged" or adapters.refine_steps else held_out
    trained = _steps(mapper, splits, FORWARD_OF_TRAINED_STEP)
    baselines = {f"{kind}_steps": trained for kind in mapper.baselines if kind != mapper.kind}
    return {
        "download": {"pairs": splits.total},
        "clip_features": {"images": splits.total},
        "text_targets": {"captions": splits.total},
        "adapters": {"steps": steps, "[IMG] states": states},
        "joint": {"steps": steps, "[IMG] states": states},
        "imported": {"[IMG] states": held_out},
        "mapper": {"steps": trained, **baselines},
        "index": {"images": splits.train},
        "decision": {"prompts scored": prompts, **classifier},
        "evaluate": {
            "captions": min(evaluate.captions, splits.test),
            "images": min(evaluate.images, splits.test) * sets * evaluate.image_seeds,
            "prompts scored": min(evaluate.decision_prompts, splits.test),
        },
    }


def _steps(config: PairsTrainingConfig, splits: Splits, forward: float) -> float:
    """Steps of a training, with those that its validations take the time of."""
    validations = 1 + (config.steps - 1) // config.validate_every
    pairs = min(config.validation_pairs or splits.validation, splits.validation)
    return config.steps + forward * validations * pairs / config.batch_size


def operations(scale: Scale) -> dict[str, dict[str, float]]:
    """Operations of a unit, for those units that the sizes of the parts bear on."""
    config, parts = scale.config, scale.parts
    adapters, generator = config.adapters, config.parts.generator
    language = parts.language
    weights = language.layers * language.layer_weights

    def read(tokens: float, labels: float = 0.0) -> float:
        return 2.0 * (tokens * weights + labels * language.head_weights)

    image = parts.vision.image_operations
    guided = 2 if generator.guidance_scale > 1 else 1
    # One step more: the scheduler of Stable Diffusion 1 begins with a half step.
    passes = guided * (generator.steps + 1)
    sampled = passes * parts.generator.denoising + parts.generator.decoding + image
    step = _step(adapters, read)
    states = read(CAPTION_TOKENS + adapters.num_img_tokens)
    answer = config.evaluate.max_new_tokens
    votes = config.decision.votes
    return {
        "clip_features": {"images": image},
        "adapters": {"steps": step, "[IMG] states": states},
        "joint": {"steps": step, "[IMG] states": states},
        "imported": {"[IMG] states": states},
        "decision": {"prompts scored": votes * sampled},
        "evaluate": {
            "captions": read(adapters.num_visual_tokens + answer, answer),
            "images": sampled,
            "prompts scored": votes * sampled,
        },
    }


def _step(config: AdaptersConfig, read: Callable[..., float]) -> float:
    """Operations of a step for one pair: the captioning pass, then the [IMG] pass."""
    tokens = CAPTION_TOKENS
    captioning = 2 * read(config.num_visual_tokens + tokens, tokens)
    prefix, img = read(tokens), 2 * read(config.num_img_tokens, 1)
    return captioning + prefix + img
