"""Trained models out of the store into the released layout, and back into the store."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import save
from torch import Tensor

from data.artifacts import Artifact, TrainedAdapters, TrainedDecision, TrainedMapper
from data.io.atomic import write_json
from data.manifest import Manifest, write_manifest
from gill.released_args import ReleasedError, names_a_folder
from gill.released_checkpoint import OWN, ReleasedCheckpoint, misfits
from gill.specs import AdapterSpec, MapperSpec
from tasks.config.parts import GeneratorConfig, LanguageConfig, PartsConfig, VisionConfig
from tasks.inference.released_files import read_released, write_released
from tasks.inference.sources import artifacts_of, of_kind, recorded_parts
from tasks.parts.weights import read_weights, write_weights
from tasks.runner.housekeeping import pin
from tasks.runner.registry import stage_named
from tasks.runner.store import begin, check_work, is_whole, name_of, partial_of, seal, store_folder

_VISION = {
    "openai/clip-vit-large-patch14": VisionConfig(name="ViT-L-14-quickgelu", pretrained="openai")
}
_GENERATORS = (
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-v1-5",
)
_KIND = "gill"


def export(source: str | Path | None, folder: Path, anyway: bool = False) -> list[str]:
    """Write a trained model in the released layout.

    Args:
        source: what ``tasks.inference.loading.load`` takes. folder: to be made.
        anyway: also write what the released code cannot load, for ``import_released``.

    Returns:
        Why the released code cannot load it; empty if it can.

    Raises:
        ReleasedError: the layout has no place for the model, or the released code cannot load it.
        LoadError, DamagedArtifactError: there is no such model, or it is damaged.
    """
    found = artifacts_of(source)
    parts = recorded_parts(found)
    checkpoint = _checkpoint(found, parts)
    reasons = misfits(checkpoint)
    if parts.generator.name not in _GENERATORS:
        reasons.append(f"its image generator is {parts.generator.name}, not {_GENERATORS[0]}")
    if reasons and not anyway:
        raise ReleasedError(
            f"the released code cannot load this model: {'; '.join(reasons)}. With --anyway it is "
            "written for `gill import`, which can"
        )
    write_released(folder, checkpoint)
    return reasons


def _checkpoint(found: Mapping[str, Artifact], parts: PartsConfig) -> ReleasedCheckpoint:
    adapters, mapper = of_kind(found, TrainedAdapters), of_kind(found, TrainedMapper)
    if adapters is None or mapper is None:
        raise ValueError("adapters and a mapper are looked for before this")
    decision, kind = of_kind(found, TrainedDecision), mapper.mapper_kind
    vision = parts.vision
    same = [
        name
        for name, known in _VISION.items()
        if (known.name, known.pretrained) == (vision.name, vision.pretrained)
    ]
    return ReleasedCheckpoint(
        AdapterSpec(**adapters.adapters_spec()),
        read_weights(adapters, adapters.adapters_weights),
        MapperSpec(**mapper.mapper_spec(kind)),
        read_weights(mapper, mapper.mapper_weights(kind)),
        None if decision is None else read_weights(decision, decision.weights),
        {
            "opt_version": parts.language.name,
            "visual_encoder": same[0] if same else vision.name,
            OWN: {"parts": parts.model_dump(mode="json")},
        },
    )


def released_parts(checkpoint: ReleasedCheckpoint) -> PartsConfig:
    """The frozen parts that a checkpoint names.

    Raises:
        ReleasedError: it names a vision encoder whose open_clip model is not known here, or none.
    """
    own = checkpoint.args.get(OWN)
    if isinstance(own, dict) and "parts" in own:
        return _own_parts(own["parts"])
    vision = checkpoint.args["visual_encoder"]
    if vision not in _VISION:
        raise ReleasedError(
            f"the released checkpoint names the vision encoder {vision!r}; known are "
            f"{', '.join(_VISION)}: say with --recipe (or `parts`) which open_clip model that is"
        )
    return PartsConfig(
        language=LanguageConfig(name=checkpoint.args["opt_version"]),
        vision=_VISION[vision],
        generator=GeneratorConfig(name=_GENERATORS[0]),
    )


def _own_parts(described: Any) -> PartsConfig:
    try:
        parts = PartsConfig.model_validate(described)
    except ValueError as error:
        raise ReleasedError(
            f"model_args.json: {OWN}.parts are no frozen parts ({error}); name them with --recipe"
        ) from error
    for part in (parts.language, parts.vision, parts.generator):
        if names_a_folder(part.name.rpartition(":")[2]):
            raise ReleasedError(
                f"model_args.json: {OWN}.parts names {part.name!r}; a checkpoint may not name your "
                "folders: say with --recipe which part that is"
            )
    return parts


@dataclass(frozen=True)
class _Piece:
    """An artifact to be: its stage, its files, and what it rests on."""

    stage: str
    spec_name: str
    spec: Mapping[str, Any]
    weights_name: str
    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]


def import_released(folder: Path, parts: PartsConfig | None = None) -> list[Artifact]:
    """Put a checkpoint in the released layout into the store, pinned.

    Args:
        parts: the frozen parts, where they are not those that the checkpoint names.

    Returns:
        The adapters, the mapper and, where there is one, the decision model, which rests on both.

    Raises:
        ReleasedError: the folder holds no sound checkpoint.
        WriteError: there is no room or no way to write.
    """
    checkpoint = read_released(folder)
    parts = parts or released_parts(checkpoint)
    adapters, mapper, kind = checkpoint.adapter_spec, checkpoint.mapper_spec, _KIND
    pieces = [
        _Piece(
            "adapters", TrainedAdapters.ADAPTERS_SPEC, adapters.model_dump(),
            TrainedAdapters.ADAPTERS_WEIGHTS, checkpoint.adapters, {},
        ),
        _Piece(
            "mapper", TrainedMapper.mapper_spec_name(kind), mapper.model_dump(),
            TrainedMapper.mapper_weights_name(kind), checkpoint.mapper,
            {"kind": kind, "baselines": []},
        ),
    ]  # fmt: skip
    if checkpoint.decision is not None:
        pieces.append(
            _Piece(
                "decision", TrainedDecision.SPEC, {"llm_dim": adapters.llm_dim},
                TrainedDecision.WEIGHTS, checkpoint.decision, {},
            )
        )  # fmt: skip
    made: list[Artifact] = []
    for piece in pieces:
        made.append(_put(piece, made, parts, folder))
    pin(name_of(made[-1]))
    return made


def _put(piece: _Piece, inputs: Sequence[Artifact], parts: PartsConfig, folder: Path) -> Artifact:
    """Make the artifact of a piece, unless it is there; the same bytes have the same name."""
    logger = logging.getLogger(__name__)
    weights = {name: value.contiguous() for name, value in sorted(piece.weights.items())}
    described = [piece.stage, dict(piece.spec), parts.model_dump(mode="json"),
                 [name_of(given) for given in inputs]]  # fmt: skip
    told = json.dumps(described, sort_keys=True).encode()
    fingerprint = hashlib.sha256(told + save(weights)).hexdigest()[:20]
    stage = stage_named(piece.stage)
    path = store_folder() / piece.stage / fingerprint
    artifact = stage.makes(piece.stage, fingerprint, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if is_whole(artifact, logger):
            return artifact
        begin(artifact, inputs, logger)
        partial = partial_of(artifact)
        write_weights(partial / piece.weights_name, weights)
        write_json(partial / piece.spec_name, dict(piece.spec))
        files = check_work(partial, logger)
        if files is None:
            raise ReleasedError(f"files of {partial} changed while they were written; try again")
        manifest = Manifest(
            stage=piece.stage,
            version=stage.declared.version,
            fingerprint=fingerprint,
            config=dict(piece.config),
            inputs={given.stage: name_of(given) for given in inputs},
            metrics={},
            files=files,
            provenance={
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "imported": str(folder.absolute()),
                "parts": parts.model_dump(mode="json"),
            },
        )
        write_manifest(partial, manifest)
        seal(artifact)
    return artifact
