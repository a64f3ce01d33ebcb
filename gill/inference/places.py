"""The images of the places of answers: decided on, retrieved or generated, and ranked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gill.decision import CHOICES
from gill.inference.index import Index, Match
from gill.inference.results import Decision, GeneratedImage, RetrievedImage, Segment
from gill.inference.settings import Choice, Settings
from gill.model import StateAdapters

_SEEDS = 2**63 - 1024  # of a generator, with room for the candidates of a place


class StateServer(Protocol):
    """What this needs of the engine; ``GillEngine`` says what each method gives."""

    adapters: StateAdapters

    @property
    def index(self) -> Index | None:
        """The images that can be retrieved."""

    def decide(self, states: Tensor) -> Tensor | None:
        """Probabilities of the choices."""

    def retrieve(
        self, states: Tensor, count: int = 1, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Match]]:
        """The nearest images of the index."""

    def conditioning(self, states: Tensor) -> Tensor:
        """What the generator is conditioned on."""

    def sample(self, conditioning: Tensor, seeds: Sequence[int], **changes: Any) -> Tensor:
        """Generated images."""

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors in the retrieval space."""


@dataclass(frozen=True)
class _ToSample:
    """A place whose images are generated: the row of its state, its segments, its first seed."""

    row: int
    segments: list[Segment]
    seed: int


def images_of_answers(
    engine: StateServer,
    states_of: Sequence[Sequence[Tensor]],
    seeds: Sequence[int],
    without: Sequence[Collection[str]],
    settings: Settings,
) -> list[list[list[Segment]]]:
    """For each answer and each of its places: the decision, then the images.

    Images are not read back by the language model, so those of all answers are made together.

    Args:
        states_of: for each answer the [IMG] states ``(r, llm_dim)`` of its places.
        seeds, without: for each answer its seed, and the keys that it may not be shown.
    """
    shown: list[list[list[Segment]]] = [[] for _ in states_of]
    places = [answer for answer, states in enumerate(states_of) for _ in states]
    if not places:
        return shown
    states = torch.stack([state for states in states_of for state in states])
    found = _candidates(engine, states, [without[answer] for answer in places], places, settings)
    probabilities = engine.decide(states)
    used: list[set[str]] = [set() for _ in states_of]
    to_sample: list[_ToSample] = []
    for row, answer in enumerate(places):
        fresh = [match for match in found[row] if match.key not in used[answer]]
        known = None if probabilities is None else probabilities[row].tolist()
        decision = choose_source(known, engine.index is not None, bool(fresh), settings.choice)
        segments: list[Segment] = [decision]
        if decision.choice == "retrieve" and engine.index is not None:
            for match in fresh[: settings.num_images]:
                used[answer].add(match.key)
                segments.append(RetrievedImage(*match, engine.index.origin(match.key)))
        else:
            place = len(shown[answer]) * settings.num_images
            first = (seeds[answer] * 100_003 + place) % _SEEDS
            to_sample.append(_ToSample(row, segments, first))
        shown[answer].append(segments)
    _sample_ranked(engine, states, to_sample, settings)
    return shown


def choose_source(
    probabilities: Sequence[float] | None, indexed: bool, found: bool, choice: Choice | None
) -> Decision:
    """Whether an image is retrieved or generated, and why.

    Args:
        probabilities: of the decision model in the order of ``CHOICES``; None without one.
        indexed: whether there is an index. found: whether it has an image not shown yet.
        choice: what was asked for; None leaves it to the decision model.
    """
    named: dict[Choice, float] | None = None
    if probabilities is not None:
        named = dict(zip(CHOICES, probabilities, strict=True))
    if choice == "generate":
        return Decision("generate", named, "asked for")
    if not indexed:
        return Decision("generate", named, "no index")
    if not found:
        return Decision("generate", named, "index used up")
    if choice == "retrieve":
        return Decision("retrieve", named, "asked for")
    if named is None:
        return Decision("generate", None, "no decision model")
    return Decision(max(named, key=named.__getitem__), named, "decision model")


def _candidates(
    engine: StateServer,
    states: Tensor,
    without: Sequence[Collection[str]],
    places: Sequence[int],
    settings: Settings,
) -> list[list[Match]]:
    if engine.index is None or settings.choice == "generate":
        return [[] for _ in places]
    # Enough of them that every place of an answer can show images no other place has shown.
    most = max(places.count(answer) for answer in set(places))
    return engine.retrieve(states, settings.num_images * most, without)


def _sample_ranked(
    engine: StateServer, states: Tensor, to_sample: Sequence[_ToSample], settings: Settings
) -> None:
    """Append the candidates of each place to its segments, the best first."""
    if not to_sample:
        return
    count = settings.num_images
    rows = states[[place.row for place in to_sample]]
    seeds = [place.seed + i for place in to_sample for i in range(count)]
    conditioning = engine.conditioning(rows).repeat_interleave(count, 0)
    images = engine.sample(conditioning, seeds, **vars(settings))
    maps, img = engine.adapters.retrieval, engine.adapters.img_embeddings
    text = maps.embed_text(rows.to(img.device))
    vectors = engine.embed_images(images).view(len(rows), count, -1)
    scores = torch.einsum("nd,nkd->nk", text, vectors).cpu()
    for number, place in enumerate(to_sample):
        for i in scores[number].argsort(descending=True, stable=True).tolist():
            image = images[number * count + i]
            place.segments.append(GeneratedImage(image, float(scores[number, i]), place.seed + i))
