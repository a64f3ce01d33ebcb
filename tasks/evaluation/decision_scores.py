"""What a decision model is worth on held-out prompts, beside simple baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gill.decision import CHOICES, GENERATE, RETRIEVE
from gill.evaluation.decisions import (
    Calibration,
    OperatingPoint,
    apply_threshold,
    average_precision,
    best_threshold,
    bootstrap_macro_f1,
    calibration,
    decision_scores,
    majority,
    threshold_sweep,
)

MODEL = "model"


@dataclass(frozen=True)
class DecisionScores:
    """Metrics with what their plots are made of.

    Attributes:
        intervals: of macro F1 at 95 per cent, of the model and each baseline.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    sweep: list[OperatingPoint]
    calibration: Calibration

    def described(self) -> dict[str, Any]:
        """What is written beside the model."""
        return {
            "macro_f1_95": self.intervals,
            "sweep": [asdict(point) for point in self.sweep],
            "calibration": asdict(self.calibration),
        }


def baseline_choices(
    training: Sequence[int], nearest: Sequence[float], threshold: float
) -> dict[str, list[int]]:
    """What baselines choose: the majority, always the same, and a threshold on retrieval scores.

    Args:
        training: labels of the training prompts.
        nearest: the best retrieval score of each held-out prompt.
    """
    count = len(nearest)
    return {
        "majority": [majority(training)] * count,
        "always_generate": [GENERATE] * count,
        "always_retrieve": [RETRIEVE] * count,
        "score_threshold": apply_threshold(nearest, threshold),
    }


def score_decision_model(
    truth: Sequence[int],
    retrieve: Sequence[float],
    nearest: Sequence[float],
    training: Sequence[int],
    training_nearest: Sequence[float],
    others: Mapping[str, Sequence[int]],
) -> DecisionScores:
    """Score a model and the baselines on held-out prompts.

    Args:
        truth: labels. retrieve: the model's probabilities of retrieving.
        nearest: best retrieval scores. training, training_nearest: the same of the training
            prompts, which choose the threshold.
        others: what other models chose, by name.
    """
    threshold = best_threshold(training, training_nearest)
    predicted = {
        MODEL: apply_threshold(retrieve, 0.5),
        **others,
        **baseline_choices(training, nearest, threshold),
    }
    metrics = decision_scores(truth, predicted[MODEL])
    intervals = bootstrap_macro_f1(truth, predicted)
    for name, said in predicted.items():
        prefix = "" if name == MODEL else f"{name}_"
        metrics[f"{prefix}macro_f1"] = decision_scores(truth, said)["macro_f1"]
        metrics[f"{prefix}macro_f1_low"], metrics[f"{prefix}macro_f1_high"] = intervals[name]
    sweep, reliability = threshold_sweep(truth, retrieve), calibration(truth, retrieve)
    metrics |= {
        "score_threshold": threshold,
        "average_precision": average_precision(truth, retrieve),
        "sweep_best_macro_f1": max(point.macro_f1 for point in sweep),
        "calibration_error": reliability.error,
        "brier": reliability.brier,
    }
    return DecisionScores(metrics, intervals, sweep, reliability)


def held_out_metrics(
    labels: Sequence[int | None],
    choices: Sequence[int],
    nearest: Sequence[float],
    made: Mapping[str, float],
) -> dict[str, float]:
    """Macro F1 of the model and of its baselines on the prompts with a confident label.

    Args:
        nearest: the best retrieval score of each prompt.
        made: what the decision stage reported: its label counts and the baseline's threshold.
    """
    confident = [i for i, label in enumerate(labels) if label is not None]
    if not confident:
        return {"decision_prompts": 0.0}
    truth = [int(labels[i] or 0) for i in confident]
    counts = [int(made.get(f"prompts_{name}", 0)) for name in CHOICES]
    training = [label for label, n in enumerate(counts) for _ in range(n)]
    scores = [nearest[i] for i in confident]
    said = {
        "": [choices[i] for i in confident],
        **{
            f"{name}_": chosen
            for name, chosen in baseline_choices(training, scores, made["score_threshold"]).items()
        },
    }
    interval = bootstrap_macro_f1(truth, said)[""]
    found = {name: decision_scores(truth, predicted) for name, predicted in said.items()}
    return {
        "decision_prompts": float(len(confident)),
        "decision_accuracy": found[""]["accuracy"],
        **{f"decision_{name}macro_f1": score["macro_f1"] for name, score in found.items()},
        "decision_macro_f1_low": interval[0],
        "decision_macro_f1_high": interval[1],
    }
