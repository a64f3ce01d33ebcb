"""Scores of the decision model: against its labels, and against simple baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
)

from gill.decision import CHOICES, GENERATE, RETRIEVE, Vote, confident_label

Labels = Sequence[int]
_CLASSES = list(range(len(CHOICES)))
_MACRO: Any = {"labels": _CLASSES, "average": "macro", "zero_division": 0}


def decision_scores(labels: Labels, predicted: Labels) -> dict[str, float]:
    """Macro F1, accuracy and the confusion matrix, flat, as ``true_<a>_predicted_<b>``."""
    if not labels:
        raise ValueError("there are no labelled prompts to score")
    matrix = confusion_matrix(labels, predicted, labels=_CLASSES)
    scores = {
        "macro_f1": float(f1_score(labels, predicted, **_MACRO)),
        "accuracy": float(accuracy_score(labels, predicted)),
    }
    for i, true in enumerate(CHOICES):
        for j, found in enumerate(CHOICES):
            scores[f"true_{true}_predicted_{found}"] = float(matrix[i, j])
    return scores


def majority_scores(training: Labels, labels: Labels) -> dict[str, float]:
    """The same scores for always answering the most frequent training label."""
    return decision_scores(labels, [majority(training)] * len(labels))


def majority(labels: Labels) -> int:
    """The most frequent label, the first of ``CHOICES`` in a tie."""
    return max(range(len(CHOICES)), key=list(labels).count)


@dataclass(frozen=True)
class OperatingPoint:
    """Precision, recall and macro F1 when "retrieve" is answered from a threshold on."""

    threshold: float
    precision: float
    recall: float
    macro_f1: float


def threshold_sweep(labels: Labels, scores: Sequence[float]) -> list[OperatingPoint]:
    """Every threshold that changes an answer, from "always retrieve" to "always generate".

    Args:
        scores: the higher, the more for retrieval: a probability, or the best score of the index.
    """
    truth, values = np.asarray(labels), np.asarray(scores, np.float64)
    positive = truth == RETRIEVE
    if positive.any():
        precision, recall, thresholds = precision_recall_curve(positive, values)
    else:  # scikit-learn calls the recall of nothing 1, with a warning; here it counts 0
        thresholds = np.unique(values)
        precision = np.append(np.zeros(len(thresholds)), 1.0)
        recall = np.zeros(len(thresholds) + 1)
    thresholds = np.append(thresholds, np.nextafter(values.max(), np.inf))
    f1 = _macro_f1(truth, np.where(values >= thresholds[:, None], RETRIEVE, GENERATE))
    points = np.stack([thresholds, precision, recall, f1], axis=1).tolist()
    return [OperatingPoint(*point) for point in points]


def best_threshold(labels: Labels, scores: Sequence[float]) -> float:
    """The lowest threshold with the highest macro F1; choose it on prompts that are not scored."""
    return max(threshold_sweep(labels, scores), key=lambda point: point.macro_f1).threshold


def apply_threshold(scores: Sequence[float], threshold: float) -> list[int]:
    """Answer "retrieve" from the threshold on."""
    return [RETRIEVE if score >= threshold else GENERATE for score in scores]


def average_precision(labels: Labels, scores: Sequence[float]) -> float:
    """Area under the precision/recall curve of "retrieve", 0 without such a label."""
    truth = np.asarray(labels) == RETRIEVE
    return float(average_precision_score(truth, scores)) if truth.any() else 0.0


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be taken at their word.

    Attributes:
        error: expected calibration error: mean |confidence - accuracy| of the bins, weighted by
            their size (Guo et al. 2017). brier: mean squared error of P(retrieve).
        bins: (mean confidence, accuracy, prompts) of each bin that is not empty.
    """

    error: float
    brier: float
    bins: list[tuple[float, float, int]]


def calibration(labels: Labels, retrieve: Sequence[float], bins: int = 10) -> Calibration:
    """Compare P(retrieve) with what the labels say, in equal bins of the confidence [0.5, 1].

    scikit-learn's ``calibration_curve`` gives no sizes of the bins, which the error is weighted by.
    """
    truth, chance = np.asarray(labels), np.asarray(retrieve, np.float64)
    confidence = np.maximum(chance, 1 - chance)
    right = np.where(chance >= 0.5, RETRIEVE, GENERATE) == truth
    means = stats.binned_statistic(confidence, [confidence, right], "mean", bins, (0.5, 1.0))
    sizes = np.bincount(means.binnumber - 1, minlength=bins)
    found = [
        (float(mean), float(accuracy), int(size))
        for (mean, accuracy), size in zip(means.statistic.T, sizes, strict=True)
        if size
    ]
    error = sum(abs(c - a) * n for c, a, n in found) / len(truth)
    brier = float(brier_score_loss(truth, chance, pos_label=RETRIEVE))
    return Calibration(error, brier, found)


def bootstrap_macro_f1(
    labels: Labels,
    predicted: Mapping[str, Labels],
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of macro F1 over resampled prompts, the same draws for every baseline.

    ``a - b`` is added for the first model ``a`` against each other, so that a difference is judged
    by its own interval.
    """
    columns = [np.asarray(labels), *(np.asarray(said) for said in predicted.values())]
    found = stats.bootstrap(
        columns, _scores_and_gaps, n_resamples=samples, vectorized=True, paired=True,
        confidence_level=level, method="percentile", rng=seed,
    ).confidence_interval  # fmt: skip
    first, *others = predicted
    names = [first, *others, *(f"{first} - {name}" for name in others)]
    intervals = zip(found.low.tolist(), found.high.tolist(), strict=True)
    return dict(zip(names, intervals, strict=True))


def human_agreement(votes: Sequence[Sequence[Vote]]) -> dict[str, float]:
    """What people reach on prompts with a confident label, from their own votes.

    ``macro_f1`` takes each single vote as an answer to the label of all (a "same" is wrong for
    either), ``pairwise`` is the share of pairs of votes on a prompt that are equal, over all
    prompts. The voter has a part in the label, so the first is an upper estimate.
    """
    labelled = [(confident_label(v), v) for v in votes]
    answers: dict[Vote, int] = {"gen": GENERATE, "ret": RETRIEVE, "same": len(CHOICES)}
    truth = [label for label, cast in labelled if label is not None for _ in cast]
    said = [answers[vote] for label, cast in labelled if label is not None for vote in cast]
    pairs = [(cast[i] == cast[j]) for cast in votes for i in range(len(cast)) for j in range(i)]
    return {
        "macro_f1": float(f1_score(truth, said, **_MACRO)) if truth else 0.0,
        "pairwise": float(np.mean(pairs)) if pairs else 0.0,
    }


def _macro_f1(
    truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], axis: int = -1
) -> npt.NDArray[np.float64]:
    """scikit-learn's macro F1 of many arrays at once, along an axis.

    ``f1_score`` takes milliseconds for each, and a sweep or a bootstrap needs thousands.
    """
    scores = []
    for kind in _CLASSES:
        true, said = truth == kind, predicted == kind
        total = true.sum(axis) + said.sum(axis)
        scores.append(2 * (true & said).sum(axis) / np.maximum(total, 1))
    return np.asarray(np.mean(scores, axis=0))


def _scores_and_gaps(
    truth: npt.NDArray[np.int64], *predicted: npt.NDArray[np.int64], axis: int
) -> npt.NDArray[np.float64]:
    """Macro F1 of each model, then the first's less each other's."""
    scores = np.stack([_macro_f1(truth, said, axis) for said in predicted])
    return np.concatenate([scores, scores[:1] - scores[1:]])
