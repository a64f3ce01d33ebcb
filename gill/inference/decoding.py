"""Decoding with the frozen language model: a key-value cache, forced [IMG] tokens, batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gill.inference.settings import DecodingSettings
from gill.model import GillModel
from gill.packing import PAD

_ALWAYS = 1e9  # stands for an infinite bias, which a softmax cannot take


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
    model: GillModel,
    embeddings: Tensor,
    mask: Tensor,
    settings: DecodingSettings,
    seeds: Sequence[int],
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
    for step in range(settings.max_new_tokens):
        logits = _logits(model, hidden[:, -1], answers, step, settings)
        uniform = torch.stack([torch.rand((), generator=g) for g in generators])
        chosen = choose(logits, settings.temperature, settings.top_p, uniform).tolist()
        for row, token in enumerate(chosen):
            finished[row] = finished[row] or token == language.eos_id
            if not finished[row]:
                answers[row].tokens.append(token)
        live = [not done for done in finished]
        shown = [row for row, token in enumerate(chosen) if live[row] and token == first]
        if not shown and (all(finished) or step + 1 == settings.max_new_tokens):
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
    model: GillModel,
    hidden: Tensor,
    answers: Sequence[Decoded],
    step: int,
    settings: DecodingSettings,
) -> Tensor:
    """Logits ``(rows, vocab_size + 1)`` with [IMG0] last; what may not be chosen is ``-inf``."""
    logits = model.language.logits(hidden).float()
    show = model.img_logits(hidden)[:, :1] + min(settings.image_bias, _ALWAYS)
    full = [len(answer.states) >= settings.max_images for answer in answers]
    if step < settings.min_new_tokens:
        logits[:, model.language.eos_id] = -math.inf
        full = [True] * len(answers)
    show[torch.tensor(full, device=show.device)] = -math.inf
    return torch.cat([logits, show], dim=-1)


def runs_of_text(tokens: Sequence[int], img0: int) -> Iterator[tuple[list[int], bool]]:
    """Runs of text, which may be empty, each with whether an image follows it.

    Args:
        img0: the id of [IMG0], which stands for an image.
    """
    text: list[int] = []
    for token in tokens:
        if token == img0:
            yield text, True
            text = []
        else:
            text.append(token)
    yield text, False
