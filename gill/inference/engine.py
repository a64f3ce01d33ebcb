"""Interleaved inference: images and text in; text, retrieved and generated images out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from gill.backbones.image_generator import ImageGenerator
from gill.backbones.vision import VisionEncoder
from gill.decision import CHOICES, Choice, DecisionModel
from gill.inference.decoding import Decoded, Decoding, decode
from gill.inference.index import Index, Match
from gill.inference.prompts import ImgTokens, Prompt, PromptError, PromptReader, Unit, items_of
from gill.mapper import Mapper
from gill.model import GillModel
from gill.packing import VISUAL, prompt_layout

Reason = Literal["decision model", "asked for", "no index", "no decision model", "index used up"]
_SEEDS = 2**63 - 1024  # of a generator, with room for the candidates of a place
_CHUNK = 256  # positions whose vocabulary logits are held at a time


@dataclass(frozen=True)
class Text:
    """Decoded text of an answer, as the language model spaced it."""

    text: str


@dataclass(frozen=True)
class Decision:
    """Whether the image that follows is retrieved or generated.

    Attributes:
        probabilities: of each choice by the decision model; None without one.
        reason: what the choice rests on. Without an index images are always generated.
    """

    choice: Choice
    probabilities: dict[Choice, float] | None
    reason: Reason


@dataclass(frozen=True)
class RetrievedImage:
    """An image of the index.

    Attributes:
        score: cosine of W_t2i([IMG0]) and W_i2t(image).
        origin: where the image came from, as its source says.
    """

    key: str
    score: float
    origin: str


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """A new image.

    Attributes:
        image: ``(3, height, width)`` in [0, 1].
        score: the same cosine as of a retrieved image.
        seed: of the sampler.
    """

    image: Tensor
    score: float
    seed: int


Segment = Text | Decision | RetrievedImage | GeneratedImage


@dataclass(frozen=True)
class Settings(Decoding):
    """How an answer is made; see ``Decoding`` for the tokens.

    Attributes:
        seed: the same prompt, settings and seed give the same answer, alone or in a batch.
        num_images: images at each place: the nearest ones, or candidates of the generator
            ranked by retrieval score.
        guidance_scale, steps: of the generator's sampler.
        batch_size: images sampled together; it does not bear on the result.
        choice: retrieve or generate every image; None lets the decision model choose.
        truncate_left: cut a prompt that is too long from the left instead of refusing it.
    """

    seed: int = 0
    num_images: int = 1
    guidance_scale: float = 7.5
    steps: int = 50
    batch_size: int = 64
    choice: Choice | None = None
    truncate_left: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_images", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.choice not in (None, *get_args(Choice)):
            raise ValueError(f"choice is {self.choice!r}; use 'generate', 'retrieve' or None")


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods ``(n,)`` of answers, summed over tokens, and the tokens ``(n,)`` counted."""

    total: Tensor
    tokens: Tensor

    @property
    def mean(self) -> Tensor:
        """Per token ``(n,)``; its negative exponential is the perplexity."""
        return self.total / self.tokens


class Gill:
    """The whole trained model: frozen parts, trained parts, and images to retrieve.

    Args:
        model: the language model with the adapters.
        vision, generator: the other frozen parts. mapper: from [IMG] states to the generator.
        decision: None where every image is to be generated.
        index: the images that can be retrieved; without it images are always generated.
        settings: defaults of ``generate``.
    """

    def __init__(
        self,
        model: GillModel,
        vision: VisionEncoder,
        generator: ImageGenerator,
        mapper: Mapper,
        decision: DecisionModel | None = None,
        index: Index | None = None,
        settings: Settings | None = None,
    ) -> None:
        spec, width = model.adapters.spec, vision.pooled_dim
        if spec.vision_dim != width:
            raise ValueError(
                f"the adapters take vision features of width {spec.vision_dim}; {vision.name} "
                f"gives {width}"
            )
        made, taken = (mapper.num_targets, mapper.target_dim), (generator.num_tokens, generator.dim)
        if made != taken:
            raise ValueError(f"the mapper makes {made} values; {generator.name} takes {taken}")
        self.model, self.vision, self.generator, self.mapper = model, vision, generator, mapper
        self.decision = decision
        self.settings = settings or Settings()
        self.reader = PromptReader(model, vision)
        self.index = index

    @property
    def index(self) -> Index | None:
        """The images that can be retrieved; may be set to others of the same space."""
        return self._index

    @index.setter
    def index(self, index: Index | None) -> None:
        width = self.model.adapters.spec.retrieval_dim
        if index is not None and index.vectors.shape[1] != width:
            raise ValueError(
                f"the index has vectors of width {index.vectors.shape[1]}; the adapters make "
                f"{width}: make the index anew with these adapters"
            )
        self._index = index

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
        settings = replace(self.settings, **changes)
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
        shown = self._show(answers, seeds, without, settings)
        return [self._segments(a, images) for a, images in zip(answers, shown, strict=True)]

    @torch.no_grad()
    def img_states(self, prompts: Sequence[Prompt], truncate_left: bool = False) -> Tensor:
        """[IMG] states ``(n, r, llm_dim)`` where each prompt is to be followed by an image."""
        asked = [[*items_of(prompt), ImgTokens()] for prompt in prompts]
        embeddings, mask = self.reader.prepare(asked, 0, truncate_left)
        hidden, _ = self.model.language.hidden(embeddings, mask)
        return hidden[:, -len(self.model.adapters.img_tokens) :].float()

    def decide(self, states: Tensor) -> Tensor | None:
        """Probabilities ``(n, 2)`` in the order of ``CHOICES``; None without a decision model."""
        if self.decision is None:
            return None
        return self.decision.probabilities(states.to(self.decision.linear.weight.device))

    @torch.no_grad()
    def retrieve(
        self, states: Tensor, count: int = 1, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Match]]:
        """The nearest images of the index to [IMG] states ``(n, r, llm_dim)``.

        Raises:
            ValueError: there is no index.
        """
        if self.index is None:
            raise ValueError("there is no index to retrieve from; load one or generate")
        vectors = self.model.adapters.retrieval.embed_text(states.to(self.model.language.device))
        return self.index.nearest(vectors, count, without)

    @torch.no_grad()
    def sample(self, states: Tensor, seeds: Sequence[int], **changes: Any) -> Tensor:
        """Images ``(n, 3, height, width)`` in [0, 1] of [IMG] states ``(n, r, llm_dim)``.

        Args:
            seeds: one for each image.
            changes: as in ``generate``.
        """
        settings, img = replace(self.settings, **changes), self.model.adapters.img_tokens.weight
        conditioning = self.mapper(states.to(img.device) + img)
        return self.generator.generate(
            conditioning, seeds, settings.guidance_scale, settings.steps, settings.batch_size
        )

    @torch.no_grad()
    def embed_images(self, images: Tensor | Sequence[Image.Image], batch_size: int = 64) -> Tensor:
        """Unit vectors ``(n, retrieval_dim)`` of PIL images, or of ``(n, 3, h, w)`` in [0, 1]."""
        maps = self.model.adapters.retrieval
        device = self.model.language.device
        parts = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            pixels = (
                self.vision.prepare_tensor(part)
                if isinstance(part, Tensor)
                else self.vision.prepare([image.convert("RGB") for image in part])
            )
            parts.append(maps.embed_image(self.vision.pooled(pixels).to(device)))
        return torch.cat(parts)

    @torch.no_grad()
    def log_likelihood(
        self, prompts: Sequence[Prompt], answers: Sequence[Prompt], truncate_left: bool = False
    ) -> Likelihood:
        """Log-likelihood of each answer after its prompt, over the vocabulary and [IMG] tokens.

        Text tokens and [IMG0] (of an ``ImgTokens`` item) count. Images are read and not scored,
        and the forced [IMG] tokens after [IMG0] are certain.

        Args:
            prompts: may be empty lists; without BOS the very first token is then not scored.
            answers: one for each prompt.
            truncate_left: cut prompts that are too long, never answers.

        Raises:
            PromptError: a prompt with its answer is too long, or an answer has nothing to score.
        """
        heads, tails = self.reader.read(prompts), self.reader.read(answers)
        rows, labels = [], []
        for number, (head, tail) in enumerate(zip(heads, tails, strict=True)):
            row = self.reader.fit([*head, *tail], number, 0, truncate_left, keep=len(tail))
            rows.append(row)
            labels.append(_labels(row, set(tail)))
        hidden, _ = self.model.language.hidden(*self.reader.embed(rows))
        wanted = prompt_layout(labels).ids[:, 1:].to(hidden.device)
        at = wanted >= 0
        tokens = at.sum(-1)
        if not bool(tokens.all()):
            raise PromptError(f"answer {int(tokens.argmin())} has no token to score")
        scores = [
            self._log_probabilities(before).gather(-1, token[:, None])[:, 0]
            for before, token in zip(
                hidden[:, :-1][at].split(_CHUNK), wanted[at].split(_CHUNK), strict=True
            )
        ]
        total = torch.zeros(len(rows), device=hidden.device)
        total.index_add_(0, at.nonzero()[:, 0], torch.cat(scores))
        return Likelihood(total.cpu(), tokens.cpu())

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        vocabulary = self.model.language.logits(hidden).float()
        img = self.model.img_logits(hidden)
        return torch.cat([vocabulary, img], dim=-1).log_softmax(-1)

    def _show(
        self,
        answers: Sequence[Decoded],
        seeds: Sequence[int],
        without: Sequence[Collection[str]],
        settings: Settings,
    ) -> list[list[list[Segment]]]:
        """For each answer and each of its places: the decision and the images.

        Images are not read back by the language model, so those of all answers are made together.
        """
        shown: list[list[list[Segment]]] = [[] for _ in answers]
        places = [row for row, answer in enumerate(answers) for _ in answer.states]
        if not places:
            return shown
        states = torch.stack([state for answer in answers for state in answer.states])
        found = self._candidates(states, [without[row] for row in places], places, settings)
        probabilities = self.decide(states)
        used: list[set[str]] = [set() for _ in answers]
        to_sample: list[tuple[int, list[Segment], int]] = []
        for number, row in enumerate(places):
            fresh = [match for match in found[number] if match.key not in used[row]]
            known = None if probabilities is None else probabilities[number].tolist()
            decision = self._decision(known, bool(fresh), settings.choice)
            segments: list[Segment] = [decision]
            if decision.choice == "retrieve" and self.index is not None:
                for match in fresh[: settings.num_images]:
                    used[row].add(match.key)
                    segments.append(RetrievedImage(*match, self.index.origin(match.key)))
            else:
                place = len(shown[row]) * settings.num_images
                first = (seeds[row] * 100_003 + place) % _SEEDS
                to_sample.append((number, segments, first))
            shown[row].append(segments)
        self._sample_ranked(states, to_sample, settings)
        return shown

    def _candidates(
        self,
        states: Tensor,
        without: Sequence[Collection[str]],
        places: Sequence[int],
        settings: Settings,
    ) -> list[list[Match]]:
        if self.index is None or settings.choice == "generate":
            return [[] for _ in places]
        # Enough of them that every place of an answer can show images no other place has shown.
        most = max(places.count(row) for row in set(places))
        return self.retrieve(states, settings.num_images * most, without)

    def _decision(
        self, probabilities: list[float] | None, found: bool, choice: Choice | None
    ) -> Decision:
        named: dict[Choice, float] | None = None
        if probabilities is not None:
            named = dict(zip(CHOICES, probabilities, strict=True))
        if choice == "generate":
            return Decision("generate", named, "asked for")
        if self.index is None:
            return Decision("generate", named, "no index")
        if not found:
            return Decision("generate", named, "index used up")
        if choice == "retrieve":
            return Decision("retrieve", named, "asked for")
        if named is None:
            return Decision("generate", None, "no decision model")
        return Decision(max(named, key=named.__getitem__), named, "decision model")

    def _sample_ranked(
        self,
        states: Tensor,
        to_sample: Sequence[tuple[int, list[Segment], int]],
        settings: Settings,
    ) -> None:
        """Append the candidates of each place to its segments, the best first."""
        if not to_sample:
            return
        count = settings.num_images
        rows = states[[number for number, _, _ in to_sample]]
        seeds = [first + i for _, _, first in to_sample for i in range(count)]
        images = self.sample(rows.repeat_interleave(count, 0), seeds, **vars(settings))
        text = self.model.adapters.retrieval.embed_text(rows)
        seen = self.embed_images(images).view(len(rows), count, -1)
        scores = torch.einsum("nd,nkd->nk", text, seen).cpu()
        for place, (_, segments, first) in enumerate(to_sample):
            for i in scores[place].argsort(descending=True, stable=True).tolist():
                image = images[place * count + i]
                segments.append(GeneratedImage(image, float(scores[place, i]), first + i))

    def _segments(self, answer: Decoded, images: Sequence[Sequence[Segment]]) -> list[Segment]:
        out: list[Segment] = []
        for text, shown in _pieces(answer.tokens, self.model.adapters.img_tokens.first_id, images):
            if text:
                out.append(Text(str(self.model.language.tokenizer.decode(text))))
            out += shown
        return out


def _pieces(
    tokens: Sequence[int], first_id: int, images: Sequence[Sequence[Segment]]
) -> Iterator[tuple[list[int], Sequence[Segment]]]:
    """Runs of text, each with the images that follow it."""
    text: list[int] = []
    places = iter(images)
    for token in tokens:
        if token == first_id:
            yield text, next(places)
            text = []
        else:
            text.append(token)
    yield text, ()


def _labels(row: Sequence[Unit], scored: Collection[Unit]) -> list[int]:
    """The ids that are scored, at their own places; others are negative."""
    labels: list[int] = []
    for unit in row:
        wanted = unit in scored and unit.feature is None
        labels += [unit.ids[0] if wanted else VISUAL, *[VISUAL] * (len(unit.ids) - 1)]
    return labels


@torch.no_grad()
def caption_images(model: GillModel, features: Tensor, max_new_tokens: int) -> list[str]:
    """Greedy captions of images, given their pooled features ``(batch, vision_dim)``.

    [IMG] tokens are not produced: a caption is text.
    """
    config = Decoding(max_new_tokens=max_new_tokens, max_images=0)
    embeddings, mask = PromptReader(model).prepare(list(features), config.room(1))
    answers = decode(model, embeddings, mask, config, [0] * len(features))
    texts = model.language.tokenizer.batch_decode([answer.tokens for answer in answers])
    return [text.strip() for text in texts]
