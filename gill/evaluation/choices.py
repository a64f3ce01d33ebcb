"""Scores of the decision model against its labels and a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.metrics import confusion_matrix, f1_score

from gill.decision import CHOICES


def decision_scores(labels: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Macro F1, accuracy and the confusion matrix, flat, as ``true_<a>_predicted_<b>``."""
    if not labels:
        raise ValueError("there are no labelled prompts to score")
    classes = list(range(len(CHOICES)))
    matrix = confusion_matrix(labels, predicted, labels=classes)
    hits = sum(int(a == b) for a, b in zip(labels, predicted, strict=True))
    scores = {
        "macro_f1": float(
            f1_score(labels, predicted, labels=classes, average="macro", zero_division=0)
        ),
        "accuracy": hits / len(labels),
    }
    for i, true in enumerate(CHOICES):
        for j, found in enumerate(CHOICES):
            scores[f"true_{true}_predicted_{found}"] = float(matrix[i, j])
    return scores


def majority_scores(training: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The same scores for always answering the most frequent training label."""
    majority = max(range(len(CHOICES)), key=list(training).count)
    return decision_scores(labels, [majority] * len(labels))
