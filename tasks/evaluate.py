"""Stage 8: held-out captioning, retrieval, generation and decisions, with a gallery."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from data.artifacts import write_json
from data.shards import AlignedShards, Columns
from gill.decision import CHOICES, confident_label, votes_from_scores
from gill.evaluation.captioning import (
    caption_frequency_baseline,
    caption_scores,
    word_frequency_baseline,
)
from gill.evaluation.choices import decision_scores, majority_scores
from gill.evaluation.pictures import frechet_distance, paired_similarity
from gill.evaluation.retrieval import recall
from gill.generation import caption_images
from gill.model import GillModel
from tasks import adapters as adapters_stage
from tasks import decision as decision_stage
from tasks.adapters import STATES
from tasks.answers import Answers, as_image, stored_pictures
from tasks.clip_features import FEATURES
from tasks.config import EvaluateConfig
from tasks.download import IMAGES
from tasks.frozen import load_language, released
from tasks.stage import StageContext
from tasks.text_targets import TARGETS


def run(context: StageContext) -> dict[str, float]:
    """Write ``metrics.json`` and ``captions.json``; the gallery goes to MLflow."""
    config: EvaluateConfig = context.config
    rows = _test_rows(context)
    metrics: dict[str, float] = {}
    with released():
        metrics |= _captioning(context, rows)
    context.log.metrics(metrics, 0)
    answers = Answers.load(context)
    states = answers.states(rows)
    feature = torch.from_numpy(np.asarray(rows["feature"], np.float32))
    few = slice(0, config.retrieval_candidates)
    found = recall(answers.maps.embed_text(states[few]), answers.maps.embed_image(feature[few]))
    metrics |= {f"retrieval_{k}": v for k, v in found.items()}
    metrics |= _pictures_and_decisions(context, answers, rows, states, feature)
    write_json(context.out / "metrics.json", metrics)
    return metrics


def _test_rows(context: StageContext) -> Columns:
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
        made += caption_images(model, part, config.max_new_tokens)
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


def _pictures_and_decisions(
    context: StageContext, answers: Answers, rows: Columns, states: Tensor, feature: Tensor
) -> dict[str, float]:
    config: EvaluateConfig = context.config
    count = min(config.pictures, len(rows["key"]))
    captions = [str(c) for c in rows["caption"][:count]]
    keys = [str(k) for k in rows["key"][:count]]
    states, feature = states[:count], feature[:count]
    true = answers.vision.project(feature).cpu()
    text = answers.vision.text(captions).cpu()
    votes = context.inputs["decision"].manifest().config
    kind = context.inputs["mapper"].manifest().config["kind"]
    context.log.progress(0, 4, "picture sets")
    gill = decision_stage.score_answers(
        answers,
        answers.conditioning(answers.mapper(kind), states),
        states,
        captions,
        keys,
        int(votes["votes"]),
        config.seed,
    )
    context.log.progress(1, 4, "picture sets")
    sets = {"gill": (gill.pictures, gill.pooled, gill.seen)}
    seeds = [config.seed * 100_003 + i for i in range(count)]
    target = torch.from_numpy(np.asarray(rows["target"][:count], np.float32))
    target = target.view(count, answers.generator.num_tokens, -1)
    conditions: dict[str, tuple[Tensor, float | None]] = {"own_text_encoder": (target, None)}
    for baseline in context.inputs["mapper"].manifest().config["baselines"]:
        if baseline != kind:
            conditions[f"{baseline}_mapper"] = (
                answers.conditioning(answers.mapper(baseline), states),
                None,
            )
    empty = answers.generator.encode_text([""]).float().cpu().expand(count, -1, -1)
    conditions["unconditional"] = (empty, 1.0)
    for done, (name, (condition, scale)) in enumerate(conditions.items(), 2):
        pictures = answers.sample(condition, seeds, scale)
        sets[name] = (pictures, *answers.see(pictures))
        context.log.progress(done, 1 + len(conditions), "picture sets")
    metrics: dict[str, float] = {}
    for name, (_, pooled, seen) in sets.items():
        metrics |= {
            f"{name}_image_image_similarity": float(paired_similarity(seen, true).mean()),
            f"{name}_image_text_similarity": float(paired_similarity(seen, text).mean()),
            f"{name}_frechet_efficientnet_distance": frechet_distance(pooled, feature),
        }
    metrics["true_image_text_similarity"] = float(paired_similarity(true, text).mean())
    metrics["retrieved_image_text_similarity"] = float(gill.retrieved.mean())
    gap = context.inputs["decision"].metrics["usual_gap"]
    cast = votes_from_scores(gill.generated, gill.retrieved + gap, float(votes["margin"]))
    labels = [confident_label(v) for v in cast]
    model = decision_stage.load(context.inputs["decision"])
    probabilities = model.probabilities(states)
    metrics |= _decisions(context, labels, probabilities)
    shown = {name: pictures for name, (pictures, _, _) in sets.items()}
    _gallery(context, rows, shown, gill.keys, labels, probabilities)
    return metrics


def _decisions(
    context: StageContext, labels: list[int | None], probabilities: Tensor
) -> dict[str, float]:
    confident = [i for i, label in enumerate(labels) if label is not None]
    if not confident:
        return {"decision_prompts": 0.0}
    truth = [int(labels[i] or 0) for i in confident]
    predicted = probabilities.argmax(-1)[confident].tolist()
    made = context.inputs["decision"].metrics
    counts = [int(made.get(f"prompts_{name}", 0)) for name in CHOICES]
    training = [label for label, n in enumerate(counts) for _ in range(n)]
    scores = decision_scores(truth, predicted)
    return {
        "decision_prompts": float(len(confident)),
        "decision_macro_f1": scores["macro_f1"],
        "decision_accuracy": scores["accuracy"],
        "decision_majority_macro_f1": majority_scores(training, truth)["macro_f1"],
    }


def _gallery(
    context: StageContext,
    rows: Columns,
    sets: Mapping[str, Tensor],
    retrieved: list[str],
    labels: list[int | None],
    probabilities: Tensor,
) -> None:
    config: EvaluateConfig = context.config
    count = min(config.gallery, len(retrieved))
    keys = [str(k) for k in rows["key"][:count]]
    stored = stored_pictures(context.inputs["download"], [*keys, *retrieved[:count]])
    choices = probabilities.argmax(-1).tolist()
    context.log.table(
        "gallery",
        {
            "prompt": [str(c) for c in rows["caption"][:count]],
            "true picture": [stored[k] for k in keys],
            "retrieved": [stored[k] for k in retrieved[:count]],
            **{name: [as_image(p) for p in pictures[:count]] for name, pictures in sets.items()},
            "decision": [
                f"{CHOICES[choices[i]]} ({float(probabilities[i, choices[i]]):.2f})"
                for i in range(count)
            ],
            "votes say": ["same" if x is None else CHOICES[x] for x in labels[:count]],
        },
    )
