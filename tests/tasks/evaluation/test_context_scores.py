"""Means, deviations and paired differences of models on contexts, by hand."""

import pytest
import torch

from tasks.evaluation.context_scores import ContextScores, context_metrics, differences


def row(model, context, values):
    return ContextScores(
        "s",
        model,
        context,
        ["a", "b"],
        ["A cat", "A dog"],
        {"image_similarity": torch.tensor(values)},
        [],
    )


def test_means_deviations_and_paired_differences_by_hand():
    rows = [
        row("gill", "1 caption", [[0.1, 0.3], [0.3, 0.5]]),  # seed means 0.2 and 0.4
        row("gill", "5 captions", [[0.4, 0.4], [0.4, 0.8]]),
        row("generator", "1 caption", [[0.2, 0.2], [0.2, 0.2]]),
    ]
    metrics = context_metrics(rows)
    assert metrics["s_gill_1_caption_image_similarity"] == pytest.approx(0.3)
    assert metrics["s_gill_1_caption_image_similarity_sd"] == pytest.approx(0.02**0.5)
    # Cases, seeds averaged: (0.4, 0.6) - (0.2, 0.4) and (0.2, 0.4) - (0.2, 0.2).
    more = "s_gill_5_captions_minus_1_caption_image_similarity"
    assert metrics[more] == pytest.approx(0.2)
    assert metrics[f"{more}_se"] == pytest.approx(0.0, abs=1e-6)
    against = "s_gill_minus_generator_1_caption_image_similarity"
    assert metrics[against] == pytest.approx(0.1)
    assert metrics[f"{against}_se"] == pytest.approx(0.02**0.5 / 2**0.5)
    assert len(differences(rows)) == 2
