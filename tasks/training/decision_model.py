"""Trains the classifier that retrieves or generates, on [IMG] states with confident labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gill.decision import CHOICES, DecisionModel
from gill.training import Optimization, Trainer
from tasks.config.decision import DecisionConfig
from tasks.tracking.stage_log import StageLog
from tasks.training.loop import TrainingLoop


@dataclass(frozen=True)
class DecisionBatch:
    """[IMG] states ``(batch, r, llm_dim)`` and labels ``(batch,)``."""

    states: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Examples:
    """Prompts with a confident label: their rows and their labels."""

    rows: list[int]
    labels: list[int]

    @classmethod
    def among(cls, labels: Sequence[int | None], rows: range) -> Examples:
        """Those of some rows that have a label."""
        known = [row for row in rows if labels[row] is not None]
        return cls(known, [int(labels[row] or 0) for row in known])

    def batch(self, states: Tensor) -> DecisionBatch:
        """All of them at once."""
        return DecisionBatch(states[self.rows], torch.tensor(self.labels))


def train_decision_model(
    config: DecisionConfig,
    out: Path,
    log: StageLog,
    states: Tensor,
    training: Examples,
    held_out: Examples,
    name: str = "",
) -> DecisionModel:
    """Train the classifier on some rows of ``states``; classes are treated as the recipe says.

    Args:
        out: gets the checkpoints. log: metrics and progress. name: prefix of both.
    """
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
            if config.full_batch:
                yield training.batch(states)
            else:
                generator = torch.Generator().manual_seed(config.seed * 1_000_003 + start)
                chosen = torch.multinomial(in_draw, config.batch_size, True, generator=generator)
                yield DecisionBatch(states[rows[chosen]], targets[chosen])
            start += 1

    held = held_out.batch(states)
    trainer = Trainer(model, loss, Optimization.of(config))
    TrainingLoop(trainer, config, out, log, name, validate=lambda: held_out_loss(model, held)).run(
        batches
    )
    return model.eval()


@torch.no_grad()
def held_out_loss(model: DecisionModel, held: DecisionBatch) -> dict[str, float]:
    """Cross-entropy of the labels, without dropout."""
    return {"loss": float(F.cross_entropy(model.eval()(held.states), held.labels))}


def class_weights(labels: Tensor) -> Tensor:
    """Weights ``(2,)`` that give each class the same share: n / (2 n_class)."""
    counts = torch.bincount(labels, minlength=len(CHOICES)).clamp(min=1)
    return len(labels) / (len(CHOICES) * counts)


def with_score(states: Tensor, nearest: Tensor, training: Examples) -> Tensor:
    """[IMG0] with the best retrieval score beside it, standardised: ``(n, 1, llm_dim + 1)``.

    Args:
        states: ``(n, r, llm_dim)``. nearest: ``(n,)``.
    """
    known = nearest[training.rows]
    score = (nearest - known.mean()) / known.std(correction=0).clamp(min=1e-6)
    return torch.cat([states[:, 0], score[:, None]], dim=-1)[:, None]
