"""Retrieval among images that differ in one factor, against a plain loop."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data.scenes.contrasts import FACTORS, contrast
from data.scenes.grammar import World
from data.scenes.painter import paint
from data.scenes.randomness import Draws
from tasks.evaluation.hard_candidates import _SEED, score_hard_candidates
from tasks.evaluation.held_out import Captions, HeldOut
from tasks.parts.engine import load_engine

COUNT = 12


@pytest.fixture(scope="module")
def engine(tiny_run):
    parts, runtime = tiny_run.config.parts, tiny_run.config.runtime
    made = (tiny_run.artifacts[name] for name in ("adapters", "mapper", "index"))
    return load_engine(parts, runtime, *made, prompts=False)


@pytest.fixture(scope="module")
def scenes():
    return [World().scene("test_new", i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def held_out(engine, scenes):
    images = [Image.fromarray(paint(scene)) for scene in scenes]
    shape = (COUNT, *engine.adapters.img_embeddings.shape)
    states = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    keys = [str(i) for i in range(COUNT)]
    truths = [json.dumps(scene.to_dict()) for scene in scenes]
    pooled = engine.encode_images(images).pooled
    return HeldOut(Captions(keys, keys, states), pooled, states, ["scenes"] * COUNT, truths)


def embedded(engine, scene):
    return engine.embed_images([Image.fromarray(paint(scene))])[0]


def test_it_is_the_share_of_captions_that_prefer_their_own_image(engine, held_out, scenes):
    found = score_hard_candidates(engine, held_out)
    text = engine.adapters.retrieval.embed_text(held_out.captions.states)
    candidates = [embedded(engine, scene) for scene in scenes]
    for number, factor in enumerate(FACTORS):
        wins = []
        for row, scene in enumerate(scenes):
            other = contrast(scene, factor, World(), Draws(_SEED, number, row))
            if other is not None:
                candidates.append(embedded(engine, other))
                wins.append(float(text[row] @ candidates[row] > text[row] @ candidates[-1]))
        assert found[f"retrieval_hard_{factor}"] == pytest.approx(np.mean(wins), abs=1e-6)
    scores = text @ torch.stack(candidates).T
    best = (scores.argmax(1) == torch.arange(COUNT)).float().mean()
    assert found["retrieval_hard_t2i_r1"] == pytest.approx(float(best), abs=1e-6)


def test_a_factor_that_no_scene_has_is_left_out(engine, held_out, scenes):
    places = [i for i, scene in enumerate(scenes) if not scene.relation]
    found = score_hard_candidates(engine, held_out.at(places))
    assert "retrieval_hard_relation" not in found
    assert "retrieval_hard_object" in found


def test_pairs_without_truth_are_named(held_out):
    blind = replace(held_out, truths=[""] * COUNT)
    with pytest.raises(ValueError, match=r"evaluate\.hard_candidates to 0"):
        blind.with_truth()
    with pytest.raises(ValueError, match="no test pair is from nowhere"):
        held_out.of(["nowhere"])
