"""The inference engine: prompts or stored [IMG] states in; text, decisions and images out.

The command, the served model, the decision labels and every suite of the evaluation call it: no
other code conditions, samples, retrieves or decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gill.backbones.image_generator import ImageGenerator
from gill.backbones.vision import VisionEncoder
from gill.decision import DecisionModel
from gill.inference.decoding import Decoded, decode, runs_of_text
from gill.inference.index import Index, Match
from gill.inference.likelihood import log_likelihood
from gill.inference.places import images_of_answers
from gill.inference.prompts import ImgTokens, Item, Prompt, PromptReader, items_of
from gill.inference.results import ImageFeatures, Likelihood, Segment, Text
from gill.inference.settings import DecodingSettings, Settings
from gill.mapper import Mapper
from gill.model import GillModel, StateAdapters

_TOGETHER = 64  # images that go through the vision encoder at once


class GillEngine:
    """The whole trained model: frozen parts, trained parts, and images to retrieve.

    Args:
        model: the language model with the adapters; or the adapters that read [IMG] states alone,
            where such states are stored and no prompt is read.
        vision, generator: the other frozen parts. mapper: from [IMG] states to the generator.
        decision: None where every image is to be generated.
        index: the images that can be retrieved; without it images are always generated.
        settings: defaults of ``generate`` and ``sample``.

    Raises:
        ValueError: the parts do not fit each other; says which sizes differ.
    """

    def __init__(
        self,
        model: GillModel | StateAdapters,
        vision: VisionEncoder,
        generator: ImageGenerator,
        mapper: Mapper,
        decision: DecisionModel | None = None,
        index: Index | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._reader = PromptReader(model, vision) if isinstance(model, GillModel) else None
        self.adapters = model.adapters.for_states() if isinstance(model, GillModel) else model
        taken, width = self.adapters.retrieval.image.in_features, vision.pooled_dim
        if taken != width:
            raise ValueError(
                f"the adapters take vision features of width {taken}; {vision.name} gives {width}"
            )
        made, wanted = (
            (mapper.num_targets, mapper.target_dim),
            (generator.num_tokens, generator.dim),
        )
        if made != wanted:
            raise ValueError(f"the mapper makes {made} values; {generator.name} takes {wanted}")
        self.vision, self.generator, self.mapper = vision, generator, mapper
        self.decision = decision
        self.settings = settings or Settings()
        self.index = index

    @property
    def reader(self) -> PromptReader:
        """What reads prompts.

        Raises:
            ValueError: the engine has no language model.
        """
        if self._reader is None:
            raise ValueError(
                "this engine serves stored [IMG] states and has no language model; load one to "
                "read prompts"
            )
        return self._reader

    @property
    def model(self) -> GillModel:
        """The language model with the adapters; raises as ``reader`` does."""
        return self.reader.model

    @property
    def device(self) -> torch.device:
        """Where the adapters are; results of ``retrieve`` and ``embed_images`` are made there."""
        return self.adapters.img_embeddings.device

    @property
    def index(self) -> Index | None:
        """The images that can be retrieved; may be set to others of the same space."""
        return self._index

    @index.setter
    def index(self, index: Index | None) -> None:
        width = self.adapters.retrieval.text.out_features
        if index is not None and index.vectors.shape[1] != width:
            raise ValueError(
                f"the index has vectors of width {index.vectors.shape[1]}; the adapters make "
                f"{width}: make the index anew with these adapters"
            )
        self._index = index

    def for_states(self) -> GillEngine:
        """The same engine without the language model, which is freed once nothing else holds it."""
        return GillEngine(
            self.adapters,
            self.vision,
            self.generator,
            self.mapper,
            self.decision,
            self.index,
            self.settings,
        )

    def generate(self, prompt: Prompt, **changes: Any) -> list[Segment]:
        """Answer one prompt.

        Args:
            prompt: images and text in any order.
            changes: fields of ``Settings``, over the defaults.

        Returns:
            Text and images in order; a ``Decision`` comes before the images of its place.

        Raises:
            PromptError: the prompt is empty, or too long for the language model.
            ValueError: a setting is out of range.
        """
        return self.generate_batch([prompt], **changes)[0]

    @torch.no_grad()
    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[int] | None = None,
        without: Sequence[Collection[str]] | None = None,
        **changes: Any,
    ) -> list[list[Segment]]:
        """Answer prompts of different lengths together.

        Args:
            seeds: one for each prompt; without them all have that of the settings.
            without: for each prompt the keys of the index that it may not be shown.
            changes: as in ``generate``.
        """
        settings = self.settings.changed(**changes)
        if settings.choice == "retrieve" and self.index is None:
            raise ValueError("choice is 'retrieve' and there is no index to retrieve from")
        seeds = [settings.seed] * len(prompts) if seeds is None else seeds
        without = [()] * len(prompts) if without is None else without
        if not len(prompts) == len(seeds) == len(without):
            raise ValueError(
                f"there are {len(prompts)} prompts, {len(seeds)} seeds and {len(without)} sets of "
                "keys to leave out; give one of each for every prompt"
            )
        room = settings.room(len(self.model.adapters.img_tokens))
        embeddings, mask = self.reader.prepare(prompts, room, settings.truncate_left)
        answers = decode(self.model, embeddings, mask, settings, seeds)
        shown = images_of_answers(
            self, [answer.states for answer in answers], seeds, without, settings
        )
        return [self._segments(a, images) for a, images in zip(answers, shown, strict=True)]

    @torch.no_grad()
    def img_states(self, prompts: Sequence[Prompt], truncate_left: bool = False) -> Tensor:
        """[IMG] states ``(n, r, llm_dim)`` where each prompt is to be followed by an image."""
        asked = [[*items_of(prompt), ImgTokens()] for prompt in prompts]
        embeddings, mask = self.reader.prepare(asked, 0, truncate_left)
        hidden, _ = self.model.language.hidden(embeddings, mask)
        return hidden[:, -len(self.model.adapters.img_tokens) :].float()

    @torch.no_grad()
    def caption(self, images: Sequence[Item], max_new_tokens: int) -> list[str]:
        """Greedy captions of images, or of their pooled features; no [IMG] token is produced."""
        settings = DecodingSettings(max_new_tokens=max_new_tokens, max_images=0)
        embeddings, mask = self.reader.prepare(list(images), settings.room(1))
        answers = decode(self.model, embeddings, mask, settings, [0] * len(images))
        texts = self.model.language.tokenizer.batch_decode([answer.tokens for answer in answers])
        return [text.strip() for text in texts]

    def decide(self, states: Tensor, model: DecisionModel | None = None) -> Tensor | None:
        """Probabilities ``(n, 2)`` in the order of ``CHOICES``; None without a decision model.

        Args:
            states: ``(n, r, llm_dim)``. model: another one than the engine's.
        """
        model = model or self.decision
        if model is None:
            return None
        return model.probabilities(states.to(model.linear.weight.device))

    @torch.no_grad()
    def retrieve(
        self, states: Tensor, count: int = 1, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Match]]:
        """The nearest images of the index to [IMG] states ``(n, r, llm_dim)``, best first.

        Args:
            without: for each state the keys that it is not to be shown.

        Raises:
            ValueError: there is no index.
        """
        if self.index is None:
            raise ValueError("there is no index to retrieve from; load one or generate")
        vectors = self.adapters.retrieval.embed_text(states.to(self.device))
        return self.index.nearest(vectors, count, without)

    @torch.no_grad()
    def conditioning(self, states: Tensor, mapper: Mapper | None = None) -> Tensor:
        """What the generator is conditioned on: ``(n, num_targets, target_dim)`` of [IMG] states.

        Args:
            states: ``(n, r, llm_dim)``.
            mapper: another one than the engine's, such as a baseline.
        """
        mapper = mapper or self.mapper
        device = next(mapper.parameters()).device
        conditioning: Tensor = mapper(states.to(device), self.adapters.img_embeddings)
        return conditioning

    @torch.no_grad()
    def sample(self, conditioning: Tensor, seeds: Sequence[int], **changes: Any) -> Tensor:
        """Images ``(n, 3, height, width)`` in [0, 1].

        Args:
            conditioning: ``(n, num_targets, target_dim)``, of ``conditioning`` or of the
                generator's own text encoder.
            seeds: one for each image.
            changes: as in ``generate``.
        """
        settings = self.settings.changed(**changes)
        return self.generator.generate(
            conditioning, seeds, settings.guidance_scale, settings.steps, settings.batch_size
        )

    @torch.no_grad()
    def embed_images(
        self, images: Tensor | Sequence[Image.Image], batch_size: int = _TOGETHER
    ) -> Tensor:
        """Unit vectors ``(n, retrieval_dim)`` of PIL images, or of ``(n, 3, h, w)`` in [0, 1]."""
        maps = self.adapters.retrieval
        pooled = self._pooled(images, batch_size)
        return torch.cat([maps.embed_image(part.to(self.device)) for part in pooled])

    @torch.no_grad()
    def encode_images(
        self, images: Tensor | Sequence[Image.Image], batch_size: int = _TOGETHER
    ) -> ImageFeatures:
        """The scorer's features of PIL images, or of ``(n, 3, h, w)`` in [0, 1]; on the CPU."""
        pooled = torch.cat([part.float().cpu() for part in self._pooled(images, batch_size)])
        return ImageFeatures(pooled, self.vision.project(pooled).cpu())

    def _pooled(self, images: Tensor | Sequence[Image.Image], batch_size: int) -> Iterator[Tensor]:
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            pixels = (
                self.vision.prepare_tensor(part)
                if isinstance(part, Tensor)
                else self.vision.prepare([image.convert("RGB") for image in part])
            )
            yield self.vision.pooled(pixels)

    def log_likelihood(
        self, prompts: Sequence[Prompt], answers: Sequence[Prompt], truncate_left: bool = False
    ) -> Likelihood:
        """Log-likelihood of each answer after its prompt; see ``gill.inference.likelihood``."""
        return log_likelihood(self.reader, prompts, answers, truncate_left)

    def _segments(self, answer: Decoded, images: Sequence[Sequence[Segment]]) -> list[Segment]:
        segments: list[Segment] = []
        places = iter(images)
        for ids, image in runs_of_text(answer.tokens, self.model.adapters.img_tokens.first_id):
            if ids:
                segments.append(Text(str(self.model.language.tokenizer.decode(ids))))
            if image:
                segments += next(places)
        return segments
