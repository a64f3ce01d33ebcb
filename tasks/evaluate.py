"""Stage 8: held-out captioning, retrieval, generation and decisions, with a gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
from tasks.ballots import score_answers
from tasks.clip_features import FEATURES
from tasks.config import EvaluateConfig
from tasks.download import IMAGES
from tasks.frozen import load_language, release_memory
from tasks.stage import StageContext
from tasks.text_targets import TARGETS


def run(context: StageContext) -> dict[str, float]:
    """Write ``metrics.json`` and ``captions.json``; the gallery goes to MLflow."""
    config: EvaluateConfig = context.config
    rows = _test_rows(context)
    metrics: dict[str, float] = {}
    metrics |= _captioning(context, rows)
    release_memory()
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


@dataclass(frozen=True)
class PictureSet:
    """Pictures ``(n, 3, size, size)``, their pooled features and their unit vectors."""

    pictures: Tensor
    pooled: Tensor
    seen: Tensor


def picture_sets(
    context: StageContext, answers: Answers, states: Tensor, target: Tensor
) -> dict[str, PictureSet]:
    """One picture for each prompt of GILL, each baseline mapper, the ceiling and the floor.

    Every set uses the same seeds, so that differences between sets are paired.
    """
    count = len(states)
    seeds = [context.config.seed * 100_003 + i for i in range(count)]
    made = context.inputs["mapper"].manifest().config
    conditions: dict[str, tuple[Tensor, float | None]] = {}
    for kind in dict.fromkeys((made["kind"], *made["baselines"])):
        name = "gill" if kind == made["kind"] else f"{kind}_mapper"
        conditions[name] = (answers.conditioning(answers.mapper(kind), states), None)
    conditions["own_text_encoder"] = (target, None)
    empty = answers.generator.encode_text([""]).float().cpu().expand(count, -1, -1)
    conditions["unconditional"] = (empty, 1.0)
    sets: dict[str, PictureSet] = {}
    for name, (condition, scale) in conditions.items():
        pictures = answers.sample(condition, seeds, scale)
        sets[name] = PictureSet(pictures, *answers.see(pictures))
        context.log.progress(len(sets), len(conditions), "picture sets")
    return sets


def picture_scores(
    sets: Mapping[str, PictureSet], true: Tensor, text: Tensor, feature: Tensor
) -> dict[str, float]:
    """Similarities and distances of each set, with standard errors, and GILL against the others.

    Args:
        true: unit vectors of the true pictures. text: of the captions.
        feature: pooled features of the true pictures.
    """
    scores: dict[str, float] = {}
    to_true = {name: paired_similarity(s.seen, true) for name, s in sets.items()}
    for name, found in sets.items():
        scores |= _mean(f"{name}_image_image_similarity", to_true[name])
        scores |= _mean(f"{name}_image_text_similarity", paired_similarity(found.seen, text))
        scores[f"{name}_frechet_efficientnet_distance"] = frechet_distance(found.pooled, feature)
        if name != "gill":
            scores |= _mean(f"gill_minus_{name}_image_image", to_true["gill"] - to_true[name])
    return scores | _mean("true_image_text_similarity", paired_similarity(true, text))


def _mean(name: str, values: Tensor) -> dict[str, float]:
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {name: float(values.mean()), f"{name}_se": error}


def _pictures_and_decisions(
    context: StageContext, answers: Answers, rows: Columns, states: Tensor, feature: Tensor
) -> dict[str, float]:
    config: EvaluateConfig = context.config
    count = min(config.pictures, len(rows["key"]))
    captions = [str(c) for c in rows["caption"][:count]]
    keys = [str(k) for k in rows["key"][:count]]
    states, feature = states[:count], feature[:count]
    target = torch.from_numpy(np.asarray(rows["target"][:count], np.float32))
    target = target.view(count, answers.generator.num_tokens, -1)
    sets = picture_sets(context, answers, states, target)
    true, text = answers.vision.project(feature).cpu(), answers.vision.text(captions).cpu()
    metrics = picture_scores(sets, true, text, feature)
    few = min(config.decision_prompts, count)
    votes = context.inputs["decision"].manifest().config
    scored = score_answers(
        answers,
        answers.conditioning(answers.mapper(), states[:few]),
        states[:few],
        captions[:few],
        keys[:few],
        int(votes["votes"]),
        config.seed,
    )
    metrics["retrieved_image_text_similarity"] = float(scored.retrieved.mean())
    gap = context.inputs["decision"].metrics["usual_gap"]
    cast = votes_from_scores(scored.generated, scored.retrieved + gap, float(votes["margin"]))
    labels = [confident_label(v) for v in cast]
    probabilities = decision_stage.load(context.inputs["decision"]).probabilities(states[:few])
    metrics |= _decisions(context, labels, probabilities)
    shown = {name: found.pictures for name, found in sets.items()}
    _gallery(context, rows, shown, scored.keys, labels, probabilities)
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
