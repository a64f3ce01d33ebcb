"""A trained mapper: written by the stages that train one, read by all that use it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from data.artifacts import TrainedMapper
from data.io.atomic import write_json
from gill.mapper import Mapper, new_mapper
from gill.specs import MapperSpec
from tasks.parts.weights import read_weights, with_weights, write_weights


def build_mapper(spec: MapperSpec) -> Mapper:
    """Make the untrained mapper of a spec."""
    return new_mapper(
        spec.llm_dim, spec.num_img_tokens, spec.num_targets, spec.target_dim, spec.size
    )


def save_mapper(out: Path, spec: MapperSpec, mapper: Mapper) -> None:
    """Write the weights and their spec under the mapper's kind."""
    kind = spec.size.kind
    write_weights(out / TrainedMapper.mapper_weights_name(kind), mapper.state_dict())
    write_json(out / TrainedMapper.mapper_spec_name(kind), spec.model_dump())


def load_mapper(artifact: TrainedMapper, device: torch.device, kind: str = "") -> Mapper:
    """Read a mapper by its kind, frozen; without one, the mapper that is no baseline."""
    kind = kind or artifact.mapper_kind
    spec = MapperSpec(**artifact.mapper_spec(kind))
    weights = read_weights(artifact, artifact.mapper_weights(kind))
    return with_weights(partial(build_mapper, spec), weights).to(device)
