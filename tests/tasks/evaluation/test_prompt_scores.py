"""Scores of retrieved and generated images: paired seeds, never a prompt's own image, kept."""

import pytest
import torch

from gill.inference.index import Index
from tasks.evaluation.held_out import read_captions
from tasks.evaluation.prompt_scores import SCORES, best_matches, score_prompts, seeds_of
from tasks.tracking.stage_log import ConsoleLog


@pytest.fixture
def prompts(small):
    return read_captions(small.images, small.adapters, "test")


def scored(engine, stored, prompts, out, seeds=range(5, 7)):
    return score_prompts(engine, stored, prompts, seeds, out, ConsoleLog())


def test_each_place_has_a_seed_of_its_own():
    seeds = [seed for first in (1, 2) for seed in seeds_of(first, range(64))]
    assert len(set(seeds)) == 128
    assert seeds_of(1, range(2, 4)) == seeds[2:4]


def test_a_prompt_never_retrieves_its_own_image(engine, prompts):
    vectors = engine.adapters.retrieval.embed_text(prompts.states).detach()
    scores = vectors @ engine.index.vectors.T
    plain = [engine.index.keys[i] for i in scores.argmax(-1)]
    found = best_matches(engine, prompts.states, plain)
    assert all(match.key != own for match, own in zip(found, plain, strict=True))
    second = scores.topk(2).values[:, 1]
    torch.testing.assert_close(torch.tensor([m.score for m in found]), second)


def test_an_index_without_another_image_says_what_to_add(engine, prompts):
    engine.index = Index(["test/0"], engine.index.vectors[:1])
    with pytest.raises(
        ValueError, match=r"no image but a prompt's own; add splits to index\.splits"
    ):
        best_matches(engine, prompts.states[:1], ["test/0"])


@torch.no_grad()
def test_scores_are_cosines_of_the_scorer(engine, stored, prompts, tmp_path):
    rows = scored(engine, stored, prompts, tmp_path)
    assert [row["key"] for row in rows] == prompts.keys
    text = engine.vision.text(prompts.captions)
    retrieved = engine.vision.project(stored.pooled([row["retrieved_key"] for row in rows]))
    conditioning = engine.conditioning(prompts.states)
    made = [
        engine.encode_images(engine.sample(conditioning, seeds_of(s, range(6)))).vectors
        for s in (5, 6)
    ]
    for i, row in enumerate(rows):
        assert row["retrieved_score"] == pytest.approx(float(retrieved[i] @ text[i]), abs=1e-5)
        expected = [float(vectors[i] @ text[i]) for vectors in made]
        assert row["generated_scores"] == pytest.approx(expected, abs=1e-3)
        assert row["image"]
    assert rows[0]["generated_scores"][0] != rows[0]["generated_scores"][1]


def test_what_was_scored_is_not_scored_again(engine, stored, prompts, tmp_path, monkeypatch):
    first = scored(engine, stored, prompts, tmp_path)
    monkeypatch.setattr(engine, "sample", None)  # would fail
    assert scored(engine, stored, prompts, tmp_path) == first
    assert len(list((tmp_path / SCORES).iterdir())) == 1


def test_no_seed_is_no_score(engine, stored, prompts, tmp_path):
    with pytest.raises(ValueError, match="at least one seed"):
        scored(engine, stored, prompts, tmp_path, seeds=range(0))
