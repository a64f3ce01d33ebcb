"""Votes on prompts, retrieve or generate: cast by the frozen scorer, or by people in a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.benchmarks.partiprompts import VoteFile, read_votes
from gill.decision import CHOICES, Vote, confident_label, votes_from_scores
from gill.inference.engine import GillEngine
from tasks.config.decision import DecisionConfig
from tasks.evaluation.held_out import Captions
from tasks.evaluation.prompt_scores import ScoredPrompt, score_prompts
from tasks.evaluation.stored import StoredImages
from tasks.evaluation.thumbnails import opened
from tasks.tracking.stage_log import StageLog

_READ_TOGETHER = 64
_NOTED = 20  # malformed rows that the log names


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

    def labels(self) -> list[int | None]:
        """The confident label of each prompt."""
        return [confident_label(votes) for votes in self.votes]


def annotators_labels(
    config: DecisionConfig, engine: GillEngine, path: Path, log: StageLog
) -> DecisionLabels:
    """Votes of a file of people's.

    Prompts with a confident label come first, in a seeded order: such files are sorted by category.
    """
    file = read_votes(path)
    _report_malformed(file, path, log)
    order = np.random.default_rng(config.seed).permutation(len(file.prompts))
    labelled = [confident_label(file.prompts[i].votes) is not None for i in order]
    rows = [file.prompts[i] for i in order[np.argsort(np.logical_not(labelled), kind="stable")]]
    prompts = [row.prompt for row in rows]
    states = torch.cat(
        [
            engine.img_states(prompts[start : start + _READ_TOGETHER], truncate_left=True).cpu()
            for start in range(0, len(prompts), _READ_TOGETHER)
        ]
    )
    nearest = torch.tensor([best.score for (best,) in engine.retrieve(states)])
    votes: list[list[Vote]] = [list(row.votes) for row in rows]
    log.table(
        "votes",
        {
            "prompt": prompts,
            "category": [row.category for row in rows],
            "votes": [" ".join(v) for v in votes],
            "label": [label_name(v) for v in votes],
        },
    )
    training = min(config.train_prompts, max(0, sum(labelled) - 1))
    return DecisionLabels(prompts, states, nearest, votes, training, 0.0, file.dropped())


def scorers_labels(
    config: DecisionConfig,
    engine: GillEngine,
    stored: StoredImages,
    prompts: Captions,
    out: Path,
    log: StageLog,
) -> DecisionLabels:
    """Votes of the scorer: one for each seed of the generator.

    Args:
        prompts: of a split that neither the adapters nor the mapper were trained on, so that their
            generated and retrieved images are as good as those of any new prompt.
        out: where the scores are kept.
    """
    prompts = prompts.rows(slice(config.train_prompts + config.validation_prompts))
    seeds = range(config.seed, config.seed + config.votes)
    scored = score_prompts(engine, stored, prompts, seeds, out, log)
    training = min(config.train_prompts, len(prompts) - 1)
    usual_gap = median_gap(scored[:training]) if config.balance else 0.0
    votes = [votes_of(row, usual_gap, config.margin) for row in scored]
    _show(scored, votes, stored, log)
    return DecisionLabels(
        prompts=prompts.captions,
        states=prompts.states,
        nearest=torch.tensor([row["nearest"] for row in scored]),
        votes=votes,
        training=training,
        usual_gap=usual_gap,
        dropped={},
    )


def median_gap(scored: Iterable[ScoredPrompt]) -> float:
    """Median over prompts of (mean score of the generated images - score of the retrieved)."""
    gaps = [float(np.mean(row["generated_scores"])) - row["retrieved_score"] for row in scored]
    return float(np.median(gaps))


def votes_of(row: ScoredPrompt, usual_gap: float, margin: float) -> list[Vote]:
    """The votes on one prompt."""
    generated = torch.tensor([row["generated_scores"]])
    retrieved = torch.tensor([row["retrieved_score"] + usual_gap])
    return votes_from_scores(generated, retrieved, margin)[0]


def label_name(votes: list[Vote]) -> str:
    """The label that votes lead to, in words."""
    label = confident_label(votes)
    return "left out" if label is None else CHOICES[label]


def _report_malformed(file: VoteFile, path: Path, log: StageLog) -> None:
    for row in file.malformed[:_NOTED]:
        log.note(f"{path.name}, {row}")
    if file.malformed:
        columns = ("line", "reason", "detail")
        table = {name: [getattr(row, name) for row in file.malformed] for name in columns}
        log.table("malformed_votes", table)


def _show(
    scored: list[ScoredPrompt], votes: list[list[Vote]], stored: StoredImages, log: StageLog
) -> None:
    rows = [row for row in scored if row["image"] is not None]
    log.table(
        "votes",
        {
            "prompt": [row["caption"] for row in rows],
            "retrieved": stored.opened([row["retrieved_key"] for row in rows]),
            "generated": [opened(row["image"] or b"") for row in rows],
            "votes": [" ".join(v) for v in votes[: len(rows)]],
            "label": [label_name(v) for v in votes[: len(rows)]],
        },
    )
