"""Loads a trained GILL for use: from a run, from the store, or from a released checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from data.artifacts import (
    Artifact,
    ImageShards,
    RetrievalIndex,
    TrainedAdapters,
    TrainedDecision,
    TrainedMapper,
)
from data.lookup import ShardLookup
from data.manifest import MANIFEST, DamagedArtifactError, problems_of
from gill.decision import DecisionModel
from gill.inference.engine import GillEngine
from gill.inference.index import Index
from gill.inference.results import GeneratedImage, RetrievedImage, as_pil
from gill.mapper import Mapper
from gill.model import Adapters, GillModel
from gill.released_checkpoint import ARGS, ReleasedCheckpoint, read_released
from tasks.config.parts import (
    GeneratorConfig,
    LanguageConfig,
    PartConfig,
    PartsConfig,
    RuntimeConfig,
    VisionConfig,
)
from tasks.inference.image_store import ImageStore, ShardImageStore, load_folder_index
from tasks.parts.devices import device_of
from tasks.parts.engine import engine_of
from tasks.parts.loading import load_language
from tasks.parts.retrieval_index import load_index
from tasks.parts.trained_adapters import load_adapters
from tasks.parts.trained_decision import load_decision
from tasks.parts.trained_mapper import build_mapper, load_mapper
from tasks.paths import LAST_RUN, var_folder
from tasks.runner.registry import stage_named
from tasks.tracking import mlflow_runs

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_RELEASED_VISION = {
    "openai/clip-vit-large-patch14": VisionConfig(name="ViT-L-14-quickgelu", pretrained="openai")
}
_READ = (TrainedAdapters, TrainedMapper, TrainedDecision, RetrievalIndex)
_RELEASED_GENERATOR = "stable-diffusion-v1-5/stable-diffusion-v1-5"


class LoadError(ValueError):
    """What was named holds no trained model; says what is missing and how to make it."""


@dataclass(frozen=True)
class Loaded:
    """A model ready for use, and the images that it can retrieve."""

    engine: GillEngine
    image_store: ImageStore | None

    def image(self, segment: GeneratedImage | RetrievedImage) -> Image.Image:
        """The image of a segment of an answer."""
        if isinstance(segment, GeneratedImage):
            return as_pil(segment.image)
        if self.image_store is None:
            raise LoadError(f"{segment.key!r} was retrieved from an index that is not loaded")
        return self.image_store.image(segment.key)


def load(
    source: str | Path | None = None,
    index: Path | None = None,
    parts: PartsConfig | None = None,
    runtime: RuntimeConfig | None = None,
    **settings: Any,
) -> Loaded:
    """Load a trained model.

    Args:
        source: an MLflow run id (of a pipeline or of a stage), a ``var`` folder, a stage's artifact
            (what it rests on is found beside it), or a folder in the released checkpoints' layout.
            Without it the last run of the current ``var`` folder.
        index: a folder that ``image_store.index_folder`` made, instead of the run's own index.
        parts: the frozen parts, where they are not those that the run recorded.
        runtime: device and threads.
        settings: defaults of ``GillEngine.generate``, over the recipe's.

    Raises:
        LoadError: no trained model is there.
        DamagedArtifactError: files are missing or damaged.
    """
    runtime = runtime or RuntimeConfig()
    if source is not None and (Path(source) / ARGS).exists():
        checkpoint = read_released(Path(source))
        parts = parts or _released_parts(checkpoint)
        trained = _from_released(checkpoint, parts, runtime)
        found: Mapping[str, Artifact] = {}
    else:
        found = _artifacts(source)
        parts = parts or _recorded_parts(found)
        trained = _from_artifacts(found, parts, runtime)
    model, mapper, decision = trained
    engine = engine_of(parts, runtime, model, mapper, decision)
    engine.settings = engine.settings.changed(**settings)
    image_store: ImageStore | None = None
    if index is not None:
        engine.index, image_store = load_folder_index(engine, index)
    elif (stored := _of(found, RetrievalIndex)) and (images := _of(found, ImageShards)):
        engine.index, image_store = _stored_index(stored, images)
    return Loaded(engine, image_store)


def _stored_index(stored: RetrievalIndex, images: ImageShards) -> tuple[Index, ShardImageStore]:
    index = load_index(stored)
    # The shards of images and index have the same rows, so the index's keys say where each is.
    rows = ShardLookup(images.folder, stored.names(), index.keys, ImageShards.SCHEMA)
    image_store = ShardImageStore(rows)
    index.origin = image_store.origin
    return index, image_store


Kind = TypeVar("Kind", bound=Artifact)
Trained = tuple[GillModel, Mapper, DecisionModel | None]


def _from_artifacts(
    found: Mapping[str, Artifact], parts: PartsConfig, runtime: RuntimeConfig
) -> Trained:
    for artifact in found.values():
        if isinstance(artifact, _READ) and (problems := problems_of(artifact.path)):
            raise DamagedArtifactError(artifact.stage, artifact.path, problems)
    adapters, mapper = _of(found, TrainedAdapters), _of(found, TrainedMapper)
    if adapters is None or mapper is None:
        raise ValueError("adapters and a mapper are looked for before this")
    language = load_language(parts.language, runtime)
    model = GillModel(language, load_adapters(adapters, language))
    decision = _of(found, TrainedDecision)
    return (
        model,
        load_mapper(mapper, device_of(runtime)),
        None if decision is None else load_decision(decision),
    )


def _from_released(
    checkpoint: ReleasedCheckpoint, parts: PartsConfig, runtime: RuntimeConfig
) -> Trained:
    language = load_language(parts.language, runtime)
    adapters = Adapters(checkpoint.adapter_spec, language)
    adapters.load_state_dict(checkpoint.adapters)
    mapper = build_mapper(checkpoint.mapper_spec)
    mapper.load_state_dict(checkpoint.mapper)
    decision = None
    if checkpoint.decision is not None:
        decision = DecisionModel(checkpoint.adapter_spec.llm_dim)
        decision.load_state_dict(checkpoint.decision)
        decision.requires_grad_(False).eval()
    return (
        GillModel(language, adapters.to(language.device).requires_grad_(False).eval()),
        mapper.requires_grad_(False).eval(),
        decision,
    )


def _released_parts(checkpoint: ReleasedCheckpoint) -> PartsConfig:
    vision = str(checkpoint.args.get("visual_encoder"))
    if vision not in _RELEASED_VISION:
        raise LoadError(
            f"the released checkpoint names the vision encoder {vision!r}; known are "
            f"{', '.join(_RELEASED_VISION)}: give `parts` to say which open_clip model that is"
        )
    return PartsConfig(
        language=LanguageConfig(name=str(checkpoint.args["opt_version"])),
        vision=_RELEASED_VISION[vision],
        generator=GeneratorConfig(name=_RELEASED_GENERATOR),
    )


def _artifacts(source: str | Path | None) -> dict[str, Artifact]:
    """The artifacts of a source and all that they rest on."""
    path = var_folder() if source is None else Path(source)
    if (path / MANIFEST).exists():
        stage, root = path.parent.name, path.parents[1]
        found = _closure(root, {stage: path.name})
    elif (path / LAST_RUN).exists():
        found = _closure(path / "store", _stages_of(path / LAST_RUN))
    elif source is not None and _RUN_ID.fullmatch(str(source)):
        try:
            fingerprints = mlflow_runs.stages_of(str(source))
        except LookupError as error:
            raise LoadError(str(error)) from error
        found = _closure(var_folder() / "store", fingerprints)
    else:
        raise LoadError(
            f"{source or path} holds no run ({LAST_RUN}), no artifact ({MANIFEST}) and no released "
            f"checkpoint ({ARGS}), and is no MLflow run id; run the pipeline first"
        )
    wanted = {"adapters": TrainedAdapters, "mapper": TrainedMapper}
    missing = [name for name, kind in wanted.items() if _of(found, kind) is None]
    if missing:
        raise LoadError(
            f"{source or path} has no trained {' and no trained '.join(missing)}, only "
            f"{', '.join(found)}; run the stage {missing[-1]!r} first"
        )
    return found


def _stages_of(last_run: Path) -> dict[str, str]:
    """Fingerprints by stage of the last run."""
    try:
        stages = json.loads(last_run.read_bytes())["stages"]
        return {str(name): str(stage["fingerprint"]) for name, stage in stages.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise LoadError(
            f"cannot read {last_run}: {error}. Run the pipeline again (what is finished is "
            "reused), or name a run or an artifact"
        ) from error


def _closure(root: Path, fingerprints: Mapping[str, str]) -> dict[str, Artifact]:
    found: dict[str, Artifact] = {}
    wanted = dict(fingerprints)
    while wanted:
        stage, fingerprint = wanted.popitem()
        path = (root / stage / fingerprint).absolute()
        if not (path / MANIFEST).exists():
            raise LoadError(
                f"the artifact {stage}/{fingerprint} is not in {root}; run its stage again"
            )
        found[stage] = stage_named(stage).makes(stage, fingerprint, path)
        for need, its_fingerprint in _inputs(found[stage]):
            known = (
                found[need].fingerprint
                if need in found
                else wanted.setdefault(need, its_fingerprint)
            )
            if known != its_fingerprint:
                raise LoadError(
                    f"{stage} was made with {need}/{its_fingerprint}, not with {need}/{known}"
                )
    return found


def _inputs(artifact: Artifact) -> list[tuple[str, str]]:
    """Stage and fingerprint of each input; manifests of old name the stage in another place."""
    named = artifact.manifest().inputs.items()
    pairs = [(made.rpartition("/")[0] or name, made.rpartition("/")[2]) for name, made in named]
    return list(dict.fromkeys(pairs))


def _of(found: Mapping[str, Artifact], kind: type[Kind]) -> Kind | None:
    """The artifact of a kind, if there is one."""
    return next((artifact for artifact in found.values() if isinstance(artifact, kind)), None)


def _recorded_parts(found: Mapping[str, Artifact]) -> PartsConfig:
    """The frozen parts, as the manifests say, or else the MLflow runs that made them."""
    recorded: dict[str, Any] = {}
    kinds: Mapping[str, type[PartConfig]] = {
        "language": LanguageConfig, "vision": VisionConfig, "generator": GeneratorConfig,
    }  # fmt: skip
    for artifact in found.values():
        made = artifact.manifest().provenance
        for name in set(stage_named(artifact.stage).declared.whole_parts) - set(recorded):
            try:
                described = made.get("parts", {}).get(name)
                recorded[name] = described or kinds[name].model_validate_strings(
                    mlflow_runs.params_of(str(made.get("mlflow_run_id")), name)
                )
            except LookupError as error:
                raise LoadError(
                    f"{artifact.path} does not say which {name} part it was made with, and neither "
                    f"does MLflow ({error}); give `parts`"
                ) from error
    return PartsConfig.model_validate(recorded)
