"""Stage 7: labels by votes of the frozen scorer, then the model that retrieves or generates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.artifacts import Artifact, write_json
from data.shards import AlignedShards, Columns, read_table, shard_names, write_shard
from gill.decision import CHOICES, DecisionModel, Vote, confident_label, votes_from_scores
from gill.evaluation.choices import decision_scores, majority_scores
from gill.training import Trainer
from tasks.adapters import STATES
from tasks.answers import Answers, as_image, pooled_features, stored_pictures
from tasks.config import DecisionConfig
from tasks.download import IMAGES
from tasks.stage import StageContext
from tasks.train import RANDOM, finish, optimization, train

SCORES = "scores"
_CHUNK = 64


@dataclass(frozen=True)
class DecisionBatch:
    """[IMG] states ``(batch, r, llm_dim)`` and labels ``(batch,)``."""

    states: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def run(context: StageContext) -> dict[str, float]:
    """Write ``scores/<chunk>``, ``decision.safetensors`` and ``labels.json``.

    The prompts come from a split that neither the adapters nor the mapper were trained on, so that
    their generated and retrieved pictures are as good as those of any new prompt.
    """
    config: DecisionConfig = context.config
    states_folder = context.inputs["adapters"].file(STATES)
    images = context.inputs["download"].file(IMAGES)
    prompts = AlignedShards({states_folder: ["state"], images: ["caption"]}, config.split).all()
    count = min(len(prompts["key"]), config.train_prompts + config.validation_prompts)
    prompts = {name: values[:count] for name, values in prompts.items()}
    answers = Answers.load(context)
    score_prompts(context, answers, prompts)
    scored = read_scores(context.out / SCORES)
    cut = min(config.train_prompts, count - 1)
    usual_gap = median_gap(scored[:cut]) if config.balance else 0.0
    votes = [votes_of(row, usual_gap, config.margin) for row in scored]
    labels = [confident_label(v) for v in votes]
    states = answers.states(prompts)
    training = [i for i in range(cut) if labels[i] is not None]
    held_out = [i for i in range(cut, count) if labels[i] is not None]
    kinds = Counter("same" if label is None else CHOICES[label] for label in labels)
    ballots = [{**row, "votes": v} for row, v in zip(scored, votes, strict=True)]
    write_json(context.out / "labels.json", {"kinds": kinds, "rows": ballots})
    _gallery(context, answers, prompts, scored, votes, labels)
    if not training or not held_out:
        raise ValueError(
            f"{len(training)} of {cut} training and {len(held_out)} of {count - cut} validation "
            f"prompts have a confident label ({dict(kinds)}); lower decision.margin "
            f"({config.margin}) or raise decision.train_prompts"
        )
    metrics = {f"prompts_{name}": float(n) for name, n in kinds.items()}
    metrics["usual_gap"] = usual_gap
    with RANDOM:
        torch.manual_seed(config.seed)
        model = DecisionModel(states.shape[-1], config.dropout)
        rows = torch.tensor(training)
        targets = torch.tensor([labels[i] for i in training])

        def loss(batch: DecisionBatch) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(model(batch.states), batch.labels)}

        def batches(start: int) -> Iterator[DecisionBatch]:
            while True:
                generator = torch.Generator().manual_seed(config.seed * 1_000_003 + start)
                chosen = torch.randint(0, len(rows), (config.batch_size,), generator=generator)
                yield DecisionBatch(states[rows[chosen]], targets[chosen])
                start += 1

        held = DecisionBatch(states[held_out], torch.tensor([labels[i] for i in held_out]))
        train(
            Trainer(model, loss, optimization(config)),
            batches,
            context,
            validate=lambda: held_out_loss(model, held),
        )
    model.eval()
    with torch.no_grad():
        predicted = model(states[held_out]).argmax(-1).tolist()
    truth = [int(labels[i] or 0) for i in held_out]
    metrics |= decision_scores(truth, predicted)
    metrics["majority_macro_f1"] = majority_scores(targets.tolist(), truth)["macro_f1"]
    save_file(model.state_dict(), context.out / "decision.safetensors")
    write_json(context.out / "decision.json", {"llm_dim": states.shape[-1]})
    _confusion(context, metrics)
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


def score_prompts(context: StageContext, answers: Answers, prompts: Columns) -> None:
    """Score the retrieved and the generated pictures of each prompt, one for each seed.

    Chunks that an earlier process finished are kept.
    """
    config: DecisionConfig = context.config
    mapper = answers.mapper()
    count = len(prompts["key"])
    skipped = 0
    for number, start in enumerate(range(0, count, _CHUNK)):
        stop = min(start + _CHUNK, count)
        path = context.out / SCORES / f"scores-{number:05d}.parquet"
        if path.exists():
            skipped = stop
            continue
        rows = {name: values[start:stop] for name, values in prompts.items()}
        states = answers.states(rows)
        scores = score_answers(
            answers,
            answers.conditioning(mapper, states),
            states,
            [str(c) for c in rows["caption"]],
            [str(k) for k in rows["key"]],
            config.votes,
            config.seed,
        )
        table = {
            "key": list(rows["key"]),
            "caption": list(rows["caption"]),
            "retrieved_key": scores.keys,
            "retrieved_score": scores.retrieved.tolist(),
            "generated_scores": scores.generated.tolist(),
        }
        write_shard(path, pa.table(table))
        context.log.progress(stop, count, "prompts scored", resumed=skipped)


@dataclass(frozen=True)
class AnswerScores:
    """Scores of the answers to some prompts.

    Attributes:
        keys: the retrieved pictures. retrieved: their scores ``(n,)``.
        generated: scores ``(n, seeds)``. pictures: ``(n, 3, size, size)`` of the first seed.
        pooled, seen: the first seed's features and unit vectors.
    """

    keys: list[str]
    retrieved: Tensor
    generated: Tensor
    pictures: Tensor
    pooled: Tensor
    seen: Tensor


def score_answers(
    answers: Answers,
    conditioning: Tensor,
    states: Tensor,
    captions: list[str],
    keys: list[str],
    seeds: int,
    first_seed: int,
) -> AnswerScores:
    """Cosine of each retrieved and generated picture with its caption in the scorer's space."""
    text = answers.vision.text(captions).cpu()
    found, _ = answers.retrieve(states, keys)
    stored = pooled_features(answers.context.inputs["clip_features"], found)
    pooled = torch.stack([stored[key] for key in found])
    retrieved = (answers.vision.project(pooled).cpu() * text).sum(-1)
    columns, first = [], None
    for seed in range(first_seed, first_seed + seeds):
        pictures = answers.sample(conditioning, [seed * 100_003 + i for i in range(len(text))])
        features, seen = answers.see(pictures)
        if first is None:
            first = (pictures, features, seen)
        columns.append((seen * text).sum(-1))
    if first is None:
        raise ValueError("at least one seed is needed")
    return AnswerScores(found, retrieved, torch.stack(columns, dim=1), *first)


class Scored(TypedDict):
    """One prompt and the scores of its answers."""

    key: str
    caption: str
    retrieved_key: str
    retrieved_score: float
    generated_scores: list[float]


def read_scores(folder: Path) -> list[Scored]:
    """Every scored prompt in order."""
    return [row for name in shard_names(folder) for row in read_table(folder / name).to_pylist()]


def median_gap(scored: list[Scored]) -> float:
    """Median over prompts of (mean score of the generated pictures - score of the retrieved)."""
    gaps = [float(np.mean(r["generated_scores"])) - r["retrieved_score"] for r in scored]
    return float(np.median(gaps))


def votes_of(row: Scored, usual_gap: float, margin: float) -> list[Vote]:
    """The votes on one prompt."""
    generated = torch.tensor([row["generated_scores"]])
    retrieved = torch.tensor([row["retrieved_score"] + usual_gap])
    return votes_from_scores(generated, retrieved, margin)[0]


def _gallery(
    context: StageContext,
    answers: Answers,
    prompts: Columns,
    scored: list[Scored],
    votes: list[list[Vote]],
    labels: list[int | None],
    count: int = 24,
) -> None:
    config: DecisionConfig = context.config
    rows = scored[:count]
    found = stored_pictures(context.inputs["download"], [r["retrieved_key"] for r in rows])
    states = answers.states({"state": np.asarray(prompts["state"])[: len(rows)]})
    mapper = answers.mapper()
    seeds = [config.seed * 100_003 + i for i in range(len(rows))]
    pictures = answers.sample(answers.conditioning(mapper, states), seeds)
    context.log.table(
        "votes",
        {
            "prompt": [r["caption"] for r in rows],
            "retrieved": [found[r["retrieved_key"]] for r in rows],
            "generated": [as_image(p) for p in pictures],
            "votes": [" ".join(v) for v in votes[: len(rows)]],
            "label": ["left out" if x is None else CHOICES[x] for x in labels[: len(rows)]],
        },
    )


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
