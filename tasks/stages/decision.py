"""Stage 7: labels by votes, then the model that retrieves or generates, and what it is worth."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.artifacts import Artifact, write_json
from gill.decision import CHOICES, GENERATE, RETRIEVE, DecisionModel, confident_label
from gill.evaluation.decisions import (
    apply_threshold,
    average_precision,
    best_threshold,
    bootstrap_macro_f1,
    calibration,
    decision_scores,
    human_agreement,
    majority,
    threshold_sweep,
)
from gill.training import Optimization, Trainer
from tasks.config.decision import DecisionConfig
from tasks.evaluation.decision_labels import DecisionLabels, make_decision_labels
from tasks.runner.context import StageContext
from tasks.training.loop import RANDOM, finish, train


@dataclass(frozen=True)
class DecisionBatch:
    """[IMG] states ``(batch, r, llm_dim)`` and labels ``(batch,)``."""

    states: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Examples:
    """Prompts with a confident label: rows of the decision labels and their labels."""

    rows: list[int]
    labels: list[int]


def run(context: StageContext) -> dict[str, float]:
    """Write ``decision.safetensors``, ``labels.json`` and ``decision_scores.json``."""
    config: DecisionConfig = context.config
    decision_labels = make_decision_labels(context)
    labels = [confident_label(v) for v in decision_labels.votes]
    kinds = Counter("same" if label is None else CHOICES[label] for label in labels)
    write_json(
        context.out / "labels.json",
        {"kinds": kinds, "dropped": decision_labels.dropped,
         "rows": [{"caption": p, "nearest": float(s), "votes": v} for p, s, v in
                  zip(decision_labels.prompts, decision_labels.nearest,
                      decision_labels.votes, strict=True)]},
    )  # fmt: skip
    cut, count = decision_labels.training, len(labels)
    training, held_out = _examples(labels, 0, cut), _examples(labels, cut, count)
    if not training.rows or not held_out.rows:
        raise ValueError(
            f"{len(training.rows)} of {cut} training and {len(held_out.rows)} of {count - cut} "
            f"validation prompts have a confident label ({dict(kinds)}); lower decision.margin "
            f"({config.margin}) or raise decision.train_prompts"
        )
    with RANDOM:
        model = fit(context, decision_labels.states, training, held_out, "")
        others = {
            f"with_{name}": fit(
                context, with_score(decision_labels, training), training, held_out, f"with_{name}"
            )
            for name in config.ablations
        }
    states = {name: with_score(decision_labels, training) for name in others}
    predicted = {
        name: other.probabilities(states[name][held_out.rows]).argmax(-1).tolist()
        for name, other in others.items()
    }
    metrics = score_decisions(context, decision_labels, training, held_out, model, predicted)
    metrics |= {f"prompts_{name}": float(n) for name, n in kinds.items()}
    metrics |= {
        "usual_gap": decision_labels.usual_gap,
        "dropped": float(sum(decision_labels.dropped.values())),
    }
    save_file(model.state_dict(), context.out / "decision.safetensors")
    write_json(context.out / "decision.json", {"llm_dim": decision_labels.states.shape[-1]})
    finish(context)
    return metrics


@torch.no_grad()
def held_out_loss(model: DecisionModel, held: DecisionBatch) -> dict[str, float]:
    """Cross-entropy of the labels, without dropout."""
    return {"loss": float(F.cross_entropy(model.eval()(held.states), held.labels))}


def load(artifact: Artifact) -> DecisionModel:
    """Read the decision model of an artifact."""
    width = json.loads(artifact.file("decision.json").read_text())["llm_dim"]
    model = DecisionModel(width)
    model.load_state_dict(load_file(artifact.file("decision.safetensors")))
    return model.requires_grad_(False).eval()


def fit(
    context: StageContext, states: Tensor, training: Examples, held_out: Examples, name: str
) -> DecisionModel:
    """Train the classifier on some rows of ``states``; classes are treated as the recipe says."""
    config: DecisionConfig = context.config
    torch.manual_seed(config.seed)
    model = DecisionModel(states.shape[-1], config.dropout)
    rows, targets = torch.tensor(training.rows), torch.tensor(training.labels)
    weights = class_weights(targets) if config.rare_classes != "as_is" else torch.ones(2)
    in_loss = weights if config.rare_classes == "weight" else None
    in_draw = weights[targets] if config.rare_classes == "resample" else torch.ones(len(rows))

    def loss(batch: DecisionBatch) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(model(batch.states), batch.labels, in_loss)}

    def batches(start: int) -> Iterator[DecisionBatch]:
        while True:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + start)
            chosen = torch.multinomial(in_draw, config.batch_size, True, generator=generator)
            yield DecisionBatch(states[rows[chosen]], targets[chosen])
            start += 1

    held = DecisionBatch(states[held_out.rows], torch.tensor(held_out.labels))
    train(
        Trainer(model, loss, Optimization.of(config)),
        batches,
        context,
        name,
        validate=lambda: held_out_loss(model, held),
    )
    return model.eval()


def class_weights(labels: Tensor) -> Tensor:
    """Weights ``(2,)`` that give each class the same share: n / (2 n_class)."""
    counts = torch.bincount(labels, minlength=len(CHOICES)).clamp(min=1)
    return len(labels) / (len(CHOICES) * counts)


def with_score(decision_labels: DecisionLabels, training: Examples) -> Tensor:
    """[IMG0] with the best retrieval score beside it, standardised: ``(n, 1, llm_dim + 1)``."""
    known = decision_labels.nearest[training.rows]
    score = (decision_labels.nearest - known.mean()) / known.std(correction=0).clamp(min=1e-6)
    return torch.cat([decision_labels.states[:, 0], score[:, None]], dim=-1)[:, None]


def score_decisions(
    context: StageContext,
    decision_labels: DecisionLabels,
    training: Examples,
    held_out: Examples,
    model: DecisionModel,
    others: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Score the model and its baselines on the held-out prompts, with plots and intervals."""
    truth = held_out.labels
    retrieve = model.probabilities(decision_labels.states[held_out.rows])[:, RETRIEVE].tolist()
    nearest = decision_labels.nearest.tolist()
    threshold = best_threshold(training.labels, [nearest[i] for i in training.rows])
    predicted = {
        "model": apply_threshold(retrieve, 0.5),
        **others,
        "majority": [majority(training.labels)] * len(truth),
        "always_generate": [GENERATE] * len(truth),
        "always_retrieve": [RETRIEVE] * len(truth),
        "score_threshold": apply_threshold([nearest[i] for i in held_out.rows], threshold),
    }
    metrics = decision_scores(truth, predicted["model"])
    intervals = bootstrap_macro_f1(truth, predicted)
    for name, said in predicted.items():
        prefix = "" if name == "model" else f"{name}_"
        metrics[f"{prefix}macro_f1"] = decision_scores(truth, said)["macro_f1"]
        metrics[f"{prefix}macro_f1_low"], metrics[f"{prefix}macro_f1_high"] = intervals[name]
    sweep, reliability = threshold_sweep(truth, retrieve), calibration(truth, retrieve)
    annotators = human_agreement(decision_labels.votes)
    metrics |= {
        "score_threshold": threshold,
        "average_precision": average_precision(truth, retrieve),
        "sweep_best_macro_f1": max(point.macro_f1 for point in sweep),
        "calibration_error": reliability.error,
        "brier": reliability.brier,
        "annotator_macro_f1": annotators["macro_f1"],
        "annotator_agreement": annotators["pairwise"],
    }
    points = [asdict(p) for p in sweep]
    write_json(
        context.out / "decision_scores.json",
        {"macro_f1_95": intervals, "sweep": points, "calibration": asdict(reliability)},
    )
    _confusion(context, metrics)
    _curves(context, metrics, points, reliability.bins)
    return metrics


def _examples(labels: Sequence[int | None], start: int, stop: int) -> Examples:
    rows = [i for i in range(start, stop) if labels[i] is not None]
    return Examples(rows, [int(labels[i] or 0) for i in rows])


def _confusion(context: StageContext, metrics: dict[str, float]) -> None:
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
    context.log.figure("confusion_matrix", figure)


def _curves(
    context: StageContext,
    metrics: Mapping[str, float],
    sweep: Sequence[Mapping[str, float]],
    bins: Sequence[tuple[float, float, int]],
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.step([p["recall"] for p in sweep], [p["precision"] for p in sweep], where="post")
    left.set(xlabel="recall of retrieve", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
    left.set_title(f"average precision {metrics['average_precision']:.2f}")
    middle.plot([p["threshold"] for p in sweep], [p["macro_f1"] for p in sweep])
    middle.axvline(0.5, color="grey", linewidth=1)
    middle.set(xlabel="retrieve from this probability on", ylabel="macro F1", xlim=(0, 1))
    right.plot([0.5, 1], [0.5, 1], color="grey", linewidth=1)
    right.scatter([c for c, _, _ in bins], [a for _, a, _ in bins], [8 + 2 * n for *_, n in bins])
    right.set(xlabel="confidence", ylabel="accuracy", ylim=(0, 1.05))
    right.set_title(f"calibration error {metrics['calibration_error']:.2f}")
    context.log.figure("thresholds_and_calibration", figure)
