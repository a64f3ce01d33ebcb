"""Captioning and retrieval of held-out pairs through an engine of micro parts."""

import json

import pytest
import torch

from gill.evaluation.captioning import caption_scores
from gill.evaluation.retrieval import recall
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.caption_suites import score_captioning, score_retrieval
from tasks.evaluation.held_out import read_held_out
from tasks.tracking.stage_log import ConsoleLog


@pytest.fixture
def held_out(small):
    return read_held_out(small.images, small.features, small.targets, small.adapters)


def captioned(engine, held_out, out, known=("a cat", "a cat", "a dog"), **changes):
    config = EvaluateConfig(**{"max_new_tokens": 5, **changes})
    return score_captioning(config, engine, held_out, known, out, ConsoleLog())


def test_captions_are_written_beside_their_references(engine, held_out, tmp_path):
    found = captioned(engine, held_out, tmp_path)
    written = json.loads((tmp_path / "captions.json").read_text())
    assert [row["key"] for row in written] == held_out.captions.keys
    assert [row["reference"] for row in written] == held_out.captions.captions
    made = engine.caption(list(held_out.features), 5)
    assert [row["caption"] for row in written] == made
    plain = caption_scores(made, held_out.captions.captions)
    assert {k: v for k, v in found.items() if k.startswith("caption_") and "baseline" not in k} == {
        f"caption_{k}": pytest.approx(v) for k, v in plain.items()
    }


def test_floors_know_the_training_captions_and_no_image(engine, held_out, tmp_path):
    found = captioned(engine, held_out, tmp_path)
    frequent = caption_scores(["a cat"] * 6, held_out.captions.captions)["cider"]
    assert found["caption_frequency_baseline_cider"] == pytest.approx(frequent)
    assert "word_frequency_baseline_cider" in found


def test_at_most_so_many_images_are_captioned(engine, held_out, tmp_path):
    captioned(engine, held_out, tmp_path, captions=2)
    assert len(json.loads((tmp_path / "captions.json").read_text())) == 2


def test_recall_is_that_of_the_retrieval_space(engine, held_out):
    maps = engine.adapters.retrieval
    with torch.no_grad():
        plain = recall(
            maps.embed_text(held_out.captions.states), maps.embed_image(held_out.features)
        )
        assert score_retrieval(engine, held_out) == {f"retrieval_{k}": v for k, v in plain.items()}
        # With every image in its caption's place, the right one is always first.
        maps.image.weight.zero_()
        maps.image.bias.copy_(torch.ones(8))
        assert score_retrieval(engine, held_out)["retrieval_t2i_r1"] == 0.0  # all alike: no success
