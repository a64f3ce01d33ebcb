"""The losses of the adapters, of a mapper beside them, and both on held-out pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.shards import Columns
from gill.batches import AdapterBatch
from gill.evaluation.retrieval import recall
from gill.losses import AdapterLossWeights, GenerationForm, LossWeights
from gill.mapper import Mapper
from gill.model import GillModel
from gill.training import autocast
from tasks.config.adapters import AdaptersConfig
from tasks.training.loop import on_device


@dataclass(frozen=True)
class JointMapper:
    """A mapper that is trained with the adapters, and the targets that it is to meet."""

    mapper: Mapper
    targets: Path
    form: GenerationForm
    weight: float
    initialize: bool


@dataclass(frozen=True)
class AdapterLosses:
    """The losses of a batch as the configuration weighs them, and batches of shard rows."""

    model: GillModel
    config: AdaptersConfig
    joint: JointMapper | None

    def __call__(self, batch: AdapterBatch) -> dict[str, Tensor]:
        """The losses of a batch, with their weighted sum as ``loss``."""
        return self.with_states(batch)[0]

    def with_states(self, batch: AdapterBatch) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, and the [IMG] states ``(batch, r, llm_dim)`` that they rest on."""
        config, joint = self.config, self.joint
        weights = LossWeights(
            **AdapterLossWeights.of(config).model_dump(),
            generation_weight=1.0 if joint is None else joint.weight,
        )
        mapper = None if joint is None else joint.mapper
        form = "norm" if joint is None else joint.form
        return self.model.losses_and_states(
            batch, weights, config.packing_probability, mapper, form
        )

    def batch(self, rows: Columns) -> AdapterBatch:
        """A batch of shard rows; targets stay on the CPU until a part of them is wanted."""
        device = self.model.language.device
        targets = None
        if self.joint is not None:
            mapper = self.joint.mapper
            targets = torch.from_numpy(np.asarray(rows["target"]))
            targets = targets.view(-1, mapper.num_targets, mapper.target_dim)
        return AdapterBatch(
            self.model.tokenize([str(c) for c in rows["caption"]]),
            on_device(rows["feature"], device, np.float32),
            targets,
            tuple(str(key) for key in rows["key"]),
        )


def validation(losses: AdapterLosses, rows: Columns) -> dict[str, float]:
    """Losses on held-out pairs without packing, and recall among all of them."""
    model, config = losses.model, losses.config
    sums: dict[str, float] = {}
    texts, images = [], []
    retrieval = model.adapters.retrieval
    count = len(rows["key"])
    model.adapters.eval()
    with torch.no_grad(), autocast(model.language.device, config.precision):
        for start in range(0, count, config.batch_size):
            part = losses.batch(_slice(rows, start, start + config.batch_size))
            found, states = losses.with_states(replace(part, packed=False))
            texts.append(retrieval.embed_text(states).float().cpu())
            images.append(retrieval.embed_image(part.features).float().cpu())
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part) / count
    return {**sums, **recall(torch.cat(texts), torch.cat(images))}


def _slice(rows: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in rows.items()}
