"""How much a run does, for the paper's own numbers."""

import pytest

from flows.recipes import resolve
from flows.rehearsal.sizes import REHEARSALS, Splits
from flows.rehearsal.work import Scale, operations, units

OPT = REHEARSALS["opt-6.7b"]


def scale(splits=OPT.whole, **settings):
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Scale(resolve("opt-6.7b", named), OPT.published, splits)


def test_the_papers_run():
    found = units(scale())
    # A validation of 6,000 pairs every 200 of 20,000 steps: 100 times half of 30 batches.
    assert found["adapters"]["steps"] == 20_000 + 100 * 30 / 2
    assert found["mapper"]["steps"] == found["mapper"]["linear_steps"] == 20_000 + 100 * 30 / 3
    assert found["adapters"]["[IMG] states"] == found["clip_features"]["images"] == 3_313_000
    assert found["index"]["images"] == 3_300_000
    assert found["decision"]["prompts scored"] == 1200
    assert found["decision"]["steps"] == found["decision"]["with_retrieval_score_steps"] == 2000
    assert found["evaluate"]["images"] == 2048 * 4  # gill, linear map, own text encoder, no text


def test_small_splits_have_no_more_than_they_have():
    found = units(scale(Splits(10, 5, 4)))
    assert found["decision"]["prompts scored"] == 5
    assert found["evaluate"]["images"] == 4 * 4
    assert found["evaluate"]["captions"] == 4


def test_a_joint_training_keeps_no_states_of_its_own_pairs():
    assert units(scale(schedule="joint"))["joint"]["[IMG] states"] == 13_000
    kept = units(scale(schedule="joint", adapters__refine_steps=1))
    assert kept["joint"]["[IMG] states"] == 3_313_000


def test_operations_of_the_published_parts():
    found = operations(scale())
    # 57 tokens through the layers and 24 labels at the output layer, in both directions.
    layers, head = 32 * 12 * 4096**2, 50_272 * 4096
    assert found["adapters"]["steps"] == pytest.approx(2 * (57 * layers + 24 * head))
    assert found["clip_features"]["images"] == pytest.approx(1.6e11, rel=0.05)
    image = 2 * 51 * 8.03e11 + 2.515e12 + found["clip_features"]["images"]
    assert found["evaluate"]["images"] == pytest.approx(image)
    assert found["decision"]["prompts scored"] == pytest.approx(5 * image)
    unguided = operations(scale(parts__generator__guidance_scale=1.0))
    assert unguided["evaluate"]["images"] == pytest.approx(image - 51 * 8.03e11)
