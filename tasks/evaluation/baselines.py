"""Models under test on contexts, behind one small interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from data.benchmarks.contexts import Case, Piece
from gill.backbones.image_generator import TextToImage
from tasks.evaluation.answers import Answers, as_image, stored_images
from tasks.parts.devices import device_of

Sample = Callable[[Sequence[int]], list[Image.Image]]


class EvaluatedModel(Protocol):
    """A model that answers contexts with images."""

    @property
    def name(self) -> str:
        """What metrics call it."""

    @property
    def seeded(self) -> bool:
        """Whether another seed gives other images."""

    @property
    def blind(self) -> bool:
        """Whether every context gives the same images, so that one is enough."""

    def reads(self, pieces: Sequence[Piece]) -> bool:
        """Whether it can take everything in such a context."""

    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        """Read one context of each case; the result draws an image for each with given seeds.

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
class Gill:
    """[IMG] states through the mapper to the generator."""

    answers: Answers
    name: str = "gill"
    seeded: bool = True
    blind: bool = False

    def reads(self, pieces: Sequence[Piece]) -> bool:
        """See ``EvaluatedModel``."""
        return True

    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        """See ``EvaluatedModel``."""
        conditioning = self.answers.conditioning(self.answers.mapper(), states)
        return lambda seeds: [as_image(p) for p in self.answers.sample(conditioning, seeds)]


@dataclass(frozen=True)
class GeneratorAlone:
    """The frozen generator with its own text encoder, which cuts what is too long for it."""

    answers: Answers
    name: str = "generator"
    seeded: bool = True
    blind: bool = False

    def reads(self, pieces: Sequence[Piece]) -> bool:
        """See ``EvaluatedModel``."""
        return only_text(pieces)

    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        """See ``EvaluatedModel``."""
        texts = [text_of(case.contexts[context]) for case in cases]
        generator = self.answers.generator
        cut = sum(count > generator.num_tokens for count in generator.count_tokens(texts))
        note = f"{cut} of {len(texts)} texts ({context}) are longer than its encoder reads"
        self.answers.context.log.note(note)
        target = generator.encode_text(texts)
        return lambda seeds: [as_image(p) for p in self.answers.sample(target, seeds)]


@dataclass(frozen=True)
class Pipeline:
    """Another diffusers text-to-image pipeline, with the recipe's steps and guidance."""

    answers: Answers
    pipeline: TextToImage
    name: str
    seeded: bool = True
    blind: bool = False

    def reads(self, pieces: Sequence[Piece]) -> bool:
        """See ``EvaluatedModel``."""
        return only_text(pieces)

    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        """See ``EvaluatedModel``."""
        texts, settings = [text_of(c.contexts[context]) for c in cases], self.answers.settings
        return lambda seeds: self.pipeline.generate(
            texts, seeds, settings.guidance_scale, settings.steps
        )


@dataclass(frozen=True)
class RetrievalAlone:
    """The best image of the index."""

    answers: Answers
    name: str = "retrieval"
    seeded: bool = False
    blind: bool = False

    def reads(self, pieces: Sequence[Piece]) -> bool:
        """See ``EvaluatedModel``."""
        return True

    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        """See ``EvaluatedModel``."""
        keys, _ = self.answers.retrieve(states, [case.key for case in cases])
        stored = stored_images(self.answers.context.inputs["download"], keys)
        return lambda seeds: [stored[key] for key in keys]


@dataclass(frozen=True)
class GroundTruth:
    """The true image: what every measure says at its best."""

    name: str = "truth"
    seeded: bool = False
    blind: bool = True

    def reads(self, pieces: Sequence[Piece]) -> bool:
        """See ``EvaluatedModel``."""
        return True

    def prepare(self, cases: Sequence[Case], context: str, states: Tensor) -> Sample:
        """See ``EvaluatedModel``."""
        return lambda seeds: [case.target.open() for case in cases]


def evaluated_models(
    answers: Answers, models: Sequence[str], pipelines: Sequence[str]
) -> list[EvaluatedModel]:
    """The models that a recipe names."""
    known: dict[str, EvaluatedModel] = {
        "gill": Gill(answers),
        "generator": GeneratorAlone(answers),
        "retrieval": RetrievalAlone(answers),
        "truth": GroundTruth(),
    }
    device = device_of(answers.context.runtime)
    others = [Pipeline(answers, TextToImage(n, device), slug(n.rstrip("/"))) for n in pipelines]
    return [*(known[name] for name in models), *others]


def slug(text: str) -> str:
    """A name or a context as a part of a metric's name."""
    return re.sub(r"\W+", "_", text.rpartition("/")[2]).strip("_").lower()
