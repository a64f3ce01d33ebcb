"""The suites of held-out captions: what the gallery shows, and a decision model that is missing."""

import pytest
import torch
from trained_tiny import RecordingLog

from data.artifacts import Manifest
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.generated_images import GILL, TO_TRUE, ImageSet
from tasks.evaluation.held_out import mean_target, read_held_out
from tasks.evaluation.held_out_suites import HeldOutSuites

MADE = Manifest(
    "decision", 1, "f", {"votes": 1, "margin": 0.02}, {},
    {"usual_gap": 0.0, "score_threshold": 0.5, "prompts_generate": 3.0, "prompts_retrieve": 2.0}, {}
)  # fmt: skip


@pytest.fixture
def suites(small, engine, stored, tmp_path):
    held_out = read_held_out(small.images, small.features, small.targets, small.adapters)
    config = EvaluateConfig(decision_prompts=4, gallery=3)
    mean = mean_target(small.targets)
    return HeldOutSuites(config, engine, held_out, stored, mean, tmp_path, RecordingLog())


def image_bytes(images):
    return [image.tobytes() for image in images]


def test_the_worst_are_those_whose_images_are_least_like_the_true_ones(suites):
    values = torch.tensor([0.9, 0.1, 0.5, 0.2, 0.8, 0.7])
    pictures = [bytes([i]) for i in range(6)]
    sets = {
        GILL: ImageSet({TO_TRUE: values}, torch.empty(6, 0), None, pictures),
        "linear": ImageSet({TO_TRUE: -values}, torch.empty(6, 0), None, pictures[::-1]),
    }
    found = suites._worst(suites.held_out, sets)
    order = [1, 3, 2, 5, 4, 0]
    captions = suites.held_out.captions
    assert found["prompt"] == [captions.captions[i] for i in order]
    assert found[GILL] == [pictures[i] for i in order]
    assert found["linear"] == [pictures[5 - i] for i in order]
    assert found["similarity"] == pytest.approx([0.1, 0.2, 0.5, 0.7, 0.8, 0.9])
    true = suites.stored.opened([captions.keys[i] for i in order])
    assert image_bytes(found["true image"]) == image_bytes(true)


def test_decisions_are_scored_on_so_many_prompts_and_shown(suites):
    metrics, columns = suites.decisions(MADE)
    probabilities = suites.engine.decide(suites.held_out.captions.states[:4])
    names = ["generate" if p[0] > p[1] else "retrieve" for p in probabilities]
    assert [text.partition(" ")[0] for text in columns["decision"]] == names[:3]
    assert [f"({float(p.max()):.2f})" in text for p, text in
            zip(probabilities[:3], columns["decision"], strict=True)] == [True] * 3  # fmt: skip
    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(columns, 3)
    captions = suites.held_out.captions
    assert columns["prompt"] == captions.captions[:3]
    true = image_bytes(suites.stored.opened(captions.keys[:3]))
    assert image_bytes(columns["true image"]) == true
    sheet = suites.log.figures["contact_sheet"]
    assert len(sheet.subfigs) >= 3
    assert metrics["decision_prompts"] == sum(s != "same" for s in columns["votes say"])
    assert -1 <= metrics["retrieved_image_text_similarity"] <= 1


def test_without_a_decision_model_the_stage_to_run_is_named(suites):
    suites.engine.decision = None
    with pytest.raises(ValueError, match="no decision model to score; run the stage 'decision'"):
        suites.decisions(MADE)
