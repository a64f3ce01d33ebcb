"""GILL and the models that it is compared with on contexts, behind one small interface."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor
from typing_extensions import override

from data.benchmarks.contexts import Case, Piece
from gill.backbones.image_generator import TextToImage
from gill.inference.engine import GillEngine
from gill.inference.results import as_pil
from gill.inference.settings import Settings
from gill.mapper import Mapper
from tasks.evaluation.prompt_scores import best_matches
from tasks.evaluation.stored import StoredImages
from tasks.tracking.stage_log import StageLog

Sample = Callable[[Sequence[int]], list[Image.Image]]


class EvaluatedModel(ABC):
    """A model that answers contexts with images.

    Attributes:
        name: what metrics call it.
        seeded: whether another seed gives other images.
        blind: whether every context gives the same images, so that one is enough.
    """

    name: str
    seeded: bool
    blind: bool

    @abstractmethod
    def reads(self, pieces: Sequence[Piece]) -> bool:
        """Whether it can take everything in such a context."""

    @abstractmethod
    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        """Read one context of each case; the result samples an image for each with given seeds.

        Args:
            states: GILL's [IMG] states ``(cases, r, llm_dim)`` after these contexts.
        """


def text_of(pieces: Sequence[Piece]) -> str:
    """All text of a context, joined by spaces."""
    return " ".join(piece for piece in pieces if isinstance(piece, str))


def only_text(pieces: Sequence[Piece]) -> bool:
    """Whether a context holds no image."""
    return all(isinstance(piece, str) for piece in pieces)


@dataclass(frozen=True)
class TrainedGill(EvaluatedModel):
    """[IMG] states through the mapper to the generator."""

    engine: GillEngine
    name: str = "gill"
    mapper: Mapper | None = None  # another than the engine's
    seeded: bool = True
    blind: bool = False

    @override
    def reads(self, pieces: Sequence[Piece]) -> bool:
        return True

    @override
    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        conditioning = self.engine.conditioning(states, self.mapper)
        return lambda seeds: [as_pil(p) for p in self.engine.sample(conditioning, seeds)]


@dataclass(frozen=True)
class GeneratorAlone(EvaluatedModel):
    """The frozen generator with its own text encoder, which cuts what is too long for it."""

    engine: GillEngine
    log: StageLog
    name: str = "generator"
    seeded: bool = True
    blind: bool = False

    @override
    def reads(self, pieces: Sequence[Piece]) -> bool:
        return only_text(pieces)

    @override
    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        texts = [text_of(case.contexts[context]) for case in cases]
        generator = self.engine.generator
        cut = sum(count > generator.num_tokens for count in generator.count_tokens(texts))
        self.log.note(
            f"{cut} of {len(texts)} texts ({context}) are longer than the generator's encoder reads"
        )
        target = generator.encode_text(texts)
        return lambda seeds: [as_pil(p) for p in self.engine.sample(target, seeds)]


@dataclass(frozen=True)
class OtherPipeline(EvaluatedModel):
    """Another diffusers text-to-image pipeline, with the recipe's steps and guidance."""

    pipeline: TextToImage
    settings: Settings
    name: str
    seeded: bool = True
    blind: bool = False

    @override
    def reads(self, pieces: Sequence[Piece]) -> bool:
        return only_text(pieces)

    @override
    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        texts = [text_of(case.contexts[context]) for case in cases]
        return lambda seeds: self.pipeline.generate(
            texts, seeds, self.settings.guidance_scale, self.settings.steps
        )


@dataclass(frozen=True)
class RetrievalAlone(EvaluatedModel):
    """The best image of the index."""

    engine: GillEngine
    stored: StoredImages
    name: str = "retrieval"
    seeded: bool = False
    blind: bool = False

    @override
    def reads(self, pieces: Sequence[Piece]) -> bool:
        return True

    @override
    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        matches = best_matches(self.engine, states, [case.key for case in cases])
        images = self.stored.opened([match.key for match in matches])
        return lambda seeds: images


@dataclass(frozen=True)
class GroundTruth(EvaluatedModel):
    """The true image: what every measure says at its best."""

    name: str = "truth"
    seeded: bool = False
    blind: bool = True

    @override
    def reads(self, pieces: Sequence[Piece]) -> bool:
        return True

    @override
    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        return lambda seeds: [case.target.open() for case in cases]


def evaluated_models(
    engine: GillEngine,
    stored: StoredImages,
    models: Sequence[str],
    pipelines: Sequence[str],
    log: StageLog,
    mappers: Mapping[str, Mapper],
) -> list[EvaluatedModel]:
    """The models that a recipe names.

    Args:
        mappers: those that were trained beside the engine's, by name.
    """
    known: dict[str, list[EvaluatedModel]] = {
        "gill": [TrainedGill(engine)],
        "mappers": [TrainedGill(engine, name, mapper) for name, mapper in mappers.items()],
        "generator": [GeneratorAlone(engine, log)],
        "retrieval": [RetrievalAlone(engine, stored)],
        "truth": [GroundTruth()],
    }
    others = [
        OtherPipeline(TextToImage(name, engine.device), engine.settings, slug(name.rstrip("/")))
        for name in pipelines
    ]
    return [*(model for name in models for model in known[name]), *others]


def slug(text: str) -> str:
    """A name or a context as a part of a metric's name."""
    return re.sub(r"\W+", "_", text.rpartition("/")[2]).strip("_").lower()
