"""Stage 8: held-out captioning, retrieval, generation and decisions, with a gallery."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import torch
from torch import Tensor

from data.artifacts import write_json
from data.shards import AlignedShards, Columns
from gill.decision import CHOICES, GENERATE, RETRIEVE, confident_label, votes_from_scores
from gill.evaluation.captioning import (
    caption_frequency_baseline,
    caption_scores,
    word_frequency_baseline,
)
from gill.evaluation.choices import (
    apply_threshold,
    bootstrap_macro_f1,
    decision_scores,
    majority,
)
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
from tasks.contexts import context_metrics, score_contexts
from tasks.contract import StageContext
from tasks.download import IMAGES
from tasks.frozen import load_language, release_memory
from tasks.judges import Judges, as_pixels
from tasks.report import Cell, Report
from tasks.text_targets import TARGETS

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
        rows = _test_rows(context)
        if "captioning" in chosen:
            metrics |= _captioning(context, rows)
            release_memory()
            context.log.metrics(metrics, 0)
        if chosen & {"retrieval", "generation", "decisions"}:
            metrics |= _answers(context, rows, chosen, report)
            release_memory()
    if chosen & {"study", "vist", "visdial"}:
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
    states = answers.states(rows)
    feature = torch.from_numpy(np.asarray(rows["feature"], np.float32))
    metrics: dict[str, float] = {}
    if "retrieval" in chosen:
        few = slice(0, config.retrieval_candidates)
        found = recall(answers.maps.embed_text(states[few]), answers.maps.embed_image(feature[few]))
        metrics |= {f"retrieval_{k}": v for k, v in found.items()}
    columns: dict[str, list[Cell]] = {}
    if "generation" in chosen:
        found, shown = _pictures(context, answers, rows, states, feature, report)
        metrics |= found
        columns |= shown
    if "decisions" in chosen:
        found, decided = _decisions(context, answers, rows, states)
        metrics |= found
        columns |= decided
    if columns:
        count = min(config.gallery, *(len(values) for values in columns.values()))
        keys = [str(k) for k in rows["key"][:count]]
        stored = stored_pictures(context.inputs["download"], keys)
        gallery: dict[str, list[Cell]] = {
            "prompt": [str(c) for c in rows["caption"][:count]],
            "true picture": [stored[k] for k in keys],
            **{name: values[:count] for name, values in columns.items()},
        }
        context.log.table("gallery", gallery)
        report.gallery(gallery)
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


def conditions_of(
    context: StageContext, answers: Answers, states: Tensor, target: Tensor
) -> dict[str, tuple[Tensor, float | None]]:
    """Conditioning and guidance of GILL, each baseline mapper, the ceiling and the floor."""
    made = context.inputs["mapper"].manifest().config
    conditions: dict[str, tuple[Tensor, float | None]] = {}
    for kind in dict.fromkeys((made["kind"], *made["baselines"])):
        name = "gill" if kind == made["kind"] else f"{kind}_mapper"
        conditions[name] = (answers.conditioning(answers.mapper(kind), states), None)
    conditions["own_text_encoder"] = (target, None)
    empty = answers.generator.encode_text([""]).float().cpu().expand(len(states), -1, -1)
    conditions["unconditional"] = (empty, 1.0)
    return conditions


def picture_sets(
    context: StageContext,
    answers: Answers,
    conditions: Mapping[str, tuple[Tensor, float | None]],
    seed: int,
) -> dict[str, PictureSet]:
    """One picture for each prompt and condition.

    Every set uses the same seeds, so that differences between sets are paired.
    """
    sets: dict[str, PictureSet] = {}
    for name, (condition, scale) in conditions.items():
        seeds = [seed * 100_003 + i for i in range(len(condition))]
        pictures = answers.sample(condition, seeds, scale)
        sets[name] = PictureSet(pictures, *answers.see(pictures))
        context.log.progress(len(sets), len(conditions), f"picture sets of seed {seed}")
    return sets


def picture_scores(
    sets: Mapping[str, PictureSet],
    true: Tensor,
    text: Tensor,
    feature: Tensor,
    feature_name: str,
) -> dict[str, float]:
    """Similarities and distances of each set, with standard errors, and GILL against the others.

    Args:
        true: unit vectors of the true pictures. text: of the captions.
        feature: pooled features of the true pictures, and what the metric calls them.
    """
    scores: dict[str, float] = {}
    to_true = {name: paired_similarity(s.seen, true) for name, s in sets.items()}
    for name, found in sets.items():
        scores |= _mean(f"{name}_image_image_similarity", to_true[name])
        scores |= _mean(f"{name}_image_text_similarity", paired_similarity(found.seen, text))
        distance = frechet_distance(found.pooled, feature)
        scores[f"{name}_frechet_{feature_name}_distance"] = distance
        if name != "gill":
            scores |= _mean(f"gill_minus_{name}_image_image", to_true["gill"] - to_true[name])
    return scores | _mean("true_image_text_similarity", paired_similarity(true, text))


def over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of the same metrics over seeds; with several also deviations, as ``<name>_sd``."""
    found = {name: fmean(s[name] for s in scores) for name in scores[0]}
    if len(scores) > 1:
        names = [n for n in scores[0] if not n.endswith("_se")]
        found |= {f"{name}_sd": stdev(s[name] for s in scores) for name in names}
    return found


def _mean(name: str, values: Tensor) -> dict[str, float]:
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {name: float(values.mean()), f"{name}_se": error}


def _pictures(
    context: StageContext,
    answers: Answers,
    rows: Columns,
    states: Tensor,
    feature: Tensor,
    report: Report,
) -> tuple[dict[str, float], dict[str, list[Cell]]]:
    """Scores of the picture sets over the seeds, and the pictures of the first seed."""
    config: EvaluateConfig = context.config
    count = min(config.pictures, len(rows["key"]))
    target = torch.from_numpy(np.asarray(rows["target"][:count], np.float32))
    target = target.view(count, answers.generator.num_tokens, -1)
    captions = [str(c) for c in rows["caption"][:count]]
    feature = feature[:count]
    true, text = answers.vision.project(feature).cpu(), answers.vision.text(captions).cpu()
    judges = Judges.load(config.judges, answers.vision, context.runtime)
    pixels = _true_pixels(context, answers, rows, count) if judges.any() else None
    conditions = conditions_of(context, answers, states[:count], target)
    scores: list[dict[str, float]] = []
    shown: dict[str, list[Cell]] = {}
    for seed in range(config.seed, config.seed + config.picture_seeds):
        sets = picture_sets(context, answers, conditions, seed)
        found = picture_scores(sets, true, text, feature, answers.vision.feature_name)
        for name, made in sets.items():
            if pixels is not None:
                for measure, values in judges.pairs(made.pictures, pixels).items():
                    found |= _mean(f"{name}_{measure}", values)
                distances = judges.sets(made.pictures, pixels)
                found |= {f"{name}_{measure}": v for measure, v in distances.items()}
        scores.append(found)
        if not shown:
            few = config.gallery
            shown = {n: [as_image(p) for p in made.pictures[:few]] for n, made in sets.items()}
            report.worst(_worst(context, rows, sets, true))
    return over_seeds(scores), shown


def _worst(
    context: StageContext, rows: Columns, sets: Mapping[str, PictureSet], true: Tensor
) -> dict[str, list[Cell]]:
    similarity = paired_similarity(sets["gill"].seen, true)
    worst = similarity.argsort()[:WORST].tolist()
    keys = [str(rows["key"][i]) for i in worst]
    stored = stored_pictures(context.inputs["download"], keys)
    return {
        "prompt": [str(rows["caption"][i]) for i in worst],
        "true picture": [stored[k] for k in keys],
        **{name: [as_image(made.pictures[i]) for i in worst] for name, made in sets.items()},
        "similarity": [float(similarity[i]) for i in worst],
    }


def _true_pixels(context: StageContext, answers: Answers, rows: Columns, count: int) -> Tensor:
    keys = [str(k) for k in rows["key"][:count]]
    stored = stored_pictures(context.inputs["download"], keys)
    return as_pixels([stored[k] for k in keys], answers.generator.image_size)


def _decisions(
    context: StageContext, answers: Answers, rows: Columns, states: Tensor
) -> tuple[dict[str, float], dict[str, list[Cell]]]:
    """The decision model against the scorer's votes on test captions, and columns to show."""
    config: EvaluateConfig = context.config
    few = min(config.decision_prompts, len(rows["key"]))
    captions = [str(c) for c in rows["caption"][:few]]
    keys = [str(k) for k in rows["key"][:few]]
    made = context.inputs["decision"].manifest()
    scored = score_answers(
        answers,
        answers.conditioning(answers.mapper(), states[:few]),
        states[:few],
        captions,
        keys,
        int(made.config["votes"]),
        config.seed,
    )
    against = scored.retrieved + made.metrics["usual_gap"]
    cast = votes_from_scores(scored.generated, against, float(made.config["margin"]))
    labels = [confident_label(v) for v in cast]
    probabilities = decision_stage.load(context.inputs["decision"]).probabilities(states[:few])
    choices = probabilities.argmax(-1).tolist()
    metrics = {"retrieved_image_text_similarity": float(scored.retrieved.mean())}
    metrics |= decision_metrics(labels, choices, scored.nearest.tolist(), made.metrics)
    first = scored.keys[: config.gallery]
    stored = stored_pictures(context.inputs["download"], first)
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
    """Macro F1 of the model and of its rivals on the prompts with a confident label.

    Args:
        nearest: the best retrieval score of each prompt.
        made: what the decision stage reported: its label counts and the rival's threshold.
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
