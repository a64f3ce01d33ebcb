"""Token layouts of training and of prompts, as index tensors: no model, no text.

Ids below ``vocab_size`` are the tokenizer's, ``vocab_size + i`` is [IMGi], and ``VISUAL`` and
``PAD`` mark places without an id. With two-example packing, examples 2j and 2j+1 share sequence j:
the second sees the first before it and loses its BOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

VISUAL, PAD = -1, -2


@dataclass(frozen=True)
class CaptionLayout:
    """The captioning pass: visual tokens, then the caption, then end-of-text.

    Attributes:
        ids, mask: ``(sequences, length)``, padded on the right.
        visual_at: ``(examples * k,)`` flat positions of the visual tokens, in example order.
        label_at: ``(labels,)`` flat positions whose next token is predicted.
        labels: ``(labels,)`` those tokens.
    """

    ids: Tensor
    mask: Tensor
    visual_at: Tensor
    label_at: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ImgLayout:
    """The [IMG] pass, cut where the first trainable token stands.

    Everything in ``prefix`` comes before it, so the prefix needs no gradient.

    Attributes:
        prefix, prefix_mask: ``(sequences, p)``, padded on the left.
        ids, mask: ``(sequences, q)``, padded on the right: [IMG] tokens, and with packing the
            second caption and its [IMG] tokens.
        state_at: ``(examples, r)`` flat positions in ``ids`` of each example's [IMG] tokens.
        before_at: ``(examples,)`` flat positions, in ``cat([prefix, ids], 1)``, of the token from
            which [IMG0] is predicted.
    """

    prefix: Tensor
    prefix_mask: Tensor
    ids: Tensor
    mask: Tensor
    state_at: Tensor
    before_at: Tensor


@dataclass(frozen=True)
class PromptLayout:
    """Interleaved prompts, so that every one ends at the last position.

    Attributes:
        ids, mask: ``(sequences, length)``, padded on the left.
        visual_at: ``(images * k,)`` flat positions of the visual tokens, row by row.
    """

    ids: Tensor
    mask: Tensor
    visual_at: Tensor


def _pairs(count: int, packed: bool) -> list[list[int]]:
    width = 2 if packed else 1
    return [list(range(i, min(i + width, count))) for i in range(0, count, width)]


def _without_bos(ids: Sequence[int], bos_id: int | None, second: bool) -> list[int]:
    return list(ids[1:]) if second and bos_id is not None and ids[:1] == [bos_id] else list(ids)


def caption_layout(
    captions: Sequence[Sequence[int]],
    num_visual_tokens: int,
    eos_id: int,
    bos_id: int | None,
    packed: bool,
) -> CaptionLayout:
    """Lay out the captioning pass.

    Args:
        captions: token ids of each caption, BOS first where the model has one.
        bos_id: the token that a second caption loses and that is never a label; None if unused.
        packed: two examples in a sequence.
    """
    rows: list[list[int]] = []
    labelled: list[tuple[int, int, int]] = []  # row, position, next token
    visual: list[tuple[int, int]] = []
    for row, members in enumerate(_pairs(len(captions), packed)):
        ids: list[int] = []
        for order, member in enumerate(members):
            visual += [(row, len(ids) + i) for i in range(num_visual_tokens)]
            ids += [VISUAL] * num_visual_tokens
            text = [*_without_bos(captions[member], bos_id, order > 0), eos_id]
            for position, token in enumerate(text):
                if not (position == 0 and token == bos_id):
                    labelled.append((row, len(ids) + position - 1, token))
            ids += text
        rows.append(ids)
    ids_tensor, mask = _pad(rows, left=False)
    length = ids_tensor.shape[1]
    return CaptionLayout(
        ids_tensor,
        mask,
        torch.tensor([row * length + at for row, at in visual]),
        torch.tensor([row * length + at for row, at, _ in labelled]),
        torch.tensor([token for _, _, token in labelled]),
    )


def img_layout(
    captions: Sequence[Sequence[int]],
    num_img_tokens: int,
    vocab_size: int,
    bos_id: int | None,
    packed: bool,
) -> ImgLayout:
    """Lay out the pass that serves l_p, l_r and l_g: caption, then the r [IMG] tokens.

    Raises:
        ValueError: a caption without tokens (nothing could predict [IMG0]).
    """
    img = list(range(vocab_size, vocab_size + num_img_tokens))
    prefixes: list[list[int]] = []
    rows: list[list[int]] = []
    states: list[tuple[int, int]] = []  # row, position of [IMG0] in the second part
    for row, members in enumerate(_pairs(len(captions), packed)):
        ids: list[int] = []
        for order, member in enumerate(members):
            text = _without_bos(captions[member], bos_id, order > 0)
            if not text:
                raise ValueError(f"caption {member} of the batch has no tokens")
            if order == 0:
                prefixes.append(text)
            else:
                ids += text
            states.append((row, len(ids)))
            ids += img
        rows.append(ids)
    prefix, prefix_mask = _pad(prefixes, left=True)
    ids_tensor, mask = _pad(rows, left=False)
    length, ahead = ids_tensor.shape[1], prefix.shape[1]
    first = torch.tensor([row * length + at for row, at in states])
    before = [row * (ahead + length) + ahead + at - 1 for row, at in states]
    return ImgLayout(
        prefix,
        prefix_mask,
        ids_tensor,
        mask,
        first[:, None] + torch.arange(num_img_tokens),
        torch.tensor(before),
    )


def caption_and_img_labels(layout: ImgLayout, first_img_id: int) -> tuple[Tensor, Tensor]:
    """Where the released code's l_p has labels: at the caption's tokens and at [IMG0].

    They end before the first [IMG1] of a sequence, so that of a packed pair only the first caption
    has labels.

    Returns:
        Flat positions ``(labels,)``, in ``cat([prefix, ids], 1)``, from which they are predicted,
        and the labels ``(labels,)``.
    """
    ids = torch.cat([layout.prefix, layout.ids], dim=1)
    mask = torch.cat([layout.prefix_mask, layout.mask], dim=1).bool()
    stopped = (ids == first_img_id + 1).cumsum(1) > 0
    labelled = mask[:, 1:] & mask[:, :-1] & ~stopped[:, 1:]
    rows, at = labelled.nonzero(as_tuple=True)
    return rows * ids.shape[1] + at, ids[:, 1:][labelled]


def count_caption_and_img_labels(
    captions: Sequence[Sequence[int]], *, single: bool, packed: bool, unlabelled: int
) -> int:
    """How many labels ``caption_and_img_labels`` finds.

    Args:
        single: whether there is one [IMG] token alone. unlabelled: as in ``split_batch``.
    """
    firsts = captions[::2] if packed else captions
    count = sum(len(ids) for ids in firsts)  # all but the first token, and [IMG0]
    if packed and single:
        count += sum(len(ids) - unlabelled + 1 for ids in captions[1::2])
    return count


def prompt_layout(rows: Sequence[Sequence[int]]) -> PromptLayout:
    """Lay out rows of ids; each image is ``VISUAL`` k times."""
    ids, mask = _pad(rows, left=True)
    return PromptLayout(ids, mask, (ids.flatten() == VISUAL).nonzero()[:, 0])


def _pad(rows: Sequence[Sequence[int]], left: bool) -> tuple[Tensor, Tensor]:
    length = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        gap = length - len(row)
        padding = [PAD] * gap
        ids.append([*padding, *row] if left else [*row, *padding])
        mask.append([0] * gap + [1] * len(row) if left else [1] * len(row) + [0] * gap)
    return torch.tensor(ids), torch.tensor(mask)
