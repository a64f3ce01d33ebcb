"""Votes on prompts, retrieve or generate: cast by the frozen scorer, or by people in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.benchmarks.partiprompts import read_votes
from data.shards import AlignedShards, Columns
from gill.decision import CHOICES, Vote, confident_label, votes_from_scores
from gill.model import GillModel
from tasks.config.decision import DecisionConfig
from tasks.evaluation.answers import (
    SHOWN,
    Answers,
    as_image,
    opened,
    pooled_features,
    stored_images,
    webp,
)
from tasks.parts.loading import load_language
from tasks.runner.context import StageContext
from tasks.runner.shard_map import Parts
from tasks.stages import adapters as adapters_stage
from tasks.stages import index as index_stage
from tasks.stages.adapters import STATES
from tasks.stages.download import IMAGES

SCORES = "scores"
_CHUNK = 64
_SHOWN = 24  # prompts whose first image is kept


@dataclass(frozen=True)
class DecisionLabels:
    """Prompts with their votes.

    Attributes:
        states: [IMG] states ``(n, r, llm_dim)``. nearest: best retrieval score ``(n,)``.
        training: so many prompts, from the first on, are for training.
        usual_gap: what was added to the retrieved images' scores before they were compared.
        dropped: rows of a file that are left out, by reason.
    """

    prompts: list[str]
    states: Tensor
    nearest: Tensor
    votes: list[list[Vote]]
    training: int
    usual_gap: float
    dropped: dict[str, int]


def make_decision_labels(context: StageContext) -> DecisionLabels:
    """Read the file of votes that a recipe names, or let the scorer vote."""
    config: DecisionConfig = context.config
    if config.votes_file:
        return annotators_vote(context, Path(config.votes_file))
    return scorer_votes(context)


def annotators_vote(context: StageContext, path: Path) -> DecisionLabels:
    """Votes of a file.

    Prompts with a confident label come first, in a seeded order: such files are sorted by category.
    """
    config: DecisionConfig = context.config
    found = read_votes(path)
    for row in found.malformed[:20]:
        context.log.note(f"{path.name}, {row}")
    if found.malformed:
        columns = ("line", "reason", "detail")
        table = {name: [getattr(row, name) for row in found.malformed] for name in columns}
        context.log.table("malformed_votes", table)
    order = np.random.default_rng(config.seed).permutation(len(found.prompts))
    labelled = [confident_label(found.prompts[i].votes) is not None for i in order]
    rows = [found.prompts[i] for i in order[np.argsort(np.logical_not(labelled), kind="stable")]]
    prompts = [row.prompt for row in rows]
    states = _states_of(context, prompts)
    maps = index_stage.retrieval_maps(context.inputs["adapters"])
    matches = index_stage.load(context.inputs["index"]).nearest(maps.embed_text(states))
    nearest = torch.tensor([best.score for (best,) in matches])
    votes: list[list[Vote]] = [list(row.votes) for row in rows]
    context.log.table(
        "votes",
        {
            "prompt": prompts,
            "category": [row.category for row in rows],
            "votes": [" ".join(v) for v in votes],
            "label": [_named(v) for v in votes],
        },
    )
    training = min(config.train_prompts, max(0, sum(labelled) - 1))
    return DecisionLabels(prompts, states, nearest, votes, training, 0.0, found.dropped())


def _states_of(context: StageContext, prompts: list[str]) -> Tensor:
    language = load_language(context.parts.language, context.runtime)
    model = GillModel(language, adapters_stage.load(context.inputs["adapters"], language))
    return model.all_img_states(model.tokenize(prompts), _CHUNK)


def scorer_votes(context: StageContext) -> DecisionLabels:
    """Votes of the scorer: a vote for each seed of the generator.

    The prompts come from a split that neither the adapters nor the mapper were trained on, so that
    their generated and retrieved images are as good as those of any new prompt.
    """
    config: DecisionConfig = context.config
    states_folder = context.inputs["adapters"].file(STATES)
    images = context.inputs["download"].file(IMAGES)
    rows = AlignedShards({states_folder: ["state"], images: ["caption"]}, config.split).all()
    count = min(len(rows["key"]), config.train_prompts + config.validation_prompts)
    rows = {name: values[:count] for name, values in rows.items()}
    answers = Answers.load(context)
    scored = score_prompts(context, answers, rows, config.votes, config.seed)
    training = min(config.train_prompts, count - 1)
    usual_gap = median_gap(scored[:training]) if config.balance else 0.0
    votes = [votes_of(row, usual_gap, config.margin) for row in scored]
    _gallery(context, scored, votes)
    return DecisionLabels(
        prompts=[row["caption"] for row in scored],
        states=answers.states(rows),
        nearest=torch.tensor([row["nearest"] for row in scored]),
        votes=votes,
        training=training,
        usual_gap=usual_gap,
        dropped={},
    )


def score_prompts(
    context: StageContext, answers: Answers, prompts: Columns, votes: int, seed: int
) -> list[Scored]:
    """Score the retrieved and the generated images of each prompt, one for each vote.

    What an earlier process scored is kept. The first images are kept to be shown.
    """
    mapper = answers.mapper()
    count = len(prompts["key"])

    def make(part: slice) -> pa.Table:
        rows = {name: values[part] for name, values in prompts.items()}
        states = answers.states(rows)
        scores = score_answers(
            answers,
            answers.conditioning(mapper, states),
            states,
            [str(c) for c in rows["caption"]],
            [str(k) for k in rows["key"]],
            votes,
            seed,
        )
        shown = [
            webp(as_image(image), SHOWN) if part.start + i < _SHOWN else None
            for i, image in enumerate(scores.images)
        ]
        return pa.table(
            {
                "key": list(rows["key"]),
                "caption": list(rows["caption"]),
                "nearest": scores.nearest.tolist(),
                "retrieved_key": scores.keys,
                "retrieved_score": scores.retrieved.tolist(),
                "generated_scores": scores.generated.tolist(),
                "image": pa.array(shown, pa.binary()),
            }
        )

    found: list[Scored] = Parts(context, SCORES, "prompts scored", count)(
        "scores", count, make
    ).to_pylist()
    return found


@dataclass(frozen=True)
class AnswerScores:
    """Scores of the answers to some prompts.

    Attributes:
        keys: the retrieved images. nearest: their scores ``(n,)`` in the retrieval space.
        retrieved: their scores ``(n,)`` in the scorer's space. generated: scores ``(n, seeds)``.
        images: ``(n, 3, size, size)`` of the first seed.
    """

    keys: list[str]
    nearest: Tensor
    retrieved: Tensor
    generated: Tensor
    images: Tensor


def score_answers(
    answers: Answers,
    conditioning: Tensor,
    states: Tensor,
    captions: list[str],
    keys: list[str],
    seeds: int,
    first_seed: int,
) -> AnswerScores:
    """Cosine of each retrieved and generated image with its caption in the scorer's space."""
    text = answers.vision.text(captions).cpu()
    found, nearest = answers.retrieve(states, keys)
    stored = pooled_features(answers.context.inputs["clip_features"], found)
    pooled = torch.stack([stored[key] for key in found])
    retrieved = (answers.vision.project(pooled).cpu() * text).sum(-1)
    columns, first = [], None
    for seed in range(first_seed, first_seed + seeds):
        images = answers.sample(conditioning, [seed * 100_003 + i for i in range(len(text))])
        first = images if first is None else first
        columns.append((answers.encode_images(images)[1] * text).sum(-1))
    if first is None:
        raise ValueError("at least one seed is needed")
    return AnswerScores(found, nearest, retrieved, torch.stack(columns, dim=1), first)


class Scored(TypedDict):
    """One prompt, the scores of its answers, and a generated image of the first prompts."""

    key: str
    caption: str
    nearest: float
    retrieved_key: str
    retrieved_score: float
    generated_scores: list[float]
    image: bytes | None


def median_gap(scored: list[Scored]) -> float:
    """Median over prompts of (mean score of the generated images - score of the retrieved)."""
    gaps = [float(np.mean(r["generated_scores"])) - r["retrieved_score"] for r in scored]
    return float(np.median(gaps))


def votes_of(row: Scored, usual_gap: float, margin: float) -> list[Vote]:
    """The votes on one prompt."""
    generated = torch.tensor([row["generated_scores"]])
    retrieved = torch.tensor([row["retrieved_score"] + usual_gap])
    return votes_from_scores(generated, retrieved, margin)[0]


def _named(votes: list[Vote]) -> str:
    label = confident_label(votes)
    return "left out" if label is None else CHOICES[label]


def _gallery(context: StageContext, scored: list[Scored], votes: list[list[Vote]]) -> None:
    rows = [row for row in scored if row["image"] is not None]
    found = stored_images(context.inputs["download"], [row["retrieved_key"] for row in rows])
    context.log.table(
        "votes",
        {
            "prompt": [row["caption"] for row in rows],
            "retrieved": [found[row["retrieved_key"]] for row in rows],
            "generated": [opened(row["image"] or b"") for row in rows],
            "votes": [" ".join(v) for v in votes[: len(rows)]],
            "label": [_named(v) for v in votes[: len(rows)]],
        },
    )
