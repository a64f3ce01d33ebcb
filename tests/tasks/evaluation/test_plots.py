"""Plots show the figures that they are given."""

import numpy as np
import pytest

from tasks.evaluation.decision_scores import score_decision_model
from tasks.evaluation.plots import confusion_matrix, thresholds_and_calibration

SCORES = score_decision_model(
    truth=[0, 1, 1, 0, 1],
    retrieve=[0.1, 0.9, 0.4, 0.2, 0.8],
    nearest=[0.1, 0.3, 0.2, 0.4, 0.5],
    training=[0, 1],
    training_nearest=[0.1, 0.5],
    others={},
)


def test_the_confusion_matrix_has_labels_as_rows():
    (axes,) = confusion_matrix(SCORES.metrics).axes
    # Both prompts to generate are found, and of three to retrieve one is missed.
    assert np.array(axes.images[0].get_array()).tolist() == [[2, 0], [1, 2]]
    assert [text.get_text() for text in axes.texts] == ["2", "0", "1", "2"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("label of the votes", "predicted")
    assert axes.get_title() == "macro F1 0.80"


def test_the_curves_are_those_of_the_sweep():
    left, middle, right = thresholds_and_calibration(SCORES).axes
    recall, precision = left.lines[0].get_data()
    assert list(recall) == [point.recall for point in SCORES.sweep]
    assert list(precision) == [point.precision for point in SCORES.sweep]
    thresholds, f1 = middle.lines[0].get_data()
    assert list(thresholds) == [point.threshold for point in SCORES.sweep]
    assert max(f1) == pytest.approx(SCORES.metrics["sweep_best_macro_f1"])
    points = right.collections[0].get_offsets()
    assert len(points) == len(SCORES.calibration.bins)
    assert points[:, 1].tolist() == [accuracy for _, accuracy, _ in SCORES.calibration.bins]
