"""Decoding with the frozen language model: a key-value cache, forced [IMG] tokens, batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gill.model import GillModel
from gill.packing import PAD

_ALWAYS = 1e9  # stands for an infinite bias, which a softmax cannot take


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: chosen tokens at most; an image counts once, its forced tokens do not.
        min_new_tokens: before so many tokens neither end-of-text nor [IMG0] is chosen.
        temperature: 0 is greedy.
        top_p: nucleus sampling, from the smallest set of tokens with this probability.
        image_bias: added to the logit of [IMG0]; ``inf`` shows images at once, ``-inf`` never.
        max_images: [IMG0] is not chosen again after so many.
    """

    max_new_tokens: int = 32
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    image_bias: float = 0.0
    max_images: int = 4

    def __post_init__(self) -> None:
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "min_new_tokens": (
                0 <= self.min_new_tokens <= self.max_new_tokens,
                "between 0 and max_new_tokens",
            ),
            "temperature": (0 <= self.temperature < math.inf, "0 or more and finite"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "image_bias": (not math.isnan(self.image_bias), "a number"),
            "max_images": (self.max_images >= 0, "0 or more"),
        }
        for name, (fine, wanted) in checks.items():
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {wanted}")

    def room(self, num_img_tokens: int) -> int:
        """Positions that an answer may take."""
        shown = min(self.max_images, self.max_new_tokens)
        return self.max_new_tokens + shown * (num_img_tokens - 1)


@dataclass
class Decoded:
    """What was chosen for one prompt.

    Attributes:
        tokens: ids in order, end-of-text left out; an image is the id of [IMG0], once.
        states: [IMG] states ``(r, llm_dim)``, one for each image.
    """

    tokens: list[int] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)


def choose(logits: Tensor, temperature: float, top_p: float, uniform: Tensor) -> Tensor:
    """Choose a token in each row: greedy at temperature 0, else from the nucleus.

    Args:
        logits: ``(rows, n)``.
        uniform: ``(rows,)`` in [0, 1), the random numbers; they decide everything.

    Returns:
        ``(rows,)`` ids.
    """
    if temperature == 0:
        return logits.argmax(-1)
    values, order = (logits.double() / temperature).softmax(-1).sort(-1, descending=True)
    before = values.cumsum(-1) - values
    mass = values.masked_fill(before >= top_p, 0.0).cumsum(-1)
    at = torch.searchsorted(mass, uniform.to(mass)[:, None] * mass[:, -1:], right=True)
    return order.gather(-1, at.clamp(max=logits.shape[-1] - 1))[:, 0]


@torch.no_grad()
def decode(
    model: GillModel, embeddings: Tensor, mask: Tensor, config: Decoding, seeds: Sequence[int]
) -> list[Decoded]:
    """Go on after prompts of different lengths.

    When [IMG0] is chosen, the other r - 1 [IMG] tokens follow it without being chosen. A row's
    answer depends on its own prompt and seed, not on the rows beside it.

    Args:
        embeddings: ``(rows, length, llm_dim)``, padded on the left.
        mask: ``(rows, length)``.
        seeds: one for each row.
    """
    language, img = model.language, model.adapters.img_tokens
    first, width = img.first_id, len(img)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    answers = [Decoded() for _ in seeds]
    finished = [False] * len(answers)
    hidden, cache = language.hidden(embeddings, mask, use_cache=True)
    for step in range(config.max_new_tokens):
        logits = _logits(model, hidden[:, -1], answers, step, config)
        uniform = torch.stack([torch.rand((), generator=g) for g in generators])
        chosen = choose(logits, config.temperature, config.top_p, uniform).tolist()
        for row, token in enumerate(chosen):
            finished[row] = finished[row] or token == language.eos_id
            if not finished[row]:
                answers[row].tokens.append(token)
        live = [not done for done in finished]
        shown = [row for row, token in enumerate(chosen) if live[row] and token == first]
        if not shown and (all(finished) or step + 1 == config.max_new_tokens):
            break
        # Each row's new tokens end at the last position, so that it holds the next state of all.
        new = torch.full((len(answers), width if shown else 1), PAD)
        new[:, -1] = torch.tensor(chosen)
        new[shown] = first + torch.arange(new.shape[1])
        new[finished] = PAD
        mask = torch.cat([mask, (new != PAD).to(mask)], dim=1)
        nothing = hidden.new_empty(0)
        hidden, cache = language.hidden(
            model.embed(new, nothing, nothing), mask, past=cache, use_cache=True
        )
        for row in shown:
            answers[row].states.append(hidden[row, -width:].float())
    return answers


def _logits(
    model: GillModel, hidden: Tensor, answers: Sequence[Decoded], step: int, config: Decoding
) -> Tensor:
    """Logits ``(rows, vocab_size + 1)`` with [IMG0] last; what may not be chosen is ``-inf``."""
    logits = model.language.logits(hidden).float()
    show = model.img_logits(hidden)[:, :1] + min(config.image_bias, _ALWAYS)
    full = [len(answer.states) >= config.max_images for answer in answers]
    if step < config.min_new_tokens:
        logits[:, model.language.eos_id] = -math.inf
        full = [True] * len(answers)
    show[torch.tensor(full, device=show.device)] = -math.inf
    return torch.cat([logits, show], dim=-1)
