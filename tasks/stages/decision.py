"""Stage 7: labels by votes, then the model that retrieves or generates, and what it is worth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from torch import Tensor

from data.artifacts import (
    ClipFeatures,
    ImageShards,
    RetrievalIndex,
    TrainedAdapters,
    TrainedDecision,
    TrainedMapper,
)
from data.io.atomic import write_json
from gill.decision import CHOICES, RETRIEVE, DecisionModel
from gill.evaluation.decisions import human_agreement
from gill.inference.engine import GillEngine
from tasks.config.decision import DecisionConfig
from tasks.evaluation.decision_labels import DecisionLabels, annotators_labels, scorers_labels
from tasks.evaluation.decision_scores import score_decision_model
from tasks.evaluation.held_out import read_captions
from tasks.evaluation.plots import confusion_matrix, thresholds_and_calibration
from tasks.evaluation.stored import StoredImages
from tasks.parts.engine import load_engine
from tasks.parts.trained_decision import load_decision, save_decision
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration
from tasks.training.decision_model import Examples, train_decision_model, with_score
from tasks.training.loop import RANDOM, finish

STAGE = StageDeclaration(
    version=4,
    description="Votes and the decision model",
    headlines=("macro_f1", "majority_macro_f1"),
    parts=("language", "vision", "generator"),
    model="gill-decision",
    splits=lambda config: () if config.votes_file else (config.split,),
)


def run(
    context: StageContext[DecisionConfig],
    images: ImageShards,
    features: ClipFeatures,
    adapters: TrainedAdapters,
    mapper: TrainedMapper,
    index: RetrievalIndex,
) -> TrainedDecision:
    """Write ``decision.safetensors``, ``labels.json`` and ``decision_scores.json``."""
    config, out, log = context.config, context.out, context.log
    people = bool(config.votes_file)
    engine = load_engine(context.parts, context.runtime, adapters, mapper, index, prompts=people)
    if people:
        made = annotators_labels(config, engine, Path(config.votes_file), log)
    else:
        stored = StoredImages.of(images, features)
        captions = read_captions(images, adapters, config.split)
        made = scorers_labels(config, engine, stored, captions, out, log)
    labels = made.labels()
    kinds = Counter("same" if label is None else CHOICES[label] for label in labels)
    write_json(out / TrainedDecision.LABELS, _described(made, kinds))
    training = Examples.among(labels, range(made.training))
    held_out = Examples.among(labels, range(made.training, len(labels)))
    if not training.rows or not held_out.rows:
        raise ValueError(
            f"{len(training.rows)} of {made.training} training and {len(held_out.rows)} of "
            f"{len(labels) - made.training} validation prompts have a confident label "
            f"({dict(kinds)}); lower decision.margin ({config.margin}) or raise "
            "decision.train_prompts"
        )
    scored = {name: with_score(made.states, made.nearest, training) for name in config.ablations}
    given = mapper.decision
    if given is not None:
        log.note("the imported model's decision model is scored; none is trained")
    with RANDOM:
        model = (
            train_decision_model(config, out, log, made.states, training, held_out)
            if given is None
            else load_decision(given)
        )
        others = {
            name: train_decision_model(config, out, log, states, training, held_out, f"with_{name}")
            for name, states in scored.items()
        }
    chosen = {
        f"with_{name}": _probabilities(engine, scored[name], held_out, other).argmax(-1).tolist()
        for name, other in others.items()
    }
    retrieve = _probabilities(engine, made.states, held_out, model)[:, RETRIEVE].tolist()
    nearest = made.nearest.tolist()
    scores = score_decision_model(
        truth=held_out.labels,
        retrieve=retrieve,
        nearest=[nearest[row] for row in held_out.rows],
        training=training.labels,
        training_nearest=[nearest[row] for row in training.rows],
        others=chosen,
    )
    save_decision(out, model, made.states.shape[-1])
    write_json(out / TrainedDecision.SCORES, scores.described())
    log.figure("confusion_matrix", confusion_matrix(scores.metrics))
    log.figure("thresholds_and_calibration", thresholds_and_calibration(scores))
    finish(out)
    annotators = human_agreement(made.votes)
    metrics = scores.metrics | {
        "annotator_macro_f1": annotators["macro_f1"],
        "annotator_agreement": annotators["pairwise"],
        **{f"prompts_{name}": float(count) for name, count in kinds.items()},
        "usual_gap": made.usual_gap,
        "dropped": float(sum(made.dropped.values())),
    }
    return TrainedDecision.made(out, metrics)


def _probabilities(
    engine: GillEngine, states: Tensor, examples: Examples, model: DecisionModel
) -> Tensor:
    probabilities = engine.decide(states[examples.rows], model)
    assert probabilities is not None  # there is a model
    return probabilities


def _described(made: DecisionLabels, kinds: Counter[str]) -> dict[str, object]:
    rows = zip(made.prompts, made.nearest, made.votes, strict=True)
    return {
        "kinds": kinds,
        "dropped": made.dropped,
        "rows": [{"caption": p, "nearest": float(s), "votes": v} for p, s, v in rows],
    }
