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


class _Row:
    """A prompt that is being gone on with."""

    def __init__(self, seed: int) -> None:
        self.answer = Decoded()
        self.count = 0  # of what was chosen, end-of-text too
        self.generator = torch.Generator().manual_seed(seed)
        self.waiting: list[int] = []  # ids that follow and that the model has not read
        self.read: list[Tensor] = []  # states of the image that it is reading
        self.done = False

    def chosen(self, token: int, end: int, img: Sequence[int], settings: DecodingSettings) -> None:
        """Take what was chosen; the last token of an answer is not read, unless it is an image."""
        self.count += 1
        if token == end and settings.end_of_text == "stop":
            self.done = True
            return
        if token != end:
            self.answer.tokens.append(token)
        if token == img[0]:
            self.waiting = list(img)
        elif self.count == settings.max_new_tokens:
            self.done = True
        else:
            self.waiting = [token]

    def follow(self, states: Tensor, img: Sequence[int], settings: DecodingSettings) -> None:
        """Take the states ``(width, llm_dim)`` of the first ids that waited."""
        read, self.waiting = self.waiting[: len(states)], self.waiting[len(states) :]
        if read[0] < img[0]:
            return
        self.read.append(states.float())
        if not self.waiting:
            self.answer.states.append(torch.cat(self.read))
            self.read = []
            self.done = self.count == settings.max_new_tokens


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
    answer depends on its own prompt and seed, not on the rows beside it: all rows that are not done
    read equally many tokens at a time, so there is never padding between the tokens of a row, which
    sliding windows and recurrent states would count.

    Args:
        embeddings: ``(rows, length, llm_dim)``, padded on the left.
        mask: ``(rows, length)``.
        seeds: one for each row.
    """
    language, img = model.language, model.adapters.img_tokens
    if len(seeds) > 1 and not language.abilities.left_padding:
        return [
            decode(model, own[None, at], at[None, at].long(), settings, [seed])[0]
            for own, at, seed in zip(embeddings, mask.bool(), seeds, strict=True)
        ]
    ids = range(img.first_id, img.first_id + len(img))
    rows = [_Row(seed) for seed in seeds]
    hidden, cache = language.hidden(embeddings, mask, use_cache=True)
    while True:
        _choose(model, hidden[:, -1], rows, ids, settings)
        live = [number for number, row in enumerate(rows) if not row.done]
        if not live:
            return [row.answer for row in rows]
        width = min(len(rows[number].waiting) for number in live)
        if not language.abilities.blocks_after_cache:
            width = 1
        new = torch.full((len(rows), width), PAD)
        for number in live:
            new[number] = torch.tensor(rows[number].waiting[:width])
        mask = torch.cat([mask, (new != PAD).to(mask)], dim=1)
        nothing = hidden.new_empty(0)
        hidden, cache = language.hidden(
            model.embed(new, nothing, nothing), mask, past=cache, use_cache=True
        )
        for number in live:
            rows[number].follow(hidden[number], ids, settings)


def _choose(
    model: GillModel,
    hidden: Tensor,
    rows: Sequence[_Row],
    img: Sequence[int],
    settings: DecodingSettings,
) -> None:
    """Choose the next token of each row that waits for none."""
    choosing = [not row.done and not row.waiting for row in rows]
    if not any(choosing):
        return
    logits = _logits(model, hidden, rows, settings)
    uniform = torch.stack(
        [
            torch.rand((), generator=row.generator) if chooses else torch.zeros(())
            for row, chooses in zip(rows, choosing, strict=True)
        ]
    )
    chosen = choose(logits, settings.temperature, settings.top_p, uniform).tolist()
    for row, chooses, token in zip(rows, choosing, chosen, strict=True):
        if chooses:
            row.chosen(token, model.language.eos_id, img, settings)


def _logits(
    model: GillModel, hidden: Tensor, rows: Sequence[_Row], settings: DecodingSettings
) -> Tensor:
    """Logits ``(rows, vocab_size + 1)`` with [IMG0] last; what may not be chosen is ``-inf``."""
    logits = model.language.logits(hidden).float()
    show = model.img_logits(hidden)[:, :1] + min(settings.image_bias, _ALWAYS)
    early = [row.count < settings.min_new_tokens for row in rows]
    full = [len(row.answer.states) >= settings.max_images for row in rows]
    never = torch.tensor([early, full], device=show.device)
    logits[never[0], model.language.eos_id] = -math.inf
    show[never.any(0)] = -math.inf
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
