"""Log-likelihood of answers under the language model and the [IMG] tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from gill.inference.prompts import Prompt, PromptError, PromptReader, Unit
from gill.inference.results import Likelihood
from gill.model import GillModel
from gill.packing import VISUAL, prompt_layout

_CHUNK = 256  # positions whose vocabulary logits are held at a time


@torch.no_grad()
def log_likelihood(
    reader: PromptReader,
    prompts: Sequence[Prompt],
    answers: Sequence[Prompt],
    truncate_left: bool = False,
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
    heads, tails = reader.read(prompts), reader.read(answers)
    rows, labels = [], []
    for number, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        row = reader.fit([*head, *tail], number, 0, truncate_left, keep=len(tail))
        rows.append(row)
        labels.append(_labels(row, set(tail)))
    hidden, _ = reader.model.language.hidden(*reader.embed(rows))
    wanted = prompt_layout(labels).ids[:, 1:].to(hidden.device)
    at = wanted >= 0
    tokens = at.sum(-1)
    if not bool(tokens.all()):
        raise PromptError(f"answer {int(tokens.argmin())} has no token to score")
    scores = [
        _log_probabilities(reader.model, before).gather(-1, token[:, None])[:, 0]
        for before, token in zip(
            hidden[:, :-1][at].split(_CHUNK), wanted[at].split(_CHUNK), strict=True
        )
    ]
    total = torch.zeros(len(rows), device=hidden.device)
    total.index_add_(0, at.nonzero()[:, 0], torch.cat(scores))
    return Likelihood(total.cpu(), tokens.cpu())


def _log_probabilities(model: GillModel, hidden: Tensor) -> Tensor:
    vocabulary = model.language.logits(hidden).float()
    img = model.img_logits(hidden)
    return torch.cat([vocabulary, img], dim=-1).log_softmax(-1)


def _labels(row: Sequence[Unit], scored: Collection[Unit]) -> list[int]:
    """The ids that are scored, at their own places; others are negative."""
    labels: list[int] = []
    for unit in row:
        wanted = unit in scored and unit.feature is None
        labels += [unit.ids[0] if wanted else VISUAL, *[VISUAL] * (len(unit.ids) - 1)]
    return labels
