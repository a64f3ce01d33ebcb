"""The inference engine of trained artifacts: one way for users, decision labels and evaluation."""

from __future__ import annotations

from data.artifacts import RetrievalIndex, TrainedAdapters, TrainedDecision, TrainedMapper
from gill.backbones.sampling import Sampling
from gill.decision import DecisionModel
from gill.inference.engine import GillEngine
from gill.inference.index import Index
from gill.inference.settings import Settings
from gill.mapper import Mapper
from gill.model import GillModel, StateAdapters
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.parts.devices import device_of
from tasks.parts.loading import load_generator, load_language, load_vision
from tasks.parts.retrieval_index import load_index, load_retrieval_maps
from tasks.parts.trained_adapters import load_adapters, load_img_embeddings
from tasks.parts.trained_decision import load_decision
from tasks.parts.trained_mapper import load_mapper


def load_engine(
    parts: PartsConfig,
    runtime: RuntimeConfig,
    adapters: TrainedAdapters,
    mapper: TrainedMapper,
    index: RetrievalIndex | None = None,
    decision: TrainedDecision | None = None,
    *,
    prompts: bool,
) -> GillEngine:
    """Load an engine with the recipe's sampler settings.

    Args:
        prompts: whether it reads prompts; without them no language model is loaded.
    """
    device = device_of(runtime)
    model: GillModel | StateAdapters
    if prompts:
        language = load_language(parts.language, runtime)
        model = GillModel(language, load_adapters(adapters, language))
    else:
        maps = load_retrieval_maps(adapters).to(device)
        model = StateAdapters(maps, load_img_embeddings(adapters).to(device))
    return engine_of(
        parts,
        runtime,
        model,
        load_mapper(mapper, device),
        None if decision is None else load_decision(decision),
        None if index is None else load_index(index),
    )


def engine_of(
    parts: PartsConfig,
    runtime: RuntimeConfig,
    model: GillModel | StateAdapters,
    mapper: Mapper,
    decision: DecisionModel | None = None,
    index: Index | None = None,
) -> GillEngine:
    """Join trained parts with the frozen ones that a recipe names, on the recipe's device."""
    device, sampler = device_of(runtime), parts.generator
    return GillEngine(
        model,
        load_vision(parts.vision, runtime),
        load_generator(sampler, runtime),
        mapper.to(device),
        None if decision is None else decision.to(device),
        index,
        Settings(**Sampling.of(sampler).model_dump()),
    )
