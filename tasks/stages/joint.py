"""The schedule ``joint``: adapters and mapper in one training (l_c + l_p + l_r + l_g), the paper's.

Its artifact holds what those of ``adapters`` and of ``mapper`` hold, and stands for both.
"""

from __future__ import annotations

import pyarrow.parquet as pq
import torch

from data import schemas
from data.shards import shard_names
from gill.data_parallel import WorkerGroup
from gill.mapper import MapperSize
from gill.specs import MapperSpec
from tasks.config.mapper import JointConfig
from tasks.parts.loading import load_language
from tasks.runner.context import StageContext
from tasks.stages import adapters, mapper
from tasks.stages.text_targets import TARGETS
from tasks.training.loop import RANDOM, finish


def run(context: StageContext) -> dict[str, float]:
    """Write what the stages ``adapters`` and ``mapper`` write."""
    config: JointConfig = context.config
    language = load_language(context.parts.language, context.runtime)
    targets = context.inputs["text_targets"].file(TARGETS)
    shape = schemas.shape_of(pq.read_schema(targets / shard_names(targets, "train")[0]))
    num_targets, target_dim = shape
    spec = MapperSpec(
        llm_dim=language.dim,
        num_img_tokens=config.num_img_tokens,
        num_targets=num_targets,
        target_dim=target_dim,
        size=MapperSize.of(config),
    )
    with RANDOM:
        torch.manual_seed(config.seed)
        made = mapper.build(spec).to(language.device)
    joint = adapters.JointMapper(
        made,
        targets,
        config.loss_form,
        config.generation_weight,
        config.initialization == "data_dependent",
    )
    metrics = adapters.fit(context, language, joint)
    if WorkerGroup.current().first:
        mapper.save(context.out, spec, made)
        finish(context)
    return metrics
