"""Scores of the decision model: against its labels, and against simple baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score

from gill.decision import CHOICES, GENERATE, RETRIEVE, Vote, confident_label

Labels = Sequence[int]


def decision_scores(labels: Labels, predicted: Labels) -> dict[str, float]:
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
    found = []
    for threshold in [*np.unique(values).tolist(), np.nextafter(values.max(), np.inf)]:
        predicted = np.where(values >= threshold, RETRIEVE, GENERATE)
        right = int(((predicted == RETRIEVE) & (truth == RETRIEVE)).sum())
        said, wanted = int((predicted == RETRIEVE).sum()), int((truth == RETRIEVE).sum())
        found.append(
            OperatingPoint(
                float(threshold),
                right / said if said else 1.0,
                right / wanted if wanted else 0.0,
                float(_macro_f1(truth[None], predicted[None])[0]),
            )
        )
    return found


def best_threshold(labels: Labels, scores: Sequence[float]) -> float:
    """The lowest threshold with the highest macro F1; choose it on prompts that are not scored."""
    return max(threshold_sweep(labels, scores), key=lambda point: point.macro_f1).threshold


def apply_threshold(scores: Sequence[float], threshold: float) -> list[int]:
    """Answer "retrieve" from the threshold on."""
    return [RETRIEVE if score >= threshold else GENERATE for score in scores]


def average_precision(labels: Labels, scores: Sequence[float]) -> float:
    """Area under the precision/recall curve of "retrieve", 0 without such a label."""
    truth = [int(label == RETRIEVE) for label in labels]
    return float(average_precision_score(truth, scores)) if any(truth) else 0.0


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
    """Compare P(retrieve) with what the labels say, in equal bins of the confidence [0.5, 1]."""
    truth, chance = np.asarray(labels), np.asarray(retrieve, np.float64)
    confidence = np.maximum(chance, 1 - chance)
    right = (np.where(chance >= 0.5, RETRIEVE, GENERATE) == truth).astype(np.float64)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    found = [
        (float(confidence[place == b].mean()), float(right[place == b].mean()), int(n))
        for b, n in enumerate(np.bincount(place, minlength=bins))
        if n
    ]
    error = sum(abs(c - a) * n for c, a, n in found) / len(truth)
    brier = float(((chance - (truth == RETRIEVE)) ** 2).mean())
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
    truth = np.asarray(labels)
    rows = np.random.default_rng(seed).integers(0, len(truth), (samples, len(truth)))
    scores = {n: _macro_f1(truth[rows], np.asarray(p)[rows]) for n, p in predicted.items()}
    first = next(iter(scores))
    scores |= {f"{first} - {n}": scores[first] - v for n, v in scores.items() if n != first}
    tail = 50 * (1 - level)
    return {
        name: (float(np.percentile(v, tail)), float(np.percentile(v, 100 - tail)))
        for name, v in scores.items()
    }


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
        "macro_f1": float(_macro_f1(np.asarray([truth]), np.asarray([said]))[0]) if truth else 0.0,
        "pairwise": float(np.mean(pairs)) if pairs else 0.0,
    }


def _macro_f1(
    truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Macro F1 ``(n,)`` of rows of labels ``(n, prompts)``; a class that never occurs counts 0."""
    scores = []
    for kind in range(len(CHOICES)):
        true, said = truth == kind, predicted == kind
        total = true.sum(-1) + said.sum(-1)
        scores.append(2 * (true & said).sum(-1) / np.maximum(total, 1))
    return np.asarray(np.mean(scores, axis=0))
