"""Stage 5: the mapper from [IMG] states to the generator's conditioning, on cached states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data import schemas
from data.artifacts import Artifact
from data.io.atomic import write_json
from data.loader import ShuffledBatches
from data.shards import AlignedShards, Columns
from gill.data_parallel import WorkerGroup, split_rows
from gill.initialization import start_mapper
from gill.losses import generation_loss
from gill.mapper import Mapper, MapperKind, MapperSize, new_mapper
from gill.specs import MapperSpec
from gill.training import Optimization, Trainer, autocast
from tasks.config.mapper import MapperConfig
from tasks.parts.devices import device_of
from tasks.runner.context import StageContext
from tasks.stages.adapters import STATES
from tasks.stages.text_targets import TARGETS
from tasks.training.loop import RANDOM, finish, held_out, on_device, train

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


def run(context: StageContext) -> dict[str, float]:
    """Write ``<kind>.safetensors`` for the mapper and for each baseline."""
    config: MapperConfig = context.config
    states = context.inputs["adapters"].file(STATES)
    targets = context.inputs["text_targets"].file(TARGETS)
    img = img_embeddings(context.inputs["adapters"])
    training = AlignedShards({states: ["state"], targets: ["target"]}, "train")
    pairs = held_out(AlignedShards({states: ["state"], targets: ["target"]}, "validation"), config)
    num_targets, target_dim = schemas.shape_of(pq.read_schema(targets / training.names()[0]))
    metrics: dict[str, float] = {}
    mean = _mean_target(training, num_targets, target_dim)
    for kind in dict.fromkeys((config.kind, *config.baselines)):
        spec = MapperSpec(
            llm_dim=img.shape[1],
            num_img_tokens=img.shape[0],
            num_targets=num_targets,
            target_dim=target_dim,
            size=MapperSize.of(config).model_copy(update={"kind": kind}),
        )
        name = "" if kind == config.kind else kind
        found = _fit(context, spec, img, training, pairs, name)
        metrics |= {f"{name}_{k}" if name else k: v for k, v in found.items()}
    true = torch.from_numpy(np.asarray(pairs["target"], np.float32))
    guess = mean.expand(len(true), -1, -1)
    constant = generation_loss(guess, true.view(-1, num_targets, target_dim), config.loss_form)
    metrics["mean_target_l_g"] = float(constant)  # what ignoring the caption would reach
    if WorkerGroup.current().first:
        finish(context)
    return metrics


def _fit(
    context: StageContext,
    spec: MapperSpec,
    img: Tensor,
    training: AlignedShards,
    pairs: Columns,
    name: str,
) -> dict[str, float]:
    config: MapperConfig = context.config
    device, workers = device_of(context.runtime), WorkerGroup.current()
    with RANDOM:
        torch.manual_seed(config.seed)
        mapper, embeddings = build(spec).to(device), img.to(device)

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

        order = ShuffledBatches(training, config.batch_size, config.seed)

        def batches(start: int) -> Iterator[MapperBatch]:
            return (_batch(rows, spec, device) for rows in order.batches(start))

        def split(batch: MapperBatch) -> list[tuple[MapperBatch, float]]:
            return split_rows(
                len(batch), workers, config.accumulate, lambda rows, _: batch.rows(rows)
            )

        def start() -> None:
            rows = _batch(training.first(INITIALIZATION_PAIRS), spec, device)
            start_mapper(mapper, rows.states, embeddings, rows.targets.float())

        trainer = Trainer(mapper, loss, Optimization.of(config), split=split)
        initialize = start if config.initialization == "data_dependent" else None
        train(trainer, batches, context, name, validate, "l_g", initialize)
        metrics = {f"validation_{k}": v for k, v in validate().items()}
    prefix = f"{name}_" if name else ""
    context.log.metrics({f"{prefix}{k}": v for k, v in metrics.items()}, config.steps)
    if workers.first:
        save(context.out, spec, mapper)
    return {**metrics, "trained_parameters": float(sum(p.numel() for p in mapper.parameters()))}


def save(folder: Path, spec: MapperSpec, mapper: Mapper) -> None:
    """Write the weights and their spec under the mapper's kind."""
    kind = spec.size.kind
    save_file(
        {k: v.contiguous() for k, v in mapper.state_dict().items()}, folder / f"{kind}.safetensors"
    )
    write_json(folder / f"{kind}.json", spec.model_dump())


def build(spec: MapperSpec) -> Mapper:
    """Make the untrained mapper of a spec."""
    return new_mapper(
        spec.llm_dim, spec.num_img_tokens, spec.num_targets, spec.target_dim, spec.size
    )


def load(artifact: Artifact, kind: MapperKind, device: torch.device) -> Mapper:
    """Read a mapper of an artifact by its kind."""
    described = json.loads(artifact.file(f"{kind}.json").read_text())
    spec = MapperSpec(**described)
    mapper = build(spec)
    mapper.load_state_dict(load_file(artifact.file(f"{kind}.safetensors")))
    return mapper.to(device).requires_grad_(False).eval()


def img_embeddings(adapters: Artifact) -> Tensor:
    """E_img ``(r, llm_dim)``, which is added to the states before they enter the mapper."""
    return load_file(adapters.file("adapters.safetensors"))["img_tokens.weight"].float()


def _batch(rows: Columns, spec: MapperSpec, device: torch.device) -> MapperBatch:
    states, target = on_device(rows["state"], device), on_device(rows["target"], device)
    keys = tuple(str(key) for key in rows["key"])
    return MapperBatch(
        states.view(-1, spec.num_img_tokens, spec.llm_dim),
        target.view(-1, spec.num_targets, spec.target_dim),
        keys,
    )


def _mean_target(shards: AlignedShards, tokens: int, dim: int) -> Tensor:
    first = shards.read(shards.names()[0])
    mean = np.asarray(first["target"], np.float32).mean(0)
    return torch.from_numpy(mean).view(1, tokens, dim)
