"""The schedule ``imported``: a model that was trained before, read on the pairs of this run.

Its artifact holds what those of ``adapters`` and of ``mapper`` hold, and stands for both; the
decision model that came with them lies beside, and ``decision`` then scores that one.
"""

from __future__ import annotations

from typing import Any

import torch

from data.artifacts import (
    ClipFeatures,
    ImageShards,
    TextTargets,
    TrainedAdapters,
    TrainedDecision,
    TrainedJointly,
    TrainedMapper,
)
from gill.model import GillModel
from gill.specs import MapperSpec
from tasks.config.mapper import ImportedConfig
from tasks.inference.sources import LoadError, artifacts_of, check_made_with, check_whole, of_kind
from tasks.parts.loading import load_language
from tasks.parts.trained_adapters import load_adapters, save_adapters
from tasks.parts.trained_decision import load_decision, save_decision
from tasks.parts.trained_mapper import load_mapper, save_mapper
from tasks.runner.context import StageContext
from tasks.runner.shard_map import check_room_for_rows
from tasks.runner.stage import StageDeclaration
from tasks.training.img_states import write_img_states

_UNREAD = ("train",)  # nothing is trained here
_OWN = "imported"


def _identity(config: ImportedConfig) -> dict[str, Any]:
    """What the files of the model hold, wherever they lie."""
    adapters, mapper, decision = _trained(config)
    kind = mapper.mapper_kind
    names = [
        (adapters, TrainedAdapters.ADAPTERS_WEIGHTS),
        (adapters, TrainedAdapters.ADAPTERS_SPEC),
        (mapper, TrainedMapper.mapper_weights_name(kind)),
        (mapper, TrainedMapper.mapper_spec_name(kind)),
    ]
    if decision is not None:
        names += [(decision, TrainedDecision.WEIGHTS), (decision, TrainedDecision.SPEC)]
    return {"model": {name: one.manifest().files[name]["sha256"] for one, name in names}}


STAGE = StageDeclaration(
    version=1,
    description="Adapters and mapper of a model that was trained before, and the [IMG] states",
    headlines=("trained_parameters",),
    parts=("language",),
    identify=_identity,
)


def run(
    context: StageContext[ImportedConfig],
    images: ImageShards,
    features: ClipFeatures,
    targets: TextTargets,
) -> TrainedJointly:
    """Write what the stages ``adapters`` and ``mapper`` write, and the decision model."""
    config, out = context.config, context.out
    adapters_of, mapper_of, decision_of = _trained(config)
    check_whole(one for one in (adapters_of, mapper_of, decision_of) if one is not None)
    check_made_with(artifacts_of(config.model), context.parts)
    mapper_spec = MapperSpec(**mapper_of.mapper_spec(config.kind))
    _check_widths(adapters_of, mapper_spec, features, targets)
    language = load_language(context.parts.language, context.runtime)
    adapters = load_adapters(adapters_of, language)
    r = adapters.spec.num_img_tokens
    states = out / TrainedJointly.STATES
    check_room_for_rows(images.folder, states, 2 * r * language.dim, "[IMG] states", _UNREAD)
    model = GillModel(language, adapters, config.max_tokens - r)
    write_img_states(model, images, out, context.log, config.state_batch_size, _UNREAD)
    save_adapters(out, adapters)
    mapper = load_mapper(mapper_of, torch.device("cpu"), config.kind)
    save_mapper(out, mapper_spec, mapper)
    if decision_of is not None:
        save_decision(out, load_decision(decision_of), adapters.spec.llm_dim)
    trained = [*adapters.parameters(), *mapper.parameters()]
    return TrainedJointly.made(out, {"trained_parameters": float(sum(p.numel() for p in trained))})


def _trained(
    config: ImportedConfig,
) -> tuple[TrainedAdapters, TrainedMapper, TrainedDecision | None]:
    found = artifacts_of(config.model)
    adapters, mapper = of_kind(found, TrainedAdapters), of_kind(found, TrainedMapper)
    if adapters is None or mapper is None:
        raise ValueError("adapters and a mapper are looked for before this")
    if adapters.stage == _OWN:  # --force would remove what it is to be made of
        raise LoadError(
            f"{config.model} rests on {adapters.path}, which a run has imported itself, of "
            f"{adapters.manifest().config['model']}; name that"
        )
    if mapper.mapper_kind != config.kind:
        raise LoadError(
            f"{mapper.path} holds a mapper of the kind {mapper.mapper_kind!r}, and only "
            f"{config.kind!r} can be imported; train with mapper.kind={config.kind}"
        )
    return adapters, mapper, of_kind(found, TrainedDecision)


def _check_widths(
    adapters: TrainedAdapters, mapper: MapperSpec, features: ClipFeatures, targets: TextTargets
) -> None:
    """See that the parts of this run give what the model reads and takes what it gives.

    Raises:
        LoadError: they do not.
    """
    vision, given = int(adapters.adapters_spec()["vision_dim"]), features.dim
    if vision != given:
        raise LoadError(
            f"the model reads image features of width {vision}, and those of this run have "
            f"{given}; set parts.vision to the encoder that it was trained with"
        )
    wanted = (mapper.num_targets, mapper.target_dim)
    if wanted != targets.shape:
        raise LoadError(
            f"the model makes {wanted[0]} x {wanted[1]} numbers for the image generator, and that "
            f"of this run takes {targets.shape[0]} x {targets.shape[1]}; set parts.generator to "
            "the one that it was trained with"
        )
