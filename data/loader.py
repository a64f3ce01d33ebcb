"""Batches of aligned shards, shuffled by a seed, that resume at the exact batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.shards import AlignedShards, Columns, ShardError, concatenate, restored, take


@dataclass(frozen=True)
class ShuffledBatches:
    """Batches of a split in an order that depends on the seed alone.

    Each epoch permutes the shards, reads ``buffer_shards`` at a time, permutes the rows of that
    buffer and cuts batches from it. Within windows of ``sort_window`` batches the rows are sorted
    by length, so that a batch is padded little. The position is the number of batches before, so a
    run resumes at exactly the next batch after reading one buffer. The next buffer is read while
    the present one is used, and the next batch is made of it while the present one is trained on.

    Workers share each batch: rank ``r`` of ``n`` has every n-th row from the r-th on, so together
    they see what one process alone would see, whatever their number, also after a resumption with
    another number of them.

    Attributes:
        length: maps the rows of a buffer to their lengths; without it nothing is sorted.
        drop_short: rows that do not fill the last batch of a buffer are left out of that epoch
            (another permutation leaves out others); a buffer smaller than a batch is one batch.
    """

    shards: AlignedShards
    batch_size: int
    seed: int
    buffer_shards: int = 8
    sort_window: int = 8
    length: Callable[[Columns], Sequence[int]] | None = None
    rank: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.workers or self.batch_size % self.workers:
            raise ValueError(
                f"rank {self.rank} of {self.workers} with batches of {self.batch_size}: the batch "
                "size must be a multiple of the number of workers"
            )

    def _buffers(self, epoch: int) -> list[tuple[list[int], int]]:
        rows = self.shards.rows()
        order = np.random.default_rng([self.seed, epoch]).permutation(len(rows))
        groups = [
            order[i : i + self.buffer_shards].tolist()
            for i in range(0, len(order), self.buffer_shards)
        ]
        counts = [sum(rows[i] for i in group) for group in groups]
        # Of a buffer of no rows, such as when all of them are left out, there is no batch.
        return [
            (group, max(1, count // self.batch_size))
            for group, count in zip(groups, counts, strict=True)
            if count
        ]

    def batches_per_epoch(self) -> int:
        """Number of batches before the order starts anew."""
        return sum(batches for _, batches in self._buffers(0))

    def batches(self, start: int) -> Iterator[Columns]:
        """Endless batches from position ``start`` on.

        The number of batches of an epoch depends on how its shards are grouped, so a position is
        found by walking the plan; that reads footers only.

        Raises:
            ShardError: the shards are not aligned, or have no rows.
        """
        self.shards.check()
        if not self.batches_per_epoch():
            raise ShardError(f"no pairs of the split {self.shards.split!r} are left to train on")
        with ThreadPoolExecutor(1, "batches") as maker:
            waiting: Future[Columns] | None = None
            for buffer, rows in self._rows(start):
                following = maker.submit(self._made, buffer, rows)
                if waiting is not None:
                    yield waiting.result()
                waiting = following

    def _made(self, buffer: Columns, rows: npt.NDArray[np.int64]) -> Columns:
        """This worker's rows of a batch."""
        shared = rows[: len(rows) // self.workers * self.workers]
        return restored(take(buffer, shared[self.rank :: self.workers]))

    def _rows(self, start: int) -> Iterator[tuple[Columns, npt.NDArray[np.int64]]]:
        """The buffer and the rows in it of each batch from position ``start`` on, without end."""
        with ThreadPoolExecutor(1, "shards") as reader:
            plan = self._plan(start)
            ahead = reader.submit(self._load, *next(plan))
            while True:
                epoch, number, position, buffer, count = ahead.result()
                ahead = reader.submit(self._load, *next(plan))
                for rows in self._cut(buffer, epoch, number, count):
                    if position >= start:
                        yield buffer, rows
                    position += 1

    def _plan(self, start: int) -> Iterator[tuple[int, int, int, list[int], int]]:
        """Epoch, number, first position, shards and batches of each buffer from ``start`` on."""
        epoch, position = 0, 0
        while True:
            for number, (group, count) in enumerate(self._buffers(epoch)):
                if position + count > start:
                    yield epoch, number, position, group, count
                position += count
            epoch += 1

    def _load(
        self, epoch: int, number: int, position: int, group: list[int], count: int
    ) -> tuple[int, int, int, Columns, int]:
        names = self.shards.names()
        buffer = concatenate([self.shards.read(names[i], raw=True) for i in group])
        return epoch, number, position, buffer, count

    def _cut(
        self, buffer: Columns, epoch: int, number: int, count: int
    ) -> list[npt.NDArray[np.int64]]:
        generator = np.random.default_rng([self.seed, epoch, number])
        order = generator.permutation(len(buffer["key"]))
        order = order[: count * self.batch_size]
        if self.length is not None:
            lengths = np.asarray(self.length(buffer))
            window = self.sort_window * self.batch_size
            order = np.concatenate(
                [
                    part[np.argsort(lengths[part], kind="stable")]
                    for part in (order[i : i + window] for i in range(0, len(order), window))
                ]
            )
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]
