"""Further training of the retrieval maps alone, which costs no pass of the language model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.artifacts import ClipFeatures, TrainedAdapters
from data.loader import ShuffledBatches
from data.shards import AlignedShards
from gill.losses import contrastive_loss
from gill.model import Adapters
from gill.training import Optimization, Trainer
from tasks.config.adapters import AdaptersConfig
from tasks.tracking.stage_log import StageLog
from tasks.training.loop import TrainingLoop, on_device


def refine_retrieval(
    config: AdaptersConfig, adapters: Adapters, features: ClipFeatures, out: Path, log: StageLog
) -> None:
    """Train the retrieval maps further on the cached states, which are constants by now."""
    folders = {out / TrainedAdapters.STATES: ["state"], features.folder: ["feature"]}
    shards = AlignedShards(folders | features.selection, "train")
    order = ShuffledBatches(shards, config.refine_batch_size, config.seed + 1)
    device = adapters.img_tokens.weight.device

    def noisy(x: Tensor) -> Tensor:
        return x + config.refine_noise * x.std() * torch.randn_like(x)

    def loss(batch: RefineBatch) -> dict[str, Tensor]:
        maps = adapters.retrieval
        text, image = maps.embed_text(noisy(batch.states)), maps.embed_image(noisy(batch.features))
        return {"loss": contrastive_loss(text, image, maps.scale())}

    def batches(start: int) -> Iterator[RefineBatch]:
        for rows in order.batches(start):
            states = on_device(rows["state"], device, np.float32)
            feature = on_device(rows["feature"], device, np.float32)
            yield RefineBatch(states.view(len(states), config.num_img_tokens, -1), feature)

    settings = Optimization(
        steps=config.refine_steps,
        learning_rate=config.refine_learning_rate,
        betas=config.betas,
        weight_decay=config.refine_weight_decay,
        schedule="cosine",
        gradient_clip=config.gradient_clip,
        seed=config.seed,
    )
    trainer = Trainer(adapters.retrieval, loss, settings)
    TrainingLoop(trainer, config, out, log, "refine").run(batches)


@dataclass(frozen=True)
class RefineBatch:
    """Cached states ``(batch, r, llm_dim)`` and features ``(batch, vision_dim)``."""

    states: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.states)
