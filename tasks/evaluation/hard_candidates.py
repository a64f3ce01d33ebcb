"""Retrieval of scenes among images that differ in one factor only: random ones are too easy."""

from __future__ import annotations

import torch
from PIL import Image

from data.scenes.contrasts import FACTORS, contrast
from data.scenes.grammar import World
from data.scenes.painter import paint
from data.scenes.randomness import Draws
from gill.evaluation.retrieval import ranks
from gill.evaluation.statistics import mean_and_error
from gill.inference.engine import GillEngine
from tasks.evaluation.held_out import HeldOut
from tasks.evaluation.scene_reader import scene_of

_SEED = 77  # of the choice of other objects and grounds
_AT = (1, 5, 10)


def score_hard_candidates(engine: GillEngine, held_out: HeldOut) -> dict[str, float]:
    """Text to image: which of two images by factor, and recall among all of them together.

    ``retrieval_hard_number`` is the share of captions that fit their own image better than one with
    another number; ``retrieval_hard_t2i_r1`` counts among the true images and all changed ones.

    Args:
        held_out: pairs with their truth.
    """
    maps, device, world = engine.adapters.retrieval, engine.device, World()
    scenes = [scene_of(truth) for truth in held_out.truths]
    text = maps.embed_text(held_out.captions.states.to(device)).cpu()
    own = maps.embed_image(held_out.features.to(device)).cpu()
    fits, candidates = (text * own).sum(-1), [own]
    scores: dict[str, float] = {}
    for number, factor in enumerate(FACTORS):
        changed = {
            row: found
            for row, scene in enumerate(scenes)
            if (found := contrast(scene, factor, world, Draws(_SEED, number, row))) is not None
        }
        if not changed:
            continue
        rows = list(changed)
        others = engine.embed_images([Image.fromarray(paint(s)) for s in changed.values()]).cpu()
        right = (fits[rows] > (text[rows] * others).sum(-1)).float()
        mean, error = mean_and_error(right)
        scores |= {f"retrieval_hard_{factor}": mean, f"retrieval_hard_{factor}_se": error}
        candidates.append(others)
    place = ranks(text, torch.cat(candidates))
    return scores | {f"retrieval_hard_t2i_r{k}": float((place < k).float().mean()) for k in _AT}
