"""Means, deviations and paired differences of models on contexts, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from tasks.evaluation.context_scores import (
    ContextScores,
    context_metrics,
    differences,
    measures_of,
)
from tasks.evaluation.report_sections import context_plot, context_scores


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


def test_a_measure_that_only_some_have_is_shown_for_those():
    """Of images in which two things are never both there, no order can be told."""
    one, other = (row(model, "5 captions", [[0.1, 0.3]]) for model in ("gill", "linear"))
    one.values["order"] = torch.tensor([[1.0, float("nan")]])
    rows = [other, one]
    assert measures_of(rows) == ["image_similarity", "order"]
    assert one.mean("order") == 1.0
    assert math.isnan(other.mean("order"))
    assert math.isnan(other.deviation("order"))
    assert [d.measure for d in differences(rows)] == ["image_similarity"]
    assert [axes.get_title() for axes in context_plot(rows).axes] == ["image similarity", "order"]
    suite = [replace(made, suite="told_story", keys=["a"], texts=["x"]) for made in rows]
    table = context_scores(suite)[-1].tables[-1]
    assert [r[1:] for r in table.rows] == [(None,), ("1.000 (0.0000)",)]
