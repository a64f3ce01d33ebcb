"""Loads a trained GILL for use: from a run, from the store, or from a released checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from gill.decision import DecisionModel
from gill.inference.engine import GillEngine
from gill.inference.index import Index
from gill.inference.results import GeneratedImage, RetrievedImage, as_pil
from gill.mapper import Mapper
from gill.model import Adapters, GillModel
from gill.released_args import ARGS
from gill.released_checkpoint import ReleasedCheckpoint
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.inference.image_store import ImageStore, ShardImageStore, load_folder_index
from tasks.inference.released import released_parts
from tasks.inference.released_files import read_released
from tasks.inference.sources import (
    LoadError,
    artifacts_of,
    check_whole,
    of_kind,
    recorded_parts,
)
from tasks.parts.devices import device_of
from tasks.parts.engine import engine_of
from tasks.parts.loading import load_language
from tasks.parts.retrieval_index import load_index
from tasks.parts.trained_adapters import load_adapters
from tasks.parts.trained_decision import load_decision
from tasks.parts.trained_mapper import build_mapper, load_mapper

_READ = (TrainedAdapters, TrainedMapper, TrainedDecision, RetrievalIndex)


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
        parts = parts or released_parts(checkpoint)
        trained = _from_released(checkpoint, parts, runtime)
        found: Mapping[str, Artifact] = {}
    else:
        found = artifacts_of(source)
        parts = parts or recorded_parts(found)
        trained = _from_artifacts(found, parts, runtime)
    model, mapper, decision = trained
    engine = engine_of(parts, runtime, model, mapper, decision)
    engine.settings = engine.settings.changed(**settings)
    image_store: ImageStore | None = None
    if index is not None:
        engine.index, image_store = load_folder_index(engine, index)
    elif (stored := of_kind(found, RetrievalIndex)) and (images := of_kind(found, ImageShards)):
        engine.index, image_store = _stored_index(stored, images)
    return Loaded(engine, image_store)


def _stored_index(stored: RetrievalIndex, images: ImageShards) -> tuple[Index, ShardImageStore]:
    index = load_index(stored)
    # The shards of images and index have the same rows, so the index's keys say where each is.
    rows = ShardLookup(images.folder, stored.names(), index.keys, ImageShards.SCHEMA)
    image_store = ShardImageStore(rows)
    index.origin = image_store.origin
    return index, image_store


Trained = tuple[GillModel, Mapper, DecisionModel | None]


def _from_artifacts(
    found: Mapping[str, Artifact], parts: PartsConfig, runtime: RuntimeConfig
) -> Trained:
    check_whole(artifact for artifact in found.values() if isinstance(artifact, _READ))
    adapters, mapper = of_kind(found, TrainedAdapters), of_kind(found, TrainedMapper)
    if adapters is None or mapper is None:
        raise ValueError("adapters and a mapper are looked for before this")
    language = load_language(parts.language, runtime)
    model = GillModel(language, load_adapters(adapters, language))
    decision = of_kind(found, TrainedDecision)
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
