"""Stage 8: held-out captioning, retrieval, generation and decisions, with a gallery."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, stdev

import numpy as np
import torch

from data.artifacts import write_json
from data.shards import AlignedShards, Columns
from gill.decision import CHOICES, GENERATE, RETRIEVE, confident_label
from gill.evaluation.captioning import (
    caption_frequency_baseline,
    caption_scores,
    word_frequency_baseline,
)
from gill.evaluation.decisions import apply_threshold, bootstrap_macro_f1, decision_scores, majority
from gill.evaluation.retrieval import recall
from gill.inference.decoding import decode
from gill.inference.prompts import PromptReader
from gill.inference.settings import DecodingSettings
from gill.model import GillModel
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.answers import Answers, opened, stored_images
from tasks.evaluation.context_suites import context_metrics, score_contexts
from tasks.evaluation.decision_labels import score_prompts, votes_of
from tasks.evaluation.generated_images import TO_TRUE, HeldOut, ImageSet
from tasks.evaluation.report import Cell, Report
from tasks.parts.loading import load_language
from tasks.runner.context import StageContext
from tasks.stages import adapters as adapters_stage
from tasks.stages import decision as decision_stage
from tasks.stages.adapters import STATES
from tasks.stages.clip_features import FEATURES
from tasks.stages.download import IMAGES
from tasks.stages.text_targets import TARGETS
from tasks.tracking.memory import release_memory

WORST = 12  # prompts that the report shows


def run(context: StageContext) -> dict[str, float]:
    """Run the suites that the recipe names.

    Writes ``metrics.json``, ``report.html``, ``report.md`` and what the suites write; the gallery
    goes to MLflow.
    """
    config: EvaluateConfig = context.config
    chosen = set(config.suites)
    metrics: dict[str, float] = {}
    report = Report(context)
    if chosen & {"captioning", "retrieval", "generation", "decisions"}:
        rows = held_out_rows(context)
        if "captioning" in chosen:
            metrics |= _captioning(context, rows)
            release_memory()
            context.log.metrics(metrics, 0)
        if chosen & {"retrieval", "generation", "decisions"}:
            metrics |= _answers(context, rows, chosen, report)
            release_memory()
    if chosen & {"synthetic_contexts", "vist", "visdial"}:
        rows_of_contexts = score_contexts(context)
        metrics |= context_metrics(rows_of_contexts)
        report.contexts(rows_of_contexts)
    write_json(context.out / "metrics.json", metrics)
    report.write(metrics)
    return metrics


def _answers(
    context: StageContext, rows: Columns, chosen: Collection[str], report: Report
) -> dict[str, float]:
    """Retrieval, generation and decisions: what is answered to held-out captions."""
    config: EvaluateConfig = context.config
    answers = Answers.load(context)
    metrics: dict[str, float] = {}
    if "retrieval" in chosen:
        few = {name: values[: config.retrieval_candidates] for name, values in rows.items()}
        states = answers.states(few)
        feature = torch.from_numpy(np.asarray(few["feature"], np.float32))
        found = recall(answers.maps.embed_text(states), answers.maps.embed_image(feature))
        metrics |= {f"retrieval_{k}": v for k, v in found.items()}
    columns: dict[str, list[Cell]] = {}
    if "generation" in chosen:
        found, shown = _images(context, answers, rows, report)
        metrics |= found
        columns |= shown
    if "decisions" in chosen:
        found, decided = _decisions(context, answers, rows)
        metrics |= found
        columns |= decided
    if columns:
        count = min(config.gallery, *(len(values) for values in columns.values()))
        keys = [str(k) for k in rows["key"][:count]]
        stored = stored_images(context.inputs["download"], keys, "test")
        gallery: dict[str, list[Cell]] = {
            "prompt": [str(c) for c in rows["caption"][:count]],
            "true image": [stored[k] for k in keys],
            **{name: values[:count] for name, values in columns.items()},
        }
        context.log.table("gallery", gallery)
        report.gallery(gallery)
    return metrics


def held_out_rows(context: StageContext) -> Columns:
    """The whole test split: captions, features, targets and [IMG] states."""
    inputs = context.inputs
    return AlignedShards(
        {
            inputs["download"].file(IMAGES): ["caption"],
            inputs["clip_features"].file(FEATURES): ["feature"],
            inputs["text_targets"].file(TARGETS): ["target"],
            inputs["adapters"].file(STATES): ["state"],
        },
        "test",
    ).all()


def _captioning(context: StageContext, rows: Columns) -> dict[str, float]:
    config: EvaluateConfig = context.config
    language = load_language(context.parts.language, context.runtime)
    model = GillModel(language, adapters_stage.load(context.inputs["adapters"], language))
    count = min(config.captions, len(rows["key"]))
    feature = torch.from_numpy(np.asarray(rows["feature"][:count], np.float32))
    made: list[str] = []
    for part in feature.split(64):
        made += _captions(model, part, config.max_new_tokens)
        context.log.progress(len(made), count, "captions")
    references = [str(c) for c in rows["caption"][:count]]
    training = AlignedShards({context.inputs["download"].file(IMAGES): ["caption"]}, "train").all()
    known = [str(caption) for caption in training["caption"]]
    write_json(
        context.out / "captions.json",
        [{"key": k, "caption": c, "reference": r}
         for k, c, r in zip(rows["key"][:count], made, references, strict=True)],
    )  # fmt: skip
    scores = {f"caption_{k}": v for k, v in caption_scores(made, references).items()}
    for baseline in (caption_frequency_baseline, word_frequency_baseline):
        floor = caption_scores(baseline(known, count), references)
        scores[f"{baseline.__name__}_cider"] = floor["cider"]
    return scores


def _captions(model: GillModel, features: torch.Tensor, max_new_tokens: int) -> list[str]:
    settings = DecodingSettings(max_new_tokens=max_new_tokens, max_images=0)
    embeddings, mask = PromptReader(model).prepare(list(features), settings.room(1))
    answers = decode(model, embeddings, mask, settings, [0] * len(features))
    texts = model.language.tokenizer.batch_decode([answer.tokens for answer in answers])
    return [text.strip() for text in texts]


def over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of the same metrics over seeds; with several also deviations, as ``<name>_sd``."""
    found = {name: fmean(s[name] for s in scores) for name in scores[0]}
    if len(scores) > 1:
        names = [n for n in scores[0] if not n.endswith("_se")]
        found |= {f"{name}_sd": stdev(s[name] for s in scores) for name in names}
    return found


def _images(
    context: StageContext, answers: Answers, rows: Columns, report: Report
) -> tuple[dict[str, float], dict[str, list[Cell]]]:
    """Scores of the image sets over the seeds, and the images of the first seed."""
    config: EvaluateConfig = context.config
    held = HeldOut.load(context, answers, rows)
    sampled = held.sample()
    first = sampled[0]
    report.worst(_worst(held, first))
    shown: dict[str, list[Cell]] = {
        name: [opened(p) for p in made.images[: config.gallery]] for name, made in first.items()
    }
    return over_seeds([held.scores(sets) for sets in sampled]), shown


def _worst(held: HeldOut, sets: Mapping[str, ImageSet]) -> dict[str, list[Cell]]:
    similarity = sets["gill"].values[TO_TRUE]
    worst = similarity.argsort()[:WORST].tolist()
    keys = [held.keys[i] for i in worst]
    stored = stored_images(held.context.inputs["download"], keys, "test")
    return {
        "prompt": [held.captions[i] for i in worst],
        "true image": [stored[k] for k in keys],
        **{name: [made.images[i] for i in worst] for name, made in sets.items()},
        "similarity": [float(similarity[i]) for i in worst],
    }


def _decisions(
    context: StageContext, answers: Answers, rows: Columns
) -> tuple[dict[str, float], dict[str, list[Cell]]]:
    """The decision model against the scorer's votes on test captions, and columns to show."""
    config: EvaluateConfig = context.config
    few = {name: values[: config.decision_prompts] for name, values in rows.items()}
    made = context.inputs["decision"].manifest()
    scored = score_prompts(context, answers, few, int(made.config["votes"]), config.seed)
    gap, margin = made.metrics["usual_gap"], float(made.config["margin"])
    labels = [confident_label(votes_of(row, gap, margin)) for row in scored]
    model = decision_stage.load(context.inputs["decision"])
    probabilities = model.probabilities(answers.states(few))
    choices = probabilities.argmax(-1).tolist()
    metrics = {"retrieved_image_text_similarity": fmean(r["retrieved_score"] for r in scored)}
    nearest = [row["nearest"] for row in scored]
    metrics |= decision_metrics(labels, choices, nearest, made.metrics)
    first = [row["retrieved_key"] for row in scored[: config.gallery]]
    stored = stored_images(context.inputs["download"], first)
    return metrics, {
        "retrieved": [stored[k] for k in first],
        "decision": [f"{CHOICES[c]} ({float(p[c]):.2f})"
                     for c, p in zip(choices, probabilities, strict=True)],
        "votes say": ["same" if x is None else CHOICES[x] for x in labels],
    }  # fmt: skip


def decision_metrics(
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
    said = {
        "": [choices[i] for i in confident],
        "majority_": [majority(training)] * len(truth),
        "always_generate_": [GENERATE] * len(truth),
        "always_retrieve_": [RETRIEVE] * len(truth),
        "score_threshold_": apply_threshold(
            [nearest[i] for i in confident], made["score_threshold"]
        ),
    }
    intervals = bootstrap_macro_f1(truth, said)
    scores = {n: decision_scores(truth, predicted) for n, predicted in said.items()}
    return {
        "decision_prompts": float(len(confident)),
        "decision_accuracy": scores[""]["accuracy"],
        **{f"decision_{n}macro_f1": s["macro_f1"] for n, s in scores.items()},
        "decision_macro_f1_low": intervals[""][0],
        "decision_macro_f1_high": intervals[""][1],
    }
