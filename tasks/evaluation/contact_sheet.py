"""Prompts with the image that GILL makes, the one that it finds, and which of them it chooses."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from gill.decision import CHOICES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
ACROSS = 3
_CHOSEN, _OTHER = "#1a7f37", "#d0d7de"
_WIDTH, _LINES = 46, 3  # of a prompt, in characters and lines


@dataclass(frozen=True)
class Card:
    """A prompt, its two images, and the probability that the decision model gives its choice."""

    prompt: str
    images: dict[str, Image.Image]
    choice: str
    probability: float


def cards(
    prompts: Sequence[str],
    generated: Sequence[Image.Image],
    retrieved: Sequence[Image.Image],
    probabilities: Sequence[Sequence[float]],
) -> list[Card]:
    """Cards of the first prompts.

    Args:
        probabilities: of each prompt, in the order of ``CHOICES``.
    """
    found = []
    rows = zip(prompts, generated, retrieved, probabilities, strict=False)
    for prompt, made, looked_up, chances in rows:
        best = max(range(len(CHOICES)), key=lambda i: chances[i])
        images = {"generated": made, "retrieved": looked_up}
        chosen = {"generate": "generated", "retrieve": "retrieved"}[CHOICES[best]]
        found.append(Card(prompt, images, chosen, float(chances[best])))
    return found[:SHOWN]


def contact_sheet(shown: Sequence[Card]) -> Figure:
    """A grid of cards; the image that is chosen has a green frame and its probability below."""
    from matplotlib.figure import Figure

    down = -(-len(shown) // ACROSS)
    figure = Figure(figsize=(4.2 * ACROSS, 2.75 * down), layout="constrained", facecolor="white")
    places = figure.subfigures(down, ACROSS, squeeze=False).flat
    for card, place in zip(shown, places, strict=False):
        place.suptitle(_wrapped(card.prompt), fontsize=9, family="DejaVu Sans")
        for axes, (name, image) in zip(place.subplots(1, 2), card.images.items(), strict=True):
            _draw(axes, image, name, card)
    return figure


def _draw(axes: Any, image: Image.Image, name: str, card: Card) -> None:
    chosen = name == card.choice
    axes.imshow(image.convert("RGB"), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"{name} ({card.probability:.2f})" if chosen else name, fontsize=8)
    for spine in axes.spines.values():
        spine.set(color=_CHOSEN if chosen else _OTHER, linewidth=3 if chosen else 1)


def _wrapped(prompt: str) -> str:
    plain = " ".join(prompt.replace("$", r"\$").split())
    return "\n".join(textwrap.wrap(plain, _WIDTH, max_lines=_LINES, placeholder=" …"))
