"""Stage 5: the mapper from [IMG] states to the generator's conditioning, on cached states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.artifacts import TextTargets, TrainedAdapters, TrainedMapper
from data.loader import ShuffledBatches
from data.shards import AlignedShards, Columns
from gill.data_parallel import WorkerGroup, split_rows
from gill.initialization import start_mapper
from gill.losses import generation_loss
from gill.mapper import MapperSize
from gill.specs import MapperSpec
from gill.training import Optimization, Trainer, autocast
from tasks.config.mapper import MapperConfig
from tasks.parts.devices import device_of
from tasks.parts.trained_adapters import load_img_embeddings
from tasks.parts.trained_mapper import build_mapper, save_mapper
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration
from tasks.tracking.stage_log import StageLog
from tasks.training.loop import RANDOM, TrainingLoop, finish, held_out, on_device

STAGE = StageDeclaration(
    version=2,
    description="GILLMapper and its baselines",
    headlines=("validation_l_g", "linear_validation_l_g"),
    model="gill-mapper",
    data_parallel=True,
    splits=lambda _: ("train", "validation"),
)
INITIALIZATION_PAIRS = 4096  # that a data-dependent initialization reads


@dataclass(frozen=True)
class MapperBatch:
    """[IMG] states ``(batch, r, llm_dim)`` and targets ``(batch, tokens, dim)``."""

    states: Tensor
    targets: Tensor
    keys: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.states)

    def rows(self, rows: slice) -> MapperBatch:
        """A part of it."""
        return MapperBatch(self.states[rows], self.targets[rows], self.keys[rows])


def run(
    context: StageContext[MapperConfig], targets: TextTargets, adapters: TrainedAdapters
) -> TrainedMapper:
    """Write the weights of the mapper and of each baseline, by kind."""
    config = context.config
    img = load_img_embeddings(adapters)
    folders = {adapters.states: ["state"], targets.folder: ["target"]}
    training = AlignedShards(folders | adapters.selection, "train")
    pairs = held_out(AlignedShards(folders, "validation"), config)
    shape = targets.shape
    metrics: dict[str, float] = {}
    mean = _mean_target(training, *shape)
    fitting = MapperTraining(
        config, device_of(context.runtime), img, training, pairs, context.out, context.log
    )
    for kind in dict.fromkeys((config.kind, *config.baselines)):
        spec = MapperSpec(
            llm_dim=img.shape[1],
            num_img_tokens=img.shape[0],
            num_targets=shape[0],
            target_dim=shape[1],
            size=MapperSize.of(config).model_copy(update={"kind": kind}),
        )
        name = "" if kind == config.kind else kind
        found = fitting.fit(spec, name)
        metrics |= {f"{name}_{k}" if name else k: v for k, v in found.items()}
    true = torch.from_numpy(np.asarray(pairs["target"], np.float32))
    guess = mean.expand(len(true), -1, -1)
    constant = generation_loss(guess, true.view(-1, *shape), config.loss_form)
    metrics["mean_target_l_g"] = float(constant)  # what ignoring the caption would reach
    if WorkerGroup.current().first:
        finish(context.out)
    return TrainedMapper.made(context.out, metrics)


@dataclass(frozen=True)
class MapperTraining:
    """Trains mappers of several kinds alike.

    Attributes:
        img: E_img ``(r, llm_dim)``. training: states and targets. pairs: the held-out ones.
        out: gets the weights and the checkpoints. log: metrics and progress.
    """

    config: MapperConfig
    device: torch.device
    img: Tensor
    training: AlignedShards
    pairs: Columns
    out: Path
    log: StageLog

    def fit(self, spec: MapperSpec, name: str) -> dict[str, float]:
        """Train one mapper, write it, and return its metrics; ``name`` is their prefix."""
        config, device, workers, img = self.config, self.device, WorkerGroup.current(), self.img
        pairs = self.pairs
        with RANDOM:
            torch.manual_seed(config.seed)
            mapper, embeddings = build_mapper(spec).to(device), img.to(device)

            def loss(batch: MapperBatch) -> dict[str, Tensor]:
                value = mapper(batch.states, embeddings)
                return {"loss": generation_loss(value, batch.targets, config.loss_form)}

            def validate() -> dict[str, float]:
                mapper.eval()
                count, total = len(pairs["key"]), 0.0
                with torch.no_grad(), autocast(device, config.precision):
                    for start in range(0, count, config.batch_size):
                        rows = {k: v[start : start + config.batch_size] for k, v in pairs.items()}
                        batch = _batch(rows, spec, device)
                        total += float(loss(batch)["loss"]) * len(batch)
                return {"l_g": total / count}

            order = ShuffledBatches(self.training, config.batch_size, config.seed)

            def batches(start: int) -> Iterator[MapperBatch]:
                return (_batch(rows, spec, device) for rows in order.batches(start))

            def split(batch: MapperBatch) -> list[tuple[MapperBatch, float]]:
                return split_rows(
                    len(batch), workers, config.accumulate, lambda rows, _: batch.rows(rows)
                )

            def start() -> None:
                rows = _batch(self.training.first(INITIALIZATION_PAIRS), spec, device)
                start_mapper(mapper, rows.states, embeddings, rows.targets.float())

            trainer = Trainer(mapper, loss, Optimization.of(config), split=split)
            loop = TrainingLoop(trainer, config, self.out, self.log, name, validate, "l_g")
            loop.run(batches, start if config.initialization == "data_dependent" else None)
            metrics = {f"validation_{k}": v for k, v in validate().items()}
        prefix = f"{name}_" if name else ""
        self.log.metrics({f"{prefix}{k}": v for k, v in metrics.items()}, config.steps)
        if workers.first:
            save_mapper(self.out, spec, mapper)
        return {**metrics, "trained_parameters": float(sum(p.numel() for p in mapper.parameters()))}


def _batch(rows: Columns, spec: MapperSpec, device: torch.device) -> MapperBatch:
    states, target = on_device(rows["state"], device), on_device(rows["target"], device)
    keys = tuple(str(key) for key in rows["key"])
    return MapperBatch(
        states.view(-1, spec.num_img_tokens, spec.llm_dim),
        target.view(-1, spec.num_targets, spec.target_dim),
        keys,
    )


def _mean_target(shards: AlignedShards, tokens: int, dim: int) -> Tensor:
    first = next(rows for rows in map(shards.read, shards.names()) if rows["key"])
    mean = np.asarray(first["target"], np.float32).mean(0)
    return torch.from_numpy(mean).view(1, tokens, dim)
