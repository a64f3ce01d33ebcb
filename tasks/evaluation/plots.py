"""Plots of the decision model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gill.decision import CHOICES
from tasks.evaluation.decision_scores import DecisionScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_matrix(metrics: Mapping[str, float]) -> Figure:
    """Labels of the votes against what the model chose, in prompts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    matrix = np.array([[metrics[f"true_{a}_predicted_{b}"] for b in CHOICES] for a in CHOICES])
    axes.imshow(matrix, cmap="Blues")
    for (i, j), value in np.ndenumerate(matrix):
        axes.text(j, i, f"{value:.0f}", ha="center", va="center")
    axes.set_xticks(range(len(CHOICES)), CHOICES)
    axes.set_yticks(range(len(CHOICES)), CHOICES)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label of the votes")
    axes.set_title(f"macro F1 {metrics['macro_f1']:.2f}")
    return figure


def thresholds_and_calibration(scores: DecisionScores) -> Figure:
    """Precision against recall, macro F1 against the threshold, accuracy against confidence."""
    from matplotlib.figure import Figure

    sweep, bins = scores.sweep, scores.calibration.bins
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.step([p.recall for p in sweep], [p.precision for p in sweep], where="post")
    left.set(xlabel="recall of retrieve", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
    left.set_title(f"average precision {scores.metrics['average_precision']:.2f}")
    middle.plot([p.threshold for p in sweep], [p.macro_f1 for p in sweep])
    middle.axvline(0.5, color="grey", linewidth=1)
    middle.set(xlabel="retrieve from this probability on", ylabel="macro F1", xlim=(0, 1))
    right.plot([0.5, 1], [0.5, 1], color="grey", linewidth=1)
    right.scatter([c for c, _, _ in bins], [a for _, a, _ in bins], [8 + 2 * n for *_, n in bins])
    right.set(xlabel="confidence", ylabel="accuracy", ylim=(0, 1.05))
    right.set_title(f"calibration error {scores.calibration.error:.2f}")
    return figure
