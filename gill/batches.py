"""Batches of the adapters' training, and how one is split over workers and accumulated parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from gill.data_parallel import WorkerGroup, own_rows, split_rows


@dataclass(frozen=True)
class FullBatch:
    """What a part of a batch knows of the whole, so that the parts' losses add up to the whole's.

    Attributes:
        rows: which of the whole's examples the part is.
        fraction: how much of the whole that is.
        features: ``(n, vision_dim)`` of the whole batch.
        text: unit vectors ``(n, retrieval_dim)`` of the whole batch, where a worker has several
            parts; None where the workers exchange them in the pass.
        counts: examples of each worker.
        labels: labels for each example of the whole, over those of the part.
        img_labels: the same of the released form of l_p.
    """

    rows: slice
    fraction: float
    features: Tensor
    text: Tensor | None
    counts: tuple[int, ...]
    labels: float
    img_labels: float = 1.0


@dataclass(frozen=True)
class AdapterBatch:
    """Token ids of the captions, ready to lay out, and what belongs to them.

    Attributes:
        features: ``(batch, vision_dim)``, pooled vision features.
        targets: ``(batch, num_targets, target_dim)``, the generator's text-encoder output, only
            where a mapper is trained together with the adapters.
        keys: names of the examples, for reports.
        packed: whether the examples are packed in pairs; None leaves it to a random draw.
        whole: set where this is a part of a batch.
    """

    captions: list[list[int]]
    features: Tensor
    targets: Tensor | None = None
    keys: tuple[str, ...] = ()
    packed: bool | None = None
    whole: FullBatch | None = None

    def __len__(self) -> int:
        return len(self.captions)


def split_batch(
    batch: AdapterBatch,
    packed: bool,
    accumulate: int,
    unlabelled: int,
    embed_text: Callable[[Sequence[list[list[int]]]], Tensor],
    count_img_labels: Callable[[list[list[int]]], int] = len,
) -> list[tuple[AdapterBatch, float]]:
    """This worker's parts of a batch, ``accumulate`` of them, and their fractions of it.

    The contrastive loss joins all examples of the batch. With one part for each worker they
    exchange their text vectors inside the pass; with more, ``embed_text`` makes the vectors of all
    parts first, without gradients (Gao et al. 2021, arXiv 2101.06983).

    Args:
        packed: whether the examples are packed in pairs, one choice for the whole batch.
        unlabelled: tokens at the start of each caption that are no label: its BOS, or none.
        embed_text: unit vectors ``(n, retrieval_dim)`` of the captions of several parts.
        count_img_labels: labels of captions in the released form of l_p.
    """
    workers = WorkerGroup.current()
    counts = tuple(
        sum(
            rows.stop - rows.start
            for rows in own_rows(len(batch), WorkerGroup(rank, workers.size), accumulate)
        )
        for rank in range(workers.size)
    )

    def labels(captions: list[list[int]]) -> float:
        return sum(len(ids) + 1 - unlabelled for ids in captions) / len(captions)

    text: Tensor | None = None
    if accumulate > 1:
        own = [batch.captions[rows] for rows in own_rows(len(batch), workers, accumulate)]
        text = workers.all_gather(embed_text([part for part in own if part]), counts)

    def part(rows: slice, fraction: float) -> AdapterBatch:
        captions = batch.captions[rows]
        relative = labels(batch.captions) / labels(captions)
        img_relative = (count_img_labels(batch.captions) / len(batch)) / (
            count_img_labels(captions) / len(captions)
        )
        return replace(
            batch,
            captions=captions,
            features=batch.features[rows],
            targets=None if batch.targets is None else batch.targets[rows],
            keys=batch.keys[rows],
            packed=packed,
            whole=FullBatch(rows, fraction, batch.features, text, counts, relative, img_relative),
        )

    return split_rows(len(batch), workers, accumulate, part)
