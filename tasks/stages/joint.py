"""The schedule ``joint``: adapters and mapper in one training (l_c + l_p + l_r + l_g), the paper's.

Its artifact holds what those of ``adapters`` and of ``mapper`` hold, and stands for both.
"""

from __future__ import annotations

import torch

from data.artifacts import ClipFeatures, ImageShards, TextTargets, TrainedJointly
from gill.data_parallel import WorkerGroup
from gill.mapper import MapperSize
from gill.specs import MapperSpec
from tasks.config.mapper import JointConfig
from tasks.parts.loading import load_language
from tasks.parts.trained_mapper import build_mapper, save_mapper
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration
from tasks.training.adapter_losses import JointMapper
from tasks.training.adapters import AdapterTraining
from tasks.training.loop import RANDOM, finish

STAGE = StageDeclaration(
    version=5,
    description="Adapters and mapper in one training, instead of the two stages",
    headlines=("validation_l_c", "validation_l_g", "validation_t2i_r1", "validation_t2i_r10"),
    parts=("language",),
    model="gill-joint",
    data_parallel=True,
    splits=lambda _: ("train", "validation"),
)


def run(
    context: StageContext[JointConfig],
    images: ImageShards,
    features: ClipFeatures,
    targets: TextTargets,
) -> TrainedJointly:
    """Write what the stages ``adapters`` and ``mapper`` write."""
    config, out = context.config, context.out
    language = load_language(context.parts.language, context.runtime)
    num_targets, target_dim = targets.shape
    spec = MapperSpec(
        llm_dim=language.dim,
        num_img_tokens=config.num_img_tokens,
        num_targets=num_targets,
        target_dim=target_dim,
        size=MapperSize.of(config),
    )
    with RANDOM:
        torch.manual_seed(config.seed)
        mapper = build_mapper(spec).to(language.device)
    joint = JointMapper(
        mapper,
        targets.folder,
        config.loss_form,
        config.generation_weight,
        config.initialization == "data_dependent",
    )
    training = AdapterTraining(
        language,
        config,
        images,
        features,
        out,
        context.log,
        joint,
        context.identity,
        context.donors,
    )
    metrics = training.run()
    if WorkerGroup.current().first:
        save_mapper(out, spec, mapper)
        finish(out)
    return TrainedJointly.made(out, metrics)
