"""Scores of decisions beside their baselines, by hand."""

import pytest

from gill.decision import GENERATE, RETRIEVE
from tasks.evaluation.decision_scores import (
    baseline_choices,
    held_out_metrics,
    score_decision_model,
)


def test_decisions_and_their_baselines_by_hand():
    made = {"prompts_generate": 3.0, "prompts_retrieve": 1.0, "score_threshold": 0.5}
    found = held_out_metrics([0, None, 1, 1], [0, 1, 1, 0], [0.1, 0.9, 0.6, 0.7], made)
    assert found["decision_prompts"] == 3
    assert found["decision_accuracy"] == pytest.approx(2 / 3)
    assert found["decision_macro_f1"] == pytest.approx(2 / 3)
    assert found["decision_majority_macro_f1"] == pytest.approx(0.25)
    assert found["decision_always_retrieve_macro_f1"] == pytest.approx(0.4)
    assert found["decision_score_threshold_macro_f1"] == 1.0
    assert held_out_metrics([None], [0], [0.1], made) == {"decision_prompts": 0.0}


def test_baselines_by_hand():
    assert baseline_choices([1, 1, 0], [0.1, 0.6], 0.5) == {
        "majority": [RETRIEVE, RETRIEVE],
        "always_generate": [GENERATE, GENERATE],
        "always_retrieve": [RETRIEVE, RETRIEVE],
        "score_threshold": [GENERATE, RETRIEVE],
    }


def test_the_threshold_comes_from_the_training_prompts():
    """On the held-out prompts another threshold would be better: it must not be looked at."""
    scores = score_decision_model(
        truth=[0, 1, 1, 0],
        retrieve=[0.1, 0.9, 0.4, 0.2],
        nearest=[0.8, 0.3, 0.2, 0.9],
        training=[0, 0, 1, 1],
        training_nearest=[0.1, 0.2, 0.5, 0.6],
        others={"with_score": [0, 1, 1, 0]},
    )
    metrics = scores.metrics
    assert metrics["score_threshold"] == 0.5
    assert metrics["score_threshold_macro_f1"] == 0.0
    assert metrics["with_score_macro_f1"] == 1.0
    assert metrics["accuracy"] == 0.75
    assert metrics["average_precision"] == 1.0
    assert metrics["sweep_best_macro_f1"] == 1.0
    assert metrics["macro_f1_low"] <= metrics["macro_f1"] <= metrics["macro_f1_high"]
    assert set(scores.described()) == {"macro_f1_95", "sweep", "calibration"}
