"""Stories and dialogues made from captioned images: the context study without a network.

The captions of the embedded pack read ``title, keyword, ..., style and theme``, such as
``cocktail glass, alcohol, bar, 3d emoji of drink``.

- A *story* is five images that share a style and, where there are enough, a theme. Its sentences
  are titles alone, so the style of the last image is known only from the images before it.
- A *dialogue* tells the style, the theme, the keywords and the title, one more in each round.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.benchmarks.contexts import Case, Cases, ContextImage, story_contexts
from data.benchmarks.visdial import dialogue_contexts

LENGTH = 5
QUESTIONS = (
    "what kind of picture is it",
    "what is it filed under",
    "what goes with it",
    "what does it show",
)


@dataclass(frozen=True)
class Described:
    """An image and the attributes in its caption."""

    image: ContextImage
    title: str
    keywords: tuple[str, ...]
    style: str
    theme: str


def described(key: str, caption: str, image: bytes) -> Described | str:
    """Take a caption apart, or say why it cannot be used."""
    parts = caption.split(", ")
    if len(parts) < 2:
        return "no style"
    title, *keywords, ending = parts
    style, _, theme = ending.partition(" of ")
    return Described(ContextImage(key, data=image), title, tuple(keywords), style, theme)


def stories(images: Sequence[Described], count: int, seed: int = 0) -> Cases:
    """Draw stories: each target once, with four other images of its theme or else its style."""
    by_style: defaultdict[str, list[int]] = defaultdict(list)
    by_theme: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, item in enumerate(images):
        by_style[item.style].append(row)
        by_theme[item.style, item.theme].append(row)
    skipped: Counter[str] = Counter()
    cases: list[Case] = []
    for target in np.random.default_rng([seed, 0]).permutation(len(images)).tolist():
        if len(cases) >= count:
            break
        item = images[target]
        group = by_theme[item.style, item.theme]
        group = group if len(group) >= LENGTH else by_style[item.style]
        others = [row for row in group if row != target]
        if len(others) < LENGTH - 1:
            skipped["fewer than five images of its style"] += 1
            continue
        sampled = np.random.default_rng([seed, 1, target]).choice(others, LENGTH - 1, replace=False)
        members = [images[row] for row in [*sampled.tolist(), target]]
        contexts = story_contexts([m.title for m in members], [m.image for m in members])
        cases.append(Case(item.image.name, item.image, contexts))
    return Cases(cases, dict(skipped))


def dialogues(images: Sequence[Described], count: int, seed: int = 0) -> Cases:
    """Draw dialogues of four rounds; images without a theme or a keyword are counted."""
    skipped: Counter[str] = Counter()
    cases: list[Case] = []
    for target in np.random.default_rng([seed, 2]).permutation(len(images)).tolist():
        if len(cases) >= count:
            break
        item = images[target]
        if not item.theme or not item.keywords:
            skipped["no theme" if not item.theme else "no keyword"] += 1
            continue
        told = (item.style, item.theme, ", ".join(item.keywords), item.title)
        contexts = dialogue_contexts(list(zip(QUESTIONS, told, strict=True)), (1, 2, 4))
        cases.append(Case(item.image.name, item.image, contexts))
    return Cases(cases, dict(skipped))
