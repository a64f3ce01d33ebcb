"""Training shared by several processes (workers), and batches trained on in parts.

A batch is cut into parts: one for each worker, several with accumulation. A part's loss is scaled
by its fraction of the batch, so that gradients and reported losses of all parts *add up* to those
of the whole batch. The data and their order therefore do not depend on the number of workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class WorkerGroup:
    """This process among those that train together; ``WorkerGroup()`` is one process alone."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> WorkerGroup:
        """The workers of the process group, or one alone where there is none."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and reports."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for every worker."""
        if self.size > 1:
            dist.barrier()

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Add tensors up over the workers, in place, in one message for each precision."""
        if self.size == 1:
            return
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            same = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in same])
            dist.all_reduce(flat)
            for tensor, part in zip(same, flat.split([t.numel() for t in same]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every worker the first worker's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def all_gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all workers in their order, without gradients.

        Args:
            own: this worker's ``(counts[rank], d)``. counts: rows of each worker, some may be 0.
        """
        own = own.detach()
        if self.size == 1:
            return own
        # Every worker sends as many rows as the longest: not every backend takes uneven ones.
        padded = own.new_zeros(max(counts), own.shape[1])
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])


def cut(count: int, pieces: int) -> list[slice]:
    """Cut ``count`` rows into consecutive pieces of about the same size; some may be empty.

    Rows 2j and 2j + 1 stay together, since packing joins them.
    """
    pairs = -(-count // 2)
    edges = [min(count, 2 * (pairs * i // pieces)) for i in range(pieces + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def own_rows(count: int, workers: WorkerGroup, accumulate: int) -> list[slice]:
    """The pieces of a batch of ``count`` rows that this worker trains on, one after the other."""
    pieces = cut(count, workers.size * accumulate)
    return pieces[workers.rank * accumulate : (workers.rank + 1) * accumulate]


def split_rows(
    count: int, workers: WorkerGroup, accumulate: int, take: Callable[[slice, float], Batch]
) -> list[tuple[Batch, float]]:
    """This worker's parts of a batch, ``take(rows, fraction)``, and their fractions of the whole.

    An empty piece stands as the first row with the fraction 0: every worker takes part in every
    step.
    """
    split = []
    for rows in own_rows(count, workers, accumulate):
        fraction = (rows.stop - rows.start) / count
        split.append((take(rows if fraction else slice(0, 1), fraction), fraction))
    return split
